"""Measures of search quality: the share of the true neighbors that a search found, by id and by distance."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import InputError
from nearly.evaluate import _checks

__all__ = ["recall_at_k", "recall_by_distance", "recall_lower_bound", "recalls_at_k", "recalls_by_distance"]

Floats = NDArray[np.float64]


def recalls_at_k(found: ArrayLike, truth: ArrayLike, *, k: int | None = None) -> Floats:
    """Return, for each query, the share of the true neighbors that a search found, by id.

    Parameters
    ----------
    found : array-like of shape (n_queries, k), integers
        Ids a search returned. Order is ignored, a repeated id counts once, -1 marks an empty slot.
    truth : array-like of shape (n_queries, k), integers
        Ids of the exact nearest neighbors, without repeats; -1 where there are fewer.
    k : int, optional
        Compare the first k columns of both, nearest first. Without it both must have the same shape.

    Returns
    -------
    ndarray of shape (n_queries,), float64
        ``|found ∩ truth| / |truth|`` in [0, 1], no unit; 1 where there is nothing to find.

    Raises
    ------
    InputError
        If the shapes do not fit, there are no queries, or a row of ``truth`` repeats an id.

    Examples
    --------
    >>> recalls_at_k([[3, 1], [5, -1]], [[1, 3], [5, 6]]).tolist()
    [1.0, 0.5]
    """
    found, truth = _tables(_checks.id_table("found", found), "truth", _checks.id_table("truth", truth), k)
    wanted = (truth >= 0).sum(axis=1)
    if _repeats(truth).any():
        row = int(np.argmax(_repeats(truth).any(axis=1)))
        raise InputError(f"truth row {row} repeats an id, but {truth.shape[1]} different neighbors are wanted")
    # Sorted together, an id that both have (each once) stands beside its equal.
    first = np.where(_repeats(found), -1, found)
    both = np.sort(np.concatenate([first, truth], axis=1), axis=1)
    common = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(axis=1)
    return _share(common, wanted)


def recall_at_k(found: ArrayLike, truth: ArrayLike, *, k: int | None = None) -> float:
    """Return the mean over queries of `recalls_at_k`.

    Parameters
    ----------
    found, truth, k
        As for `recalls_at_k`.

    Returns
    -------
    float
        Mean share of the true neighbors found, in [0, 1], no unit.

    Raises
    ------
    InputError
        As for `recalls_at_k`.

    Notes
    -----
    Compares ids, so of two rows tied at rank k only one counts; `recall_by_distance` counts either and is never lower
    (Aumüller et al. 2020, https://doi.org/10.1016/j.is.2019.02.006).

    Examples
    --------
    >>> recall_at_k([[3, 1], [5, -1]], [[1, 3], [5, 6]])
    0.75
    """
    return float(recalls_at_k(found, truth, k=k).mean())


def recalls_by_distance(
    found: ArrayLike,
    distances: ArrayLike,
    truth_distances: ArrayLike,
    *,
    k: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-12,
) -> Floats:
    """Return, for each query, the share of k results that are as near as the k-th true neighbor.

    Parameters
    ----------
    found : array-like of shape (n_queries, k), integers
        Ids a search returned. A repeated id counts once, -1 not at all.
    distances : array-like of shape (n_queries, k)
        The *true* distances of ``found``, from `pair_distances`: not what the search claims. Ignored beside -1.
    truth_distances : array-like of shape (n_queries, k)
        Distances of the exact nearest neighbors, ascending; inf where there are fewer.
    k : int, optional
        Compare the first k columns of all. Without it all must have the same shape.
    rtol, atol : float
        A result counts up to ``limit + rtol * |limit| + atol`` with ``limit`` the k-th true distance. The defaults
        cover a truth stored as float32 (6e-8) and sums in float64; a truth *computed* in float32 needs about 1e-4.

    Returns
    -------
    ndarray of shape (n_queries,), float64
        ``|{right ids}| / |truth|`` in [0, 1], no unit; 1 where there is nothing to find.

    Raises
    ------
    InputError
        If the shapes do not fit, there are no queries, a truth row is not ascending, or a distance is NaN.

    Notes
    -----
    The definition of Aumüller et al. 2020, https://doi.org/10.1016/j.is.2019.02.006, with a relative instead of an
    absolute tolerance.

    Examples
    --------
    Rows 4 and 8 are both at distance 2, so either is a right second neighbor.

    >>> recalls_by_distance([[3, 8]], [[1.0, 2.0]], [[1.0, 2.0]]).tolist()
    [1.0]
    >>> recalls_by_distance([[3, 3]], [[1.0, 1.0]], [[1.0, 2.0]]).tolist()
    [0.5]
    """
    table = _checks.id_table("found", found)
    near = np.asarray(distances, dtype=np.float64)
    if near.shape != table.shape:
        raise InputError(f"distances has shape {near.shape}, but that of found, {table.shape}, is wanted")
    near = _distances("distances", np.where(table < 0, np.inf, near))
    table, limits = _tables(table, "truth_distances", _distances("truth_distances", truth_distances), k)
    near = near[:, : table.shape[1]]
    if (limits[:, 1:] < limits[:, :-1]).any():
        row = int(np.argmax((limits[:, 1:] < limits[:, :-1]).any(axis=1)))
        raise InputError(f"truth_distances row {row} is not ascending; sort it, nearest first")
    wanted = np.isfinite(limits).sum(axis=1)
    limit = np.where(np.isfinite(limits), limits, -np.inf).max(axis=1)  # with fewer than k neighbors, the last of them
    bound = limit + rtol * np.where(np.isfinite(limit), np.abs(limit), 0.0) + atol
    right = (near <= bound[:, None]) & (table >= 0) & ~_repeats(table)
    return _share(np.minimum(right.sum(axis=1), wanted), wanted)


def recall_by_distance(
    found: ArrayLike,
    distances: ArrayLike,
    truth_distances: ArrayLike,
    *,
    k: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-12,
) -> float:
    """Return the mean over queries of `recalls_by_distance`.

    Parameters
    ----------
    found, distances, truth_distances, k, rtol, atol
        As for `recalls_by_distance`.

    Returns
    -------
    float
        Mean share of results as near as the k-th true neighbor, in [0, 1], no unit.

    Raises
    ------
    InputError
        As for `recalls_by_distance`.

    Examples
    --------
    >>> from nearly.evaluate import exact, pair_distances
    >>> vectors, queries = [[0.0], [1.0], [-1.0]], [[0.0]]
    >>> found = [[0, 2]]  # rows 1 and 2 are tied
    >>> _, truth_distances = exact(vectors, queries, 2, metric="l2")
    >>> recall_by_distance(found, pair_distances(vectors, queries, found, metric="l2"), truth_distances)
    1.0
    """
    return float(recalls_by_distance(found, distances, truth_distances, k=k, rtol=rtol, atol=atol).mean())


def recall_lower_bound(
    recalls: ArrayLike, *, confidence: float = 0.95, n_resamples: int = 10_000, seed: int = 0
) -> float:
    """Return a one-sided bootstrap lower confidence bound of the mean recall over queries.

    Parameters
    ----------
    recalls : array-like of shape (n_queries,)
        Recall of each query, in [0, 1], from `recalls_at_k` or `recalls_by_distance`.
    confidence : float
        Share of samples of queries whose mean recall is at least the bound, strictly between 0 and 1.
    n_resamples : int
        Bootstrap samples, at least 1.
    seed : int
        Seed of the samples; the same seed gives the same bound.

    Returns
    -------
    float
        The ``1 - confidence`` quantile of the resampled means, never above the mean itself.

    Raises
    ------
    InputError
        If there are no queries, a recall is outside [0, 1], or a parameter is out of range.

    Notes
    -----
    The percentile bootstrap of Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13. Recalls take
    few values, so the counts of the values are drawn (multinomial) instead of the queries: the same distribution,
    faster. Queries that all have the same recall give that recall: a bootstrap cannot see what no query showed, so ten
    queries without an error prove little.

    Examples
    --------
    >>> recall_lower_bound([1.0, 0.9, 0.8, 1.0] * 50) < 0.925
    True
    """
    values = np.asarray(recalls, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"recalls has shape {values.shape}, but (n_queries,) with at least one query is wanted")
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError("recalls holds a value outside [0, 1]; pass the recall of each query as a share")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence!r}, but a share strictly between 0 and 1 is wanted")
    n_resamples = _checks.count("n_resamples", n_resamples)
    levels, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=n_resamples)
    bound = np.quantile(draws @ levels / len(values), 1 - confidence, method="lower")
    return float(min(bound, values.mean()))


def _distances(name: str, value: ArrayLike) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}, but (n_queries, k) is wanted; one row is {name}[None, :]")
    if np.isnan(array).any():
        raise InputError(f"{name} row {int(np.argmax(np.isnan(array).any(axis=1)))} holds NaN; wanted are distances")
    return array


def _tables(
    found: NDArray[np.int64], name: str, truth: NDArray[Any], k: int | None
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The first k columns of both, checked to be there."""
    if not len(found):
        raise InputError("found has no rows, but at least one query is wanted")
    if k is None:
        if found.shape != truth.shape or not found.shape[1]:
            advice = "k= compares the first k columns of both" if len(found) == len(truth) else "pass the same queries"
            raise InputError(
                f"found has shape {found.shape} and {name} {truth.shape}, "
                f"but one shape (n_queries, k) is wanted; {advice}"
            )
        return found, truth
    k = _checks.count("k", k)
    if len(found) != len(truth) or min(found.shape[1], truth.shape[1]) < k:
        raise InputError(
            f"found has shape {found.shape} and {name} {truth.shape}, but as many rows and at least k={k} columns "
            "are wanted"
        )
    return found[:, :k], truth[:, :k]


def _repeats(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark every id (not -1) that stands further left in its row too."""
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    marks = np.zeros(ids.shape, np.bool_)
    marks[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    out = np.empty(ids.shape, np.bool_)
    np.put_along_axis(out, order, marks, axis=1)
    return out


def _share(right: NDArray[Any], wanted: NDArray[Any]) -> Floats:
    return np.asarray(np.where(wanted > 0, right / np.maximum(wanted, 1), 1.0))
