"""What do searches gain that are asked for together?   python benchmarks/bench_many.py --data cve_minilm_384

A workload is hybrid queries, each with one of many filters over the attributes of the rows: comparisons of times and
scores, names, and conjunctions of both, so that four fifths of the rows pass, or some, or none. `nearly.Collection`
answers them one by one (`search`, each with its filter as SQL) and together (`search_many`), in turns. One JSON line:
queries a second of both, their ratio within each round, and the recall that each delivered. With `--parts 8` also of a
copy that `partition_for` laid out in so many segments, having learned from as many other searches with these filters.

Traps: a layout is learned from the very filters that are asked, the best case for it. Filters come in random order, so
one by one a part remembers only the latest of them. Both ways parse each filter once, use all threads that they have
(one query occupies one), and read keys. The queries of the data set are used again and again where it has fewer.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
import records
from numpy.typing import NDArray
from records import Columns, Condition, Conditions

import nearly

K = 10
Answer = tuple[NDArray[Any], NDArray[Any]]


def main() -> None:
    """Print one line for each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=records.CVE, choices=[records.CVE, "synthetic"])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.90, 0.95])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--filters", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--equal", metavar="COLUMN", help="filters are the values of a column instead, as of tenants")
    parser.add_argument("--parts", type=int, help="beside a copy that is laid out in so many segments at most")
    parser.add_argument("--min-rows", type=int, help="rows of each of these segments")
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    arguments = parser.parse_args()
    rows = records.load(arguments.data, n_queries=1000, limit=arguments.limit)
    filters = make_filters(rows.columns, arguments.filters)
    if arguments.equal:
        values = {value for value in rows.columns[arguments.equal] if value is not None}
        filters = [(Condition(arguments.equal, "=", value),) for value in sorted(values)]
    with tempfile.TemporaryDirectory(prefix="nearly-bench-") as folder:
        docs = {"": filled(rows, Path(folder) / "rows")}
        found = {}
        if arguments.parts:
            docs["laid_out_"], found = laid_out(docs[""], Path(folder) / "parts", filters, arguments)
        for target in arguments.targets:
            record = compared(docs, rows.data.queries, filters, target, arguments.queries, arguments.rounds)
            shown = {
                **record,
                **found,
                "data": rows.data.describe(),
                "machine": measure.machine(),
                "load": os.getloadavg()[0],
            }
            print(json.dumps(shown), flush=True)


def make_filters(columns: Columns, n: int) -> list[Conditions]:
    """Return different conjunctions of conditions, of four kinds in turn."""
    rng = np.random.default_rng(0)
    numbers = [name for name, values in columns.items() if isinstance(values[0], (int, float))]
    names = [name for name in ("severity", "cwe", "vendor", "product") if name in columns]
    common = {name: Counter(v for v in columns[name] if v is not None).most_common(60) for name in names}

    def at_least() -> Condition:
        name = str(rng.choice(numbers))
        known = sorted(value for value in columns[name] if value is not None)
        return Condition(name, ">=", known[int(len(known) * rng.uniform(0.1, 0.95))])

    def equal() -> Condition:
        name = str(rng.choice(names))
        return Condition(name, "=", common[name][int(rng.integers(len(common[name])))][0])

    kinds = ((at_least,), (equal,), (at_least, equal), (at_least, equal, at_least))
    found: dict[str, Conditions] = {}
    for i in range(20 * n):
        conditions = tuple(make() for make in kinds[i % len(kinds)])
        found[records.sql(conditions)] = conditions
        if len(found) == n:
            return list(found.values())
    raise SystemExit(f"these rows have only {len(found)} of {n} different filters; pass fewer, or keep more rows")


def filled(rows: records.Records, path: Path) -> Any:
    """Return a collection of the rows in one indexed segment."""
    docs = nearly.open(path, metric=rows.data.metric)
    docs.add(rows.data.vectors, metadata=rows.columns)
    docs.compact()
    return docs


def laid_out(
    docs: Any, path: Path, filters: Sequence[Conditions], arguments: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    """Return a copy that is laid out for such filters, and what that came to."""
    rng = np.random.default_rng(2)
    past = [records.sql(filters[rng.integers(len(filters))]) for _ in range(arguments.queries)]
    docs.snapshot(path)
    copy = nearly.open(path)
    report = copy.partition_for(past, max_parts=arguments.parts, min_rows=arguments.min_rows)
    return copy, {"parts": {name: value for name, value in vars(report).items() if name != "leaves"}}


def compared(
    kept: dict[str, Any], queries: NDArray[Any], filters: Sequence[Conditions], target: float, n: int, n_rounds: int
) -> dict[str, Any]:
    """Return what both ways take for one workload, in every collection by the prefix of its name."""
    docs = kept[""]
    rng = np.random.default_rng(1)
    asked = [(queries[i % len(queries)], records.sql(filters[rng.integers(len(filters))])) for i in range(n)]
    searches = [{"query": query, "where": where} for query, where in asked]
    passing = [docs.count(records.sql(conditions)) / len(docs) for conditions in filters]

    def one_by_one(docs: Any) -> list[Answer]:
        return [read(docs.search(query, K, where=where, recall=target)) for query, where in asked]

    def together(docs: Any) -> list[Answer]:
        return [read(hits) for hits in docs.search_many(searches, k=K, recall=target)]

    truth = [read(hits) for hits in docs.search_many(searches, k=K, exact=True)]
    ways: dict[str, Callable[[], list[Answer]]] = {}
    for prefix, each in kept.items():
        ways |= {f"{prefix}one_by_one": partial(one_by_one, each), f"{prefix}together": partial(together, each)}
    qps: dict[str, list[float]] = {name: [] for name in ways}
    answers = {}
    for order in measure.turns(list(ways), n_rounds):
        for name in order:
            began = time.perf_counter()
            answers[name] = ways[name]()
            qps[name].append(n / (time.perf_counter() - began))

    def ratio(name: str, other: str) -> dict[str, float]:
        return measure.quartiles([a / b for a, b in zip(qps[name], qps[other], strict=True)], f"{name}_")

    ratios = ratio("together", "one_by_one")
    for prefix in kept.keys() - {""}:  # each way beside itself
        ratios |= ratio(f"{prefix}one_by_one", "one_by_one") | ratio(f"{prefix}together", "together")
    return {
        "bench": "many", "target": target, "n_queries": n, "n_filters": len(filters),
        "share_quartiles": statistics.quantiles(passing),
        **{f"{name}_delivered": delivered(each, truth) for name, each in answers.items()},
        **{f"{name}_qps": statistics.median(each) for name, each in qps.items()},
        **ratios,
    }  # fmt: skip


def read(hits: Any) -> Answer:
    """Return keys and distances; keys are read when they are asked for."""
    return hits.ids, hits.distances


def delivered(answers: Sequence[Answer], truth: Sequence[Answer]) -> float:
    """Return mean recall by distance, of the queries under whose filter something passes."""
    pairs = [(one, other) for (_, one), (_, other) in zip(answers, truth, strict=True) if len(other)]
    return statistics.fmean(float((one <= other[-1]).sum() / len(other)) for one, other in pairs)


if __name__ == "__main__":
    main()
