"""Which rows share a segment: a tree of cuts, after the qd-tree of Yang et al., SIGMOD 2020.

An inner node is a cut, a test of one column or a set of cells of space: rows for which it is true go to the left,
others, nulls among them, to the right. Each leaf is a segment. What a segment holds is known of its columns
(`Column.cover`) and its balls (balls.py), so the tree is only needed where rows are divided anew: a search asks the
segments.
"""

import dataclasses
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly.collection.cells import to_json
from nearly.errors import InputError
from nearly.filters import evaluate, parse
from nearly.filters.columns import Column
from nearly.filters.expressions import FLIPPED, And, Call, Compare, Expression, Field, In, IsNull, Literal, Not, Or

__all__ = ["CELLS", "Cut", "Layout", "Tree", "as_cut", "passing", "tests_of"]

Cut: TypeAlias = Mapping[str, Any]  # a filter in the dict spelling, of one column; or {CELLS: their numbers}: JSON
Tree: TypeAlias = "tuple[Cut, Tree, Tree] | None"  # a cut, what passes and what does not; None for a leaf

CELLS = "$cells"
_SIGNS = {"=": "$eq", "<>": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_DEEP = 64  # more levels than any tree has


class Meter:
    """How much searches have read, of threads that note it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n = self._rows = self._total = 0

    def note(self, n: int, rows: int, total: int) -> None:
        """That n searches read so many rows together, where there are so many in all."""
        with self._lock:
            self._n, self._rows, self._total = self._n + n, self._rows + rows, self._total + n * total

    @property
    def share(self) -> float | None:
        """The share of rows in parts that were not skipped; None before anything was searched."""
        return self._rows / self._total if self._total else None


@dataclass(frozen=True, eq=False)
class Layout:
    """How a collection lays out its segments.

    Attributes
    ----------
    tree : Tree
    promised : float
        The share of all rows that stands in segments which a search of the workload cannot skip, on the mean.
    field : str or None
        The vectors that cells are of, where rows are divided by cells.
    meter : Meter
        What searches have read since the collection was opened.
    """

    tree: Tree
    promised: float
    field: str | None = None
    meter: Meter = dataclasses.field(default_factory=Meter, repr=False)

    @property
    def columns(self) -> set[str]:
        """The columns that rows are divided by."""
        return {name for cut, *_ in _inner(self.tree) for name in cut} - {CELLS}

    @property
    def by_cells(self) -> bool:
        """Whether rows are divided by where their vectors lie."""
        return any(CELLS in cut for cut, *_ in _inner(self.tree))

    @property
    def n_leaves(self) -> int:
        return 1 + sum(1 for _ in _inner(self.tree))

    def leaves(self, columns: Mapping[str, Column], n: int, cells: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The leaf of each of n rows, given its cell; leaves are numbered from the left."""
        found = np.zeros(n, np.int64)

        def divide(tree: Tree, rows: NDArray[np.int64], number: int) -> int:
            if tree is None:
                found[rows] = number
                return number + 1
            cut, left, right = tree
            passes = passing(cut, columns, n, cells)[rows]
            return divide(right, rows[~passes], divide(left, rows[passes], number))

        divide(self.tree, np.arange(n), 0)
        return found

    def conditions(self) -> list[str]:
        """What rows of each leaf have in common, in words."""
        return [" AND ".join(path) or "all rows" for path in _paths(self.tree)]

    def to_json(self) -> dict[str, Any]:
        return {"tree": self.tree, "promised": self.promised, "field": self.field}

    @classmethod
    def from_json(cls, made: Any) -> "Layout | None":
        """What `to_json` wrote; InputError where it cannot have been."""
        if made is None:
            return None
        try:
            return cls(_checked(made["tree"], 0), float(made["promised"]), made["field"])
        except (KeyError, TypeError, ValueError) as problem:
            raise InputError(f"its layout cannot be read ({problem})") from problem


def _checked(tree: Any, depth: int) -> Tree:
    if tree is None:
        return None
    cut, left, right = tree
    if cut.keys() == {CELLS}:
        np.array(cut[CELLS], np.int64)
    else:
        parse(cut)
    if depth > _DEEP or len(cut) != 1:
        raise ValueError("a cut is no test of one column, or too deep")
    return cut, _checked(left, depth + 1), _checked(right, depth + 1)


def _inner(tree: Tree) -> Iterator[tuple[Cut, Tree, Tree]]:
    if tree is not None:
        yield tree
        yield from _inner(tree[1])
        yield from _inner(tree[2])


def passing(cut: Cut, columns: Mapping[str, Column], n: int, cells: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Which of n rows a cut is true for; without cells, all are of none."""
    if CELLS in cut:
        return np.zeros(n, bool) if cells is None else np.isin(cells, cut[CELLS])
    return evaluate(parse(cut), columns, n)


def _paths(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if tree is None:
        yield path
        return
    cut, left, right = tree
    said = f"{len(cut[CELLS])} cells" if CELLS in cut else repr(parse(cut))
    yield from _paths(left, (*path, said))
    yield from _paths(right, (*path, f"not {said}"))


def tests_of(where: Expression) -> Iterator[Expression]:
    """What a filter joins by AND, OR and NOT: what a cut can be."""
    if isinstance(where, And | Or | Not):
        for part in where.children():
            yield from tests_of(part)
    else:
        yield where


def as_cut(test: Expression) -> Cut | None:
    """A test in the dict spelling; None where it compares more than a column with constants, or cannot be written."""
    found = _spelled(test)
    if found is None:
        return None
    column, operator, value = found
    try:
        cut = json.loads(json.dumps({column: {operator: value}}, default=to_json))
        parse(cut)
    except (InputError, TypeError):  # a column that is named like an operator, say
        return None
    made: Cut = cut
    return made


def _spelled(test: Expression) -> tuple[str, str, Any] | None:
    if isinstance(test, Field):
        return test.name, "$eq", True
    if isinstance(test, Compare):
        left, right, sign = test.left, test.right, test.operator
        if isinstance(left, Literal):
            left, right, sign = right, left, FLIPPED[sign]
        if isinstance(left, Field) and isinstance(right, Literal) and right.value is not None:
            return left.name, _SIGNS[sign], right.value
    if isinstance(test, In) and isinstance(test.item, Field) and None not in test.values:
        return test.item.name, "$in", list(test.values)
    if isinstance(test, IsNull) and isinstance(test.item, Field):
        return test.item.name, "$exists", False
    if isinstance(test, Call) and test.name == "contains":
        item, text = test.arguments
        if isinstance(item, Field) and isinstance(text, Literal):
            return item.name, "$contains", text.value
    return None
