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
_FACTORS = (1.0, 0.5, 0.25, 0.125)
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
    factors : ndarray of shape (targets, shares)
        By how much less than a walk without a filter may miss one that hops over is to aim at; 0: not measured, as no
        such walk would be worth it.
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
    """Reaches of walks that hop over, by group of hardness and share: of targets that may miss so much less."""
    aims = [curve.choose(k, 1 - (1 - target) * factor).reaches for factor in factors.tolist()]
    return np.stack(aims, axis=1).astype(np.float32)


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
    factors, work = np.zeros((len(TARGETS), len(SHARES))), np.zeros((len(TARGETS), len(SHARES), len(curve.share)))
    spread = None
    if index._travel.codes is not None:
        share = min(1.0, _PASSING / max(1, len(index)))
        trial = _Trial(index, some, _random(index, share, present), threads)
        spread = next((spread for spread in _SPREADS if trial.by_codes(spread) >= 1 - _LOSS), None)
    for i, share in enumerate(SHARES):
        if share not in shares:
            continue
        trial, tried = _Trial(index, some, _random(index, share, present), threads), 0
        for j, target in enumerate(TARGETS):  # what a lower target needs, a higher one needs too
            tries = range(tried, len(_FACTORS))
            enough = (f for f in tries if trial.hopped(curve, target, _FACTORS[f], depth).suffices(curve, target))
            tried = next(enough, len(_FACTORS))
            if tried == len(_FACTORS):
                break  # such walks are not to be relied on here
            factors[j, i], work[j, i] = _FACTORS[tried], trial.work(curve, target, _FACTORS[tried], depth)
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

    def suffices(self, curve: RecallCurve, target: float) -> bool:
        """Whether a target is met: by the expected mixture, and by hard groups each for itself."""
        group = np.searchsorted(curve.bounds, self.hardness, side="left")
        groups = range(len(curve.share))
        means = np.array([self.recall[group == g].mean() if (group == g).any() else 1.0 for g in groups])
        hard = means[curve.n_easy :]
        return float(means @ curve.share) >= target + _SPARE / 2 and bool((hard >= target - _SPARE).all())


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

    def hopped(
        self, curve: RecallCurve, target: float, factor: float, depth: int, which: NDArray[np.bool_] | None = None
    ) -> _Found:
        """What walks of some queries find that all hop over what does not pass."""
        members = slice(None) if which is None else which
        index, store, some, k = self._index, self._index._store, self._some, self._k
        aims = aims_of(curve, k, target, np.array([factor]))
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

    def work(self, curve: RecallCurve, target: float, factor: float, depth: int) -> list[float]:
        """What such walks take, by group of hardness."""
        group = np.searchsorted(curve.bounds, self._some.hardness, side="left")
        taken = 0.0
        out = []
        for g in range(len(curve.share)):
            if (group == g).any():  # else as in the group before
                taken = self.hopped(curve, target, factor, depth, group == g).work
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
    factors = np.array(storage.require(file, "filtered_factors", np.float64, shape))
    work = np.array(storage.require(file, "filtered_work", np.float64, (*shape, n_groups)))
    known = (factors >= 0) & (factors <= 1) & ((factors == 0) | (work > 0).all(axis=2))
    fits = bool(known.all() and ((work >= 0) & (work <= 1e12)).all())
    if not fits or not -1 <= spread <= 1e6:
        raise FormatError(f"{file.path} is damaged: what filtered searches need is out of range")
    return Needs(None if spread < 0 else spread, factors, work)
