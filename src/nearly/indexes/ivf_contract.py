"""The recall contract of inverted lists: the reach and the depth that a target implies, and what was measured."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.errors import FormatError, InputError, StateError
from nearly.hits import SearchContext
from nearly.indexes import calibration
from nearly.indexes.contract import PROOF, Contract, proven
from nearly.indexes.guide import RECALL as GUIDE_RECALL
from nearly.indexes.store import NONE
from nearly.quantizers.base import CODED
from nearly.tuning import probing
from nearly.tuning.probing import Probing

if TYPE_CHECKING:
    from nearly.indexes.ivf import IVF

__all__ = ["Held", "ListContract", "Probe"]

_LOSS = 0.0005  # recall by which a deeper re-rank must gain to be tried
_RANDOM = 2.0  # ranking a vector that lies apart, in comparisons of vectors that lie side by side
_MOST_HARDER = 300  # queries made harder that are measured
_FEWEST = 20  # vectors of a topic that tell a recall, to within about 0.05; by hand
_MOST_KEPT = 125  # queries of each group by which depths are measured: each is compared with all codes
_INDISTINCT = 16  # times the usual number of vectors to rank, above which a query is scanned: by hand
_FEW = 8  # one in so many of what passes is as good a reason
_ROUNDS = 4  # times that a search under a filter looks how near what it found is
_WIDE, _LEAST_FOUND = 1.5, 16  # lists that are found, for each within reach on average, and more
_RANKED = 10  # neighbors that depths are multiples of at least: for so many they were measured


class Held(NamedTuple):
    """What passes a filter in each list of a core, as long as that one is searched and rows are what they were."""

    core: Any
    counts: NDArray[np.uint32]
    change: int  # of the index, when they were counted


class Probe(NamedTuple):
    """How one search goes: lists within a reach, at most so many of them, or a scan.

    Under a filter lists as far ``beyond`` the k-th nearest found, too, and vectors ranked that are no farther by their
    codes than by a ``spread``, at most so many. So many lists are ``guided`` to; 0: all centers are compared.
    """

    width: int
    reach: float
    depth: int
    context: SearchContext
    scan: bool
    beyond: float = -np.inf
    spread: float = np.inf
    most: int = 1 << 62
    guided: int = 0


class ListContract(Contract):
    """What recall inverted lists promise: see `Contract`.

    Attributes
    ----------
    probing : Probing or None
        What was measured.
    told : mapping
        Where codes stand alone: the share of the true neighbors that they put first, by number of neighbors, as it was
        when the index was built.
    """

    probing: Probing | None = None
    told: Mapping[int, float] = MappingProxyType({})

    def __init__(self, target: float, calibrates: bool) -> None:
        super().__init__(target, calibrates)
        self._known: dict[tuple[int, float | None, int | None], Probe] = {}

    def note(self, n: int) -> None:
        """Vectors were added or removed."""
        super().note(n)
        self._known = {}

    # -- measuring ---------------------------------------------------------------------------------------------------

    def measure_lists(self, index: "IVF", probes: calibration.Probes | None, *, threads: int = 0) -> None:
        """Measure on these queries, or on stored vectors, each as if it was not there, and on harder ones."""
        if probes is None:  # no graph is needed for that
            n = max(1, calibration.held_out(index._n_nodes))
            probes = calibration.from_stored(cast(Any, index), self.topics, n)
        measured = _measured(index, probes, threads)
        self.__dict__.update(probing=measured, _size=len(index), changed=0, _known={})  # in one go

    def _keeps(self, index: Any, nodes: NDArray[np.uint32]) -> bool:
        curve = self.probing
        if curve is None or curve.mean.shape[1] == 1 or len(nodes) < _FEWEST or len(index) < 2:
            return True  # of queries of the user's the data tells nothing
        if index._store.kept == "disk" and index._codes.codes is None:
            return True  # to know would take reading the whole file for each
        if self.told and self.target > (self.reached(10) or 1.0):
            return True  # nothing is promised
        how = self.probe(index, 10, None, None)
        if how.scan:
            return True
        some = np.random.default_rng(index._seed).permutation(nodes)[:PROOF]
        return proven(_delivered(index, some, how), self._of_lists(index, 10, None)[0])

    def due(self, n_vectors: int) -> bool:
        """Whether to measure now: see `Contract.due`."""
        if n_vectors < calibration.LEAST:
            return False
        return self.calibrates if self.probing is None else self.changed * 2 > self._size

    def reached(self, k: int) -> float | None:
        """Recall that codes which stand alone have at best, for k neighbors; None where nobody knows."""
        at = next((known for known in self.told if known >= k), max(self.told, default=0))
        return self.told.get(at)

    def _of_lists(self, index: "IVF", k: int, recall: float | None) -> tuple[float, float]:
        """What of a target is left for lists to meet, and what codes that stand alone take of it."""
        target = self.target if recall is None else recall
        if index._store.kept != "none":
            return target, 1.0
        reached = self.reached(k)
        if reached is None:
            return target, 1.0
        if target > reached:
            raise InputError(
                f"recall {target:g} for {k} neighbors is beyond {index._store.noun} alone, which reach {reached:.3f}; "
                'ask for less, or build with longer codes or refine="disk"'
            )
        return target / reached, reached

    # -- choosing ----------------------------------------------------------------------------------------------------

    def probe(self, index: "IVF", k: int, recall: float | None, effort: int | None) -> Probe:
        """What a target, or a given number of lists, means for k neighbors; remembered."""
        key, known = (k, recall, effort), self._known
        if key not in known:
            known[key] = self._found(index, k, recall, effort)
        return known[key]

    def _found(self, index: "IVF", k: int, recall: float | None, effort: int | None) -> Probe:
        if effort is not None:
            return self._of_width(index, k, effort)
        curve, n = self.probing, len(index)
        target, told = self._of_lists(index, k, recall)
        if curve is None:
            if self.calibrates or n < calibration.LEAST:
                return _scan(index, f"{index._n_nodes} distinct vectors are too few to calibrate lists on")
            raise StateError("this index was built with calibrate=False, so a recall target has no meaning; "
                             "pass effort=, or call calibrate()")  # fmt: skip
        if n < calibration.LEAST and self.changed * 2 > self._size:
            return _scan(index, f"{n} vectors are left, too few to calibrate lists on anew")
        code, vector = index._costs()
        n_codes = int(index._lists.sizes.sum())
        how = self._guided(index, k, target, told)
        if how is not None:
            return how
        chosen = curve.choose(k, target, n_codes, code, vector)
        if chosen is None:
            best = f"recall {target:g} is beyond the lists, which reached {curve.best(k):.3f}"
            return _scan(index, f"{best}, {self._basis}")
        depth = self._depth(index, k, chosen.depth)
        if self._cost(index, chosen.scanned * n_codes, depth) >= n:
            return _scan(index, f"cheaper than comparing with {chosen.scanned:.0%} of {n} by lists")
        plan = f"{_name(index)}, {chosen.scanned:.1%} of vectors compared for recall {target * told:g}, {self._basis}"
        context = SearchContext(index._store.metric, plan, round(chosen.expected * told, 6))
        return Probe(len(index._lists), chosen.reach, depth, context, False)

    def _guided(self, index: "IVF", k: int, target: float, told: float) -> Probe | None:
        """The same where a guide finds lists, which may miss some: lists are to hold so much more. None where all
        centers are to be compared."""
        guide, curve = index._lists.centers.guide, self.probing
        if guide is None or curve is None or target >= GUIDE_RECALL:
            return None
        code, vector = index._costs()
        n_codes = int(index._lists.sizes.sum())
        chosen = curve.choose(k, target / GUIDE_RECALL, n_codes, code, vector)
        if chosen is None:
            return None
        depth, wanted = self._depth(index, k, chosen.depth), _wanted(chosen.scanned * len(index._lists))
        if wanted > guide.most() or self._cost(index, chosen.scanned * n_codes, depth) >= len(index):
            return None
        plan = (f"{_name(index)}, {chosen.scanned:.1%} of vectors compared, in lists found by a graph over centers, "
                f"for recall {target * told:g}, {self._basis}")  # fmt: skip
        context = SearchContext(index._store.metric, plan, round(chosen.expected * GUIDE_RECALL * told, 6))
        return Probe(len(index._lists), chosen.reach, depth, context, False, guided=wanted)

    @property
    def _basis(self) -> str:
        """What the curve tells of, for people."""
        curve, stale = self.probing, f"; {self.changed} changes since" if self.changed * 5 > self._size else ""
        return "" if curve is None else f"calibrated on {curve.n_queries} queries ({curve.source}){stale}"

    def _cost(self, index: "IVF", n_codes: float, depth: float) -> float:
        """Of reading so many codes, in comparisons of vectors that lie side by side."""
        code, vector = index._costs()
        return len(index._lists) * 0.25 + n_codes * code + depth * vector

    def filtered(self, index: "IVF", k: int, recall: float | None, passing: int, held: Callable[[], Held]) -> Probe:
        """What a target means for k neighbors among those that pass; asks for what lists hold only if that matters."""
        how, (target, told), curve = self.probe(index, k, recall, None), self._of_lists(index, k, recall), self.probing
        if curve is None or (how.scan and passing * _RANDOM <= len(index)):
            return how
        n, few = len(index), f"{passing} of {len(index)} vectors pass, too few to look for by lists"
        code, vector = index._costs()
        n_codes = int(index._lists.sizes.sum())
        chosen = curve.choose(k, target, n_codes, code, vector)
        if chosen is None:
            return how
        depth = self._depth(index, k, chosen.depth)
        ranked, scan = depth + _ROUNDS * min(depth, 2 * k), _RANDOM * passing
        if self._cost(index, 0, ranked) >= scan:
            return _scan(index, few)
        lists, counts = index._lists, held().counts
        n_slots, of_all = int(lists.sizes[counts[: len(lists.sizes)] > 0].sum()), math.ceil(k * n / max(1, passing))
        # Where the filter has nothing to do with the query, the nearest that pass are about the k n / passing nearest.
        about = curve.choose(of_all, target, n_codes, code, vector)
        if self._cost(index, n_slots if about is None else min(n_slots, about.scanned * n_codes), ranked) >= scan:
            return _scan(index, few)
        reach, around, expected = chosen.reach, curve.around(k, target, chosen.depth), chosen.expected
        if around is None:  # older files do not tell
            if about is None:
                return _scan(index, few)
            reach, around, expected = about.reach, probing.Around(-np.inf, np.inf), about.expected
        plan = (f"{_name(index)}, within the {np.count_nonzero(counts)} of {len(counts)} lists in which something "
                f"passes, for recall {target * told:g}, {self._basis}")  # fmt: skip
        context = SearchContext(index._store.metric, plan, round(expected * told, 6))
        # What codes cannot tell apart, such as a shell around the query, is compared, not chosen from.
        most = max(depth, min(_INDISTINCT * depth, passing // _FEW))
        return Probe(len(counts), reach, depth, context, False, *around, most)

    def _of_width(self, index: "IVF", k: int, effort: int) -> Probe:
        width = min(arrays.check_int(effort, "effort", low=1, high=1 << 20), len(index._lists))
        told = (self.reached(k) or 1.0) if index._store.kept == "none" else 1.0
        guide = index._lists.centers.guide
        guided = width if guide is not None and width <= guide.most() else 0
        told *= GUIDE_RECALL if guided else 1.0
        expected = None if self.probing is None else self.probing.at_width(k, width) * told
        factor = 4.0 if self.probing is None else float(self.probing.depths[-1])
        context = SearchContext(index._store.metric, f"{_name(index)}, effort {width}", expected)
        return Probe(width, np.inf, self._depth(index, k, factor), context, False, guided=guided)

    def _depth(self, index: "IVF", k: int, factor: float) -> int:
        return k if index._codes.codes is None else math.ceil(max(k, _RANKED) * factor)

    # -- files -------------------------------------------------------------------------------------------------------

    def list_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, Any]]:
        """Arrays, values that stand with the lists', and other configuration, as files hold them."""
        values = {"recall": float(self.target), "calibrates": self.calibrates, "curve_size": self._size,
                  "changed": self.changed}  # fmt: skip
        told = {"told": [[k, share] for k, share in self.told.items()]} if self.told else {}
        if self.probing is None:
            return self._topics_state(), {**values, **told}, {}
        parts, curve = self.probing.state()
        return {**parts, **self._topics_state()}, {**values, **told}, {"curve": curve}

    @classmethod
    def restore(cls, file: storage.File) -> Self:
        """Make it of what `list_state` gave."""
        self = cls(
            storage.config_float(file, ("ivf", "recall"), 0.0, 1.0), storage.config_bool(file, ("ivf", "calibrates"))
        )
        self._size = storage.config_int(file, ("ivf", "curve_size"), 0)
        self.changed = storage.config_int(file, ("ivf", "changed"), 0)
        self._restore_topics(file)
        self.told = _told(file)
        if "curve" in file.config:
            self.probing = Probing.from_state(file.arrays, file.config["curve"])
        return self


def _told(file: storage.File) -> Mapping[int, float]:
    """What a file says that codes reach alone."""
    try:
        told = {int(k): float(share) for k, share in file.config["ivf"].get("told", [])}
        if list(told) != sorted(told) or not all(k > 0 and 0 <= share <= 1 for k, share in told.items()):
            raise ValueError(told)
    except (TypeError, ValueError, OverflowError) as problem:
        raise FormatError(f"{file.path} is damaged: what its codes reach alone is no recall") from problem
    return told


def _measured(index: "IVF", probes: calibration.Probes, threads: int) -> Probing:
    store, lists, n_apart = index._store, index._lists, max(probes.n_expected, len(probes.apart))
    harder = np.arange(n_apart, len(probes.rows))[:: max(1, (len(probes.rows) - n_apart) // _MOST_HARDER)]
    rows = np.ascontiguousarray(probes.rows[np.concatenate([np.arange(n_apart), harder])])
    without = np.full(len(rows), NONE, np.uint32)
    without[: len(probes.apart)] = probes.apart
    group = np.ones(len(rows), np.intp)  # each but the first answers for itself
    group[: probes.n_expected] = 0
    for topic in range(1, 1 + int(probes.topic.max(initial=0))):
        of_topic = np.flatnonzero(probes.topic == topic)
        if len(of_topic) >= _FEWEST:
            group[of_topic] = group.max() + 1
    truth, nodes = _truth(index, rows, min(probing.KS[-1], len(index) - 1), without, threads)
    whole = max(1, int(np.isfinite(truth).all(axis=0).sum()))  # more rows than one may hang on a node that is left out
    truth, nodes = np.ascontiguousarray(truth[:, :whole]), np.ascontiguousarray(nodes[:, :whole])
    of_neighbors = lists.places(index._n_nodes)[nodes].astype(np.intp)
    gaps, nearest = np.empty((len(rows), len(lists)), np.float32), np.empty(len(rows), np.float32)
    index._core.gaps(store.query_bytes, rows, store.metric.number, gaps, nearest, threads)
    coded = None
    if index._codes.tell_distances:
        slots, owners = lists.slots_of(nodes)
        coded = np.empty(nodes.shape, np.float32)
        index._core.estimates(store.query_bytes, rows, store.metric.number, slots, owners, coded, threads)
        coded -= nearest[:, None]
    apart = slice(0, n_apart)
    kept, least = _kept(index, rows[apart], group[apart], truth[apart], without[apart], threads)
    return probing.measure(
        gaps, of_neighbors, lists.sizes, farther=_anchors(index, rows, nodes, truth) - nearest[:, None], coded=coded,
        n_expected=probes.n_expected, group=group, kept=kept, least=least, source=probes.source, seed=index._seed,
    )  # fmt: skip


def _anchors(
    index: "IVF", rows: NDArray[np.uint8], nodes: NDArray[np.uint32], shown: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distances of the true neighbors in the unit of distances from centers: see the core's `in_reach`.

    Those that curves stand on are computed anew in float64, whose bits do not depend on the CPU target.
    """
    store = index._store
    metric = store.metric.name
    anchors = np.sqrt(np.maximum(2 * shown, 0)) if metric == "cosine" else shown.copy()
    if metric not in CODED:
        return anchors
    queries = rows.view(np.float32).astype(np.float64)
    lengths = np.sqrt((queries * queries).sum(axis=1, keepdims=True))
    lengths[lengths == 0] = 1
    if metric == "ip":
        anchors /= lengths.astype(np.float32)
    if store.kept == "none":
        return anchors  # codes have no other distances
    for k in (k for k in probing.KS if k <= shown.shape[1]):
        vectors = store.in_form(nodes[:, k - 1]).astype(np.float64)
        if metric == "ip":
            anchors[:, k - 1] = -((queries / lengths) * vectors).sum(axis=1)
        else:
            away = (queries / lengths if metric == "cosine" else queries) - vectors
            anchors[:, k - 1] = np.sqrt((away * away).sum(axis=1))
    return anchors


def _truth(
    index: "IVF", rows: NDArray[np.uint8], k: int, without: NDArray[np.uint32], threads: int
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Distances and nodes of the k nearest, other than the node that each query does without."""
    store, n, wanted = index._store, len(rows), k + bool((without != NONE).any())
    ids, found = np.empty((n, wanted), np.int64), np.empty((n, wanted), np.float32)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, rows, store.metric.number, ids, found,
               np.empty(n, np.uint32), None, None, threads)  # fmt: skip
    return _others(index, ids, found, without, k)


def _looked(
    index: "IVF", rows: NDArray[np.uint8], k: int, without: NDArray[np.uint32], depth: int, threads: int,
    how: Probe | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Distances of what a search of the lists, of all unless told how, finds besides those nodes."""
    store, n, more = index._store, len(rows), int((without != NONE).any())
    width, reach = (len(index._lists), np.inf) if how is None else (how.width, how.reach)
    ids, found = np.empty((n, k + more), np.int64), np.empty((n, k + more), np.float32)
    index._core.search(store.query_bytes, rows, store.metric.number, width, reach, max(k, depth) + more, False,
                       ids, found, np.empty(n, np.uint32), None, threads)  # fmt: skip
    return _others(index, ids, found, without, k)[0]


def _others(
    index: "IVF", ids: NDArray[np.int64], found: NDArray[np.float32], without: NDArray[np.uint32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Distances and nodes of the first k of what was found, but for one node of each query."""
    nodes = index._store.column("nodes")[index._id_map().rows(ids.ravel())[0]].reshape(ids.shape)
    found[(nodes == without[:, None]) & (ids >= 0)] = np.inf
    order = np.argsort(found, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(nodes, order, axis=1)


def _kept(
    index: "IVF", rows: NDArray[np.uint8], group: NDArray[np.intp], truth: NDArray[np.float32],
    without: NDArray[np.uint32], threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Shares of the true neighbors that the first so many by codes hold, for depths as long as more of them gain.

    Those of the expected queries, and the least of all groups: codes may tell a topic from another, and hardly tell its
    vectors from each other.
    """
    if index._codes.codes is None:
        return np.ones(1, np.float32), np.ones(1, np.float32)
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    some = np.concatenate([those[:: -(-len(those) // _MOST_KEPT)] for those in members])
    rows, truth, group, without = np.ascontiguousarray(rows[some]), truth[some], group[some], without[some]
    k, shares = min(10, truth.shape[1]), []
    for factor in probing.DEPTHS:
        found = _looked(index, rows, k, without, math.ceil(_RANKED * factor), threads)
        held = (found <= truth[:, k - 1 : k]).mean(axis=1)
        shares.append([float(held[group == g].mean()) for g in np.unique(group)])
        if min(shares[-1]) >= 1 - _LOSS:
            break
    by_group = np.maximum.accumulate(np.array(shares, np.float32), axis=0)
    return by_group[:, 0].copy(), by_group.min(axis=1)


def _delivered(index: "IVF", nodes: NDArray[np.uint32], how: Probe) -> NDArray[np.floating[Any]]:
    """Recall@10 of a search for each of these nodes as if it was not there."""
    rows, k = calibration.as_queries(cast(Any, index), nodes), min(10, len(index) - 1)
    if index._store.kept == "disk":  # a scan would read the whole file, once for each
        truth = _looked(index, rows, k, nodes, math.ceil(_RANKED * probing.DEPTHS[-1]), 0)
    else:
        truth = _truth(index, rows, k, nodes, 0)[0]
    return np.asarray((_looked(index, rows, k, nodes, how.depth, 0, how) <= truth[:, -1:]).mean(axis=1))


def _wanted(n_lists: float) -> int:
    """How many lists to find, where so many are within reach on average: few queries have more, which compare all."""
    return math.ceil(_WIDE * n_lists) + _LEAST_FOUND


def _name(index: "IVF") -> str:
    store = index._store
    return f"IVF over {store.noun if store.kept == 'none' else index._codes.name(store)}"


def _scan(index: "IVF", why: str) -> Probe:
    return Probe(1, 0.0, 1, SearchContext(index._store.metric, f"exact scan: {why}", 1.0), True)
