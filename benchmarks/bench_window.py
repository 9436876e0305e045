"""What does a window cost, at every fraction?   python benchmarks/bench_window.py --values random

For windows that hold 1/n, 10/n ... of all vectors and then all, placed at random for each query, one JSON line per
fraction and target: recall@10 `delivered` against brute force over the window; `qps`, one query a call on one core, by
processor time; the same of a single graph over all vectors that filters what it meets (`post_qps`, `post_delivered`:
plain post-filtering, its pool widened by the inverse fraction) and of that graph with a scan where that compares less
(`planned_qps`); ratios are formed within each round and their median is reported. `ways` counts which were taken.

Traps: SIFT rows stand in the order of their images, so `--values position` goes with the vector and `random` does not;
CVE has its real times of publication, with a gap of years. `method="within"` on a tree of one graph is post-filtering;
where it comes back short it scans, so its recall is no worse for tiny windows, and it gets the first 40 queries only.
Recall counts distances, so ties do not hurt. `--every` keeps each so many rows only: figures are of a smaller set then,
and named so. Building takes a graph for each level: `--keep` puts indexes into a folder and takes them from there.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np
from datasets import Dataset, K
from numpy.typing import NDArray

TARGETS = (0.90, 0.95)
ROUNDS = 3
POST = 40  # queries that plain post-filtering answers, as it may take a hundred times as long


def main() -> None:
    """Build both indexes and print one line per fraction and target."""
    arguments = parse()
    data, values = loaded(arguments)
    tree, single = (built(data, values, one, arguments) for one in (False, True))
    facts = {
        "data": {**data.describe(), "values": arguments.values},
        "branching": arguments.branching,
        "bytes_per_vector": tree.n_bytes / len(tree),
        "post_bytes_per_vector": single.n_bytes / len(single),
        "machine": measure.machine(),
    }
    measure.pin(measure.CPUS[-1:])
    for fraction in arguments.fractions or fractions(len(values)):
        windows = placed(values, fraction, len(data.queries))
        radii = truth(data, values, windows)
        for target in arguments.targets:
            about = {"bench": "window", "fraction": fraction, "target": target}
            print(measure.line({**about, **compared(tree, single, data, windows, radii, target), **facts}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sift_bsds_128_l2", help="a data set; CVE has times")
    parser.add_argument("--values", choices=["random", "position", "time"], default="random")
    parser.add_argument("--every", type=int, default=1, help="keep each so many rows only")
    parser.add_argument("--limit", type=int, help="and then the first so many")
    parser.add_argument("--queries", type=int, default=300, help="to search (default 300)")
    parser.add_argument("--branching", type=int, default=4)
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS))
    parser.add_argument("--fractions", nargs="+", type=float, help="instead of decades")
    parser.add_argument("--keep", type=Path, help="a folder for built indexes")
    return parser.parse_args()


def loaded(arguments: argparse.Namespace) -> tuple[Dataset, Any]:
    """Return the data, named by what was kept of it, and the values."""
    data = datasets.load(arguments.data, n_queries=arguments.queries)
    n = len(data.vectors)
    if arguments.values == "time":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(datasets.data_folder() / "cve_records.parquet", columns=["published"])
        values = table["published"].to_numpy()
    else:
        values = np.arange(n) if arguments.values == "position" else np.random.default_rng(0).permutation(n)
    kept = np.arange(0, n, arguments.every)[: arguments.limit]
    name = data.name if len(kept) == n else f"{data.name}-{len(kept)}"
    return dataclasses.replace(data, name=name, vectors=np.ascontiguousarray(data.vectors[kept])), values[kept]


def built(data: Dataset, values: Any, one: bool, arguments: argparse.Namespace) -> Any:
    """A tree of graphs, or one graph over all; from the folder if it is there."""
    import nearly

    kind = "one" if one else f"tree{arguments.branching}"
    path = None if arguments.keep is None else arguments.keep / f"{data.name}-{arguments.values}-{kind}.nearly"
    if path is not None and path.exists():
        return nearly.load(path)
    shape = {"branching": 2, "leaf": -(-len(values) // 2)} if one else {"branching": arguments.branching}
    rows = data.vectors.astype(np.float16) if data.metric == "cosine" else data.vectors  # as the file has them
    index = nearly.Window(rows, values, metric=data.metric, **shape)
    print(f"{data.name}: {index!r}", file=sys.stderr)
    if path is not None:
        index.save(path)
    return index


def fractions(n: int) -> list[float]:
    """1/n, then decades, and all."""
    return [1 / n, *(10.0**-power for power in range(int(np.log10(n)), 0, -1) if 10.0**-power > 2 / n), 0.5, 1.0]


def placed(values: Any, fraction: float, n_queries: int) -> list[tuple[Any, Any]]:
    """A window for each query that holds that part of all vectors, somewhere; equal values may add to it."""
    ordered = np.sort(values)
    size = max(1, round(fraction * len(values)))
    starts = np.random.default_rng(size).integers(0, len(values) - size + 1, n_queries)
    return [(ordered[at], ordered[at + size - 1]) for at in starts]


def truth(data: Dataset, values: Any, windows: Any) -> NDArray[np.float64]:
    """Distance of the last of the true neighbors in each window, and how many there are."""
    out = np.empty((len(windows), 2))
    for i, (low, high) in enumerate(windows):
        inside = np.flatnonzero((values >= low) & (values <= high))
        near = min(K, len(inside))
        distances = measure.squared_or_negated(data.vectors, inside[None], data.queries[i : i + 1], data.metric)[0]
        out[i] = np.partition(distances, near - 1)[near - 1], near
    return out


def compared(
    tree: Any, single: Any, data: Dataset, windows: Any, radii: NDArray[np.float64], target: float
) -> dict[str, Any]:
    """Search all windows by both indexes in turns."""
    ways = {"": (tree, "auto"), "post_": (single, "within"), "planned_": (single, "auto")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[Any]] = {}
    for turn in range(ROUNDS + 1):
        for name, (index, method) in list(ways.items())[:: 1 if turn % 2 else -1]:
            began = time.process_time()
            n = POST if method == "within" else len(windows)
            answers[name] = [
                index.search(query, K, window=window, recall=target, method=method, threads=1)
                for query, window in zip(data.queries[:n], windows[:n], strict=True)
            ]
            if turn:  # the first is thrown away
                seconds[name].append((time.process_time() - began) / len(answers[name]))
    record: dict[str, Any] = {"expected": statistics.mean(hits.expected_recall for hits in answers[""])}
    for name in ways:
        record[f"{name}delivered"] = delivered(answers[name], data, radii)
        record[f"{name}qps"] = 1 / statistics.median(seconds[name])
        record[f"{name}distances"] = statistics.mean(hits.stats.n_distances for hits in answers[name])
    for name in ("post", "planned"):
        ratios = [theirs / ours for theirs, ours in zip(seconds[f"{name}_"], seconds[""], strict=True)]
        record[f"over_{name}"] = statistics.median(ratios)
    return {**record, "ways": dict(Counter(hits.plan.split(": ")[0].split(", ")[-1] for hits in answers[""]))}


def delivered(answers: list[Any], data: Dataset, radii: NDArray[np.float64]) -> float:
    """Mean share of the true neighbors, by distance; a hundred-thousandth farther counts, as rows may be float16."""
    shares = []
    for hits, query, (radius, near) in zip(answers, data.queries, radii, strict=False):
        distances = measure.squared_or_negated(data.vectors, hits.ids[None], query[None], data.metric)[0]
        shares.append(float((distances <= radius + 1e-5 * abs(radius)).sum() / near))
    return statistics.mean(shares)


if __name__ == "__main__":
    main()
