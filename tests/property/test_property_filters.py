"""The spellings of a filter mean the same: SQL, dict and Python beside a plain Python oracle, and beside DuckDB.

The oracle works on Python values, one row after the other, with None for unknown. DuckDB gets the SQL as written, over
a table of its own, so that it shares nothing with the package.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import duckdb
import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from nearly.collection.cells import column_from_arrays, column_to_arrays
from nearly.errors import InputError
from nearly.filters import Column, F, bits_if_any, evaluate, evaluate_bits, parse
from nearly.filters.plain import from_plain
from nearly.filters.sql import by_duckdb

OPERATORS = {"$eq": "=", "$ne": "<>", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
TEXTS = st.sampled_from(
    ["", "a", "b", "ab", "Ä", "ä", "日本", "😀", "it's", 'q"', "%", "_", "a\\", "\t", "z\x7f"]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=3)
# Halves, so that DuckDB's decimals, and integers beside them, are exact.
HALVES = st.integers(-8, 8).map(lambda x: x / 2)
VALUES = {
    "flag": ("bool", "BOOLEAN", st.booleans(), st.booleans()),
    "year": ("int", "BIGINT", st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1), st.integers(-6, 6) | HALVES),
    "score": ("float", "DOUBLE", HALVES | st.floats(allow_nan=False), HALVES | st.integers(-5, 5)),
    "lang": ("str", "VARCHAR", TEXTS, TEXTS),
    "day": ("date", "DATE", st.dates(dt.date(1969, 12, 28), dt.date(1970, 1, 4)) | st.dates(), None),
    "moment": (
        "datetime",
        "TIMESTAMP",
        st.datetimes(dt.datetime(1969, 12, 31), dt.datetime(1970, 1, 2)) | st.datetimes(),
        None,
    ),
    "a list": ("list[str]", "VARCHAR[]", st.lists(TEXTS, max_size=3), TEXTS),
}
ORDERED = [name for name in VALUES if name != "a list"]


@dataclass(frozen=True)
class Leaf:
    """A condition on one column; `bound` says that SQL gets its constants as parameters."""

    kind: str
    column: str
    operand: Any
    bound: bool = False


@dataclass(frozen=True)
class Branch:
    """Conditions joined."""

    kind: str
    parts: tuple[Any, ...]


def constants(name):
    _, _, data, constant = VALUES[name]
    return constant if constant is not None else data


@st.composite
def leaves(draw):
    kind = draw(st.sampled_from(["compare", "compare", "compare", "in", "between", "exists", "contains"]))
    bound = draw(st.booleans())
    if kind == "contains":
        return Leaf(kind, draw(st.sampled_from(["lang", "a list"])), draw(TEXTS), bound)
    if kind == "exists":
        return Leaf(kind, draw(st.sampled_from(list(VALUES))), draw(st.booleans()))
    name = draw(st.sampled_from(ORDERED))
    if kind == "compare":
        return Leaf(kind, name, (draw(st.sampled_from(list(OPERATORS))), draw(constants(name))), bound)
    if kind == "in":
        return Leaf(kind, name, tuple(draw(st.lists(constants(name), min_size=1, max_size=9))), bound)
    return Leaf(kind, name, (draw(constants(name)), draw(constants(name))), bound)


TREES = st.recursive(
    leaves(),
    lambda inner: (
        st.builds(Branch, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Branch, st.just("$not"), inner.map(lambda part: (part,)))
    ),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | data for name, (_, _, data, _) in VALUES.items()}), max_size=9)


def as_dict(tree):
    if isinstance(tree, Branch):
        parts = [as_dict(part) for part in tree.parts]
        return {tree.kind: parts[0] if tree.kind == "$not" else parts}
    if tree.kind == "compare":
        return {tree.column: {tree.operand[0]: tree.operand[1]}}
    if tree.kind == "between":
        return {tree.column: {"$gte": tree.operand[0], "$lte": tree.operand[1]}}
    return {tree.column: {f"${tree.kind}": list(tree.operand) if tree.kind == "in" else tree.operand}}


def as_python(tree):
    if isinstance(tree, Branch):
        first, *rest = map(as_python, tree.parts)
        for part in rest:
            first = first & part if tree.kind == "$and" else first | part
        return ~first if tree.kind == "$not" else first
    field = F[tree.column]
    if tree.kind == "exists":
        return field.is_not_null() if tree.operand else field.is_null()
    if tree.kind == "compare":
        operator = {"$eq": "eq", "$ne": "ne", "$gt": "gt", "$gte": "ge", "$lt": "lt", "$lte": "le"}[tree.operand[0]]
        return getattr(field, f"__{operator}__")(tree.operand[1])
    if tree.kind == "in":
        return field.is_in(tree.operand)
    return field.between(*tree.operand) if tree.kind == "between" else field.contains(tree.operand)


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def as_sql(tree, parameters):
    if isinstance(tree, Branch):
        parts = [as_sql(part, parameters) for part in tree.parts]
        return f"(NOT {parts[0]})" if tree.kind == "$not" else f"({f' {tree.kind[1:].upper()} '.join(parts)})"

    def constant(value):
        if tree.bound:
            parameters[f"p{len(parameters)}"] = value
            return f"$p{len(parameters) - 1}"
        if isinstance(value, str):
            return quoted(value)
        if isinstance(value, dt.date):
            return f"{'TIMESTAMP' if isinstance(value, dt.datetime) else 'DATE'} '{value.isoformat()}'"
        return repr(value)

    name = f'"{tree.column}"'
    if tree.kind == "exists":
        return f"({name} IS {'NOT ' if tree.operand else ''}NULL)"
    if tree.kind == "compare":
        return f"({name} {OPERATORS[tree.operand[0]]} {constant(tree.operand[1])})"
    if tree.kind == "in":
        return f"({name} IN ({', '.join(map(constant, tree.operand))}))"
    if tree.kind == "between":
        return f"({name} BETWEEN {constant(tree.operand[0])} AND {constant(tree.operand[1])})"
    return f"{'list_contains' if tree.column == 'a list' else 'contains'}({name}, {constant(tree.operand)})"


def oracle(tree, row):
    """Return True, False, or None for unknown."""
    if isinstance(tree, Branch):
        parts = [oracle(part, row) for part in tree.parts]
        if tree.kind == "$not":
            return None if parts[0] is None else not parts[0]
        decisive = tree.kind == "$or"
        return decisive if decisive in parts else None if None in parts else not decisive
    value = row[tree.column]
    if tree.kind == "exists":
        return (value is not None) == tree.operand
    if value is None:
        return None
    if tree.kind == "compare":
        operator, constant = tree.operand
        return {
            "$eq": value == constant, "$ne": value != constant, "$gt": value > constant, "$gte": value >= constant,
            "$lt": value < constant, "$lte": value <= constant,
        }[operator]  # fmt: skip
    if tree.kind == "in":
        return value in tree.operand
    return tree.operand[0] <= value <= tree.operand[1] if tree.kind == "between" else tree.operand in value


def columns(rows):
    return {name: Column.from_values(name, [row[name] for row in rows], VALUES[name][0]) for name in VALUES}


@settings(max_examples=30)
@given(rows=ROWS, tree=TREES)
def test_three_spellings_mean_what_the_oracle_says(rows, tree):
    expected = [oracle(tree, row) is True for row in rows]
    table, parameters = columns(rows), {}
    sql = as_sql(tree, parameters)
    for where in (parse(as_dict(tree)), parse(as_python(tree)), parse(sql, parameters)):
        assert evaluate(where, table, len(rows)).tolist() == expected, where
        assert evaluate(~where, table, len(rows)).tolist() == [oracle(tree, row) is False for row in rows], where


@settings(max_examples=60)
@given(rows=ROWS, tree=TREES)
def test_rows_are_spared_only_where_none_passes(rows, tree):
    where, plain = parse(as_dict(tree)), columns(rows)
    stored = {name: column_from_arrays(name, each.type, column_to_arrays(each)) for name, each in plain.items()}
    for table in (plain, stored):
        for asked in (where, ~where):
            found, expected = bits_if_any(asked, table, len(rows)), evaluate_bits(asked, table, len(rows))
            if found is None:
                assert not expected.any()
            else:
                assert found.tolist() == expected.tolist()


_connection = duckdb.connect(":memory:")


def store(rows):
    """Put rows into a table of DuckDB's own."""
    described = ", ".join(f'"{name}" {type}' for name, (_, type, _, _) in VALUES.items())
    _connection.execute(f"CREATE OR REPLACE TABLE rows ({described}, place INTEGER)")
    if rows:
        marks = ", ".join([f"({', '.join('?' * 8)})"] * len(rows))
        values = [value for place, row in enumerate(rows) for value in (*(row[name] for name in VALUES), place)]
        _connection.execute(f"INSERT INTO rows VALUES {marks}", values)


@settings(max_examples=20)
@given(rows=ROWS, tree=TREES)
def test_the_core_agrees_with_duckdb(rows, tree):
    parameters: dict[str, Any] = {}
    sql = as_sql(tree, parameters)
    store(rows)
    asked = _connection.execute(f"SELECT {sql} FROM rows ORDER BY place", parameters).fetchall()
    found = evaluate(parse(sql, parameters), columns(rows), len(rows))
    assert found.tolist() == [answer is True for (answer,) in asked]


@settings(max_examples=20)
@given(
    rows=ROWS,
    sql=st.sampled_from(
        [
            "lower(lang) = 'ä'", "length(lang) > 1 OR year > 0", "lang LIKE '%a_'", "lang LIKE '_%'",
            "lang NOT LIKE 'a%'",
            "lang LIKE 'a\\%' ESCAPE '\\'", "lang ILIKE 'Ä%'", "CASE WHEN flag THEN lang ELSE 'b' END = 'b'",
            "coalesce(lang, 'b') IN ('a', 'b')", "date_part('year', day) = 1970", "day = CAST(moment AS DATE)",
            "year IS DISTINCT FROM 3", "NOT (lang IS NOT DISTINCT FROM 'a')", "flag = (score > 0)", "day <= moment",
            "length(\"a list\") = 2", "list_contains(\"a list\", 'a') IS NULL", "abs(score) < 1.5 AND NOT flag",
            "CAST(flag AS INTEGER) + 1 = 2", "TRY_CAST(lang AS INTEGER) IS NULL", "substring(lang, 1, 1) = 'a'",
            "year IN (1, NULL)", "year NOT IN (1, NULL)", "nullif(lang, 'a') IS NULL", "'ab' >= lang", "lang = lang",
            "contains(lang, 'a') AND starts_with(lang, 'a') AND NOT ends_with(lang, 'b')", "NOT NULL", "1 = 1",
            "year BETWEEN -2 AND score", "greatest(score, 1) > 1", "regexp_matches(lang, '^.$')", "year < score",
        ]
    ),
)  # fmt: skip
def test_what_duckdb_is_asked_is_what_was_written(rows, sql):
    rows = [row for row in rows if row["year"] is None or abs(row["year"]) < 2**53]  # beside floats, as floats
    store(rows)
    asked = [answer for (answer,) in _connection.execute(f"SELECT {sql} FROM rows ORDER BY place").fetchall()]
    where, table = parse(sql), columns(rows)
    assert evaluate(where, table, len(rows)).tolist() == [answer is True for answer in asked]
    assert evaluate(~where, table, len(rows)).tolist() == [answer is False for answer in asked]


@settings(max_examples=20)
@given(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(st.none() | VALUES[name][2], max_size=70))
    )
)
def test_values_come_back_as_they_were_stored(case):
    name, values = case
    column = Column.from_values(name, values, VALUES[name][0])
    assert column.to_list() == values
    assert column.mask().tolist() == [value is not None for value in values]
    if any(value is not None for value in values) and name != "a list":
        assert Column.from_values(name, values).type == VALUES[name][0]
    assert np.array_equal(Column.from_values(name, column.to_list(), column.type).values, column.values)


# What is read without DuckDB means what DuckDB reads: the same tree, or DuckDB is asked.
GIVEN = {"x": 5, "list": ["a", None, 2.5], "text": "a%", "nothing": None, "half": 0.5, "yes": True}
NAMES = st.sampled_from(["a", '"a b"', '"q""x"', "year", "Lang", "_z", "t1", '"日本"', "date", "time", '"AND"'])
NUMBERS = st.sampled_from(
    [
        "0", "-1", "- 7", "007", "1.5", "-0.0", "-0", ".5", "1.", "1e3", "-1E-3", "1e18", "9007199254740993",
        "9007199254740993.0", "99999999999999999999", "1e400", "1e39", "1e40", "2.50", "1e+5", "1" * 99, "1" * 100,
        "-" + "1" * 99, "0." + "1" * 30, "-.5e-1",
    ]
) | st.decimals(allow_nan=False, allow_infinity=False).map(str)  # fmt: skip
CONSTANTS = (
    NUMBERS
    | TEXTS.map(quoted)
    | st.sampled_from(["TRUE", "false", "NULL", "'--'", "'/*'", "$x", "$text", "$nothing", "$half", "$yes"])
)
OPERANDS = NAMES | CONSTANTS
SPACES = st.sampled_from([" ", " ", "  ", "\n", "\t"])


def spelled(*parts):
    """Texts of parts, with some space between."""
    parts = [st.just(part) if isinstance(part, str) else part for part in parts]
    return st.tuples(SPACES, *parts).map(lambda drawn: drawn[0].join(drawn[1:]))


PLAIN_TESTS = st.one_of(
    st.tuples(OPERANDS, st.sampled_from(["=", "==", "!=", "<>", "<", "<=", ">", ">="]), OPERANDS).map("".join),
    spelled(OPERANDS, st.sampled_from(["IN (", "not in("]), CONSTANTS, ",", CONSTANTS, ")"),
    spelled(OPERANDS, st.sampled_from(["IN", "NOT IN"]), "$list"),
    spelled(OPERANDS, st.sampled_from(["BETWEEN", "not between"]), OPERANDS, "AND", OPERANDS),
    spelled(OPERANDS, st.sampled_from(["IS NULL", "is Not null"])),
    spelled(OPERANDS, st.sampled_from(["LIKE", "NOT LIKE", "ilike"]), TEXTS.map(quoted)),
    spelled(st.sampled_from(["contains(", "LIST_CONTAINS(", "ends_with(", "prefix ("]), NAMES, ",", OPERANDS, ")"),
    OPERANDS,
)
PLAIN = st.recursive(
    PLAIN_TESTS,
    lambda inner: (
        spelled("(", inner, ")") | spelled("NOT", inner) | spelled(inner, st.sampled_from(["AND", "or", "OR"]), inner)
    ),
    max_leaves=6,
)
DAMAGE = st.sampled_from(
    [
        *"()-+*/=<>!~?$'\".,;:[]{}|&@#%^\\`a1_ ", "--", "/*", "*/", "::", " IS ", " NOT ", " NULL ", " IN ", " AND ",
        " LIKE ", " BETWEEN ", " ESCAPE ", " COLLATE ", " ISNULL ", "\v", "\xa0", "日", "lower(", "date ", "E",
        "1a", "$1",
    ]
)  # fmt: skip


def read(reader, text):
    """Return the key of what a text means, None where it is refused."""
    given = {name: value for name, value in GIVEN.items() if f"${name}" in text} or None
    try:
        found = reader(text, given)
    except InputError:
        return None
    return found if found is None else found.key


@settings(max_examples=80)
@given(PLAIN)
def test_what_is_plain_is_read_as_duckdb_reads_it(text):
    assert read(from_plain, text) == read(by_duckdb, text)


@settings(max_examples=60)
@given(PLAIN, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), DAMAGE), min_size=1, max_size=3))
def test_what_is_nearly_plain_is_left_to_duckdb(text, damage):
    for where, cut, piece in damage:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + cut :]
    assert read(from_plain, text) in (None, read(by_duckdb, text))
