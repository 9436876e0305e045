"""What bench_codes found, for the guide: a table per data set, one beside the peers, and a chart of bytes and speed."""

import math
import statistics
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

import chart
import measure
import tables
from peers import CODES
from tables import Record, number, section, spread, table

INDEXES = {"flat": "Flat", "ivf": "IVF", "vamana": "Vamana"}
WHERE = {"disk": ', refine="disk"', "float16": ', refine="float16"', "alone": ", refine=None"}
MIDDLE = measure.TARGETS[1]
HEIGHT = 430  # of a panel


class Entry(NamedTuple):
    """One configuration on one data set; speeds are medians over the groups that it took turns in."""

    name: str
    bytes: float  # a vector, in memory, all included
    ranking: float  # of them rows that only rank
    speeds: list[float | None]  # at each target
    build_seconds: float

    @property
    def ours(self) -> bool:
        """Whether it is an index of ours."""
        return self.name.startswith(tables.OURS)

    @property
    def parts(self) -> tuple[str, str, str]:
        """Ours: index, quantizer, where the vectors are that rank."""
        index, code, *where = self.name.removeprefix(f"{tables.OURS}-").split("-")
        return index, code, "".join(where)

    @property
    def spelled(self) -> str:
        """Ours as it is written, a peer by its name."""
        if not self.ours:
            return self.name
        index, code, where = self.parts
        inside = f"quantizer={CODES[code][0]}" if code != "default" else ""
        return f"`{INDEXES[index]}({(inside + WHERE.get(where, '')).removeprefix(', ')})`"


def entries(records: list[Record]) -> dict[str, list[Entry]]:
    """Return what was measured by batch, by data set."""
    curves: dict[tuple[str, str], list[list[float | None]]] = {}
    for record in records:
        if record["bench"] == "codes-curve" and record["mode"] == "batch":
            points = [(recall, qps) for recall, qps in record["points"]]
            speeds = [measure.qps_at(points, target) for target in measure.TARGETS]
            curves.setdefault((tables.title(record), record["peer"]), []).append(speeds)
    found: dict[str, list[Entry]] = {}
    for record in tables.newest(records, "codes-build", "peer"):
        if "error" not in record and (groups := curves.get((tables.title(record), record["peer"]))):
            speeds = [_median(of_target) for of_target in zip(*groups, strict=True)]
            on_disk = record["peer"].endswith("-disk")
            sizes = record["bytes"], 0.0 if on_disk else record["rank_bytes"]
            entry = Entry(record["peer"], *sizes, speeds, record["build_seconds"])
            found.setdefault(tables.title(record), []).append(entry)
    return found


def _median(speeds: Sequence[float | None]) -> float | None:
    reached = [speed for speed in speeds if speed is not None]
    return statistics.median(reached) if reached else None


# ---------------------------------------------------------------- tables


def guide(records: list[Record]) -> str:
    """Return all tables; nothing where nothing was measured."""
    built = tables.newest(records, "codes-build", "peer")
    found = entries(records)
    machines = [tables.machine(max(built, key=lambda record: record["machine"]["cpus"]))] if built else []
    parts = [part for title, group in found.items() for part in (_table(title, group), _beside(title, group, records))]
    return "\n\n".join(filter(None, [*machines, *parts, tables.failures(built)]))


def _table(title: str, found: list[Entry]) -> str:
    rows = []
    for entry in sorted(found, key=lambda e: (not e.ours, e.parts[0] if e.ours else "", e.bytes)):
        sizes = [number(entry.bytes - entry.ranking), number(entry.ranking), number(entry.bytes)]
        rows.append([entry.spelled, *sizes, *map(number, entry.speeds), f"{entry.build_seconds:.0f}"])
    header = ["", "bytes: codes, structure", "vectors that rank", "all"]
    header += [f"QPS at {target}" for target in tables.TARGETS]
    return section(f"{title}: bytes a vector and speed", table([*header, "build s"], rows, words=1))


def _beside(title: str, found: list[Entry], records: list[Record]) -> str:
    """One row per peer that is not exact: by rounds where both took turns, else by medians."""
    turns = {
        (r["a"], r["b"], r["recall"]): r
        for r in records
        if r["bench"] == "codes" and tables.title(r) == title and "ratio" in r
    }
    rows = []
    for peer in sorted((e for e in found if not e.ours and not e.name.startswith("faiss-flat")), key=lambda e: e.bytes):
        cells = []
        for place, target in enumerate(measure.TARGETS):
            fitting = [e for e in found if e.ours and e.bytes <= peer.bytes and e.speeds[place]]
            best = max(fitting, key=lambda e: e.speeds[place] or 0, default=None)
            mine, its = best.speeds[place] if best else None, peer.speeds[place]
            pair = turns.get((best.name, peer.name, target)) if best else None
            if best is None or mine is None or its is None:
                cells.append("–" if best is None else f"only ours: {best.spelled}")
            else:
                cells.append(f"{spread(pair) if pair else f'{mine / its:.2f}'} {best.spelled}")
        rows.append([f"{peer.name}, {number(peer.bytes)} bytes", *cells])
    heading = f"{title}: the fastest of ours in no more memory, its speed by that of each peer"
    return section(heading, table(["peer", *tables.TARGETS], rows, words=1))


# ---------------------------------------------------------------- the chart


def draw(records: list[Record]) -> str:
    """Return an SVG: a panel per data set, bytes a vector against queries a second at the middle recall."""
    panels = entries(records)
    height = chart.TOP + HEIGHT + chart.BOTTOM
    width = (chart.WIDTH - chart.GAP) / max(1, len(panels))
    body = [*_head(height, records)]
    for place, (title, found) in enumerate(panels.items()):
        left = chart.GAP / 2 + place * width + chart.LEFT
        box = left, chart.TOP + 24.0, width - chart.LEFT - chart.GAP, HEIGHT - 62.0
        body += _panel(title, [entry for entry in found if entry.speeds[1]], box)
    return "\n".join([*body, "</svg>", ""])


def _head(height: float, records: list[Record]) -> Iterator[str]:
    title = f"Queries per second at recall@10 {MIDDLE}, by bytes a vector in memory"
    note = f"Batches, one thread; {records[-1]['machine']['cpu']}. Named: peers, and what nothing beats in less memory"
    yield from chart.head(height, note, title, "logarithmic; higher and further left is better", title)
    x = 18.0
    for style, name in enumerate([*INDEXES.values(), "peers"]):
        yield chart.marker(x, 54, style, "")
        yield f'<text x="{x + 12:.0f}" y="58.5">{name}</text>'
        x += 34 + 8.2 * len(name)


def _panel(title: str, found: list[Entry], box: tuple[float, float, float, float]) -> Iterator[str]:
    left, top, width, height = box
    logs = [(math.log10(e.bytes), math.log10(e.speeds[1] or 1)) for e in found]
    (low_x, high_x), (low_y, high_y) = ((min(part) - 0.06, max(part) + 0.12) for part in zip(*logs, strict=True))
    yield f'<text x="{left:.1f}" y="{top - 9:.1f}" class="name">{escape(title)}</text>'
    for rate in chart.ticks(low_y, high_y):
        y = top + (high_y - math.log10(rate)) / (high_y - low_y) * height
        yield f'<path class="grid" d="M{left:.1f} {y:.1f}h{width:.1f}"/>'
        yield f'<text x="{left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end" class="small">{chart.short(rate)}</text>'
    for rate in (50, 100, 200, 500, 1000, 2000, 5000):
        if low_x < math.log10(rate) < high_x:
            x = left + (math.log10(rate) - low_x) / (high_x - low_x) * width
            yield f'<path class="grid" d="M{x:.1f} {top:.1f}v{height:.1f}"/>'
            yield f'<text x="{x:.1f}" y="{top + height + 17:.1f}" text-anchor="middle" class="small">{rate:,}</text>'
    taken: list[tuple[float, float, float]] = []
    for entry, (log_x, log_y) in zip(found, logs, strict=True):
        x = left + (log_x - low_x) / (high_x - low_x) * width
        y = top + (high_y - log_y) / (high_y - low_y) * height
        style = list(INDEXES).index(entry.parts[0]) if entry.ours else len(INDEXES)
        told = f"{entry.spelled.strip('`')}: {entry.speeds[1]:,.0f} queries per second, {entry.bytes:,.0f} bytes"
        yield chart.marker(x, y, style, f"<title>{escape(told)}</title>")
        if not entry.ours or unbeaten(entry, found):
            label = "-".join(filter(None, entry.parts[1:])) if entry.ours else entry.name
            yield from _label(label, x, y, log_x > (low_x + high_x) / 2, taken)


def _label(label: str, x: float, y: float, end: bool, taken: list[tuple[float, float, float]]) -> Iterator[str]:
    """A name beside its mark, on the side and at the height at which it meets no other; none where there is none."""
    wide = 6.6 * len(label)
    for down, before in ((down, side) for down in (0, -11, 11, -22, 22) for side in (end, not end)):
        left = x - 8 - wide if before else x + 8
        if all(abs(y + down - at) >= 11 or left > to or left + wide < begin for begin, to, at in taken):
            taken.append((left, left + wide, y + down))
            anchor = ' text-anchor="end"' if before else ""
            at = x - 8 if before else x + 8
            yield f'<text x="{at:.1f}" y="{y + down + 4:.1f}" class="small"{anchor}>{escape(label)}</text>'
            return


def unbeaten(entry: Entry, found: Sequence[Entry]) -> bool:
    """Whether nothing is faster in no more memory."""
    others: list[Any] = [e for e in found if e is not entry and e.bytes <= entry.bytes]
    return all((e.speeds[1] or 0) < (entry.speeds[1] or 0) for e in others)
