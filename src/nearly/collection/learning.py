"""The tree of cuts that spares the searches of a workload most rows, found greedily (Yang et al., SIGMOD 2020, sec. 4).

At each node every cut is tried on a sample of its rows: which tests of the workload are true on either side says which
searches need either. The node whose cut spares most is divided first.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.collection import bits
from nearly.collection.layout import Cut, Tree, as_cut, passing, tests_of
from nearly.collection.space import Space
from nearly.filters.columns import Column
from nearly.filters.evaluating import Element, Joined, Plan, Test, plan, possible, run
from nearly.filters.expressions import Expression, Field

__all__ = ["Known", "candidates", "learned"]

_STEP = 0.01  # of the rows that all searches would read, that a cut must spare
_CUTS = 256  # candidates, the most frequent of the workload
_PARTS = 32  # of about equal size, that comparisons with a column's values make
_SAMPLE = 1 << 16  # rows of a node that cuts are compared on

Array = NDArray[Any]


class Known:
    """The rows beside a workload: where each test is true and which cell each row is in, so what any set may hold.

    Parameters
    ----------
    filters : sequence of Expression or None
        All different ones.
    which : ndarray of int
        The filter of each search.
    columns, n
        All rows, by column.
    space : Space or None
        The cell of each row, and for each search the cells in which its answer may be.
    """

    def __init__(
        self, filters: Sequence[Expression | None], which: Array, columns: Mapping[str, Column], n: int,
        space: Space | None = None,
    ) -> None:  # fmt: skip
        self.n, self.columns, self.space, self._which = n, columns, space, which
        self.cells = None if space is None else space.labels
        self._reach = None if space is None else space.reach.astype(np.float32)
        self._places: dict[Any, int] = {}
        found: list[bits.Bits] = []
        self._plans = [None if where is None else plan(where, columns, n) for where in filters]
        for made in self._plans:
            for test in _tests(made):
                if self._places.setdefault(_named(test), len(found)) == len(found):
                    found.append(run(test, n, columns))
        self._n_tests = len(found)
        if space is not None:
            found += [bits.pack(space.labels == cell) for cell in range(space.reach.shape[1])]
        self.facts = np.stack(found) if found else np.zeros((0, (n + 63) // 64), np.uint64)

    def may(self, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each search and each of some sets of rows whether its answer may be there, from the facts of a set."""
        made = np.ones((len(self._plans), there.shape[1]), bool)
        for each, out in zip(self._plans, made, strict=True):
            if each is not None:
                out[:] = possible(each, lambda test: there[self._places[name]] if (name := _named(test)) else True)
        found = made[self._which]
        if self._reach is not None:
            found &= self._reach @ there[self._n_tests :].astype(np.float32) > 0
        return found

    def read(self, sets: Sequence[Array], weights: Array, each: int = 0) -> float:
        """The share of rows in the sets that a search cannot skip, on the weighted mean; each as so many more."""
        there = np.zeros((len(self.facts), len(sets)), bool)
        for i, rows in enumerate(sets):
            mask = np.zeros(self.n, bool)
            mask[rows] = True
            there[:, i] = (self.facts & bits.pack(mask)).any(axis=1)
        sizes = np.array([len(rows) + each for rows in sets], np.float64)
        return float(weights @ (self.may(there) @ sizes) / weights.sum() / max(1, self.n))


def _tests(made: Plan | None) -> list[Plan]:
    """The parts of a plan that a segment knows about."""
    if isinstance(made, Joined):
        return [test for part in made.parts for test in _tests(part)]
    return [made] if made is not None and _named(made) else []


def _named(test: Plan) -> tuple[Any, ...] | None:
    """What tells tests apart; None where segments know nothing about it."""
    if isinstance(test, Test):
        return test.column.name, test.spans.low.tobytes(), test.spans.high.tobytes(), test.spans.nulls
    if isinstance(test, Element) and not test.negated:
        return test.column.name, test.text
    return None


@dataclass(order=True)
class _Node:
    """Rows that may be divided, the best first."""

    gain: float  # negative, for a heap
    number: int
    rows: Array = field(compare=False)
    cut: int = field(compare=False)
    passes: Array = field(compare=False)
    children: "tuple[_Node, _Node] | None" = field(default=None, compare=False)


def learned(known: Known, cuts: Sequence[Cut], weights: Array, min_rows: int, max_parts: int) -> Tree:
    """The tree by which searches of some weights are spared most, with leaves of at least so many rows.

    So many rows is also what a segment is taken to cost that is searched at all.
    """
    if not known.n or not cuts:
        return None
    return _Learner(known, cuts, weights, min_rows).tree(max_parts)


class _Learner:
    """Divides rows by one cut after the other."""

    def __init__(self, known: Known, cuts: Sequence[Cut], weights: Array, min_rows: int) -> None:
        self._known, self._cuts, self._weights, self._min_rows = known, cuts, weights, min_rows
        self._found = np.stack([bits.pack(passing(cut, known.columns, known.n, known.cells)) for cut in cuts])
        self._n_nodes = 0

    def tree(self, max_parts: int) -> Tree:
        root = self._node(np.arange(self._known.n))
        open_, n_leaves = [root], 1
        while open_ and n_leaves < max_parts:
            node = heapq.heappop(open_)
            if -node.gain < _STEP * self._weights.sum() * self._known.n:
                break
            node.children = self._node(node.rows[node.passes]), self._node(node.rows[~node.passes])
            n_leaves += 1
            for child in node.children:
                heapq.heappush(open_, child)
        return self._as_tree(root)

    def _as_tree(self, node: _Node) -> Tree:
        if node.children is None:
            return None
        left, right = map(self._as_tree, node.children)
        return self._cuts[node.cut], left, right

    def _node(self, rows: Array) -> _Node:
        self._n_nodes += 1
        node = _Node(0.0, self._n_nodes, rows, -1, np.zeros(0, bool))
        if len(rows) < 2 * self._min_rows:
            return node
        gains = self._gains(rows)
        for cut in np.argsort(-gains, kind="stable").tolist():
            if gains[cut] <= 0:
                break
            passes = bits.is_set(self._found[cut], rows)
            if self._min_rows <= passes.sum() <= len(rows) - self._min_rows:
                node.gain, node.cut, node.passes = -float(gains[cut]), cut, passes
                break
        return node

    def _gains(self, rows: Array) -> Array:
        """Rows that all queries together need no longer read, for each cut, estimated on a sample."""
        step = max(1, len(rows) // _SAMPLE)
        sample = rows[::step]
        tests, cuts = _as_floats(self._known.facts, sample), _as_floats(self._found, sample)
        both = tests @ cuts.T  # whole numbers below 2^24: exact in any order
        these = self._known.may(both > 0)
        others = self._known.may(tests.sum(axis=1, keepdims=True) > both)
        now = self._known.may(tests.max(axis=1, keepdims=True) > 0)
        n_passing = cuts.sum(axis=1).astype(np.float64)
        after = (self._weights @ these) * n_passing + (self._weights @ others) * (len(sample) - n_passing)
        searched = self._weights @ (these.astype(np.int8) + others - now)  # segments more, of all searches
        gains: Array = step * ((self._weights @ now) * len(sample) - after) - self._min_rows * searched
        return gains


def _as_floats(found: Array, rows: Array) -> NDArray[np.float32]:
    made = np.empty((len(found), len(rows)), np.float32)
    for each, out in zip(found, made, strict=True):
        out[:] = bits.is_set(each, rows)
    return made


def candidates(filters: Sequence[Expression | None], weights: Array, columns: Mapping[str, Column]) -> list[Cut]:
    """Tests of one column by which a filter asks, the most frequent first; and places that divide these columns evenly.

    Filters that ask for single values, of a tenant or a year, would else be cut one value after the other.
    """
    counted: Counter[str] = Counter()
    for where, weight in zip(filters, weights.tolist(), strict=True):
        for test in tests_of(where) if where is not None and weight else ():
            cut = as_cut(test)
            if cut is not None:
                counted[json.dumps(cut)] += weight
    frequent = [json.loads(text) for text, _ in counted.most_common(_CUTS)]
    names = dict.fromkeys(name for cut in frequent for name in cut)
    return frequent + [cut for name in names for cut in _evenly(columns[name])]


def _evenly(column: Column) -> Iterator[Cut]:
    """Comparisons with values that divide the rows of a column into about equal parts."""
    present = np.flatnonzero(column.mask())
    if column.type in ("list[str]", "json", "bool") or not len(present):
        return
    order = present[np.argsort(column.values[present], kind="stable")]
    for value in dict.fromkeys(column.to_list(order[len(order) * np.arange(1, _PARTS) // _PARTS])):
        cut = as_cut(Field(column.name) >= value)
        if cut is not None:
            yield cut
