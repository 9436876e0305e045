"""How fast are inverted lists beside those of the peers?   python benchmarks/bench_ivf.py --data sift_bsds_128_l2

All are built, then take turns on one core, A B C, then C B A (finalists.py); a ratio is formed within each round. Ours
is asked for recalls (`recall=`) and calibrated on its rows alone; peers sweep probes and re-ranking depths. One JSON
line per build, with bytes of index file per vector, and two per mode, recall and pair: at the recall itself, and
("ivf-asked") at what ours delivered when it was asked for that; `ratio` by wall clock, `cpu_ratio` by processor time,
which other work on the machine hurts less. Above 1 we are faster.

Traps: peers re-rank by float32 rows, and so does ours where rows are no smaller numbers; memory says what that takes.
A single query is one Python call, whose cost is part of it. An index that never reached a recall is named in `reached`.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import datasets
import finalists
import measure
from worker import shared

OURS = "nearly-ivf"
PEERS = ["faiss-ivf-pq", "faiss-ivf-rabitq", "rabitqlib-ivf4", "scann"]
DATA = ["sift_bsds_128_l2", "cve_minilm_384", "wordvec_trivia_64_cosine", "wordvec_trivia_64_ip"]


def main() -> None:
    """Measure every data set and print the lines."""
    arguments = parse()
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        with shared(data) as folder:
            for record in compared(
                finalists.compare(data, folder, [OURS, *arguments.against], arguments), len(data.vectors)
            ):
                facts = {"data": data.describe(), "machine": measure.machine()}
                print(measure.line({**record, **facts}), flush=True)


def compared(records: Iterator[dict[str, Any]], n_vectors: int) -> Iterator[dict[str, Any]]:
    """Yield builds, ratios and what was delivered as records of this benchmark."""
    for record in records:
        if record["bench"] == "builds":
            size = record.get("index_bytes")
            yield {**record, "bench": "ivf-builds", "bytes_per_vector": None if size is None else size / n_vectors}
        elif record["bench"] == "finalists":
            yield {**record, "bench": "ivf"}
        elif record["bench"] == "asked":
            yield {**record, "bench": "ivf-asked"}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA, help=f"default: {' '.join(DATA)}")
    parser.add_argument("--against", nargs="+", default=PEERS, metavar="PEER", help=f"default: {' '.join(PEERS)}")
    parser.add_argument("--modes", nargs="+", choices=["batch", "single", "all"], default=["batch", "single"])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--threads", type=int, default=min(2, len(measure.CPUS)), help="to build with (default 2)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one build")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU of one-thread searches")
    return parser.parse_args()


if __name__ == "__main__":
    main()
