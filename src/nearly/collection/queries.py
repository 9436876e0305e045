"""Searches over a snapshot: every part is asked for its k nearest, under one recall target, and answers are merged.

A true neighbor is among the k nearest of its part, so parts that each deliver a share of theirs deliver it together.
A part is scanned where few of its rows pass a filter, which its index decides by what either way would cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from nearly import arrays, metrics
from nearly.arrays.words import listing
from nearly.collection.found import Found, FoundInRange, Joiner, locators
from nearly.collection.parts import Part, Stored, skipped
from nearly.collection.schema import RESERVED, Schema
from nearly.collection.state import State
from nearly.errors import DimensionError, InputError
from nearly.filters.expressions import Expression, did_you_mean
from nearly.hits import Context, Hits
from nearly.indexes import Allowed
from nearly.metrics import AnyMetric
from nearly.runtime import get_threads

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Explanation", "Question", "as_rows", "explain", "range_search", "search"]

Array = NDArray[Any]
_LARGE = 20_000  # rows of a part that are worth a thread
_POOL: "ThreadPoolExecutor | None" = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every part.

    Attributes
    ----------
    field : str
    where : Expression or None
    options : mapping
        ``recall``, ``effort``, ``exact``, ``threads`` of the indexes; those that were given.
    names : tuple of str
        Columns of metadata that the answer joins.
    types : mapping of str to str
        The type of every column.
    """

    field: str
    where: Expression | None
    options: Mapping[str, Any]
    names: tuple[str, ...]
    types: Mapping[str, str]


class _Together:
    """The context of an answer that parts gave together."""

    __slots__ = ("_found", "_n_skipped", "_state", "_where", "metric")

    def __init__(
        self, metric: AnyMetric, found: Sequence[tuple[Part, int, Context]], state: State, where: Expression | None,
        n_skipped: int = 0,
    ) -> None:  # fmt: skip
        self.metric, self._found, self._state, self._where = metric, found, state, where
        self._n_skipped = n_skipped

    @property
    def plan(self) -> str:
        total = len(self._state)
        skipped = f"; {self._n_skipped} of {len(self._state.segments)} segments skipped" if self._n_skipped else ""
        if not self._found:
            return f"nothing to search: none of {total} rows passes{skipped}" if total else "nothing to search: no rows"
        passing = sum(count for _, count, _ in self._found)
        head = f"{passing} of {total} rows pass {self._where!r}{skipped}; " if self._where is not None else ""
        plans = [f"{_name(part)} ({count} rows): {context.plan}" for part, count, context in self._found]
        return head + "; ".join(plans)

    @property
    def expected_recall(self) -> float | None:
        if not self._found:
            return 1.0
        shares = [(count, context.expected_recall) for _, count, context in self._found]
        if any(recall is None for _, recall in shares):
            return None
        return float(sum(n * (recall or 0.0) for n, recall in shares) / max(1, sum(n for n, _ in shares)))


def _name(part: Part) -> str:
    return f"segment {part.source.name}" if isinstance(part.source, Stored) else "fresh rows"


def check_columns(where: Expression | None, state: State) -> None:
    """Refuse a filter that names columns which no row ever had."""
    unknown = sorted(where.columns - state.schema.columns.keys()) if where is not None else []
    if unknown:
        raise InputError(f"where names {listing(unknown)}, but {_instead(unknown[0], state.schema)}")


def _instead(unknown: str, schema: Schema) -> str:
    """What may have been meant by a column that there is not."""
    if unknown in RESERVED:
        return f"{unknown} is no column of metadata: filters do not see it; keys are for get(ids) and delete(ids)"
    hint = did_you_mean(unknown, schema.columns)
    hint = f"; {hint}" if hint.startswith("did") else "; a text is written 'in single quotes'"
    return f"the columns of this collection are: {', '.join(schema.columns) or 'none'}{hint}"


def search(state: State, queries: Any, k: int, asked: Question, workload: bool = False) -> Found:
    """The k nearest of one query or of many.

    Those of a ``workload`` may be compared with all that passes where that is quicker for so many; else an answer does
    not depend on which queries came along.
    """
    schema, parts = state.schema, state.parts
    joiner = Joiner(parts, asked.names, schema.keys != "str")
    metric = metrics.named(schema.fields[asked.field].metric)
    if len(parts) == 1 and asked.where is None and _is_whole(parts[0]):
        hits = parts[0].source.index(asked.field).search(queries, k, **asked.options)
        context = _Together(metric, [(parts[0], parts[0].n_alive, hits._context)], state, None)
        return Found(
            hits._ids, hits._distances, hits.single, context, hits._work, joiner
        )  # rows of part 0 are locators
    rows, single = as_rows(state, queries, asked.field)
    columns = min(arrays.check_k(k), max(len(state), 1 << 16))
    check_columns(asked.where, state)
    found, n_skipped = _ask(
        parts,
        asked,
        len(rows),
        lambda part, options: _searched(part.source.index(asked.field), workload)(rows, k, **options),
    )
    ids, distances = _merged(found, len(rows), columns)
    context = _Together(metric, [(part, n, hits._context) for _, part, n, hits in found], state, asked.where, n_skipped)
    return Found(ids, distances, single, context, _work([hits for *_, hits in found]), joiner)


def _is_whole(part: Part) -> bool:
    return part.n_alive == part.n and isinstance(part.source, Stored)


def as_rows(state: State, queries: Any, field: str) -> tuple[Array, bool]:
    """Queries as the rows that indexes take, and whether they were one."""
    wanted = state.schema.fields[field]
    made, single = arrays.as_queries(queries, bits=wanted.bits)
    if wanted.dim is not None and made.dim != wanted.dim and len(made):
        raise DimensionError("queries", got=made.dim, expected=wanted.dim)
    arrays.check_finite(made, "queries")
    return (made.array if made.kind == "bits" else made.as_float32()), single


def _searched(index: Any, workload: bool) -> Callable[..., Hits]:
    return cast("Callable[..., Hits]", index._search_together if workload else index.search)


def _ask(
    parts: Sequence[Part], asked: Question, n_queries: int, ask: Callable[[Part, dict[str, Any]], Any]
) -> tuple[list[tuple[int, Part, int, Any]], int]:
    """The answer of every part in which rows pass: its number, itself, how many pass, and the answer.

    With them how many parts were skipped without a look at their rows.
    """
    tasks: list[tuple[int, Part, int, dict[str, Any]]] = []
    n_skipped = 0
    for number, part in enumerate(parts):
        allowed = part.passing(asked.where, asked.types)
        n_skipped += skipped(allowed)
        if allowed.n:
            options = dict(asked.options)
            if allowed.n < part.n or not isinstance(part.source, Stored):
                options["where"] = Allowed(allowed.bits, allowed.n)
            tasks.append((number, part, allowed.n, options))
    large = sum(count >= _LARGE for *_, count, _ in tasks)
    if large > 1 and n_queries < get_threads():
        answers = list(_pool().map(lambda task: ask(task[1], task[3]), tasks))
    else:
        answers = [ask(part, options) for _, part, _, options in tasks]
    found = [(number, part, n, answer) for (number, part, n, _), answer in zip(tasks, answers, strict=True)]
    return found, n_skipped


def _pool() -> "ThreadPoolExecutor":
    global _POOL
    if _POOL is None:
        from concurrent.futures import ThreadPoolExecutor  # late: it brings logging

        _POOL = ThreadPoolExecutor(max(2, get_threads()), thread_name_prefix="nearly-parts")
    return _POOL


def _merged(found: Sequence[tuple[int, Part, int, Hits]], n: int, k: int) -> tuple[Array, Array]:
    """The k nearest of all answers; ties go to the part that is older, then to the row that is."""
    ids, distances = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32)
    if not found:
        return ids, distances
    if len(found) == 1:
        ((number, _, _, hits),) = found
        return locators(number, np.atleast_2d(hits.ids)), np.atleast_2d(hits.distances)
    every = np.concatenate([locators(number, np.atleast_2d(hits.ids)) for number, _, _, hits in found], axis=1)
    far = np.concatenate([np.atleast_2d(hits.distances) for *_, hits in found], axis=1)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    taken = np.take_along_axis(every, order, 1)
    ids[:, : taken.shape[1]], distances[:, : taken.shape[1]] = taken, np.take_along_axis(far, order, 1)
    return ids, distances


def _work(found: Sequence[Any]) -> tuple[int, int, int] | None:
    counted = [hits.stats for hits in found]
    if any(stats is None for stats in counted):
        return None
    return (
        sum(stats.n_distances for stats in counted),
        sum(stats.n_hops for stats in counted),
        sum(stats.n_reranked for stats in counted),
    )


def range_search(state: State, queries: Any, radius: float, asked: Question) -> FoundInRange:
    """Everything within a radius: exact."""
    rows, single = as_rows(state, queries, asked.field)
    check_columns(asked.where, state)
    arrays.check_real(radius, "radius")
    parts = state.parts
    found, n_skipped = _ask(
        parts,
        asked,
        len(rows),
        lambda part, options: part.source.index(asked.field).range_search(rows, radius, **options),
    )
    n = len(rows)
    which = [np.repeat(np.arange(n), np.diff(hits.offsets)) for *_, hits in found]
    query = np.concatenate([*which, np.zeros(0, np.int64)])
    far = np.concatenate([*(hits.distances for *_, hits in found), np.zeros(0, np.float32)])
    at = np.concatenate([*(locators(number, hits.ids) for number, _, _, hits in found), np.zeros(0, np.int64)])
    order = np.lexsort((far, query))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=n))]).astype(np.int64)
    metric = metrics.named(state.schema.fields[asked.field].metric)
    context = _Together(metric, [(part, m, hits._context) for _, part, m, hits in found], state, asked.where, n_skipped)
    joiner = Joiner(parts, asked.names, state.schema.keys != "str")
    work = _work([hits for *_, hits in found])
    return FoundInRange(at[order], far[order], offsets, single, context, work, joiner)


@dataclass(frozen=True)
class Explanation:
    """Why a row is, or is not, among the nearest of a query.

    Attributes
    ----------
    id : int or str
    reason : str
        In words.
    stored, passes : bool
        Whether the key is there, and whether its row passes the filter.
    found : bool
        Whether the search returned it.
    rank : int or None
        Its true rank among the rows that pass, 1 the nearest; of those equally near the best.
    distance : float or None
    expected_recall : float or None
        Of the search.

    Examples
    --------
    >>> Explanation("a", "it is found", True, True, True, 1, 0.25, 0.95).rank
    1
    """

    id: Any
    reason: str
    stored: bool
    passes: bool
    found: bool
    rank: int | None = None
    distance: float | None = None
    expected_recall: float | None = None


def explain(state: State, query: Any, key: Any, keys: Any, k: int, asked: Question) -> Explanation:
    """Compare a row with everything that is nearer."""
    rows, _ = as_rows(state, query, asked.field)
    if len(rows) != 1:
        raise InputError(f"explain takes one query, but {len(rows)} came")
    check_columns(asked.where, state)
    (which,), (row,) = (each.tolist() for each in state.locate(keys))
    if which < 0:
        return Explanation(key, "no row has this key: it was never added, or was deleted", False, False, False)
    part = (*state.segments, state.fresh)[which]
    word = np.zeros(row // 64 + 1, np.uint64)
    word[row >> 6] = np.uint64(1) << np.uint64(row & 63)
    alone = part.source.index(asked.field).search(rows, 1, exact=True, where=Allowed(word, 1))
    distance = float(alone.distances[0, 0])
    allowed = part.passing(asked.where, asked.types)
    passes = bool(len(allowed.bits) > row >> 6 and int(allowed.bits[row >> 6]) >> (row & 63) & 1)
    if not passes:
        reason = f"the filter {asked.where!r} excludes it; its distance is {distance:g}"
        return Explanation(key, reason, True, False, False, None, distance)
    nearer = range_search(state, rows[0], float(np.nextafter(np.float32(distance), np.float32(-np.inf))), asked)
    rank = len(nearer) + 1
    hits = search(state, rows[0], k, asked)
    found = key in hits.ids.tolist()
    recall = hits.expected_recall
    if found:
        reason = f"it is found: rank {rank}, distance {distance:g}"
    elif rank > k:
        reason = f"{rank - 1} rows are nearer, so it is not among the {k} nearest; ask for k={rank} or more"
    else:
        share = "unknown" if recall is None else f"{recall:.3f}"
        reason = (f"it is true neighbor number {rank}, and the search missed it: expected recall is {share}; "
                  "pass a higher recall=, or exact=True")  # fmt: skip
    return Explanation(key, reason, True, True, found, rank, distance, recall)
