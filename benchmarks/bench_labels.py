"""What do lists made for labels save, and cost?   python benchmarks/bench_labels.py --data sift_bsds_128_l2

A `Vamana` with `labels=` beside one without, of the same vectors. Labels of two kinds, one a vector: `zipf`, drawn at
random, the r-th most common with a probability in proportion to 1 / r; and `cells`, the nearest of some centers, so
that a query is near to few labels and far from all others. One JSON line per kind, way, label and target: recall@10
`delivered` beside an exact scan, comparisons and lists a query. Ways: `within`, the label as a filter of the index with
labels; `filtered`, the same rows as a mask for the index without. A line of its own has seconds of processor time and
bytes of both.

Traps: comparisons and lists are exact counts; those of queries that were scanned after a walk are added. A list costs
about as much as comparing with 16 vectors in a row. Building is timed once: the lists of the two take different ways
through memory, so a busy machine moves the ratio.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import datasets
import measure
import numpy as np
from numpy.typing import NDArray

import nearly
from nearly import F
from nearly.kmeans import assign, kmeans

K = 10
SHOWN = (0, 1, 3, 9)  # labels by rank, of those that are common enough for walks
CELLS = 60


def main() -> None:
    """Print one line for each kind of labels, way, label and target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["sift_bsds_128_l2"])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.90, 0.95])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--labels", type=int, default=10_000, help="of the kind zipf")
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    arguments = parser.parse_args()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        plain, seconds = built(data, None)
        for kind, labels in (("zipf", zipf(len(data.vectors), arguments.labels)), ("cells", cells(data.vectors))):
            made, taken = built(data, labels)
            sizes = {
                "seconds": taken, "seconds_without": seconds, "n_bytes": made.n_bytes, "n_bytes_without": plain.n_bytes,
            }  # fmt: skip
            about = {"data": data.describe(), "machine": measure.machine()}
            for record in (sizes, *compared(plain, made, data.queries, labels, arguments.targets)):
                print(json.dumps({"bench": "labels", "kind": kind, **record, **about}), flush=True)


def built(data: datasets.Dataset, labels: NDArray[Any] | None) -> tuple[nearly.Vamana, float]:
    """Return an index, and the processor time that it took."""
    before = time.process_time()
    made = nearly.Vamana(data.vectors, metric=data.metric, labels=labels, threads=1)
    return made, time.process_time() - before


def zipf(n: int, n_labels: int) -> NDArray[np.int64]:
    """Return labels at random."""
    share = 1 / np.arange(1, n_labels + 1)
    return np.random.default_rng(0).choice(n_labels, n, p=share / share.sum())


def cells(vectors: NDArray[Any]) -> NDArray[np.int64]:
    """Return the nearest of some centers for each vector."""
    rows = np.ascontiguousarray(vectors, np.float32)
    return assign(rows, kmeans(rows[:: max(1, len(rows) // 10_000)], CELLS, seed=0)).astype(np.int64)


def compared(
    plain: Any, made: Any, queries: NDArray[Any], labels: NDArray[Any], targets: list[float]
) -> Iterator[dict[str, Any]]:
    """Yield what each way delivers and costs, for some labels."""
    names, counts = np.unique(labels, return_counts=True)
    common = names[np.argsort(-counts, kind="stable")]
    for rank in SHOWN:
        rows = np.flatnonzero(labels == common[rank])
        for target in targets:
            for way, index, where in (("within", made, F.label == int(common[rank])), ("filtered", plain, rows)):
                found = searched(index, queries, where, target, len(rows))
                if way == "within" and found["n_lists"]:  # the other way has counted them
                    found["n_distances"] += found["n_scanned"] * len(rows) / len(queries)
                yield {"way": way, "rank": rank, "n": len(rows), "k": K, **found}


def searched(index: Any, queries: NDArray[Any], where: Any, target: float, n: int) -> dict[str, Any]:
    """Return what a filter that passes n rows delivers, and its work a query."""
    hits = index.search(queries, k=K, recall=target, where=where)
    truth = index.search(queries, k=K, exact=True, where=where).distances
    wanted = min(K, n)
    if hits.stats.n_hops == 0:
        scanned = len(queries)
    else:  # "...; 3 queries came back short and were scanned; ..."
        short = [part for part in hits.plan.split("; ") if "came back short" in part]
        scanned = int(short[0].split()[0]) if short else 0
    return {
        "target": target,
        "delivered": float((hits.distances[:, :wanted] <= truth[:, wanted - 1 : wanted]).mean()),
        "n_distances": hits.stats.n_distances / len(queries),
        "n_lists": hits.stats.n_hops / len(queries),
        "n_queries": len(queries),
        "n_scanned": scanned,
    }


if __name__ == "__main__":
    main()
