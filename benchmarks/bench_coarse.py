"""What do lists by fewer dimensions save, and cost?   python benchmarks/bench_coarse.py --data mnist_784_l2

`IVF` in full width, and with centers in a half to a sixteenth of the dimensions, by principal components and by
leading coordinates. One JSON line per width and recall asked for: `build_seconds` without calibration and `qps` in
batches, both by the processor time of one thread, `ratio` to full width in interleaved rounds; `codes` compared and
vectors `ranked` for a query.

Traps: queries of another kind than the rows get less than was asked for, so half of them are passed to `calibrate` and
the other half is searched. Leading coordinates tell what is near where embeddings were trained so; neither set is.
"""

import argparse
import functools
import statistics
from collections.abc import Iterator
from typing import Any

import datasets
import measure

import nearly

K = 10
ASKED = (0.9, 0.95, 0.99)
SHARES = (2, 4, 8, 16)
KINDS = {"Pca": nearly.Pca, "Matryoshka": nearly.Matryoshka}


def main() -> None:
    """Measure every data set and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cve_minilm_384", "mnist_784_l2"])
    parser.add_argument("--limit", type=int)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        facts = {"data": data.describe(), "machine": measure.machine()}
        for record in compared(data, arguments.rounds):
            print(measure.line({"bench": "coarse", **record, **facts}), flush=True)


def compared(data: Any, n_rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the records of one data set."""
    vectors, dim, half = data.vectors, data.vectors.shape[1], len(data.queries) // 2
    widths = [dim // share for share in SHARES if dim // share]
    specs = {"none": None, **{f"{name}({w})": kind(w) for name, kind in KINDS.items() for w in widths}}
    indexes, seconds = {}, {}
    for name, spec in specs.items():
        make = functools.partial(
            nearly.IVF, vectors, metric=data.metric, coarse=spec, calibrate=False, threads=1
        )  # fmt: skip
        seconds[name] = min(measure.timed(make).cpu_seconds for _ in range(2))
        indexes[name] = make()
        indexes[name].calibrate(data.queries[:half], threads=1)
    queries = data.queries[half:]
    radius = measure.exact_radius(vectors, queries, data.metric, K)
    for asked in ASKED:
        qps: dict[str, list[float]] = {name: [] for name in indexes}
        for order in measure.turns(list(indexes), n_rounds + 1):
            for name in order:
                one = measure.timed(functools.partial(indexes[name].search, queries, K, recall=asked, threads=1))
                qps[name].append(len(queries) / one.cpu_seconds)
        for name, index in indexes.items():
            hits = index.search(queries, K, recall=asked, threads=1)
            ratios = [a / b for a, b in zip(qps[name][1:], qps["none"][1:], strict=True)]
            found = measure.recalls_by_distance(hits.ids, vectors, queries, data.metric, radius, K)
            yield {
                "coarse": name, "asked": asked, "recall": float(found.mean()), "build_seconds": seconds[name],
                "qps": statistics.median(qps[name][1:]), **measure.quartiles(ratios),
                "codes": hits.stats.n_distances / len(queries), "ranked": hits.stats.n_reranked / len(queries),
                "bytes_per_vector": index.n_bytes / len(index),
            }  # fmt: skip


if __name__ == "__main__":
    main()
