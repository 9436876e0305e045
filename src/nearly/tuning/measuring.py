"""Measuring a recall curve: rising widths, tried on the queries that narrower ones did not satisfy."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nearly.tuning.curve import KS, RecallCurve, sure

__all__ = ["EASY", "measure", "n_trials"]

EASY = 0.75  # share of the expected queries, the easiest, that answer together
_WIDTHS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 360, 540, 800, 1200)
_WIDE = 360  # beyond it only queries that lack more than a fiftieth are tried
_EASY_GROUPS = 3
_HARD_GROUPS = 3
_MEMBERS = 60  # queries that a group needs at least: fewer say too little
_TELLING, _SOME = 20, 5  # queries that a topic answers by in a group, and of which fewer do not count; by hand
_SETTLED = 0.9985  # mean recall beyond which wider pools are not tried
_RESAMPLES = 200
n_trials = 2 * len(_WIDTHS)  # at most

# trial(width, ks, which) searches for max(ks) neighbors of some queries -> hits per k and query, out of k
Trial = Callable[[int, tuple[int, ...], NDArray[np.intp]], NDArray[np.int32]]


def measure(
    trial: Trial, *, hardness: NDArray[np.float32], n_expected: int, most: int, n_vectors: int, source: str, seed: int,
    report: Callable[[int], None] | None = None, topic: NDArray[np.intp] | None = None,
) -> RecallCurve:  # fmt: skip
    """Try rising widths until recall is settled, and return the curve.

    Parameters
    ----------
    trial : callable
        ``trial(width, ks, which)`` runs some of the queries; see `Trial`.
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
    """
    topic = np.zeros(len(hardness), np.intp) if topic is None else topic
    widths = [w for w in _WIDTHS if w < 2 * n_vectors] or [_WIDTHS[0]]
    ks = tuple(k for k in KS if k <= min(most, widths[-1])) or KS[:1]
    shallow, deep = tuple(k for k in ks if k <= widths[0]), tuple(k for k in ks if k > widths[0])
    parts = []
    for done, batch in ((0, shallow), (len(_WIDTHS), deep)):
        if batch:
            told = None if report is None else lambda tried, done=done: report(done + tried)
            parts.append(_shares(trial, widths, batch, len(hardness), told))
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
    np.maximum.accumulate(mean, axis=2, out=mean)  # a wider pool never delivers less on average
    share = (np.bincount(group[:n_expected], minlength=len(bounds) + 1) / n_expected).astype(np.float32)
    tried = np.array(widths[:n_tried], np.uint32)
    return RecallCurve(source, len(hardness), bounds, tried, ks, mean, error, share, n_easy)


def _of_topic(members: NDArray[np.bool_], topic: NDArray[np.bool_], hardness: NDArray[np.float32]) -> NDArray[np.intp]:
    """The queries by which a topic answers in a group: its own there, filled up with those that are about as hard."""
    middle = np.median(hardness[members & topic])
    own, rest = np.flatnonzero(members & topic), np.flatnonzero(topic & ~members)
    nearest = rest[np.argsort(np.abs(hardness[rest] - middle), kind="stable")]
    return np.concatenate([own, nearest[: max(0, _TELLING - len(own))]])


def _bootstrap(
    members: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over queries, the last axis, and its standard error."""
    n = members.shape[-1]
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64)
    return members.mean(-1), (np.einsum("dm,kwm->dkw", drawn, members) / n).std(axis=0)


def _shares(
    trial: Trial, widths: Sequence[int], ks: tuple[int, ...], n: int, report: Callable[[int], None] | None
) -> tuple[NDArray[np.float64], int]:
    """Share of the true neighbors found, of shape (ks, widths, queries), and how many widths were tried.

    A pool narrower than k is not tried: it counts as the narrowest that is not.
    """
    table = np.empty((len(ks), len(widths), n))
    hits, wanted = np.zeros((len(ks), n), np.int32), np.array(ks)[:, None]
    unsettled, tried = np.arange(n), 1
    for j, width in enumerate(widths):
        held = sum(k <= width for k in ks)
        if held and len(unsettled):
            hits[:held, unsettled] = trial(width, ks[:held], unsettled)
            tried = j + 1
            if held == len(ks):
                # What was found whole stays so in wider pools: of 300,000 such cases on five sets, 0.01 % did not.
                slack = wanted // 50 if width >= _WIDE else 0
                settled = ((hits / wanted).mean(axis=1) >= _SETTLED).all()
                unsettled = unsettled[:0] if settled else np.flatnonzero((hits < wanted - slack).any(axis=0))
        table[:, j] = hits / wanted
        if report is not None:
            report(j + 1)
    for i, k in enumerate(ks):
        table[i, : np.searchsorted(widths, k)] = table[i, np.searchsorted(widths, k)]
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
