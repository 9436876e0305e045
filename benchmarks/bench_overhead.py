"""What does nearly cost before it compares anything?   python benchmarks/bench_overhead.py --part call import load

call    `search(q)` of one float32 row, from the call to `Hits`, in microseconds. `alone` is a call on an index of one
        vector: everything but a search. On an index that fits the cache, `overhead` is a call of one query less its
        share of a batch of the same queries on one thread; `answer` is what reading `hits.ids` and `.distances` adds.
import  `import nearly` after numpy in fresh interpreters, and which of the libraries it must not load were loaded.
load    `nearly.load` of an index of 100,000 vectors in fresh interpreters, and the first search, with the file in the
        page cache and without it.

Goals: overhead at most 3 µs; import 150 ms, better 60; load 50 ms, better 10.

Traps: a batch hides a little latency that a single call cannot, so `overhead` is no more than an upper bound; `alone`
needs no difference. Figures of calls are processor time, best of rounds within each of which all are measured, as
other work on the machine only ever adds. An editable install puts an import hook into every interpreter: import from
a wheel, or with PYTHONPATH=src. The first import compiles bytecode and pages files in; it is thrown away. A library
that is not installed cannot be loaded, so `installed` stands beside `loaded`. The page cache is emptied of one file
by advice, which a kernel may ignore: then `cold` equals `warm`.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np
from numpy.typing import NDArray

ABSENT = ("duckdb", "typer", "rich", "pyarrow", "pandas", "matplotlib", "sqlite3")
K = 10

IMPORT = """
import json, sys, time
wall = time.perf_counter()
import numpy
numpy_wall, before = time.perf_counter() - wall, set(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
import nearly
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "numpy_seconds": numpy_wall,
                  "loaded": sorted(set(sys.argv[1:]) & set(sys.modules)), "modules": len(set(sys.modules) - before)}))
"""

LOAD = """
import json, sys, time
import numpy, nearly
query, path = numpy.load(sys.argv[2]), sys.argv[1]
wall, cpu = time.perf_counter(), time.process_time()
index = nearly.load(path)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
start = time.perf_counter()
index.search(query)
print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "first_search_seconds": time.perf_counter() - start}))
"""


def main() -> None:
    """Measure the parts asked for and print one line per configuration."""
    arguments = parse()
    for part in arguments.part:
        for record in PARTS[part](arguments):
            print(measure.line({"bench": "overhead", "part": part, **record, "machine": measure.machine()}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument("--data", default="synthetic", help="data set of the index that is loaded (default synthetic)")
    parser.add_argument("--limit", type=int, default=100_000, help="its vectors (default 100000)")
    return parser.parse_args()


# ---------------------------------------------------------------- call


def calls(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a line per kind of index and way to search."""
    import nearly

    measure.pin(measure.CPUS[-1:])
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((2000, 16), np.float32), rng.standard_normal((1000, 16), np.float32)
    one, facts = vectors[:1], {"n": len(vectors), "dim": vectors.shape[1], "rounds": arguments.rounds}
    plain: dict[str, Any] = {"calibrate": False}
    for name, index, alone, how in (
        ("Vamana, effort=", nearly.Vamana(vectors, **plain), nearly.Vamana(one, **plain), {"effort": K}),
        ("Vamana, recall=", nearly.Vamana(vectors), None, {"recall": 0.9}),  # one vector cannot be calibrated on
        ("HNSW, effort=", nearly.HNSW(vectors, **plain), nearly.HNSW(one, **plain), {"effort": K}),
        ("Flat", nearly.Flat(vectors), nearly.Flat(one), {}),
    ):
        yield {"call": name, **facts, **costs(ways(index, alone, queries, how), len(queries), arguments.rounds)}
    measure.pin(measure.CPUS)


def ways(index: Any, alone: Any, queries: NDArray[np.float32], how: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Return passes over the queries that differ in one thing each; the loop itself is the first."""
    rows = list(queries)

    def read(query: NDArray[np.float32]) -> tuple[object, object]:
        hits = index.search(query, K, **how)
        return hits.ids, hits.distances

    found: dict[str, Callable[[], object]] = {
        "loop": lambda: [None for _ in rows],
        "single": lambda: [index.search(query, K, **how) for query in rows],
        "single_read": lambda: [read(query) for query in rows],
        "batch": lambda: index.search(queries, K, threads=1, **how),
    }
    return found if alone is None else {**found, "alone": lambda: [alone.search(query, K, **how) for query in rows]}


def costs(passes: dict[str, Callable[[], object]], n_queries: int, rounds: int) -> dict[str, float]:
    """Return microseconds per query and what they differ by, each the best of all rounds."""
    least = dict.fromkeys(passes, 1e9)
    for order in measure.turns(list(passes), rounds + 1):  # the first round only warms up
        for name in order:
            start = time.thread_time()
            passes[name]()
            least[name] = min(least[name], (time.thread_time() - start) / n_queries * 1e6)
    loop, batch = least.pop("loop"), least.pop("batch")
    single, answered = least["single"] - loop, least["single_read"] - loop
    found = {"single_microseconds": single, "batch_microseconds": batch, "overhead_microseconds": single - batch}
    found["answer_microseconds"] = answered - single
    return found if "alone" not in least else {**found, "alone_microseconds": least["alone"] - loop}


# ---------------------------------------------------------------- import and load


def imports(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one line: what `import nearly` took in fresh interpreters."""
    runs = fresh(IMPORT, ABSENT, arguments.rounds)
    yield {
        **milliseconds(runs, "seconds", "cpu_seconds", "numpy_seconds"),
        "modules": runs[-1]["modules"],
        "loaded": sorted({name for run in runs for name in run["loaded"]}),
        "installed": [name for name in ABSENT if importlib.util.find_spec(name) is not None],
        "rounds": arguments.rounds,
    }


def loads(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a line with the file in the page cache and one without."""
    import nearly

    data = datasets.load(arguments.data, n_queries=1, limit=arguments.limit)
    with tempfile.TemporaryDirectory(prefix="nearly-bench-") as folder:
        path, query = Path(folder) / "index.nearly", Path(folder) / "query.npy"
        nearly.Vamana(data.vectors, metric=data.metric).save(path)
        np.save(query, data.queries[0])
        for cache in ("warm", "cold"):
            runs = fresh(LOAD, (path, query), arguments.rounds, forget=path if cache == "cold" else None)
            yield {
                "cache": cache,
                **milliseconds(runs, "seconds", "cpu_seconds", "first_search_seconds"),
                "file_bytes": path.stat().st_size,
                "rounds": arguments.rounds,
                "data": data.describe(),
            }


def fresh(script: str, arguments: tuple[Any, ...], rounds: int, forget: Path | None = None) -> list[dict[str, Any]]:
    """Return what a script printed in new interpreters, one after another; the first is thrown away."""
    runs = []
    for _ in range(rounds + 1):
        if forget is not None:
            drop(forget)
        command = [sys.executable, "-c", script, *map(str, arguments)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return runs[1:]


def milliseconds(runs: list[dict[str, Any]], *keys: str) -> dict[str, float]:
    """Return the least and the median of each time."""
    found = {}
    for key in keys:
        name = key.replace("seconds", "milliseconds")
        found[name] = 1e3 * statistics.median(run[key] for run in runs)
        found[f"least_{name}"] = 1e3 * min(run[key] for run in runs)
    return found


def drop(path: Path) -> None:
    """Ask the kernel to forget a file's pages; where it cannot be asked nothing happens."""
    if not hasattr(os, "posix_fadvise"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "call": calls,
    "import": imports,
    "load": loads,
}


if __name__ == "__main__":
    main()
