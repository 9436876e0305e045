"""JSON lines of the benchmarks to tables and a chart.   python benchmarks/report.py FILE.jsonl ... [--chart A.svg]

Files of bench_peers (sweeps and finalists), bench_flat, bench_contract, bench_overhead, bench_quantizers,
bench_collections, bench_filtered_peers and bench_codes; the newest record of each kind counts. `--into PAGE.md` writes
what matters most between the lines `<!-- figures -->` and `<!-- end of figures -->` of a page, `--quantizers PAGE.md`
the same of what quantizers lose, `--guide PAGE.md` of what they cost in each index between lines `<!-- speeds -->`,
with its chart beside the page, `codes.svg`; `--tables FILE.md` every table, as printed.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import chart
import codes
import tables
from tables import MODES, OURS, Record, number, speeds


def read(*paths: Path) -> list[Record]:
    """Return the records of some files, oldest first in each; none of a file that is not there."""
    return [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]


def choose_finalists(records: list[Record]) -> list[str]:
    """Return the names that win a column at 0.95 or 0.99, batch or single: among ours, and among the peers."""
    chosen: dict[str, None] = {}
    measured = [record for record in tables.sweeps(records) if "points" in record]
    for ours in (True, False):
        side = [record for record in measured if record["peer"].startswith(OURS) == ours]
        for mode in ("batch", "single"):
            for column in (1, 2):
                best = max(side, key=lambda record: speeds(record, mode)[column] or 0, default=None)
                if best is not None and speeds(best, mode)[column]:
                    chosen[best["peer"]] = None
    if not chosen:
        raise SystemExit("no finalists: run the sweep first, or name them")
    return list(chosen)


def one_line(record: Record) -> str:
    """Return a record of bench_peers as a line for the terminal."""
    kind = record["bench"]
    if "error" in record:
        return f"{record['peer']:24s} {record['error']}"
    if kind == "peers":
        shown = (f"{MODES[mode]} " + "/".join(number(qps) for qps in speeds(record, mode)) for mode in MODES)
        return f"{record['peer']:24s} build {record['build_seconds']:.1f} s   QPS at .90/.95/.99: " + "   ".join(shown)
    if kind == "builds":
        return f"{record['peer']:24s} built in {record['build_seconds']:.1f} s"
    if kind == "ingest":
        sizes = f"{record['disk_bytes'] / 2**20:.0f} MiB, opened in {1000 * record['open_seconds']:.0f} ms"
        return f"{record['peer']:24s} {number(record['rows_per_second'])} rows/s, {sizes}"
    circumstance = MODES[record["mode"]] if "mode" in record else f"filter {record['filter']}"
    if kind in ("curve", "collections-curve"):
        return f"{record['peer']:24s} {circumstance:11s} {len(record['points'])} efforts took turns"
    asked = f"asked {record['asked']:.2f}, " if "asked" in record else ""
    recall = f"recall {record['recall']:.3f}" if "recall" in record else "answered by a scan"
    head = f"{asked}{recall} {circumstance:11s} {record['a']} / {record['b']}"
    if "ratio" in record:
        return f"{head} = {record['ratio']:.2f} ({record['q25']:.2f} to {record['q75']:.2f})"
    missed = [name for name, yes in record.get("reached", {}).items() if not yes]
    return f"{head}: not reached by {', '.join(missed)}" if missed else head


def markdown(records: list[Record], *, brief: bool = False) -> str:
    """Return every table that the records have something for, or those that a page should show."""
    machines = {tables.machine(record): None for record in records if "machine" in record}
    detailed = [tables.sweep, tables.finalists, tables.asked]
    common = [tables.builds, tables.flat, tables.contract, tables.overhead]
    last = [tables.collections_middle if brief else tables.collections, tables.ingest, tables.filtered_peers]
    parts = [
        part(records)
        for part in ([tables.summary] if brief else [*detailed, tables.quantizers, codes.guide]) + common + last
    ]
    return "\n\n".join([*machines, *filter(None, parts)]) + "\n"


def insert(page: str, text: str, what: str = "figures") -> str:
    """Return a page with the text between its marks."""
    marks = f"<!-- {what} -->", f"<!-- end of {what} -->"
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise SystemExit(f"the page has no lines {marks[0]} and {marks[1]}")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def panels(records: list[Record], mode: str) -> chart.Panels:
    """Return what there is to draw: sweeps where there are some, else finalists."""
    return tables.sweep_panels(records, mode) or tables.finalist_panels(records, mode)


def write(path: Path) -> None:
    """Write the tables and the chart beside a file of records, and print the tables."""
    records = read(path)
    if not records:
        return
    text = markdown(records)
    path.with_suffix(".md").write_text(text)
    print("\n" + text)
    drawn = panels(records, "batch")
    if drawn:
        path.with_suffix(".svg").write_text(chart.draw(drawn, note=chart.note("batch", records)))


def main(arguments: Iterable[str] | None = None) -> None:
    """Parse the command line, print the tables, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--chart", type=Path, help="SVG: recall against queries per second, a panel per data set")
    parser.add_argument("--mode", choices=list(MODES), default="batch", help="of the chart (default batch)")
    parser.add_argument("--into", type=Path, help="page to write a summary into")
    parser.add_argument("--quantizers", type=Path, help="page to write what quantizers lose into")
    parser.add_argument(
        "--guide", type=Path, help="page to write bytes and speed of each pair into, and a chart beside"
    )
    parser.add_argument("--tables", type=Path, help="file to write every table to")
    given = parser.parse_args(None if arguments is None else list(arguments))
    records = read(*given.files)
    if not records:
        raise SystemExit("the files hold no records")
    text = markdown(records)
    print(text)
    if given.into is not None:
        given.into.write_text(insert(given.into.read_text(), markdown(records, brief=True)))
    if given.quantizers is not None:
        given.quantizers.write_text(insert(given.quantizers.read_text(), tables.quantizers(records)))
    if given.guide is not None:
        given.guide.write_text(insert(given.guide.read_text(), codes.guide(records), "speeds"))
        given.guide.with_name("codes.svg").write_text(codes.draw(records))
    if given.tables is not None:
        given.tables.write_text(text)
    if given.chart is not None and not panels(records, given.mode):
        raise SystemExit(f"there is nothing to draw of mode {given.mode}")
    if given.chart is not None:
        given.chart.write_text(chart.draw(panels(records, given.mode), note=chart.note(given.mode, records)))


if __name__ == "__main__":
    main()
