"""Choosing an index: what fits the data, the target and the memory, said in words."""

import os
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from nearly import arrays, metrics, storage
from nearly.errors import FormatError, InputError
from nearly.indexes import names
from nearly.indexes.base import Index, Progress
from nearly.indexes.flat import Flat
from nearly.indexes.hnsw import HNSW
from nearly.indexes.store import narrow
from nearly.indexes.vamana import Vamana

__all__ = ["INDEXES", "Estimate", "build", "estimate", "load"]

INDEXES: dict[str, type[Index]] = {index.kind: index for index in (Flat, Vamana, HNSW)}

_Kind = TypeVar("_Kind", bound=Index)

_SMALL = 5_000  # vectors under which comparing with all takes less than a millisecond or two
_DEGREE = 32
_ROW_BYTES = 28  # ids, chains and nodes of one vector
_SECONDS = 2.2e-4  # to insert one vector of 128 dimensions, one thread: measured on Zen 3, grows with log n


@dataclass(frozen=True)
class Estimate:
    """What an index would take.

    Attributes
    ----------
    index_bytes : int
        Memory of the finished index, and about the size of its file.
    peak_bytes : int
        While building, the index included and the input not.
    seconds : float
        To build, at the present number of threads; a rough figure, within a factor of two or three.

    Examples
    --------
    >>> Estimate(index_bytes=1000, peak_bytes=2000, seconds=0.5).peak_bytes
    2000
    """

    index_bytes: int
    peak_bytes: int
    seconds: float


def estimate(n: int, dim: int, *, metric: str = "l2", kind: str = "float32") -> Estimate:
    """Return what `build` would take for n vectors.

    Parameters
    ----------
    n, dim : int
    metric : str, default "l2"
    kind : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}
        Stored element type; float32 that is exact in a smaller one is stored as that.

    Examples
    --------
    >>> made = estimate(100_000, 128)
    >>> 60e6 < made.index_bytes < 120e6
    True
    """
    n, dim = arrays.check_int(n, "n", low=0), arrays.check_int(dim, "dim", low=1, high=32768)
    chosen = metrics.named(metric)
    arrays.check_choice(kind, ("float32", "float16", "bfloat16", "int8", "uint8", "bits"), "kind")
    size = {"float32": 4, "float16": 2, "bfloat16": 2}.get(kind, 1)
    stored = n * (dim * size + (4 if chosen.name == "cosine" else 0) + _ROW_BYTES)
    if n < _SMALL:
        return Estimate(stored, stored, 1e-6 * n)
    codes = min(64 * ((dim + 9) // 64 + 1), 512) if chosen.name in ("l2", "cosine", "ip") else 0
    graph = n * (4 * _DEGREE + codes)
    spread = n // 50 * _DEGREE * 24 + 64 * 1024 * 1024  # a batch's edges, the sample that codes are fitted to
    from nearly.runtime import get_threads

    seconds = n * _SECONDS * (0.5 + dim / 256) * (np.log2(max(2, n)) / 16) / get_threads()
    return Estimate(stored + graph, stored + graph + spread, float(seconds))


def build(
    vectors: Any,
    *,
    metric: str = "l2",
    recall: float = 0.95,
    ids: Any = None,
    queries: Any = None,
    memory_limit: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    **unknown: Any,
) -> Flat | Vamana:
    """Build the index that suits the data, the target and the memory.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    recall : float, default 0.95
        Mean share of the true nearest that a search should deliver.
    ids, queries, seed, threads, progress
        As for `Vamana`.
    memory_limit : int, optional
        Bytes that building may take beyond the input.

    Returns
    -------
    Flat or Vamana
        ``index.plan`` says what was chosen and why.

    Raises
    ------
    InputError
        If no index fits the limit; nothing was built.

    Examples
    --------
    >>> index = build(np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32))
    >>> type(index).__name__, "few" in index.plan
    ('Flat', True)
    """
    names.refuse("build()", unknown, names.known_to(build))
    arrays.check_fraction(recall, "recall")
    chosen = metrics.named(metric)
    made = arrays.as_vectors(vectors, bits=chosen.input == "bits")
    limit = None if memory_limit is None else arrays.check_int(memory_limit, "memory_limit", low=1)
    kind = narrow(made)
    wanted = estimate(len(made), max(1, made.dim), metric=chosen.name, kind=kind)
    flat_bytes = len(made) * (made.dim * made.array.itemsize + _ROW_BYTES)
    if limit is not None and flat_bytes > limit:
        raise InputError(f"memory_limit is {limit:,} bytes, but {len(made):,} vectors as {kind} take {flat_bytes:,}; "
                         "raise the limit, or pass vectors of a smaller dtype")  # fmt: skip
    why = None
    if len(made) < _SMALL:
        why = f"comparing with so few (under {_SMALL:,}) is quick, and exact"
    elif recall >= 1.0:
        why = "recall 1.0 was asked for: only an exact scan gives that"
    elif limit is not None and wanted.peak_bytes > limit:
        why = f"a graph would take {wanted.peak_bytes:,} bytes while building, over the limit of {limit:,}"
    if why is not None:
        index = Flat(vectors, ids=ids, metric=metric, threads=threads)
        index.calibrate(queries)
        return _explained(index, f"chosen for {len(made):,} vectors: {why}")
    graph = Vamana(vectors, ids=ids, metric=metric, recall=recall, queries=queries, seed=seed, threads=threads,
                   progress=progress)  # fmt: skip
    why = "a graph answers in a small part of the comparisons of a scan"
    return _explained(graph, f"chosen for {len(made):,} vectors: {why}")


def _explained(index: _Kind, why: str) -> _Kind:
    index._why = why
    return index


def load(
    path: str | os.PathLike[str], *, metric: Any = None, items: Any = None, verify: bool = False
) -> Flat | Vamana | HNSW:
    """Open a saved index: memory-mapped, ready at once.

    Parameters
    ----------
    path : str or path-like
    metric : callable, optional
        For an index that was built with one; functions are not saved.
    items : sequence, optional
        The items of such an index, in order of their rows.
    verify : bool, default False
        Check every byte against its checksum; otherwise all structure is checked, and only the numbers in vectors are
        trusted.

    Returns
    -------
    Index

    Raises
    ------
    FormatError
        If the file is truncated, foreign, newer or damaged.

    Examples
    --------
    >>> import tempfile
    >>> index = Flat(np.eye(3, dtype=np.float32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index.save(f"{folder}/a.nearly")
    ...     load(f"{folder}/a.nearly").search(np.array([0, 1, 0], np.float32), k=1).ids.tolist()
    [1]
    """
    file = storage.read(path)
    if file.kind == "callable":
        from nearly.indexes.callable import CallableHNSW

        return cast(HNSW, CallableHNSW._open(file, metric, items, verify))
    if metric is not None or items is not None:
        raise InputError("metric= and items= are for an index with a callable metric; this one knows its own")
    kind = INDEXES.get(file.kind)
    if kind is None:
        raise FormatError(f"{file.path} holds {file.kind!r}, which is no index that this version knows")
    index = cast(Flat | Vamana | HNSW, kind._restore(file))
    if verify:
        index.verify()
    return index
