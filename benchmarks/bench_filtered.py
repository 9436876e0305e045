"""Which way is best under a filter, and does the planner take it?   python benchmarks/bench_filtered.py --data NAME

One JSON line per filter and target: recall@10 `delivered` under the filter against brute force, `distances` compared
and `lists` read a query, `us` of processor time a query, one query a call on one core, for each way alone ("scan" of
the vectors, "codes" first, "walk" among all nodes, "hop" over those that do not pass) and for the "planner", whose
plan is in `plan`. A query's time is the least of several rounds. `over_best` is the planner's mean time over that of
the best single way which delivers the target less 0.01, `median_over_best` the same of median times. Filters:
"random", of every share in decades; "near" and "far", the cells that are nearest to and farthest from the cell of the
query, so that the filter goes with the query or against it; "ball", all but the nearest of each query, which is against
every one of them; the images of SIFT; the attributes of CVE. `--table FILE...` makes Markdown of such lines. `--costs`
prints what src/nearly/tuning/costs.py writes down: nanoseconds for each comparison and list, straight lines through
times.

Traps: a walk alone scans where it is cut short, as the planner's does, but never gives up for its work, so that it may
read the whole graph: it is asked fewer queries where few pass. Filters are made before, with the nodes that they mean,
and each way has its own, which holds it ready as it holds the planner's: all go in by the same door, `search`. Times
are compared over the queries that both were asked. What a way delivers is not known by 40 queries (at 0.90 to 0.02):
filters that differ by query are made for 100. What other ways left in the caches, and neighbors on the machine, count
in a round: hence the least of them.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import measure
import numpy as np
from datasets import Dataset, K
from numpy.typing import NDArray

TARGETS = (0.90, 0.95)
SHARES = (0.5, 0.3, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
CELLS = 64
ROUNDS, MORE, SECONDS = 4, 20, 2.0  # at least so many rounds; so many where they take less than that in all
BALLS, SLOW, LOST = 100, 30, 5  # queries with a ball of their own; those asked of slow ways, and of hopeless ones
WAYS = ("planner", "scan", "codes", "walk", "hop")


class Case(NamedTuple):
    """A filter for all queries that it is asked for, or one for each."""

    kind: str
    name: str
    rows: list[NDArray[np.bool_]]
    queries: NDArray[np.float32]

    def of(self, query: int) -> NDArray[np.bool_]:
        """What passes for a query."""
        return self.rows[query if len(self.rows) > 1 else 0]

    @property
    def share(self) -> float:
        """How much passes."""
        return float(np.mean([rows.mean() for rows in self.rows]))


def main() -> None:
    """Build an index and print one line per filter and target."""
    arguments = parse()
    if arguments.table:
        return print("\n".join(table(arguments.table)))
    data = datasets.load(arguments.data, n_queries=arguments.queries, limit=arguments.limit)
    index = built(data, arguments.index, arguments.keep)
    if arguments.costs:
        measure.pin(measure.CPUS[-1:])
        return print(measure.line({"bench": "filtered-costs", **costs(index, data), "data": data.describe()}))
    facts = {"data": data.describe(), "index": arguments.index, "machine": measure.machine()}
    measure.pin(measure.CPUS[-1:])
    for case in cases(data, arguments.kinds):
        if arguments.names and not any(part in case.name for part in arguments.names):
            continue
        radius = farthest(data, case)
        for target in arguments.targets:
            about = {"bench": "filtered", "filter": case.kind, "name": case.name, "share": case.share}
            found = compared(index, data, case, target, radius)
            print(measure.line({**about, "queries": len(case.queries), "target": target, **found, **facts}), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sift_bsds_128_l2")
    parser.add_argument("--index", choices=["Vamana", "HNSW"], default="Vamana")
    parser.add_argument("--limit", type=int, help="the first so many rows")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--targets", nargs="+", type=float, default=list(TARGETS))
    parser.add_argument("--kinds", nargs="+", help="of filters: random, near, far, and what the data has")
    parser.add_argument("--names", nargs="+", help="parts of names of filters, instead of all")
    parser.add_argument("--keep", type=Path, help="a folder for built indexes")
    parser.add_argument("--costs", action="store_true", help="nanoseconds by the counts of each way, nothing else")
    parser.add_argument("--table", nargs="+", type=Path, help="files of lines, to be shown; nothing is measured")
    return parser.parse_args()


def built(data: Dataset, kind: str, folder: Path | None) -> Any:
    """The index, from the folder if it is there."""
    import nearly

    path = None if folder is None else folder / f"{data.name}-{len(data.vectors)}-{kind}.nearly"
    if path is not None and path.exists():
        return nearly.load(path)
    index = getattr(nearly, kind)(data.vectors, metric=data.metric)
    print(f"{data.name}: {index!r}", file=sys.stderr)
    if path is not None:
        index.save(path)
    return index


# ---------------------------------------------------------------- filters


def cases(data: Dataset, kinds: list[str] | None) -> Iterator[Case]:
    """All filters of a data set, or those of some kinds."""
    makers: dict[str, Callable[[Dataset], Iterator[Case]]] = {
        "random": random_rows,
        "near": near,
        "far": far,
        "ball": balls,
    }
    makers |= {"sift_bsds_128_l2": {"image": images}, "cve_minilm_384": {"attribute": attributes}}.get(data.name, {})
    for kind in kinds or makers:
        yield from makers[kind](data)


def random_rows(data: Dataset) -> Iterator[Case]:
    """Every share, the rows drawn by lot; last a single row."""
    n = len(data.vectors)
    order = np.random.default_rng(0).permutation(n)
    for share in (1.0, *(share for share in SHARES if share * n >= 2), 1 / n):
        rows = np.zeros(n, bool)
        rows[order[: max(1, round(share * n))]] = True
        yield Case("random", f"{share:.2g}", [rows], data.queries)


def near(data: Dataset, far_away: bool = False) -> Iterator[Case]:
    """The cells nearest to that of the queries, or farthest from it, until a share is full."""
    n, rng = len(data.vectors), np.random.default_rng(1)
    centers = data.vectors[np.sort(rng.permutation(n)[:CELLS])].astype(np.float32)
    of_rows = np.concatenate([_cells(data.vectors[i : i + 8192], centers) for i in range(0, n, 8192)])
    of_queries = _cells(data.queries, centers)
    cell = int(np.bincount(of_queries, minlength=CELLS).argmax())
    order = np.argsort(((centers - centers[cell]) ** 2).sum(axis=1), kind="stable")[:: -1 if far_away else 1]
    filled = np.bincount(of_rows, minlength=CELLS)[order].cumsum() / n
    for share in (0.3, 0.1, 0.03):
        rows = np.isin(of_rows, order[: max(1, int(np.searchsorted(filled, share)))])
        kind = "far" if far_away else "near"
        yield Case(kind, f"{share:.2g}", [rows], data.queries[of_queries == cell])


def far(data: Dataset) -> Iterator[Case]:
    """Cells that are far from the queries."""
    return near(data, far_away=True)


def balls(data: Dataset) -> Iterator[Case]:
    """All but the nearest of each query."""
    n, queries = len(data.vectors), data.queries[:BALLS]
    for left_out in (0.0003, 0.001, 0.01, 0.1):
        rows = []
        for query in queries:
            similar = data.vectors @ query
            far = -similar if data.metric != "l2" else np.einsum("ij,ij->i", data.vectors, data.vectors) - 2 * similar
            passes = np.ones(n, bool)
            passes[np.argpartition(far, round(left_out * n))[: round(left_out * n)]] = False
            rows.append(passes)
        yield Case("ball", f"{left_out:.2%} left out", rows, queries)


def _cells(rows: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.intp]:
    norms = np.einsum("ij,ij->i", centers, centers)
    return np.asarray((norms - 2 * rows.astype(np.float32) @ centers.T).argmin(axis=1))


def images(data: Dataset) -> Iterator[Case]:
    """Points of some images: what lies in one is alike."""
    with np.load(datasets.data_folder() / "sift_bsds_128_l2.npz") as file:
        image = file["base_image"][: len(data.vectors)]
    order = np.random.default_rng(2).permutation(np.unique(image))
    for share in (0.3, 0.1, 0.03):
        rows = np.isin(image, order[: max(1, int(share * len(order)))])
        yield Case("image", f"{share:.2g} of the images", [rows], data.queries)


def attributes(data: Dataset) -> Iterator[Case]:
    """Time, score, severity, vendor, product of the records."""
    import pyarrow.parquet

    names = ["published", "cvss_v2", "severity", "vendor", "product"]
    table = pyarrow.parquet.read_table(datasets.data_folder() / "cve_records.parquet", columns=names)
    columns = {name: table[name].to_pandas()[: len(data.vectors)] for name in names}
    when, score = columns["published"], columns["cvss_v2"]
    rows = {f"the newest {share:.0%}": when >= when.quantile(1 - share) for share in (0.5, 0.1, 0.01)}
    rows |= {f"score of at least {least}": score >= least for least in (7.0, 9.0)}
    for name, ranks in (("severity", (0, 3)), ("vendor", (0, 3, 30)), ("product", (0, 10))):
        counts = columns[name].value_counts(sort=True)
        for rank in ranks:
            value = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[rank][0]
            rows[f"{name} {value}"] = columns[name] == value
    rows["severe and new"] = rows["score of at least 7.0"] & rows["the newest 50%"]
    for name, passes in rows.items():
        yield Case("attribute", name, [passes.fillna(False).to_numpy(bool)], data.queries)


# ---------------------------------------------------------------- measuring


def compared(index: Any, data: Dataset, case: Case, target: float, radius: NDArray[np.float64]) -> dict[str, Any]:
    """Ask the queries by each way in turns."""
    searches = ways(index, case, target)
    seconds = {name: np.full(len(asked(case, name)), np.inf) for name in searches}
    answers: dict[str, list[Any]] = {}
    began, turn = time.process_time(), 0
    while turn < ROUNDS or (turn < MORE and time.process_time() - began < SECONDS):
        turn += 1
        for name in list(searches)[:: 1 if turn % 2 else -1]:
            answers[name] = []
            for i, query in enumerate(asked(case, name)):
                start = time.process_time_ns()
                answers[name].append(searches[name](i, query))
                seconds[name][i] = min(seconds[name][i], (time.process_time_ns() - start) / 1e9)
    record: dict[str, Any] = {"plan": answers["planner"][0].plan}
    for name in searches:
        work = [hits.stats for hits in answers[name]]
        record[name] = {
            "delivered": delivered([hits.ids for hits in answers[name]], data, case, radius),
            "distances": statistics.mean(each.n_distances for each in work),
            "lists": statistics.mean(each.n_hops for each in work),
            "us": 1e6 * float(seconds[name].mean()),
            "median_us": 1e6 * float(np.median(seconds[name])),
        }
    enough = [name for name in WAYS[1:] if name in record and record[name]["delivered"] >= target - 0.01]
    over = {name: [of(seconds["planner"], seconds[name]) for of in (_means, _medians)] for name in enough}
    record["over_best"], record["median_over_best"] = (max(each) for each in zip(*over.values(), strict=True))
    record["best"] = max(enough, key=lambda name: over[name][1])
    return record


def _means(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return float(ours[: len(theirs)].mean() / theirs.mean())


def _medians(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return float(np.median(ours[: len(theirs)]) / np.median(theirs))


def asked(case: Case, way: str) -> NDArray[np.float32]:
    """The queries that a way is asked: fewer where it reads much, or answers all alike."""
    if way == "walk" and case.share < 0.003:
        return case.queries[:LOST]
    far = way in ("walk", "hop") and case.kind == "ball" and case.share < 0.995
    slow = far or (way == "walk" and case.share < 0.03) or (way in ("scan", "codes") and case.share > 0.05)
    return case.queries[: SLOW if slow else None]


def ways(index: Any, case: Case, target: float) -> dict[str, Callable[[int, Any], Any]]:
    """Searches for one query by each way that there is, all made ready alike."""
    from nearly.indexes import sifting
    from nearly.indexes.allowed import Allowed, passing
    from nearly.indexes.ready import made_ready

    filters = [passing(index, rows) for rows in case.rows]
    how = index._contract.effort(index, K, target, None)

    def through(held: list[Allowed]) -> Callable[[int, Any], Any]:
        several = len(held) > 1
        return lambda i, query: index.search(query, K, where=held[i if several else 0], recall=target, threads=1)

    def alone(way: Any, by_codes: bool) -> Callable[[int, Any], Any]:
        held = []
        for one in filters:
            held.append(Allowed(one.bits, one.n))
            held[-1].ready[K, target] = made_ready(index, one, K, how, way, by_codes=by_codes)
        return through(held)

    searches = {"planner": through(filters), "scan": alone(sifting.Way(None, 0, ""), False)}
    needs = index._contract.needs
    if needs is not None and needs.spread is not None:
        searches["codes"] = alone(sifting.Way(None, 0, ""), True)
    if case.share == 1:
        return searches
    searches["walk"] = alone(sifting.Way(sifting.made(index, K, target, 0.0), 1 << 31, ""), True)
    if sifting.made(index, K, target).hop is not None:
        searches["hop"] = alone(sifting.Way(sifting.made(index, K, target, 2.0), 1 << 31, ""), True)
    return searches


def farthest(data: Dataset, case: Case) -> NDArray[np.float64]:
    """How far the last is that each query should find."""
    several = len(case.rows) > 1
    found = [
        measure.exact_radius(
            data.vectors[rows], case.queries[i : i + 1] if several else case.queries, data.metric, _k(rows)
        )
        for i, rows in enumerate(case.rows)
    ]
    return np.concatenate(found)


def delivered(answers: list[NDArray[np.int64]], data: Dataset, case: Case, radius: NDArray[np.float64]) -> float:
    """Mean share of the true neighbors, by distance; a row that does not pass is an error."""
    n, k = len(answers), _k(case.rows[0])
    ids = np.full((n, k), -1, np.int64)
    for i, (row, found) in enumerate(zip(ids, answers, strict=True)):
        row[: len(found)] = found[:k]
        if not case.of(i)[found].all():
            raise AssertionError(f"{case.name}: a row that does not pass was found")
    return float(measure.recalls_by_distance(ids, data.vectors, case.queries[:n], data.metric, radius, k).mean())


def _k(rows: NDArray[np.bool_]) -> int:
    return min(K, int(rows.sum()))


def costs(index: Any, data: Dataset) -> dict[str, Any]:
    """Nanoseconds a query begins with, and for each comparison and list, by way; beside what is written down."""
    from nearly.tuning import costs as written

    rng, n = np.random.default_rng(0), len(data.vectors)
    points: dict[str, list[list[float]]] = {"scan": [], "codes": [], "walk": [], "hop": []}
    for share in (0.01, 0.02, 0.05, 0.1, 0.2):
        case = Case("random", "", [rng.random(n) < share], data.queries)
        for target in (0.8, *TARGETS):
            for name, search in ways(index, case, target).items():
                if name not in points or (name == "walk" and share < 0.1):
                    continue
                for i, query in enumerate(case.queries[:SLOW]):
                    search(i, query)  # what it reads is in the caches, as far as they hold it
                    began = time.process_time_ns()
                    work = search(i, query).stats
                    spent = time.process_time_ns() - began
                    points[name].append([1.0, work.n_distances, work.n_hops, spent])
    found = {}
    for name, measured in points.items():
        table = np.array(measured)
        table = table[table[:, 3] <= 3 * np.median(table[:, 3])]  # without calls that were interrupted
        columns = 3 if name in ("walk", "hop") else 2
        line = np.linalg.lstsq(table[:, :columns], table[:, 3], rcond=None)[0]
        found[name] = dict(zip(("begins", "comparison", "list"), np.round(line, 1).tolist(), strict=False))
    exact, code = index._store.vectors.stride, index._travel.codes.stride
    found["written"] = {
        "scan": written.exactly(exact), "codes": written.scanned(code), "walk and hop": written.compared(code),
        "list, in comparisons": written.LIST,
    }  # fmt: skip
    return found


# ---------------------------------------------------------------- showing


def table(paths: list[Path]) -> Iterator[str]:
    """Markdown of the lines at the target 0.95, with what was delivered for 0.90 too."""
    records = [json.loads(line) for path in paths for line in path.read_text().splitlines() if line]
    lower = {_key(record): record for record in records if record["target"] == 0.9}
    ways = "scan | codes | walk | hop"
    yield f"| data, filter | passes | delivered | distances + lists | {ways} | µs | over best: mean, median |"
    yield "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
    for record in records:
        if record["target"] != 0.95:
            continue
        low, own = lower.get(_key(record)), record["planner"]
        first = "" if low is None else f"{low['planner']['delivered']:.3f} / "
        cells = [
            f"{record['data']['name'].split('_')[0]}, {record['filter']} {record['name']}", f"{record['share']:.3g}",
            f"{first}{own['delivered']:.3f}", f"{own['distances']:,.0f} + {own['lists']:,.0f}",
            *(_way(record.get(way)) for way in WAYS[1:]), f"{own['us']:.0f}",
            f"{record['over_best']:.2f}, {record['median_over_best']:.2f} ({record['best']})",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _key(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["data"]["name"], record["filter"], record["name"]


def _way(found: dict[str, Any] | None) -> str:
    """Work of a way alone, and what it delivers where that is not all."""
    if found is None:
        return ""
    work = f"{found['distances']:,.0f}" + (f" + {found['lists']:,.0f}" if found["lists"] else "")
    return work if found["delivered"] > 0.9995 else f"{work} ({found['delivered']:.3f})"


if __name__ == "__main__":
    main()
