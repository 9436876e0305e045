"""Intrinsic dimension: how many directions the data really has, and so how hard it is to search."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import InputError
from nearly.evaluate import _checks
from nearly.evaluate.truth import exact

__all__ = ["ESTIMATORS", "intrinsic_dimension", "lid", "local_radii", "mean_lid", "mle_dimension", "two_nn"]

Floats = NDArray[np.float64]


def lid(radii: ArrayLike, *, cap: float = np.inf) -> Floats:
    """Return the local intrinsic dimensionality (LID) of points from the distances of their nearest neighbors.

    Parameters
    ----------
    radii : array-like of shape (n, k)
        Distances (not squared: that would give exactly half) of the neighbors of each point, the point itself left out,
        in any order. Zeros (duplicates) and inf (no such neighbor) are dropped.
    cap : float
        Largest value returned; what points get whose neighbors are all equally far. The number of columns of the data
        is a good choice.

    Returns
    -------
    ndarray of shape (n,), float64
        ``-1 / mean(ln(r_i / r_k))`` over the k radii of a point, the last one included (it adds 0); 0 where fewer than
        two radii are left.

    Raises
    ------
    InputError
        If ``radii`` is not 2-D, or holds NaN or negative numbers, or ``cap`` is not positive.

    Notes
    -----
    The maximum-likelihood estimator of Amsaleg et al., KDD 2015, https://doi.org/10.1145/2783258.2783405, with
    1/k and not 1/(k - 1).

    Examples
    --------
    >>> lid([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0], [2.0, 2.0, 2.0]], cap=8).round(3).tolist()
    [1.443, 0.0, 8.0]
    """
    table, used = _radii(radii, cap)
    last = np.where(used, table, 0.0).max(axis=1, initial=0.0, keepdims=True)
    n = used.sum(axis=1)
    logs = np.log(np.divide(table, last, out=np.ones_like(table), where=used)).sum(axis=1)
    return np.asarray(np.where(n >= 2, _inverse(-logs, n, cap), 0.0))


def mean_lid(radii: ArrayLike, *, cap: float = np.inf) -> float:
    """Return the mean of `lid` over points: the usual LID of a data set.

    Parameters
    ----------
    radii, cap
        As for `lid`.

    Returns
    -------
    float
        Mean over the points, 0 where there are none.

    Raises
    ------
    InputError
        As for `lid`.

    Examples
    --------
    >>> round(mean_lid([[1.0, 2.0, 4.0], [1.0, 3.0, 9.0]]), 3)
    1.176
    """
    values = lid(radii, cap=cap)
    return float(values.mean()) if len(values) else 0.0


def mle_dimension(radii: ArrayLike, *, cap: float = np.inf) -> float:
    """Return the dimension that is most likely for all points together.

    Parameters
    ----------
    radii, cap
        As for `lid`; ``cap`` bounds the result, not each point.

    Returns
    -------
    float
        The number of ratios over the sum of ``ln(r_k / r_i)``, i < k, of all points; 0 where no point has two radii.

    Raises
    ------
    InputError
        As for `lid`.

    Notes
    -----
    Levina and Bickel, NIPS 2004, averaged as MacKay and Ghahramani (2005,
    http://www.inference.org.uk/mackay/dimension/) propose: inverses are averaged, so points whose neighbors are nearly
    equally far do not dominate, as they do in `mean_lid`.

    Examples
    --------
    >>> round(mle_dimension([[1.0, 2.0, 4.0], [1.0, 3.0, 9.0]]), 3)
    0.744
    """
    table, used = _radii(radii, cap)
    last = np.where(used, table, 0.0).max(axis=1, initial=0.0, keepdims=True)
    n = used.sum(axis=1)
    logs = np.log(np.divide(table, last, out=np.ones_like(table), where=used)).sum(axis=1)
    ratios = np.maximum(n - 1, 0).sum(keepdims=True)
    return float(_inverse(-logs[n >= 2].sum(keepdims=True), ratios, cap)[0]) if ratios[0] else 0.0


def two_nn(radii: ArrayLike, *, cap: float = np.inf, discard: float = 0.1) -> float:
    """Return the intrinsic dimension from the two nearest neighbors alone, blind to changes of density further out.

    Parameters
    ----------
    radii : array-like of shape (n, k)
        As for `lid`, k at least 2. The two smallest positive radii are used. Duplicated vectors must be removed before:
        a neighbor and its copy look like infinite dimension.
    cap : float
        Largest value returned.
    discard : float
        Share of the points with the largest ratios that is left out of the fit, in [0, 1).

    Returns
    -------
    float
        Slope of the line through the origin and the points ``(ln mu, -ln(1 - F(mu)))``, ``mu = r_2 / r_1``, F its
        empirical distribution; 0 where fewer than two points have two positive radii.

    Raises
    ------
    InputError
        As for `lid`, or if ``discard`` is out of range.

    Notes
    -----
    Facco et al. 2017, Scientific Reports 7, 12140, https://doi.org/10.1038/s41598-017-11873-y; the tenth left out is
    theirs.

    Examples
    --------
    On a line with gaps drawn at random, the dimension is 1.

    >>> points = np.sort(np.random.default_rng(0).random((2000, 1)), axis=0)
    >>> 0.9 < two_nn(local_radii(points, k=2, metric="l2")) < 1.1
    True
    """
    if not 0 <= discard < 1:
        raise InputError(f"discard is {discard!r}, but a share of at least 0 and below 1 is wanted")
    table, used = _radii(radii, cap)
    nearest = np.sort(np.where(used, table, np.inf), axis=1)[:, :2]
    nearest = nearest[np.isfinite(nearest).all(axis=1)] if nearest.shape[1] == 2 else nearest[:0]
    n = len(nearest)
    if n < 2:
        return 0.0
    kept = min(max(1, int((1 - discard) * n)), n - 1)  # the last has F = 1, at infinity
    x = np.sort(np.log(nearest[:, 1] / nearest[:, 0]))[:kept]
    y = -np.log1p(-np.arange(1, kept + 1) / n)
    return float(_inverse((x * x).sum(keepdims=True), (x * y).sum(keepdims=True), cap)[0])


ESTIMATORS: dict[str, Callable[..., float]] = {"lid": mean_lid, "mle": mle_dimension, "two_nn": two_nn}
"""Estimators of the dimension of a data set: ``f(radii, *, cap) -> float``."""


def local_radii(
    vectors: ArrayLike, *, k: int = 100, metric: str = "l2", sample: int | None = 1000, seed: int = 0
) -> Floats:
    """Return the distances of the k nearest other vectors, for all or some of the distinct vectors.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        Real numbers, or packed bits for ``hamming`` and ``jaccard``. Rows that repeat another are removed first.
    k : int
        Neighbors; with fewer distinct others, all of them.
    metric : str
        ``l2``, ``l1``, ``hamming``, ``jaccard``, or ``cosine``: then the chord |u - v| of the unit vectors u, v, since
        1 - cos goes with the square of a distance and would halve the dimension; zero vectors are left out.
    sample : int, optional
        Points drawn without repeats; None takes all, which costs n * n distances.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (min(sample, n_distinct), min(k, n_distinct - 1)), float64
        Distances, ascending in each row.

    Raises
    ------
    InputError
        If ``metric`` is ``ip`` (not a distance) or unknown, or the vectors are unusable.

    Examples
    --------
    >>> local_radii([[0.0], [1.0], [1.0], [3.0]], k=2, sample=None).tolist()
    [[1.0, 3.0], [1.0, 2.0], [2.0, 3.0]]
    """
    if metric not in ("l2", "cosine", "l1", "hamming", "jaccard"):
        raise InputError(f"metric is {metric!r}, but a distance (l2, cosine, l1, hamming, jaccard) is wanted")
    k = _checks.count("k", k)
    array = _checks.matrix("vectors", vectors)
    if metric == "cosine":
        array = array[(array != 0).any(axis=1)]
    array = array[_distinct(array)]
    n = len(array)
    chosen = np.arange(n)
    if sample is not None and _checks.count("sample", sample) < n:
        chosen = np.sort(np.random.default_rng(seed).choice(n, sample, replace=False))
    k = min(k, n - 1)
    if k < 1:
        return np.empty((len(chosen), 0))
    ids, radii = exact(array, array[chosen], k + 1, metric=metric)
    # The point itself is among the k + 1, or k + 1 others are at distance 0 and any of them may go in its place.
    own = ids == chosen[:, None]
    own[~own.any(axis=1), 0] = True
    radii = radii[~own].reshape(len(chosen), k)
    return np.asarray(np.sqrt(2 * radii) if metric == "cosine" else radii)


def intrinsic_dimension(
    vectors: ArrayLike,
    *,
    estimator: str = "lid",
    metric: str = "l2",
    k: int = 100,
    sample: int | None = 1000,
    seed: int = 0,
) -> float:
    """Return an estimate of the intrinsic dimension of a data set.

    Parameters
    ----------
    vectors, metric, k, sample, seed
        As for `local_radii`. Small k looks at small scales and varies more; 20 to 200 is usual. ``two_nn`` needs two.
    estimator : str
        ``lid`` (mean of the local dimensions), ``mle`` (one dimension for all), or ``two_nn`` (two neighbors only).

    Returns
    -------
    float
        Dimensions, at most the number of columns (of bits, for packed bits); 0 for fewer than three distinct vectors.

    Raises
    ------
    InputError
        If ``estimator`` is unknown, or as for `local_radii`.

    Notes
    -----
    All estimators fall behind the truth beyond about 10 dimensions: a sample of any size that fits a machine looks
    emptier than the space is. Rotation, scaling and columns of zeros change nothing, unless the bound bites.

    Examples
    --------
    A plane in twenty dimensions:

    >>> rng = np.random.default_rng(0)
    >>> plane = rng.standard_normal((2000, 2)) @ rng.standard_normal((2, 20))
    >>> round(intrinsic_dimension(plane, k=50))
    2
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"estimator is {estimator!r}, but one of {', '.join(ESTIMATORS)} is wanted")
    columns = _checks.matrix("vectors", vectors).shape[1]
    radii = local_radii(vectors, k=k, metric=metric, sample=sample, seed=seed)
    if radii.shape[1] < 2:
        return 0.0
    return ESTIMATORS[estimator](radii, cap=columns * (8 if metric in ("hamming", "jaccard") else 1))


def _radii(radii: ArrayLike, cap: float) -> tuple[Floats, NDArray[np.bool_]]:
    table = np.asarray(radii, dtype=np.float64)
    advice = "for vectors take local_radii(vectors); intrinsic_dimension(vectors, estimator=...) does both"
    if table.ndim != 2:
        raise InputError(f"radii has shape {table.shape}, but (n, k) is wanted, distances to the k nearest; {advice}")
    if not (table >= 0).all():
        raise InputError("radii holds NaN or a negative number, but distances to the nearest neighbors are wanted; "
                         f"{advice}")  # fmt: skip
    if not cap > 0:
        raise InputError(f"cap is {cap!r}, but a positive number is wanted")
    return table, np.asarray((table > 0) & np.isfinite(table))


def _inverse(total: Floats, n: NDArray[np.int64] | Floats, cap: float) -> Floats:
    """``n / total``, at most ``cap``; ``cap`` where all is rounding: radii that are equal differ by an ulp or two."""
    nothing = total <= 4 * np.finfo(np.float64).eps * n
    return np.asarray(np.minimum(np.where(nothing, cap, n / np.where(nothing, 1.0, total)), cap))


def _distinct(array: NDArray[np.generic]) -> NDArray[np.int64]:
    """Row numbers of the first of every set of equal rows, ascending."""
    if not len(array):
        return np.empty(0, np.int64)
    rows = np.ascontiguousarray(array)
    if rows.dtype.kind == "f":
        rows = rows + np.zeros(1, rows.dtype)  # -0.0 becomes 0.0, so that equal rows have equal bytes
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.sort(np.unique(keys, return_index=True)[1])
