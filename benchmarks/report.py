"""JSON lines of bench_peers to a table and a chart.   python benchmarks/report.py FILE.jsonl [--chart A.svg]"""

import argparse
import json
from pathlib import Path
from typing import Any

import measure

Record = dict[str, Any]
MODES = {"batch": "batch", "single": "single", "all": "all threads"}
OURS = "nearly"


def read(path: Path) -> list[Record]:
    """Return the records of a file, oldest first; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def sweeps(records: list[Record]) -> list[Record]:
    """Return the newest sweep of every configuration."""
    return list({record["peer"]: record for record in records if record["bench"] == "peers"}.values())


def points(record: Record, mode: str) -> list[measure.Point]:
    """Return (recall, QPS) of a sweep."""
    key = f"qps_{mode}"
    return [(p.get(f"recall_{mode}", p["recall"]), p[key]) for p in record.get("points", []) if key in p]


def speeds(record: Record, mode: str) -> list[float | None]:
    """Return the QPS at each target."""
    return [measure.qps_at(points(record, mode), target) for target in measure.TARGETS]


def choose_finalists(records: list[Record]) -> list[str]:
    """Return the names that win a column at 0.95 or 0.99, batch or single: among ours, and among the peers."""
    chosen: dict[str, None] = {}
    measured = [record for record in sweeps(records) if "points" in record]
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
    """Return a record as a line for the terminal."""
    if record["bench"] == "finalists":
        head = f"recall {record['recall']:.2f} {MODES[record['mode']]:11s} {record['a']} / {record['b']}"
        if "ratio" not in record:
            return f"{head}: not reached by " + ", ".join(name for name, yes in record["reached"].items() if not yes)
        return f"{head} = {record['ratio']:.2f} ({record['q25']:.2f} to {record['q75']:.2f})"
    if "points" not in record:
        return f"{record['peer']:24s} {record['error']}"
    shown = (f"{MODES[mode]} " + "/".join(number(qps) for qps in speeds(record, mode)) for mode in MODES)
    return f"{record['peer']:24s} build {record['build_seconds']:.1f} s   QPS at .90/.95/.99: " + "   ".join(shown)


def title(data: Record) -> str:
    """Return the name and shape of a data set."""
    return f"{data['name']}: {data['n']:,} x {data['dim']}, {data['metric']}"


def number(value: float | None) -> str:
    """Return a rounded figure, or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def mebibytes(n_bytes: float | None) -> str:
    """Return bytes as MiB."""
    return number(None if n_bytes is None else n_bytes / 2**20)


def markdown(records: list[Record]) -> str:
    """Return the tables."""
    newest, compared = sweeps(records), [record for record in records if record["bench"] == "finalists"]
    data, machine = records[-1]["data"], records[-1]["machine"]
    simd = " ".join(machine["simd"]) or "no wide SIMD"
    text = [
        f"## {title(data)}, {data['n_queries']:,} queries, k = {data['k']}",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {simd}, {machine['system']}, Python {machine['python']}.",
    ]
    measured = [record for record in newest if "points" in record]
    if measured:
        text.append("\n".join(_sweep_table(measured)))
    failed = [f"{record['peer']} ({record['error']})" for record in newest if "points" not in record]
    if failed:
        text.append("Not measured: " + "; ".join(failed) + ".")
    if compared:
        text.append("\n".join(_finalists_table(compared)))
    return "\n\n".join(text) + "\n"


def _sweep_table(measured: list[Record]) -> list[str]:
    columns = [f"{mode} {target:.2f}" for mode in MODES.values() for target in measure.TARGETS]
    columns += ["best recall", "build s", "peak MiB", "index MiB", "load"]
    lines = ["| QPS at recall@10 | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    for record in sorted(measured, key=lambda record: -(speeds(record, "batch")[1] or 0)):
        cells = [number(qps) for mode in MODES for qps in speeds(record, mode)]
        recall, load = (max((point[key] for point in record["points"]), default=0) for key in ("recall", "load"))
        sizes = [mebibytes(record["peak_bytes"]), mebibytes(record["index_bytes"])]
        cells += [f"{recall:.4f}", f"{record['build_seconds']:.1f}", *sizes, f"{load:.1f}"]
        lines.append(f"| {record['peer']} | " + " | ".join(cells) + " |")
    return lines


def _finalists_table(compared: list[Record]) -> list[str]:
    newest = {(r["mode"], r["recall"], r["a"], r["b"]): r for r in compared}
    lines = ["| recall@10 | mode | A | B | A, QPS | B, QPS | A / B | quartiles |", "|--:|---|---|---|--:|--:|--:|---|"]
    for record in newest.values():
        head = f"| {record['recall']:.2f} | {MODES[record['mode']]} | {record['a']} | {record['b']} | "
        if "ratio" in record:
            figures = f"{number(record['qps_a'])} | {number(record['qps_b'])} | **{record['ratio']:.2f}** | "
            lines.append(head + figures + f"{record['q25']:.2f} to {record['q75']:.2f} |")
        else:
            reached = ("" if yes else "not reached" for yes in record["reached"].values())
            lines.append(head + " | ".join(reached) + " | | |")
    return lines


def chart(records: list[Record], path: Path, *, mode: str = "batch", lowest: float = 0.8) -> None:
    """Draw one frontier per library, all its configurations together; ours stands out. SVG or PNG by the name's end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    libraries: dict[str, list[measure.Point]] = {}  # all configurations together
    for record in sweeps(records):
        libraries.setdefault(record["peer"].split("-")[0], []).extend(points(record, mode))
    lines = {name: [p for p in measure.frontier(found) if p[0] >= lowest] for name, found in libraries.items()}
    ranked = sorted(filter(lines.__getitem__, lines), key=lambda name: -(measure.qps_at(lines[name], 0.95) or 0))
    colors = iter(matplotlib.colormaps["tab20"].colors * 2)
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for rank, name in enumerate(ranked):
        style = {"color": "black", "lw": 2.6, "zorder": 9} if name == OURS else {"color": next(colors), "lw": 1.4}
        axes.plot(*zip(*lines[name], strict=True), marker="os^Dv"[rank % 5], ms=4, label=name, **style)
    data = records[-1]["data"]
    axes.set(yscale="log", xlim=(lowest, 1.002), xlabel=f"recall@{data['k']}", ylabel="queries per second")
    axes.set_title(f"{title(data)}, {MODES[mode]}", loc="left")
    axes.grid(visible=True, which="both", alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path)
    pyplot.close(figure)


def write(path: Path, chart_path: Path | None = None) -> None:
    """Write the table and the chart beside a file of records, and print the table."""
    records = read(path)
    if not records:
        return
    path.with_suffix(".md").write_text(markdown(records))
    print("\n" + markdown(records))
    if not sweeps(records):
        return
    try:
        chart(records, chart_path or path.with_suffix(".svg"))
    except ModuleNotFoundError as error:
        print(f'no chart: {error.name} is missing; pip install "nearly[bench]"')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--chart", type=Path, help="SVG or PNG (default: beside the file)")
    given = parser.parse_args()
    write(given.file, given.chart)
