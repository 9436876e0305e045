"""A filter for each query of a batch: queries that share one are searched together."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.errors import InputError, NearlyError
from nearly.hits import Hits, SearchContext, Stats

__all__ = ["is_for_each", "search_each"]

_SHOWN_PLANS = 3


def is_for_each(where: Any) -> bool:
    """Whether these are filters, one for each query: a list of them, or a boolean matrix; else it is one for all."""
    if type(where) in (list, tuple):  # not what an index made of a filter, which is a tuple, too
        scalar = bool | int | float | complex | str | bytes | np.generic
        return len(where) > 0 and not isinstance(where[0], scalar) and getattr(where[0], "ndim", None) != 0
    return isinstance(where, np.ndarray) and where.ndim == 2 and where.dtype == np.bool_


def search_each(
    search: Callable[[NDArray[Any], Any], Hits], queries: NDArray[Any], single: bool, filters: Sequence[Any]
) -> Hits:
    """Return what ``search(some queries, filter)`` finds for each query under the filter in its place.

    Raises InputError if there are not as many filters as queries; a note names the filter that an error is about.
    """
    if len(filters) != len(queries):
        raise InputError(f"where holds {len(filters)} filters, but there are {len(queries)} queries; pass one filter "
                         "for all, or one for each query")  # fmt: skip
    if not len(queries):
        return search(queries, None)
    groups: dict[Hashable, list[int]] = {}
    for i, each in enumerate(filters):
        same = each.tobytes() if isinstance(filters, np.ndarray) else getattr(each, "key", id(each))  # of an expression
        groups.setdefault(same, []).append(i)
    parts = []
    for members in groups.values():
        try:
            parts.append((members, search(queries[members], filters[members[0]])))
        except NearlyError as problem:
            if "where" in str(problem):
                problem.add_note(f"that was where[{members[0]}]")
            raise
    width = max(part.ids.shape[1] for _, part in parts)
    ids = np.full((len(queries), width), -1, np.int64)
    distances = np.full(ids.shape, np.inf, np.float32)
    for members, part in parts:
        ids[members, : part.ids.shape[1]] = part.ids
        distances[members, : part.ids.shape[1]] = part.distances
    context = SearchContext(parts[0][1]._context.metric, _plan(parts), _expected(parts))
    return Hits(ids, distances, single, context, _work([part for _, part in parts]))


def _plan(parts: list[tuple[list[int], Hits]]) -> str:
    plans: dict[str, int] = {}
    for members, part in parts:
        plans[part.plan] = plans.get(part.plan, 0) + len(members)
    if len(plans) == 1:
        return next(iter(plans))
    ordered = sorted(plans.items(), key=lambda item: -item[1])
    shown = [f"{n} x {plan}" for plan, n in ordered[:_SHOWN_PLANS]]
    more = [] if len(ordered) == len(shown) else [f"and {sum(n for _, n in ordered[_SHOWN_PLANS:])} more"]
    return f"{len(parts)} filters: " + "; ".join([*shown, *more])


def _expected(parts: list[tuple[list[int], Hits]]) -> float | None:
    """Mean over queries; None where nothing is known of one of them."""
    known = [(part.expected_recall, len(members)) for members, part in parts]
    total = sum(recall * n for recall, n in known if recall is not None)
    return None if any(recall is None for recall, _ in known) else total / sum(n for _, n in known)


def _work(parts: list[Hits]) -> Stats | None:
    counted = [part.stats for part in parts]
    if any(one is None for one in counted):
        return None
    return Stats(*(sum(getattr(one, name) for one in counted) for name in ("n_distances", "n_hops", "n_reranked")))
