"""How fast is each index by each quantizer, in how much memory?   python benchmarks/bench_codes.py --index ivf

Every pair of PAIRS (peers.py) and the peers of its index are built, then take turns on one core, A B C, then C B A
(finalists.py). Ours by lists and scans is asked for recalls and calibrated on its rows alone; graphs and peers sweep
their efforts. JSON lines, by "bench":

codes-build  one per configuration: `bytes` a vector in memory for searching, all included; of them `rank_bytes` are
             full rows that only rank what codes have found (with `-disk` they are in a file and not in `bytes`)
codes-curve  one per mode and configuration: (recall, median QPS), around the recalls 0.90, 0.95 and 0.99
codes        one per mode, recall and peer: the fastest of ours that takes no more memory than it, `a`; `ratio` is
             formed within each round, by wall clock and, `cpu_ratio`, by processor time. Above 1 we are faster.

Traps: bytes are those of the saved index, as no library says what it holds in memory. Peers rank by float32 rows, ours
by the smallest type that loses nothing: uint8 on SIFT. An index that never reached a recall is named in `reached`. A
pair that was slow to build or to search may still be right for you: no line here weighs updates or filters.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import datasets
import finalists
import measure
from datasets import Dataset
from peers import PAIRS, PEERS
from worker import shared

DATA = ["sift_bsds_128_l2", "cve_minilm_384"]
AGAINST = {
    "flat": ["faiss-flat-products"],
    "ivf": ["faiss-ivf-pq", "faiss-ivf-pq-f16", "faiss-ivf-rabitq", "rabitqlib-ivf4", "rabitqlib-ivf8", "scann"],
    "vamana": ["rabitqlib-symqg0", "rabitqlib-symqg8", "svs-f16", "svs-lvq4x8", "svs-leanvec", "faiss-hnsw-sq8"],
}
Record = dict[str, Any]


def main() -> None:
    """Measure every data set and print the lines."""
    arguments = parse()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        with shared(data) as folder:
            for names in groups(arguments, data.metric):
                for record in compared(finalists.compare(data, folder, names, arguments), data):
                    facts = {"data": data.describe(), "machine": measure.machine()}
                    print(measure.line({**record, **facts}), flush=True)


def groups(arguments: argparse.Namespace, metric: str) -> Iterator[list[str]]:
    """Yield what takes turns together: the names given, or each index with its peers."""
    if arguments.names:
        yield [*arguments.names, *_suited(arguments.against or [], metric)]
        return
    for index in arguments.index:
        against = AGAINST[index] if arguments.against is None else arguments.against
        yield [*(name for name in PAIRS if name.split("-")[1] == index), *_suited(against, metric)]


def _suited(names: list[str], metric: str) -> list[str]:
    """Take those forms of peers that serve unit vectors best."""
    return [f"{name}-l2" if metric == "cosine" and f"{name}-l2" in PEERS else name for name in names]


def compared(records: Iterator[Record], data: Dataset) -> Iterator[Record]:
    """Yield builds and curves as records of this benchmark, and of the ratios to each peer the best of ours."""
    taken: dict[str, float] = {}
    ratios: dict[tuple[Any, ...], Record] = {}
    for record in records:
        if record["bench"] == "builds":
            if "error" not in record:
                record |= sizes(record, len(data.vectors))
                taken[record["peer"]] = record["bytes"]
            yield {**record, "bench": "codes-build"}
        elif record["bench"] == "curve":
            yield {**record, "bench": "codes-curve"}
        elif record["bench"] == "finalists" and taken[record["a"]] <= taken[record["b"]]:
            at = record["mode"], record["recall"], record["b"]
            if at not in ratios or _gain(record) > _gain(ratios[at]):
                ratios[at] = record
    for record in ratios.values():
        yield {**record, "bench": "codes"}


def sizes(built: Record, n_vectors: int) -> Record:
    """Return bytes a vector: all that is in memory for a search, and the part that only ranks."""
    on_disk = built["peer"].endswith("-disk")
    total, ranks = (built[key] / n_vectors for key in ("index_bytes", "rank_bytes"))
    return {"bytes": total - ranks * on_disk, "rank_bytes": ranks}


def _gain(record: Record) -> float:
    """The ratio; above all others where only we reach the recall, below where only the peer does."""
    if "ratio" in record:
        return float(record["ratio"])
    return float("inf") if record["reached"][record["a"]] else -1.0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA, help=f"default: {' '.join(DATA)}")
    parser.add_argument("--index", nargs="+", choices=list(AGAINST), default=list(AGAINST))
    parser.add_argument("--names", nargs="+", metavar="NAME", help="only these take turns, and those of --against")
    parser.add_argument("--against", nargs="*", metavar="PEER", help="peers (default: those of the index)")
    parser.add_argument("--modes", nargs="+", choices=["batch", "single", "all"], default=["batch"])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--threads", type=int, default=min(2, len(measure.CPUS)), help="to build with (default 2)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one build")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU of one-thread searches")
    return parser.parse_args()


if __name__ == "__main__":
    main()
