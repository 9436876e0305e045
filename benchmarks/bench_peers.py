"""How fast is nearly beside its peers, at equal recall?   python benchmarks/bench_peers.py --data mnist_784_l2

Sweep (default): one configuration after another, each within a time budget, every search effort.
Finalists: `--finalists nearly-vamana scann ...` builds them all and lets them take turns on one core; the ratio is
formed within each round. Without names: our best and the peers that win a column of the sweep. Only this mode
supports a claim. Traps and method: benchmarks/README.md.
"""

import argparse
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import finalists
import measure
import peers
import report
import tables
from datasets import Dataset
from worker import PeerError, Worker, shared


def main() -> None:
    """Parse the command line, measure, write the report."""
    arguments = parse()
    data = datasets.load(arguments.data, n_queries=arguments.queries, limit=arguments.limit)
    out = arguments.out or Path("build/bench") / f"peers-{data.name}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    with shared(data) as folder:
        if arguments.finalists is None:
            records = sweep_all(data, folder, arguments, out)
        else:
            names = arguments.finalists or report.choose_finalists(report.read(out))
            records = finalists.compare(data, folder, names, arguments)
        for record in records:
            facts = {"data": data.describe(), "machine": measure.machine(), "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
            with out.open("a") as file:
                file.write(measure.line({**record, **facts}) + "\n")
            print(report.one_line(record), flush=True)
    report.write(out)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=f"synthetic, {', '.join(datasets.SOURCES)}, or an .hdf5 file")
    parser.add_argument("--peer", nargs="*", help="names or libraries (default: all), such as: hnswlib faiss-hnsw-sq8")
    parser.add_argument("--finalists", nargs="*", metavar="NAME", help="compare these in interleaved rounds")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--modes", nargs="*", choices=tables.MODES, default=list(tables.MODES))
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=min(2, len(measure.CPUS)), help="to build with (default 2)")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU that one-thread searches run on")
    parser.add_argument("--budget", type=float, default=3600, help="seconds for the whole sweep")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one build")
    parser.add_argument("--sweep-seconds", type=float, default=25, help="seconds of searching per configuration")
    parser.add_argument("--redo", action="store_true", help="measure again what the file already holds")
    parser.add_argument("--out", type=Path, help="JSON lines (default build/bench/peers-DATA.jsonl)")
    return parser.parse_args()


# ---------------------------------------------------------------- the sweep


def sweep_all(data: Dataset, folder: Path, arguments: argparse.Namespace, out: Path) -> Iterator[dict[str, Any]]:
    """Yield one record per configuration that is not yet in the file; a failure is a record too."""
    deadline = time.monotonic() + arguments.budget
    known = [] if arguments.redo else tables.sweeps(report.read(out))
    done = {record["peer"] for record in known if "points" in record}
    for name in peers.names_for(data.metric, arguments.peer):
        package = peers.PEERS[name][0].package
        about = {"bench": "peers", "peer": name}
        if name in done:
            continue
        if importlib.util.find_spec(package) is None:
            yield {**about, "error": f"skipped: {package} is not installed"}
        elif time.monotonic() > deadline:
            yield {**about, "error": "not run: the budget was spent"}
        else:
            worker = Worker(folder, name, data.metric, arguments.core)
            try:
                yield {**about, "version": peers.version(name), **sweep(worker, data, arguments)}
            except PeerError as error:
                yield {**about, "error": str(error)}
            finally:
                worker.close()


def sweep(worker: Worker, data: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Build, then search with rising effort until recall stops rising or the seconds are spent."""
    record = worker.ask("build", threads=arguments.threads, timeout=arguments.timeout)
    asks = record.pop("asks")  # efforts are recalls: easy ones may all deliver the same, and none is past the last
    deadline, points, ended = time.monotonic() + arguments.sweep_seconds, [], "all efforts"
    series_of_efforts = record.pop("efforts")
    least_gain = 1e-4 if len(series_of_efforts) == 1 else 2e-3  # another series goes further
    worker.warm_up(series_of_efforts[0][0], arguments.modes)
    for series in series_of_efforts:
        recall = -1.0
        for effort in series:
            if time.monotonic() > deadline:
                ended = "time"
                break
            point = measure_point(worker, data, effort, arguments.modes)
            points.append(point)
            saturated = point["recall"] >= 0.995 or (point["recall"] > 0.5 and point["recall"] - recall < least_gain)
            if (saturated and not asks) or point["seconds"] > 12:
                break
            recall = point["recall"]
    return {**record, **worker.size(), "threads": arguments.threads, "points": points, "ended": ended}


def measure_point(worker: Worker, data: Dataset, effort: list[float], modes: list[str]) -> dict[str, Any]:
    """Measure one effort: the best of up to three passes in each mode. Low recall is timed once, by batch only."""
    n = len(data.queries)
    first = worker.search("batch", effort, n, keep=True)
    recall, slow = data.recall(worker.ids()), first["seconds"] > 1.5
    point = {"effort": effort, "recall": recall, "seconds": first["seconds"], "load": os.getloadavg()[0]}
    for name in modes:
        passes = [first] if name == "batch" else []
        some = n if name != "single" or not slow else max(100, int(n / first["seconds"]))
        if recall >= 0.75:
            for _ in range((1 if slow else 3) - len(passes)):
                passes.append(worker.search(name, effort, some, keep=True))
            point[f"recall_{name}"] = data.recall(worker.ids())
        if passes:
            point[f"qps_{name}"] = some / min(took["seconds"] for took in passes)
            point[f"qps_cpu_{name}"] = some / max(1e-9, min(took["cpu_seconds"] for took in passes))
    return point


if __name__ == "__main__":
    main()
