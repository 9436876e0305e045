"""Recall of inverted lists by how far a search reaches: what a few queries with known neighbors tell of all efforts.

A search looks at the lists whose centers are farther than the nearest one by at most its *reach*. A neighbor is found
if its list is one of them, so one number for each true neighbor, the gap of its list, gives recall at every reach, and
its quantiles are the reaches that targets need: no search is tried. Queries whose neighbors lie scattered have many
centers at nearly the same distance, so one reach makes them look at more lists; a fixed number of lists does not.

Under a filter the nearest that pass may be anywhere. A search then also looks at lists whose centers are not much
farther than the k-th nearest found so far, by a number that may be negative, and ranks what is not much farther by its
code: the same true neighbors tell how much.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.errors import FormatError

__all__ = ["DEPTHS", "KS", "Probing", "Reach", "measure"]

KS = (1, 3, 10, 30, 100, 300, 1000)  # numbers of neighbors that are measured; others take the next larger one
DEPTHS = (
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
    8.0,
    12.0,
    16.0,
    24.0,
    32.0,
    48.0,
    64.0,
)  # candidates ranked, by neighbors wanted
_SIGMAS = 1.645  # one-sided 95 %
_BLOCK = 128  # queries whose lists are ranked at a time
_GIVE = 0.01  # recall below a target that still keeps the promise, for queries that are not the expected ones
_SHARE = 0.25  # of the neighbors that may be missed, that codes may miss: queries of another kind are coded worse
_RESAMPLES = 200
_SHARES = 1 - np.geomspace(0.7, 5e-4, 48)  # of all neighbors that the reaches tried hold

Floats = NDArray[np.float32]


class Reach(NamedTuple):
    """The effort for one target.

    Attributes
    ----------
    reach : float
        How much farther than the nearest center lists may be.
    depth : float
        Candidates ranked by their vectors, as a multiple of the neighbors wanted.
    expected : float
        Estimated mean recall over the calibration queries.
    scanned : float
        Mean share of all vectors that are in these lists.
    """

    reach: float
    depth: float
    expected: float
    scanned: float


class Around(NamedTuple):
    """The effort for one target under a filter.

    Attributes
    ----------
    beyond : float
        How much farther than the k-th nearest found centers of lists may be.
    spread : float
        How much farther vectors may be by their codes; infinity where that is not known.
    """

    beyond: float
    spread: float


@dataclass(frozen=True)
class Probing:
    """What calibration measured.

    Attributes
    ----------
    source : str
        What the queries were.
    n_queries : int
    ks : tuple of int
    reaches : ndarray of shape (n_reaches,), float32
        Ascending.
    mean, error : ndarray of shape (n_ks, n_groups, n_reaches), float32
        Mean share of neighbors within reach, and its standard error by bootstrap over a group's queries. The first
        group holds the expected queries.
    scanned : ndarray of shape (n_reaches,), float32
        Mean share of all vectors that the expected queries are compared with.
    widths : ndarray of shape (n_widths,), uint32
    fixed : ndarray of shape (n_ks, n_widths), float32
        Mean recall of the expected queries by fixed numbers of lists.
    depths, kept, least : ndarray of shape (n_depths,), float32
        Candidates ranked by neighbors wanted, and the share of neighbors that are among them: of the expected queries,
        and the least of all groups.
    beyonds : ndarray of shape (n_beyonds,), float32
        Ascending: how much farther than the k-th neighbor centers are. None in files that are older.
    anchored, anchored_error : ndarray of shape (n_ks, n_groups, n_beyonds), float32
        As ``mean`` and ``error``, of neighbors in the lists of such centers.
    spreads : ndarray of shape (n_spreads,), float32
        Ascending: how much farther than the k-th neighbor others are by their codes. None where codes tell no
        distances.
    coded, coded_error : ndarray of shape (n_ks, n_groups, n_spreads), float32
        As ``mean`` and ``error``, of neighbors that are no farther by their codes.
    """

    source: str
    n_queries: int
    ks: tuple[int, ...]
    reaches: Floats
    mean: Floats
    error: Floats
    scanned: Floats
    widths: NDArray[np.uint32]
    fixed: Floats
    depths: Floats
    kept: Floats
    least: Floats
    beyonds: Floats
    anchored: Floats
    anchored_error: Floats
    spreads: Floats
    coded: Floats
    coded_error: Floats

    def choose(self, k: int, target: float, n_vectors: int, code: float, vector: float) -> Reach | None:
        """Return the cheapest effort that meets a target for k neighbors, or None if none does.

        ``code`` and ``vector`` are what it costs to compare with a code and to rank a vector.
        """
        at = next((i for i, known in enumerate(self.ks) if known >= k), None)
        if at is None:
            return None
        wanted = min(float(self.least[-1]), 1 - _SHARE * (1 - target))
        made = [
            self._within(at, target, float(d), float(kept), float(least))
            for d, kept, least in zip(self.depths, self.kept, self.least, strict=True) if least >= wanted
        ]  # fmt: skip
        return min(
            (one for one in made if one is not None),
            key=lambda one: one.scanned * n_vectors * code + one.depth * max(k, 10) * vector, default=None,
        )  # fmt: skip

    def _within(self, at: int, target: float, depth: float, kept: float, least: float) -> Reach | None:
        """The least reach whose lower bounds meet a target, where codes keep so much of what is within, or less."""
        steps = _steps(self.mean[at], self.error[at], least, target)
        if steps is None:
            return None
        reach, mean, scanned = (_between(v, steps) for v in (self.reaches, self.mean[at, 0], self.scanned))
        return Reach(_above(reach), depth, mean * kept, scanned)

    def around(self, k: int, target: float, depth: float) -> Around | None:
        """Return how much farther than the k-th nearest found it takes to look for a target.

        ``depth`` is what would be ranked otherwise. None where nothing is known of it.
        """
        at = next((i for i, known in enumerate(self.ks) if known >= k), None)
        if at is None or not len(self.beyonds):
            return None
        kept, spread = float(self.least[int(np.searchsorted(self.depths, depth))]), math.inf
        if len(self.spreads):
            wanted = 1 - _SHARE * (1 - target)
            steps = _steps(self.coded[at], self.coded_error[at], 1.0, wanted)
            if steps is not None:
                kept, spread = wanted, _above(_between(self.spreads, steps))
        steps = _steps(self.anchored[at], self.anchored_error[at], kept, target)
        return None if steps is None else Around(_above(_between(self.beyonds, steps)), spread)

    def best(self, k: int) -> float:
        """Return the mean recall at the largest reach that was tried."""
        at = next((i for i, known in enumerate(self.ks) if known >= k), len(self.ks) - 1)
        return float(self.mean[at, 0, -1] * self.kept[-1])

    def at_width(self, k: int, width: int) -> float:
        """Return the estimated mean recall of one fixed number of lists."""
        at = next((i for i, known in enumerate(self.ks) if known >= k), len(self.ks) - 1)
        return float(np.interp(np.log(max(1, width)), np.log(self.widths), self.fixed[at]) * self.kept[-1])

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this again."""
        arrays = {f"probing_{name}": getattr(self, name) for name in _ARRAYS}
        return arrays, {"source": self.source, "n_queries": self.n_queries, "ks": list(self.ks)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> "Probing":
        """Make it of what `state` gave; FormatError if it does not fit together."""
        try:
            ks = tuple(int(k) for k in config["ks"])
            none = np.zeros((len(ks), *arrays["probing_mean"].shape[1:2], 0), np.float32)
            before = {  # what older files have not
                "probing_least": arrays["probing_kept"], "probing_beyonds": none[0, 0], "probing_spreads": none[0, 0],
                **{f"probing_{name}": none for name in ("anchored", "anchored_error", "coded", "coded_error")},
            }  # fmt: skip
            arrays = {**before, **arrays}
            parts = {name: np.array(arrays[f"probing_{name}"]) for name in _ARRAYS}
            reaches, mean, widths = parts["reaches"], parts["mean"], parts["widths"]
            fits = (
                all(a.dtype == np.float32 and bool(np.isfinite(a).all()) for n, a in parts.items() if n != "widths")
                and len(ks) > 0 and ks[0] >= 1 and list(ks) == sorted(set(ks)) and mean.ndim == 3 and mean.shape[1] >= 1
                and len(reaches) > 0 and mean.shape == parts["error"].shape == (len(ks), mean.shape[1], len(reaches))
                and parts["scanned"].shape == reaches.shape and bool((np.diff(reaches) >= 0).all()) and reaches[0] >= 0
                and widths.dtype == np.uint32 and widths.ndim == 1 and len(widths) > 0 and widths[0] >= 1
                and bool((np.diff(widths.astype(np.int64)) > 0).all())
                and parts["fixed"].shape == (len(ks), len(widths))
                and len(parts["depths"]) > 0 and parts["depths"].shape == parts["kept"].shape == (len(parts["kept"]),)
                and parts["least"].shape == parts["kept"].shape
                and bool((parts["depths"] >= 1).all()) and bool((parts["depths"] <= 1000).all())
                and bool((np.diff(parts["depths"]) > 0).all())
                and all(
                    parts[steps].ndim == 1 and bool((np.diff(parts[steps]) >= 0).all())
                    and parts[held].shape == parts[f"{held}_error"].shape == (*mean.shape[:2], len(parts[steps]))
                    for steps, held in (("beyonds", "anchored"), ("spreads", "coded"))
                )
            )  # fmt: skip
            if not fits:
                raise ValueError("shapes or values disagree")
            return cls(source=str(config["source"]), n_queries=int(config["n_queries"]), ks=ks, **parts)
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as problem:
            raise FormatError(f"the recall curve in this file is damaged: {problem}") from problem


_ARRAYS = ("reaches", "mean", "error", "scanned", "widths", "fixed", "depths", "kept", "least", "beyonds", "anchored",
           "anchored_error", "spreads", "coded", "coded_error")  # fmt: skip


class _Step(NamedTuple):
    """A place between two points of a curve."""

    before: int
    at: int
    part: float


def _steps(mean: Floats, error: Floats, least: float, target: float) -> _Step | None:
    """The first place at which the lower bounds of all groups meet a target, where codes keep so much."""
    sure = mean - _SIGMAS * error
    sure[1:] = np.minimum(sure[1:] + _GIVE, mean[1:])
    bound = np.maximum.accumulate(sure.min(axis=0) * least)
    reached = np.flatnonzero(bound >= target)
    if not len(reached):
        return None
    j = int(reached[0])
    part = 1.0
    if j:
        low, high, wanted = (math.log(max(1e-5, 1 - v)) for v in (bound[j - 1], bound[j], target))
        part = min(1.0, max(0.0, (low - wanted) / (low - high))) if low > high else 1.0
    return _Step(max(0, j - 1), j, part)


def _between(values: Floats, step: _Step) -> float:
    return float(values[step.before] + step.part * (values[step.at] - values[step.before]))


def _above(x: float) -> float:
    """Half a step of float32 above: gaps that are equal to it are within."""
    return float(np.nextafter(np.float32(x), np.float32(np.inf)))


def measure(
    gaps: Floats, of_neighbors: NDArray[np.intp], sizes: NDArray[np.int64], *, farther: Floats,
    coded: Floats | None = None, n_expected: int, group: NDArray[np.intp], kept: Floats, least: Floats, source: str,
    seed: int,
) -> Probing:  # fmt: skip
    """Return the curve of queries whose neighbors are known.

    Parameters
    ----------
    gaps : ndarray of shape (n_queries, n_lists), float32
        How much farther than the nearest center each one is.
    of_neighbors : ndarray of shape (n_queries, most, n_copies), intp
        The lists of the true neighbors, nearest first; one in fewer lists than others has some of them again.
    sizes : ndarray of shape (n_lists,), int64
    farther : ndarray of shape (n_queries, most), float32
        How much farther than the nearest center the true neighbors are.
    coded : ndarray of shape (n_queries, most), float32, optional
        The same by their codes, where these tell distances.
    n_expected : int
        The first so many queries are like those to come.
    group : ndarray of shape (n_queries,), intp
        Of each query; 0 for the expected ones.
    kept, least : ndarray of shape (n_depths,), float32
        Share of the neighbors of expected queries that each of `DEPTHS` keeps, and the least share of a group's.
    source : str
    seed : int
        Of the bootstrap.
    """
    most, n_lists = of_neighbors.shape[1], len(sizes)
    ks = tuple(k for k in KS if k <= most)
    needed = np.take_along_axis(gaps[:, None, :], of_neighbors, axis=2).min(axis=2)
    at_ten = needed[:, : min(10, most)]
    pooled = [np.quantile(at_ten[group == g], _SHARES) for g in np.unique(group)]
    reaches = _grid([np.zeros(1), *pooled, needed.max(keepdims=True)[0]])
    n_groups = int(group.max()) + 1
    mean, error = (np.empty((len(ks), n_groups, len(reaches)), np.float32) for _ in range(2))
    rng = np.random.default_rng(seed)
    draws = []
    for g in range(n_groups):
        some = group == g
        n = int(some.sum())
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES).astype(np.float64) / n
        draws.append(drawn)
        ends = np.searchsorted(reaches, needed[some])  # the first reach that holds the list of each neighbor
        for i, k in enumerate(ks):
            mean[i, g], error[i, g] = _held(ends[:, :k], len(reaches), drawn)
    expected = gaps[:n_expected]
    within = sum(np.bincount(np.searchsorted(reaches, row), sizes, len(reaches) + 1) for row in expected)
    scanned = np.cumsum(within)[: len(reaches)] / max(1, len(expected) * int(sizes.sum()))
    ranks = np.empty((len(expected), most), np.intp)
    for i in range(0, len(expected), _BLOCK):
        rank = np.argsort(np.argsort(expected[i : i + _BLOCK], axis=1, kind="stable"), axis=1)
        own = of_neighbors[i : i + len(rank)]
        ranks[i : i + _BLOCK] = np.take_along_axis(rank[:, None, :], own, axis=2).min(axis=2)
    widths = np.unique(np.geomspace(1, n_lists, 40).astype(np.uint32))
    fixed = np.array([[(ranks[:, :k] < w).mean() for w in widths] for k in ks], np.float32)
    return Probing(source, len(gaps), ks, reaches, mean, error, scanned.astype(np.float32), widths, fixed,
                   np.array(DEPTHS[: len(kept)], np.float32), kept, least,
                   *_around(needed, farther, ks, group, draws), *_around(coded, farther, ks, group, draws))  # fmt: skip


def _grid(values: list[Any]) -> Floats:
    """At most 64 of these numbers, the least and the largest among them."""
    grid = np.unique(np.concatenate(values).astype(np.float32))
    return np.asarray(grid[np.unique(np.linspace(0, len(grid) - 1, 64).astype(int))])


def _around(
    needed: Floats | None, farther: Floats, ks: tuple[int, ...], group: NDArray[np.intp], draws: list[NDArray[Any]]
) -> tuple[Floats, Floats, Floats]:
    """Steps beyond the k-th neighbor, and the shares of neighbors, with errors, for which these are enough."""
    if needed is None:
        none = np.zeros((len(ks), len(draws), 0), np.float32)
        return np.zeros(0, np.float32), none, none
    beyond = [needed[:, :k] - farther[:, k - 1 : k] for k in ks]
    quantiles = [np.quantile(one[group == g], _SHARES[::2]) for one in beyond for g in range(len(draws))]
    steps = _grid([*quantiles, *(one.max(keepdims=True)[0] for one in beyond)])
    held = [[_held(np.searchsorted(steps, one[group == g]), len(steps), drawn) for g, drawn in enumerate(draws)]
            for one in beyond]  # fmt: skip
    mean, error = (np.array([[of_group[i] for of_group in of_k] for of_k in held], np.float32) for i in range(2))
    return steps, mean, error


def _held(ends: NDArray[np.intp], n: int, drawn: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Mean share of neighbors held at each of n steps, and its standard error; ``ends`` says which step holds each."""
    of_query = ends + (np.arange(len(ends)) * n)[:, None]
    counts = np.bincount(of_query.ravel(), minlength=len(ends) * n)
    shares = counts.reshape(len(ends), -1).cumsum(axis=1) / ends.shape[1]
    return shares.mean(axis=0).astype(np.float32), (drawn @ shares).std(axis=0).astype(np.float32)
