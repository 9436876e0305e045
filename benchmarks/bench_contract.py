"""Is the recall that was asked for delivered?   python benchmarks/bench_contract.py --data cve_minilm_384

An index is built twice: calibrated by itself, on points and noisy copies of points (`calibration` "own"), and with
`queries=`, a hundred of the file drawn at random ("queries"). The other queries are then searched for targets of 0.80,
0.90, 0.95 and 0.99. One JSON line per data set, calibration and target: recall@10 `delivered`, the index's own estimate
`expected`, the plan, and the cost. `holds`: not below the target by more than 0.01. `tight`: not above it by more than
0.03, or not above `least`, the recall of the least effort, where that is the higher one.

Traps: queries that calibrated must not be searched, so those are other ones, of the same kind. The contract is on the
mean: `error` is its standard error over the queries, and a miss within that says nothing. Recall counts distances, so
ties do not hurt. CVE searches long texts by titles: no calibration from the rows alone has seen
such queries. A target beyond the curve is answered by an exact scan (`scan`), right and slow. Speeds are of one batch
on one core, best of three by processor time; compare them within a run, and with peers only by bench_peers.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import datasets
import measure
import numpy as np
from datasets import Dataset, K
from numpy.typing import NDArray

TARGETS = (0.80, 0.90, 0.95, 0.99)
BELOW, ABOVE = 0.01, 0.03  # how far recall may miss its target
CALIBRATIONS = ("own", "queries")


def main() -> None:
    """Measure every data set and calibration, and print one line per target."""
    arguments = parse()
    for name in arguments.data:
        data, others = split(datasets.load(name, n_queries=1 << 30, limit=arguments.limit), arguments)
        for kind in arguments.index:
            for calibration in arguments.calibration:
                for record in contract(kind, data, others if calibration == "queries" else None, arguments):
                    facts = {"data": data.describe(), "machine": measure.machine()}
                    about = {"bench": "contract", "index": kind, "calibration": calibration}
                    print(measure.line({**about, **record, **facts}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(datasets.STANDARD), help="default: the five real sets")
    parser.add_argument("--index", nargs="+", choices=["Vamana", "HNSW"], default=["Vamana"])
    parser.add_argument("--calibration", nargs="+", choices=CALIBRATIONS, default=list(CALIBRATIONS))
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS))
    parser.add_argument("--recall", type=float, default=0.95, help="that the index is built for (default 0.95)")
    parser.add_argument("--queries", type=int, default=1000, help="to search, at most (default 1000)")
    parser.add_argument("--others", type=int, default=100, help="to calibrate on (default 100)")
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    return parser.parse_args()


def split(data: Dataset, arguments: argparse.Namespace) -> tuple[Dataset, NDArray[np.float32]]:
    """Return the data with the queries to search, and other queries to calibrate on."""
    order = np.random.default_rng(0).permutation(len(data.queries))
    others, searched = order[: arguments.others], np.sort(order[arguments.others :][: arguments.queries])
    chosen = dataclasses.replace(data, queries=data.queries[searched], radius=data.radius[searched])
    return chosen, data.queries[others]


def contract(
    kind: str, data: Dataset, others: NDArray[np.float32] | None, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Build one index and yield what it delivers for each target."""
    import nearly

    make = getattr(nearly, kind)
    built = measure.timed(lambda: make(data.vectors, metric=data.metric, recall=arguments.recall, queries=others))
    index = built.result
    print(f"{data.name}: {index!r}", file=sys.stderr)
    measure.pin(measure.CPUS[-1:])
    least = data.recall(index.search(data.queries, K, effort=1, threads=1).ids)
    for target in arguments.targets:
        hits, seconds = timed_search(index, data.queries, target)
        recalls, n = data.recalls(hits.ids), len(data.queries)
        delivered = float(recalls.mean())
        yield {
            "built_for": arguments.recall,
            "target": target,
            "delivered": delivered,
            "error": float(recalls.std() / n**0.5),
            "expected": hits.expected_recall,
            "least": least,
            **verdict(target, delivered, least),
            "scan": hits.stats.n_hops == 0,
            "qps_cpu": n / seconds,
            "distances_per_query": hits.stats.n_distances / n,
            "build_seconds": built.seconds,
            "plan": hits.plan,
        }
    measure.pin(measure.CPUS)


def timed_search(index: Any, queries: NDArray[np.float32], target: float) -> tuple[Any, float]:
    """Return the hits, and the processor seconds of the best of three passes."""
    passes = [measure.timed(lambda: index.search(queries, K, recall=target, threads=1)) for _ in range(3)]
    return passes[0].result, min(took.cpu_seconds for took in passes)


def verdict(target: float, delivered: float, least: float) -> dict[str, bool]:
    """Return whether a delivered recall keeps the promise, and whether it does so without waste."""
    rounding = 1e-9
    return {
        "holds": delivered >= target - BELOW - rounding,
        "tight": delivered <= max(target, least) + ABOVE + rounding,
    }


if __name__ == "__main__":
    main()
