"""Calibration of graph indexes: queries made from the data, their truth, and the trials that a recall curve needs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError
from nearly.indexes.progress import reporter
from nearly.indexes.store import as_bytes
from nearly.indexes.travel import alive_sample
from nearly.tuning import RecallCurve
from nearly.tuning import measure as measure_curve
from nearly.tuning.curve import KS, PROBE
from nearly.tuning.measuring import EASY, n_trials

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex

__all__ = ["LEAST", "Probes", "from_held_out", "from_queries", "from_stored", "held_out", "measure"]

LEAST = 256  # vectors under which a scan is quicker than any graph, so that nothing is calibrated
_FEWEST = 20  # queries of the user, which tell a recall to within about 0.05; by hand
_POINTS = 500  # that queries are made from
_BESIDE = 16  # a stream of random numbers apart from those of the turns
_LOSS = 0.001  # recall that a shallower re-rank may cost
_WIDE = 200  # a pool in which the nearest are surely found, so that only the order by codes is at fault
_DEPTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
# Harder queries: points moved by so much towards another one, or by so much of the difference of two others. Of the
# kinds that were tried (noise, midpoints, and these in other amounts) they came nearest in recall, at equal hardness,
# to CVE titles, which are of another kind than the data. Noise was too easy there, midpoints too hard everywhere.
_TOWARDS, _ALONG = 0.35, 0.3
_TURNS_TOWARDS, _TURNS_ALONG = 3, 2  # times that each point is moved
_MOST_TOWARDS, _MOST_ALONG = 400, 200  # that are kept, of those that are harder than most expected ones


class Probes(NamedTuple):
    """Calibration queries: first those that are expected, then harder ones of which some may be left out."""

    rows: NDArray[np.uint8]
    n_expected: int
    source: str


def held_out(n: int) -> int:
    """How many points are searched before they are inserted: a rule in n, so that builds repeat."""
    return min(_POINTS, max(n // 16, min(n // 8, 100)))


def from_queries(rows: NDArray[np.uint8], source: str) -> Probes:
    """The user's own queries, all of them expected."""
    if len(rows) < _FEWEST:
        raise InputError(f"queries holds {len(rows)}, but a recall measured on fewer than {_FEWEST} means nothing; a "
                         "few hundred is right, or none: then some are made from the data")  # fmt: skip
    return Probes(rows, len(rows), source)


def from_held_out(index: "GraphIndex", nodes: NDArray[np.uint32]) -> Probes:
    """Points that the graph does not hold yet, and harder queries made from them, and from others if they are few."""
    if index._store.metric.input == "any":  # nothing lies between two items
        return Probes(index._store.as_queries(nodes), len(nodes), "items held out of the build")
    points = _points(index, nodes)
    more = alive_sample(index._store, index._n_nodes, max(0, _POINTS - len(nodes)), index._seed)
    base = np.concatenate([points, _points(index, more)])
    rows = as_bytes(np.concatenate([points, *_harder(index, base)]))
    return Probes(rows, len(points), "points held out of the build and harder ones")


def from_stored(index: "GraphIndex") -> Probes:
    """Queries made from stored points, where none are held out: a graph finds the points themselves too easily."""
    points = _points(index, alive_sample(index._store, index._n_nodes, _POINTS, index._seed))
    # Under inner product all have the same few neighbors, the long ones.
    same = index._store.metric.name == "ip"
    expected = _towards(index, points, 0.25, _BESIDE) if same else _beside(index, points)
    rows = as_bytes(np.concatenate([expected, *_harder(index, points)]))
    return Probes(rows, len(points), "points made from stored ones")


def _beside(index: "GraphIndex", points: NDArray[Any]) -> NDArray[Any]:
    """For each point one that stands to its neighbors as they stand to it: y + z - x of two neighbors y and z of x.

    Of all kinds that were tried on five sets these were as hard as points that are held out, and their recall was it.
    """
    store, n, k = index._store, len(points), min(11, index._n_rows)
    ids = np.empty((n, k), np.int64)
    index._graph.search(store.query_bytes, as_bytes(points), store.metric.number, 64, 2 * k, ids,
                        np.empty((n, k), np.float32), np.empty(n, np.uint32))  # fmt: skip
    rng = np.random.default_rng((index._seed, _BESIDE))
    drawn = np.take_along_axis(ids, rng.permuted(np.tile(np.arange(k), (n, 1)), axis=1)[:, :2], axis=1)
    nodes = store.column("nodes")[index._id_map().rows(drawn.ravel())[0]].reshape(n, 2)  # none found: some row's
    y, z = (_points(index, np.ascontiguousarray(nodes[:, i])) for i in range(2))
    return np.asarray(y ^ z ^ points if points.dtype == np.uint8 else y + z - points)


def _harder(index: "GraphIndex", points: NDArray[Any]) -> list[NDArray[Any]]:
    made = [_towards(index, points, _TOWARDS, turn) for turn in range(_TURNS_TOWARDS)]
    return [*made, *(_along(index, points, _ALONG, _TURNS_TOWARDS + turn) for turn in range(_TURNS_ALONG))]


def _points(index: "GraphIndex", nodes: NDArray[np.uint32]) -> NDArray[Any]:
    """Vectors of nodes: packed bits, or float32, of unit length under cosine."""
    store = index._store
    return np.asarray(store.raw(nodes).array if store.metric.input == "bits" else store.in_form(nodes))


def _towards(index: "GraphIndex", points: NDArray[Any], by: float, turn: int) -> NDArray[Any]:
    """Points moved towards another one; bits: so many of them are the other's."""
    rng = np.random.default_rng((index._seed, turn))
    others = points[rng.permutation(len(points))]
    if points.dtype == np.uint8:
        return np.asarray(points ^ ((points ^ others) & _some_bits(rng, points.shape, by)))
    return np.asarray(np.float32(1 - by) * points + np.float32(by) * others)


def _along(index: "GraphIndex", points: NDArray[Any], by: float, turn: int) -> NDArray[Any]:
    """Points moved by a part of the difference of two others; bits: so many of the bits in which those differ."""
    rng = np.random.default_rng((index._seed, turn))
    one, other = points[rng.permutation(len(points))], points[rng.permutation(len(points))]
    if points.dtype == np.uint8:
        return np.asarray(points ^ ((one ^ other) & _some_bits(rng, points.shape, by)))
    return np.asarray(points + np.float32(by) * (one - other))


# The name is quoted because numpy.random, a third of what `import nearly` would cost, is loaded when it is first used.
def _some_bits(rng: "np.random.Generator", shape: tuple[int, ...], share: float) -> NDArray[np.uint8]:
    return np.packbits(rng.random((shape[0], shape[1] * 8)) < share, axis=1)


def measure(
    index: "GraphIndex", probes: Probes, bits: NDArray[np.uint64] | None, threads: int, progress: Any = False
) -> tuple[RecallCurve, float]:
    """Return the curve of an index for these queries, and how deep its re-rank must go.

    ``bits`` passes the rows that the graph holds, where it does not hold the expected ones yet.
    """
    trials = _Trials(index, probes, bits, threads)
    factor, report = trials.depth_factor(), reporter(progress, n_trials, "trials")
    curve = measure_curve(
        lambda width, ks, which: trials.hits(width, ks, index._contract.depth(index, max(ks), width, factor), which),
        hardness=trials.hardness, n_expected=probes.n_expected, most=trials.deepest, n_vectors=index._n_nodes,
        source=probes.source, seed=index._seed, report=report,
    )  # fmt: skip
    if report is not None:
        report(n_trials)
    if bits is not None:  # among more vectors the same recall takes a wider pool: at most in proportion
        grown = index._n_nodes / max(1, index._n_nodes - probes.n_expected)
        curve = replace(curve, widths=np.rint(curve.widths * grown).astype(np.uint32))
    return curve, factor


class _Trials:
    """Searches of an index for queries whose truth is known."""

    def __init__(self, index: "GraphIndex", probes: Probes, bits: NDArray[np.uint64] | None, threads: int) -> None:
        self._index, self._threads = index, threads
        self._rows, self.hardness = self._chosen(probes)
        store = index._store
        self.deepest = min(max(KS), index._n_rows)
        n = len(self._rows)
        self._truth = np.empty((n, self.deepest), np.float32)
        _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, self._rows, store.metric.number,
                   np.empty((n, self.deepest), np.int64), self._truth, np.empty(n, np.uint32), bits, None,
                   threads)  # fmt: skip

    def _chosen(self, probes: Probes) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The expected queries and those that are harder than most of them, and how hard they are."""
        hardness = np.empty(len(probes.rows), np.float32)
        self._search(probes.rows, KS[0], max(KS[0], 2 * PROBE), KS[0], hardness)
        n = probes.n_expected
        if n == len(hardness):
            return probes.rows, hardness
        hard = n + np.flatnonzero(hardness[n:] > np.quantile(hardness[:n], EASY))
        towards = (len(hardness) - n) * _TURNS_TOWARDS // (_TURNS_TOWARDS + _TURNS_ALONG)  # come first
        first, last = hard[hard < n + towards][:_MOST_TOWARDS], hard[hard >= n + towards][:_MOST_ALONG]
        kept = np.concatenate([np.arange(n), first, last])
        return np.ascontiguousarray(probes.rows[kept]), hardness[kept]

    def _search(
        self, rows: NDArray[np.uint8], k: int, width: int, depth: int, hardness: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        n, store = len(rows), self._index._store
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        seen = np.empty(n, np.float32) if hardness is None else hardness
        self._index._graph.search(
            store.query_bytes, rows, store.metric.number, width, depth, ids, distances, np.empty(n, np.uint32), None,
            PROBE, np.zeros(0, np.float32), np.array([width], np.uint32), seen, self._threads,
        )  # fmt: skip
        return distances

    def hits(self, width: int, ks: Sequence[int], depth: int, which: NDArray[np.intp]) -> NDArray[np.int32]:
        """How many of the true neighbors are found, of shape (ks, queries); ties count."""
        distances = self._search(np.ascontiguousarray(self._rows[which]), min(max(ks), self.deepest), width, depth)
        truth = self._truth[which]
        return np.stack([(distances[:, :k] <= truth[:, k - 1 : k]).sum(axis=1) for k in ks]).astype(np.int32)

    def depth_factor(self) -> float:
        """How many times k candidates must be ranked so that the order by codes costs next to nothing."""
        if self._index._travel.codes is None:
            return _DEPTHS[0]
        k = min(10, self.deepest)
        some = np.arange(len(self._rows))[:: max(1, len(self._rows) // _POINTS)]
        enough = self.hits(_WIDE, (k,), _WIDE, some).mean() - _LOSS * k
        depths = (d for d in _DEPTHS if self.hits(_WIDE, (k,), math.ceil(k * d), some).mean() >= enough)
        return next(depths, _DEPTHS[-1])
