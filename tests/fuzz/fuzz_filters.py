"""Hostile and damaged filters: each is refused by InputError or gives a bool a row, in time, and nothing else happens.

What is read without DuckDB is read by DuckDB as well, and means the same.

    python tests/fuzz/fuzz_filters.py --seconds 300 --seed 1
    python tests/fuzz/fuzz_filters.py --mutations 1 --start 1234 --seed 1      # repeat mutation 1234 of seed 1

Texts are made of conditions, of words of SQL that filters refuse, and of damage: pieces cut out, doubled, nested and
joined, odd characters put between. Dicts are trees of operators and values, right and wrong.
"""

import collections
import datetime as dt
import os
import random
import sys
import tempfile
import time
from typing import Any

import fuzzing
import numpy as np

from nearly.errors import InputError
from nearly.filters import Column, asking, evaluate, parse
from nearly.filters.plain import from_plain
from nearly.filters.sql import by_duckdb

N = 70
SLOW = 15.0  # seconds that nothing may take: the limit of a question, and what a busy machine adds
CONDITIONS = [
    "year >= 2020", "lang = 'en'", "lang IN ('de', 'en')", "NOT flag", "score < 1.5", "tags IS NULL",
    "year BETWEEN 1 AND 3",
    "lower(lang) = 'de'", "lang LIKE '%e_'", "CASE WHEN flag THEN 1 ELSE 2 END = 1", "CAST(year AS VARCHAR) = '3'",
    "list_contains(tags, 'a')", "day > DATE '2020-01-01'", "date_part('year', day) = 3", "year % 2 = 0",
    "year = $a",
    "year IN $list", "lang ILIKE $b", "regexp_matches(lang, 'a+')", "coalesce(lang, 'x') = 'x'",
    "year IS DISTINCT FROM 3",
    "seen < TIMESTAMP '2020-01-01 00:00:00'", "length(tags) > 1", "json_extract_string(meta, '$.a') = 'x'",
    "TRUE", "NULL", "year=-1", "lang <> 'it''s'", "\"year\" <= 1e3", "NOT (flag OR lang IN ('de', $a))", "score > .5",
    "year NOT BETWEEN -1 AND $a", "lang NOT LIKE 'd%'", "2020 > year", "tags IS NOT NULL", "contains(lang, $b)",
]  # fmt: skip
WORDS = [
    "SELECT", "FROM", "WHERE", "UNION", "(SELECT 1)", "EXISTS", "COPY", "TO", "'x'", "ATTACH", "PRAGMA",
    ";", "--", "/*",
    "*/", "(", ")", "[", "]", "{", "}", "'", '"', "$$", "$1", "?", "::", "->", ":", "*", "COLUMNS(*)",
    "glob('/*')", "LAMBDA",
    "read_csv('/etc/passwd')", "repeat('x', 100000000)", "duckdb_settings()", "getenv('HOME')", "OVER ()",
    "FILTER", "LIMIT",
    "GROUP BY", "ORDER BY", "WITH", "AS", "AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "LIKE", "CASE",
    "WHEN", "END",
    "CAST", "INTERVAL", "DATE", "E'\\x00'", "U&'\\0061'", "1e999", "0x1F", "99999999999999999999999999", ".5",
    "1.", "-", "~",
    "COLLATE", "ESCAPE", "AT", "TABLE", "VALUES (1)", "#1", "rows", "main.year", "year.x", "\0", "\u200b",
    "\ud800", "＝", "日",
    "\n", "\t", "\\", "%", "DEFAULT", "UNPIVOT", "TRY", "ANY", "ALL", "SOME", "ARRAY", "MAP", "STRUCT",
    "unnest(tags)", "@",
]  # fmt: skip
VALUES: list[Any] = [
    0, 1, -1, 2020, 2**63, -(2**70), 1.5, float("inf"), float("nan"), "", "en", "a" * 300, "\0", "\ud800",
    None, True, [], [1],
    ["a", None], {}, {"$gt": 1}, dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC), b"x",
    object(), (1, "a"), {1, 2},
    np.int64(3), np.float32("nan"), np.datetime64("2020-01-01"), np.datetime64("NaT"), np.arange(3), "2020-01-01",
    dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=9))), "0001-01-01T00:00:00+09:00",
]  # fmt: skip
KEYS = [
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$and", "$or", "$not", "$exists", "$contains", "$nor",
    "$where", "", "$", "year", "lang", "score", "flag", "tags", "meta", "day", "seen", "yeer", 3, None,
]  # fmt: skip


def table(rng: random.Random) -> dict[str, Column]:
    """Return a column of each type, with nulls."""

    def column(name: str, values: list[Any], type: str) -> Column:
        return Column.from_values(name, [rng.choice([*values, None]) for _ in range(N)], type)

    moments = [dt.datetime(1, 1, 1), dt.datetime(2020, 1, 1), dt.datetime(9999, 12, 31)]
    return {
        "year": column("year", [3, 2020, -(2**63), 2**63 - 1], "int"),
        "lang": column("lang", ["", "en", "de", "%", "'", "日", "\0", "a" * 500], "str"),
        "score": column("score", [0.5, -0.0, float("inf"), 1e300], "float"),
        "flag": column("flag", [True, False], "bool"),
        "tags": column("tags", [[], ["a"], ["a", "b"]], "list[str]"),
        "meta": column("meta", [{"a": "x"}, [1], "s", 3], "json"),
        "day": column("day", [moment.date() for moment in moments], "date"),
        "seen": column("seen", moments, "datetime"),
    }


def text(rng: random.Random) -> str:
    """Return a text that is a condition, or was one."""
    made = rng.choice(CONDITIONS)
    for _ in range(rng.choice([0, 1, 2, 4, 10, 30])):
        other = rng.choice(CONDITIONS)
        match rng.randrange(9):
            case 0 | 1:
                made = f"{made} {rng.choice(['AND', 'OR'])} {other}"
            case 2:
                made = f"NOT ({made})"
            case 3:
                made = f"({made}) = ({other})"
            case 4:
                at = rng.randrange(len(made) + 1)
                made = f"{made[:at]} {rng.choice(WORDS)} {made[at:]}"
            case 5:
                first, last = sorted(rng.randrange(len(made) + 1) for _ in range(2))
                made = made[:first] + made[last:]
            case 6:
                first, last = sorted(rng.randrange(len(made) + 1) for _ in range(2))
                made = made[:last] + made[first:]
            case 7:
                at = rng.randrange(len(made) + 1)
                made = (
                    made[:at]
                    + chr(rng.choice([rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x110000)]))
                    + made[at:]
                )
            case _:
                depth = rng.choice([2, 20, 300])
                made = (
                    rng.choice(["(", "NOT ", "- ", "lower(", "["]) * depth + made + rng.choice([")", "]", ""]) * depth
                )
        made = made[:70_000] or other
    return made


def mapping(rng: random.Random, depth: int = 0) -> Any:
    """Return a dict that is a condition, or nearly."""
    if depth > 4 or rng.random() < 0.2:
        return rng.choice(VALUES)
    if rng.random() < 0.2:
        return [mapping(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): mapping(rng, depth + 1) for _ in range(rng.choice([1, 1, 1, 2, 3]))}


def use(rng: random.Random, columns: dict[str, Column]) -> str:
    """Try one filter; return how it ended."""
    parameters = None
    if rng.random() < 0.3:
        where = mapping(rng)
    else:
        where = text(rng)
        named = {
            "a": rng.choice(VALUES),
            "b": rng.choice(["%", "_%_%" * 20, "", "a", 3]),
            "list": rng.choice([[1], [], VALUES]),
        }
        parameters = {name: value for name, value in named.items() if f"${name}" in where} or None
    try:
        expression = parse(where, parameters)
    except InputError:
        return "refused"
    assert expression.columns <= {name for name in expression.columns if isinstance(name, str)}
    repr(expression)
    assert expression.key == parse(where, parameters).key
    if isinstance(where, str) and (plain := from_plain(where, parameters)) is not None:
        assert plain.key == by_duckdb(where, parameters).key, "DuckDB reads it otherwise"
    try:
        found = evaluate(expression, columns, N)
        other = evaluate(~expression, columns, N)
    except InputError:
        return "not evaluated"
    assert found.shape == other.shape == (N,)
    assert not (found & other).any(), "a row passes a filter and its negation"
    return "evaluated"


def run(*, seed: int, mutations: int | None = None, seconds: float | None = None, start: int = 0) -> dict[str, int]:
    """Try filters until one of the limits; return how often each ended how."""
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # what a filter wrote would be here
        for i, rng in fuzzing.cases(seed, mutations, seconds, start):
            began = time.monotonic()
            with fuzzing.repeatable(f"filter {i}", i, seed):
                end = use(rng, table(rng))
                assert time.monotonic() - began < SLOW, "it took too long"
                assert os.listdir(folder) == [], "it wrote a file"
            counts[end] += 1
        os.chdir("/")
    assert asking._connected().execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]
    return counts


def main() -> None:
    arguments = fuzzing.arguments(__doc__, 5000)
    began = time.monotonic()
    counts = run(**vars(arguments))
    for end, count in sorted(counts.items()):
        print(f"{count:8d}  {end}")
    print(f"{sum(counts.values())} filters of seed {arguments.seed} in {time.monotonic() - began:.0f} s, nothing wrong")


if __name__ == "__main__":
    sys.exit(main())
