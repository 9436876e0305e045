"""The recall contract of inverted lists: the reach and the depth that a target implies, and what was measured."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.errors import StateError
from nearly.hits import SearchContext
from nearly.indexes import calibration
from nearly.indexes.contract import PROOF, Contract, proven
from nearly.indexes.store import NONE
from nearly.tuning import probing
from nearly.tuning.probing import Probing

if TYPE_CHECKING:
    from nearly.indexes.ivf import IVF

__all__ = ["ListContract", "Probe"]

_LOSS = 0.0005  # recall by which a deeper re-rank must gain to be tried
_RANDOM = 2.0  # ranking a vector that lies apart, in comparisons of vectors that lie side by side
_MOST_HARDER = 300  # queries made harder, of each kind, that are measured
_FEWEST = 20  # vectors of a topic that tell a recall, to within about 0.05; by hand
_MOST_KEPT = 125  # queries by which depths are measured: each is compared with all codes
_RANKED = 10  # neighbors that depths are multiples of at least: for so many they were measured


class Probe(NamedTuple):
    """How one search goes: lists within a reach, at most so many of them, or a scan."""

    width: int
    reach: float
    depth: int
    context: SearchContext
    scan: bool


class ListContract(Contract):
    """What recall inverted lists promise: see `Contract`.

    Attributes
    ----------
    probing : Probing or None
        What was measured.
    """

    probing: Probing | None = None

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
            n = calibration.held_out(index._n_nodes)
            probes = calibration.from_stored(cast(Any, index), self.topics, n)
        measured = _measured(index, probes, threads)
        self.__dict__.update(probing=measured, _size=len(index), changed=0, _known={})  # in one go

    def _keeps(self, index: Any, nodes: NDArray[np.uint32]) -> bool:
        curve = self.probing
        if curve is None or curve.mean.shape[1] == 1 or len(nodes) < _FEWEST:
            return True  # of queries of the user's the data tells nothing
        how = self.probe(index, 10, None, None, len(index))
        if how.scan:
            return True
        some = np.random.default_rng(index._seed).permutation(nodes)[:PROOF]
        return proven(_delivered(index, some, how), self.target)

    def due(self, n_vectors: int) -> bool:
        """Whether to measure now: see `Contract.due`."""
        if n_vectors < calibration.LEAST:
            return False
        return self.calibrates if self.probing is None else self.changed * 2 > self._size

    # -- choosing ----------------------------------------------------------------------------------------------------

    def probe(self, index: "IVF", k: int, recall: float | None, effort: int | None, passing: int) -> Probe:
        """What a target, or a given number of lists, means for k neighbors among those that pass; remembered."""
        key, known = (k, recall, effort), self._known
        if passing != len(index):
            return self._found(index, k, recall, effort, passing)
        if key not in known:
            known[key] = self._found(index, k, recall, effort, passing)
        return known[key]

    def _found(self, index: "IVF", k: int, recall: float | None, effort: int | None, passing: int) -> Probe:
        if effort is not None:
            return self._of_width(index, k, effort)
        target, curve, n = self.target if recall is None else recall, self.probing, len(index)
        if curve is None:
            if self.calibrates or n < calibration.LEAST:
                return _scan(index, f"{index._n_nodes} distinct vectors are too few to calibrate lists on")
            raise StateError("this index was built with calibrate=False, so a recall target has no meaning; "
                             "pass effort=, or call calibrate()")  # fmt: skip
        stale = f"; {self.changed} changes since" if self.changed * 5 > self._size else ""
        basis = f"calibrated on {curve.n_queries} queries ({curve.source}){stale}"
        code, vector = index._costs()
        # The nearest that pass are about the k n / passing nearest of all.
        chosen = curve.choose(math.ceil(k * n / max(1, passing)), target, n, code, vector)
        if chosen is None and passing < n:
            return _scan(index, f"{passing} of {n} vectors pass, too few to look for by lists")
        if chosen is None:
            return _scan(index, f"recall {target:g} is beyond the lists, which reached {curve.best(k):.3f}, {basis}")
        depth = self._depth(index, k, chosen.depth)
        cost = index._lists.centers.shape[0] * 0.25 + chosen.scanned * n * code + depth * vector
        if cost >= (n if passing == n else _RANDOM * passing):
            return _scan(index, f"cheaper than comparing with {chosen.scanned:.0%} of {n} by lists")
        plan = f"{_name(index)}, {chosen.scanned:.1%} of vectors compared for recall {target:g}, {basis}"
        context = SearchContext(index._store.metric, plan, round(chosen.expected, 6))
        return Probe(len(index._lists.centers), chosen.reach, depth, context, False)

    def _of_width(self, index: "IVF", k: int, effort: int) -> Probe:
        width = min(arrays.check_int(effort, "effort", low=1, high=1 << 20), len(index._lists.centers))
        expected = None if self.probing is None else self.probing.at_width(k, width)
        factor = 4.0 if self.probing is None else float(self.probing.depths[-1])
        context = SearchContext(index._store.metric, f"{_name(index)}, effort {width}", expected)
        return Probe(width, np.inf, self._depth(index, k, factor), context, False)

    def _depth(self, index: "IVF", k: int, factor: float) -> int:
        return k if index._codes.codes is None else math.ceil(max(k, _RANKED) * factor)

    # -- files -------------------------------------------------------------------------------------------------------

    def list_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, Any]]:
        """Arrays, values that stand with the lists', and other configuration, as files hold them."""
        values = {"recall": float(self.target), "calibrates": self.calibrates, "curve_size": self._size,
                  "changed": self.changed}  # fmt: skip
        if self.probing is None:
            return self._suspects(), values, {}
        parts, curve = self.probing.state()
        return {**parts, **self._suspects()}, values, {"curve": curve}

    @classmethod
    def restore(cls, file: storage.File) -> Self:
        """Make it of what `list_state` gave."""
        self = cls(
            storage.config_float(file, ("ivf", "recall"), 0.0, 1.0), storage.config_bool(file, ("ivf", "calibrates"))
        )
        self._size = storage.config_int(file, ("ivf", "curve_size"), 0)
        self.changed = storage.config_int(file, ("ivf", "changed"), 0)
        self._suspect(file)
        if "curve" in file.config:
            self.probing = Probing.from_state(file.arrays, file.config["curve"])
        return self


def _measured(index: "IVF", probes: calibration.Probes, threads: int) -> Probing:
    store, lists, n_apart = index._store, index._lists, max(probes.n_expected, len(probes.apart))
    harder = np.arange(n_apart, len(probes.rows))[:: max(1, (len(probes.rows) - n_apart) // _MOST_HARDER)]
    rows = np.ascontiguousarray(probes.rows[np.concatenate([np.arange(n_apart), harder])])
    group = np.ones(len(rows), np.intp)  # each but the first answers for itself
    group[: probes.n_expected] = 0
    for topic in range(1, 1 + int(probes.topic.max(initial=0))):
        of_topic = np.flatnonzero(probes.topic == topic)
        if len(of_topic) >= _FEWEST:
            group[of_topic] = group.max() + 1
    bits = _all_but(index, probes.apart) if len(probes.apart) else None
    truth, ids = _truth(index, rows, min(probing.KS[-1], max(1, len(index) - _left_out(index, bits))), bits, threads)
    nodes = store.column("nodes")[index._id_map().rows(ids.ravel())[0]]
    of_neighbors = lists.labels(index._n_nodes)[nodes].reshape(truth.shape).astype(np.intp)
    gaps = np.empty((len(rows), len(lists.centers)), np.float32)
    index._core.gaps(store.query_bytes, rows, store.metric.number, gaps, threads)
    apart = slice(0, n_apart)
    return probing.measure(
        gaps, of_neighbors, lists.sizes, n_expected=probes.n_expected, group=group,
        kept=_kept(index, rows[apart], group[apart], truth[apart], bits, threads), source=probes.source,
        seed=index._seed,
    )  # fmt: skip


def _truth(
    index: "IVF", rows: NDArray[np.uint8], k: int, bits: NDArray[np.uint64] | None, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances and ids of the k nearest that pass."""
    store, n = index._store, len(rows)
    ids, found = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, rows, store.metric.number, ids, found,
               np.empty(n, np.uint32), bits, None, threads)  # fmt: skip
    return found, ids


def _looked(
    index: "IVF", rows: NDArray[np.uint8], k: int, width: int, reach: float, depth: int,
    bits: NDArray[np.uint64] | None, threads: int,
) -> NDArray[np.float32]:  # fmt: skip
    """Distances of what a search of the lists finds."""
    store, n = index._store, len(rows)
    ids, found = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    index._core.search(store.query_bytes, rows, store.metric.number, width, reach, depth, False, ids, found,
                       np.empty(n, np.uint32), bits, threads)  # fmt: skip
    return found


def _kept(
    index: "IVF", rows: NDArray[np.uint8], group: NDArray[np.intp], truth: NDArray[np.float32],
    bits: NDArray[np.uint64] | None, threads: int,
) -> NDArray[np.float32]:  # fmt: skip
    """Share of the true neighbors that the first so many by codes hold, for depths as long as more of them gain.

    Of several groups the least: codes may tell one topic from another, and its vectors not from each other.
    """
    if index._codes.codes is None:
        return np.ones(1, np.float32)
    some = np.concatenate([np.flatnonzero(group == g)[:: max(1, int((group == g).sum()) // _MOST_KEPT)]
                           for g in np.unique(group)])  # fmt: skip
    rows, truth, group = np.ascontiguousarray(rows[some]), truth[some], group[some]
    k, shares = min(10, truth.shape[1]), []
    for factor in probing.DEPTHS:
        found = _looked(
            index, rows, k, len(index._lists.centers), np.inf, math.ceil(_RANKED * factor), bits, threads
        )  # fmt: skip
        held = (found <= truth[:, k - 1 : k]).mean(axis=1)
        shares.append(min(float(held[group == g].mean()) for g in np.unique(group)))
        if shares[-1] >= 1 - _LOSS:
            break
    return np.maximum.accumulate(np.array(shares, np.float32))


def _delivered(index: "IVF", nodes: NDArray[np.uint32], how: Probe) -> NDArray[np.floating[Any]]:
    """Recall@10 of a search for each of these nodes among all others."""
    rows, bits = calibration.as_queries(cast(Any, index), nodes), _all_but(index, nodes)
    k = min(10, len(index) - _left_out(index, bits))
    found = _looked(index, rows, k, how.width, how.reach, how.depth, bits, 0)
    return np.asarray((found <= _truth(index, rows, k, bits, 0)[0][:, -1:]).mean(axis=1))


def _all_but(index: "IVF", nodes: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A filter that passes the rows of all nodes but these."""
    passes = np.ones(index._n_nodes + 1, bool)
    passes[nodes] = passes[-1] = False
    of_row = index._store.column("nodes")[: index._n_rows]
    padded = np.zeros((index._n_rows + 63) // 64 * 64, bool)
    padded[: index._n_rows] = (of_row != NONE) & passes[np.minimum(of_row, index._n_nodes)]
    return np.packbits(padded, bitorder="little").view(np.uint64)


def _left_out(index: "IVF", bits: NDArray[np.uint64] | None) -> int:
    return 0 if bits is None else len(index) - int(np.unpackbits(bits.view(np.uint8)).sum())


def _name(index: "IVF") -> str:
    return f"IVF over {index._codes.name(index._store)}"


def _scan(index: "IVF", why: str) -> Probe:
    return Probe(1, 0.0, 1, SearchContext(index._store.metric, f"exact scan: {why}", 1.0), True)
