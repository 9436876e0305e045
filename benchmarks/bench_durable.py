"""What does a collection cost beside a bare index?   python benchmarks/bench_durable.py --data cve_minilm_384

One line for each part:
- bulk: vectors added to a collection at once, and flushed until its graph stands, beside `nearly.build` of the same.
- search: one query at a time, collection and index in turns; `read` reads keys of the answer, `joined` metadata.
- upserts: single rows by several threads, durable, as a share of threads times the syncs a second that the disk does,
  measured in turns on a file beside the collection; and how many rows shared a commit.
- rows: ten random rows read by their keys, with metadata and documents.
- open: milliseconds to open a collection of --rows rows with six columns, its first lookup of a key, its first filter.

Traps: disks differ a thousandfold in syncs, and their speed changes from second to second; /dev/shm has none, pass
--folder on a real disk. Where a sync takes a fifth of a millisecond, as on some virtual disks, upserts measure Python's
time a row; `--sync-ms 2` makes each sync take so much longer, as a disk of one's own does (needs a C compiler). A file
that was just written is in the system's cache, so opening is measured warm. Both builds take turns, on as many threads.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np

import nearly

Record = dict[str, Any]
PARTS = ("bulk", "upserts", "open")  # bulk: also queries and rows of what it filled


def columns(n: int, seed: int) -> dict[str, Any]:
    """Six columns of metadata."""
    rng = np.random.default_rng(seed)
    return {
        "year": rng.integers(1990, 2026, n),
        "score": rng.random(n),
        "lang": np.array(["de", "en", "fr", "ja"])[rng.integers(0, 4, n)],
        "vendor": np.array([f"vendor {i}" for i in range(10_000)])[rng.integers(0, 10_000, n)],
        "day": np.datetime64("2000-01-01") + rng.integers(0, 9000, n),
        "open": rng.random(n) < 0.5,
    }


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bulk(data: datasets.Dataset, folder: Path, rounds: int) -> Iterator[Record]:
    n = len(data.vectors)
    keys, metadata = [f"key {i:08d}" for i in range(n)], columns(n, 0)
    documents = [f"document {i}" for i in range(n)]
    bare, whole, added = [], [], []
    for i in range(rounds):

        def collection(i: int = i) -> None:
            docs = nearly.open(folder / f"bulk{i}", metric=data.metric, background=False)
            added.append(seconds(lambda: docs.add(data.vectors, ids=keys, metadata=metadata, documents=documents)))
            docs.flush()
            docs.close()

        def index() -> None:
            nearly.build(data.vectors, metric=data.metric)

        for work in (index, collection) if i % 2 else (collection, index):
            (whole if work is collection else bare).append(seconds(work))
    yield {
        "part": "bulk", "data": data.name, "n": n, "dim": data.vectors.shape[1],
        "index_seconds": statistics.median(bare), "collection_seconds": statistics.median(whole),
        "until_committed_seconds": statistics.median(added),
        "share_of_index_speed": statistics.median(b / w for b, w in zip(bare, whole, strict=True)),
        "bytes": measure.folder_bytes(folder / "bulk0"),
    }  # fmt: skip


def search(data: datasets.Dataset, folder: Path) -> Iterator[Record]:
    docs = nearly.open(folder / "bulk0", mode="r")
    index = nearly.load(next((folder / "bulk0" / "segments").glob("*.index0.nearly")))
    ways: dict[str, Callable[[Any], Any]] = {
        "index": lambda query: index.search(query, 10).ids,
        "collection": lambda query: docs.search(query, 10).distances,
        "read": lambda query: docs.search(query, 10).ids,
        "joined": lambda query: docs.search(query, 10).metadata,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for query in np.ascontiguousarray(data.queries, np.float32):
        for name, way in ways.items():
            began = time.perf_counter()
            way(query)
            taken[name].append(time.perf_counter() - began)
    medians = {f"{name}_microseconds": statistics.median(each) * 1e6 for name, each in taken.items()}
    yield {"part": "search", "data": data.name, "n": len(docs), **medians}
    keys = [key for rows in docs.scan(4096, include=[]) for key in rows.ids.tolist()]
    rng = np.random.default_rng(0)
    reads = []
    for _ in range(500):
        wanted = [keys[i] for i in rng.integers(0, len(keys), 10)]
        reads.append(seconds(partial(docs.get, wanted)))
    yield {"part": "rows", "rows": 10, "n": len(docs), "columns": len(docs.columns),
           "milliseconds": statistics.median(reads) * 1e3, "least_milliseconds": min(reads) * 1e3}  # fmt: skip
    docs.close()


def syncs(folder: Path, duration: float) -> float:
    """Appended and synced blocks a second."""
    descriptor, n = os.open(folder / "syncs", os.O_RDWR | os.O_CREAT), 0
    began = time.perf_counter()
    while time.perf_counter() - began < duration:
        os.pwrite(descriptor, bytes(8192), n * 8192)
        os.fsync(descriptor)
        n += 1
    os.close(descriptor)
    return n / (time.perf_counter() - began)


def upserts(folder: Path, duration: float) -> Iterator[Record]:
    vector = np.random.default_rng(0).standard_normal((1, 384), dtype=np.float32)
    for n_threads in (1, 4, 16):
        docs = nearly.open(folder / f"upserts{n_threads}")
        done, rates, spent = [0] * n_threads, [], 0.0

        def work(thread: int, until: float, docs: Any = docs, done: list[int] = done) -> None:
            while time.perf_counter() < until:
                docs.upsert(
                    vector, ids=[f"{thread} {done[thread] % 1000}"], metadata={"year": [2000]}, documents=["text"]
                )
                done[thread] += 1

        for _ in range(10):  # in turns: the speed of disks changes from second to second
            rates.append(syncs(folder, duration / 20))
            began = time.perf_counter()
            threads = [threading.Thread(target=work, args=(i, began + duration / 10)) for i in range(n_threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            spent += time.perf_counter() - began
        docs.close()
        rate, rows = statistics.mean(rates), sum(done) / spent
        yield {"part": "upserts", "threads": n_threads, "rows_per_second": rows, "syncs_per_second": rate,
               "share": rows / (n_threads * rate), "rows_per_commit": sum(done) / docs._writer.n_commits}  # fmt: skip


def opening(folder: Path, n: int) -> Iterator[Record]:
    rng = np.random.default_rng(0)
    docs = nearly.open(folder / "open", background=False)
    docs.add(rng.random((n, 8), dtype=np.float32), ids=[f"key {i:08d}" for i in range(n)], metadata=columns(n, 0))
    docs.close()
    record: Record = {"part": "open", "rows": n, "bytes": measure.folder_bytes(folder / "open")}
    times: list[list[float]] = []
    for _ in range(5):
        began = time.perf_counter()
        docs = nearly.open(folder / "open", background=False)
        opened = time.perf_counter() - began
        steps = (
            partial(docs.get, "key 00000007"),
            partial(docs.count, "year > 2000"),
            partial(docs.search, np.zeros(8)),
        )
        times.append([opened, *map(seconds, steps)])
        docs.close()
    for name, each in zip(("open", "first_get", "first_count", "first_search"), zip(*times, strict=True), strict=True):
        record[f"{name}_milliseconds"] = statistics.median(each) * 1e3
    yield record


SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
#define LATER(name) int name(int file) { \\
  usleep(MICROSECONDS); return ((int (*)(int))dlsym(RTLD_NEXT, #name))(file); }
LATER(fsync) LATER(fdatasync)
"""


def begin_again(sync_ms: float) -> None:
    """Run this very command with a libc whose syncs take longer."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "slow.so")
        define = f"-DMICROSECONDS={round(sync_ms * 1000)}"
        subprocess.run(["cc", "-shared", "-fPIC", define, "-xc", "-", "-o", library], input=SLOW, text=True, check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cve_minilm_384")
    parser.add_argument("--limit", type=int, default=25_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of upserts, for each number of threads")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="default: all")
    parser.add_argument("--sync-ms", type=float, default=0.0, help="milliseconds by which each sync takes longer")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="on the disk to measure")
    arguments = parser.parse_args()
    if arguments.sync_ms and "LD_PRELOAD" not in os.environ:
        begin_again(arguments.sync_ms)
    nearly.set_threads(arguments.threads)
    arguments.folder.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="collection-", dir=arguments.folder))
    try:
        data = datasets.load(arguments.data, limit=arguments.limit)
        parts = {
            "bulk": lambda: chain(bulk(data, folder, arguments.rounds), search(data, folder)),
            "upserts": lambda: upserts(folder, arguments.seconds),
            "open": lambda: opening(folder, arguments.rows),
        }
        for part in arguments.parts:
            for record in parts[part]():
                facts = {"sync_ms": arguments.sync_ms, **measure.machine(), "load": os.getloadavg()[0]}
                print(measure.line({"bench": "durable", **record, **facts}), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
