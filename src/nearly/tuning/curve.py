"""Recall curves: what a search delivered at each effort, for easy and for hard queries, and what that implies.

Hardness is what a search sees in its first hops: the smallest distance met. Queries are grouped by it; each group has
its own curve, and a search chooses its width when it knows its group. A target is met when every group meets it, so it
holds for any mixture of easy and hard queries, also for one that the calibration did not see.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.errors import FormatError

__all__ = ["KS", "PROBE", "Choice", "RecallCurve", "measure"]

KS = (1, 10, 100)  # numbers of neighbors that curves are measured for; others take the next larger one
PROBE = 8  # hops before the width is chosen; by hand: most searches at recall 0.9 take more
_WIDTHS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 900, 1280)
_GROUPS = 8
_RESAMPLES = 400
_CONFIDENCE = 0.95

Widths = NDArray[np.uint32]
# search(width, k) -> hits per query (out of k true neighbors), hardness per query
Trial = Callable[[int, int], tuple[NDArray[np.int32], NDArray[np.float32]]]


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
        Whether the lower bound of every group reaches the target.
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
    mean, lower : ndarray of shape (n_ks, n_groups, n_widths), float32
        Mean recall, and its one-sided 95 % lower bound by bootstrap over the queries.
    share : ndarray of shape (n_groups,), float32
        Share of the queries in each group.
    """

    source: str
    n_queries: int
    bounds: NDArray[np.float32]
    widths: Widths
    ks: tuple[int, ...]
    mean: NDArray[np.float32]
    lower: NDArray[np.float32]
    share: NDArray[np.float32]

    def choose(self, k: int, target: float) -> Choice:
        """Return the least widths whose lower bounds meet a target for k neighbors."""
        at = next((i for i, known in enumerate(self.ks) if known >= k), len(self.ks) - 1)
        stretch = max(1.0, k / self.ks[at])  # beyond the largest k, pools grow with k
        widths, expected, met = [], 0.0, True
        for group, share in enumerate(self.share):
            width, mean, reached = self._width(self.mean[at, group], self.lower[at, group], target)
            widths.append(int(np.ceil(width * stretch)))
            expected += float(share) * mean
            met &= reached
        return Choice(np.array(widths, np.uint32), min(1.0, expected), met)

    def _width(self, mean: NDArray[Any], lower: NDArray[Any], target: float) -> tuple[float, float, bool]:
        """Where a group's lower bound crosses the target: straight in log width against log(1 - recall)."""
        reached = np.flatnonzero(lower >= target)
        if not len(reached):
            return float(self.widths[-1]), float(mean[-1]), False
        j = int(reached[0])
        if j == 0:
            return float(self.widths[0]), float(mean[0]), True
        gap = [np.log(max(1e-4, 1 - v)) for v in (lower[j - 1], lower[j], target)]
        part = 1.0 if gap[0] <= gap[1] else float(np.clip((gap[0] - gap[2]) / (gap[0] - gap[1]), 0, 1))
        width = np.exp(np.log(self.widths[j - 1]) * (1 - part) + np.log(self.widths[j]) * part)
        return float(np.ceil(width)), float(mean[j - 1] * (1 - part) + mean[j] * part), True

    def at_width(self, k: int, width: int) -> float:
        """Return the estimated mean recall of one fixed width."""
        at = next((i for i, known in enumerate(self.ks) if known >= k), len(self.ks) - 1)
        curve = (self.mean[at] * self.share[:, None]).sum(0)
        return float(np.interp(np.log(max(1, width)), np.log(self.widths), curve))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this curve again."""
        arrays = {"curve_bounds": self.bounds, "curve_widths": self.widths, "curve_mean": self.mean,
                  "curve_lower": self.lower, "curve_share": self.share}  # fmt: skip
        return arrays, {"source": self.source, "n_queries": self.n_queries, "ks": list(self.ks)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> "RecallCurve":
        """Make a curve of what `state` gave; FormatError if it does not fit together."""
        try:
            ks = tuple(int(k) for k in config["ks"])
            bounds, widths, share = (arrays[f"curve_{name}"] for name in ("bounds", "widths", "share"))
            mean, lower = arrays["curve_mean"], arrays["curve_lower"]
            groups = len(share)
            fits = (
                mean.shape == lower.shape == (len(ks), groups, len(widths)) and bounds.shape == (groups - 1,)
                and widths.dtype == np.uint32 and len(widths) > 0 and len(ks) > 0 and list(ks) == sorted(set(ks))
                and ks[0] >= 1 and bool((np.diff(widths.astype(np.int64)) > 0).all()) and 1 <= widths[0]
                and widths[-1] <= 1 << 20 and bool((np.diff(bounds) >= 0).all())
                and all(a.dtype == np.float32 and bool(np.isfinite(a).all()) for a in (bounds, mean, lower, share))
            )  # fmt: skip
            if not fits:
                raise ValueError("shapes or values disagree")
            return cls(str(config["source"]), int(config["n_queries"]), np.array(bounds), np.array(widths), ks, mean,
                       lower, share)  # fmt: skip
        except (KeyError, TypeError, ValueError) as problem:
            raise FormatError(f"the recall curve in this file is damaged: {problem}") from problem


def measure(trial: Trial, *, n_queries: int, n_vectors: int, source: str, seed: int) -> RecallCurve:
    """Try rising widths until recall is settled, and return the curve.

    Parameters
    ----------
    trial : callable
        ``trial(width, k)`` runs all queries; see `Trial`. Its hardness may not depend on the width.
    n_queries, n_vectors : int
    source : str
        What the queries are, for people.
    seed : int
        Of the bootstrap.
    """
    ks = tuple(k for k in KS if k == KS[0] or k * 2 <= n_vectors)
    widths = [w for w in _WIDTHS if w < 2 * n_vectors] or [_WIDTHS[0]]
    shares: list[list[NDArray[np.float64]]] = [[] for _ in ks]
    hardness = np.zeros(n_queries, np.float32)
    tried: list[int] = []
    for width in widths:
        tried.append(width)
        for i, k in enumerate(ks):
            hits, hardness = trial(max(width, k), k)
            shares[i].append(hits / k)
        if all(s[-1].mean() >= 0.9995 for s in shares) and len(tried) > 2:
            break
    bounds, group = _groups(hardness, n_queries)
    table = np.array([[s for s in per_k] for per_k in shares])  # ks, widths, queries
    n_groups = len(bounds) + 1
    mean = np.empty((len(ks), n_groups, len(tried)), np.float32)
    lower = np.empty_like(mean)
    rng = np.random.default_rng(seed)
    for g in range(n_groups):
        members = table[:, :, group == g]
        mean[:, g] = members.mean(-1)
        drawn = rng.integers(members.shape[-1], size=(_RESAMPLES, members.shape[-1]))
        means = np.stack([members[..., d].mean(-1) for d in drawn])
        lower[:, g] = np.quantile(means, 1 - _CONFIDENCE, axis=0)
    np.maximum.accumulate(mean, axis=2, out=mean)  # a wider pool never delivers less on average
    np.maximum.accumulate(lower, axis=2, out=lower)
    share = np.bincount(group, minlength=n_groups).astype(np.float32) / n_queries
    return RecallCurve(source, n_queries, bounds, np.array(tried, np.uint32), ks, mean, lower, share)


def _groups(hardness: NDArray[np.float32], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Bounds between groups of about equal size, and each query's group."""
    wanted = int(np.clip(n // 60, 1, _GROUPS))  # fewer queries than that say too little about a group
    inner = np.quantile(hardness, np.arange(1, wanted) / wanted, method="lower").astype(np.float32)
    bounds = np.unique(inner)
    bounds = bounds[bounds < hardness.max()] if len(hardness) else bounds
    return bounds, np.searchsorted(bounds, hardness, side="left")
