"""Choosing an index: what fits the data, the target and the memory, said in words."""

import os
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from nearly import arrays, metrics, storage
from nearly.errors import FormatError, InputError
from nearly.indexes import files, memory, names
from nearly.indexes.base import Index, Progress
from nearly.indexes.flat import Flat
from nearly.indexes.hnsw import HNSW
from nearly.indexes.ivf import IVF
from nearly.indexes.progress import reporter
from nearly.indexes.store import ELEMENTS, narrow
from nearly.indexes.travel import LINE
from nearly.indexes.vamana import Vamana
from nearly.indexes.window import Window

__all__ = ["INDEXES", "Estimate", "build", "estimate", "load", "restore"]

INDEXES: dict[str, type[Index]] = {index.kind: index for index in (Flat, Vamana, HNSW, IVF)}

_Kind = TypeVar("_Kind", bound=Index)

_SMALL = 5_000  # vectors under which comparing with all takes less than a millisecond or two
_SECONDS = 2.2e-4  # to insert one vector of 128 dimensions, one thread: measured on Zen 3, grows with log n


@dataclass(frozen=True)
class Estimate:
    """What an index would take.

    Attributes
    ----------
    index_bytes : int
        Memory of the finished index, and about the size of its file; fewer where vectors are equal.
    peak_bytes : int
        While building, the index included and the input not: what a ``memory_limit`` is compared with.
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


def estimate(n: int, dim: int, *, metric: str = "l2", kind: str = "float32", sample: Any = None) -> Estimate:
    """Return what `build` would take for n distinct vectors.

    Parameters
    ----------
    n, dim : int
    metric : str, default "l2"
    kind : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}
        Stored element type; float32 that is exact in a smaller one is stored as that.
    sample : array-like of shape (m, dim), optional
        Some of the vectors, a few thousand: the size of codes depends on them, and without them the largest is assumed.

    Returns
    -------
    Estimate

    Examples
    --------
    >>> made = estimate(100_000, 128)
    >>> 60e6 < made.index_bytes < 120e6
    True
    """
    n, dim = arrays.check_int(n, "n", low=0), arrays.check_int(dim, "dim", low=1, high=32768)
    chosen = metrics.named(metric)
    arrays.check_choice(kind, (*ELEMENTS, "bits"), "kind")
    bits = chosen.input == "bits"
    if bits != (kind == "bits"):
        raise InputError(f"kind is {kind!r}, but {chosen.name} compares {'bits' if bits else 'numbers'}; pass kind="
                         + ('"bits"' if bits else 'the type of the numbers, such as "float32"'))  # fmt: skip
    probe = None if sample is None else arrays.as_vectors(sample, name="sample", dim=dim, bits=bits)
    if probe is not None:
        arrays.check_finite(probe, "sample")
    stored = memory.flat_bytes(n, dim, kind, chosen)
    if n < _SMALL:
        return Estimate(stored, memory.peak_bytes(n, dim, chosen, stored, None), 1e-6 * n)
    shape = next(memory.graphs(chosen, dim, probe, 0.95))
    index_bytes = stored + shape.bytes(n)
    return Estimate(index_bytes, memory.peak_bytes(n, dim, chosen, index_bytes, shape), _seconds(n, dim))


def _seconds(n: int, dim: int) -> float:
    from nearly.runtime import get_threads

    return float(n * _SECONDS * (0.5 + dim / 256) * (np.log2(max(2, n)) / 16) / get_threads())


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
        Bytes that building may take beyond the input, the index included. Where the usual graph does not fit, codes
        give way first, then the degree, then the graph.

    Returns
    -------
    Flat or Vamana
        ``index.plan`` says what was chosen and why.

    Raises
    ------
    InputError
        If no index fits the limit; nothing was built. The message names the least that does.

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
    n, dim, kind = len(made), max(1, made.dim), narrow(made)
    arrays.check_finite(made)
    arrays.check_callback(progress, "progress")
    arrays.check_seed(seed)
    if queries is not None:
        arrays.as_queries(queries, bits=chosen.input == "bits", dim=made.dim if n else None)
    limit = None if memory_limit is None else arrays.check_int(memory_limit, "memory_limit", low=1)
    stored = memory.flat_bytes(n, dim, kind, chosen)
    copied = 0 if isinstance(vectors, np.ndarray) and np.may_share_memory(vectors, made.array) else made.array.nbytes
    least = memory.peak_bytes(n, dim, chosen, stored, None) + copied
    if limit is not None and least > limit:
        raise InputError(f"memory_limit is {limit:,} bytes, but {n:,} vectors as {kind} take {least:,} while they are "
                         "stored; raise the limit to that, or pass vectors of a smaller dtype")  # fmt: skip
    shape, why = None, "a graph answers in a small part of the comparisons of a scan"
    if n < _SMALL:
        why = f"comparing with so few (under {_SMALL:,}) is quick, and exact"
    elif recall >= 1.0:
        why = "recall 1.0 was asked for: only an exact scan gives that"
    elif limit is None:
        shape = next(memory.graphs(chosen, dim, None, recall))
    else:
        n_queries = 0 if queries is None else len(arrays.as_queries(queries, bits=chosen.input == "bits")[0])
        peaks = {
            shape: copied + memory.peak_bytes(n, dim, chosen, stored + shape.bytes(n), shape, n_queries)
            for shape in memory.graphs(chosen, dim, memory.sample_of(made), recall)
        }
        shape = next((shape for shape, peak in peaks.items() if peak <= limit), None)
        usual, smallest = next(iter(peaks.values())), min(peaks.values())
        if shape is None:
            why = f"the smallest graph takes {smallest:,} bytes while it is built, over the limit of {limit:,}"
        elif peaks[shape] != usual:
            why = (f"under a limit of {limit:,} bytes: {peaks[shape]:,} while it is built, with degree "
                   f"{shape.degree} and {shape.code}; the usual graph takes {usual:,}")  # fmt: skip
    if shape is None:
        flat = Flat(made, ids=ids, metric=metric, threads=threads)
        flat.calibrate(queries)
        if (report := reporter(progress, n)) is not None:
            report(n)
        return _explained(flat, f"chosen for {n:,} vectors: {why}")
    quantizer = None if limit is None else shape.quantizer
    index = Vamana(made, ids=ids, metric=metric, degree=shape.degree, quantizer=quantizer, recall=recall,
                   queries=queries, seed=seed, threads=threads, progress=progress)  # fmt: skip
    return _explained(index, f"chosen for {n:,} vectors: {why}; {_why_codes(index)}")


def _why_codes(index: Vamana) -> str:
    """Why a graph travels by what it travels by."""
    fitted, store = index._travel.fitted, index._store
    if store.metric.name not in memory.CODED:
        return f"vectors, as there are no codes under {store.metric.name}"
    if fitted is None:
        return "vectors, as codes would not be smaller or nothing could be fitted"
    lines, whole = (-(-size // LINE) for size in (fitted.row_bytes, store.vectors.stride))
    what = (
        "as many components as the target needs" if getattr(fitted, "dims", store.dim) < store.dim else "all dimensions"
    )
    if lines >= whole:
        return f"codes of {what} are compared as whole numbers, which is quicker"
    return f"codes of {what} take {lines} cache line{'s' * (lines > 1)} a comparison, vectors {whole}"


def _explained(index: _Kind, why: str) -> _Kind:
    index._why = why
    return index


def load(
    path: str | os.PathLike[str], *, metric: Any = None, items: Any = None, verify: bool = False
) -> Flat | Vamana | HNSW | IVF | Window:
    """Open a saved index: memory-mapped, ready at once.

    Parameters
    ----------
    path : str or path-like
    metric : callable, optional
        For an index that was built with one; functions are not saved.
    items : sequence, optional
        Of such an index, where they could not be saved: its items, in ascending order of their ids.
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

        opened = CallableHNSW._open(file, metric, items)
        if verify:
            opened.verify()
        return opened
    if metric is not None or items is not None:
        raise InputError("metric= and items= are for an index with a callable metric; this one knows its own")
    index = Window._restore(file) if file.kind == Window.kind else restore(file)
    if verify:
        index.verify()
    return index


def restore(file: storage.File) -> Flat | Vamana | HNSW | IVF:
    """Return the index of a file that is open already; everything but its vectors is checked."""
    kind = INDEXES.get(file.kind)
    if kind is None:
        raise FormatError(f"{file.path} holds {file.kind!r}, which is no index that this version knows")
    if files.refine_of(file) == "disk":  # memory holds the rest, so nothing that becomes of the file ends a search badly
        file.hold("vectors")
    return cast(Flat | Vamana | HNSW | IVF, kind._restore(file))
