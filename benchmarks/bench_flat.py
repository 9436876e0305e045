"""How fast is exact search of a batch beside faiss IndexFlat?   python benchmarks/bench_flat.py --data mnist_784_l2

Both get the same float32 rows, each in a process of its own, and take turns (A B, then B A). One JSON line per data
set, mode and peer: `ratio` is the peer's seconds by ours, formed within each round, median and quartiles; `cpu_ratio`
the same of processor time, which other work on the machine hurts less. Above 1 we are faster. Recall stands beside
it and must be 1.0 on both sides.

Traps: left alone, faiss 1.15 scans batches of short vectors one by one, which takes four times as long as its matrix
products (`faiss-flat-products`): compare with the better of the two. We leave out rows by bounds and narrow what was
integers, so random vectors say little about real ones: all five sets are measured. The first pass pages rows in and
starts pools; it is thrown away. One thread means one core for the whole process, BLAS included. A batch of another
size is another question: `--queries`.
"""

import argparse
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import datasets
import measure
from datasets import Dataset
from worker import PeerError, Worker, shared

OURS = "nearly-flat"
PEERS = ["faiss-flat", "faiss-flat-products"]


def main() -> None:
    """Measure every data set and print one line per mode and peer."""
    arguments = parse()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        for record in compare(data, arguments):
            facts = {"data": data.describe(), "machine": measure.machine()}
            print(measure.line({"bench": "flat", **record, **facts}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(datasets.STANDARD), help="default: the five real sets")
    parser.add_argument("--against", nargs="+", default=PEERS, metavar="PEER", help="such as: exact")
    parser.add_argument("--modes", nargs="+", choices=["batch", "single", "all"], default=["batch", "all"])
    parser.add_argument("--queries", type=int, default=1000, help="in the batch (default 1000)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU of one-thread searches")
    return parser.parse_args()


def compare(data: Dataset, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a record for every mode and peer; a peer that is missing or fails is named in one."""
    with shared(data) as folder, ExitStack() as stack:
        workers = {}
        for name in (OURS, *arguments.against):
            try:
                workers[name] = stack.enter_context(closing(Worker(folder, name, data.metric, arguments.core)))
                workers[name].ask("build", threads=len(measure.CPUS))
            except PeerError as error:
                if name == OURS:
                    raise
                del workers[name]
                yield {"a": OURS, "b": name, "error": str(error)}
        for mode in arguments.modes:
            recall, passes = take_turns(workers, data, mode, arguments.rounds)
            for name in list(workers)[1:]:
                yield {"mode": mode, "a": OURS, "b": name, **summary(passes[OURS], passes[name]),
                       "recall_a": recall[OURS], "recall_b": recall[name]}  # fmt: skip


def take_turns(
    workers: dict[str, Worker], data: Dataset, mode: str, n_rounds: int
) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
    """Return recall, and what each round took, by name."""
    recall = {}
    for name, worker in workers.items():
        worker.search(mode, [], len(data.queries), keep=True)
        recall[name] = data.recall(worker.ids())
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for order in measure.turns(list(workers), n_rounds):
        for name in order:
            passes[name].append(workers[name].search(mode, [], len(data.queries)))
    return recall, passes


def summary(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many times as fast we are, by wall clock and by processor time, and the seconds behind that."""
    found: dict[str, Any] = {"rounds": len(ours)}
    for key, prefix in (("seconds", ""), ("cpu_seconds", "cpu_")):
        pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=True)]
        found |= measure.quartiles((b / a for a, b in pairs), prefix)
        found |= {
            f"{key}_{side}": statistics.median(of) for side, of in zip("ab", zip(*pairs, strict=True), strict=True)
        }
    return found


if __name__ == "__main__":
    main()
