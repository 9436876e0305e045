"""How fast is nearly beside its peers, at equal recall?   python benchmarks/bench_peers.py --data mnist_784_l2

Sweep (default): one configuration after another, each within a time budget, every search effort.
Finalists: `--finalists nearly-vamana scann ...` builds them all and lets them take turns on one core; the ratio is
formed within each round. Without names: our best and the peers that win a column of the sweep. Only this mode
supports a claim. Traps and method: benchmarks/README.md.
"""

import argparse
import importlib.util
import itertools
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np
import peers
import report
from datasets import Dataset
from worker import PeerError, Worker, shared

DISTRIBUTIONS = {"faiss": "faiss-cpu", "svs": "scalable-vs", "ngtpy": "ngt"}


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
            records = compare(data, folder, names, arguments)
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
    parser.add_argument("--modes", nargs="*", choices=report.MODES, default=list(report.MODES))
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
    known = [] if arguments.redo else report.sweeps(report.read(out))
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
                yield {**about, "version": version(package), **sweep(worker, data, arguments)}
            except PeerError as error:
                yield {**about, "error": str(error)}
            finally:
                worker.close()


def sweep(worker: Worker, data: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Build, then search with rising effort until recall stops rising or the seconds are spent."""
    record = worker.ask("build", threads=arguments.threads, timeout=arguments.timeout)
    deadline, points, ended = time.monotonic() + arguments.sweep_seconds, [], "all efforts"
    series_of_efforts = record.pop("efforts")
    least_gain = 1e-4 if len(series_of_efforts) == 1 else 2e-3  # another series goes further
    warm_up(worker, series_of_efforts[0][0], arguments.modes)
    for series in series_of_efforts:
        recall = -1.0
        for effort in series:
            if time.monotonic() > deadline:
                ended = "time"
                break
            point = measure_point(worker, data, effort, arguments.modes)
            points.append(point)
            saturated = point["recall"] >= 0.995 or (point["recall"] > 0.5 and point["recall"] - recall < least_gain)
            if saturated or point["seconds"] > 12:
                break
            recall = point["recall"]
    try:
        size = worker.ask("size")
    except PeerError as error:
        size = {"index_bytes": None, "size_error": str(error)}
    return {**record, **size, "threads": arguments.threads, "points": points, "ended": ended}


def warm_up(worker: Worker, effort: list[float], modes: list[str]) -> None:
    """Throw away the first calls: lazy set-up, page faults, thread pools."""
    for mode in modes:
        worker.search(mode, effort, 20)


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


def version(package: str) -> str:
    """Return the installed version of a peer."""
    try:
        return metadata.version(DISTRIBUTIONS.get(package, package))
    except metadata.PackageNotFoundError:
        return "unknown"


# ---------------------------------------------------------------- finalists


def compare(data: Dataset, folder: Path, names: list[str], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield, for every mode and recall, ours over each other finalist: median and quartiles over rounds."""
    labels = [name + " (again)" * names[:place].count(name) for place, name in enumerate(names)]
    ours = [label for label in labels if label.startswith("nearly")]
    if not ours or len(ours) == len(labels):  # nobody or only us: the first against the rest
        ours = labels[:1]
    pairs = [(a, b) for a, b in itertools.product(ours, labels) if b not in ours]
    with ExitStack() as stack:
        workers = []
        for name, label in zip(names, labels, strict=True):  # one after another: a build has the machine to itself
            worker = Worker(folder, name, data.metric, arguments.core, label=label)
            stack.callback(worker.close)
            workers.append((worker, worker.ask("build", threads=arguments.threads, timeout=arguments.timeout)))
            print(f"{label}: built in {workers[-1][1]['build_seconds']:.1f} s", flush=True)
        for mode in arguments.modes:
            plans = {worker: plan(worker, data, built["efforts"], mode) for worker, built in workers}
            rounds = take_turns(plans, len(data.queries), mode, arguments.rounds)
            for target, (a, b) in itertools.product(measure.TARGETS, pairs):
                speeds = [(measure.qps_at(turn[a], target), measure.qps_at(turn[b], target)) for turn in rounds]
                both = [(x, y) for x, y in speeds if x is not None and y is not None]
                about = {"bench": "finalists", "mode": mode, "recall": target, "a": a, "b": b, "rounds": len(rounds)}
                if not both:
                    reached = {name: speed is not None for name, speed in zip((a, b), speeds[0], strict=True)}
                    yield {**about, "reached": reached}
                    continue
                ratios = [x / y for x, y in both]
                low, middle, high = np.percentile(ratios, [25, 50, 75]).tolist()
                qps_a, qps_b = (statistics.median(side) for side in zip(*both, strict=True))
                yield {**about, "ratio": middle, "q25": low, "q75": high, "qps_a": qps_a, "qps_b": qps_b}


def plan(worker: Worker, data: Dataset, series_of_efforts: list[Any], mode: str) -> list[tuple[float, list[float]]]:
    """Return (recall, effort) of the efforts next to the targets on the frontier of the best of three passes."""
    warm_up(worker, series_of_efforts[0][0], [mode])
    efforts, points = [], []
    for series in series_of_efforts:
        for effort in series:
            seconds = worker.search(mode, effort, len(data.queries), keep=True)["seconds"]
            recall = data.recall(worker.ids())
            for _ in range(2 if recall > 0.8 and seconds < 2 else 0):
                seconds = min(seconds, worker.search(mode, effort, len(data.queries))["seconds"])
            efforts.append(effort)
            points.append((recall, 1 / seconds))
            if recall >= 0.995 or seconds > 12:
                break
    return [(points[i][0], efforts[i]) for i in measure.around_targets(points)]


def take_turns(
    plans: dict[Worker, list[tuple[float, list[float]]]], n_queries: int, mode: str, n_rounds: int
) -> list[dict[str, list[measure.Point]]]:
    """Return, per round and name, the points measured: A B C, then C B A, one effort of each at a time."""
    rounds = []
    for number in range(n_rounds):
        turn: dict[str, list[measure.Point]] = {worker.label: [] for worker in plans}
        order = list(plans) if number % 2 == 0 else list(plans)[::-1]
        for step in range(max(map(len, plans.values()))):
            for worker in order:
                if step < len(plans[worker]):
                    recall, effort = plans[worker][step]
                    seconds = worker.search(mode, effort, n_queries)["seconds"]
                    turn[worker.label].append((recall, n_queries / seconds))
        rounds.append(turn)
    return rounds


if __name__ == "__main__":
    main()
