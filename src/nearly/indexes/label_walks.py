"""Walks within labels: what recall they deliver, how far they must go for a target, and the search itself."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError
from nearly.filters.columns import pack
from nearly.hits import Hits, SearchContext
from nearly.indexes import calibration
from nearly.indexes.contract import SCAN_FACTOR, Effort
from nearly.indexes.labels import Within
from nearly.indexes.store import NONE
from nearly.tuning import RecallCurve
from nearly.tuning import measure as measure_curve
from nearly.tuning.curve import ANCHOR, KS, PROBE, Choice
from nearly.tuning.measuring import Effort as Tried

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearly.indexes.labeled import LabeledGraph

__all__ = ["LabelContract", "search_within"]

_OWN, _OTHERS = 240, 480  # queries: vectors within a label of their own, and within any
_TRIED = 24  # labels that queries are made for, from the most common to the least
_HARD = 0.25  # share of these labels, the hardest, that answer for themselves
_SHOWING = Tried(200, 0.05, ANCHOR)  # by which they are found: an effort at which queries still differ
# Walks go as far as the hardest labels need, and read so many lists for each that one width of the same recall takes:
# 58 to 64 beside 28, 74 to 90 beside 47 (SIFT, cells, 0.90 and 0.95).
_LISTS = 1.8
_FEWEST = 200  # nodes that a label needs for that


class LabelContract:
    """What recall walks within labels deliver, for what effort.

    One curve stands for all labels, measured on stored vectors, each as if it was not there: some within one of their
    own labels, more within one that has nothing to do with them, which answer for themselves. So labels that go along
    with vectors, as clusters do, get what is promised wherever a query lies. The hardest labels, too, answer for
    themselves: half of their queries show which they are, the other half counts.

    Attributes
    ----------
    curve : RecallCurve or None
    size : int
        Vectors with common labels when it was measured, once for each label.
    """

    def __init__(self, curve: RecallCurve | None = None, size: int = 0) -> None:
        self.curve, self.size = curve, size
        self._choices: dict[tuple[int, float], Choice] = {}

    def measure(self, index: "LabeledGraph", threads: int = 0) -> None:
        """Measure the curve anew; none where no label has enough nodes."""
        trials = _Trials.of(index, threads)
        curve = None if trials is None else trials.curve()
        assert index._labels is not None
        # In one go: Ctrl-C comes before or after.
        self.__dict__.update(curve=curve, size=index._labels.n_having, _choices={})

    def due(self, n_having: int) -> bool:
        """Whether to measure now: common labels are had by half as many more, or at last by enough."""
        return n_having >= _FEWEST if self.curve is None else n_having * 2 > self.size * 3

    def effort(self, index: "LabeledGraph", k: int, recall: float | None, effort: int | None) -> Effort | None:
        """What a target, or a given effort, means for k neighbors within a label; None where no walk delivers it."""
        contract, metric = index._contract, index._store.metric
        if effort is not None:
            width = max(k, effort)
            context = SearchContext(metric, f"effort {width}", None)
            return Effort(width, contract.depth(index, k, width), None, None, context, False, lists=width)
        curve, target = self.curve, contract.target if recall is None else recall
        if curve is None:
            return None
        chosen = self._choices.get((k, target))
        if chosen is None:
            chosen = self._choices[k, target] = curve.choose(k, target)
        if not chosen.met:
            return None
        having = 0 if index._labels is None else index._labels.n_having
        growth, by_reach = max(1.0, having / max(1, self.size)), bool(np.isfinite(chosen.reaches).all())
        widths = np.maximum(np.ceil(chosen.widths * growth), k).astype(np.uint32)
        high = int(widths.max())
        told = f"{chosen._replace(widths=widths).effort} for recall {target:g}"
        told = f"{told}, calibrated on {curve.n_queries} {curve.source}"
        context = SearchContext(metric, told, chosen.expected)
        depth, anchor = contract.depth(index, k, 0 if by_reach else high), math.ceil(chosen.anchor * growth)
        lists = _LISTS * curve.width_at(k, chosen.expected) * growth if by_reach else float(widths.mean())
        return Effort(high, depth, curve.bounds, widths, context, False, None, chosen.reaches if by_reach else None,
                      anchor, lists)  # fmt: skip

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and configuration, as files hold them."""
        if self.curve is None:
            return {}, {"size": self.size}
        arrays, curve = self.curve.state()
        return {f"label_{name}": array for name, array in arrays.items()}, {"size": self.size, "curve": curve}

    @classmethod
    def restore(cls, file: storage.File) -> "LabelContract":
        """Make it of what `state` gave."""
        size, config = storage.config_int(file, ("labels", "size"), 0), file.config["labels"]
        if "curve" not in config:
            return cls(None, size)
        if not isinstance(config["curve"], dict):
            raise FormatError(f"{file.path} is damaged: the curve of its labels is none")
        prefix = "label_curve_"
        arrays = {name.removeprefix("label_"): array for name, array in file.arrays.items() if name.startswith(prefix)}
        return cls(RecallCurve.from_state(arrays, config["curve"]), size)


def search_within(
    index: "LabeledGraph", rows: NDArray[np.uint8], k: int, single: bool, how: Effort, within: Within, threads: int
) -> Hits | None:
    """Walk among nodes that have labels, for what passes; None where a scan of that is quicker."""
    if within.n_nodes**2 <= SCAN_FACTOR * how.lists * max(1, within.n_among):
        return None
    # Nodes that do not pass take places in the pool: it grows by their share. Who walks as long as a scan is scanned.
    stretch = max(1.0, within.n_among / max(1, within.n_nodes))
    most = max(k, int(within.n_nodes / SCAN_FACTOR))
    width = min(math.ceil(how.width * stretch), most)
    widths = None if how.widths is None else np.minimum(np.ceil(how.widths * stretch), most).astype(np.uint32)
    n, store = len(rows), index._store
    ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    counts, work = np.empty(n, np.uint32), None
    while work is None:  # until the graph that was searched is not retired meanwhile
        work = index._graph.search(
            store.query_bytes, rows, store.metric.number, width, how.depth, ids, distances, counts, within.allowed.bits,
            PROBE,
            how.bounds, widths, None, threads, None, how.reaches, how.anchor, stretch, among=within.among,
            starts=within.starts,
        )  # fmt: skip
    plan = f"walk within {within.named} over {index._travel.name(store)}, {how.context.plan}"
    short = np.flatnonzero(counts < min(k, within.allowed.n))
    if len(short):
        rest = index._scan(rows[short], k, False, within.allowed, threads, "")
        ids[short], distances[short] = rest._ids, rest._distances
        plan = f"{plan}; {len(short)} queries came back short and were scanned"
    among = "" if within.n_among == within.n_nodes else f" among {within.n_among} that have it"
    plan = f"{plan}; {within.allowed.n} of {len(index)} {index.noun} pass{among}"
    return Hits(ids, distances, single, SearchContext(store.metric, plan, how.context.expected_recall), work[:3])


class _Group(NamedTuple):
    """Queries within one label."""

    bits: NDArray[np.uint64]
    among: NDArray[np.uint64]
    nodes: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    members: NDArray[np.intp]  # of the queries


class _Trials:
    """Searches within labels for stored vectors, whose truth is known."""

    def __init__(self, index: "LabeledGraph", groups: list[_Group], nodes: NDArray[np.uint32], topic: NDArray[np.intp],
                 threads: int) -> None:  # fmt: skip
        self._index, self._groups, self._threads, self.topic = index, groups, threads, topic
        self._without, self._rows = nodes, calibration.as_queries(index, nodes)
        smallest = min(len(group.nodes) for group in groups)
        self.deepest = max(1, min(max(KS), smallest - 1))
        self.hardness = np.empty(len(nodes), np.float32)
        self._truth = np.empty((len(nodes), self.deepest), np.float32)
        for group in groups:
            self._truth[group.members] = self._exact(group)
        self._search(np.arange(len(nodes)), KS[0], Tried(2 * PROBE, np.inf, ANCHOR), KS[0], self.hardness)

    @classmethod
    def of(cls, index: "LabeledGraph", threads: int) -> "_Trials | None":
        """Queries for some labels, from the most common one to the least."""
        labels, store, n = index._labels, index._store, index._n_nodes
        assert labels is not None
        alive = store.column("first_rows")[:n] != NONE
        counts = labels.counts()
        there = np.argsort(-counts, kind="stable")[: int((counts >= _FEWEST).sum())]
        if not len(there) or len(index) < calibration.LEAST:
            return None
        chosen = np.unique(there[np.linspace(0, len(there) - 1, min(_TRIED, len(there))).astype(int)])
        rng = np.random.default_rng(index._seed)
        everyone = np.flatnonzero(alive).astype(np.uint32)
        groups: list[_Group] = []
        nodes: list[NDArray[np.uint32]] = []
        topic: list[NDArray[np.intp]] = []
        for number in chosen.tolist():
            having = labels.nodes_with([number])[:n]
            own = np.flatnonzero(having & alive).astype(np.uint32)
            if len(own) < _FEWEST:
                continue
            drawn = [rng.permutation(nodes_of)[: math.ceil(n_queries / len(chosen))]
                     for nodes_of, n_queries in ((own, _OWN), (everyone, _OTHERS))]  # fmt: skip
            first = sum(len(some) for some in nodes)
            members = np.arange(first, first + sum(len(some) for some in drawn))
            groups.append(_Group(index._rows_of(own), pack(having), own, labels.starts([number]), members))
            nodes += drawn
            topic += [np.full(len(some), i, np.intp) for i, some in enumerate(drawn)]
        if not groups:
            return None
        return cls(index, groups, np.concatenate(nodes).astype(np.uint32), np.concatenate(topic), threads)

    def _exact(self, group: _Group) -> NDArray[np.float32]:
        """Distances of the nearest within a label, but for the vector itself."""
        store, rows = self._index._store, np.ascontiguousarray(self._rows[group.members])
        n, wanted = len(rows), self.deepest + 1
        ids, found = np.empty((n, wanted), np.int64), np.empty((n, wanted), np.float32)
        _core.scan(store.scorer, store.rows, self._index._n_nodes, store.query_bytes, rows, store.metric.number, ids,
                   found, np.empty(n, np.uint32), group.bits, group.nodes, self._threads)  # fmt: skip
        nodes = store.column("nodes")[self._index._id_map().rows(ids.ravel())[0]].reshape(n, wanted)
        found[(nodes == self._without[group.members][:, None]) & (ids >= 0)] = np.inf
        found.sort(axis=1)
        return found[:, : self.deepest]

    def _search(
        self, which: NDArray[np.intp], k: int, effort: Tried, depth: int, hardness: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], int]:
        """Distances of the nearest, and how many lists were read."""
        distances, n_lists, store = np.empty((len(which), k), np.float32), 0, self._index._store
        width = max(k, effort.width)
        for group in self._groups:
            places = np.flatnonzero((which >= group.members[0]) & (which <= group.members[-1]))
            n, some = len(places), which[places]
            if not n:
                continue
            found, seen = np.empty((n, k), np.float32), np.empty(n, np.float32)
            _, lists, *_ = self._index._graph.search(
                store.query_bytes, np.ascontiguousarray(self._rows[some]), store.metric.number, width, depth,
                np.empty((n, k), np.int64), found, np.empty(n, np.uint32), group.bits, PROBE, np.zeros(0, np.float32),
                np.array([width], np.uint32), seen, self._threads, np.ascontiguousarray(self._without[some]),
                np.array([effort.reach], np.float32), effort.anchor, 1.0, among=group.among,
                starts=group.starts,
            )  # fmt: skip
            distances[places] = found
            n_lists += lists
            if hardness is not None:
                hardness[some] = seen
        return distances, n_lists

    def _hits(self, effort: Tried, ks: "Sequence[int]", which: NDArray[np.intp]) -> tuple[NDArray[np.int32], int]:
        """How many of the true neighbors are found, of shape (ks, queries), ties counted; how many lists were read."""
        depth = self._index._contract.depth(self._index, max(ks), 0 if math.isfinite(effort.reach) else effort.width)
        distances, n_lists = self._search(which, min(max(ks), self.deepest), effort, depth)
        truth = self._truth[which]
        found = [(distances[:, :k] <= truth[:, k - 1 : k]).sum(axis=1) for k in ks]
        return np.stack(found).astype(np.int32), n_lists

    def _set_hard_apart(self) -> None:
        """Make a topic of every second query within the labels that were hardest for the others."""
        k = min(10, self.deepest)
        found = self._hits(_SHOWING, (k,), np.arange(len(self.topic)))[0][0]
        order = np.argsort([found[group.members[::2]].mean() for group in self._groups], kind="stable")
        for i in order[: math.ceil(_HARD * len(order))].tolist():
            self.topic[self._groups[i].members[1::2]] = 2

    def curve(self) -> RecallCurve:
        """Recall for what effort."""
        index = self._index
        self._set_hard_apart()
        return measure_curve(
            self._hits, hardness=self.hardness, n_expected=len(self._without), most=self.deepest,
            n_vectors=max(len(group.nodes) for group in self._groups), source="stored points within labels",
            seed=index._seed, topic=self.topic, stepped=index._store.metric.input != "float",
        )  # fmt: skip
