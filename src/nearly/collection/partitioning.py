"""A layout learned from a past workload, after HQI (Mohoney et al., PACMMOD 2023, https://arxiv.org/abs/2304.01926).

A search skips the segments in which nothing can pass its filter, so rows are divided in such a way that the searches of
the workload can skip much: greedily, by the cut of a test of the workload that spares most rows, as the qd-tree does
(Yang et al., SIGMOD 2020, section 4). A fifth of the workload is held out and says whether what was learned holds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import arrays
from nearly.arrays.words import describe
from nearly.collection import queries
from nearly.collection.layout import Layout
from nearly.collection.learning import Known, candidates, learned
from nearly.collection.maintenance import Maintenance, Progress, every_column
from nearly.collection.many import in_search
from nearly.collection.space import Asked, Cells, Space
from nearly.collection.state import State
from nearly.errors import InputError
from nearly.filters.expressions import Expression

__all__ = ["Limits", "Partition", "partition", "read_workload"]

_HELD_OUT = 5  # one search of so many
_SPARED = 0.05  # of their cost, that held-out searches must be spared, and half as much as those learned from
_WORTH = 5000  # rows that are worth a segment, unless told otherwise: from so many on it is a graph
_SEARCHES = 2000  # with queries, of a workload, that are learned from

Array = NDArray[Any]


@dataclass(frozen=True)
class Partition:
    """What `Collection.partition_for` came to.

    Attributes
    ----------
    applied : bool
        Whether segments are now laid out so.
    reason : str
        Why, or why not.
    leaves : tuple of str
        What rows of each segment have in common, in words.
    rows : tuple of int
        Of each.
    train_before, train_after : float
        The share of all rows that stands in segments which a search cannot skip, on the mean over the searches of the
        workload that were learned from.
    test_before, test_after : float or None
        The same of those that were held out; None where the workload is too small for that.

    Examples
    --------
    >>> Partition(False, "no cut spares enough", ("all rows",), (3,), 1.0, 1.0).test_after is None
    True
    """

    applied: bool
    reason: str
    leaves: tuple[str, ...]
    rows: tuple[int, ...]
    train_before: float
    train_after: float
    test_before: float | None = None
    test_after: float | None = None


# -- the workload ----------------------------------------------------------------------------------------------------


def read_workload(state: State, workload: Any, name: str, parse: Callable[[Any, Any], Any]) -> list[Asked]:
    """Searches in any of the forms that a workload has."""
    if isinstance(workload, str | bytes | Mapping | Expression) or not isinstance(workload, Iterable):
        raise InputError(f"workload is {describe(workload)}, but a list of filters, or of searches as search_many "
                         "takes them, is wanted")  # fmt: skip
    found: list[Asked] = []
    for i, each in enumerate(workload):
        with in_search(i):
            query, where, parameters, k = _as_search(each)
            expression = parse(where, parameters)
            queries.check_columns(expression, state)
            rows = [None] if query is None else queries.as_rows(state, query, name)[0]
            found += [Asked(expression, row, arrays.check_k(k)) for row in rows]
    if not found:
        raise InputError("workload is empty, so there is nothing to learn from; pass the filters of past searches")
    return found


def _as_search(each: Any) -> tuple[Any, Any, Any, Any]:
    if isinstance(each, Mapping) and ("query" in each or "where" in each):
        return each.get("query"), each.get("where"), each.get("parameters"), each.get("k", 10)
    if isinstance(each, tuple | list):
        if len(each) != 2:
            raise InputError(f"a search is {describe(each)}, but a pair of a query and a filter is wanted")
        return each[0], each[1], None, 10
    return None, each, None, 10


# -- what it comes to ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """How finely rows may be divided: None leaves it to the rows."""

    min_rows: int | None = None
    max_parts: int = 16
    cells: int | None = None

    def __post_init__(self) -> None:
        arrays.check_int(self.max_parts, "max_parts", low=2, high=4096)
        if self.min_rows is not None:
            arrays.check_int(self.min_rows, "min_rows", low=1)
        if self.cells is not None:
            arrays.check_int(self.cells, "cells", low=0, high=4096)

    def least(self, n: int) -> int:
        """The rows of the smallest segment, of n in all."""
        return max(_WORTH, n // (4 * self.max_parts)) if self.min_rows is None else self.min_rows


class _Learned(NamedTuple):
    layout: Layout | None  # None where it does not pay
    cells: Cells | None  # that it divides by
    report: Partition


def partition(
    maintenance: Maintenance, state_of: Callable[[], State], asked: Sequence[Asked], name: str, limits: Limits, *,
    dry_run: bool, progress: Progress | None,
) -> Partition:  # fmt: skip
    """Learn a layout from searches of the vectors of a field, and lay segments out by it where it pays."""
    if dry_run:
        return _learned(state_of(), asked, name, limits).report
    with maintenance.alone():
        maintenance.flush_tail()
        layout, cells, report = _learned(state_of(), asked, name, limits)
        if layout is not None:
            maintenance.lay_out(layout, progress, cells)
    return replace(report, applied=layout is not None)


def _learned(state: State, asked: Sequence[Asked], name: str, limits: Limits) -> _Learned:
    rows = [part.rows() for part in state.parts]
    order = np.random.default_rng(state.schema.seed).permutation(len(asked))
    if any(each.query is not None for each in asked):
        order = order[:_SEARCHES]
    asked = [asked[i] for i in order.tolist()]
    held = np.arange(len(asked)) < len(asked) // _HELD_OUT
    filters = {each.key: each.where for each in asked}
    place = {key: i for i, key in enumerate(filters)}
    which = np.array([place[each.key] for each in asked])
    names = {name for where in filters.values() if where is not None for name in where.columns}
    columns = every_column(state.parts, rows, state.schema, names)
    space = Space.of(state, rows, asked, name, limits.cells)
    if space is None:  # searches with one filter are one
        weights = np.stack([np.bincount(which[part], minlength=len(filters)) for part in (~held, held)])
        which = np.arange(len(filters))
    else:
        weights = np.stack([~held, held])
    known = Known(list(filters.values()), which, columns, sum(map(len, rows)), space)
    train = weights[0].astype(np.float64)
    cuts = candidates(list(filters.values()), np.bincount(which, train, len(filters)), columns)
    cuts += [] if space is None else space.cuts(train)
    tree = learned(known, cuts, train, limits.least(known.n), limits.max_parts)
    return _judged(Layout(tree, 1.0, name), known, weights.astype(np.float64), rows, limits.least(known.n))


def _judged(layout: Layout, known: Known, weights: Array, rows: Sequence[Array], each: int) -> _Learned:
    """Whether a layout pays: what searches would have to read by it, beside what they have to read now.

    A segment that is searched counts as so many rows more than it has.
    """
    ends = np.cumsum([len(each) for each in rows]).tolist()
    now = [np.arange(end - len(each), end) for end, each in zip(ends, rows, strict=True)]
    leaves = layout.leaves(known.columns, known.n, known.cells)
    then = [np.flatnonzero(leaves == leaf) for leaf in range(layout.n_leaves)]
    some = [counts for counts in weights if counts.any()]
    read = [(known.read(now, counts), known.read(then, counts)) for counts in some]
    cost = [(known.read(now, counts, each), known.read(then, counts, each)) for counts in some]
    (before, after), tested = read[0], read[1] if len(read) > 1 else (None, None)
    spared, spared_held = (1 - b / a if a else 0.0 for a, b in (cost[0], cost[-1]))
    pays = layout.tree is not None and spared_held >= max(_SPARED, spared / 2)
    if layout.tree is None:
        reason = "no cut spares enough to be worth a segment"
    elif len(read) < 2:
        reason = f"searches cost {spared:.1%} less"
    else:
        reason = f"searches that were held out cost {spared_held:.1%} less, those learned from {spared:.1%}"
    reason += "" if pays or layout.tree is None else ": the present layout stays"
    report = Partition(False, reason, tuple(layout.conditions()), tuple(map(len, then)), before, after, *tested)
    layout = Layout(layout.tree, read[-1][1], layout.field if layout.by_cells else None)
    cells = known.space.cells if known.space is not None and layout.by_cells else None
    return _Learned(layout if pays else None, cells, report)
