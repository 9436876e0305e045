"""How fast is a collection of nearly beside embedded vector databases?   python benchmarks/bench_collections.py

Every database gets the same rows with the same attributes and texts, in a process of its own: `ingest` records say how
many rows a second it takes until they are added, indexed, closed and synced, how large its folder is, and how long a
fresh process takes to open it and to answer first. Then all take turns on one core, single queries from a Python
loop, without a filter and under filters that fewer and fewer rows pass: `collections` records hold the ratio of queries
a second at equal recall, formed within each round, `collections-asked` what was delivered when a recall was asked for,
`collections-curve` every effort. The truth under a filter is an exact scan of what passes.

Traps: whoever has no index is exact and slow; so that one pass lasts about `--pass-seconds`, it searches for fewer
queries. Opening is measured with the files in the page cache. The filters of 1 and 0.1 percent are names, so what
passes lies together, mostly far from the queries: graphs that only skip what does not pass find little there. Answers
are keys, no metadata is joined. A process that only searches is told to use one thread and pinned to one core;
libraries with a runtime of their own (lancedb) change threads on that core, as in a container with one CPU.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import databases
import finalists
import keeper
import measure
import records
import report
from finalists import Finalist, Record
from records import Passing, Records
from worker import PeerError, Worker, shared

N_OPENINGS = 3  # fresh processes that open a database; the last one searches
FEWEST = 5  # queries of a pass: some filter row by row in Python, and take seconds for one
FEWEST_TO_JUDGE = 30  # where recall is to be told from fewer than all


def main() -> None:
    """Parse the command line, measure, write the records and tables of them."""
    arguments = parse()
    rows = records.load(arguments.data, n_queries=arguments.queries, limit=arguments.limit)
    out = arguments.out or Path("build/bench") / f"collections-{rows.data.name}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"data": rows.data.describe(), "machine": measure.machine()}
    for record in compare(rows, arguments):
        with out.open("a") as file:
            now = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "load": os.getloadavg()[0]}
            file.write(measure.line({**record, **facts, **now}) + "\n")
        print(report.one_line(record), flush=True)
    report.write(out)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=records.CVE, choices=[records.CVE, "synthetic"])
    parser.add_argument("--peer", nargs="*", help="names or beginnings (default: all but exact), such as: lancedb")
    parser.add_argument("--filters", nargs="*", help="such as: none '1 %%' (default: all)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--limit", type=int, help="keep only the first rows")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--threads", type=int, default=min(2, len(measure.CPUS)), help="to fill with (default 2)")
    parser.add_argument("--core", type=int, default=measure.CPUS[-1], help="CPU that searches run on")
    parser.add_argument("--pass-seconds", type=float, default=1.0, help="of searching, more or less (default 1)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds to fill one")
    parser.add_argument("--out", type=Path, help="JSON lines (default build/bench/collections-DATA.jsonl)")
    return parser.parse_args()


def compare(rows: Records, arguments: argparse.Namespace) -> Iterator[Record]:
    """Yield what every database took to fill and to open, then what they did under each filter."""
    wanted = list(rows.filters) if arguments.filters is None else arguments.filters
    if unknown := [name for name in wanted if name not in rows.filters]:
        raise SystemExit(f"no filter {', '.join(unknown)}; there are {', '.join(rows.filters)}")
    names = databases.names_for(arguments.peer)
    with shared(rows.data) as folder, ExitStack() as stack:
        rows.write(folder)
        ready: list[Finalist] = []
        for name in names:  # one after another: each has the machine to itself
            about = {"bench": "ingest", "peer": name}
            kind = databases.DATABASES[name][0]
            if importlib.util.find_spec(kind.package) is None:
                yield {**about, "error": f"skipped: {kind.package} is not installed"}
                continue
            about |= {"version": databases.version(name), "threads": arguments.threads}
            about |= {"settings": databases.make_database(name, rows.data.metric).settings}
            try:
                took, finalist = fill_and_open(folder, name, rows, arguments, stack)
            except PeerError as error:
                yield {**about, "error": str(error)}
                continue
            ready.append(finalist)
            yield {**about, **took, "input_bytes": rows.n_bytes()}
        for name in wanted:
            yield from under_filter(ready, rows, name, arguments)


def fill_and_open(
    folder: Path, name: str, rows: Records, arguments: argparse.Namespace, stack: ExitStack
) -> tuple[Record, Finalist]:
    """Let one process fill a database and others open it; return what it took, and the last of these."""

    def worker(threads: int) -> Worker:
        how = {"script": "keeper.py", "environment": keeper.environment(threads)}
        return stack.enter_context(closing(Worker(folder, name, rows.data.metric, arguments.core, **how)))

    path = stack.enter_context(tempfile.TemporaryDirectory(prefix="nearly-bench-"))
    filler = worker(arguments.threads)
    found = filler.ask("fill", path=path, threads=arguments.threads, timeout=arguments.timeout)
    filler.close()
    found["rows_per_second"] = len(rows.texts) / sum(found[f"{s}_seconds"] for s in ("add", "index", "close", "sync"))
    openings = []
    for number in range(N_OPENINGS):
        opener = worker(1)
        openings.append(opener.ask("open", path=path))
        if number < N_OPENINGS - 1:
            opener.close()
    efforts, asks = openings[-1].pop("efforts"), openings[-1].pop("asks")
    medians = {key: statistics.median(one[key] for one in openings) for key in openings[-1]}
    return {**found, **medians}, Finalist(name, opener, efforts, asks)


# ---------------------------------------------------------------- searches


def under_filter(
    ready: Sequence[Finalist], rows: Records, name: str, arguments: argparse.Namespace
) -> Iterator[Record]:
    """Yield what all did under a filter: ratios, what was asked for, and every effort."""
    passing = rows.passing(name)
    where = records.sql(rows.filters[name])
    about = {"filter": name, "where": where, "passing": int(passing.rows.sum()), "rounds": arguments.rounds}
    taking_part = []
    for finalist in ready:
        try:
            finalist.n_queries = affordable(finalist, name, arguments)
            finalist.trials = finalists.try_efforts(finalist, passing, name, best_of=1)
            taking_part.append(finalist)
        except PeerError as error:
            yield {"bench": "collections-curve", **about, "peer": finalist.label, "error": str(error)}
    finalists.choose(taking_part)
    rounds = finalists.take_turns(taking_part, name, arguments.rounds)
    kept = {finalist.label: finalist for finalist in taking_part}
    for record in finalists.results(taking_part, rounds, name):
        kind = record.pop("bench")
        mode = record.pop("mode")
        assert mode == name
        if kind == "asked":
            record.pop("scan")  # every target is tried, however it is answered
        elif kind == "curve":
            finalist = kept[record["peer"]]
            record |= {"n_queries": finalist.n_queries, "trials": [list(trial) for trial in finalist.trials]}
            record |= faults(finalist, passing, name)
        bench = {"finalists": "collections", "asked": "collections-asked", "curve": "collections-curve"}[kind]
        yield {"bench": bench, **about, **record}


def affordable(finalist: Finalist, name: str, arguments: argparse.Namespace) -> int:
    """Return how many queries fit a pass, by some at the least effort."""
    least = finalist.series_of_efforts[0][0]
    n = min(FEWEST, arguments.queries)
    finalist.worker.search(name, least, 1)  # the first call is slow
    seconds = finalist.worker.search(name, least, n)["seconds"]
    fewest = FEWEST if finalist.series_of_efforts == [[least]] else FEWEST_TO_JUDGE
    return min(arguments.queries, max(fewest, int(n * arguments.pass_seconds / seconds)))


def faults(finalist: Finalist, passing: Passing, name: str) -> dict[str, float]:
    """Return the share of answers that did not come, or should not have, at the effort of the best recall."""
    best = max(finalist.trials, key=lambda trial: trial[0])
    finalist.worker.search(name, best[2], finalist.n_queries, keep=True)
    return passing.faults(finalist.worker.ids())


if __name__ == "__main__":
    main()
