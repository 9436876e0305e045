"""Does a filter keep the recall, and what does it cost?   python benchmarks/bench_filtered.py --data sift_bsds_128_l2

A `Vamana`, calibrated on its rows alone, is searched under filters of known shares: `random` rows; a `half` space, the
rows on one side of a plane, so that the filter goes along with some queries and against others; and what is left when
the `nearest` of each query are taken out, which no query likes. One JSON line per filter, share and target: recall@10
`delivered` beside an exact search of what passes, comparisons and lists a query, and how many queries were scanned.

Traps: comparisons are exact counts of the walks, so nothing is timed; a query that gave up compares with all that pass
besides. A list costs about as much as comparing with 16 vectors in a row. The exact search is that of the same index
(`exact=True`), which the tests hold against NumPy. Queries of `nearest` have a filter each, so there are few: a mean of
40 is known to some hundredths.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import datasets
import measure
import numpy as np
from numpy.typing import NDArray

import nearly

K = 10
SHARES = (0.7, 0.5, 0.2, 0.1, 0.05, 0.01)
LEFT_OUT = (0.0003, 0.001, 0.01)  # shares of all rows that are nearest to a query


def main() -> None:
    """Print one line for each filter, share and target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["sift_bsds_128_l2", "cve_minilm_384"])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.90, 0.95])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--each", type=int, default=40, help="queries with a filter of their own")
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    arguments = parser.parse_args()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        index = nearly.Vamana(data.vectors, metric=data.metric)
        for record in compared(index, data, arguments.targets, arguments.each):
            shown = {"bench": "filtered", **record, "data": data.describe(), "machine": measure.machine()}
            print(json.dumps(shown), flush=True)


def compared(index: Any, data: datasets.Dataset, targets: list[float], each: int) -> Iterator[dict[str, Any]]:
    """Yield what each filter delivers and costs."""
    n, rng = len(data.vectors), np.random.default_rng(0)
    towards = np.argsort(-(data.vectors @ data.queries[0]))
    for share in SHARES:
        count = max(1, round(share * n))
        for name, rows in (("random", rng.permutation(n)[:count]), ("half", towards[:count])):
            for target in targets:
                yield {"filter": name, "share": share, **searched(index, data.queries, np.sort(rows), target)}
    for left_out in LEFT_OUT:
        for target in targets:
            parts = []
            for query in data.queries[:each]:
                nearest = index.search(query, k=max(1, round(left_out * n)), exact=True).ids
                parts.append(searched(index, query[None], np.setdiff1d(np.arange(n), nearest), target))
            means = {
                key: float(np.mean([part[key] for part in parts])) for key in ("delivered", "n_distances", "n_lists")
            }
            scanned = sum(part["n_scanned"] for part in parts)
            yield {"filter": "nearest", "share": 1 - left_out, "target": target, **means, "n_queries": len(parts),
                   "n_scanned": scanned}  # fmt: skip


def searched(index: Any, queries: NDArray[Any], rows: NDArray[Any], target: float) -> dict[str, Any]:
    """Return what one filter delivers, and its work a query."""
    hits = index.search(queries, k=K, recall=target, where=rows)
    truth = index.search(queries, k=K, exact=True, where=rows).distances
    wanted = min(K, len(rows))
    if hits.plan.startswith("exact scan"):
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
