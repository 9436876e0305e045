"""Markdown tables of benchmark records, and the points that a chart draws. A dash: not measured or not reached."""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import measure
from datasets import TITLES

Record = dict[str, Any]
MODES = {"batch": "batch", "single": "single", "all": "all threads"}
OURS = "nearly"
LEAST_BUILD = 0.1  # seconds: what takes less builds nothing, so a ratio to it says nothing
TARGETS = [f"{target:.2f}" for target in measure.TARGETS]


# ---------------------------------------------------------------- records


def newest(records: Iterable[Record], kind: str, *keys: str) -> list[Record]:
    """Return the last record of a kind for every data set and combination of keys, in the order they first came."""
    found: dict[Hashable, Record] = {}
    for record in records:
        if record["bench"] == kind:
            found[(record["data"]["name"], *(record.get(key) for key in keys))] = record
    order = {name: place for place, name in enumerate(TITLES)}  # data sets in the order in which we always name them
    return sorted(found.values(), key=lambda record: order.get(record["data"]["name"], len(order)))


def sweeps(records: list[Record]) -> list[Record]:
    """Return the newest sweep of every configuration."""
    return newest(records, "peers", "peer")


def points(record: Record, mode: str) -> list[measure.Point]:
    """Return (recall, QPS) of a sweep."""
    key = f"qps_{mode}"
    return [(p.get(f"recall_{mode}", p["recall"]), p[key]) for p in record.get("points", []) if key in p]


def speeds(record: Record, mode: str) -> list[float | None]:
    """Return the QPS of a sweep at each target."""
    return [measure.qps_at(points(record, mode), target) for target in measure.TARGETS]


# ---------------------------------------------------------------- words and figures


def machine(record: Record) -> str:
    """Return what measured, as a sentence."""
    facts = record["machine"]
    simd = " ".join(facts["simd"]) or "no wide SIMD"
    return f"{facts['cpu']}, {facts['cpus']} CPUs, {simd}, {facts['system']}, Python {facts['python']}."


def title(record: Record) -> str:
    """Return the name of a record's data set."""
    name: str = record["data"]["name"]
    return TITLES.get(name, name)


def number(value: float | None) -> str:
    """Return a rounded figure, or a dash."""
    return "–" if value is None else f"{value:,.0f}"


def mebibytes(n_bytes: float | None) -> str:
    """Return bytes as MiB."""
    return number(None if n_bytes is None else n_bytes / 2**20)


def spread(record: Record, prefix: str = "") -> str:
    """Return a ratio with its quartiles."""
    low, middle, high = (record[f"{prefix}{name}"] for name in ("q25", "ratio", "q75"))
    return f"**{middle:.2f}** {low:.2f}–{high:.2f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """Return a Markdown table; the first `words` columns are text, the others figures."""
    lines = [header, ["---"] * words + ["--:"] * (len(header) - words), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def section(heading: str, body: str, after: str = "") -> str:
    """Return a heading with what stands under it, or nothing where there is nothing."""
    return "\n\n".join(filter(None, [f"### {heading}", body, after])) if body or after else ""


def failures(records: Iterable[Record]) -> str:
    """Return who could not be measured and why."""
    failed = [f"{record.get('peer') or record['b']} ({record['error']})" for record in records if "error" in record]
    return f"Not measured: {'; '.join(failed)}." if failed else ""


# ---------------------------------------------------------------- sweeps


def sweep(records: list[Record]) -> str:
    """Return a table of every configuration for each data set that was swept."""
    found = sweeps(records)
    names = dict.fromkeys(record["data"]["name"] for record in found)
    return "\n\n".join(_sweep([record for record in found if record["data"]["name"] == name]) for name in names)


def _sweep(found: list[Record]) -> str:
    columns = [f"{mode} {target}" for mode in MODES.values() for target in TARGETS]
    columns += ["best recall", "build s", "peak MiB", "index MiB", "load"]
    rows = []
    measured = [record for record in found if "points" in record]
    for record in sorted(measured, key=lambda record: -(speeds(record, "batch")[1] or 0)):
        cells = [number(qps) for mode in MODES for qps in speeds(record, mode)]
        recall, load = (max((point[key] for point in record["points"]), default=0) for key in ("recall", "load"))
        sizes = [mebibytes(record["peak_bytes"]), mebibytes(record["index_bytes"])]
        rows.append([record["peer"], *cells, f"{recall:.4f}", f"{record['build_seconds']:.1f}", *sizes, f"{load:.1f}"])
    data = found[-1]["data"]
    shape = f"{title(found[-1])}: {data['n']:,} x {data['dim']}, {data['n_queries']:,} queries, k = {data['k']}"
    return section(shape, table(["QPS at recall@10", *columns], rows, words=1), failures(found))


# ---------------------------------------------------------------- finalists


def finalists(records: list[Record]) -> str:
    """Return one row per data set, mode and pair, and one against the best of the peers where there are more."""
    found = newest(records, "finalists", "mode", "recall", "a", "b")
    rows = []
    for (name, mode, ours), group in _groups(found, lambda r: (title(r), r["mode"], r["a"])):
        by_peer = _groups(group, lambda r: (r["b"],))
        rows += [[name, MODES[mode], ours, peer, *_cells(pair, "recall", _ratio)] for (peer,), pair in by_peer]
        if len(by_peer) > 1:
            least = [min((r for r in group if r["recall"] == target), key=_worst) for target in measure.TARGETS]
            rows.append([name, MODES[mode], ours, "the best of them", *map(_ratio, least)])
    heading = "Speed at equal recall@10, nearly / peer: median and quartiles over rounds"
    return section(heading, table(["data", "mode", "nearly", "peer", *TARGETS], rows, words=4))


def summary(records: list[Record]) -> str:
    """Return one row per data set and mode: our best configuration against the best peer, at each recall."""
    found = newest(records, "finalists", "mode", "recall", "a", "b")
    rows = []
    for (name, mode), group in _groups(found, lambda r: (title(r), r["mode"])):
        cells = []
        for target in measure.TARGETS:
            by_ours = _groups((r for r in group if r["recall"] == target), lambda r: (r["a"],))
            best = max((min(pairs, key=_worst) for _, pairs in by_ours), key=_worst, default=None)
            who = "" if best is None else f"{best['a'].removeprefix(OURS + '-')} / {best['b']}"
            cells.append("–" if best is None else f"{_ratio(best)} ({who})")
        rows.append([name, MODES[mode], *cells])
    heading = "Speed at equal recall@10, nearly / the best peer: median and quartiles over rounds"
    return section(heading, table(["data", "mode", *TARGETS], rows, words=2))


def asked(records: list[Record]) -> str:
    """Return what was delivered when a recall was asked for, and the speed beside a peer at that very recall."""
    found = newest(records, "asked", "mode", "asked", "a", "b")
    rows = [
        [name, MODES[mode], ours, peer, *_cells(pair, "asked", _asked)]
        for (name, mode, ours, peer), pair in _groups(found, lambda r: (title(r), r["mode"], r["a"], r["b"]))
    ]
    heading = "Recall delivered when asked for, and the speed at that recall, nearly / peer"
    return section(heading, table(["data", "mode", "nearly", "peer", *TARGETS], rows, words=4))


def builds(records: list[Record]) -> str:
    """Return time and memory of every finalist's build, and how our time compares."""
    found = newest(records, "builds", "peer")
    ours = list(dict.fromkeys(r["peer"] for r in found if r["peer"].startswith(OURS)))
    rows = []
    for _, group in _groups(found, lambda r: (title(r),)):
        seconds = {r["peer"]: r["build_seconds"] for r in group if "error" not in r}
        for record in (r for r in group if r["peer"] in seconds):
            peak = record["peak_over_input_and_index"]
            cells = [f"{record['build_seconds']:.1f}", f"{record['build_cpu_seconds']:.1f}"]
            cells += ["–" if peak is None else f"{peak:.2f}", mebibytes(record["peak_bytes"])]
            cells.append(mebibytes(record["index_bytes"]))
            is_peer = not record["peer"].startswith(OURS)
            own = seconds[record["peer"]]
            compare = is_peer and own >= LEAST_BUILD
            cells += [f"{seconds[name] / own:.2f}" if compare and name in seconds else "" for name in ours]
            rows.append([title(record), record["peer"], *cells])
    header = ["data", "configuration", "build s", "CPU s", "peak over (input + index)", "peak MiB", "index MiB"]
    text = table([*header, *(f"{name} / it" for name in ours)], rows, words=2)
    return section("Builds", text, failures(found))


def _groups(found: Iterable[Record], key: Callable[[Record], tuple[Any, ...]]) -> list[tuple[Any, list[Record]]]:
    groups: dict[Any, list[Record]] = {}
    for record in found:
        groups.setdefault(key(record), []).append(record)
    return list(groups.items())


def _cells(pair: list[Record], key: str, cell: Callable[[Record], str]) -> list[str]:
    at = {record[key]: cell(record) for record in pair}
    return [at.get(target, "–") for target in measure.TARGETS]


def _ratio(record: Record) -> str:
    if "ratio" in record:
        return spread(record)
    return "only nearly" if record["reached"][record["a"]] else "–"


def _worst(record: Record) -> float:
    """The ratio, where a recall that only one side reaches is the best or the worst there is."""
    if "ratio" in record:
        return float(record["ratio"])
    return float("inf") if record["reached"][record["a"]] else -1.0


def _asked(record: Record) -> str:
    return "a scan" if record["scan"] else f"{record['recall']:.3f}: {_ratio(record)}"


# ---------------------------------------------------------------- exact search, the contract


def flat(records: list[Record]) -> str:
    """Return how fast exact batches are beside each peer."""
    found = newest(records, "flat", "mode", "b")
    rows = [
        [title(r), MODES[r["mode"]], r["b"], spread(r), spread(r, "cpu_"), f"{r['cpu_seconds_a']:.3f}",
         f"{r['cpu_seconds_b']:.3f}"]
        for r in found if "ratio" in r
    ]  # fmt: skip
    header = ["data", "mode", "peer", "by wall clock", "by CPU time", "nearly, CPU s", "peer, CPU s"]
    return section("Exact search of a batch, nearly / peer", table(header, rows, words=3), failures(found))


def contract(records: list[Record]) -> str:
    """Return the recall delivered for each target; what misses it is said in words."""
    found = newest(records, "contract", "index", "calibration", "target")
    targets = sorted({record["target"] for record in found})
    rows = []
    for (name, index, calibration), group in _groups(found, lambda r: (title(r), r["index"], r["calibration"])):
        at = {record["target"]: record for record in group}
        cells = [_delivered(at[target]) if target in at else "–" for target in targets]
        source = "itself" if calibration == "own" else "queries of the file"
        rows.append([name, index, source, f"{group[0]['least']:.3f}", *cells])
    header = ["data", "index", "calibrated on", "least effort", *(f"{target:.2f}" for target in targets)]
    return section("Recall@10 delivered for each target", table(header, rows, words=3))


def _delivered(record: Record) -> str:
    verdict = "" if record["holds"] and record["tight"] else " over" if record["holds"] else " **short**"
    return f"{record['delivered']:.3f}{verdict}{' (scan)' if record['scan'] else ''}"


def overhead(records: list[Record]) -> str:
    """Return what is spent before anything is compared."""
    found = [record for record in records if record["bench"] == "overhead"]
    rows = []
    for record in {tuple(r.get(key) for key in ("part", "call", "cache")): r for r in found}.values():
        if record["part"] == "call":
            alone = f"; {record['alone_microseconds']:.1f} µs on one vector" if "alone_microseconds" in record else ""
            rows.append([f"search(q): {record['call']}", f"{record['overhead_microseconds']:.1f} µs{alone}"])
        elif record["part"] == "import":
            loaded = ", ".join(record["loaded"]) or "none of what it must not load"
            spent = f"{record['milliseconds']:.0f} ms, {record['cpu_milliseconds']:.0f} of CPU time; loads {loaded}"
            rows.append(["import, after numpy", spent])
        else:
            what = f"load of {record['data']['n']:,} vectors, page cache {record['cache']}"
            first = f"first search {record['first_search_milliseconds']:.1f} ms"
            rows.append([what, f"{record['milliseconds']:.1f} ms; {first}"])
    return section("Overhead: before anything is compared", table(["what", "takes"], rows, words=2))


# ---------------------------------------------------------------- quantizers


def quantizers(records: list[Record]) -> str:
    """Return what each quantizer loses, costs and finds, a table per data set."""
    found = newest(records, "quantizers", "quantizer", "peer")
    return "\n\n".join(_quantizers(group) for _, group in _groups(found, lambda r: (title(r),)))


def _quantizers(found: list[Record]) -> str:
    depths = [10, 20, 100]
    rows = []
    for record in sorted(found, key=lambda r: (r["bits"], "peer" in r)):
        micro = f"{record['encode_microseconds']:.1f}"
        if "peer" in record:
            how = "one fixed step" if record["fast"] else "every step tried"
            rows.append([f"{record['bits']:g}", f"rabitqlib's RaBitQ, {how}", "", "", micro, "", "", "", "", ""])
            continue
        recalls = [f"{record[f'recall_{depth}']:.3f}" for depth in depths]
        names = ("scan_milliseconds", "scan_gigabytes_per_second")
        scan = [f"{record[name]:.2f}" for name in names] if names[0] in record else []
        error = f"{record['error']:.2g}" if record["error"] < 0.001 else f"{record['error']:.4f}"
        start = [f"{record['bits']:g}", f"`{record['quantizer']}`", str(record["row_bytes"])]
        rows.append([*start, error, micro, *recalls, *(scan or ["", ""])])
    data = found[-1]["data"]
    header = ["bits", "code", "bytes", "error", "coding, µs", *(f"recall, {depth}" for depth in depths)]
    return section(f"{title(found[-1])}: {data['n']:,} vectors", table([*header, "scan, ms", "GB/s"], rows, words=2))


# ---------------------------------------------------------------- collections


def ingest(records: list[Record]) -> str:
    """Return what every database took to be filled and opened, and how it was set up."""
    found = newest(records, "ingest", "peer")
    done = [record for record in found if "error" not in record]
    rows = []
    for r in done:
        raw = r["input_bytes"]
        cells = [number(r["rows_per_second"])]
        cells += [f"{r[key]:.1f}" for key in ("add_seconds", "index_seconds", "cpu_seconds")]
        cells += [mebibytes(r["disk_bytes"]), f"{r['disk_bytes'] / raw:.2f}", mebibytes(r["peak_bytes"])]
        cells += [f"{1000 * r[f'{what}_seconds']:.1f}" for what in ("import", "open", "first_search")]
        rows.append([title(r), r["peer"], *cells, mebibytes(r["resident_bytes"])])
    header = [
        "data",
        "database",
        "rows/s",
        "add s",
        "index s",
        "CPU s",
        "disk MiB",
        "disk / input",
        "peak MiB",
        "import ms",
    ]
    header += ["open ms", "first search ms", "opened MiB"]
    setups = {f"{r['peer']} {r['version']}: {r['settings']}": None for r in done}
    notes = "\n".join(f"- {setup}." for setup in setups)
    heading = "Collections: rows a second until added, indexed and on the disk; opening in a fresh process"
    body = table(header, rows, words=2)
    return section(heading, "\n\n".join(filter(None, [body, notes])), failures(found))


def collections(records: list[Record]) -> str:
    """Return the speed of every database under each filter, at each recall, and how ours compares."""
    return "\n\n".join(filter(None, (collections_at(records, target) for target in measure.TARGETS)))


def collections_middle(records: list[Record]) -> str:
    """Return the same at the middle recall alone."""
    return collections_at(records, measure.TARGETS[1])


def collections_at(records: list[Record], target: float) -> str:
    """Return the table of one recall: queries a second, and nearly / it."""
    curves = newest(records, "collections-curve", "filter", "peer")
    ratios = {(title(r), r["filter"], r["b"]): r for r in newest(records, "collections", "recall", "filter", "a", "b")
              if r["recall"] == target and r["a"].startswith(OURS)}  # fmt: skip
    parts = []
    for (name,), of_data in _groups(curves, lambda r: (title(r),)):
        filters = {r["filter"]: f"{r['filter']} ({r['passing']:,} rows)" for r in of_data}
        rows = []
        for (peer,), group in _groups(of_data, lambda r: (r["peer"],)):
            at = {r["filter"]: _qps_and_ratio(r, ratios.get((name, r["filter"], peer)), target) for r in group}
            rows.append([peer, *(at.get(one, "–") for one in filters)])
        data = of_data[0]["data"]
        heading = f"{name}, {data['n']:,} rows: single queries a second at recall@10 {target:.2f}, and nearly / it"
        loads = [r["load"] for r in of_data if "load" in r]
        note = f"Load of the machine meanwhile: {min(loads):.0f} to {max(loads):.0f}." if loads else ""
        parts.append(section(heading, table(["rows that pass", *filters.values()], rows, words=1), note))
    return "\n\n".join(parts)


def _qps_and_ratio(curve: Record, pair: Record | None, target: float) -> str:
    qps = measure.qps_at([(recall, qps) for recall, qps in curve.get("points", [])], target)
    if qps is None:
        return "–"
    speed = f"{qps:.1f}" if qps < 10 else number(qps)
    return speed if pair is None or "ratio" not in pair else f"{speed}; {spread(pair)}"


# ---------------------------------------------------------------- what a chart draws


def sweep_panels(records: list[Record], mode: str) -> dict[str, dict[str, list[measure.Point]]]:
    """Return the points of every sweep, by data set and configuration."""
    found: dict[str, dict[str, list[measure.Point]]] = {}
    for record in sweeps(records):
        if points(record, mode):
            found.setdefault(title(record), {})[record["peer"]] = points(record, mode)
    return found


def finalist_panels(records: list[Record], mode: str) -> dict[str, dict[str, list[measure.Point]]]:
    """Return the points of finalists: what took turns, or else their speeds at the targets."""
    found: dict[str, dict[str, list[measure.Point]]] = {}
    for record in newest(records, "curve", "mode", "peer"):
        if record["mode"] == mode:
            found.setdefault(title(record), {})[record["peer"]] = [(recall, qps) for recall, qps in record["points"]]
    drawn = set(found)
    for record in newest(records, "finalists", "mode", "recall", "a", "b"):
        if record["mode"] == mode and "ratio" in record and title(record) not in drawn:
            lines = found.setdefault(title(record), {})
            for side in "ab":
                point = (record["recall"], record[f"qps_{side}"])
                if point not in lines.setdefault(record[side], []):
                    lines[record[side]].append(point)
    return found


# ---------------------------------------------------------------- filters beside peers


def filtered_peers(records: list[Record]) -> str:
    """Return queries a second under filters at recall 0.95, and how each of ours compares with the best."""
    found = newest(records, "filtered-peers", "table", "way", "filter", "peer")
    ratios = newest(records, "filtered-peers-ratio", "table", "way", "filter", "a", "b")
    where = {(*_place(r), r["filter"], r["a"], r["b"]): r for r in ratios}
    parts = []
    for place, group in _groups(found, _place):
        shares = list(dict.fromkeys(r["filter"] for r in group))
        cells = {(r["peer"], r["filter"]): r for r in group}
        names = list(dict.fromkeys(r["peer"] for r in group))
        names.sort(key=lambda name: not name.startswith(OURS))
        rows = [[name, *(_filtered_cell(cells.get((name, share))) for share in shares)] for name in names]
        kinds = dict.fromkeys(r["kind"] for r in where.values() if _place(r) == place)
        for a, kind in itertools.product((name for name in names if name.startswith(OURS)), kinds):
            pairs = [[where.get((*place, share, a, b)) for b in names] for share in shares]
            best = [
                min((r for r in of_share if r and r["kind"] == kind), key=_worst, default=None) for of_share in pairs
            ]
            rows.append([f"{a} / the best {kind}", *("–" if r is None else f"{spread(r)} ({r['b']})" for r in best)])
        name, table_name, way = place
        heading = f"{name}, filters {table_name}, {way}: queries a second at recall@10 0.95"
        parts.append(section(heading, table(["rows that pass", *shares], rows, words=1)))
    return "\n\n".join(filter(None, parts))


def _place(record: Record) -> tuple[str, str, str]:
    name, _, kind = record["data"]["name"].partition("/")
    name = TITLES.get(name, name)
    return (f"{name} by {kind}" if kind else name), record["table"], record["way"]


def _filtered_cell(record: Record | None) -> str:
    if record is None or "error" in record:
        return "–"
    if "qps" not in record:
        return f"– ({record['best_recall']:.3f})"
    qps = record["qps"]
    return f"{qps:.1f} ({record['recall']:.3f})" if qps < 10 else f"{number(qps)} ({record['recall']:.3f})"
