"""What filtered searches of a graph need beside its recall curve, measured under random filters."""

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError
from nearly.indexes.allowed import nodes_of
from nearly.indexes.store import NONE
from nearly.tuning import RecallCurve, costs
from nearly.tuning.curve import ANCHOR, PROBE

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex

__all__ = ["SHARES", "TARGETS", "Needs", "Probe", "aims_of", "measured", "restore", "state"]

TARGETS = (0.9, 0.95, 0.99)
SHARES = (0.1, 0.05, 0.02)  # that hops are measured at; each serves down to about the next
_FACTORS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
_SPREADS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
_LOSS = 0.001  # recall that a scan by codes may cost
_SPARE = 0.005  # recall beyond the target that hops are to deliver, since one random filter stands for all
_QUERIES, _PASSING = 200, 10_000  # that spreads and hops are measured on; by hand
_POOL = 1200  # candidates that a walk which hops over holds at most


class Needs(NamedTuple):
    """What calibration found that filtered searches need.

    Attributes
    ----------
    spread : float or None
        How much farther by code than the k-th the true k nearest are, as a share; None: codes cannot tell.
    factors : ndarray of shape (targets, shares, groups)
        By how much less than a walk without a filter may miss, or how much more, one that hops over is to aim at, by
        group of hardness; 0: not measured, as no such walk would be worth it.
    work : ndarray of shape (targets, shares, groups)
        What such walks took by group of hardness, in comparisons; a list that was read takes `costs.LIST`.
    """

    spread: float | None
    factors: NDArray[np.float64]
    work: NDArray[np.float64]

    @property
    def scanned(self) -> float:
        """Expected recall of scans by codes."""
        return 1 - _LOSS


def aims_of(curve: RecallCurve, k: int, target: float, factors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Reaches of walks that hop over, by group of hardness and share: of targets that may miss so many times as much.

    ``factors`` has a row a share, in it one a group.
    """
    aims, groups = np.empty(factors.T.shape, np.float32), np.arange(factors.shape[1])
    for factor in np.unique(factors):
        reaches = curve.choose(k, max(0.0, 1 - (1 - target) * factor)).reaches
        shares, members = np.nonzero(factors == factor)
        aims[members, shares] = reaches[groups[members]]
    return aims


class Probe(NamedTuple):
    """Queries of a calibration: rows of bytes, the node that each is to do without, and how hard they are."""

    rows: NDArray[np.uint8]
    without: NDArray[np.uint32]
    hardness: NDArray[np.float32]


def measured(
    index: "GraphIndex", probe: Probe, curve: RecallCurve, depth: int, shares: list[float],
    present: NDArray[np.uint64] | None, threads: int,
) -> Needs:  # fmt: skip
    """Try scans by codes, and walks that hop over where such shares pass; ``present`` passes the rows to be found."""
    step = max(1, len(probe.rows) // _QUERIES)
    some = Probe(np.ascontiguousarray(probe.rows[::step]), probe.without[::step].copy(), probe.hardness[::step])
    work = np.zeros((len(TARGETS), len(SHARES), len(curve.share)))
    factors = np.zeros(work.shape)
    spread = None
    if index._travel.codes is not None:
        share = min(1.0, _PASSING / max(1, len(index)))
        trial = _Trial(index, some, _random(index, share, present), threads)
        spread = next((spread for spread in _SPREADS if trial.by_codes(spread) >= 1 - _LOSS), None)
    for i, share in enumerate(SHARES):
        if share not in shares:
            continue
        trial, least = _Trial(index, some, _random(index, share, present), threads), 0
        for j, target in enumerate(TARGETS):
            chosen, least = trial.factors(curve, target, depth, least)
            if not chosen.all():
                break  # such walks are not to be relied on here
            factors[j, i], work[j, i] = chosen, trial.work(curve, target, chosen, depth)
    return Needs(spread, factors, work)


def _random(index: "GraphIndex", share: float, present: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
    """Bits of rows that pass at random, of those that are there."""
    n = index._n_rows
    drawn = np.random.default_rng((index._seed, round(share * 1e6))).random(n) < share
    drawn &= index._store.column("nodes")[:n] != NONE
    bits = np.packbits(np.concatenate([drawn, np.zeros(-n % 64, bool)]), bitorder="little").view(np.uint64)
    return bits if present is None else bits & present[: len(bits)]


class _Found(NamedTuple):
    recall: NDArray[np.floating[Any]]  # of each query
    hardness: NDArray[np.float32]
    work: float

    def enough(self, curve: RecallCurve, target: float) -> NDArray[np.bool_]:
        """Which groups get a target: easy ones together, as they are expected, hard ones each for itself."""
        group = np.searchsorted(curve.bounds, self.hardness, side="left")
        groups = range(len(curve.share))
        means = np.array([self.recall[group == g].mean() if (group == g).any() else 1.0 for g in groups])
        easy, share = slice(curve.n_easy), curve.share[: curve.n_easy]
        enough = means >= target - _SPARE
        enough[easy] = not share.sum() or float(means[easy] @ share) / share.sum() >= target + _SPARE / 2
        return enough


class _Trial:
    """Searches of an index under one filter, for queries whose truth under it is known."""

    def __init__(self, index: "GraphIndex", some: Probe, bits: NDArray[np.uint64], threads: int) -> None:
        self._index, self._some, self._bits, self._threads = index, some, bits, threads
        self._nodes = nodes_of(index, bits)
        self._k = max(1, min(ANCHOR, len(self._nodes.numbers) - 1))
        self._truth = self._scanned(None)

    def _scanned(self, spread: float | None) -> NDArray[np.float32]:
        """Distances of the k nearest that pass and one more, for queries that may be stored themselves."""
        index, store, n, k = self._index, self._index._store, len(self._some.rows), self._k + 1
        found, ids, counts = np.empty((n, k), np.float32), np.empty((n, k), np.int64), np.empty(n, np.uint32)
        codes = index._travel.scorer
        scan = _core.scan if spread is None else partial(_core.scan_coded, codes=codes, spread=spread)
        scan(
            scorer=store.scorer, rows=store.rows, n_nodes=index._n_nodes, query_bytes=store.query_bytes,
            queries=self._some.rows, metric=store.metric.number, ids=ids, distances=found, counts=counts,
            filter=self._bits, only=self._nodes.numbers, threads=self._threads,
        )  # fmt: skip
        return found

    def by_codes(self, spread: float) -> float:
        """Recall of a scan by codes."""
        return float((self._scanned(spread) <= self._truth[:, -1:]).mean())

    def factors(self, curve: RecallCurve, target: float, depth: int, least: int) -> tuple[NDArray[np.float64], int]:
        """The largest factor of each group that gets it a target, 0 where none does; and the first that was of use.

        Those before ``least`` are not tried: what did not serve a lower target does not serve this one.
        """
        chosen, first = np.zeros(len(curve.share)), len(_FACTORS)
        for f in range(least, len(_FACTORS)):
            found = self.hopped(curve, target, np.full(len(chosen), _FACTORS[f]), depth)
            served = found.enough(curve, target) & (chosen == 0)
            chosen[served] = _FACTORS[f]
            first = min(first, f) if served.any() else first
            if chosen.all():
                break
        return chosen, min(first, len(_FACTORS) - 1)

    def hopped(
        self, curve: RecallCurve, target: float, factors: NDArray[np.float64], depth: int,
        which: NDArray[np.bool_] | None = None,
    ) -> _Found:  # fmt: skip
        """What walks of some queries find that all hop over what does not pass."""
        members = slice(None) if which is None else which
        index, store, some, k = self._index, self._index._store, self._some, self._k
        aims = aims_of(curve, k, target, factors[None])
        rows, without = some.rows[members], some.without[members]
        n = len(rows)
        share = len(self._nodes.numbers) / max(1, index._n_nodes)
        none = np.zeros_like(aims)
        sifting = _core.Sifting(np.array([ANCHOR], np.uint32), aims, none, none[0], aims, none, 2.0)
        found, counts = np.empty((n, k), np.float32), np.empty(n, np.uint32)
        n_compared, n_lists, *_ = index._graph.search(
            store.query_bytes, rows, store.metric.number, _POOL, depth, np.empty((n, k), np.int64), found, counts,
            self._bits, PROBE, curve.bounds, np.full(len(curve.share), _POOL, np.uint32), None, self._threads,
            without, aims[:, 0].copy(), ANCHOR, 1 / share, sifting, self._nodes.bits, self._nodes.some, share,
        )  # fmt: skip
        recall = (found <= self._without_itself()[members]).mean(axis=1)
        return _Found(recall, some.hardness[members], (n_compared + costs.LIST * n_lists) / n)

    def work(self, curve: RecallCurve, target: float, factors: NDArray[np.float64], depth: int) -> list[float]:
        """What such walks take, by group of hardness."""
        group = np.searchsorted(curve.bounds, self._some.hardness, side="left")
        taken = 0.0
        out = []
        for g in range(len(curve.share)):
            if (group == g).any():  # else as in the group before
                taken = self.hopped(curve, target, factors, depth, group == g).work
            out.append(taken)
        return out

    def _without_itself(self) -> NDArray[np.float32]:
        """How far the k-th is that passes, other than the node that a query does without."""
        there = self._some.without != NONE
        bits = self._nodes.bits[np.where(there, self._some.without, 0) >> 6]
        passes = there & (bits >> (self._some.without & np.uint32(63)).astype(np.uint64) & np.uint64(1) != 0)
        return np.where(passes, self._truth[:, -1], self._truth[:, -2])[:, None]


def state(needs: Needs) -> dict[str, NDArray[Any]]:
    """Arrays as files hold them."""
    spread = np.array([-1.0 if needs.spread is None else needs.spread])
    return {"filtered_spread": spread, "filtered_factors": needs.factors, "filtered_work": needs.work}


def restore(file: storage.File, n_groups: int) -> Needs | None:
    """What `state` gave; None of older files."""
    if "filtered_work" not in file.arrays:
        return None
    shape = len(TARGETS), len(SHARES)
    spread = float(storage.require(file, "filtered_spread", np.float64, (1,))[0])
    work = np.array(storage.require(file, "filtered_work", np.float64, (*shape, n_groups)))
    early = "filtered_factors" in file.arrays and file.arrays["filtered_factors"].ndim == 2  # one for all groups
    factors = np.array(storage.require(file, "filtered_factors", np.float64, shape if early else work.shape))
    factors = np.repeat(factors[:, :, None], n_groups, axis=2) if early else factors
    known = (factors >= 0) & (factors <= _FACTORS[0]) & ((factors == 0) | (work > 0)) & ((factors > 0) == (work > 0))
    fits = bool(known.all() and ((work >= 0) & (work <= 1e12)).all())
    if not fits or not -1 <= spread <= 1e6:
        raise FormatError(f"{file.path} is damaged: what filtered searches need is out of range")
    return Needs(None if spread < 0 else spread, factors, work)
