"""Recall that an index delivers, and how fast, beside exact search."""

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import Flat, evaluate
from nearly.cli.output import per_second, table
from nearly.errors import FormatError, IdError, InputError

__all__ = ["EFFORTS", "TARGETS", "Measured", "Truth", "efforts", "exact", "measure", "measured_table", "probes",
           "queries_per_second", "targets"]  # fmt: skip

Array = NDArray[Any]
Search = Callable[[Array], Any]
Ways = dict[str, dict[str, Any]]  # arguments of search by the name of the way

TARGETS = (0.8, 0.9, 0.95, 0.99)
EFFORTS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 900, 1280)
_ENOUGH = 0.9995  # recall at which a sweep ends
_ROUNDS = 3
_SECONDS = 0.1  # of one pass
_RTOL, _ATOL = 1e-5, 1e-6  # rounding of float32 distances; the second for cosine, 1 minus a number near 1
_WRONG = 1e-3  # a difference, relative to the largest distance of a query, that is no rounding


@dataclass(frozen=True)
class Truth:
    """The true neighbors of some queries.

    Attributes
    ----------
    ids : ndarray of shape (n_queries, k), int64
        -1 where there are fewer.
    distances : ndarray of shape (n_queries, k)
        Ascending, inf where there are fewer.
    source : str
        Where they come from.
    """

    ids: NDArray[np.int64]
    distances: Array
    source: str

    @classmethod
    def by_search(cls, index: Any, queries: Array, k: int, *, threads: int | None = None) -> "Truth":
        """Compare the queries with every vector of the index."""
        hits = index.search(queries, k, threads=threads, **exact(index)["exact"])
        return cls(hits.ids, hits.distances, f"exact search of {len(index):,} vectors")

    @classmethod
    def by_ids(cls, index: Any, queries: Array, k: int, ids: NDArray[np.int64], source: str) -> "Truth":
        """Measure the neighbors that a file names, as far as the index has their vectors."""
        if len(ids) != len(queries) or ids.shape[1] < k:
            raise InputError(f"{source} has shape {ids.shape}, but {len(queries)} rows of at least {k} ids are wanted")
        ids = ids[:, :k]
        names, places = np.unique(ids, return_inverse=True)
        try:
            vectors = index.get(names[names >= 0])
        except IdError as problem:
            raise FormatError(f"{source} is the truth of other vectors: {problem}") from problem
        rows = places.reshape(ids.shape) - int((names < 0).sum())
        distances = evaluate.pair_distances(vectors, queries, rows, metric=index.metric)
        return cls(ids, np.sort(distances, axis=1), source)

    def recalls(self, hits: Any) -> NDArray[np.float64]:
        """Return the share of each query's results that are true neighbors, or as near as the k-th of them.

        Raises
        ------
        FormatError
            If something was found nearer than what this names: then it is not the truth, and recall has no meaning.
        """
        largest = np.abs(np.where(np.isfinite(self.distances), self.distances, 0)).max(axis=1, keepdims=True)
        nearer = hits.distances < self.distances - _WRONG * largest - _ATOL
        if nearer.any():
            i, rank = np.argwhere(nearer)[0]
            said, found = self.distances[i, rank], hits.distances[i, rank]
            raise FormatError(
                f"{self.source} is not the truth of these queries and vectors: at rank {rank} of query {i} it has "
                f"distance {said:.6g}, but {found:.6g} was found"
            )
        known = (hits.ids[:, :, None] == self.ids[:, None, :]).any(axis=2) & (hits.ids >= 0)
        near = np.where(known, -np.inf, hits.distances)
        return evaluate.recalls_by_distance(hits.ids, near, self.distances, rtol=_RTOL, atol=_ATOL)


@dataclass(frozen=True)
class Measured:
    """One way to search.

    Attributes
    ----------
    name : str
    settings : dict
        Arguments of ``search`` beside the queries, k and threads.
    delivered : float
        Mean recall over the queries.
    lower_bound : float
        Of that mean, one-sided 95 %, by bootstrap over the queries.
    expected : float or None
        What the index said beforehand.
    batch : float
        Queries per second, in a batch.
    single : float or None
        The same one by one; None where it was not timed.
    plan : str
    """

    name: str
    settings: dict[str, Any]
    delivered: float
    lower_bound: float
    expected: float | None
    batch: float
    single: float | None
    plan: str

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            **self.settings, "expected": self.expected, "delivered": self.delivered,
            "delivered_lower_bound": self.lower_bound, "batch_queries_per_second": self.batch,
            "single_queries_per_second": self.single, "plan": self.plan,
        }  # fmt: skip


def targets(asked: Sequence[float] = TARGETS) -> Ways:
    """Return the searches of a recall target each, by name."""
    return {f"recall {target:g}": {"recall": target} for target in asked}


def efforts(index: Any, queries: Array, k: int, truth: Truth, *, threads: int | None = None) -> Ways:
    """Return searches of rising effort, until nothing more is found."""
    chosen: Ways = {}
    if not isinstance(index, Flat):
        for effort in (e for e in EFFORTS if e >= k):
            chosen[f"effort {effort}"] = {"effort": effort}
            if truth.recalls(index.search(queries, k, effort=effort, threads=threads)).mean() >= _ENOUGH:
                break
    return chosen


def exact(index: Any) -> Ways:
    """Return the search that compares with everything."""
    return {"exact": {} if isinstance(index, Flat) else {"exact": True}}


def measure(
    index: Any, queries: Array, k: int, truth: Truth, ways: Mapping[str, Mapping[str, Any]], *,
    threads: int | None = None, single: Collection[str] | None = None,
) -> list[Measured]:  # fmt: skip
    """Measure recall and speed of some ways to search, which take turns, so that a busy moment meets all of them.

    Parameters
    ----------
    index : Index
    queries : ndarray of shape (n_queries, dim)
    k : int
    truth : Truth
    ways : mapping of str to mapping
        Arguments of ``search`` by name of the way.
    threads : int, optional
        Of the batches; queries one by one have one each.
    single : collection of str, optional
        Names of the ways that are also timed one query at a time; default all.
    """
    found = {name: index.search(queries, k, threads=threads, **settings) for name, settings in ways.items()}
    runs: dict[tuple[str, str], Search] = {}
    for name, settings in ways.items():
        runs[name, "batch"] = _in_a_batch(index, k, settings, threads)
        if single is None or name in single:
            runs[name, "single"] = _one_by_one(index, k, settings)
    speeds = queries_per_second(runs, queries)
    out = []
    for name, settings in ways.items():
        recalls = truth.recalls(found[name])
        out.append(Measured(
            name, dict(settings), float(recalls.mean()), evaluate.recall_lower_bound(recalls),
            found[name].expected_recall, speeds[name, "batch"], speeds.get((name, "single")), found[name].plan,
        ))  # fmt: skip
    return out


def _in_a_batch(index: Any, k: int, settings: Mapping[str, Any], threads: int | None) -> Search:
    return lambda queries: index.search(queries, k, threads=threads, **settings)


def _one_by_one(index: Any, k: int, settings: Mapping[str, Any]) -> Search:
    def run(queries: Array) -> None:
        for query in queries:
            index.search(query, k, **settings)

    return run


def queries_per_second(runs: Mapping[Any, Search], queries: Array) -> dict[Any, float]:
    """Return the median speed of each search over a few rounds, in which all take turns.

    Parameters
    ----------
    runs : mapping of key to callable
        Each searches for the queries that it is given.
    queries : ndarray of shape (n_queries, dim)

    Notes
    -----
    A pass takes about a tenth of a second: of fewer queries where that is enough, of all again and again where not.
    """
    passes: dict[Any, tuple[Array, int]] = {}
    for key, run in runs.items():
        for part in _growing(queries):
            passed = _timed(run, part)
            if passed >= _SECONDS:
                break
        passes[key] = part, max(1, round(_SECONDS / max(passed, 1e-6)))
    rates: dict[Any, list[float]] = {key: [] for key in runs}
    for _ in range(_ROUNDS):
        for key, (part, repeats) in passes.items():
            passed = sum(_timed(runs[key], part) for _ in range(repeats))
            rates[key].append(len(part) * repeats / max(passed, 1e-9))
    return {key: statistics.median(values) for key, values in rates.items()}


def _growing(queries: Array) -> Iterator[Array]:
    n = min(16, len(queries))
    while n < len(queries):
        yield queries[:n]
        n *= 4
    yield queries


def _timed(run: Search, queries: Array) -> float:
    started = time.perf_counter()
    run(queries)
    return time.perf_counter() - started


def probes(index: Any, n: int, *, seed: int = 0) -> Array:
    """Return queries made of an index: stored vectors moved half as far as their 10th neighbor is away.

    For bit metrics one bit in fifty is flipped instead.
    """
    ids = index.ids
    if not len(ids):
        raise InputError("an empty index has nothing to measure; add vectors first")
    rng = np.random.default_rng(seed)
    points = index.get(np.sort(rng.permutation(ids)[:n]))
    if index.metric in ("hamming", "jaccard"):
        return np.asarray(points ^ np.packbits(rng.random((len(points), points.shape[1] * 8)) < 0.02, axis=1))
    points = points.astype(np.float64)
    found = points if len(ids) == 1 else index.get(index.search(points, min(11, len(ids))).ids[:, -1])
    noise = rng.standard_normal(points.shape)
    spread = np.linalg.norm(found - points, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(points + 0.5 * spread * noise, np.float32)


def measured_table(rows: list[Measured]) -> str:
    """Return a table of rows, the last of them exact search, for people."""
    last = rows[-1]
    lines = [
        [row.name, "-" if row.expected is None else f"{row.expected:.3f}", f"{row.delivered:.3f}",
         *(cell for rate, base in ((row.batch, last.batch), (row.single, last.single))
           for cell in (per_second(rate or 0), f"{rate / base:.1f}" if rate and base else "-"))]
        for row in rows
    ]  # fmt: skip
    head = ["search", "expected", "delivered", "batch/s", "× exact", "one by one/s", "× exact"]
    return table(head, lines, left=1)
