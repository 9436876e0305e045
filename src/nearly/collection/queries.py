"""Searches over a snapshot: every part is asked for its k nearest, under one recall target, and answers are merged.

A true neighbor is among the k nearest of its part, so parts that each deliver a share of theirs deliver it together.
A part is scanned where few of its rows pass a filter, which its index decides by what either way would cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

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
from nearly.hits import Hits
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

    __slots__ = ("_found", "_state", "_where", "metric")

    def __init__(self, metric: AnyMetric, found: Sequence["_Answer"], state: State, where: Expression | None) -> None:
        self.metric, self._state, self._where = metric, state, where
        self._found = {each.task.number: (each.task.part, each.task.n, each.hits._context) for each in found}

    @property
    def plan(self) -> str:
        total = len(self._state)
        if not total:
            return "nothing to search: no rows"
        passing = [part.passing(self._where, self._state.schema.columns) for part in self._state.parts]
        n_skipped = sum(
            skipped(allowed) or (allowed.n > 0 and i not in self._found) for i, allowed in enumerate(passing)
        )
        head = f"; {n_skipped} of {len(self._state.segments)} segments skipped" if n_skipped else ""
        if not self._found:
            return f"nothing to search: none of {total} rows passes{head}"
        if self._where is not None:
            head = f"{sum(allowed.n for allowed in passing)} of {total} rows pass {self._where!r}{head}"
        head = head.removeprefix("; ")
        plans = [f"{_name(part)} ({n} rows): {context.plan}" for part, n, context in self._found.values()]
        return "; ".join([*([head] if head else []), *plans])

    @property
    def expected_recall(self) -> float | None:
        if not self._found:
            return 1.0
        shares = [(count, context.expected_recall) for _, count, context in self._found.values()]
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
        hits = _searched(parts[0].source.index(asked.field), workload)(queries, k, **asked.options)
        context = _Together(metric, [_Answer(_Task(0, parts[0], len(state), {}), hits)], state, None)
        return Found(
            hits._ids, hits._distances, hits.single, context, hits._work, joiner
        )  # rows of part 0 are locators
    rows, single = as_rows(state, queries, asked.field)
    columns = min(arrays.check_k(k), max(len(state), 1 << 16))
    check_columns(asked.where, state)
    tasks = _tasks(parts, asked)

    def ask(task: _Task, rows: Array) -> Hits:
        if len(rows) == 1 and not workload:  # the short way, where the filter is known
            return cast("Hits", task.part.source.index(asked.field).search(rows[0], k, **task.options))
        return _searched(task.part.source.index(asked.field), workload)(rows, k, **task.options)

    bounds = _bounds(tasks, asked.field, metric, rows) if len(tasks) > 1 and len(rows) else None
    found = _ask(tasks, rows, ask) if bounds is None else _ask_nearest(tasks, rows, columns, bounds, ask)
    ids, distances = _merged(found, len(rows), columns)
    if state.layout is not None:
        state.layout.meter.note(len(rows), sum(a.n_queries(len(rows)) * a.task.part.n_alive for a in found), len(state))
    return Found(ids, distances, single, _Together(metric, found, state, asked.where), _work(found), joiner)


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
    return cast("Callable[..., Hits]", index.search_many if workload else index.search)


class _Task(NamedTuple):
    """A part in which rows pass: its number, how many pass, and what its index is told."""

    number: int
    part: Part
    n: int
    options: dict[str, Any]


class _Answer(NamedTuple):
    """What a part found for some of the queries, or for all."""

    task: _Task
    hits: Any
    which: Array | None = None

    def n_queries(self, n: int) -> int:
        return n if self.which is None else len(self.which)

    def spread(self, n: int) -> tuple[Array, Array]:
        """Locators and distances of all queries."""
        at, far = locators(self.task.number, np.atleast_2d(self.hits.ids)), np.atleast_2d(self.hits.distances)
        if self.which is None:
            return at, far
        every = np.full((n, at.shape[1]), -1, np.int64), np.full((n, at.shape[1]), np.inf, np.float32)
        every[0][self.which], every[1][self.which] = at, far
        return every


def _tasks(parts: Sequence[Part], asked: Question) -> list[_Task]:
    """Every part in which rows pass."""
    tasks = []
    for number, part in enumerate(parts):
        allowed = part.passing(asked.where, asked.types)
        if allowed.n:
            options = dict(asked.options)
            if allowed.n < part.n or not isinstance(part.source, Stored):
                options["where"] = allowed
            tasks.append(_Task(number, part, allowed.n, options))
    return tasks


def _ask(tasks: Sequence[_Task], rows: Array, ask: Callable[[_Task, Array], Any]) -> list[_Answer]:
    """The answers of all of them."""
    large = sum(task.n >= _LARGE for task in tasks)
    if large > 1 and len(rows) < get_threads():
        return [_Answer(*each) for each in zip(tasks, _pool().map(lambda task: ask(task, rows), tasks), strict=True)]
    return [_Answer(task, ask(task, rows)) for task in tasks]


def _bounds(tasks: Sequence[_Task], field: str, metric: AnyMetric, rows: Array) -> Array | None:
    """For each task the least distance of what it holds from each query, -inf where nothing is known; None for all."""
    balls = [task.part.source.rows.balls.get(field) if isinstance(task.part.source, Stored) else None for task in tasks]
    if not any(each is not None for each in balls):
        return None
    unknown = np.full(len(rows), -np.inf)
    return np.stack([unknown if each is None else each.least(metric, rows) for each in balls])


def _ask_nearest(
    tasks: Sequence[_Task], rows: Array, k: int, bounds: Array, ask: Callable[[_Task, Array], Any]
) -> list[_Answer]:
    """The answers of those that may hold one of the k nearest, as those that are nearer have found them.

    Which others are asked depends on the order, the k nearest do not: what a part is not asked for is too far.
    """
    nearest = np.full((len(rows), k), np.inf, np.float32)
    first = np.where(np.isfinite(bounds), bounds, np.inf).argmin(axis=0)
    found = []
    for again in (False, True):
        for i in np.argsort(bounds.mean(axis=1), kind="stable").tolist():
            begins = (first == i) | ~np.isfinite(bounds[i])
            which = np.flatnonzero(~begins & (bounds[i] <= nearest[:, -1]) if again else begins)
            if len(which):
                answer = _Answer(tasks[i], ask(tasks[i], rows[which]), which)
                found.append(answer)
                far = np.atleast_2d(answer.hits.distances)
                nearest[which] = np.sort(np.concatenate([nearest[which], far], axis=1), axis=1)[:, :k]
    return found


def _pool() -> "ThreadPoolExecutor":
    global _POOL
    if _POOL is None:
        from concurrent.futures import ThreadPoolExecutor  # late: it brings logging

        _POOL = ThreadPoolExecutor(max(2, get_threads()), thread_name_prefix="nearly-parts")
    return _POOL


def _merged(found: Sequence[_Answer], n: int, k: int) -> tuple[Array, Array]:
    """The k nearest of all answers; ties go to the part that is older, then to the row that is."""
    ids, distances = np.full((n, k), -1, np.int64), np.full((n, k), np.inf, np.float32)
    if not found:
        return ids, distances
    if len(found) == 1:
        return found[0].spread(n)
    spread = [each.spread(n) for each in sorted(found, key=lambda answer: answer.task.number)]
    every, far = (np.concatenate([each[i] for each in spread], axis=1) for i in (0, 1))
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    taken = np.take_along_axis(every, order, 1)
    ids[:, : taken.shape[1]], distances[:, : taken.shape[1]] = taken, np.take_along_axis(far, order, 1)
    return ids, distances


def _work(found: Sequence[_Answer]) -> tuple[int, int, int] | None:
    counted = [answer.hits.stats for answer in found]
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
    metric = metrics.named(state.schema.fields[asked.field].metric)
    tasks = _tasks(parts, asked)
    bounds = _bounds(tasks, asked.field, metric, rows) if len(rows) else None
    if bounds is not None:
        tasks = [task for task, least in zip(tasks, bounds, strict=True) if (least <= radius).any()]
    found = _ask(
        tasks, rows, lambda task, rows: task.part.source.index(asked.field).range_search(rows, radius, **task.options)
    )
    n = len(rows)
    which = [np.repeat(np.arange(n), np.diff(answer.hits.offsets)) for answer in found]
    query = np.concatenate([*which, np.zeros(0, np.int64)])
    far = np.concatenate([*(answer.hits.distances for answer in found), np.zeros(0, np.float32)])
    at = np.concatenate([*(locators(a.task.number, a.hits.ids) for a in found), np.zeros(0, np.int64)])
    order = np.lexsort((far, query))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=n))]).astype(np.int64)
    joiner = Joiner(parts, asked.names, state.schema.keys != "str")
    context = _Together(metric, found, state, asked.where)
    return FoundInRange(at[order], far[order], offsets, single, context, _work(found), joiner)


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
