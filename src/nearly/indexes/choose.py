"""Choosing an index: what fits the data, the target and the memory, said in words."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from nearly import arrays, metrics, storage
from nearly.arrays import Vectors
from nearly.errors import FormatError, InputError
from nearly.indexes import files, memory, names
from nearly.indexes.base import Index, Progress
from nearly.indexes.flat import Flat
from nearly.indexes.hnsw import HNSW
from nearly.indexes.ivf import IVF
from nearly.indexes.memory import Shape
from nearly.indexes.progress import reporter
from nearly.indexes.store import ELEMENTS, narrow, row_bytes
from nearly.indexes.travel import LINE
from nearly.indexes.vamana import Vamana
from nearly.indexes.window import Window
from nearly.metrics import Metric

__all__ = ["INDEXES", "Estimate", "build", "estimate", "load", "restore"]

INDEXES: dict[str, type[Index]] = {index.kind: index for index in (Flat, Vamana, HNSW, IVF)}

_Kind = TypeVar("_Kind", bound=Index)

_SMALL = 5_000  # vectors under which comparing with all takes less than a millisecond or two
_LISTED = 0.4  # of these seconds, where lists are built and no graph
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
    disk_bytes : int
        Of vectors that stay on disk, where a ``memory_limit`` asks for that.

    Examples
    --------
    >>> Estimate(index_bytes=1000, peak_bytes=2000, seconds=0.5).peak_bytes
    2000
    """

    index_bytes: int
    peak_bytes: int
    seconds: float
    disk_bytes: int = 0


def estimate(
    n: int, dim: int, *, metric: str = "l2", kind: str = "float32", sample: Any = None,
    memory_limit: int | None = None, disk: bool = True,
) -> Estimate:  # fmt: skip
    """Return what `build` would take for n distinct vectors.

    Parameters
    ----------
    n, dim : int
    metric : str, default "l2"
    kind : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}
        Stored element type; float32 that is exact in a smaller one is stored as that.
    sample : array-like of shape (m, dim), optional
        Some of the vectors, a few thousand: the size of codes depends on them, and without them the largest is assumed.
    memory_limit, disk
        As for `build`.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        If no index fits the limit.

    Examples
    --------
    >>> made = estimate(100_000, 128)
    >>> 60e6 < made.index_bytes < 120e6
    True
    >>> estimate(100_000, 384, memory_limit=100_000 * 384 * 4 // 8).disk_bytes
    153600000
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
    limit = None if memory_limit is None else arrays.check_int(memory_limit, "memory_limit", low=1)
    shape, _ = _choice(n, dim, kind, chosen, 0.95, limit, lambda: probe, arrays.check_flag(disk, "disk"))
    index_bytes = _kept(n, dim, kind, chosen, shape)
    if shape is None:
        return Estimate(index_bytes, memory.peak_bytes(n, dim, chosen, index_bytes, None), 1e-6 * n)
    on_disk = n * row_bytes(chosen, kind, dim) if shape.refine == "disk" else 0
    seconds = _seconds(n, dim) * (_LISTED if shape.n_lists else 1.0)
    return Estimate(index_bytes, memory.peak_bytes(n, dim, chosen, index_bytes, shape), seconds, on_disk)


def _kept(n: int, dim: int, kind: str, metric: Metric, shape: Shape | None) -> int:
    """Bytes of memory of the finished index."""
    if shape is None:
        return memory.flat_bytes(n, dim, kind, metric)
    return memory.flat_bytes(n, dim, kind, metric, shape.refine) + shape.bytes(n)


def _choice(
    n: int, dim: int, kind: str, metric: Metric, recall: float, limit: int | None,
    sample: Callable[[], Vectors | None], disk: bool = True, copied: int = 0, n_queries: int = 0, threads: int = 0,
) -> tuple[Shape | None, str]:  # fmt: skip
    """What to build within a limit, `Flat` where it is None, and why; InputError where nothing fits."""

    def peak(shape: Shape | None) -> int:
        return copied + memory.peak_bytes(n, dim, metric, _kept(n, dim, kind, metric, shape), shape, n_queries, threads)

    scanned = None
    if n < _SMALL:
        scanned = f"comparing with so few (under {_SMALL:,}) is quick, and exact"
    elif recall >= 1.0:
        scanned = "recall 1.0 was asked for: only an exact scan gives that"
    usual = "a graph answers in a small part of the comparisons of a scan"
    if limit is None:
        return (None, scanned) if scanned else (memory.usual_graph(metric, dim, sample(), recall), usual)
    offered: list[Shape | None] = []
    left: list[str] = []
    for shape in [None] if scanned else memory.candidates(metric, dim, kind, n, sample(), recall, disk):
        offered.append(shape)
        if (taken := peak(shape)) <= limit:
            if not left:
                return shape, scanned or usual
            what = "a scan of all vectors" if shape is None else shape.name
            return shape, (f"under a limit of {limit:,} bytes: {taken:,} while it is built, with {what}; faster, but "
                           f"larger: {', '.join(left)}")  # fmt: skip
        left.append(f"{'a scan of all vectors' if shape is None else shape.name} ({taken:,})")
    # Where only what lists are made of for a while does not fit, they are built all the same.
    kept = {shape: _kept(n, dim, kind, metric, shape) + n * memory.HASH_BYTES for shape in offered
            if shape is not None and shape.n_lists and shape.refine != "memory"}  # fmt: skip
    for shape, stays in kept.items():
        if stays <= limit:
            return shape, (f"under a limit of {limit:,} bytes: {stays:,} with {shape.name}, and {peak(shape):,} for a "
                           "while as it is built, by samples that are read into memory")  # fmt: skip
    least = min([peak(None), *kept.values()])
    raise InputError(f"memory_limit is {limit:,} bytes, but {n:,} vectors as {kind} take {least:,} while they are "
                     "stored; raise the limit to that, or pass vectors of a smaller dtype")  # fmt: skip


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
    disk: bool = True,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    **unknown: Any,
) -> Flat | Vamana | IVF:
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
        Bytes that building may take beyond the input, the index included. The fastest that fits is taken, in an order
        that docs/memory.md has: graphs by shorter codes, graphs of lower degrees, inverted lists, the same with vectors
        on disk (``refine="disk"``), a scan, or codes alone. If what lists are made of for a while is all that does not
        fit, the limit is for what they keep: ``index.plan`` and `estimate` say how much more is taken.
    disk : bool, default True
        Whether full vectors may be in a file under a ``memory_limit``. False: where they do not fit, codes stand alone
        (``refine=None``), and distances are estimates.

    Returns
    -------
    Flat, Vamana or IVF
        ``index.plan`` says what was chosen and why.

    Raises
    ------
    InputError
        If no index fits the limit; the message names the least that does. If codes alone turn out not to reach the
        recall.

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
    copied = 0 if isinstance(vectors, np.ndarray) and np.may_share_memory(vectors, made.array) else made.array.nbytes
    n_queries = 0 if queries is None else len(arrays.as_queries(queries, bits=chosen.input == "bits")[0])
    sample = (lambda: None) if limit is None else (lambda: memory.sample_of(made))
    may = arrays.check_flag(disk, "disk")
    shape, why = _choice(n, dim, kind, chosen, recall, limit, sample, may, copied, n_queries, threads or 0)
    if shape is None:
        flat = Flat(made, ids=ids, metric=metric, threads=threads)
        flat.calibrate(queries)
        if (report := reporter(progress, n)) is not None:
            report(n)
        return _explained(flat, f"chosen for {n:,} vectors: {why}")
    options: dict[str, Any] = {"ids": ids, "metric": metric, "refine": shape.refine, "recall": recall,
                               "queries": queries, "seed": seed, "threads": threads, "progress": progress}  # fmt: skip
    if shape.n_lists:
        lists = IVF(made, quantizer=shape.quantizer, **options)
        if (reached := lists._contract.reached(10)) is not None and reached < recall:
            raise InputError(f"under memory_limit={limit:,} only codes alone fit, which reach {reached:.3f} of recall "
                             f"{recall:g}; raise the limit, ask for less, or pass disk=True")  # fmt: skip
        return _explained(lists, f"chosen for {n:,} vectors: {why}")
    quantizer = None if limit is None else shape.quantizer
    index = Vamana(made, degree=shape.degree, quantizer=quantizer, **options)
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
    if files.refine_of(file) == "disk":  # memory holds the rest: whatever becomes of the file is no crash
        file.hold("vectors")
    return cast(Flat | Vamana | HNSW | IVF, kind._restore(file))
