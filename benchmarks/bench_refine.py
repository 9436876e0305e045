"""What does ranking by vectors on disk cost, and save?   python benchmarks/bench_refine.py --data cve_minilm_384

Builds the index that a limit of an eighth of the float32 vectors chooses, and the same with its vectors in memory;
saves and loads both. One JSON line per recall asked for: `ratio` is the queries a second of the one on disk by those of
the one in memory, in interleaved rounds, one thread, batches, by processor time; `cold_qps` by wall clock, single
queries, with the file dropped from the page cache before each.

`resident_bytes` is what a new interpreter's anonymous memory (RssAnon) grows by when it loads the index and answers all
queries; the page cache does not belong to a process and is not in it. `file_bytes` is what of the file it may hold.

Traps: queries of another kind than the rows get less than was asked for, so half of them are passed to `calibrate` and
the other half is searched. A drive with a cache of its own is not cold. Linux only.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np

import nearly

K = 10
ASKED = (0.9, 0.95, 0.99)
LOAD = """
import sys
import numpy as np, nearly
def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
queries = np.load(sys.argv[2])
nearly.Flat(queries).search(queries, 10, threads=1)  # what libraries take when first used, threads and buffers
before = anonymous()
index = nearly.load(sys.argv[1])
index.search(queries, 10, threads=1)
print(anonymous() - before)
"""


def main() -> None:
    """Measure every data set and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cve_minilm_384"])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        facts = {"data": data.describe(), "machine": measure.machine()}
        for record in compared(data, arguments.rounds):
            print(measure.line({"bench": "refine", **record, **facts}), flush=True)


def compared(data: Any, n_rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the records of one data set."""
    vectors, half = data.vectors, len(data.queries) // 2
    limit = vectors.size * 4 // 8
    with tempfile.TemporaryDirectory() as folder:
        paths = {where: Path(folder) / f"{where}.nearly" for where in ("disk", "memory")}
        built = nearly.build(vectors, metric=data.metric, memory_limit=limit)
        built.calibrate(data.queries[:half])
        plan = built.plan
        built.save(paths["disk"])
        resident = type(built)(vectors, metric=data.metric)
        resident.calibrate(data.queries[:half])
        resident.save(paths["memory"])
        del built, resident
        queries = np.ascontiguousarray(data.queries[half:])
        np.save(Path(folder) / "queries.npy", queries)
        taken = {where: _resident(path, Path(folder) / "queries.npy") for where, path in paths.items()}
        indexes = {where: nearly.load(path) for where, path in paths.items()}
        for asked in ASKED:
            qps: dict[str, list[float]] = {where: [] for where in indexes}
            for order in measure.turns(["disk", "memory"], n_rounds + 1):
                for where in order:
                    one = measure.timed(functools.partial(indexes[where].search, queries, K, recall=asked, threads=1))
                    qps[where].append(len(queries) / one.cpu_seconds)
            hits = indexes["disk"].search(queries, K, recall=asked, threads=1)
            ratios = [a / b for a, b in zip(qps["disk"][1:], qps["memory"][1:], strict=True)]
            yield {
                "plan": plan, "limit_bytes": limit, "limit_per_vector": limit / len(vectors), "asked": asked,
                "recall": _recall(data, hits.ids, half), "ranked": hits.stats.n_reranked / len(queries),
                "qps": statistics.median(qps["disk"][1:]), "memory_qps": statistics.median(qps["memory"][1:]),
                **measure.quartiles(ratios), "cold_qps": _cold(indexes["disk"], paths["disk"], queries[:100], asked),
                "resident_bytes": taken["disk"], "index_bytes": indexes["disk"].n_bytes,
                "memory_index_bytes": indexes["memory"].n_bytes, "file_bytes": paths["disk"].stat().st_size,
            }  # fmt: skip


def _recall(data: Any, ids: Any, half: int) -> float:
    """Recall of the answers to the second half of the queries."""
    radius = measure.exact_radius(data.vectors, data.queries[half:], data.metric, K)
    found = measure.recalls_by_distance(ids, data.vectors, data.queries[half:], data.metric, radius, K)
    return float(found.mean())


def _resident(path: Path, queries: Path) -> int:
    command = [sys.executable, "-c", LOAD, str(path), str(queries)]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _cold(index: Any, path: Path, queries: Any, asked: float) -> float:
    """Queries a second, each with a page cache that holds nothing of the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        seconds = []
        for query in queries:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            index.search(query, K, recall=asked, threads=1)
            seconds.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return 1 / statistics.mean(seconds)


if __name__ == "__main__":
    main()
