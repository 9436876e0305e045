"""What does each quantizer lose, cost and find?   python benchmarks/bench_quantizers.py --data cve_minilm_384 --bits 2

One JSON line per data set and quantizer, at several numbers of bits a dimension: bytes of a row with all factors, the
mean squared error of a decoded vector as a share of the variance, microseconds for coding a vector, recall@10 of all
codes compared and the best 10, 20, 50 or 100 ranked by the vectors, and, where estimates have bounds, what a scan of
`Flat` delivers at recall 0.95: milliseconds a query, codes read a second, vectors looked at. The line of `rabitqlib`
is its coding of the same rows in one list, by trying every step (and without, `fast`).

Traps: one thread and processor time, for coding and for scans; everything takes turns in short rounds, of which the
median counts. Errors are of vectors that were not fitted to. Equal bits are not equal bytes: rows have factors and
are padded to 32 bytes. A code that ranks badly alone may rank well enough for a graph, and a scan that leaves out
most rows by bounds costs what its bounds cost: no line here says how fast an index is.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import measure
import numpy as np
from datasets import Dataset, K
from numpy.typing import NDArray

import nearly
from nearly import _core

DEPTHS = [10, 20, 50, 100]
CHUNK = 512  # vectors coded in a round: short enough that few rounds are interrupted
Codes = Callable[[], Any]


def main() -> None:
    """Measure every data set and print one line per quantizer."""
    arguments = parse()
    measure.pin([arguments.core])
    for name in arguments.data:
        data = datasets.load(name, n_queries=arguments.queries, limit=arguments.limit)
        for record in compare(data, arguments.bits, arguments.rounds):
            facts = {"data": data.describe(), "machine": measure.machine()}
            print(measure.line({"bench": "quantizers", **record, **facts}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=datasets.CODED, help="default: three real sets")
    parser.add_argument("--bits", nargs="+", type=float, default=[1, 2, 4, 8], help="a dimension")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU that measures")
    return parser.parse_args()


def quantizers(bits: float, dim: int) -> dict[str, Any]:
    """Return what there is at so many bits a dimension, by name."""
    found: dict[str, Any] = {f"SAQ({bits:g})": nearly.SAQ(bits)}
    if bits in range(1, 9):
        found[f"RaBitQ({bits:g})"] = nearly.RaBitQ(int(bits))
    if bits in (4, 8):
        found |= {f"Scalar({bits:g})": nearly.Scalar(int(bits)),
                  f'Scalar({bits:g}, "vector")': nearly.Scalar(int(bits), "vector")}  # fmt: skip
    if bits <= 2:
        parts = max(1, int(dim * bits) // 8)
        found |= {f"Product({parts})": nearly.Product(parts),
                  f'Product({parts}, rotation="opq")': nearly.Product(parts, rotation="opq")}  # fmt: skip
    if bits == 4:
        found[f"Product({dim // 2})"] = nearly.Product(dim // 2)
    return found


def compare(data: Dataset, budgets: list[float], n_rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a record for every quantizer, and for the peer at every number of bits."""
    vectors, dim = data.vectors, data.vectors.shape[1]
    sample, held_out = vectors[::5], vectors[2::5][:5000]
    chunk = np.ascontiguousarray(held_out[:CHUNK])
    records, codings, codes = {}, {}, {}
    for bits in budgets:
        for name, spec in quantizers(bits, dim).items():
            fitting = measure.timed(lambda spec=spec: spec.fit(sample, metric=data.metric))
            fitted, error = fitting.result, fitting.result.error(held_out)
            records[name] = {"quantizer": name, "bits": bits, "row_bytes": fitted.row_bytes, "codes": fitted.name,
                             "fit_seconds": fitting.cpu_seconds, "error": error.mean,
                             "error_quantiles": list(error.quantiles.values())}  # fmt: skip
            codings[name], codes[name] = coding(fitted, chunk), fitted
            if getattr(spec, "bounded", False):
                records[name] |= scanned(data, spec, fitted.row_bytes)
        for fast in (False, True):
            if (peer := peer_coding(chunk, int(bits), fast)) is not None and bits in range(1, 10):
                name = f"rabitqlib {'fast ' * fast}{bits:g}"
                records[name] = {"peer": name, "bits": bits, "fast": fast}
                codings[name] = peer
    for name, seconds in take_turns(codings, n_rounds).items():
        records[name]["encode_microseconds"] = seconds / CHUNK * 1e6
    for name, record in records.items():
        if name in codes:
            record |= ranked(data, codes[name])
        yield record


def coding(fitted: Any, rows: NDArray[np.float32]) -> Codes:
    """Return what codes the rows once, on one thread."""
    table = _core.Table(fitted.row_bytes, len(rows), len(rows))
    scorer = fitted.scorer(table)
    return lambda: scorer.encode(0, rows, 1)


def peer_coding(rows: NDArray[np.float32], bits: int, fast: bool) -> Codes | None:
    """Return what has rabitqlib code the rows into one list; None without it."""
    try:
        import rabitqlib
    except ImportError:
        return None
    center, lists = rows.mean(axis=0, keepdims=True), np.zeros(len(rows), np.uint32)

    def work() -> None:
        index = rabitqlib.IvfIndex(rows.shape[1], len(rows), 1, bits)
        index.build(rows, center, lists, num_threads=1, fast_quantization=fast)

    return work


def take_turns(works: dict[str, Codes], n_rounds: int) -> dict[str, float]:
    """Return the median processor time of each."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for order in measure.turns(list(works), n_rounds):
        for name in order:
            works[name]()  # what another one threw out of the caches
            spent[name].append(measure.timed(works[name]).cpu_seconds)
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def ranked(data: Dataset, fitted: Any) -> dict[str, Any]:
    """Return recall@10 when all codes are compared, and the best of them ranked by the vectors, by depth."""
    n, n_queries = len(data.vectors), len(data.queries)
    table = _core.Table(fitted.row_bytes, n, n)
    scorer = fitted.scorer(table)
    scorer.encode(0, data.vectors, 1)
    rows, scores = np.arange(n, dtype=np.uint32), np.empty(n, np.float32)
    best = np.empty((n_queries, max(DEPTHS)), np.int64)
    for query, chosen in zip(data.queries, best, strict=True):
        scorer.score(query.nbytes, query.view(np.uint8), rows, scores)
        near = np.argpartition(scores, max(DEPTHS) - 1)[: max(DEPTHS)]
        chosen[:] = near[np.argsort(scores[near], kind="stable")]
    true = measure.squared_or_negated(data.vectors, best, data.queries, data.metric)
    found = {}
    for depth in DEPTHS:
        order = np.argsort(true[:, :depth], axis=1)[:, :K]
        found[f"recall_{depth}"] = data.recall(np.take_along_axis(best[:, :depth], order, axis=1))
    return found


def scanned(data: Dataset, spec: Any, row_bytes: int) -> dict[str, Any]:
    """Return what `Flat` by these codes delivers for recall 0.95, one thread."""
    index = nearly.Flat(data.vectors, metric=data.metric, quantizer=spec, threads=1)
    passes = [measure.timed(lambda: index.search(data.queries, k=K, recall=0.95, threads=1)) for _ in range(6)][1:]
    seconds, hits = statistics.median(one.cpu_seconds for one in passes) / len(data.queries), passes[0].result
    return {"scan_milliseconds": 1e3 * seconds, "scan_recall": data.recall(hits.ids),
            "scan_gigabytes_per_second": row_bytes * len(data.vectors) / seconds / 1e9,
            "scan_vectors": hits.stats.n_reranked / len(data.queries)}  # fmt: skip


if __name__ == "__main__":
    main()
