"""Calibration of graph indexes: queries made from the data, their truth, and the trials that a recall curve needs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError
from nearly.indexes import needs, sifting
from nearly.indexes.progress import reporter
from nearly.indexes.store import NONE, as_bytes
from nearly.indexes.travel import NOBODY, alive_sample
from nearly.tuning import RecallCurve
from nearly.tuning import measure as measure_curve
from nearly.tuning.curve import ANCHOR, KS, PROBE
from nearly.tuning.measuring import EASY, n_trials
from nearly.tuning.measuring import Effort as Tried

if TYPE_CHECKING:
    from nearly.indexes.contract import Effort
    from nearly.indexes.graph import GraphIndex

__all__ = [
    "LEAST",
    "Probes",
    "as_queries",
    "delivered",
    "from_held_out",
    "from_queries",
    "from_stored",
    "held_out",
    "measure",
]

LEAST = 256  # vectors under which a scan is quicker than any graph, so that nothing is calibrated
_FEWEST = 20  # queries of the user, which tell a recall to within about 0.05; by hand
_POINTS = 500  # that queries are made from
_LOSS = 0.001  # recall that a shallower re-rank may cost
_WIDE = 200  # a pool in which the nearest are surely found, so that only the order by codes is at fault
_DEPTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
# Harder queries: points moved by so much towards another one, or by so much of the difference of two others. Of the
# kinds that were tried (noise, midpoints, and these in other amounts) they came nearest in recall, at equal hardness,
# to CVE titles, which are of another kind than the data. Noise was too easy there, midpoints too hard everywhere.
_TOWARDS, _ALONG = 0.35, 0.3
_TURNS_TOWARDS, _TURNS_ALONG = 3, 2  # times that each point is moved
# Harder than most expected ones: so many are kept for each of these, and so many at least, enough for three groups.
_KEPT_TOWARDS, _KEPT_ALONG = (0.8, 120), (0.4, 60)


class Probes(NamedTuple):
    """Calibration queries: those that are expected, those of topics, then harder ones of which some may be left out.

    ``apart`` has the nodes of the first ones if they are stored vectors, ``topic`` which topic they are of, from 1 on.
    """

    rows: NDArray[np.uint8]
    n_expected: int
    source: str
    apart: NDArray[np.uint32] = NOBODY
    topic: NDArray[np.intp] = np.zeros(0, np.intp)


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


def from_stored(index: "GraphIndex", topics: Sequence[NDArray[np.uint32]] = (), n: int = _POINTS) -> Probes:
    """Stored points, each searched as if it was not there, points of topics likewise, and harder ones."""
    drawn = alive_sample(index._store, index._n_nodes, _POINTS, index._seed)
    apart = [index._store.alone(drawn[:n])]
    for topic in topics:
        there = index._store.alone(index._store.in_use(topic, index._n_nodes))
        apart.append(np.setdiff1d(there, np.concatenate(apart)).astype(np.uint32))
    points = [_points(index, nodes) for nodes in apart]
    rows = as_bytes(np.concatenate([*points, *_harder(index, _points(index, drawn))]))
    of_topic = np.repeat(np.arange(len(apart)), [len(nodes) for nodes in apart])
    return Probes(rows, len(apart[0]), "stored points, set apart, and harder ones", np.concatenate(apart), of_topic)


def _harder(index: "GraphIndex", points: NDArray[Any]) -> list[NDArray[Any]]:
    made = [_towards(index, points, _TOWARDS, turn) for turn in range(_TURNS_TOWARDS)]
    return [*made, *(_along(index, points, _ALONG, _TURNS_TOWARDS + turn) for turn in range(_TURNS_ALONG))]


def _points(index: "GraphIndex", nodes: NDArray[np.uint32]) -> NDArray[Any]:
    """Vectors of nodes: packed bits, or float32, of unit length under cosine."""
    store = index._store
    return np.asarray(store.raw(nodes).array if store.metric.input == "bits" else store.in_form(nodes))


def as_queries(index: "GraphIndex", nodes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Vectors of nodes, as the core takes queries."""
    return as_bytes(_points(index, nodes))


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


class Measured(NamedTuple):
    """The curve of an index, how deep its re-rank must go, and what filtered searches need."""

    curve: RecallCurve
    factor: float
    needs: needs.Needs | None


def measure(
    index: "GraphIndex", probes: Probes, bits: NDArray[np.uint64] | None, threads: int, progress: Any = False
) -> Measured:
    """Measure an index by these queries; ``bits`` passes the rows that its graph holds, if not all expected ones."""
    trials = _Trials(index, probes, bits, threads)
    factor, report = trials.depth_factor(), reporter(progress, n_trials, "trials")

    def depth(effort: Tried, ks: Sequence[int]) -> int:
        return index._contract.depth(index, max(ks), 0 if math.isfinite(effort.reach) else effort.width, factor)

    curve = measure_curve(
        lambda effort, ks, which: trials.hits(effort, ks, depth(effort, ks), which),
        hardness=trials.hardness, n_expected=probes.n_expected, most=trials.deepest, n_vectors=index._n_nodes,
        source=probes.source, seed=index._seed, report=report, topic=trials.topic,
        stepped=index._store.metric.input != "float",
    )  # fmt: skip
    filtered = None
    if bool(np.isfinite(curve.reaches).all()) and index._store.metric.input == "float":
        shares = [share for share in needs.SHARES if sifting.worth(index, share)]
        ranked = index._contract.depth(index, ANCHOR, 0, factor)
        filtered = needs.measured(index, trials.probe, curve, ranked, shares, bits, threads)
    if report is not None:
        report(n_trials)
    return Measured(curve, factor, filtered)


def delivered(
    index: "GraphIndex", nodes: NDArray[np.uint32], how: "Effort", threads: int = 0
) -> NDArray[np.floating[Any]]:
    """Recall@10 of a search for each of these nodes as if it was not there."""
    rows, store = as_queries(index, nodes), index._store
    n, k = len(rows), min(10, len(index) - 1)
    found, bounds = np.empty((n, k), np.float32), how.bounds if how.bounds is not None else np.zeros(0, np.float32)
    widths = how.widths if how.widths is not None else np.array([how.width])
    stretch = index._n_rows / len(index)  # removed ones take places, too
    widths = np.ceil(widths * stretch).astype(np.uint32)
    index._graph.search(
        store.query_bytes, rows, store.metric.number, int(widths.max()), how.depth, np.empty((n, k), np.int64),
        found, np.empty(n, np.uint32), None, PROBE, bounds, widths, None, threads, nodes, how.reaches,
        how.anchor, stretch,
    )  # fmt: skip
    return np.asarray((found <= _truth(index, rows, k, nodes, None, threads)[:, -1:]).mean(axis=1))


def _truth(
    index: "GraphIndex", rows: NDArray[np.uint8], k: int, without: NDArray[np.uint32],
    bits: NDArray[np.uint64] | None, threads: int,
) -> NDArray[np.float32]:  # fmt: skip
    """Distances of the k nearest that pass, other than the node that each query does without."""
    store, n, wanted = index._store, len(rows), k + bool((without != NONE).any())
    ids, found = np.empty((n, wanted), np.int64), np.empty((n, wanted), np.float32)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, rows, store.metric.number, ids, found,
               np.empty(n, np.uint32), bits, None, threads)  # fmt: skip
    if wanted > k:
        nodes = store.column("nodes")[index._id_map().rows(ids.ravel())[0]].reshape(n, wanted)
        found[(nodes == without[:, None]) & (ids >= 0)] = np.inf
        found.sort(axis=1)
    return found[:, :k]


class _Trials:
    """Searches of an index for queries whose truth is known."""

    def __init__(self, index: "GraphIndex", probes: Probes, bits: NDArray[np.uint64] | None, threads: int) -> None:
        self._index, self._threads = index, threads
        # Among the vectors that are still to come the same recall takes a pool that is wider in proportion: now a walk
        # goes by as many fewer of the nearest.
        self._present = 1.0 if bits is None else 1 - probes.n_expected / max(1, index._n_nodes)
        self._rows, self._without = probes.rows, np.full(len(probes.rows), NONE, np.uint32)
        self._without[: len(probes.apart)] = probes.apart
        self.topic = np.zeros(len(probes.rows), np.intp)
        self.topic[: len(probes.topic)] = probes.topic
        self.hardness = np.empty(len(probes.rows), np.float32)
        self._search(np.arange(len(probes.rows)), KS[0], Tried(2 * PROBE, np.inf, ANCHOR), KS[0], self.hardness)
        kept = self._chosen(probes)
        self._rows = np.ascontiguousarray(probes.rows[kept])
        self._without, self.topic, self.hardness = self._without[kept], self.topic[kept], self.hardness[kept]
        self.deepest = min(max(KS), index._n_rows - 1)
        self._truth = _truth(index, self._rows, self.deepest, self._without, bits, threads)

    @property
    def probe(self) -> needs.Probe:
        """The queries."""
        return needs.Probe(self._rows, self._without, self.hardness)

    def _chosen(self, probes: Probes) -> NDArray[np.intp]:
        """The expected queries, those of topics, and those that are harder than most expected ones."""
        hardness, n = self.hardness, max(probes.n_expected, len(probes.apart))
        if n == len(hardness):
            return np.arange(n)
        hard = n + np.flatnonzero(hardness[n:] > np.quantile(hardness[: probes.n_expected], EASY))
        towards = (len(hardness) - n) * _TURNS_TOWARDS // (_TURNS_TOWARDS + _TURNS_ALONG)  # come first
        most = [max(fewest, math.ceil(share * n)) for share, fewest in (_KEPT_TOWARDS, _KEPT_ALONG)]
        first, last = hard[hard < n + towards][: most[0]], hard[hard >= n + towards][: most[1]]
        return np.concatenate([np.arange(n), first, last])

    def _search(
        self, which: NDArray[np.intp], k: int, effort: Tried, depth: int, hardness: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], int]:
        """Distances of the nearest, and how many lists were read."""
        rows, without = np.ascontiguousarray(self._rows[which]), np.ascontiguousarray(self._without[which])
        n, store = len(rows), self._index._store
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        seen = np.empty(n, np.float32) if hardness is None else hardness
        width, anchor = max(k, round(effort.width * self._present)), max(1, round(effort.anchor * self._present))
        _, n_lists, *_ = self._index._graph.search(
            store.query_bytes, rows, store.metric.number, width, depth, ids, distances, np.empty(n, np.uint32),
            None, PROBE, np.zeros(0, np.float32), np.array([width], np.uint32), seen, self._threads, without,
            np.array([effort.reach], np.float32), anchor,
        )  # fmt: skip
        return distances, n_lists

    def hits(
        self, effort: Tried, ks: Sequence[int], depth: int, which: NDArray[np.intp]
    ) -> tuple[NDArray[np.int32], int]:
        """How many of the true neighbors are found, of shape (ks, queries), ties counted; how many lists were read."""
        distances, n_lists = self._search(which, min(max(ks), self.deepest), effort, depth)
        truth = self._truth[which]
        found = [(distances[:, :k] <= truth[:, k - 1 : k]).sum(axis=1) for k in ks]
        return np.stack(found).astype(np.int32), n_lists

    def depth_factor(self) -> float:
        """How many times k candidates must be ranked so that the order by codes costs next to nothing."""
        if self._index._travel.codes is None:
            return _DEPTHS[0]
        k = min(10, self.deepest)
        some = np.arange(len(self._rows))[:: max(1, len(self._rows) // _POINTS)]
        wide = Tried(_WIDE, np.inf, ANCHOR)
        enough = self.hits(wide, (k,), _WIDE, some)[0].mean() - _LOSS * k
        depths = (d for d in _DEPTHS if self.hits(wide, (k,), math.ceil(k * d), some)[0].mean() >= enough)
        return next(depths, _DEPTHS[-1])
