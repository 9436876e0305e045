"""Recall curves: what a search delivered at each effort, for easy and for hard queries, and what that implies.

Hardness is what a search sees in its first hops: the smallest distance met. Queries are grouped by it; each group has
its own curve, and a search chooses its width when it knows its group. All groups are brought to one level of recall, so
that it holds for other mixtures of easy and hard queries too; the level is the least at which the lower bound of the
mean over all calibration queries meets the target.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.errors import FormatError

__all__ = ["KS", "PROBE", "Choice", "RecallCurve", "measure"]

KS = (1, 10, 100)  # numbers of neighbors that curves are measured for; others take the next larger one
PROBE = 8  # hops before the width is chosen; by hand: most searches at recall 0.9 take more
_WIDTHS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 360, 540, 800, 1200)
_GROUPS = 6
_SETTLED = 0.9985  # mean recall beyond which wider pools are not tried
_RESAMPLES = 200
_SIGMAS = 1.645  # one-sided 95 %

Widths = NDArray[np.uint32]
# trial(width, ks) searches for max(ks) neighbors -> hits per k and query (out of k true neighbors), hardness per query
Trial = Callable[[int, tuple[int, ...]], tuple[NDArray[np.int32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Choice:
    """The effort for one target.

    Attributes
    ----------
    widths : ndarray of uint32
        Pool width of each group of hardness, easiest first.
    expected : float
        Estimated mean recall over the calibration queries.
    met : bool
        Whether the lower bound reaches the target.
    """

    widths: Widths
    expected: float
    met: bool


@dataclass(frozen=True)
class RecallCurve:
    """What calibration measured.

    Attributes
    ----------
    source : str
        What the queries were.
    n_queries : int
    bounds : ndarray of shape (n_groups - 1,), float32
        Hardness at which a group ends, ascending.
    widths : ndarray of shape (n_widths,), uint32
        Pool widths that were tried, ascending.
    ks : tuple of int
        Numbers of neighbors.
    mean, error : ndarray of shape (n_ks, n_groups, n_widths), float32
        Mean recall, and its standard error by bootstrap over the group's queries.
    share : ndarray of shape (n_groups,), float32
        Share of the queries in each group.
    """

    source: str
    n_queries: int
    bounds: NDArray[np.float32]
    widths: Widths
    ks: tuple[int, ...]
    mean: NDArray[np.float32]
    error: NDArray[np.float32]
    share: NDArray[np.float32]

    def choose(self, k: int, target: float) -> Choice:
        """Return the least widths whose one-sided 95 % lower bound of the mean meets a target for k neighbors."""
        at = self._column(k)
        level = target
        for _ in range(8):  # the margin depends on the widths and they on it; a few rounds settle both
            picked = [self._width(self.mean[at, g], self.error[at, g], level) for g in range(len(self.share))]
            expected = float(sum(s * p[1] for s, p in zip(self.share, picked, strict=True)))
            margin = _SIGMAS * math.sqrt(sum((s * p[2]) ** 2 for s, p in zip(self.share, picked, strict=True)))
            if expected - margin >= target - 1e-6:
                break
            level = min(1.0, level + max(1e-4, target - (expected - margin)))
        stretch = max(1.0, k / self.ks[at])  # beyond the largest k, pools grow with k
        widths = np.array([math.ceil(p[0] * stretch) for p in picked], np.uint32)
        return Choice(widths, min(1.0, expected), expected - margin >= target - 1e-6)

    def best(self, k: int) -> float:
        """Return the mean recall at the largest width that was tried."""
        return float((self.mean[self._column(k), :, -1] * self.share).sum())

    def _column(self, k: int) -> int:
        return next((i for i, known in enumerate(self.ks) if known >= k), len(self.ks) - 1)

    def _width(self, mean: NDArray[Any], error: NDArray[Any], level: float) -> tuple[float, float, float]:
        """Width, mean and its error where a group crosses a level: straight in log width against log(1 - recall)."""
        reached = np.flatnonzero(mean >= level)
        j = int(reached[0]) if len(reached) else len(mean) - 1
        if j == 0 or not len(reached):
            return float(self.widths[j]), float(mean[j]), float(error[j])
        low, high, wanted = (math.log(max(1e-4, 1 - v)) for v in (mean[j - 1], mean[j], level))
        part = min(1.0, max(0.0, (low - wanted) / (low - high))) if low > high else 1.0
        width = math.exp(math.log(self.widths[j - 1]) * (1 - part) + math.log(self.widths[j]) * part)
        return math.ceil(width), max(level, float(mean[j - 1])), float(error[j - 1] * (1 - part) + error[j] * part)

    def at_width(self, k: int, width: int) -> float:
        """Return the estimated mean recall of one fixed width."""
        at = self._column(k)
        curve = (self.mean[at] * self.share[:, None]).sum(0)
        return float(np.interp(np.log(max(1, width)), np.log(self.widths), curve))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this curve again."""
        arrays = {"curve_bounds": self.bounds, "curve_widths": self.widths, "curve_mean": self.mean,
                  "curve_error": self.error, "curve_share": self.share}  # fmt: skip
        return arrays, {"source": self.source, "n_queries": self.n_queries, "ks": list(self.ks)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> "RecallCurve":
        """Make a curve of what `state` gave; FormatError if it does not fit together."""
        try:
            ks = tuple(int(k) for k in config["ks"])
            bounds, widths, share = (arrays[f"curve_{name}"] for name in ("bounds", "widths", "share"))
            mean, error = arrays["curve_mean"], arrays["curve_error"]
            groups = len(share)
            floats = (bounds, mean, error, share)
            fits = (
                all(a.dtype == np.float32 and bool(np.isfinite(a).all()) for a in floats)
                and mean.shape == error.shape == (len(ks), groups, len(widths)) and bounds.shape == (groups - 1,)
                and widths.dtype == np.uint32 and len(widths) > 0 and len(ks) > 0 and list(ks) == sorted(set(ks))
                and ks[0] >= 1 and bool((np.diff(widths.astype(np.int64)) > 0).all()) and widths[0] >= 1
                and widths[-1] <= 1 << 20 and bool((np.diff(bounds) >= 0).all())
            )  # fmt: skip
            if not fits:
                raise ValueError("shapes or values disagree")
            return cls(str(config["source"]), int(config["n_queries"]), np.array(bounds), np.array(widths), ks, mean,
                       error, share)  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as problem:
            raise FormatError(f"the recall curve in this file is damaged: {problem}") from problem


def measure(trial: Trial, *, n_queries: int, n_vectors: int, source: str, seed: int) -> RecallCurve:
    """Try rising widths until recall is settled, and return the curve.

    Parameters
    ----------
    trial : callable
        ``trial(width, ks)`` runs all queries; see `Trial`. Its hardness may not depend on the width.
    n_queries, n_vectors : int
    source : str
        What the queries are, for people.
    seed : int
        Of the bootstrap.
    """
    ks = tuple(k for k in KS if k == KS[0] or k * 2 <= n_vectors)
    widths = [w for w in _WIDTHS if w < 2 * n_vectors] or [_WIDTHS[0]]
    shared, deep = tuple(k for k in ks if k <= widths[0]), tuple(k for k in ks if k > widths[0])
    hardness = np.zeros(n_queries, np.float32)
    columns: list[NDArray[np.float64]] = []  # a width each: ks, queries
    for width in widths:
        if columns and (columns[-1].mean(-1) >= _SETTLED).all():
            break
        column = np.empty((len(ks), n_queries))
        if columns and (columns[-1][: len(shared)].mean(-1) >= _SETTLED).all():
            column[: len(shared)] = columns[-1][: len(shared)]
        else:
            hits, hardness = trial(width, shared)
            column[: len(shared)] = hits / np.array(shared)[:, None]
        for i, k in enumerate(deep, len(shared)):
            if columns and (width <= k or columns[-1][i].mean() >= _SETTLED):
                column[i] = columns[-1][i]  # a pool holds at least k: narrower ones are that one
            else:
                column[i] = trial(max(width, k), (k,))[0][0] / k
        columns.append(column)
    tried = widths[: len(columns)]
    table = np.stack(columns, axis=1)  # ks, widths, queries
    bounds, group = _groups(hardness, n_queries)
    n_groups = len(bounds) + 1
    mean = np.empty((len(ks), n_groups, len(tried)), np.float32)
    error = np.empty_like(mean)
    rng = np.random.default_rng(seed)
    for g in range(n_groups):
        members = table[:, :, group == g]
        mean[:, g] = members.mean(-1)
        drawn = rng.integers(members.shape[-1], size=(_RESAMPLES, members.shape[-1]))
        error[:, g] = np.stack([members[..., d].mean(-1) for d in drawn]).std(axis=0)
    np.maximum.accumulate(mean, axis=2, out=mean)  # a wider pool never delivers less on average
    share = (np.bincount(group, minlength=n_groups) / n_queries).astype(np.float32)
    return RecallCurve(source, n_queries, bounds, np.array(tried, np.uint32), ks, mean, error, share)


def _groups(hardness: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Bounds between groups of about equal size, and each query's group."""
    wanted = int(np.clip(n // 60, 1, _GROUPS))  # fewer queries than that say too little about a group
    inner = np.quantile(hardness, np.arange(1, wanted) / wanted, method="lower").astype(np.float32)
    bounds = np.unique(inner)
    bounds = bounds[bounds < hardness.max()] if len(hardness) else bounds
    return bounds, np.searchsorted(bounds, hardness, side="left")
