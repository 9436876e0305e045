"""The recall contract of one graph: its curve, the effort that a target implies, and when the curve is out of date.

What nodes answer for themselves, and when they are looked at, is the same for lists: see `ListContract`.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.errors import FormatError, StateError
from nearly.hits import SearchContext
from nearly.indexes import calibration, needs, sifting
from nearly.indexes.travel import NOBODY
from nearly.tuning import RecallCurve
from nearly.tuning.curve import PROBE, Choice

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex

__all__ = ["MOST", "PROOF", "SCAN_FACTOR", "Contract", "Effort", "proven"]

_TOPICS, _OF_TOPIC = 5, 200  # that are remembered, and nodes of each; by hand
_LEAST, PROOF = 100, 200  # new nodes before recall among them is looked at, and how many of them are searched for
_RANKED = 10  # neighbors whose candidates are ranked at least: the factor was measured for so many
_WAYS = 256  # plans of filtered searches that are remembered
MOST = 1 << 20  # neighbors that a walk looks for at most
SCAN_FACTOR = 16.0  # a hop costs about as much as comparing with this many vectors in a row


class Effort(NamedTuple):
    """How one search goes: a pool of one width, or a width and perhaps a reach for each group of hardness, or a scan.

    ``core`` is the same for `search_one` of the core, ``lists`` how many lists it reads, about.
    """

    width: int
    depth: int
    bounds: NDArray[np.float32] | None
    widths: NDArray[np.uint32] | None
    context: SearchContext
    scan: bool
    core: Any = None
    reaches: NDArray[np.float32] | None = None
    anchor: int = 1
    lists: float = 1.0

    def wider(self, factor: float, least: int = 1) -> Self:
        """The same with so many times as much of everything, and pools of a least width."""
        widths = None if self.widths is None else np.maximum(np.ceil(self.widths * factor), least).astype(np.uint32)
        width, anchor = max(math.ceil(self.width * factor), least), math.ceil(self.anchor * factor)
        return self._replace(width=width, widths=widths, anchor=anchor, lists=max(self.lists * factor, least))


class Contract:
    """What recall an index promises, and what it knows about keeping it.

    Attributes
    ----------
    target : float
        Recall of searches that name none.
    calibrates : bool
        Whether a curve is measured when there is none or it is out of date.
    curve : RecallCurve or None
        What was measured.
    changed : int
        Vectors added or removed since.
    topics : tuple of ndarray of uint32
        Some nodes of each addition that what was measured before did not hold for, latest last. They may have gone
        since, and others may have their places: whoever uses them looks.
    needs : Needs or None
        What filtered searches need, beside the curve; None in files of 0.1.0, and where nothing was measured.
    efforts : dict
        What (k, recall, effort) were found to mean; dropped at every change.
    """

    def __init__(self, target: float, calibrates: bool) -> None:
        self.target, self.calibrates = target, calibrates
        self.curve: RecallCurve | None = None
        self.changed = 0
        self.efforts: dict[tuple[int, float | None, int | None], Effort] = {}
        self.needs: needs.Needs | None = None
        self._sieves: dict[tuple[int, float], sifting.Sieve] = {}  # what a target means for filtered searches
        self._ways: dict[tuple[int, float, int, float], sifting.Way] = {}  # and where so many pass
        self._choices: dict[tuple[int, float], Choice] = {}  # of the curve, until another one is measured
        self._size = 0  # vectors when the curve was measured
        self._depth_factor = 3.0
        self.topics: tuple[NDArray[np.uint32], ...] = ()
        self._unproven = NOBODY  # nodes added since recall among such was last looked at

    # -- measuring ---------------------------------------------------------------------------------------------------

    def measure(
        self, index: "GraphIndex", probes: calibration.Probes, *, bits: NDArray[np.uint64] | None = None,
        threads: int = 0, progress: Any = False,
    ) -> None:  # fmt: skip
        """Measure the curve of an index on these queries; ``bits`` passes the rows that its graph holds, if not all."""
        self._adopt(*calibration.measure(index, probes, bits, threads, progress), len(index))

    def adopt(self, other: "Contract", size: int) -> None:
        """Take over what was measured on another index of so many of the same vectors."""
        self._adopt(other.curve, other._depth_factor, other.needs, size)

    def _adopt(self, curve: RecallCurve | None, factor: float, found: needs.Needs | None, size: int) -> None:
        self.__dict__.update(  # in one go: Ctrl-C comes before or after
            curve=curve, _depth_factor=factor, needs=found, _size=size, changed=0, _choices={}, **_nothing_chosen()
        )

    def note(self, n: int) -> None:
        """Vectors were added or removed."""
        self.changed += n
        self.__dict__.update(_nothing_chosen())

    def void(self) -> None:
        """What was measured no longer holds."""
        self.changed = self._size + 1

    @property
    def worn(self) -> bool:
        """Whether as much changed since as there was when the curve was measured."""
        return self.changed > self._size

    def set_apart(self, nodes: NDArray[np.uint32], seed: int) -> None:
        """What was measured does not hold for these: a topic, which answers for itself from now on."""
        self.void()
        some = np.random.default_rng(seed).permutation(nodes)[:_OF_TOPIC]
        self.topics = (*self.topics, np.sort(some))[-_TOPICS:]
        self._unproven = NOBODY

    def added(self, nodes: NDArray[np.uint32]) -> None:
        """New nodes, of which nobody knows yet whether they get what was promised."""
        self._unproven = np.concatenate([self._unproven, nodes])

    def prove(self, index: Any) -> None:
        """See whether new nodes get what was promised, as soon as they are many: what was measured is void if not."""
        if len(self._unproven) < max(_LEAST, len(index) // 100):
            return
        nodes = index._store.in_use(self._unproven, index._n_nodes)
        if not self._keeps(index, nodes):
            self.set_apart(nodes, index._seed)
        self._unproven = NOBODY

    def _keeps(self, index: "GraphIndex", nodes: NDArray[np.uint32]) -> bool:
        """Whether searches for these nodes, as if they were not there, find as much as the target wants."""
        if self.curve is None or self.curve.n_easy == len(self.curve.share) or len(nodes) < _LEAST // 2:
            return True  # of queries of the user's the data tells nothing
        how = self.effort(index, 10, None, None)
        if how.scan:
            return True
        some = np.random.default_rng(index._seed).permutation(nodes)[:PROOF]
        return proven(calibration.delivered(index, some, how), self.target)

    def due(self, n_vectors: int) -> bool:
        """Whether to measure now: the index grew by half or all of it changed since, or there is enough at last."""
        if n_vectors < calibration.LEAST:
            return False
        grown = n_vectors * 2 > self._size * 3
        return self.calibrates if self.curve is None else grown or self.worn

    # -- choosing ----------------------------------------------------------------------------------------------------

    def effort(self, index: "GraphIndex", k: int, recall: float | None, effort: int | None) -> Effort:
        """What a target, or a given effort, means for k neighbors; remembered."""
        key, efforts = (k, recall, effort), self.efforts
        known = efforts.get(key)
        if known is None:
            known = self._given(index, k, effort) if effort is not None else self._chosen(index, k, recall)
            store = index._store
            dim = store.dim if store.metric.input == "float" else 0  # bits go the long way
            core = _core.Plan(
                dim, min(k, MOST), store.metric.number, known.width, known.depth, PROBE, known.bounds,
                known.widths, known.reaches, known.anchor,
            )  # fmt: skip
            known = efforts[key] = known._replace(core=core)
        return known

    def depth(self, index: "GraphIndex", k: int, width: int, factor: float | None = None) -> int:
        """How many candidates the vectors themselves rank: a wide pool holds more than what codes put first.

        Without a width (0) at least so many: after a walk that a reach ended, the core ranks by how long it was.
        """
        if index._travel.codes is None:
            return k
        factor = self._depth_factor if factor is None else factor
        return max(k, math.ceil(max(k, _RANKED) * factor), width // 4)

    def _given(self, index: "GraphIndex", k: int, effort: int) -> Effort:
        width = max(k, arrays.check_int(effort, "effort", low=1, high=1 << 20))
        expected = None if self.curve is None else self.curve.at_width(k, max(1, int(width / self.growth(index))))
        context = SearchContext(index._store.metric, f"{_name(index)}, effort {width}", expected)
        return Effort(width, self.depth(index, k, width), None, None, context, False, lists=width)

    def _chosen(self, index: "GraphIndex", k: int, recall: float | None) -> Effort:
        target, curve, n = self.target if recall is None else recall, self.curve, index._n_nodes
        if curve is None:
            if self.calibrates or len(index) < calibration.LEAST:  # many rows may be few distinct vectors
                return _scan(index, k, f"{n} distinct {index.noun} are too few to calibrate a graph on")
            raise StateError("this index was built with calibrate=False, so a recall target has no meaning; "
                             "pass effort=, or call calibrate()")  # fmt: skip
        chosen = self.choice(k, target)
        stale = f"; {self.changed} changes since" if self.changed * 5 > self._size else ""
        basis = f"calibrated on {curve.n_queries} queries ({curve.source}){stale}"
        if not chosen.met:
            return _scan(index, k, f"recall {target:g} is beyond the graph, which reached {curve.best(k):.3f}, {basis}")
        growth, by_reach = self.growth(index), bool(np.isfinite(chosen.reaches).all())
        widths = np.maximum(np.ceil(chosen.widths * growth), k).astype(np.uint32)
        low, high = int(widths.min()), int(widths.max())
        lists = curve.width_at(k, chosen.expected) * growth if by_reach else high / 4
        if lists * SCAN_FACTOR > max(1, n):
            return _scan(index, k, f"cheaper than a graph search of {math.ceil(lists)} lists among {len(index)}")
        plan = f"{_name(index)}, {chosen._replace(widths=widths).effort} for recall {target:g}, {basis}"
        context = SearchContext(index._store.metric, plan, chosen.expected)
        if by_reach:
            depth, anchor = self.depth(index, k, 0), math.ceil(chosen.anchor * growth)
            return Effort(high, depth, curve.bounds, widths, context, False, None, chosen.reaches, anchor, lists)
        depth = self.depth(index, k, high)
        if low == high:
            return Effort(high, depth, None, None, context, False, lists=high)
        return Effort(high, depth, curve.bounds, widths, context, False, lists=float(widths.mean()))

    def choice(self, k: int, target: float) -> Choice:
        """What the curve says of a target, which it need not meet; remembered."""
        assert self.curve is not None
        found = self._choices.get((k, target))
        if found is None:
            found = self._choices[k, target] = self.curve.choose(k, target)
        return found

    def sieve(self, index: "GraphIndex", k: int, target: float) -> sifting.Sieve:
        """How far walks go for the k nearest that pass a filter; remembered."""
        sieves = self._sieves
        known = sieves.get((k, target))
        if known is None:
            known = sieves[k, target] = sifting.made(index, k, target)
        return known

    def way(self, index: "GraphIndex", k: int, target: float, passing: int, uneven: float = 0.0) -> sifting.Way:
        """How a search goes where so many rows pass, and lie so unevenly; the latest are remembered."""
        key, ways = (k, target, passing, uneven), self._ways
        known = ways.get(key)
        if known is None:
            if len(ways) >= _WAYS:
                ways = self._ways = {}
            known = ways[key] = sifting.chosen(index, k, target, passing, uneven)
        return known

    def growth(self, index: "GraphIndex") -> float:
        """How many times as many vectors there are as when the curve was measured: the same recall takes a wider pool
        among more, at most in proportion."""
        return max(1.0, len(index) / max(1, self._size))

    # -- files -------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, Any]]:
        """Arrays, values that stand with the graph's, and other configuration, as files hold them."""
        values = {
            "recall": float(self.target), "depth_factor": float(self._depth_factor), "curve_size": self._size,
            "changed": self.changed, "calibrates": self.calibrates,
        }  # fmt: skip
        if self.curve is None:
            return self._topics_state(), values, {}
        parts, curve = self.curve.state()
        if self.needs is not None:
            parts |= needs.state(self.needs)
        return {**parts, **self._topics_state()}, values, {"curve": curve}

    def _topics_state(self) -> dict[str, NDArray[Any]]:
        """Nodes that answer for themselves, or may have to."""
        lists = {"unproven": self._unproven, **{f"topic_{i}": topic for i, topic in enumerate(self.topics)}}
        return {name: array for name, array in lists.items() if len(array)}

    def _restore_topics(self, file: storage.File) -> None:
        names = ["unproven", *(f"topic_{i}" for i in range(_TOPICS))]
        nodes = [storage.require(file, name, np.uint32, (None,)) if name in file.arrays else NOBODY for name in names]
        if any(len(topic) > _OF_TOPIC for topic in nodes[1:]):
            raise FormatError(f"{file.path} is damaged: a topic holds more than {_OF_TOPIC} vectors")
        self._unproven, self.topics = np.array(nodes[0]), tuple(np.array(topic) for topic in nodes[1:] if len(topic))

    @classmethod
    def restore(cls, file: storage.File) -> Self:
        """Make it of what `state` gave."""
        self = cls(
            storage.config_float(file, ("graph", "recall"), 0.0, 1.0),
            storage.config_bool(file, ("graph", "calibrates")),
        )
        self._depth_factor = storage.config_float(file, ("graph", "depth_factor"), 1.0, 1000.0)
        self._size = storage.config_int(file, ("graph", "curve_size"), 0)
        self.changed = storage.config_int(file, ("graph", "changed"), 0)
        self._restore_topics(file)
        if "curve" in file.config:
            self.curve = RecallCurve.from_state(file.arrays, file.config["curve"])
            self.needs = needs.restore(file, len(self.curve.share))
        return self


def _nothing_chosen() -> dict[str, Any]:
    """What follows from what was measured, before anybody asked."""
    return {"efforts": {}, "_sieves": {}, "_ways": {}}


def proven(found: NDArray[np.floating[Any]], target: float) -> bool:
    """Whether what some queries found meets a target.

    But for half a standard error: of a recall 0.01 short four in five are noticed, of a usual one few are suspected.
    """
    return bool(found.mean() + found.std() / math.sqrt(len(found)) / 2 >= target)


def _name(index: "GraphIndex") -> str:
    return f"{type(index).__name__} over {index._travel.name(index._store)}"


def _scan(index: "GraphIndex", k: int, why: str) -> Effort:
    return Effort(1, k, None, None, SearchContext(index._store.metric, f"exact scan: {why}", 1.0), True)
