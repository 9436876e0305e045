"""Filters: what people may write, what is refused and how, and that nothing gets out of DuckDB."""

import copy
import datetime as dt
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import _core, filters
from nearly.errors import InputError
from nearly.filters import (
    Column,
    Dictionary,
    F,
    asking,
    bits_if_any,
    evaluate,
    evaluate_bits,
    evaluating,
    parse,
    select,
)
from nearly.filters.functions import FUNCTIONS
from nearly.filters.plain import from_plain
from nearly.filters.spans import Spans
from nearly.filters.sql import by_duckdb

ROWS = {
    "year": [1999, 2020, None, 2024],
    "lang": ["de", "en", None, "fr"],
    "score": [1.5, float("nan"), 2.0, None],
    "flag": [True, False, None, True],
    "tags": [["a"], ["b", "a"], None, []],
    "meta": [{"a": 1}, {"a": "x"}, None, [1]],
    "day": [dt.date(2020, 1, 1), None, dt.date(1999, 12, 31), dt.date(2024, 2, 29)],
    "seen": [dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), None, dt.datetime(1999, 12, 31), None],
}
TABLE = {name: Column.from_values(name, values) for name, values in ROWS.items()}


def rows(where, parameters=None):
    return np.flatnonzero(evaluate(parse(where, parameters), TABLE, 4)).tolist()


@pytest.mark.parametrize(
    ("sql", "mapping", "python", "expected"),
    [
        ("year >= 2020", {"year": {"$gte": 2020}}, F.year >= 2020, [1, 3]),
        ("year <> 2020", {"year": {"$ne": 2020}}, F.year != 2020, [0, 3]),
        ("NOT year = 2020", {"$not": {"year": 2020}}, ~(F.year == 2020), [0, 3]),
        ("2020 > year", {"year": {"$lt": 2020}}, F.year < 2020, [0]),
        ("year = 2020.5", {"year": 2020.5}, F.year == 2020.5, []),
        ("year > 2019.5", {"year": {"$gt": 2019.5}}, F.year > 2019.5, [1, 3]),
        ("lang IN ('de', 'fr')", {"lang": {"$in": ["de", "fr"]}}, F.lang.is_in(["de", "fr"]), [0, 3]),
        ("lang NOT IN ('de')", {"lang": {"$nin": ["de"]}}, ~F.lang.is_in(["de"]), [1, 3]),
        ("year IS NULL", {"year": {"$exists": False}}, F.year.is_null(), [2]),
        ("lang IS NOT NULL", {"lang": {"$exists": True}}, F.lang.is_not_null(), [0, 1, 3]),
        ("score > 0", {"score": {"$gt": 0}}, F.score > 0, [0, 2]),
        ("flag", {"flag": True}, F.flag, [0, 3]),
        ("NOT flag", {"flag": {"$not": {"$eq": True}}}, ~F.flag, [1]),
        ("list_contains(tags, 'a')", {"tags": {"$contains": "a"}}, F.tags.contains("a"), [0, 1]),
        ("NOT 'a' IN tags", {"$not": {"tags": {"$contains": "a"}}}, ~F.tags.contains("a"), [3]),
        ("contains(lang, 'e')", {"lang": {"$contains": "e"}}, F.lang.contains("e"), [0, 1]),
        ("tags IS NULL", {"tags": {"$exists": False}}, F.tags.is_null(), [2]),
        ("tags IS NULL OR tags IS NOT NULL", {"$or": [{"tags": {"$exists": x}} for x in (True, False)]},
         F.tags.is_null() | F.tags.is_not_null(), [0, 1, 2, 3]),
        ("meta IS NULL", {"meta": {"$exists": False}}, F.meta.is_null(), [2]),
        ("day < DATE '2020-01-01'", {"day": {"$lt": dt.date(2020, 1, 1)}}, F.day < dt.date(2020, 1, 1), [2]),
        ("day >= '2020-01-01'", {"day": {"$gte": "2020-01-01"}}, F.day >= "2020-01-01", [0, 3]),
        ("seen = TIMESTAMP '2019-12-31 22:00:00'", {"seen": dt.datetime(2019, 12, 31, 22)},
         F.seen == dt.datetime(2019, 12, 31, 22, tzinfo=dt.UTC), [0]),
        ("seen < '2020-01-01T00:00:00+02:00'", {"seen": {"$lt": "2020-01-01T00:00:00+02:00"}},
         F.seen < np.datetime64("2019-12-31T22:00:00"), [2]),
        ("day <= TIMESTAMP '2019-12-31 12:00:00'", {"day": {"$lte": dt.datetime(2019, 12, 31, 12)}},
         F.day <= dt.datetime(2019, 12, 31, 12), [2]),
        ("year BETWEEN 2000 AND 2024 AND lang LIKE 'f%'", {"year": {"$gte": 2000, "$lte": 2024}, "lang": "fr"},
         F.year.between(2000, 2024) & F.lang.like("f%"), [3]),
        ("year < 2000 OR year > 2020 OR year IS NULL",
         {"$or": [{"year": {"$lt": 2000}}, {"year": {"$gt": 2020}}, {"year": {"$exists": False}}]},
         (F.year < 2000) | (F.year > 2020) | F.year.is_null(), [0, 2, 3]),
        ("lang NOT IN ('a', 'c', 'e', 'g')", {"lang": {"$nin": list("aceg")}}, ~F.lang.is_in(["a", "c", "e",
        "g"]), [0, 1, 3]),
    ],
)  # fmt: skip
def test_three_spellings_one_meaning(sql, mapping, python, expected):
    assert [rows(sql), rows(mapping), rows(python)] == [expected] * 3


def test_the_empty_conjunction_and_the_empty_disjunction():
    assert rows({}) == rows({"$and": []}) == [0, 1, 2, 3]
    assert rows({"$or": []}) == rows(F.year.is_in([])) == []
    assert rows(~F.year.is_in([])) == [0, 1, 3]  # a null is in no comparison


def plain_table(rng, n):
    """Columns that plain conditions are read of in the core, in and out of order, with and without nulls."""
    texts = ["", "a", "aa", "b", "é", "zz", "a\0", "日本"]
    whole, real = rng.integers(-(2**62), 2**62, n), np.round(rng.standard_normal(n), 1)
    gone = rng.random(n) < 0.1
    some = {
        "flag": (rng.random(n) < 0.5).tolist(),
        "byte": np.sort(rng.integers(-120, 120, n)).tolist(),
        "wide": np.where(rng.random(n) < 0.01, 2**63 - 1, whole).tolist(),
        "real": [*real.tolist()[:-4], np.inf, -np.inf, 0.0, -0.0],
        "text": [texts[i] for i in rng.integers(0, len(texts), n)],
    }
    holes = {
        f"{name}?": [None if hole else v for v, hole in zip(values, gone, strict=True)] for name, values in some.items()
    }
    return {name: Column.from_values(name, values) for name, values in (some | holes).items()}


CONSTANTS = {
    "flag": [True, False],
    "byte": [0, -120, 119, 7, -500, 500, 2**63 - 1, -(2**63)],
    "wide": [0, 2**63 - 1, -(2**63), 2**61],
    "real": [0.0, -0.0, 1, -2, np.inf, -np.inf, 0.1, 0.15, 2**53],
    "text": ["", "a", "ab", "é", "zzz", "a\0", "Z", "日"],
}


def test_plain_dicts_are_read_in_the_core_as_they_are_everywhere(rng):
    n, operators = 3000, ["$eq", "$gt", "$gte", "$lt", "$lte"]
    table = plain_table(rng, n)
    for _ in range(1500):
        where = {}
        for name in rng.choice(list(table), rng.integers(1, 4), replace=False).tolist():
            constants = CONSTANTS[name.rstrip("?")]
            some = rng.choice(operators, rng.integers(1, 4), replace=False).tolist()
            drawn = [constants[i] for i in rng.integers(len(constants), size=len(some))]
            where[name] = drawn[0] if rng.random() < 0.2 else dict(zip(some, drawn, strict=True))
        assert _core.select_plain(where, table, n) is not None
        by_python = evaluating.run(evaluating.plan(parse(where), table, n), n, table)
        assert select(where, table, n).bits.tolist() == by_python.tolist(), where


@pytest.mark.parametrize(
    "where",
    [
        {"year": 1999.5}, {"year": {"$ne": 2020}}, {"year": {"$in": [2020]}}, {"year": 2**70}, {"score": 2**60},
        {"day": "2020-01-01"}, {"tags": {"$contains": "a"}}, {"$not": {"year": 2020}}, {}, {"lang": {"$exists": True}},
        {"year": np.int64(2020)}, {"year": {"$not": {"$gt": 2020}}}, {"$or": [{"year": 2020}, {"lang": "de"}]},
    ],
)  # fmt: skip
def test_other_dicts_are_left_to_python(where):
    assert _core.select_plain(where, TABLE, 4) is None
    assert select(where, TABLE, 4).rows().tolist() == rows(where)


def test_dicts_that_change_while_they_are_read_break_nothing():
    table, where = {"year": TABLE["year"]}, {"a": 1, "year": 2020}

    class Sly:
        @property
        def _held(self):
            where.clear()
            table.clear()
            raise AttributeError

    table["a"] = Sly()
    assert _core.select_plain(where, table, 4) is None


@pytest.mark.parametrize("name", list(TABLE))
def test_columns_are_copied_and_sent(name):
    column = TABLE[name]
    outline = repr(column.cover)
    for made in (copy.copy(column), copy.deepcopy(column), pickle.loads(pickle.dumps(column))):
        assert made.to_list() == column.to_list()
        assert repr(made.cover) == outline
        assert evaluate(F[name].is_null(), {name: made}, 4).tolist() == evaluate(F[name].is_null(), TABLE, 4).tolist()


def test_operators_are_read_to_their_end():
    for where in ({"year": {"$eq\0x": 2020}}, {"year": {"$gte ": 2020}}):
        assert _core.select_plain(where, TABLE, 4) is None
        with pytest.raises(InputError, match="no operator"):
            select(where, TABLE, 4)


def test_filters_are_taken_in_any_spelling_and_columns_only_as_such():
    for where in ({"year": 2020}, "year = 2020", F.year == 2020):
        assert evaluate(where, TABLE, 4).tolist() == [False, True, False, False]
        assert evaluate_bits(where, TABLE, 4).tolist() == bits_if_any(where, TABLE, 4).tolist() == [2]
        with pytest.raises(InputError, match=r"'year' is a list.*Column\.from_values"):
            select(where, {"year": [1, 2]}, 2)
        with pytest.raises(InputError, match=r"nearly\.filters\.select\(condition, columns, n\)"):
            nearly.Flat(np.eye(4, dtype=np.float32)).search(np.eye(4), 1, where=where)


def test_masked_floats_are_what_was_written():
    masked = np.ma.MaskedArray(np.array([8.8, 0, 1.5], np.float32), [False, True, False])
    column = Column.from_values("score", masked)
    assert column.to_list() == [8.8, None, 1.5]
    assert select({"score": 8.8}, {"score": column}, 3).rows().tolist() == [0]


def test_null_is_never_equal_and_never_different():
    assert rows("year = NULL") == rows("NOT year = NULL") == rows("year NOT IN (2020, NULL)") == []
    assert rows("year IN (2020, NULL)") == [1]
    assert rows("year = $y", {"y": None}) == []
    assert rows("year IS DISTINCT FROM 2020") == [0, 2, 3]
    assert rows("year IS NOT DISTINCT FROM NULL") == [2]


def test_numbers_compare_without_rounding():
    big = Column.from_values("x", [2**53, 2**53 + 1, -(2**63), 2**63 - 1])
    for operand, expected in [(2.0**53, [0]), (2**53 + 1, [1]), (2.0**63, []), (-(2.0**63), [2]), (2**70, [])]:
        assert np.flatnonzero(evaluate(F.x == operand, {"x": big}, 4)).tolist() == expected
    assert evaluate(F.x < 2**70, {"x": big}, 4).all()
    assert evaluate(F.x > float("-inf"), {"x": big}, 4).all()
    small = Column.from_values("x", [0.1, 1e300, -0.0, float("inf")])
    assert evaluate(parse("x = 0.1"), {"x": small}, 4).tolist() == [True, False, False, False]
    assert evaluate(F.x == 0, {"x": small}, 4).tolist() == [False, False, True, False]
    assert evaluate(F.x < 10**400, {"x": small}, 4).tolist() == [True, True, True, False]
    assert evaluate(F.x > 2**53 + 1, {"x": small}, 4).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("where", "parameters", "expected"),
    [
        ("year IN $years", {"years": [1999, 2024]}, [0, 3]),
        ("year IN $years", {"years": np.array([2024])}, [3]),
        ("year NOT IN ?", [{1999}], [1, 3]),
        ("year BETWEEN ? AND ?", [2000, 2020], [1]),
        ("lang = $1 OR year = $2 OR lang = $1", ["de", 2024], [0, 3]),
        ("day = $d", {"d": dt.date(2020, 1, 1)}, [0]),
        ("lang LIKE $p", {"p": "%n"}, [1]),
        ("lang = $x", {"x": "' OR 1=1 --"}, []),
    ],
)
def test_parameters(where, parameters, expected):
    assert rows(where, parameters) == expected


@pytest.mark.parametrize(
    ("where", "parameters", "message"),
    [
        ("year = $y", None, "parameter 'y', but parameters= has no value"),
        ("year = $yeer", {"year": 3}, "did you mean 'year'"),
        ("year = 3", {"year": 3}, "'year' is nowhere in the filter"),
        ("year = ?", [1, 2], "'2' is nowhere"),
        ("year = $y", {"y": [1]}, "a list goes with IN"),
        ("year = $y", {"y": object()}, "constant of type bool"),
        ("year = $y", {"y": float("nan")}, "NaN"),
        ("year = $y", 7, "parameters is 7"),
        ({"year": 3}, {"y": 3}, "parameters go with a filter in SQL"),
    ],
)
def test_parameters_that_do_not_fit(where, parameters, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse(where, parameters)


# Each must be refused when it is parsed, before anything is evaluated.
HOSTILE = [
    "COPY rows TO 'x.csv'", "year = 1; COPY rows TO 'x.csv'", "year = 1; DROP TABLE rows", ";", "SELECT 1",
    "ATTACH 'x.db'", "INSTALL httpfs", "PRAGMA version", "SET threads = 8", "CALL pragma_version()",
    "EXPLAIN SELECT 1",
    "1 = 1) UNION SELECT (1", "1 = 1) FROM glob('/*') WHERE (1 = 1", "1), (2", "1 = 1) -- ", "1 = 1) LIMIT (1",
    "(SELECT 1) = 1", "EXISTS (SELECT 1)", "year IN (SELECT 1)", "year = ANY (SELECT 1)", "year > ALL (SELECT 1)",
    "(FROM glob('/etc/*') SELECT count(*)) > 0", "(TABLE rows) = 1", "(VALUES (1)) = 1", "ARRAY(SELECT 1) = [1]",
    "read_csv('/etc/passwd')", "read_text('/etc/passwd') = ''", "getenv('HOME') = ''", "glob('/*')",
    "lang GLOB '*a*a*a*'",
    "current_setting('threads') = 1", "duckdb_settings() IS NULL", "version() = ''", "current_user() = ''",
    "now() > day", "random() < 0.5", "uuid() = lang", "nextval('s') = 1", "txid_current() = 1",
    "repeat('x', 100000000) = ''", "lpad('x', 100000000, 'x') = ''", "lang || lang = ''", "concat(lang, lang) = ''",
    "printf('%1000000d', year) = ''", "format('{}', lang) = ''", "replace(lang, 'a', 'bbbb') = ''",
    "range(10) IS NULL",
    "regexp_replace(lang, 'a', 'bb') = ''", "string_agg(lang, ',') = ''", "list_transform(tags, x -> x) IS NULL",
    "list_filter(tags, lambda x: true) IS NULL", "[x FOR x IN tags] IS NULL", "count(*) > 1", "sum(year) > 1",
    "count(*) OVER () > 1", "row_number() OVER (ORDER BY year) > 1", "first(year) FILTER (year > 1) = 1", "*",
    "rows.*",
    "COLUMNS(*) = 1", "* LIKE '%'", "rows IS NULL AND rows.year = 1", "main.rows.year = 1", "year COLLATE NOCASE = 1",
    "lang COLLATE de = 'x'", "#1 = 1", "{'a': 1} = {'a': 1}", "[1, 2] = [1, 2]", "MAP {'a': 1} IS NULL",
    "(1, 2) = (1, 2)",
    "lang::BLOB = ''", "lang::JSON = '1'", "lang::INTEGER[] IS NULL", "lang::STRUCT(a INTEGER) IS NULL",
    "lang::foo = 1",
    "lang::DECIMAL(38, 37) = 1", "year::UNION(a INTEGER) IS NULL", "lang LIKE lang", "regexp_matches(lang, lang)",
    "lower(DISTINCT lang) = ''", "lower(lang ORDER BY lang) = ''", "lower(a := lang) = ''", "system.lower(lang) = ''",
    "pg_catalog.lower(lang) = ''", "x -> x", "lambda x: x", "DEFAULT", "year = 1 AS x", "year year",
    "UNPACK(tags)", "unnest(tags) = 'a'", "TRY(year = 1)", "GROUPING(year) = 1", "try_cast(lang AS foo) = 1", "",
    "  ", "--",
    "/* */", "$$", "'", "\"", "year = 'a", "((year = 1)", "year = 1)", "year ＝ 1", "year\u200b= 1)(", "ye\u0000ar;",
    "AND", "NOT", "year =", "year IN ()", "CASE END", "\ud800", "lang = '\udfff'", "U&'\\0061' = lang UESCAPE '!!'",
]  # fmt: skip


UNREADABLE = {
    "year >": "ends too early: something is missing behind 'year >'",
    "(year > 5": "ends too early",
    "year = 2020; DROP TABLE x": "has a semicolon",
    "year NOT IN ()": r"the list behind IN is empty, at '\(\)'",
    "year IN (1, 2": "ends too early",
    "year NOT": "ends too early",
    "year > 5)": r'at or near "\)", at \'\)\'',
    "true) or (true": r"at or near \"\)\"",
    "> 5": "at '> 5'",
    "at > 5": 'at is a word of SQL: for the column of that name write "at"',
    "year = 1 AND order = 5": 'order is a word of SQL: for the column of that name write "order"',
    "ye\0ar": "NUL",
    "\ud800 = 1": "not valid Unicode",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_errors_speak_of_what_was_written(text):
    with pytest.raises(InputError, match=UNREADABLE[text]):
        parse(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_sql_is_refused_when_parsed(text):
    with pytest.raises(InputError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "NOT " * 300 + "flag" + ")" * 5000, "NOT " * 5000 + "flag", "- " * 5000 + "year = 1",
        "1 + " * 5000 + "1 = 1",
        "CASE WHEN flag THEN " * 900 + "1" + " END" * 900 + " = 1", "lower(" * 3000 + "lang" + ")" * 3000 + " = 'x'",
        "year = 1 AND (flag OR " * 800 + "flag" + ")" * 800, "year" + "::INTEGER" * 3000 + " = 1",
        "[" * 9000 + "]" * 9000,
        "year = 1 OR " * 10_000 + "flag", "'" + "x" * 100_000 + "' = lang",
    ],
    ids=range(11),
)  # fmt: skip
def test_deep_and_long_texts_are_refused_in_time(text):
    began = time.monotonic()
    with pytest.raises(InputError, match=r"deep|depth|at most"):
        parse(text)
    assert time.monotonic() - began < 20


def test_depth_is_limited_in_all_spellings():
    nested, chained = {"flag": True}, F.flag
    for _ in range(300):
        nested, chained = {"$not": nested}, ~chained
    for where in (nested, chained):
        with pytest.raises(InputError, match="levels deep"):
            parse(where)


def test_wide_filters_are_fine():
    many = list(range(2000, 2024)) * 200
    assert rows(f"year IN ({', '.join(map(str, many))})") == [1]
    assert rows({"$or": [{"year": year} for year in many]}) == [1]
    assert rows("year IN $years", {"years": list(range(0, 200_000, 10))}) == [1]
    asked = {"years": list(range(0, 20_000, 10))}
    assert rows("abs(year) IN $years", asked) == [1]
    assert rows("abs(year) NOT IN $years", asked) == [0, 3]  # not the null


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("yeer > 3", "names column 'yeer'.*did you mean 'year'"),
        (F.yeer > 3, "names column 'yeer'.*did you mean 'year'"),
        ({"colour": 3}, "names column 'colour'.*there are day, flag, lang, meta, score and 3 more"),
        ("year = 'abc'", "column 'year' holds int, but is compared with 'abc'; pass a number"),
        ({"year": True}, "column 'year' holds int, but is compared with True"),
        (F.lang > 3, "column 'lang' holds str, but is compared with 3; pass text"),
        (F.flag == 1, "column 'flag' holds bool, but is compared with 1"),
        (F.day > 2020, "column 'day' holds date, but is compared with 2020"),
        (F.day > "2020-13-01", "column 'day' holds date, but '2020-13-01' is none"),
        (F.tags == "a", "column 'tags' holds lists, which do not compare with 'a'; use contains"),
        (F.meta == "a", "column 'meta' holds JSON, which does not compare with 'a'; use json_extract_string"),
        ("year", "column 'year' holds int, which is no condition"),
        ("year LIKE '2%'", "column 'year' holds int, but starts_with is for text"),
        (F.lang == F.year, "'lang' holds str and 'year' holds int; they do not compare"),
        ("lower(lang)", "is of type .*, which is no condition"),
        ("lower(year) = 'x' AND lower(lang) = 'x' AND year + lang = 3", "cannot be evaluated"),
        ("CAST(lang AS INTEGER) = 3", "cannot be evaluated.*Could not convert string 'de'"),
        ("date_part('yeer', day) = 3", "cannot be evaluated"),
        ("upper(tags) = 'A'", "column 'tags' holds lists; filters test them by contains, length and IS NULL"),
        ("regexp_matches(lang, '(')", "cannot be evaluated"),
    ],
)
def test_errors_name_the_column(where, message):
    with pytest.raises(InputError, match=message):
        evaluate(parse(where), TABLE, 4)
    with pytest.raises(InputError, match=message):
        select(where, TABLE, 4)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (3, "where is 3, but a SQL condition, a dict or an expression"),
        (None, "where is None"),
        ({"year": {"$gt": 3, "$foo": 4}}, r"'\$foo', which is no operator"),
        ({"year": {"$gtt": 3}}, r"did you mean '\$gt'"),
        ({"$nor": []}, r"'\$nor' is no operator of filters; did you mean '\$or'"),
        ({"$gt": 3}, "belongs under a column"),
        ({3: 4}, "has 3 as a key"),
        ({"$and": {"year": 3}}, "takes a list of conditions"),
        ({"$and": [3]}, "a dict from columns to conditions, but 3 came"),
        ({"$not": [{"year": 3}]}, "a dict from columns to conditions"),
        ({"year": None}, r"never true; write \{'\$exists': False\}"),
        ({"year": {"$ne": None}}, "never true"),
        ({"year": [1, 2]}, r"write \{'\$in': \[\.\.\.\]\}"),
        ({"year": {}}, "an empty dict"),
        ({"year": {"$in": 3}}, "takes a list of values, but 3 came"),
        ({"year": {"$in": "abc"}}, "takes a list of values, but 'abc' came"),
        ({"year": {"$in": [1, None]}}, "None among its values"),
        ({"year": {"$exists": 1}}, "takes True or False, but 1 came"),
        ({"year": float("nan")}, "NaN"),
        ({"tags": {"$contains": 3}}, "type str is wanted"),
        ({"year": {"$gt": object()}}, "a constant of type"),
        ("3", "a value and no condition"),
        ("'x'", "a value and no condition"),
        ("yeer(day) = 3", r"calls yeer\(\).*did you mean 'year'"),
        ("substring(lang) = ''", r"substring\(\) takes 2 to 3 arguments, but 1 came"),
        ("meta.a = 1", r"write json_extract_string|part of JSON json_extract_string\(meta, '\$.a'\)"),
        ("year = 1e999", "too large|inf"),
        ("day = DATE '2020-02-30'", "which is none"),
        ("lang LIKE 'a!' ESCAPE '!'", "ends with its escape"),
    ],
)
def test_errors_of_spelling(where, message):
    with pytest.raises(InputError, match=message):
        parse(where)


def test_python_expressions_are_neither_true_nor_false():
    with pytest.raises(InputError, match="neither true nor false"):
        bool(F.year > 3)
    with pytest.raises(InputError, match="between"):
        1 < F.year < 3  # noqa: B015
    with pytest.raises(InputError, match="parentheses"):
        (F.year > 3) & 4
    with pytest.raises(InputError, match="parentheses"):
        4 | (F.year > 3)
    with pytest.raises(InputError, match=r"never true; write \.is_null"):
        F.year == None  # noqa: B015, E711
    with pytest.raises(InputError, match="takes a list"):
        F.year.is_in("abc")
    with pytest.raises(AttributeError, match="cannot be assigned"):
        F.year = 3
    assert copy.deepcopy(parse("year > 3")).key == (F.year > 3).key


def test_no_word_of_duckdb_is_taken_for_a_column_where_duckdb_does_not():
    words = asking._connected().execute("SELECT keyword_name FROM duckdb_keywords()").fetchall()
    assert len(words) > 400
    for (word,) in words:
        for text in (f"{word} = 1", f"NOT {word} AND b", f"list_contains({word}, 'x')"):
            plain = from_plain(text, None)
            assert plain is None or plain.key == by_duckdb(text, None).key, text
    assert from_plain("year = 1 AND date = 2 AND name = 3 AND type = 4", None) is not None


def test_plain_sql_is_flat_and_may_be_long():
    years = ", ".join(map(str, range(5000)))
    for text in (f"year IN ({years})", "year = 1 OR " * 5000 + "flag", "(" * 40 + "flag" + ")" * 40):
        assert from_plain(text, None).key == by_duckdb(text, None).key
    for text in ("(" * 60 + "flag" + ")" * 60, "NOT " * 60 + "flag"):  # deep ones are for DuckDB
        assert from_plain(text, None) is None
        assert parse(text).columns == {"flag"}


def test_keys_tell_trees_apart():
    same = [
        parse("year >= 3 AND lang = 'x'"),
        parse({"year": {"$gte": 3}, "lang": "x"}),
        (F.year >= 3) & (F.lang == "x"),
    ]
    assert len({each.key for each in same}) == 1
    others = ["year >= 3", "year >= 3.0", "year > 3", "lang = 'x'", "lang = 'y'", "yeer >= 3", "NOT year >= 3", "flag"]
    assert len({parse(text).key for text in others}) == len(others)
    assert parse("lang IN ('x', lower(tag))").columns == {"lang", "tag"}


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a%", "abc", True), ("a%", "ba", False), ("%", "", True), ("", "", True), ("", "a", False), ("_", "ä", True),
        ("_", "ab", False), ("%b_", "abc", True), ("a%b%c", "axxbyyc", True), ("a%b%c", "acb", False),
        ("%%", "x", True),
        ("a.c", "abc", False), ("(_)", "(x)", True), ("_\n_", "a\nb", True), ("%日_", "今日本", True),
        ("\\_", "\\x", True),
    ],
)  # fmt: skip
def test_like(pattern, text, matches):
    table = {"x": Column.from_values("x", [text])}
    for where in (parse("x LIKE $p", {"p": pattern}), F.x.like(pattern), ~parse("x NOT LIKE $p", {"p": pattern})):
        assert evaluate(where, table, 1).tolist() == [matches]


@pytest.mark.parametrize(
    "part", ["", "a", "aa", "ab", "ba", "aab", "日", "本", "日本", "\0", "b\0", "z", "\u0080", "aaaaaaaa"]
)
def test_parts_of_texts(rng, part):
    letters = np.array(["a", "b", "aa", "日", "本", "\0", "é"])
    texts = ["", *("".join(rng.choice(letters, rng.integers(0, 6))) for _ in range(500))]
    table = {"x": Column.from_values("x", texts)}
    assert evaluate(F.x.contains(part), table, 501).tolist() == [part in text for text in texts]
    assert evaluate(F.x.starts_with(part), table, 501).tolist() == [text.startswith(part) for text in texts]
    assert evaluate(~F.x.ends_with(part), table, 501).tolist() == [not text.endswith(part) for text in texts]
    assert not evaluate(F.x.contains(part), {"x": Column.from_values("x", [None], "str")}, 1).any()


def test_like_takes_no_exponential_time():
    table = {"x": Column.from_values("x", ["a" * 3000])}
    for where in ("x LIKE $p", "x ILIKE $p"):
        assert not evaluate(parse(where, {"p": "%a_" * 30 + "b"}), table, 1).any()


def test_the_evaluator_is_locked_up():
    connection = asking._connected()
    for statement in (
        "COPY (SELECT 1) TO 'x.csv'", "SELECT * FROM glob('/*')", "SELECT * FROM read_csv('/etc/passwd')",
        "INSTALL httpfs",
        "LOAD httpfs", "ATTACH 'x.db'", "SET threads = 8", "SET enable_external_access = true", "RESET memory_limit",
        "SET lock_configuration = false", "EXPORT DATABASE 'x'", "SELECT * FROM TABLE",
    ):  # fmt: skip
        with pytest.raises(Exception, match="rror"):
            connection.execute(statement).fetchall()
    TABLE_IN_SIGHT = [1]  # noqa: F841
    with pytest.raises(Exception, match="does not exist"):
        connection.execute("SELECT * FROM TABLE_IN_SIGHT").fetchall()
    rows("lower(lang) = 'de'")
    names = connection.execute("SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views() "
                               "WHERE NOT internal").fetchall()  # fmt: skip
    assert names == []  # columns leave when the question is answered


def test_a_question_that_takes_too_long_is_broken_off(monkeypatch):
    monkeypatch.setattr(asking, "SECONDS", 0.05)
    table = {"x": Column.from_values("x", ["a" * 2000 + str(i) for i in range(50_000)])}
    with pytest.raises(InputError, match=r"took more than 0\.05 s"):
        evaluate(parse("regexp_matches(x, '(a*)*(a*)*b') AND regexp_matches(upper(x), '(A*)*c')"), table, 50_000)
    monkeypatch.undo()
    assert rows("lower(lang) = 'de'") == [0]


def test_a_child_process_asks_by_itself():
    assert rows("lower(lang) = 'de'") == [0]
    code = (
        "import os, sys\n"
        "from nearly.filters import Column, asking, evaluate, parse\n"
        "table = {'x': Column.from_values('x', ['A', 'b'])}\n"
        "ask = lambda: evaluate(parse(\"lower(x) = 'a'\"), table, 2).tolist() == [True, False]\n"
        "assert ask()\n"
        "asking._lock.acquire()\n"  # as if another thread were asking
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if ask() else 1)\n"
        "sys.exit(os.waitpid(child, 0)[1])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_names_of_columns_are_no_sql():
    name = 'x" = 1 OR lower("; DROP TABLE rows --'
    table = {name: Column.from_values(name, ["a", "b"])}
    assert evaluate(parse("lower(" + '"' + name.replace('"', '""') + '"' + ") = 'b'"), table, 2).tolist() == [
        False,
        True,
    ]
    assert evaluate(F[name] == "a", table, 2).tolist() == [True, False]


def test_text_with_every_character_passes_through_duckdb():
    texts = ["\0", "a\0b", "'", '"', "\\", "\n", "$1", "?", "{}", "%", "ß", "İ", "日本", "😀", "\u200b", ""]
    table = {"x": Column.from_values("x", texts)}
    for i, text in enumerate(texts):
        where = parse("coalesce(x, '') = $text", {"text": text})
        assert np.flatnonzero(evaluate(where, table, len(texts))).tolist() == [i]


def test_import_stays_light():
    code = (
        "import sys, nearly; assert 'nearly.filters' not in sys.modules; F = nearly.F\n"
        "from nearly.filters import Column, evaluate, parse\n"
        "t = {'year': Column.from_values('year', [1, 2]), 'tags': Column.from_values('tags', [['a'], []]),"
        " 'lang': Column.from_values('lang', ['a', 'b'])}\n"
        "for w in ((F.year > 1) & F.lang.contains('b') & (F.lang == F.lang) & F.lang.like('b%'),"
        " {'year': {'$in': [2]}, '$not': {'tags': {'$contains': 'a'}}},"
        " \"year > 1.5 AND NOT (lang = 'a' OR list_contains(tags, 'a'))\"):\n"
        "    assert evaluate(parse(w), t, 2).tolist() == [False, True]\n"
        "assert 'duckdb' not in sys.modules\n"
        "parse('abs(year) > 1'); assert 'duckdb' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert nearly.F is filters.F


def test_the_page_lists_the_functions():
    page = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
    listed = set(re.search(r"functions of a\nrow:\n\n(.*?)\n\n", page, re.DOTALL)[1].replace(",", "").split())
    known = {function.name for function in FUNCTIONS.values() if not function.operator}
    written_as_interval = {f"to_{unit}" for unit in ["years", "months", "days", "hours", "minutes", "seconds"]}
    assert listed - {"INTERVAL", "list_contains"} == known - written_as_interval


# Columns.


@pytest.mark.parametrize(
    ("values", "type", "stored"),
    [
        ([True, None], "bool", "bool"),
        ([1, 2, None], "int", "int8"),
        ([1, 300], "int", "int16"),
        ([1, 2**40], "int", "int64"),
        ([1, 2.5], "float", "float64"),
        (np.array([1, 2], np.uint8), "int", "int8"),
        (np.array([1.5, np.nan], np.float32), "float", "float64"),
        (["a", None], "str", "uint8"),
        (np.array(["a", "b"]), "str", "uint8"),
        ([str(i) for i in range(300)], "str", "uint16"),
        ([dt.date(2020, 1, 1)], "date", "int32"),
        ([dt.datetime(2020, 1, 1), None], "datetime", "int64"),
        (np.array(["2020-01-01", "NaT"], "datetime64[D]"), "date", "int32"),
        (np.array(["2020-01-01", "NaT"], "datetime64[ns]"), "datetime", "int64"),
        ([["a"], None, []], "list[str]", "uint8"),
        ([["a"], [1]], "json", "uint8"),
        ([{"a": [1, None]}], "json", "uint8"),
        (np.ma.masked_array([1, 2], [True, False]), "int", "int8"),
    ],
)
def test_types_are_inferred(values, type, stored):
    column = Column.from_values("x", values)
    assert (column.type, column.values.dtype.name, len(column)) == (type, stored, len(values))
    assert column.to_list()[-1] == Column.from_values("x", column.to_list(), type).to_list()[-1]


def test_pandas_and_polars_columns():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    assert Column.from_values("x", pandas.Series([1, None, 3], dtype="Int64")).to_list() == [1, None, 3]
    assert Column.from_values("x", pandas.Series(["a", None])).to_list() == ["a", None]
    stamps = pandas.Series(pandas.to_datetime(["2020-01-01T02:00+02:00", None], utc=True))
    assert Column.from_values("x", stamps).to_list() == [dt.datetime(2020, 1, 1), None]
    assert Column.from_values("x", polars.Series([1, 2])).to_list() == [1, 2]
    assert Column.from_values("x", polars.Series([["a"], None, []])).to_list() == [["a"], None, []]


def test_nan_is_null_and_zones_become_utc():
    assert Column.from_values("x", [1.0, float("nan"), np.float32("nan")]).to_list() == [1.0, None, None]
    assert Column.from_values("x", [{"a": float("nan")}]).to_list() == [{"a": None}]
    zone = dt.timezone(dt.timedelta(hours=-5))
    assert Column.from_values("x", [dt.datetime(2020, 1, 1, tzinfo=zone)]).to_list() == [dt.datetime(2020, 1, 1, 5)]


@pytest.mark.parametrize(
    ("values", "type", "message"),
    [
        ([1, "a"], None, r"mixes int \(row 0: 1\) and str \(row 1: 'a'\)"),
        ([None, True, 2], None, r"mixes bool \(row 1: True\) and int \(row 2: 2\)"),
        ([dt.date(2020, 1, 1), dt.datetime(2020, 1, 1)], None, "mixes date .* and datetime"),
        ([None, None], None, "only nulls"),
        ([], None, "only nulls"),
        ([1 + 2j], None, "has .* in row 0, but columns hold"),
        ([b"a"], None, "columns hold bool, int"),
        ([2**63], None, "row 0 is 9223372036854775808: int64 ends"),
        (np.array([2**63], np.uint64), None, "row 0 is 9223372036854775808"),
        ([2**53 + 1, 0.5], None, "row 0 is 9007199254740993: no float is that number"),
        ([1], "text", "has type 'text'; choose one of"),
        (["a"], "int", "holds int, but row 0 is 'a'"),
        ([1.5], "int", "holds int, but row 0 is 1.5"),
        ([None, "2020-13-01"], "date", "holds date, but row 1 is '2020-13-01'"),
        ([dt.datetime(2020, 1, 1)], "date", "it has a time"),
        ([["a", 1]], "list[str]", "lists hold str"),
        ([{"a": object()}], "json", "holds json, but row 0"),
        ([{"a": float("inf")}], "json", "holds json, but row 0"),
        (["\ud800"], None, "holds str, but row 0"),
        (np.zeros((2, 2)), None, "one value a row"),
        ("abc", None, "one value a row"),
        (3, None, "one value a row"),
        (np.array([1j]), None, "none of the types"),
    ],
)
def test_values_that_make_no_column(values, type, message):
    with pytest.raises(InputError, match=f"column 'x'.*{message}"):
        Column.from_values("x", values, type)


def test_columns_of_arrays():
    words, codes = Dictionary.from_texts(["b", "a", "b"])
    column = Column("x", "str", codes, valid=np.array([True, False, True]), dictionary=words)
    assert column.to_list() == ["b", None, "b"]
    assert Column("x", "str", codes.astype(np.int32), valid=column.valid, dictionary=words).to_list() == [
        "b",
        None,
        "b",
    ]
    assert evaluate(F.x == "b", {"x": column}, 3).tolist() == [True, False, True]
    read_only = np.array([1, 2], np.int64)
    read_only.flags.writeable = False
    assert evaluate(F.x > 1, {"x": Column("x", "int", read_only)}, 2).tolist() == [False, True]
    # Codes beyond the dictionary, in a damaged file: no crash, and no row.
    wild = Column("x", "str", np.array([0, 200, 255], np.uint8), dictionary=words)
    assert evaluate(F.x == "a", {"x": wild}, 3).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "text", np.zeros(2, np.int64)), "has type 'text'"),
        (("x", "int", np.zeros(2, np.float32)), "pass int8, int16"),
        (("x", "float", np.zeros((2, 2))), "pass float64"),
        (("x", "float", np.zeros(4)[::2]), "pass float64"),
        (("x", "str", np.zeros(2, np.int32)), "without a dictionary"),
        (("x", "list[str]", np.zeros(2, np.int32)), "without a dictionary"),
    ],
)
def test_arrays_that_make_no_column(arguments, message):
    with pytest.raises(InputError, match=message):
        Column(*arguments)


def test_validity_and_offsets_are_checked():
    with pytest.raises(InputError, match=r"bool of shape \(3,\), or uint64 of shape \(1,\)"):
        Column("x", "int", np.zeros(3, np.int64), valid=np.zeros(2, bool))
    words, codes = Dictionary.from_texts(["a", "b"])
    for offsets in ([0, 1], [0, 3], [0, 2, 1, 2], [1, 2]):
        with pytest.raises(InputError, match="ascend"):
            Column("x", "list[str]", codes, dictionary=words, offsets=np.array(offsets))
    with pytest.raises(InputError, match="ascend"):
        Dictionary(np.array([0, 5]), np.zeros(3, np.uint8))


def test_rows_must_agree():
    with pytest.raises(InputError, match="column 'year' has 4 rows, but 5 are wanted"):
        evaluate(F.year > 3, TABLE, 5)
    assert evaluate(parse({}), {}, 70).tolist() == [True] * 70
    assert evaluate_bits(parse({}), {}, 70).tolist() == [2**64 - 1, 63]
    assert evaluate(F.x > 3, {"x": Column.from_values("x", [], "int")}, 0).tolist() == []
    assert evaluate(parse("lower(x) = ''"), {"x": Column.from_values("x", [], "str")}, 0).tolist() == []


# Spans.


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_spans_are_sets(rng, dtype):
    points = np.arange(-2, 22)

    def members(spans):
        return {x for x in points.tolist() if any(a <= x <= b for a, b in zip(spans.low, spans.high, strict=True))}

    ends = np.iinfo(np.int64) if dtype == "int64" else np.finfo("float64")
    for _ in range(300):
        low, high = rng.integers(0, 20, (2, rng.integers(0, 5)))
        first = Spans.of(low, high, dtype)
        second = Spans.of(*rng.integers(0, 20, (2, 3)), dtype)
        if rng.random() < 0.3:
            first = first | Spans.of([ends.min], [int(rng.integers(0, 20))], dtype)
        everything = set(points.tolist())
        assert members(first | second) == members(first) | members(second)
        assert members(first & second) == members(first) & members(second)
        assert members(first.opposite(nulls=False)) == everything - members(first)
        for spans in (first | second, first & second, first.opposite(nulls=True)):
            assert (spans.low <= spans.high).all()
            assert (spans.low[1:] > spans.high[:-1]).all()


@pytest.mark.parametrize(
    ("values", "inside", "outside"),
    [
        ([3, None, 900, 3], ["x = 3", "x >= 900", "x IS NULL", "x <> 3"], ["x = 4", "x > 900", "x IN (1, 5, 1000)"]),
        ([0.5, -2.0], ["x < 0", "x IS NOT NULL"], ["x > 0.5", "x = 0", "x IS NULL", "x < -2"]),
        (["b", "d"], ["x > 'c'", "x LIKE 'd%'"], ["x = 'c'", "x LIKE '%a%'", "x IN ('a', 'e')"]),
        ([True, True], ["x"], ["NOT x", "x IS NULL"]),
        ([["a"], []], ["list_contains(x, 'a')", "NOT list_contains(x, 'a')"], ["list_contains(x, 'b')", "x IS NULL"]),
        ([dt.date(2020, 1, 1), None], ["x = '2020-01-01'"], ["x > '2020-01-01'", "x < '2020-01-01'"]),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_outside_of_all_values_is_told_without_a_look_at_rows(values, inside, outside):
    column = Column.from_values("x", values)
    n = len(values)
    column = Column("x", column.type, column.values, valid=column.valid, dictionary=column.dictionary,
                    offsets=column.offsets, cover=column.outline())  # fmt: skip
    for where in inside:
        assert bits_if_any(parse(where), {"x": column}, n).any(), where
    for where in outside:
        assert bits_if_any(parse(where), {"x": column}, n) is None, where


def test_many_values_are_covered_by_their_ends_and_few_by_themselves():
    many, few = (Column.from_values("x", [*range(0, 10 * n, 10), None]) for n in (100, 64))
    assert many.outline().tolist() == [[0, 990]]
    assert few.outline().tolist() == [[value, value] for value in range(0, 640, 10)]
    assert Column.from_values("x", [None, None], "float").outline().shape == (0, 2)
    assert Column.from_values("x", ["a"]).outline() is None
    for wrong in ([[1, 0]], [[0, 3], [3, 4]], [0, 990], [[0.5, 990]]):
        with pytest.raises(InputError, match="do not ascend"):
            Column("x", "int", many.values, valid=many.valid, cover=np.array(wrong))


@pytest.mark.parametrize("where", ["year > 3000 AND lower(year) = 'x'", "year > 3000 AND lang < year"])
def test_a_filter_that_means_nothing_is_refused_where_no_row_could_pass_anyway(where):
    with pytest.raises(InputError, match=r"cannot be evaluated|do not compare"):
        bits_if_any(parse(where), TABLE, 4)
