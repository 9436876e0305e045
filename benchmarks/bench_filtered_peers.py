"""How fast are searches under a filter at recall 0.95, beside the peers?   python benchmarks/bench_filtered_peers.py

Predicates over real attributes let a half, a tenth, a hundredth, a thousandth of all rows pass (predicates.py). Two
tables: `ready` gives indexes filters that were made beforehand, `--filters` different ones, one query a call, and all
queries of a filter in one batch; `raw` has a new predicate for every query, evaluated within the timed call: databases
by their own `where`, indexes by NumPy, ours by `nearly.filters`. Each peer's least effort that reaches the recall is
found under each filter; then all take turns on one core, and ratios are formed within each round. nearly is asked for
`recall=0.95`, and what it delivered stands beside. Who never reaches it is named with the best it did.

Traps: recall and speed are means over predicates, some of which go along with a query and some against it. What passes
is judged by an exact scan of it, wrong answers do not count. Forms of a filter (faiss: bitmap, array, batch; hnswlib:
list, set) are all tried at the chosen effort. Databases are filled by one process and opened by another. Building takes
most of the time: with `--keep` what is in `--folder` is used again, and a folder in memory (/dev/shm) spares qdrant its
fsyncs; after a change of nearly, remove what it kept. SIFT has no attributes but its images (`sift_bsds_128_l2/image`)
and numbers at random. Slow peers answer the first queries only.
"""

import argparse
import importlib.util
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import databases
import filtering
import keeper
import measure
import peers
import predicates
import report
import tables
from filtering import NAMES, TARGET
from finalists import Effort, Judge, Record
from predicates import KINDS, SHARES
from records import Records
from worker import PeerError, Worker, shared

FEWEST = 5  # queries of a pass
FEWEST_TO_JUDGE = 30  # where recall is to be told from fewer than all


@dataclass(eq=False)
class Contender:
    """A peer that was built, and what it takes turns with under the filters at hand."""

    label: str
    worker: Worker
    series_of_efforts: list[list[Effort]]
    ways: Sequence[str]
    asks: bool
    batches: bool
    n_queries: int = 0
    effort: Effort | None = None  # that reaches the recall, if one does
    recall: float = 0.0


def main() -> None:
    """Parse the command line, measure, write the records and tables of them."""
    arguments = parse()
    for name in arguments.data:
        rows, by_share = predicates.load(
            name, n_queries=arguments.queries, n_filters=arguments.queries, limit=arguments.limit
        )
        of_them = "".join(name.partition("/")[1:])  # /image
        facts = {"data": {**rows.data.describe(), "name": rows.data.name + of_them}, "machine": measure.machine()}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        for record in compare(rows, by_share, arguments):
            with arguments.out.open("a") as file:
                now = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "load": os.getloadavg()[0]}
                file.write(measure.line({**record, **facts, **now}) + "\n")
            if record["bench"] != "filtered-peers-ratio":  # there are many; the tables have those that matter
                print(one_line(record), flush=True)
    print("\n" + tables.filtered_peers(report.read(arguments.out)))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = [name for name in KINDS if name != "synthetic"]
    parser.add_argument("--data", nargs="+", default=sets, choices=list(KINDS))
    parser.add_argument("--peer", nargs="*", help="names or beginnings, such as: nearly faiss (default: all)")
    parser.add_argument("--tables", nargs="+", choices=["ready", "raw"], default=["ready", "raw"])
    parser.add_argument("--shares", nargs="+", choices=list(SHARES), default=list(SHARES), metavar="SHARE")
    parser.add_argument("--queries", type=int, help="default 300, 60 with --quick")
    parser.add_argument("--filters", type=int, default=6, help="ready-made ones of each share (default 6)")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 7, 3 with --quick)")
    parser.add_argument("--pass-seconds", type=float, help="of searching, more or less (default 1, 0.3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer queries and rounds, shorter passes")
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--threads", type=int, default=min(2, len(measure.CPUS)), help="to build with (default 2)")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU that searches run on")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds to build or fill one")
    parser.add_argument("--folder", type=Path, help="for what is built and filled (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="use what --folder holds already, and leave it there")
    parser.add_argument("--out", type=Path, default=Path("build/bench/filtered_peers.jsonl"), help="JSON lines")
    given = parser.parse_args()
    for name, usual, quick in (("queries", 300, 60), ("rounds", 7, 3), ("pass_seconds", 1.0, 0.3)):
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else usual)
    if given.keep and given.folder is None:
        parser.error("--keep needs a --folder")
    return given


def names_for(wanted: list[str] | None) -> list[str]:
    """Return the names that are or begin with one of `wanted`."""
    chosen = [name for name in NAMES if wanted is None or any(name == w or name.startswith(w + "-") for w in wanted)]
    for one in wanted or []:
        if not any(name == one or name.startswith(one + "-") for name in NAMES):
            raise SystemExit(f"no peer {one}; there are {', '.join(NAMES)}")
    return chosen


# ---------------------------------------------------------------- builds


def compare(rows: Records, by_share: dict[str, Any], arguments: argparse.Namespace) -> Iterator[Record]:
    """Yield what every peer took to build, then what they did under each filter."""
    table = predicates.Table(rows.columns)
    with shared(rows.data) as folder, ExitStack() as stack:
        rows.write(folder)
        ready: list[Contender] = []
        for peer in names_for(arguments.peer):
            if peer in filtering.DATABASES and "raw" not in arguments.tables:
                continue
            about: Record = {"bench": "filtered-peers-build", "peer": peer, "threads": arguments.threads}
            kind = filtering.FILTERING[peer][0] if peer in filtering.FILTERING else databases.DATABASES[peer][0]
            if importlib.util.find_spec(kind.package) is None:
                yield {**about, "error": f"skipped: {kind.package} is not installed"}
                continue
            about["version"] = version(peer)
            try:
                took, contender = started(peer, folder, rows, arguments, stack)
            except PeerError as error:
                yield {**about, "error": str(error)}
                continue
            ready.append(contender)
            yield {**about, **took}
        for share, filters in by_share.items():
            if share not in arguments.shares:
                continue
            shown = {"filter": share, "examples": [predicates.records.sql(one) for one in filters[:3]]}
            for kind_of_table in arguments.tables:
                n_queries = len(rows.data.queries)
                n_filters = min(arguments.filters, n_queries) if kind_of_table == "ready" else n_queries
                judge = predicates.truth(rows.data, table, filters[:n_filters])
                for way in ("single", "batch") if kind_of_table == "ready" else ("single",):
                    about = {"table": kind_of_table, "way": way, **shown, "rounds": arguments.rounds}
                    mode = f"{kind_of_table}/{way}/{share}/{n_filters}"
                    yield from under_filters(ready, mode, judge, about, arguments)


def started(
    peer: str, folder: Path, rows: Records, arguments: argparse.Namespace, stack: ExitStack
) -> tuple[Record, Contender]:
    """Let a process build an index, or one fill a database and another open it."""

    def worker(threads: int) -> Worker:
        how = {"script": "filtering.py", "environment": keeper.environment(threads)}
        return stack.enter_context(closing(Worker(folder, peer, rows.data.metric, arguments.core, **how)))

    path = _folder_of(peer, rows, arguments, stack)
    if peer in filtering.FILTERING:
        one = worker(arguments.threads)
        took = one.ask("build", path=str(path), threads=arguments.threads, timeout=arguments.timeout)
        parts = [took.pop(part) for part in ("efforts", "ways", "asks", "batches")]
        return took, Contender(peer, one, *parts)
    took = {}
    if not (path / "filled").exists():
        filler = worker(arguments.threads)
        found = filler.ask("fill", path=str(path / "rows"), threads=arguments.threads, timeout=arguments.timeout)
        filler.close()
        (path / "filled").touch()
        steps = ("add", "index", "close")
        took = {"seconds": sum(found[f"{step}_seconds"] for step in steps), "cpu_seconds": found["cpu_seconds"]}
    opener = worker(1)
    opened = opener.ask("open", path=str(path / "rows"))
    efforts = [[[TARGET]]] if opened["asks"] else opened["efforts"]
    return took, Contender(peer, opener, efforts, [""], opened["asks"], batches=False)


def _folder_of(peer: str, rows: Records, arguments: argparse.Namespace, stack: ExitStack) -> Path:
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.keep:
        path = arguments.folder / f"{rows.data.name}-{peer}"
        path.mkdir(exist_ok=True)
    else:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearly-bench-", dir=arguments.folder)))
    if peer in filtering.DATABASES and not (path / "filled").exists():
        shutil.rmtree(path / "rows", ignore_errors=True)  # what was left half filled
        (path / "rows").mkdir()
    return path


def version(peer: str) -> str:
    """Return the version of the library of a peer."""
    if peer in filtering.DATABASES:
        return databases.version(peer)
    return peers.version(next(name for name, row in peers.PEERS.items() if row[0].package == _package(peer)))


def _package(peer: str) -> str:
    return filtering.FILTERING[peer][0].package


# ---------------------------------------------------------------- searches


def under_filters(
    ready: Sequence[Contender], mode: str, judge: Judge, about: Record, arguments: argparse.Namespace
) -> Iterator[Record]:
    """Find the effort of each under filters, let them take turns, and yield speeds and ratios."""
    table, way = mode.split("/")[:2]
    taking_part = []
    for contender in ready:
        alone = contender.label in filtering.DATABASES or (way == "batch" and not contender.batches)
        if table == "ready" and alone:
            continue
        said: Record = {"bench": "filtered-peers", **about, "peer": contender.label}
        try:
            contender.n_queries = affordable(contender, mode, arguments)
            tried = settle(contender, mode, judge, arguments)
        except PeerError as error:
            yield {**said, "error": str(error)}
            continue
        if contender.effort is not None:
            taking_part.append(contender)
        else:
            effort, recall = max(tried, key=lambda one: one[1])
            yield {**said, "best_recall": recall, "best_effort": effort, "n_queries": contender.n_queries}
    rounds = take_turns(taking_part, mode, arguments.rounds)
    for contender in taking_part:
        passes = [turn[contender.label] for turn in rounds]
        speeds = [contender.n_queries / seconds for seconds, _ in passes]
        cpu_speeds = [contender.n_queries / cpu for _, cpu in passes]
        yield {
            "bench": "filtered-peers", **about, "peer": contender.label, "recall": contender.recall,
            "effort": contender.effort, "form": form(contender), "n_queries": contender.n_queries,
            "qps": statistics.median(speeds), "qps_cpu": statistics.median(cpu_speeds),
        }  # fmt: skip
    ours = [one for one in taking_part if one.label.startswith("nearly")]
    for a, b in itertools.product(ours, taking_part):
        if b not in ours:
            pairs = [(_speeds(turn, a), _speeds(turn, b)) for turn in rounds]
            found = measure.quartiles(x[0] / y[0] for x, y in pairs)
            found |= measure.quartiles((x[1] / y[1] for x, y in pairs), "cpu_")
            kind = "database" if b.label in filtering.DATABASES else "index"
            yield {"bench": "filtered-peers-ratio", **about, "a": a.label, "b": b.label, "kind": kind, **found}


def form(contender: Contender) -> str:
    """Return the form in which filters were given, where there are several."""
    assert contender.effort is not None
    return contender.ways[int(contender.effort[-1])] if len(contender.ways) > 1 else ""


def affordable(contender: Contender, mode: str, arguments: argparse.Namespace) -> int:
    """Return how many queries fit a pass, by some at the least effort."""
    least = contender.series_of_efforts[0][0]
    if mode.split("/")[1] == "batch":
        return int(arguments.queries)
    n = min(FEWEST, arguments.queries)
    contender.worker.search(mode, least, 1)  # the first call is slow
    seconds = contender.worker.search(mode, least, n)["cpu_seconds"]
    fewest = FEWEST if contender.series_of_efforts == [[least]] else FEWEST_TO_JUDGE
    return min(arguments.queries, max(fewest, int(n * arguments.pass_seconds / seconds)))


def settle(contender: Contender, mode: str, judge: Judge, arguments: argparse.Namespace) -> list[tuple[Effort, float]]:
    """Choose the quickest effort that reaches the recall, what is asked for by `recall=` as it is; return all tried."""
    worker, n, tried, good = contender.worker, contender.n_queries, [], []
    longest = 10 * arguments.pass_seconds
    for series in contender.series_of_efforts:
        for effort in series:
            took = worker.search(mode, effort, n, keep=True)
            recall = judge.recall(worker.ids())
            tried.append((effort, recall))
            if recall >= TARGET or contender.asks:
                good.append((took["cpu_seconds"], recall, effort))
                break
            longest = max(longest, 5 * took["cpu_seconds"]) if len(tried) == 1 else longest
            if took["cpu_seconds"] > longest:  # who is so slow by its effort will not be the best
                break
    contender.effort = None
    if good:
        seconds, contender.recall, best = min(good)
        times = {0: seconds} if len(contender.ways) > 1 else {}
        for way in range(1, len(contender.ways)):
            times[way] = worker.search(mode, [*best[:-1], way], n)["cpu_seconds"]
        contender.effort = [*best[:-1], min(times, key=lambda way: times[way])] if times else best
    return tried


Turn = dict[str, tuple[float, float]]  # seconds and CPU seconds, by label


def take_turns(taking_part: Sequence[Contender], mode: str, n_rounds: int) -> list[Turn]:
    """Return what every round took: A B C, then C B A."""
    rounds = []
    for order in measure.turns(taking_part, n_rounds):
        turn: Turn = {}
        for contender in order:
            assert contender.effort is not None
            took = contender.worker.search(mode, contender.effort, contender.n_queries)
            turn[contender.label] = took["seconds"], max(1e-9, took["cpu_seconds"])
        rounds.append(turn)
    return rounds


def _speeds(turn: Turn, contender: Contender) -> tuple[float, float]:
    seconds, cpu = turn[contender.label]
    return contender.n_queries / seconds, contender.n_queries / cpu


# ---------------------------------------------------------------- what they say


def one_line(record: Record) -> str:
    """Return a record as a line for the terminal."""
    if record["bench"] == "filtered-peers-build":
        seconds = record.get("seconds")
        what = record.get("error") or ("was there" if seconds is None else f"built in {seconds:.1f} s")
        return f"{record['peer']:20s} {what}"
    head = f"{record['table']:5s} {record['way']:6s} {record['filter']:6s}"
    if "error" in record:
        return f"{head} {record['peer']:20s} {record['error']}"
    if "qps" not in record:
        return f"{head} {record['peer']:20s} at most recall {record['best_recall']:.3f}"
    return (f"{head} {record['peer']:20s} recall {record['recall']:.3f} {record['qps']:10.1f} QPS "
            f"{record['qps_cpu']:10.1f} by CPU, effort {record['effort']} {record['form']}")  # fmt: skip


if __name__ == "__main__":
    main()
