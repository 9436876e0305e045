"""Does HNSW find what hnswlib finds at equal parameters?   python benchmarks/bench_hnsw.py --data sift_bsds_128_l2

Equal parameters: M, ef_construction = 200, effort = ef, and graphs over the vectors themselves (`quantizer=Plain()`),
as hnswlib has no codes. One JSON line per data set, configuration and effort: recall@10 by distance, the mean over
seeds, with the least and the most, and comparisons per query where they are counted. `plain` must not be below
`hnswlib` by more than 0.002; `codes`, our default, walks by other distances than the vectors' and ranks what it found
by these.

Traps: one seed says little, as recall at a small effort moves by some thousandths from seed to seed. No time is
measured here: bench_peers.py has that.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import measure
from datasets import Dataset, K

Search = Callable[[int], tuple[Any, float | None]]  # effort -> ids, comparisons per query


def main() -> None:
    """Measure every data set and print one line per configuration and effort."""
    arguments = parse()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        for record in compare(data, arguments):
            facts = {"data": data.describe(), "machine": measure.machine()}
            print(measure.line({"bench": "hnsw", **record, **facts}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["sift_bsds_128_l2", "wordvec_trivia_64_cosine"])
    parser.add_argument("--configurations", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--efforts", nargs="+", type=int, default=[10, 14, 20, 28, 40, 80, 160])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    return parser.parse_args()


def compare(data: Dataset, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a record for every configuration and effort."""
    for name in arguments.configurations:
        recalls: dict[int, list[float]] = {effort: [] for effort in arguments.efforts}
        compared: dict[int, list[float]] = {effort: [] for effort in arguments.efforts}
        for seed in range(arguments.seeds):
            search = MAKERS[name](data, arguments.m, seed)
            for effort in arguments.efforts:
                ids, n_distances = search(effort)
                recalls[effort].append(data.recall(ids))
                compared[effort] += [] if n_distances is None else [n_distances]
        for effort, found in recalls.items():
            yield {
                "peer": name, "m": arguments.m, "effort": effort, "seeds": arguments.seeds,
                "recall": statistics.mean(found), "least": min(found), "most": max(found),
                "n_distances": statistics.mean(compared[effort]) if compared[effort] else None,
            }  # fmt: skip


def hnswlib(data: Dataset, m: int, seed: int) -> Search:
    """Return a search of its index; its insertions race on several threads, so one builds."""
    import hnswlib

    index = hnswlib.Index(space=data.metric, dim=data.vectors.shape[1])
    index.init_index(max_elements=len(data.vectors), M=m, ef_construction=200, random_seed=seed)
    index.add_items(data.vectors, num_threads=1)

    def search(effort: int) -> tuple[Any, None]:
        index.set_ef(effort)
        return index.knn_query(data.queries, k=K)[0], None

    return search


def ours(data: Dataset, m: int, seed: int, quantizer: Any) -> Search:
    """Return a search of our index."""
    import nearly

    index = nearly.HNSW(
        data.vectors, metric=data.metric, M=m, ef_construction=200, quantizer=quantizer, calibrate=False, seed=seed
    )

    def search(effort: int) -> tuple[Any, float]:
        hits = index.search(data.queries, k=K, effort=effort)
        return hits.ids, hits.stats.n_distances / len(data.queries)  # type: ignore[union-attr]

    return search


def plain(data: Dataset, m: int, seed: int) -> Search:
    """Return a search of our index over the vectors themselves."""
    import nearly

    return ours(data, m, seed, nearly.Plain())


def codes(data: Dataset, m: int, seed: int) -> Search:
    """Return a search of our index as it is by default."""
    return ours(data, m, seed, None)


MAKERS: dict[str, Callable[[Dataset, int, int], Search]] = {"hnswlib": hnswlib, "plain": plain, "codes": codes}


if __name__ == "__main__":
    main()
