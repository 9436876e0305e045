"""Which rows pass: an expression becomes tests of columns, and these become bits.

Negations are pushed down to the tests (De Morgan's laws hold for three values too), so what remains to be known of
every part is only where it is true: one bit a row. Tests of one column are joined into one (spans.py).
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.allowed import Filter
from nearly.filters.columns import Column, pack, unpack
from nearly.filters.comparing import compared, domain, equal_to_one
from nearly.filters.expressions import (
    FLIPPED,
    OPPOSITE,
    And,
    Call,
    Compare,
    Expression,
    Field,
    In,
    IsNull,
    Literal,
    Not,
    Or,
    did_you_mean,
)
from nearly.filters.matching import (
    check_pair,
    element_bits,
    join_bits,
    join_span_bits,
    pair_bits,
    span_bits,
    text_table,
)
from nearly.filters.parsing import parse
from nearly.filters.spans import Spans

__all__ = ["Element", "Joined", "Plan", "Test", "bits_if_any", "evaluate", "evaluate_bits", "plan", "possible", "run",
           "select"]  # fmt: skip

Bits: TypeAlias = NDArray[np.uint64]
Where: TypeAlias = Expression | Mapping[str, Any] | str  # what `parse` takes

# What is to be found out. Never changed; frozen classes take longer to make, and these are made for every query.


@dataclass(slots=True)
class Test:
    """A row passes where its value is in the spans."""

    column: Column
    spans: Spans


@dataclass(slots=True)
class Element:
    """A row passes where its list has a text, or where it has a list without it."""

    column: Column
    text: str
    negated: bool


@dataclass(slots=True)
class Pair:
    """A row passes where the values of two columns compare."""

    operator: str
    left: Column
    right: Column


@dataclass(slots=True)
class Asked:
    """A row passes where DuckDB says so."""

    expression: Expression
    negated: bool


@dataclass(slots=True)
class Joined:
    """A row passes where all parts do, or where one does."""

    all: bool
    parts: tuple["Plan", ...]


Plan: TypeAlias = Test | Element | Pair | Asked | Joined


def evaluate(expression: Where, columns: Mapping[str, Column], n: int) -> NDArray[np.bool_]:
    """Return for every row whether it passes.

    Parameters
    ----------
    expression : Expression, dict or str
        From `parse`, or what it takes.
    columns : mapping from str to Column
        At least those that the expression names, each of n rows.
    n : int
        Rows.

    Returns
    -------
    ndarray of shape (n,), bool
        True where the expression is true; False where it is false or unknown.

    Raises
    ------
    InputError
        If a column is missing, or of a type that does not go with what is asked of it.

    Examples
    --------
    >>> from nearly.filters import F, parse
    >>> years = Column.from_values("year", [1999, 2020, None])
    >>> evaluate(parse(F.year != 1999), {"year": years}, 3)
    array([False,  True, False])
    """
    return unpack(evaluate_bits(expression, columns, n), n)


def evaluate_bits(expression: Where, columns: Mapping[str, Column], n: int) -> Bits:
    """Return a bit a row, as `evaluate`: row 0 is the lowest bit of word 0; bits past the end are 0.

    Examples
    --------
    >>> from nearly.filters import F
    >>> evaluate_bits(F.year > 2000, {"year": Column.from_values("year", [1999, 2020, 2024])}, 3)
    array([6], dtype=uint64)
    """
    expression = _read(expression)
    found = _by_the_core(expression.plain, columns, n)
    return run(plan(expression, columns, n), n, columns) if found is None else found[0]


def _read(where: Any) -> Expression:
    """A filter in any spelling as an expression."""
    return where if isinstance(where, Expression) else parse(where)


def _by_the_core(where: Any, columns: Any, n: int) -> tuple[Bits, int] | None:
    """The rows that pass plain conditions and how many; None where others came, or what is wrong."""
    return _core.select_plain(where, columns, n) if type(where) is dict and type(columns) is dict else None


def bits_if_any(expression: Where, columns: Mapping[str, Column], n: int) -> Bits | None:
    """Return what `evaluate_bits` does, or None where it is found early that no row passes.

    Mostly that takes no look at the rows: a test whose spans lie outside of those of its column is true nowhere.

    Examples
    --------
    >>> from nearly.filters import F
    >>> bits_if_any(F.year > 2030, {"year": Column.from_values("year", [1999, 2020, 2024])}, 3) is None
    True
    """
    expression = _read(expression)
    found = _by_the_core(expression.plain, columns, n)
    if found is not None:
        return found[0] if found[1] else None
    made = plan(expression, columns, n)
    if possible(made, _possible_here):
        return run(made, n, columns)
    none = {name: Column.from_values(name, [], columns[name].type) for name in expression.columns}
    for part in _asked(made):  # what DuckDB refuses is refused, wherever the rows are
        run(part, 0, none)
    return None


def _asked(made: Plan) -> Iterator[Asked]:
    if isinstance(made, Asked):
        yield made
    for part in made.parts if isinstance(made, Joined) else ():
        yield from _asked(part)


def possible(made: Plan, leaf: Callable[[Plan], Any]) -> Any:
    """Return whether a plan may be true of some row, from what is known of each of its tests.

    Parameters
    ----------
    made : Plan
    leaf : callable
        Given a part that is not `Joined`, whether it may be true: a bool, or an array of one for each set of
        rows.
    """
    if isinstance(made, Joined):
        return reduce(operator.and_ if made.all else operator.or_, (possible(p, leaf) for p in made.parts), made.all)
    return leaf(made)


def _possible_here(leaf: Plan) -> bool:
    if isinstance(leaf, Test):
        return leaf.column.cover.meets(leaf.spans)
    if isinstance(leaf, Element) and not leaf.negated:
        assert leaf.column.dictionary is not None
        return leaf.column.dictionary.place(leaf.text)[1]
    return True


def select(where: Any, columns: Mapping[str, Column], n: int) -> Filter:
    """Return the rows that pass as a `Filter`, for ``where=``.

    Parameters
    ----------
    where : str, dict or Expression
        A filter in any of the spellings that `parse` takes. Dicts of plain conditions (a constant, or ``$eq``, ``$gt``,
        ``$gte``, ``$lt``, ``$lte`` of constants, under each column) are read the soonest.
    columns : mapping from str to Column
        At least those that it names, each of n rows; a dict is looked into the soonest.
    n : int
        Rows.

    Raises
    ------
    InputError
        As `parse` and `evaluate` do.

    Examples
    --------
    >>> from nearly.filters import F
    >>> years = {"year": Column.from_values("year", [1999, 2020, 2024])}
    >>> select(F.year > 2000, years, 3)
    Filter(2 of 3 rows, 8 bytes)
    >>> select({"year": {"$gte": 1999, "$lt": 2024}}, years, 3).rows()
    array([0, 1])
    """
    found = _by_the_core(where, columns, n)
    if found is not None:
        return Filter._kept(*found, n)
    return Filter._of_bits(evaluate_bits(parse(where), columns, n), n)


def plan(expression: Expression, columns: Mapping[str, Column], n: int) -> Plan:
    """Return the tests that an expression comes to; they and their junctions know no negation."""
    if any(not isinstance(column := columns.get(name), Column) or len(column) != n for name in expression.columns):
        raise _misfit(expression, columns, n)
    return _plan(expression, False, columns)


def _misfit(expression: Expression, columns: Mapping[str, Column], n: int) -> InputError:
    """What is wrong with the first column that is not there, or of another length."""
    wrong = [name for name, column in columns.items() if not isinstance(column, Column)]
    if wrong:
        return InputError(f"column {wrong[0]!r} is {describe(columns[wrong[0]])}; make a column of it by "
                          "nearly.filters.Column.from_values(name, values)")  # fmt: skip
    name = min(name for name in expression.columns if name not in columns or len(columns[name]) != n)
    if name not in columns:
        return InputError(f"the filter names column {name!r}, which is not there; {did_you_mean(name, columns)}")
    return InputError(f"column {name!r} has {len(columns[name])} rows, but {n} are wanted")


def _plan(node: Expression, negated: bool, columns: Mapping[str, Column]) -> Plan:
    """What makes a node true, or its negation."""
    if isinstance(node, Compare):
        return _plan_comparison(node, negated, columns)
    if isinstance(node, Not):
        return _plan(node.item, not negated, columns)
    if isinstance(node, (And, Or)):
        return _joined(isinstance(node, And) != negated, [_plan(item, negated, columns) for item in node.items])
    if isinstance(node, Literal) and (isinstance(node.value, bool) or node.value is None):
        passes = node.value is not None and node.value != negated
        return Joined(passes, ())
    if isinstance(node, Field):
        column = columns[node.name]
        if column.type != "bool":
            raise InputError(
                f"column {node.name!r} holds {column.type}, which is no condition; compare it, or test it for null"
            )
        return Test(column, compared(column, "=", not negated))
    if isinstance(node, IsNull) and isinstance(node.item, Literal):
        return Joined((node.item.value is None) != negated, ())
    if isinstance(node, IsNull) and isinstance(node.item, Field):
        column = columns[node.item.name]
        return Test(column, Spans.whole(domain(column)) if negated else Spans.of([], [], domain(column), nulls=True))
    if isinstance(node, In) and isinstance(node.item, Field):
        return _plan_in(node, columns[node.item.name], negated)
    if isinstance(node, Call) and node.name in ("contains", "starts_with", "ends_with"):
        return _plan_match(node, negated, columns)
    return Asked(node, negated)


def _plan_in(node: In, column: Column, negated: bool) -> Plan:
    found = equal_to_one(column, node.values)
    if not negated:
        return Test(column, found)
    # Beside a null nothing is known to differ from all.
    return Test(column, Spans.of([], [], domain(column)) if None in node.values else found.opposite(nulls=False))


def _plan_comparison(node: Compare, negated: bool, columns: Mapping[str, Column]) -> Plan:
    left, right, operator = node.left, node.right, node.operator
    if isinstance(left, Literal) and isinstance(right, Field):
        left, right, operator = right, left, FLIPPED[operator]
    if negated:
        operator = OPPOSITE[operator]
    if isinstance(left, Field) and isinstance(right, Literal):
        return Test(columns[left.name], compared(columns[left.name], operator, right.value))
    if isinstance(left, Field) and isinstance(right, Field):
        check_pair(columns[left.name], columns[right.name])
        return Pair(operator, columns[left.name], columns[right.name])
    return Asked(node, negated)


def _plan_match(node: Call, negated: bool, columns: Mapping[str, Column]) -> Plan:
    item, *rest = node.arguments
    if not (isinstance(item, Field) and len(rest) == 1 and isinstance(rest[0], Literal)):
        return Asked(node, negated)
    column, text = columns[item.name], rest[0].value
    if not isinstance(text, str):
        raise InputError(f"column {column.name!r}: {node.name} takes text, but {describe(text)} came")
    if column.type == "list[str]" and node.name == "contains":
        return Element(column, text, negated)
    if column.type != "str":
        raise InputError(f"column {column.name!r} holds {column.type}, but {node.name} is for text"
                         f"{' and lists' if node.name == 'contains' else ''}")  # fmt: skip
    table = text_table(column, node.name, text)
    return Test(column, Spans.where(table != negated))


def _joined(all: bool, parts: list[Plan]) -> Plan:
    """Parts of one kind of junction: tests of the same column become one."""
    tests: dict[int, Test] = {}
    others: list[Plan] = []
    for part in parts:
        for each in part.parts if isinstance(part, Joined) and part.all == all and part.parts else (part,):
            if not isinstance(each, Test):
                others.append(each)
            elif (before := tests.get(id(each.column))) is None:
                tests[id(each.column)] = each
            else:
                spans = before.spans & each.spans if all else before.spans | each.spans
                tests[id(each.column)] = Test(each.column, spans)
    # Narrow columns first: of others nothing is read where it is settled who passes.
    ordered = sorted(tests.values(), key=_width) if len(tests) > 1 else tests.values()
    joined = (*ordered, *sorted(others, key=lambda part: isinstance(part, Asked)))
    return joined[0] if len(joined) == 1 else Joined(all, joined)


def _width(test: Test) -> int:
    return test.column.values.itemsize


def run(made: Plan, n: int, columns: Mapping[str, Column]) -> Bits:
    """Return a bit a row: where a plan is true."""
    if isinstance(made, Test):
        return span_bits(made.column, made.spans)
    if isinstance(made, Element):
        return element_bits(made.column, made.text, made.negated)
    if isinstance(made, Pair):
        return pair_bits(made.operator, made.left, made.right)
    if isinstance(made, Asked):
        from nearly.filters.asking import ask  # late: most filters get on without DuckDB

        true, false = ask(made.expression, columns, n)
        return pack(false if made.negated else true)
    if not made.parts:
        return _all_bits(n) if made.all else np.zeros((n + 63) // 64, np.uint64)
    bits = run(made.parts[0], n, columns)
    for part in made.parts[1:]:
        if isinstance(part, Test):
            join_span_bits(bits, part.column, part.spans, all=made.all)
        else:
            join_bits(bits, run(part, n, columns), all=made.all)
    return bits


def _all_bits(n: int) -> Bits:
    bits = np.full((n + 63) // 64, ~np.uint64(0))
    if n % 64:
        bits[-1] >>= np.uint64(64 - n % 64)
    return bits
