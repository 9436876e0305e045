"""How long does a filter take on columns in memory?   python benchmarks/bench_filters.py --n 1000000

One line for each condition: milliseconds of processor time for all rows, of `nearly` (`evaluate_bits`, a bit a row, the
plan included), of `numpy` (the plain expression, packed to bits) and of `duckdb` (the same SQL over a table of its own,
the answer fetched as an array). All on one thread, in turns A B C, C B A; every answer is compared with NumPy's first.
Each turn calls three times: `cold` is the median of first calls, after the others emptied the caches; the rest are
medians and the best of the later ones.

Then a line for each form of a filter that is new for every query, on `--new-n` rows: microseconds to parse its SQL and
its dict, to `select` what passes, and of NumPy's mask over the columns as they are stored, texts by codes that are
looked up beforehand; medians of calls in turns, each with other constants.

Traps: a column that fits a cache is read faster than one that does not, so `n_bytes` stands beside; cold, columns of 8
bytes are read as fast as memory gives them, whatever the comparison. DuckDB answers in a bool a row, which costs it
little beside the rest, and has a query to plan; it also may leave out row groups by their least and greatest values,
which random columns never let it do. Other work on the machine only ever adds: it shows between best and median.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import measure
import numpy as np

import nearly
from nearly.filters import Column, Dictionary, evaluate_bits, parse, select

EPOCH = np.datetime64("1970-01-01T00:00:00", "us")


def table(n: int, seed: int) -> tuple[dict[str, Any], dict[str, Column]]:
    """Return columns as plain arrays, and as filters read them."""
    rng = np.random.default_rng(seed)
    countries = np.array([f"c{i:03d}" for i in range(200)])
    titles = np.array([f"title {i}" for i in range(50_000)])
    plain: dict[str, Any] = {
        "year": rng.integers(1990, 2026, n),
        "user_id": rng.integers(0, 10**12, n),
        "score": rng.random(n),
        "seen": rng.integers(0, 2 * 10**15, n),
        "country": countries[rng.integers(0, len(countries), n)],
        "title": titles[rng.integers(0, len(titles), n)],
    }
    nulls = rng.random(n) < 0.1
    columns = {name: Column.from_values(name, plain[name]) for name in ("year", "user_id", "score")}
    columns["seen"] = Column("seen", "datetime", plain["seen"])
    for name in ("country", "title"):
        texts, codes = Dictionary.from_texts(plain[name].tolist())
        columns[name] = Column(name, "str", codes, dictionary=texts)
    columns["rated"] = Column("rated", "float", plain["score"], valid=~nulls)
    plain["rated"] = np.where(nulls, np.nan, plain["score"])
    return plain, columns


def conditions(plain: dict[str, Any], seed: int) -> list[tuple[str, dict[str, Any], Callable[[], Any]]]:
    """Return SQL, its parameters, and the same in NumPy."""
    rng = np.random.default_rng(seed + 1)
    year, user, score, seen = (plain[name] for name in ("year", "user_id", "score", "seen"))
    country, title, rated = (plain[name] for name in ("country", "title", "rated"))
    few, many = rng.choice(user, 4).tolist(), rng.choice(user, 1000).tolist()
    some = [f"c{i:03d}" for i in (3, 50, 90, 91, 92, 150)]
    return [
        ("year >= 2020", {}, lambda: year >= 2020),
        ("year BETWEEN 2000 AND 2009", {}, lambda: (year >= 2000) & (year <= 2009)),
        ("year <> 2020", {}, lambda: year != 2020),
        ("user_id < 1000000000", {}, lambda: user < 10**9),
        ("score < 0.01", {}, lambda: score < 0.01),
        ("rated >= 0.5", {}, lambda: rated >= 0.5),
        ("rated IS NULL", {}, lambda: np.isnan(rated)),
        ("seen >= TIMESTAMP '2000-01-01'", {},
         lambda: seen >= int((np.datetime64("2000-01-01", "us") - EPOCH).astype(np.int64))),
        ("country = 'c042'", {}, lambda: country == "c042"),
        ("country IN $some", {"some": some}, lambda: np.isin(country, some)),
        ("title >= 'title 4'", {}, lambda: title >= "title 4"),
        ("title LIKE '%99%'", {}, lambda: np.char.find(title, "99") >= 0),
        ("user_id IN $few", {"few": few}, lambda: np.isin(user, few)),
        ("user_id IN $many", {"many": many}, lambda: np.isin(user, many)),
        ("year >= 2020 AND score < 0.5 AND country <> 'c042'", {},
         lambda: (year >= 2020) & (score < 0.5) & (country != "c042")),
        ("year % 4 = 0", {}, lambda: year % 4 == 0),
    ]  # fmt: skip


# SQL, its dict, and NumPy's mask of the stored columns, of a year, a score, a country and its code.
NEW: list[tuple[str, Callable[..., dict[str, Any]], Callable[..., Any]]] = [
    ("year >= {year} AND score < {score} AND country <> '{country}'",
     lambda year, score, country: {"year": {"$gte": year}, "score": {"$lt": score}, "country": {"$ne": country}},
     lambda v, year, score, code: (v["year"] >= year) & (v["score"] < score) & (v["country"] != code)),
    ("country = '{country}' AND score < {score} AND year >= {year}",
     lambda year, score, country: {"country": country, "score": {"$lt": score}, "year": {"$gte": year}},
     lambda v, year, score, code: (v["country"] == code) & (v["score"] < score) & (v["year"] >= year)),
    ("year = {year} AND country = '{country}'",
     lambda year, score, country: {"year": year, "country": country},
     lambda v, year, score, code: (v["year"] == year) & (v["country"] == code)),
    ("score BETWEEN 0.25 AND {score}",
     lambda year, score, country: {"score": {"$gte": 0.25, "$lte": score}},
     lambda v, year, score, code: (v["score"] >= 0.25) & (v["score"] <= score)),
]  # fmt: skip


def measure_new(n: int, seed: int, rounds: int) -> None:
    """Print a line for each form of filters that no query before had."""
    _, columns = table(n, seed)
    stored = {name: column.values for name, column in columns.items()}
    places = columns["country"].dictionary
    assert places is not None
    rng = np.random.default_rng(seed + 2)
    for sql, as_dict, in_numpy in NEW:
        seconds: dict[str, list[float]] = {name: [] for name in ("sql", "dict", "select", "numpy")}
        for round in range(rounds):
            year, score, country = int(rng.integers(1990, 2026)), score_of(rng), f"c{rng.integers(200):03d}"
            text, where = sql.format(year=year, score=score, country=country), as_dict(year, score, country)
            expression, code = parse(where), places.place(country)[0]
            assert parse(text).key == expression.key
            ways: dict[str, Callable[[], Any]] = {
                "sql": partial(parse, text),
                "dict": partial(parse, where),
                "select": partial(select, expression, columns, n),
                "numpy": partial(in_numpy, stored, year, score, code),
            }
            assert np.array_equal(ways["select"]().mask(), ways["numpy"]())
            for name in list(ways) if round % 2 == 0 else reversed(ways):
                began = time.process_time()
                ways[name]()
                seconds[name].append(time.process_time() - began)
        line: dict[str, Any] = {"bench": "new_filters", "condition": sql, "n": n}
        line |= {f"{name}_us": statistics.median(values) * 1e6 for name, values in seconds.items()}
        line["sql_and_select_over_numpy"] = (line["sql_us"] + line["select_us"]) / line["numpy_us"]
        line["select_over_numpy"] = line["select_us"] / line["numpy_us"]
        print(measure.line(line | {"simd": nearly.simd_target(), **measure.machine()}), flush=True)


def score_of(rng: np.random.Generator) -> float:
    """Return a score of three digits, as people write them."""
    return float(np.round(rng.random(), 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="rows")
    parser.add_argument("--new-n", type=int, default=100_000, help="rows under filters that are new for every query")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import duckdb

    nearly.set_threads(1)
    plain, columns = table(arguments.n, arguments.seed)
    connection = duckdb.connect(":memory:", config={"threads": 1})
    arrays = plain | {"rated": np.ma.masked_invalid(plain["rated"])}
    connection.register(
        "arrays", {name: np.asarray(a, object) if a.dtype.kind == "U" else a for name, a in arrays.items()}
    )
    connection.execute("CREATE TABLE t AS SELECT * REPLACE (make_timestamp(seen) AS seen, "
                       "CASE WHEN isnan(rated) THEN NULL ELSE rated END AS rated) FROM arrays")  # fmt: skip
    connection.unregister("arrays")
    for sql, parameters, in_numpy in conditions(plain, arguments.seed):
        where = parse(sql, parameters or None)

        def with_nearly(where: Any = where) -> Any:
            return evaluate_bits(where, columns, arguments.n)

        def with_numpy(in_numpy: Callable[[], Any] = in_numpy) -> Any:
            return np.packbits(in_numpy(), bitorder="little")

        def with_duckdb(sql: str = sql, parameters: dict[str, Any] = parameters) -> Any:
            return connection.execute(f"SELECT {sql} AS a FROM t", parameters or None).fetchnumpy()["a"]

        ways: dict[str, Callable[[], Any]] = {"nearly": with_nearly, "numpy": with_numpy, "duckdb": with_duckdb}
        expected = with_numpy()
        assert np.array_equal(with_nearly().view(np.uint8)[: len(expected)], expected), sql
        asked = with_duckdb()
        true = np.ma.getdata(asked) & ~np.ma.getmaskarray(asked)
        assert np.array_equal(np.packbits(true, bitorder="little"), expected), sql
        cold: dict[str, list[float]] = {name: [] for name in ways}
        warm: dict[str, list[float]] = {name: [] for name in ways}
        for round in range(arguments.rounds):
            for name in list(ways) if round % 2 == 0 else reversed(ways):
                for seconds in (cold, warm, warm):
                    began = time.process_time()
                    ways[name]()
                    seconds[name].append(time.process_time() - began)
        used = [columns[name] for name in sorted(where.columns)]
        line = {"bench": "filters", "condition": sql, "n": arguments.n, "n_bytes": sum(c.values.nbytes for c in used)}
        line |= {f"{name}_ms": statistics.median(values) * 1e3 for name, values in warm.items()}
        line |= {f"{name}_best_ms": min(values) * 1e3 for name, values in warm.items()}
        line |= {f"{name}_cold_ms": statistics.median(values) * 1e3 for name, values in cold.items()}
        passing = sum(map(int.bit_count, itertools.chain(expected.tolist())))
        print(measure.line(line | {"passing": passing, "simd": nearly.simd_target(), **measure.machine()}), flush=True)
    measure_new(arguments.new_n, arguments.seed, 30 * arguments.rounds)


if __name__ == "__main__":
    main()
