"""Filtered search of a graph: which way it goes, how far, and what that is known from.

Ways: a scan of what passes, by the vectors or by codes first; a walk among all nodes, which goes as far beyond the k-th
that passes as is right for its rank among all, since a search that finds the j nearest of all finds those that pass
among them; and a walk that only compares what passes and hops over the rest (ACORN-1: Patel et al., SIGMOD 2024,
https://arxiv.org/abs/2403.04871). Between the walks the core chooses for each query, by the share that passes of the
nearest that it met in its first hops; between walks and scans the counts do that are expected of each.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.indexes.needs import SHARES, TARGETS, aims_of
from nearly.tuning import costs
from nearly.tuning.curve import ANCHOR

if TYPE_CHECKING:
    from nearly.indexes.contract import Effort
    from nearly.indexes.graph import GraphIndex

__all__ = ["Sieve", "Way", "chosen", "made", "prices", "scanned_together", "scans_by_codes", "worth"]

_FEW = 0.16  # share under which hopping over costs less than walking all: SIFT 0.2, CVE 0.14 (benchmarks/README.md)
_EDGES = np.array([0.07, 0.03, 0.0], np.float32)  # shares down to which what was measured at those of SHARES serves
_EXACT = 0.995  # targets beyond which a scan by codes, which may miss a thousandth, is not taken
_RANKED = 5  # vectors, for each of the k, that a scan by codes compares
_PROBE = 300.0  # comparisons before a walk sees what passes around its query, with the lists that they take
_WORTH_A_LOOK = 5.5  # scans so many times as long as that
_APART = 0.35  # of neighbors that are so much alike, where walks find much that passes or nothing
_ALIKE = 8.0  # times as much more a walk takes where neighbors are all alike: attributes of CVE
_FALLING = [-share for share in SHARES]
_FRESH = 0.6  # of a list's neighbors are met for the first time, where all are walked


class Sieve(NamedTuple):
    """How far walks go for one target: good for every filter.

    ``core`` is what the core takes; ``ranks``, as logarithms, and ``lists`` say how many lists a walk among all reads
    until it has so many neighbors, on average; ``hop`` has the work of walks that hop over at each of SHARES, nothing
    where they may not. Numbers of Python's: one is wanted at a time.
    """

    core: Any
    how: "Effort"
    ranks: list[float]
    lists: list[float]
    hop: list[float] | None


class Way(NamedTuple):
    """How one filtered search goes, and why: a walk that does so much at most, or a scan where ``sieve`` is None.

    ``nanoseconds`` a walk takes, or would.
    """

    sieve: Sieve | None
    most: int
    why: str
    nanoseconds: float = math.inf


def made(index: "GraphIndex", k: int, target: float, few: float = _FEW) -> Sieve:
    """How far walks go for a target and k neighbors; where fewer pass, what does not is hopped over."""
    contract = index._contract
    how, curve = contract.effort(index, k, target, None), contract.curve
    assert curve is not None
    assert how.reaches is not None
    ranks, reaches, lists = [max(k, ANCHOR)], [how.reaches], [how.lists]
    for rank in curve.ks:
        choice = contract.choice(rank, target)
        if rank > ranks[-1] and choice.met and np.isfinite(choice.reaches).all():
            ranks.append(rank)
            reaches.append(choice.reaches)
            lists.append(max(lists[-1], curve.width_at(rank, choice.expected) * contract.growth(index)))
    needs, hop, aims = contract.needs, None, how.reaches[:, None]
    works, hard = np.zeros(aims.shape), np.ones(len(aims))
    if needs is not None and k <= curve.ks[-1]:
        at = next((i for i, known in enumerate(TARGETS) if known >= target - 1e-9), len(TARGETS) - 1)
        known = np.logical_and.accumulate((needs.factors[at] > 0).all(axis=1))
        if known.any():
            aims = aims_of(curve, k, target, needs.factors[at][known])
            works = needs.work[at][known].T
            hop = curve.share @ works
            hard = works[:, 0] / hop[0]  # so many times as much takes a query of a group: with a filter or without
    edges = _EDGES[: aims.shape[1]].copy()
    edges[-1] = 0
    core = _core.Sifting(
        np.array(ranks, np.uint32), _float32(np.stack(reaches, axis=1)), _float32(np.outer(hard, lists)), edges,
        _float32(aims), _float32(works), 0.0 if hop is None else few,
    )  # fmt: skip
    logs, of_shares = [math.log(rank) for rank in ranks], None if hop is None else hop.tolist()
    return Sieve(core, how, logs, [float(each) for each in lists], of_shares)


def worth(index: "GraphIndex", share: float) -> bool:
    """Whether walks that hop over may cost less than a scan where a share passes: by costs that are the same
    everywhere, since an index holds what it measures of them."""
    comparison, row = prices(index, costs.WRITTEN)
    least = 500 + costs.LIST * 200 * math.sqrt(0.1 / share)  # SIFT, recall 0.9
    return least * comparison < share * len(index) * row


def prices(index: "GraphIndex", by: costs.Costs | None = None) -> tuple[float, float]:
    """What a comparison costs during a walk, and during the quickest scan; on this machine, unless that is said."""
    store, codes = index._store, index._travel.codes
    stride = 0 if store.metric.input == "any" else store.vectors.stride
    exact = costs.exactly(stride, by)
    if codes is None:
        return costs.compared(stride, by), exact
    needs = index._contract.needs
    by_code = costs.scanned(codes.stride, by) if needs is not None and needs.spread is not None else exact
    return costs.compared(codes.stride, by), min(exact, by_code)


def _preparing(index: "GraphIndex") -> float:
    """What a query costs before it is compared with anything by code."""
    codes = index._travel.codes
    return 0.0 if codes is None else costs.prepared(codes.stride, index._store.dim)


def chosen(index: "GraphIndex", k: int, target: float, passing: int, uneven: float = 0.0) -> Way:
    """The way that should cost the least, by counts of what is compared and read.

    Counts are of filters that pass nodes as if drawn. Where neighbors are ``uneven``, that is alike in whether they
    pass, fewer pass around most queries than of all, and walks take longer.

    A walk sees in its first hops what passes around its query and may turn to a scan then. So where the first hops cost
    little beside a scan, and queries differ much in what passes around them, one begins though a scan may be quicker.
    """
    n = len(index)
    those = f"{passing} of {n} {index.noun} pass ({passing / n:.2%})"
    if not passing:
        return Way(None, 0, f"none of {n} {index.noun} passes", 0.0)
    comparison, row = prices(index)
    sieve, share = index._contract.sieve(index, k, target), passing / n
    if share < _FEW and sieve.hop is not None:
        walk = _between(-share, _FALLING, sieve.hop) * max(1.0, SHARES[len(sieve.hop) - 1] / share)
    else:
        rank = sieve.ranks[0] - math.log(share)
        lists = _between(rank, sieve.ranks, sieve.lists) * max(1.0, math.exp(rank - sieve.ranks[-1]))
        walk = lists * (_FRESH * index._lists[0].stride / 4 + costs.LIST)
    walk *= 1 + _ALIKE * uneven
    look = _PROBE + _preparing(index) / comparison
    walk += look
    scan = passing * row / comparison
    said = f"about {walk * comparison / 1000:.0f} µs a query, a scan of them {scan * comparison / 1000:.0f}"
    if scan <= walk and (uneven < _APART or scan < _WORTH_A_LOOK * look):
        return Way(None, 0, f"{those}: a walk takes {said}", walk * comparison)
    return Way(sieve, int(scan), f"{those}: a walk takes {said}", walk * comparison)


def _between(x: float, known: Sequence[float], values: Sequence[float]) -> float:
    """The value at x, by those at ascending places: between them as on a line, beyond them as at the last."""
    at = bisect_right(known, x, hi=len(values))
    if at in (0, len(values)):
        return values[at and at - 1]
    low, high = known[at - 1], known[at]
    return values[at - 1] + (values[at] - values[at - 1]) * (x - low) / (high - low)


def scans_by_codes(index: "GraphIndex", k: int, target: float, passing: int) -> bool:
    """Whether to scan by codes first: where they tell which may be among the nearest, and where it pays."""
    if not _tell_apart(index, target):
        return False
    return _by_codes(index, k, passing, 1) < passing * costs.exactly(index._store.vectors.stride)


def scanned_together(
    index: "GraphIndex", k: int, target: float, passing: int, n_queries: int, nanoseconds: float
) -> bool:
    """Whether queries that share a filter are compared by codes with all that passes, a panel of them at a time: sooner
    than each walks, which takes so many nanoseconds, or is compared with few vectors."""
    if n_queries < costs.TOGETHER or not _tell_apart(index, target) or not index._travel.scorer.panel_width:
        return False
    alone = min(nanoseconds, passing * costs.again(index._store.vectors.stride, passing))
    return _by_codes(index, k, passing, n_queries) < alone


def _tell_apart(index: "GraphIndex", target: float) -> bool:
    needs = index._contract.needs
    return index._travel.codes is not None and needs is not None and needs.spread is not None and target <= _EXACT


def _by_codes(index: "GraphIndex", k: int, passing: int, n_queries: int) -> float:
    """What a query of a scan by codes takes in a batch of so many."""
    codes, width = index._travel.codes, index._travel.scorer.panel_width
    each = costs.scanned(codes.stride)
    if width and n_queries >= costs.TOGETHER:
        each = min(each, costs.together(codes.stride, n_queries, width))
    return _preparing(index) + passing * each + _RANKED * k * costs.exactly(index._store.vectors.stride)


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)
