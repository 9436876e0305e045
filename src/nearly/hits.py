"""What a search returns: raw arrays go in, everything else is made when it is first asked for."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from nearly.metrics import AnyMetric

__all__ = ["Context", "Hit", "Hits", "RangeHits", "SearchContext", "Stats", "Tabular"]

Array: TypeAlias = NDArray[Any]
Metadata: TypeAlias = Mapping[str, Array]

_frombuffer, _INT64, _FLOAT32 = np.frombuffer, np.dtype(np.int64), np.dtype(np.float32)
_SHOWN_ROWS, _SHOWN_HITS = 3, 5  # what a repr shows


class Hit(NamedTuple):
    """One neighbor: its id, and its distance in the unit of the metric."""

    id: int
    distance: float


@dataclass(frozen=True, slots=True)
class Stats:
    """The work of one search call, summed over its queries.

    Attributes
    ----------
    n_distances : int
        Comparisons of a query with a stored vector or code, all stages together.
    n_hops : int
        Graph nodes whose neighbors were looked at; 0 for a scan.
    n_reranked : int
        Of those comparisons, the ones with the vectors themselves after a search over codes.
    """

    n_distances: int = 0
    n_hops: int = 0
    n_reranked: int = 0


class Context(Protocol):
    """What answers of one kind share. One object may serve many searches; its attributes are read when asked for."""

    @property
    def metric(self) -> AnyMetric: ...
    @property
    def plan(self) -> str: ...
    @property
    def expected_recall(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class SearchContext:
    """The plain `Context`: three values that are known beforehand.

    Attributes
    ----------
    metric : Metric or CallableMetric
    plan : str
        What was searched, with what effort, and what that was calibrated on.
    expected_recall : float or None
        The estimate of the mean recall; None where nothing was calibrated.
    """

    metric: AnyMetric
    plan: str
    expected_recall: float | None = None


class Tabular(ABC):
    """What can be had as a table of several libraries."""

    __slots__ = ()

    @abstractmethod
    def _columns(self) -> dict[str, Any]:
        """All of it by columns."""

    def to_arrow(self) -> Any:
        """Return what was found as a ``pyarrow.Table``.

        Returns
        -------
        pyarrow.Table
            Of hits one row each, by query and rank: ``query`` and ``rank`` (int64, from 0), ``id`` (int64),
            ``distance`` and ``score`` (float32), then the metadata. Empty slots are left out.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError as problem:
            raise ImportError('to_arrow needs pyarrow: pip install "nearly[arrow]"') from problem
        return pa.table(self._columns())

    def to_pandas(self) -> Any:
        """Return what was found as a ``pandas.DataFrame``, with the columns of `to_arrow`."""
        try:
            import pandas as pd
        except ImportError as problem:
            raise ImportError("to_pandas needs pandas: pip install pandas") from problem
        return pd.DataFrame(self._columns())

    def to_polars(self) -> Any:
        """Return what was found as a ``polars.DataFrame``, with the columns of `to_arrow`."""
        try:
            import polars as pl
        except ImportError as problem:
            raise ImportError("to_polars needs polars: pip install polars") from problem
        return pl.DataFrame(self._columns())


class _Answer(Tabular):
    """What `Hits` and `RangeHits` have in common; they set these attributes themselves, a call less per search."""

    __slots__ = ("_context", "_metadata", "_scores", "_work", "single")

    single: bool
    _context: Context
    _metadata: Metadata | None
    _scores: Array | None
    _work: Sequence[int] | bytearray | Stats | None

    @property
    def plan(self) -> str:
        """What was searched and how, and what the expected recall was calibrated on."""
        return self._context.plan

    @property
    def expected_recall(self) -> float | None:
        """Estimated mean recall of such a search (1.0 when exact), a share in [0, 1]; None where nothing is known.

        It holds for queries like those that `plan` names. ``recall=`` leaves room for queries of another kind; one
        ``effort=`` for all does not, and such queries find less than estimated.
        """
        return self._context.expected_recall

    @property
    def stats(self) -> Stats | None:
        """The work of the whole search call, also for one query taken out of it; None where it was not counted."""
        work = self._work
        if type(work) is bytearray:
            work = self._work = Stats(*np.frombuffer(work, np.int64, 3, (len(work) - 24) // 12 * 8).tolist())
        elif work is not None and not isinstance(work, Stats):
            work = self._work = Stats(*(int(count) for count in work))
        return work

    @property
    def metadata(self) -> Metadata | None:
        """Columns that stand beside the ids, each an array in the shape of ``ids``; None where there are none."""
        return self._metadata

    def _tail(self) -> str:
        recall = "" if self.expected_recall is None else f"\n  recall     {self.expected_recall:.3f} expected"
        return f"{recall}\n  plan       {self.plan}" if self.plan else recall


class Hits(_Answer):
    """The neighbors of one query, or of a batch of queries.

    Parameters
    ----------
    ids : ndarray of shape (k,) or (1, k) for one query, (n_queries, k) for a batch, int64
        As the engine wrote them: nearest first, empty slots (-1) last. Or a bytearray for one query:
        the ids found, the three counters of `Stats` (int64), the distances.
    distances : ndarray of that shape, float32, or None for a bytearray
        Ascending; infinity in empty slots.
    single : bool
        Whether one query came on its own.
    context : Context
        Metric, plan and expected recall; kept, and read only when asked for.
    work : sequence of int, Stats, that bytearray or None
        The counters of `Stats`, in its order.
    metadata : mapping of str to ndarray, optional
        Columns in the shape of the attribute `ids`.

    Attributes
    ----------
    ids : ndarray of shape (n_found,) or (n_queries, k), int64
        One query has only what was found; a batch is padded with -1.
    distances : ndarray of that shape, float32
        Ascending, in the unit of the metric; padded with infinity.
    scores : ndarray of that shape, float32
        Descending; see ``formula`` and ``score`` of the metric. Padded with minus infinity.
    counts : int, or ndarray of shape (n_queries,), int64
        How many were found, per query. Fewer than k is legal; ``plan`` says why.
    plan, expected_recall, stats, metadata
        See each.

    Notes
    -----
    A batch is a sequence of one-query `Hits`; a one-query `Hits` is a sequence of `Hit`. Slices are `Hits` too.
    Two answers are equal only if they are the same object: compare their ``ids`` or ``distances`` instead.
    Arrays are made once, and are views of the engine's where possible.

    Examples
    --------
    >>> from nearly.metrics import METRICS
    >>> context = SearchContext(METRICS["cosine"], plan="exact scan", expected_recall=1.0)
    >>> hits = Hits(np.array([7, 3, -1]), np.array([0.25, 0.5, np.inf], np.float32), True, context)
    >>> hits
    Hits: 2 neighbors of one query
      ids        [7 3]
      distances  [0.25 0.5 ]
      recall     1.000 expected
      plan       exact scan
    >>> hits.scores.tolist(), hits.counts
    ([0.75, 0.5], 2)
    >>> [neighbor.id for neighbor in hits]
    [7, 3]
    """

    __slots__ = ("_counts", "_distances", "_ids", "_trimmed")

    _ids: Any  # arrays, once they were asked for
    _distances: Any
    _counts: Array | int | None

    def __init__(
        self,
        ids: Array | bytearray,
        distances: Array | None,
        single: bool,
        context: Context,
        work: Sequence[int] | bytearray | Stats | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        self._ids = ids
        self._distances = distances
        self.single = single
        self._trimmed = not single
        self._context = context
        self._work = work
        self._metadata = metadata
        self._scores = None
        self._counts = None

    def _trim(self) -> None:
        """Leave of a single query's arrays what was found."""
        ids, distances = self._ids, self._distances
        if type(ids) is bytearray:  # an answer of the core to one query
            n = (len(ids) - 24) // 12
            self._distances = _frombuffer(ids, _FLOAT32, n, 8 * n + 24)
            self._ids = _frombuffer(ids, _INT64, n)
            self._trimmed = True
            return
        if ids.ndim > 1:
            ids = ids[0]
        if distances.ndim > 1:
            distances = distances[0]
        if len(ids) and ids[-1] < 0:
            ids = ids[: np.count_nonzero(ids >= 0)]
        self._distances = distances[: len(ids)]  # right also when another thread trims the same hits
        self._ids = ids
        self._trimmed = True

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids, nearest first."""
        if not self._trimmed:
            self._trim()
        ids: NDArray[np.int64] = self._ids
        return ids

    @property
    def distances(self) -> NDArray[np.float32]:
        """Distances, ascending, in the unit of the metric."""
        if not self._trimmed:
            self._trim()
        distances: NDArray[np.float32] = self._distances
        return distances

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores, descending: larger is nearer."""
        if self._scores is None:
            self._scores = self._context.metric.score_from_distance(self.distances)
        return self._scores

    @property
    def counts(self) -> Any:
        """How many neighbors were found: int for one query, an int64 array for a batch."""
        if not self._trimmed:
            self._trim()
        if self._counts is None:
            ids = self._ids
            self._counts = len(ids) if self.single else np.asarray(np.count_nonzero(ids >= 0, axis=1), np.int64)
        return self._counts

    def __len__(self) -> int:
        """Return the number of neighbors found for one query, of queries for a batch."""
        return len(self.ids)

    def __iter__(self) -> Iterator[Any]:
        """Yield `Hit` for one query, one-query `Hits` for a batch."""
        if self.single:
            return map(Hit, self.ids.tolist(), self.distances.tolist())
        return (self[i] for i in range(len(self._ids)))

    @overload
    def __getitem__(self, at: slice) -> "Hits": ...
    @overload
    def __getitem__(self, at: int) -> Any: ...
    def __getitem__(self, at: int | slice) -> Any:
        """Return one entry, as iteration gives it, or a slice as `Hits`."""
        one = not isinstance(at, slice)
        at = at if isinstance(at, slice) else operator.index(at)
        ids, distances = self.ids[at], self.distances[at]
        if one and self.single:
            return Hit(int(ids), float(distances))
        joined = self._metadata
        if joined is not None:
            found = slice(int(np.count_nonzero(ids >= 0)) if one else None)
            joined = {name: column[at][found] for name, column in joined.items()}
        return Hits(ids, distances, one or self.single, self._context, self._work, joined)

    def __repr__(self) -> str:
        if self.single:
            head = f"Hits: {_count(len(self), 'neighbor')} of one query"
            dots = " ..." if len(self) > 2 * _SHOWN_HITS else ""
            ids, distances = self.ids[: 2 * _SHOWN_HITS], self.distances[: 2 * _SHOWN_HITS]
            return f"{head}\n  ids        {_row(ids)}{dots}\n  distances  {_row(distances)}{dots}{self._tail()}"
        head = f"Hits: {_count(len(self), 'query')}, k={self._ids.shape[1]}"
        lines = [
            f"\n  {i:<10} {_row(row.ids[:_SHOWN_HITS])}{' ...' if len(row) > _SHOWN_HITS else ''} at "
            f"{_row(row.distances[:_SHOWN_HITS])}"
            for i, row in enumerate(self[:_SHOWN_ROWS])
        ]
        more = f"\n  ...        {len(self) - _SHOWN_ROWS} more" if len(self) > _SHOWN_ROWS else ""
        return head + "".join(lines) + more + self._tail()

    def _columns(self) -> dict[str, Array]:
        ids, distances = np.atleast_2d(self.ids), np.atleast_2d(self.distances)
        found = ids >= 0
        query, rank = np.nonzero(found)
        columns: dict[str, Array] = {"query": query, "rank": rank, "id": ids[found], "distance": distances[found]}
        columns["score"] = np.atleast_2d(self.scores)[found]
        for name, column in (self._metadata or {}).items():
            columns[name] = np.atleast_2d(column)[found]
        return columns


class RangeHits(_Answer):
    """Everything within a radius of one query, or of each of a batch: as many as there are, so the rows are ragged.

    Parameters
    ----------
    ids : ndarray of shape (n_found,), int64
        All queries after one another, each by distance, then id.
    distances : ndarray of shape (n_found,), float32
        In the unit of the metric.
    offsets : ndarray of shape (n_queries + 1,), int64
        Query i has the entries ``offsets[i]`` to ``offsets[i + 1]``.
    single : bool
        Whether one query came on its own.
    context, work, metadata
        As in `Hits`; metadata columns are flat.

    Attributes
    ----------
    ids, distances, offsets
        As passed.
    scores : ndarray of shape (n_found,), float32
    counts : int, or ndarray of shape (n_queries,), int64
        How many lie within the radius, per query.
    plan, expected_recall, stats, metadata
        See each.

    Notes
    -----
    Iterates as `Hits` does: a batch gives one-query `Hits`, one query gives `Hit`. Not equal by value.

    Examples
    --------
    >>> from nearly.metrics import METRICS
    >>> context = SearchContext(METRICS["l2"], plan="exact scan")
    >>> found = RangeHits(np.array([4, 2, 9]), np.array([0, 1, 0.5], np.float32), np.array([0, 2, 3]), False, context)
    >>> [row.ids.tolist() for row in found], found.counts.tolist()
    ([[4, 2], [9]], [2, 1])
    """

    __slots__ = ("distances", "ids", "offsets")

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __init__(
        self,
        ids: Array,
        distances: Array,
        offsets: Array,
        single: bool,
        context: Context,
        work: Sequence[int] | bytearray | Stats | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        self.ids = ids
        self.distances = distances
        self.offsets = offsets
        self.single = single
        self._context = context
        self._work = work
        self._metadata = metadata
        self._scores = None

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores, larger is nearer, descending within each query."""
        if self._scores is None:
            self._scores = self._context.metric.score_from_distance(self.distances)
        return self._scores

    @property
    def counts(self) -> Any:
        """How many were found: int for one query, an int64 array for a batch."""
        return len(self.ids) if self.single else np.diff(self.offsets)

    def __len__(self) -> int:
        """Return the number of neighbors found for one query, of queries for a batch."""
        return len(self.ids) if self.single else len(self.offsets) - 1

    def _query(self, i: int) -> Hits:
        at = slice(self.offsets[i], self.offsets[i + 1])
        joined = self._metadata and {name: column[at] for name, column in self._metadata.items()}
        return Hits(self.ids[at], self.distances[at], True, self._context, self._work, joined)

    def __iter__(self) -> Iterator[Any]:
        """Yield `Hit` for one query, one-query `Hits` for a batch."""
        return iter(self._query(0)) if self.single else (self._query(i) for i in range(len(self)))

    def __getitem__(self, at: int | slice) -> Any:
        """Return one entry as iteration gives it, or a slice: `Hits` for one query, `RangeHits` for a batch."""
        if self.single:
            return self._query(0)[at]
        if not isinstance(at, slice):
            return self._query(range(len(self))[at])
        chosen = range(len(self))[at]
        if chosen.step != 1:  # rows that do not follow one another have no flat view
            raise IndexError("a slice of RangeHits takes neighboring queries, step 1; index one query at a time")
        offsets = self.offsets[chosen.start : chosen.start + len(chosen) + 1]
        flat = slice(offsets[0], offsets[-1])
        joined = self._metadata and {name: column[flat] for name, column in self._metadata.items()}
        return RangeHits(
            self.ids[flat], self.distances[flat], offsets - offsets[0], False, self._context, self._work, joined
        )

    def __repr__(self) -> str:
        if self.single:
            return f"Range{self._query(0)!r}"
        lines = [
            f"\n  {i:<10} {len(row)} found: {_row(row.ids[:_SHOWN_HITS])}{' ...' if len(row) > _SHOWN_HITS else ''} at "
            f"{_row(row.distances[:_SHOWN_HITS])}"
            for i, row in enumerate(self[:_SHOWN_ROWS])
        ]
        more = f"\n  ...        {len(self) - _SHOWN_ROWS} more" if len(self) > _SHOWN_ROWS else ""
        head = f"RangeHits: {_count(len(self), 'query')}, {_count(len(self.ids), 'neighbor')}"
        return head + "".join(lines) + more + self._tail()

    def _columns(self) -> dict[str, Array]:
        counts = np.diff(self.offsets)
        columns: dict[str, Array] = {
            "query": np.repeat(np.arange(len(counts)), counts),
            "rank": np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], counts),
            "id": self.ids,
            "distance": self.distances,
            "score": self.scores,
        }
        return columns | dict(self._metadata or {})


def _count(n: int, word: str) -> str:
    plural = "queries" if word == "query" else f"{word}s"
    return f"{n} {word if n == 1 else plural}"


def _row(values: Array) -> str:
    return np.array2string(values, precision=4, suppress_small=True, threshold=20, max_line_width=100)
