"""Exact neighbors by brute force in float64: what every approximate answer is measured against."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import IdError, InputError
from nearly.evaluate import _checks, _distances
from nearly.evaluate._distances import Floats, Metric

__all__ = ["exact", "exact_range", "pair_distances"]

Ids = NDArray[np.int64]
CallableMetric = Callable[[Any, Any], ArrayLike]
"""``f(item, items) -> distances``, one finite number per item, smaller is nearer."""

_BLOCK_BYTES = 32 << 20  # of one temporary array; a handful live at once. Chosen by hand
_MOST_ROWS = 16384  # rows per block; more makes the selection, not the product, the larger part


def exact(vectors: Any, queries: Any, k: int, *, metric: str | CallableMetric) -> tuple[Ids, Floats]:
    """Return the k nearest vectors of every query, by comparing it with all of them in float64.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        Real numbers of any dtype; for ``hamming`` and ``jaccard`` packed bits, uint8 of shape (n, n_bytes) in the order
        of ``numpy.packbits``. A memory map is read block by block. With a callable metric, any sequence of items.
    queries : array-like of shape (n_queries, dim)
        The same kind as ``vectors``.
    k : int
        Neighbors per query, at least 1. May exceed n.
    metric : str or callable
        ``l2`` (Euclidean, not squared), ``ip`` (-<q, x>), ``cosine`` (1 - cos; 1 where a vector is zero), ``hamming``
        (bits that differ), ``jaccard`` (1 - common / all bits; two empty sets: 0), ``l1`` (sum of absolute
        differences), or ``f(item, items) -> distances``.

    Returns
    -------
    ids : ndarray of shape (n_queries, k), int64
        Row numbers, nearest first, ties by the lower id; -1 where there are fewer than k vectors.
    distances : ndarray of shape (n_queries, k), float64
        Ascending; inf beside -1.

    Raises
    ------
    InputError
        If shapes or dtypes do not fit, a value is NaN, infinite or beyond 1e150, or the metric is unknown.
    DimensionError
        If the queries have another number of columns than the vectors.

    Notes
    -----
    A matrix product in float64 selects, with a proven bound on its error (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, section 3.1), every row that can be among the k nearest; those are measured again directly. So
    equal vectors are at l2 distance 0 exactly, and an answer does not depend on the batch. Temporary memory is a few
    times 32 MiB plus n_queries * k * 16 bytes, whatever n is.

    Examples
    --------
    >>> ids, distances = exact([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0]], 2, metric="l2")
    >>> ids.tolist(), distances.tolist()
    ([[0, 2]], [[0.0, 1.0]])
    """
    k = _checks.count("k", k)
    if callable(metric):
        return _exact_callable(vectors, queries, k, metric)
    row = _distances.named(metric)
    base, points = _distances.inputs(row, vectors, queries)
    ids = np.full((len(points), k), -1, np.int64)
    distances = np.full((len(points), k), np.inf)
    for begin, prepared in _blocks(row, "queries", points, queries=True):
        best = slice(begin, begin + len(prepared))
        for start, rows in _blocks(row, "vectors", base):
            keys, error = row.keys(prepared, rows)
            mask = _nearest(keys, error, row.to_key(distances[best, -1]), k)
            which, column, found = _measure(row, prepared, rows, keys, error, mask)
            _merge(ids[best], distances[best], which, column + start, found)
    return ids, distances


def exact_range(
    vectors: Any, queries: Any, radius: float, *, metric: str | CallableMetric
) -> tuple[NDArray[np.int64], Ids, Floats]:
    """Return all vectors within a distance of every query, the boundary included.

    Parameters
    ----------
    vectors, queries, metric
        As for `exact`.
    radius : float
        Largest distance, in the unit of the distances of ``metric`` (for ``ip``: -<q, x>). Not NaN.

    Returns
    -------
    offsets : ndarray of shape (n_queries + 1,), int64
        Query i found ``ids[offsets[i]:offsets[i + 1]]``.
    ids : ndarray of shape (n_found,), int64
        Row numbers, per query nearest first, ties by the lower id.
    distances : ndarray of shape (n_found,), float64
        Ascending within each query.

    Raises
    ------
    InputError
        As for `exact`, or if ``radius`` is NaN.

    Examples
    --------
    >>> offsets, ids, distances = exact_range([[0.0], [1.0], [5.0]], [[0.0], [9.0]], 1.0, metric="l2")
    >>> offsets.tolist(), ids.tolist(), distances.tolist()
    ([0, 2, 2], [0, 1], [0.0, 1.0])
    """
    radius = float(radius)
    if np.isnan(radius):
        raise InputError("radius is nan, but a number is wanted")
    if callable(metric):
        return _range_callable(vectors, queries, radius, metric)
    row = _distances.named(metric)
    base, points = _distances.inputs(row, vectors, queries)
    parts: list[tuple[NDArray[np.int64], Ids, Floats]] = []
    for begin, prepared in _blocks(row, "queries", points, queries=True):
        limit = row.to_key(np.full(len(prepared), radius))
        for start, rows in _blocks(row, "vectors", base):
            keys, error = row.keys(prepared, rows)
            mask = keys <= (limit if error is None else limit + error)[:, None]
            which, column, found = _measure(row, prepared, rows, keys, error, mask)
            inside = found <= radius
            parts.append((which[inside] + begin, column[inside] + start, found[inside]))
    return _ragged(parts, len(points))


def pair_distances(vectors: Any, queries: Any, ids: ArrayLike, *, metric: str | CallableMetric) -> Floats:
    """Return the exact distances of given ids: what a search should have said about its own answer.

    Parameters
    ----------
    vectors, queries, metric
        As for `exact`.
    ids : array-like of shape (n_queries, k), integers
        Row numbers below n; -1 marks an empty slot.

    Returns
    -------
    ndarray of shape (n_queries, k), float64
        The distance of ``queries[i]`` and ``vectors[ids[i, j]]``, the same bits that `exact` gives; inf beside -1.

    Raises
    ------
    IdError
        If an id is not a row of ``vectors``.
    InputError
        As for `exact`.

    Examples
    --------
    >>> pair_distances([[0.0], [3.0]], [[1.0]], [[1, -1]], metric="l2").tolist()
    [[2.0, inf]]
    """
    table = _checks.id_table("ids", ids)
    row = None if callable(metric) else _distances.named(metric)
    base, points = (vectors, queries) if row is None else _distances.inputs(row, vectors, queries)
    if len(table) != len(points):
        raise InputError(f"ids has {len(table)} rows, but there are {len(points)} queries; pass one row per query")
    if table.size and table.max() >= len(base):
        raise IdError(f"ids holds {table.max()}, but there are only {len(base)} vectors")
    out = np.full(table.shape, np.inf)
    if callable(metric):
        for i, query in enumerate(points):
            some = np.flatnonzero(table[i] >= 0)
            items = [base[j] for j in table[i, some]]
            kept = np.asarray(items) if isinstance(base, np.ndarray) else items
            out[i, some] = _call(metric, query, kept) if len(some) else 0.0
        return out
    assert row is not None
    which, column = np.nonzero(table >= 0)
    step = max(1, _BLOCK_BYTES // (8 * _distances.width(row, base)))
    for start in range(0, len(which), step):
        at = which[start : start + step], column[start : start + step]
        rows = _distances.prepare(row, "vectors", base[table[at]], table[at])
        out[at] = row.pairs(_distances.prepare(row, "queries", points[at[0]], at[0]), rows)
    return out


def _blocks(
    metric: Metric, name: str, array: NDArray[Any], *, queries: bool = False
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield prepared rows and the number of the first, so that a block and a table of keys stay within _BLOCK_BYTES."""
    width = _distances.width(metric, array)
    rows = min(_MOST_ROWS, max(1, _BLOCK_BYTES // (8 * width)))
    step = max(1, _BLOCK_BYTES // (8 * max(rows, width))) if queries else rows
    for start in range(0, len(array), step):
        block = array[start : start + step]
        yield start, _distances.prepare(metric, name, block, np.arange(start, start + len(block)))


def _nearest(keys: NDArray[Any], error: Floats | None, limit: Floats, k: int) -> NDArray[np.bool_]:
    """Mark what can be among the k nearest: keys not provably above ``limit`` nor above the k-th key of this block."""
    slack = np.zeros(len(keys)) if error is None else error
    limit = limit + slack
    mask = keys <= limit[:, None]
    if keys.shape[1] > k and np.count_nonzero(mask) > 8 * k * len(keys):
        limit = np.minimum(limit, np.partition(keys, k - 1, axis=1)[:, k - 1] + 2 * slack)
        mask = keys <= limit[:, None]
    return mask


def _measure(
    metric: Metric,
    queries: NDArray[Any],
    rows: NDArray[Any],
    keys: NDArray[Any],
    error: Floats | None,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Distances of the marked pairs, with their rows in ``queries`` and in ``rows``."""
    which, column = np.nonzero(mask)
    if error is None:
        return which, column, keys[which, column].astype(np.float64)
    found = np.empty(len(which))
    step = max(1, _BLOCK_BYTES // (8 * rows.shape[1]))
    for start in range(0, len(which), step):
        part = slice(start, start + step)
        found[part] = metric.pairs(queries[which[part]], rows[column[part]])
    return which, column, found


def _merge(ids: Ids, distances: Floats, which: NDArray[np.int64], more: Ids, found: Floats) -> None:
    """Put candidates (query ``which[i]``, id ``more[i]``, distance ``found[i]``) into the sorted tables, in place."""
    n_queries, k = ids.shape
    old, slot = np.nonzero(ids >= 0)
    which = np.concatenate([old, which])
    more = np.concatenate([ids[old, slot], more])
    found = np.concatenate([distances[old, slot], found])
    order = np.lexsort((more, found, which))
    which, more, found = which[order], more[order], found[order]
    first = np.searchsorted(which, np.arange(n_queries))
    rank = np.arange(len(which)) - first[which]
    keep = rank < k
    ids[which[keep], rank[keep]] = more[keep]
    distances[which[keep], rank[keep]] = found[keep]


def _ragged(
    parts: Sequence[tuple[NDArray[np.int64], Ids, Floats]], n_queries: int
) -> tuple[NDArray[np.int64], Ids, Floats]:
    which = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    ids = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    distances = np.concatenate([np.empty(0), *(part[2] for part in parts)])
    order = np.lexsort((ids, distances, which))
    offsets = np.searchsorted(which[order], np.arange(n_queries + 1)).astype(np.int64)
    return offsets, ids[order], distances[order]


def _call(metric: CallableMetric, query: Any, items: Any) -> Floats:
    distances = np.asarray(metric(query, items), dtype=np.float64)
    if distances.shape != (len(items),):
        raise InputError(
            f"metric returned shape {distances.shape} for {len(items)} items, but ({len(items)},) is wanted: "
            "f(item, items) gives one distance per item"
        )
    if not np.isfinite(distances).all():
        raise InputError(f"metric returned {distances[~np.isfinite(distances)][0]}, but finite distances are wanted")
    return distances


def _all_distances(items: Any, query: Any, metric: CallableMetric) -> Floats:
    step = 65536  # items given to one call, chosen by hand
    parts = [_call(metric, query, items[start : start + step]) for start in range(0, len(items), step)]
    return np.concatenate([np.empty(0), *parts])


def _exact_callable(items: Any, queries: Any, k: int, metric: CallableMetric) -> tuple[Ids, Floats]:
    ids = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf)
    for i, query in enumerate(queries):
        found = _all_distances(items, query, metric)
        order = np.argsort(found, kind="stable")[:k]
        ids[i, : len(order)] = order
        distances[i, : len(order)] = found[order]
    return ids, distances


def _range_callable(
    items: Any, queries: Any, radius: float, metric: CallableMetric
) -> tuple[NDArray[np.int64], Ids, Floats]:
    parts: list[tuple[NDArray[np.int64], Ids, Floats]] = []
    for i, query in enumerate(queries):
        found = _all_distances(items, query, metric)
        inside = np.flatnonzero(found <= radius)
        parts.append((np.full(len(inside), i, np.int64), inside, found[inside]))
    return _ragged(parts, len(queries))
