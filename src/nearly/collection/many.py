"""Searches that are asked together: those with one filter go through the indexes as one batch.

A filter is evaluated once for all that share it. Where its rows are compared with all of these queries sooner than a
graph is walked for each of them, blocks of queries are compared with blocks of rows: the batching of hybrid queries of
Mohoney et al., SIGMOD 2023 (https://arxiv.org/abs/2304.01926, section 5). Otherwise answers are those of one search
after the other.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.collection import queries
from nearly.collection.found import Found
from nearly.collection.queries import Question
from nearly.collection.state import State
from nearly.errors import NearlyError

__all__ = ["Search", "alike", "in_search", "search_many"]

_SIMPLE = frozenset([str, int, float, bool, type(None)])


class Search(NamedTuple):
    """One search: its query or queries, how many neighbors, and the rest."""

    query: Any
    k: int
    asked: Question


def search_many(state: State, searches: Sequence[Search]) -> list[Found]:
    """Answer all of one snapshot, in their order."""
    groups: dict[Hashable, list[int]] = {}
    rows, singles = [], []
    keys: dict[int, Hashable] = {}  # of each question; many searches may have the same one
    for i, each in enumerate(searches):
        ours, single = _as_rows(state, each, i)
        rows.append(ours)
        singles.append(single)
        key = keys.get(id(each.asked))
        if key is None:
            key = keys[id(each.asked)] = _key(each.asked)
        groups.setdefault((key, each.k, ours.shape[1], ours.dtype.char), []).append(i)
    found: dict[int, Any] = {}
    for members in groups.values():
        first = searches[members[0]]
        if len(members) == 1:
            with in_search(members[0]):
                found[members[0]] = queries.search(state, *first)
            continue
        try:
            together = queries.search(
                state, np.concatenate([rows[i] for i in members]), first.k, first.asked, workload=True
            )
        except NearlyError:
            for i in members:  # whose fault was it?
                with in_search(i):
                    queries.search(state, rows[i], first.k, first.asked)
            raise
        if all(singles[i] for i in members):
            found.update(zip(members, together, strict=True))
            continue
        at = 0
        for i in members:
            found[i] = together[at] if singles[i] else together[at : at + len(rows[i])]
            at += len(rows[i])
    return [found[i] for i in range(len(searches))]


@contextmanager
def in_search(i: int) -> Iterator[None]:
    """Say in an error which search it is about."""
    try:
        yield
    except NearlyError as problem:
        problem.add_note(f"that was searches[{i}]")
        raise


def alike(options: Mapping[str, Any]) -> Hashable | None:
    """What tells searches with the same options; None where only reading them can tell."""
    kinds = tuple(map(type, options.values()))  # 1 is True
    return (*options.items(), kinds) if _SIMPLE.issuperset(kinds) else None


def _as_rows(state: State, search: Search, i: int) -> tuple[NDArray[Any], bool]:
    """Queries as rows; of the usual kind without a look at their values, which all get together."""
    query, field = search.query, search.asked.field
    if type(query) is np.ndarray and query.dtype == np.float32 and query.shape == (state.schema.fields[field].dim,):
        return query[None], True
    with in_search(i):
        return queries.as_rows(state, query, field)


def _key(asked: Question) -> tuple[Hashable, ...]:
    """What searches have in common that can be answered together."""
    where = None if asked.where is None else asked.where.key
    options = tuple(sorted((name, repr(value)) for name, value in asked.options.items()))
    return asked.field, where, options, asked.names
