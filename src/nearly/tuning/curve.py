"""Recall curves: what a search delivered at each effort, for easy and for hard queries, and what that implies.

An effort is a reach: a walk ends where the next candidate is farther than the nearest ones found by a share of their
distance, so that queries which need more walk farther by themselves (distance adaptive beam search: Al-Jazzazi et al.,
NeurIPS 2025, https://arxiv.org/abs/2505.15636, where the reach is called gamma). Where distances are whole numbers,
with nothing between two reaches, the width of the pool is the effort.

Hardness is what a search sees in its first hops: the smallest distance met. Queries are grouped by it; each group has
its own curve, and a search chooses its effort when it knows its group. All groups are brought to one level of recall,
so that it holds for other mixtures of easy and hard queries too; the level is the least at which the lower bound of the
mean over the expected mixture meets the target. Groups that queries made harder stand in for queries of another kind,
which may all be there: each of them meets the target by its own lower bound.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.errors import FormatError

__all__ = ["ANCHOR", "KS", "PROBE", "Choice", "RecallCurve", "sure"]

KS = (1, 3, 10, 30, 100)  # numbers of neighbors that curves are measured for; others take the next larger one
ANCHOR = 10  # the nearest that a reach counts from, where not more are asked for: levers table
PROBE = 8  # hops before the effort is chosen; by hand: most searches at recall 0.9 take more
_SIGMAS = 1.645  # one-sided 95 %
_SURE_SIGMAS = 2.326  # one-sided 99 %: of a hard group, since nothing says that its queries are like those to come
_MANY = 400  # queries under which the bound is one-sided 99 % throughout: few say little about their own spread
_GIVE = 0.01  # recall below a target that still keeps the promise

Widths = NDArray[np.uint32]


class Choice(NamedTuple):
    """The effort for one target.

    Attributes
    ----------
    widths : ndarray of uint32
        Pool width of each group of hardness, easiest first.
    reaches : ndarray of float32
        How far beyond the nearest each group walks, as a share of their distance; infinite: as far as the pool.
    anchor : int
        How many the nearest are.
    expected : float
        Estimated mean recall over the calibration queries.
    met : bool
        Whether the lower bound reaches the target.
    """

    widths: Widths
    reaches: NDArray[np.float32]
    anchor: int
    expected: float
    met: bool

    @property
    def effort(self) -> str:
        """The effort, for people."""
        if np.isfinite(self.reaches).all():
            return f"reach {_span(100 * self.reaches)} %"
        return f"effort {_span(self.widths)}"


def sure(mean: NDArray[Any], error: NDArray[Any]) -> NDArray[Any]:
    """Recall that queries which answer for themselves get for sure, but for what may be missing; at most the mean."""
    return np.asarray(np.minimum(mean, mean - _SURE_SIGMAS * error + _GIVE))


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
    widths : ndarray of shape (n_efforts,), uint32
    reaches : ndarray of shape (n_efforts,), float32
        Efforts that were tried, ascending; infinite reaches where the widths are the effort.
    ks : tuple of int
        Numbers of neighbors.
    mean, error : ndarray of shape (n_ks, n_groups, n_efforts), float32
        Mean recall, and its standard error by bootstrap over the group's queries.
    share : ndarray of shape (n_groups,), float32
        Share of the expected queries in each group.
    n_easy : int
        Groups, from the easiest, that answer together for the mean; each of the others answers for itself.
    pools : ndarray of shape (n_pools,), uint32
    fixed : ndarray of shape (n_ks, n_pools), float32
        Mean recall of the expected queries by pools of one width and no reach.
    """

    source: str
    n_queries: int
    bounds: NDArray[np.float32]
    widths: Widths
    reaches: NDArray[np.float32]
    ks: tuple[int, ...]
    mean: NDArray[np.float32]
    error: NDArray[np.float32]
    share: NDArray[np.float32]
    n_easy: int
    pools: Widths
    fixed: NDArray[np.float32]

    def choose(self, k: int, target: float) -> Choice:
        """Return the least efforts whose one-sided 95 % lower bound of the mean meets a target for k neighbors."""
        at = self._column(k)
        picked = self._picked(at, target, target)
        if not picked.met:  # between the target, which is too low a level, and all, which is as much as there is
            low, high, picked = target, 1.0, self._picked(at, 1.0, target)
            while picked.met and high - low > 1e-4:
                level = (low + high) / 2
                found = self._picked(at, level, target)
                low, high, picked = (low, level, found) if found.met else (level, high, picked)
        stretch = max(1.0, k / self.ks[at])  # beyond the largest k, pools grow with k
        anchor = max(k, self.ks[at], ANCHOR)
        return picked._replace(widths=np.ceil(picked.widths * stretch).astype(np.uint32), anchor=anchor)

    def _picked(self, at: int, level: float, target: float) -> Choice:
        """The efforts that bring every group to a level, and whether that meets a target."""
        mean, error = self.mean[at], self.error[at]
        hard = np.arange(len(self.share)) >= self.n_easy
        # A hard group answers for itself: what it delivers for sure takes the place of its mean where that is less.
        bound = np.where(hard[:, None], np.maximum.accumulate(sure(mean, error), axis=1), mean)
        parts = [self._effort(bound[g], error[g], level) for g in range(len(hard))]
        widths, reaches, reached, errors = (np.array(values) for values in zip(*parts, strict=True))
        sigmas = _SIGMAS if self.n_queries >= _MANY else _SURE_SIGMAS
        margin = sigmas * math.sqrt(float(((self.share * errors) ** 2).sum()))
        counted = np.where(hard, np.minimum(reached, level), reached)  # what hard ones have too much is not for others
        met = float((self.share * counted).sum()) - margin >= target and bool((reached[hard] >= target - _GIVE).all())
        spare = np.where(hard, np.maximum(0.0, _SURE_SIGMAS * errors - _GIVE), 0.0)
        expected = min(1.0, float((self.share * (reached + spare)).sum()))
        widths = np.maximum(widths, self._least(at)).astype(np.uint32)
        return Choice(widths, reaches.astype(np.float32), 1, expected, met)

    def best(self, k: int) -> float:
        """Return the mean recall at the largest effort that was tried."""
        return float((self.mean[self._column(k), :, -1] * self.share).sum())

    def _least(self, at: int) -> int:
        """The narrowest pool that was tried for a number of neighbors: a pool holds that many at least."""
        return int(self.widths[min(int(np.searchsorted(self.widths, self.ks[at])), len(self.widths) - 1)])

    def _column(self, k: int) -> int:
        return next((i for i, known in enumerate(self.ks) if known >= k), len(self.ks) - 1)

    def _effort(self, mean: NDArray[Any], error: NDArray[Any], level: float) -> tuple[float, float, float, float]:
        """Width, reach, mean and its error where a group crosses a level.

        Straight in the reach, or the logarithm of the width, against log(1 - recall).
        """
        reached = np.flatnonzero(mean >= level)
        j = int(reached[0]) if len(reached) else len(mean) - 1
        if j == 0 or not len(reached):
            return float(self.widths[j]), float(self.reaches[j]), float(mean[j]), float(error[j])
        low, high, wanted = (math.log(max(1e-4, 1 - v)) for v in (mean[j - 1], mean[j], level))
        part = min(1.0, max(0.0, (low - wanted) / (low - high))) if low > high else 1.0
        before, after = (float(width) for width in self.widths[j - 1 : j + 1])
        width = before * (after / before) ** part
        nearer, farther = (float(reach) for reach in self.reaches[j - 1 : j + 1])
        reach = nearer + part * (farther - nearer) if math.isfinite(farther) else farther
        spread = float(error[j - 1] * (1 - part) + error[j] * part)
        return math.ceil(width), reach, max(level, float(mean[j - 1])), spread

    def at_width(self, k: int, width: int) -> float:
        """Return the estimated mean recall of one fixed width."""
        return float(np.interp(np.log(max(1, width)), np.log(self.pools), self.fixed[self._column(k)]))

    def width_at(self, k: int, recall: float) -> float:
        """Return the one fixed width that delivers a recall, about: it reads as many lists as a walk by reach."""
        *found, wanted = -np.log(np.maximum(1e-4, 1 - np.array([*self.fixed[self._column(k)], recall])))
        found, first = np.unique(found, return_index=True)  # without wider ones that add nothing
        return float(np.exp(np.interp(wanted, found, np.log(self.pools[first]))))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this curve again."""
        arrays = {"curve_bounds": self.bounds, "curve_widths": self.widths, "curve_mean": self.mean,
                  "curve_error": self.error, "curve_share": self.share}  # fmt: skip
        if np.isfinite(self.reaches).all():
            arrays |= {"curve_reaches": self.reaches, "curve_pools": self.pools, "curve_fixed": self.fixed}
        values = {"source": self.source, "n_queries": self.n_queries, "ks": list(self.ks), "n_easy": self.n_easy}
        return arrays, values

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> "RecallCurve":
        """Make a curve of what `state` gave; FormatError if it does not fit together."""
        try:
            ks = tuple(int(k) for k in config["ks"])
            bounds, widths, share = (arrays[f"curve_{name}"] for name in ("bounds", "widths", "share"))
            mean, error = arrays["curve_mean"], arrays["curve_error"]
            if "curve_reaches" in arrays:
                reaches, pools, fixed = (arrays[f"curve_{name}"] for name in ("reaches", "pools", "fixed"))
            else:  # of widths alone, as all of 0.1.0 were
                reaches, pools = np.full(len(widths), np.inf, np.float32), widths
                fixed = np.einsum("kgw,g->kw", mean, share).astype(np.float32)
            groups = len(share)
            n_easy = int(config.get("n_easy", groups))  # 0.1.0 had no groups that answer for themselves
            by_reach = "curve_reaches" in arrays
            floats = (bounds, mean, error, share, fixed, *([reaches] if by_reach else []))
            fits = (
                all(a.dtype == np.float32 and bool(np.isfinite(a).all()) for a in floats)
                and mean.shape == error.shape == (len(ks), groups, len(widths)) and bounds.shape == (groups - 1,)
                and len(widths) > 0 and len(ks) > 0 and list(ks) == sorted(set(ks)) and ks[0] >= 1
                and _rises(pools) and _rises(widths, equal=by_reach) and bool((np.diff(bounds) >= 0).all())
                and reaches.shape == widths.shape and fixed.shape == (len(ks), len(pools))
                and (not by_reach or bool((np.diff(reaches) > 0).all() and reaches[0] >= 0))
                and 0 <= n_easy <= groups and int(config["n_queries"]) >= 1
                and all(bool(((a >= 0) & (a <= 1)).all()) for a in (mean, error, share, fixed))
                and abs(float(share.sum()) - 1) < 1e-3
            )  # fmt: skip
            if not fits:
                raise ValueError("shapes or values disagree")
            return cls(str(config["source"]), int(config["n_queries"]), np.array(bounds), np.array(widths),
                       np.array(reaches), ks, mean, error, share, n_easy, np.array(pools), np.array(fixed))  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as problem:
            raise FormatError(f"the recall curve in this file is damaged: {problem}") from problem


def _span(values: NDArray[Any]) -> str:
    low, high = (f"{value:.3g}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _rises(widths: NDArray[Any], *, equal: bool = False) -> bool:
    """Whether these are pool widths, in rising order."""
    if widths.dtype != np.uint32 or widths.ndim != 1 or not len(widths):
        return False
    steps = np.diff(widths.astype(np.int64))
    return bool((steps >= 0 if equal else steps > 0).all() and widths[0] >= 1 and widths[-1] <= 1 << 20)
