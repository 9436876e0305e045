"""Vectors, queries and the exact neighbors of the queries: what a search is measured on."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import FormatError, InputError
from nearly.evaluate import _checks, _distances
from nearly.evaluate.recall import recall_by_distance, recalls_by_distance
from nearly.evaluate.truth import exact, pair_distances

__all__ = ["Dataset"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Vectors, queries, and the exact neighbors of the queries.

    Parameters
    ----------
    name : str
        What to call it in reports.
    base : ndarray of shape (n, dim)
        The vectors to search, in any real dtype; packed bits (uint8) for ``hamming`` and ``jaccard``.
    queries : ndarray of shape (n_queries, dim)
        Queries of the same kind.
    truth_ids : ndarray of shape (n_queries, n_truth), int64
        Rows of the exact nearest neighbors, nearest first; -1 where there are fewer.
    truth_distances : ndarray of shape (n_queries, n_truth), float32 or float64
        Their distances, as `exact` gives them; inf beside -1.
    metric : str
        ``l2``, ``ip``, ``cosine``, ``hamming``, ``jaccard`` or ``l1``.

    Raises
    ------
    InputError
        If shapes or dtypes do not fit the metric, an id is not a row of ``base`` or stands twice in a row, or distances
        are not ascending.

    Examples
    --------
    >>> data = Dataset.compute("toy", [[0.0], [1.0], [5.0]], [[0.9]], metric="l2", k=2)
    >>> data.truth_ids.tolist()
    [[1, 0]]
    >>> data.recall([[0, 2]])
    0.5
    """

    name: str
    base: Array
    queries: Array
    truth_ids: NDArray[np.int64]
    truth_distances: NDArray[Any]
    metric: str

    def __post_init__(self) -> None:
        base, queries = _distances.inputs(_distances.named(self.metric), self.base, self.queries, name="base")
        ids, distances = _checks.id_table("truth_ids", self.truth_ids), np.asarray(self.truth_distances)
        if len(ids) != len(queries) or ids.shape != distances.shape or not ids.shape[1]:
            raise InputError(
                f"truth_ids has shape {ids.shape} and truth_distances {distances.shape}, "
                f"but ({len(queries)}, n_truth) is wanted for {len(queries)} queries"
            )
        if ids.size and ids.max() >= len(base):
            raise InputError(f"truth_ids holds {ids.max()}, but base has {len(base)} rows")
        if not np.all(distances[:, 1:] >= distances[:, :-1]) or np.isnan(distances[:, 0]).any():
            raise InputError("truth_distances is not ascending in every row (or NaN); sort it, nearest first")
        ordered = np.sort(ids, axis=1)
        if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)):
            raise InputError("truth_ids repeats an id in a row, but different neighbors are wanted")
        for key, value in (("base", base), ("queries", queries), ("truth_ids", ids), ("truth_distances", distances)):
            object.__setattr__(self, key, value)

    @classmethod
    def compute(cls, name: str, base: ArrayLike, queries: ArrayLike, *, metric: str, k: int = 100) -> "Dataset":
        """Return a data set whose truth is computed by `exact`.

        Parameters
        ----------
        name, base, queries, metric
            As for `Dataset`.
        k : int
            Neighbors per query.

        Examples
        --------
        >>> Dataset.compute("toy", np.eye(4), np.eye(4)[:2], metric="cosine", k=3)
        Dataset(toy, cosine, 4 x 4 float64, 2 queries, 3 neighbors each)
        """
        ids, distances = exact(base, queries, k, metric=metric)
        return cls(name, np.asarray(base), np.asarray(queries), ids, distances, metric)

    def __repr__(self) -> str:
        n, dim = self.base.shape
        return (
            f"Dataset({self.name}, {self.metric}, {n} x {dim} {self.base.dtype}, {len(self.queries)} queries, "
            f"{self.truth_ids.shape[1]} neighbors each)"
        )

    def recalls(self, found: ArrayLike, *, k: int | None = None) -> NDArray[np.float64]:
        """Return the recall by distance of each query (see `recalls_by_distance`).

        Parameters
        ----------
        found : array-like of shape (n_queries, k), integers
            Ids a search returned, one row for every query of this data set; -1 marks an empty slot.
        k : int, optional
            Use the first k columns; default all. At most the neighbors that the truth has.

        Returns
        -------
        ndarray of shape (n_queries,), float64
            Share of k results that are as near as the k-th true neighbor. Both distances are measured here, in float64,
            so the rounding of ``truth_distances`` does not matter.

        Examples
        --------
        >>> data = Dataset.compute("toy", [[0.0], [1.0], [2.0]], [[1.0], [0.0]], metric="l2", k=2)
        >>> data.recalls([[1, 2], [0, 2]]).tolist()
        [1.0, 0.5]
        """
        return recalls_by_distance(*self._measured(found, k))

    def recall(self, found: ArrayLike, *, k: int | None = None) -> float:
        """Return the mean of `recalls` over the queries.

        Parameters
        ----------
        found, k
            As for `recalls`.
        """
        return recall_by_distance(*self._measured(found, k))

    def _measured(self, found: ArrayLike, k: int | None) -> tuple[Array, Array, Array]:
        ids = _checks.id_table("found", found)
        k = ids.shape[1] if k is None else _checks.count("k", k)
        if len(ids) != len(self.queries) or not 1 <= k <= min(ids.shape[1], self.truth_ids.shape[1]):
            raise InputError(
                f"found has shape {ids.shape} and k is {k}, but {len(self.queries)} rows and 1 to "
                f"{self.truth_ids.shape[1]} columns are wanted"
            )
        ids, truth = ids[:, :k], self.truth_ids[:, :k]
        limits = np.sort(pair_distances(self.base, self.queries, truth, metric=self.metric), axis=1)
        # Most results are in the truth, and need no measuring.
        known = (ids[:, :, None] == truth[:, None, :]).any(axis=2) & (ids >= 0)
        near = pair_distances(self.base, self.queries, np.where(known, -1, ids), metric=self.metric)
        return ids, np.where(known, -np.inf, near), limits

    def take(self, rows: ArrayLike) -> "Dataset":
        """Return the same data set with some of its queries.

        Parameters
        ----------
        rows : array-like of int or slice
            Queries to keep, in this order.

        Examples
        --------
        >>> data = Dataset.compute("toy", [[0.0], [1.0]], [[1.0], [0.0]], metric="l2", k=1)
        >>> data.take([1]).truth_ids.tolist()
        [[0]]
        """
        at: Any = rows if isinstance(rows, slice) else np.asarray(rows)
        return replace(
            self, queries=self.queries[at], truth_ids=self.truth_ids[at], truth_distances=self.truth_distances[at]
        )

    def verify(self, *, n_queries: int | None = 10, search: bool = True, seed: int = 0, rtol: float = 1e-4) -> None:
        """Compute the neighbors of some queries and compare them with the truth.

        Parameters
        ----------
        n_queries : int, optional
            Queries drawn; None compares all.
        search : bool
            False measures only the ids that the truth has: fast, but blind to nearer vectors that it lacks.
        seed : int
            Seed of the draw.
        rtol : float
            Allowed difference of distances, relative to the largest of the query.

        Raises
        ------
        FormatError
            If a distance differs, or an id is not at its distance.

        Examples
        --------
        >>> Dataset.compute("toy", [[0.0], [1.0]], [[1.0], [0.0]], metric="l2", k=1).verify()
        """
        rows = np.arange(len(self.queries))
        if n_queries is not None and _checks.count("n_queries", n_queries) < len(rows):
            rows = np.sort(np.random.default_rng(seed).choice(rows, n_queries, replace=False))
        part = self.take(rows)
        measured = pair_distances(self.base, part.queries, part.truth_ids, metric=self.metric)
        _compare(part, rows, measured, "its id is at", rtol)
        if search:
            _, distances = exact(self.base, part.queries, self.truth_ids.shape[1], metric=self.metric)
            _compare(part, rows, distances, "a search of all rows finds", rtol)


def _compare(data: Dataset, rows: NDArray[np.int64], distances: Array, how: str, rtol: float) -> None:
    said = data.truth_distances.astype(np.float64)
    scale = np.abs(np.where(np.isfinite(distances), distances, 0.0)).max(axis=1, initial=0.0, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf - inf, where there are fewer neighbors
        wrong = (said != distances) & ~(np.abs(said - distances) <= rtol * scale)
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise FormatError(
            f"{data.name}: the truth of query {rows[i]} says distance {said[i, j]:.9g} at rank {j}, "
            f"but {how} distance {distances[i, j]:.9g} ({data.metric})"
        )
