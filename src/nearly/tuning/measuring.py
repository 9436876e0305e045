"""Measuring a recall curve: rising efforts, tried on the queries that lesser ones did not satisfy."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.tuning.curve import ANCHOR, KS, PROBE, RecallCurve, sure

__all__ = ["EASY", "Trial", "measure", "n_trials"]

EASY = 0.75  # share of the expected queries, the easiest, that answer together
# None below zero: such a walk ends where all that it has met is about as far, long before it is near.
_REACHES = (0.0, 0.015, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.27, 0.36, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0)
_POOL = 1200  # candidates at most, should many lie within the reach
_WIDTHS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 360, 540, 800, _POOL)
_FAR, _WIDE = 0.4, 360  # beyond them only queries that lack more than a fiftieth are tried
_CAPPED = 0.95  # share of the pool that is read on average where a wider reach changes nothing
_EASY_GROUPS = 3
_HARD_GROUPS = 3
_MEMBERS = 60  # queries that a group needs at least: fewer say too little
_TELLING, _SOME = 20, 5  # queries that a topic answers by in a group, and of which fewer do not count; by hand
_SETTLED = 0.9985  # mean recall beyond which more effort is not tried
_RESAMPLES = 200
n_trials = len({max(k, ANCHOR) for k in KS}) * (len(_REACHES) + len(_WIDTHS[::2]))  # at most


class Effort(NamedTuple):
    """A pool, and how far beyond the nearest, the anchor, a walk goes; infinite: as far as the pool."""

    width: int
    reach: float
    anchor: int


# trial(effort, ks, which) searches for max(ks) neighbors of some queries -> hits per k and query, out of k; lists read
Trial = Callable[[Effort, tuple[int, ...], NDArray[np.intp]], tuple[NDArray[np.int32], int]]


def measure(
    trial: Trial, *, hardness: NDArray[np.float32], n_expected: int, most: int, n_vectors: int, source: str, seed: int,
    report: Callable[[int], None] | None = None, topic: NDArray[np.intp] | None = None, stepped: bool = False,
) -> RecallCurve:  # fmt: skip
    """Try rising efforts until recall is settled, and return the curve.

    Parameters
    ----------
    trial : callable
        ``trial(effort, ks, which)`` runs some of the queries; see `Trial`.
    hardness : ndarray of shape (n_queries,), float32
        Of each query.
    n_expected : int
        The first so many queries are like those to come; the others are there for the hard groups.
    most : int
        The largest k that can be asked for.
    n_vectors : int
    source : str
        What the queries are, for people.
    seed : int
        Of the bootstrap.
    report : callable, optional
        Told how many of `n_trials` are done, or need not be.
    topic : ndarray of shape (n_queries,), intp, optional
        Which topic a query is of, from 1 on; 0: none. Each topic is to meet a target by itself: a group answers by the
        lowest of its curves.
    stepped : bool
        Whether distances are whole numbers or take few values: between two reaches may lie nothing at all, so that
        the width of the pool is the effort.
    """
    topic = np.zeros(len(hardness), np.intp) if topic is None else topic
    widths = [w for w in _WIDTHS if w < 2 * n_vectors] or [_WIDTHS[0]]
    if not stepped:  # a pool whose lists cost no more than four scans: `SCAN_FACTOR`
        widths = [*(w for w in widths if w < n_vectors // 4), int(np.clip(n_vectors // 4, 2 * PROBE, _POOL))]
    ks = tuple(k for k in KS if k <= min(most, widths[-1])) or KS[:1]
    everyone, expected, done = np.arange(len(hardness)), np.arange(n_expected), 0
    parts, fixed = [], []

    def told(n: int) -> None:
        if report is not None:
            report(done + n)

    pools = widths[::-2][::-1]
    for anchor in sorted({max(k, ANCHOR) for k in ks}):
        batch = tuple(k for k in ks if max(k, ANCHOR) == anchor)
        if stepped:
            efforts = [Effort(width, np.inf, anchor) for width in widths]
        else:
            efforts = [Effort(widths[-1], reach, anchor) for reach in _REACHES]
        parts.append(_shares(trial, efforts, batch, everyone, told))
        done += len(efforts)
        if not stepped:  # for these ks alone: how deep codes are ranked depends on k
            fixed.append(_shares(trial, [Effort(pool, np.inf, anchor) for pool in pools], batch, expected, told)[0])
            done += len(pools)
    n_tried = max(tried for _, tried in parts)
    table = np.concatenate([shares[:, :n_tried] for shares, _ in parts])  # ks, widths, queries
    bounds, n_easy = _groups(hardness, n_expected)
    group = np.searchsorted(bounds, hardness, side="left")
    mean = np.empty((len(ks), len(bounds) + 1, n_tried), np.float32)
    error = np.empty_like(mean)
    rng = np.random.default_rng(seed)
    for g in range(len(bounds) + 1):
        members = group == g
        others = members & (topic == 0)
        mean[:, g], error[:, g] = _bootstrap(table[:, :, others if others.sum() >= _TELLING else members], rng)
        for t in range(1, int(topic.max()) + 1):
            if (topic[members] == t).sum() < _SOME:
                continue
            of_topic, spread = _bootstrap(table[:, :, _of_topic(members, topic == t, hardness)], rng)
            if g < n_easy:  # where others do not answer for themselves
                of_topic = np.maximum(0, sure(of_topic, spread))
            lower = of_topic < mean[:, g]
            mean[:, g][lower], error[:, g][lower] = of_topic[lower], spread[lower]
    np.maximum.accumulate(mean, axis=2, out=mean)  # more effort never delivers less on average
    share = (np.bincount(group[:n_expected], minlength=len(bounds) + 1) / n_expected).astype(np.float32)
    if stepped:
        tried, reaches = np.array(widths[:n_tried], np.uint32), np.full(n_tried, np.inf, np.float32)
        whole, pools = np.einsum("kgw,g->kw", mean, share), widths[:n_tried]
    else:
        tried, reaches = np.full(n_tried, widths[-1], np.uint32), np.array(_REACHES[:n_tried], np.float32)
        whole = np.maximum.accumulate(np.concatenate([shares.mean(-1) for shares in fixed]), axis=1)
    return RecallCurve(source, len(hardness), bounds, tried, reaches, ks, mean, error, share, n_easy,
                       np.array(pools, np.uint32), whole.astype(np.float32))  # fmt: skip


def _of_topic(members: NDArray[np.bool_], topic: NDArray[np.bool_], hardness: NDArray[np.float32]) -> NDArray[np.intp]:
    """The queries by which a topic answers in a group: its own there, filled up with those that are about as hard."""
    middle = np.median(hardness[members & topic])
    own, rest = np.flatnonzero(members & topic), np.flatnonzero(topic & ~members)
    nearest = rest[np.argsort(np.abs(hardness[rest] - middle), kind="stable")]
    return np.concatenate([own, nearest[: max(0, _TELLING - len(own))]])


def _bootstrap(
    members: NDArray[np.float64],
    rng: "np.random.Generator",  # quoted: to name it would import it
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over queries, the last axis, and its standard error."""
    n = members.shape[-1]
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
    return members.mean(-1), (np.einsum("dm,kwm->dkw", drawn, members) / n).std(axis=0)


def _shares(
    trial: Trial, efforts: Sequence[Effort], ks: tuple[int, ...], which: NDArray[np.intp], told: Callable[[int], None]
) -> tuple[NDArray[np.float64], int]:
    """Share of the true neighbors found, of shape (ks, efforts, queries), and how many efforts were tried.

    A pool narrower than k is not tried: it counts as the narrowest that is not.
    """
    table = np.empty((len(ks), len(efforts), len(which)))
    hits, wanted = np.zeros((len(ks), len(which)), np.int32), np.array(ks)[:, None]
    unsettled, tried = np.arange(len(which)), 1
    for j, effort in enumerate(efforts):
        held = sum(k <= effort.width for k in ks)
        if held and len(unsettled):
            hits[:held, unsettled], n_lists = trial(effort, ks[:held], which[unsettled])
            tried = j + 1
            if held == len(ks):
                # What was found whole stays so with more effort: of 300,000 such cases on five sets, 0.01 % did not.
                by_reach = bool(np.isfinite(effort.reach))
                slack = wanted // 50 if (effort.reach >= _FAR if by_reach else effort.width >= _WIDE) else 0
                settled = ((hits / wanted).mean(axis=1) >= _SETTLED).all()
                capped = by_reach and n_lists >= _CAPPED * effort.width * len(unsettled)
                unsettled = unsettled[:0] if settled or capped else np.flatnonzero((hits < wanted - slack).any(axis=0))
        table[:, j] = hits / wanted
        told(j + 1)
    for i, k in enumerate(ks):
        first = next(j for j, effort in enumerate(efforts) if effort.width >= k)
        table[i, :first] = table[i, first]
    return table, tried


def _groups(hardness: NDArray[np.float32], n_expected: int) -> tuple[NDArray[np.float32], int]:
    """Bounds between groups, and how many groups answer together.

    Expected queries alone form groups of about equal size. Where harder ones were made, the easiest three quarters of
    the expected ones do, and the rest forms groups with the harder ones.
    """
    expected, n = hardness[:n_expected], len(hardness)
    if n == n_expected:
        wanted = int(np.clip(n // _MEMBERS, 1, _EASY_GROUPS + _HARD_GROUPS))
        bounds = _unique(np.quantile(hardness, np.arange(1, wanted) / wanted, method="lower"), hardness)
        return bounds, len(bounds) + 1
    wanted = int(np.clip(EASY * n_expected // _MEMBERS, 1, _EASY_GROUPS))
    easy = _unique(np.quantile(expected, EASY * np.arange(1, wanted + 1) / wanted, method="lower"), hardness)
    tail = hardness[hardness > easy[-1]] if len(easy) else hardness
    wanted = int(np.clip(len(tail) // _MEMBERS, 1, _HARD_GROUPS))
    hard = np.quantile(tail, np.arange(1, wanted) / wanted, method="lower")
    return _unique(np.concatenate([easy, hard]), hardness), len(easy)


def _unique(bounds: NDArray[np.floating], hardness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bounds that leave no group empty."""
    rising = np.unique(bounds.astype(np.float32))
    return rising[rising < hardness.max()] if len(hardness) else rising
