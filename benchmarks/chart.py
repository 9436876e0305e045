"""A chart of queries per second against recall as SVG: a panel per data set, a line per library. Needs no library.

All configurations of a library make one line, its frontier, ours too: what is best at each recall. Colors follow the
reader's light or dark setting; the background is part of the picture, so it reads on any page.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import measure

Panels = Mapping[str, Mapping[str, Sequence[measure.Point]]]  # data set, configuration
Lines = dict[str, list[measure.Point]]  # library

LIBRARIES = {
    "nearly": "nearly", "rabitqlib-symqg": "SymphonyQG", "rabitqlib": "RaBitQ", "scann": "ScaNN", "svs": "SVS",
    "faiss": "faiss", "usearch": "USearch", "kannolo": "kANNolo", "hnswlib": "hnswlib", "ngt": "NGT",
    "voyager": "Voyager", "pynndescent": "PyNNDescent", "exact": "matrix product",
}  # fmt: skip
OURS = "nearly"
ABOUT = "Queries per second against recall: nearly and its fastest peers"
TITLE, HINT = "Queries per second at a recall@10", "logarithmic; higher and further right is better"
MODES = {
    "batch": "one batch of all queries, one thread",
    "single": "a Python loop of single queries, one thread",
    "all": "one batch of all queries, all threads",
}
WIDTH, TOP, PANEL_HEIGHT, BOTTOM = 960, 84, 236, 34
LEFT, GAP = 54, 18  # room for the numbers beside a panel, and between panels
LEAST, BEST = 0.85, 0.997  # recalls at which the axis begins and ends
RECALLS = (0.9, 0.95, 0.98, 0.99, 0.995)
PAGE, INK, FAINT, GRID = ("#ffffff", "#0d1117"), ("#1f2328", "#e6edf3"), ("#59636e", "#9198a1"), ("#d1d9e0", "#2f3742")
# On light and on dark pages: Okabe and Ito's palette, which color-blind readers can tell apart, lightened for dark.
COLORS = (
    ("#1f2328", "#f0f6fc"), ("#0072b2", "#58a6ff"), ("#d55e00", "#ff9b50"), ("#009e73", "#3fcf9f"),
    ("#cc79a7", "#f0a6cc"), ("#b08800", "#e3c04a"), ("#56b4e9", "#9bd8ff"), ("#7a5195", "#c39be0"),
)  # fmt: skip
MARKERS = ("circle", "square", "diamond", "triangle")


def draw(panels: Panels, *, note: str, best: int = 3) -> str:
    """Return an SVG document.

    Parameters
    ----------
    panels : mapping
        (recall, queries per second) by data set and configuration.
    note : str
        What was measured, in a line under the chart.
    best : int
        Libraries beside ours in each panel, the fastest at recall 0.95.
    """
    kept = {title: strongest(libraries(configurations), best) for title, configurations in panels.items()}
    styles = {name: min(i, len(COLORS) - 1) for i, name in enumerate(dict.fromkeys([OURS, *_names(kept)]))}
    columns = 1 if len(kept) == 1 else 2 if len(kept) in (2, 4) else 3
    rows = math.ceil(len(kept) / columns)
    height = TOP + rows * PANEL_HEIGHT + BOTTOM
    width = (WIDTH - GAP) / columns
    body = [*head(height, note), *_legend([name for name in styles if name in _names(kept)], styles)]
    for place, (title, lines) in enumerate(kept.items()):
        left, top = GAP / 2 + place % columns * width + LEFT, TOP + place // columns * PANEL_HEIGHT + 24
        box = Box(left, top, width - LEFT - GAP, PANEL_HEIGHT - 24 - 34)
        body += [*_panel(title, lines, box, styles, f"panel{place}")]
    return "\n".join([*body, "</svg>", ""])


def note(mode: str, records: list[dict[str, Any]]) -> str:
    """Return what was measured and where, in a line."""
    drawn = [record for record in records if record["bench"] in ("peers", "finalists", "curve")]
    data, machine = drawn[-1]["data"], drawn[-1]["machine"]
    rounds = max(record.get("rounds", 0) for record in drawn)
    turns = f"; median of {rounds} interleaved rounds" if rounds else ""
    return f"{data['n_queries']:,} queries, k = {data['k']}: {MODES[mode]}; {machine['cpu']}{turns}"


def libraries(configurations: Mapping[str, Sequence[measure.Point]]) -> Lines:
    """Return the frontier of every library over all of its configurations."""
    found: Lines = {}
    for name, points in configurations.items():
        library = next((title for start, title in LIBRARIES.items() if name.startswith(start)), name)
        found.setdefault(library, []).extend(points)
    return {library: measure.frontier(points) for library, points in found.items()}


def strongest(lines: Lines, best: int) -> Lines:
    """Return ours and the libraries that are fastest at 0.95; where none reaches it, at the highest recall."""
    others = [name for name in lines if name != OURS]
    others.sort(key=lambda name: (-(measure.qps_at(lines[name], 0.95) or 0), -lines[name][-1][0]))
    return {name: lines[name] for name in [*(n for n in lines if n == OURS), *others[:best]]}


# ---------------------------------------------------------------- scales


class Box(NamedTuple):
    """Where a panel's axes are, and what they show."""

    left: float
    top: float
    width: float
    height: float
    low: float = 0.0  # decimal logarithms of QPS at the bottom and the top
    high: float = 1.0

    def x(self, recall: float) -> float:
        """Every further nine takes the same room."""
        start, end = stretched(LEAST), stretched(BEST)
        return self.left + (stretched(recall) - start) / (end - start) * self.width

    def y(self, qps: float) -> float:
        """Logarithmic."""
        return self.top + (self.high - math.log10(qps)) / (self.high - self.low) * self.height


def stretched(recall: float) -> float:
    """Return -log10 of what is missing to 1."""
    return -math.log10(1 - min(recall, 0.9999))


def span(lines: Lines) -> tuple[float, float]:
    """Return the decimal logarithms of QPS between which a panel's visible points lie, with room around them."""
    logs = [math.log10(qps) for line in lines.values() for recall, qps in line if LEAST <= recall <= BEST]
    low, high = (min(logs), max(logs)) if logs else (3.0, 4.0)
    room = max(0.06, (0.5 - (high - low)) / 2)  # at least half a decade, so that noise is not magnified
    return low - room, high + room


def ticks(low: float, high: float) -> list[int]:
    """Return round numbers in a range of decimal logarithms: a few, evenly apart where that is enough."""
    found: list[int] = []
    for steps in ((10, 20, 50), (10, 15, 20, 30, 40, 50, 70)):
        rates = [m * 10**e // 10 for e in range(max(1, math.floor(low)), math.ceil(high) + 1) for m in steps]
        found = [rate for rate in rates if low < math.log10(rate) < high]
        if len(found) > 2:
            break
    return found


def short(rate: int) -> str:
    """Return 1500 as 1.5k."""
    return f"{rate / 1000:g}k" if rate >= 1000 else str(rate)


# ---------------------------------------------------------------- drawing


def _names(kept: Mapping[str, Lines]) -> list[str]:
    return list(dict.fromkeys(name for lines in kept.values() for name in lines))


def head(height: float, note: str, title: str = TITLE, hint: str = HINT, about: str = ABOUT) -> Iterator[str]:
    """Yield the beginning of a document: what it is, its styles, the words around the panels."""
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{about}">'
    yield "<style>text{font:13px system-ui,sans-serif}text.small{font-size:12px}text.title{font-size:16px}"
    yield "text.name,text.title{font-weight:600}.grid,.line{fill:none}.line{stroke-width:2}.ours{stroke-width:3.5}"
    yield f"{_colors(0)}\n@media(prefers-color-scheme:dark){{{_colors(1)}}}</style>"
    yield f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>'
    yield f'<text x="18" y="28" class="title">{title}</text>'
    yield f'<text x="{WIDTH - 18}" y="28" text-anchor="end" class="small">{hint}</text>'
    yield f'<text x="18" y="{height - 14}" class="small">{escape(note)}</text>'


def _colors(dark: int) -> str:
    rules = [f".page{{fill:{PAGE[dark]}}}text{{fill:{INK[dark]}}}text.small{{fill:{FAINT[dark]}}}"]
    rules.append(f".grid{{stroke:{GRID[dark]}}}")
    rules += [f".s{i}{{stroke:{pair[dark]}}}.f{i}{{fill:{pair[dark]}}}" for i, pair in enumerate(COLORS)]
    return "".join(rules)


def _legend(names: Sequence[str], styles: Mapping[str, int]) -> Iterator[str]:
    x = 18.0
    for name in names:
        yield from _sample(name, styles[name], x)
        x += 34 + 8.2 * len(name) + 22


def _sample(name: str, style: int, x: float) -> Iterator[str]:
    ours = " ours" if name == OURS else ""
    yield f'<path class="line s{style}{ours}" d="M{x:.0f} 54h26"/>'
    yield marker(x + 13, 54, style, "")
    weight = ' class="name"' if ours else ""
    yield f'<text x="{x + 34:.0f}" y="58.5"{weight}>{escape(name)}</text>'


def _panel(title: str, lines: Lines, box: Box, styles: Mapping[str, int], clip: str) -> Iterator[str]:
    low, high = span(lines)
    box = box._replace(low=low, high=high)
    right, bottom = box.left + box.width, box.top + box.height
    yield f'<text x="{box.left:.1f}" y="{box.top - 9:.1f}" class="name">{escape(title)}</text>'
    for rate in ticks(low, high):
        yield f'<path class="grid" d="M{box.left:.1f} {box.y(rate):.1f}H{right:.1f}"/>'
        place = f'x="{box.left - 7:.1f}" y="{box.y(rate) + 4:.1f}"'
        yield f'<text {place} text-anchor="end" class="small">{short(rate)}</text>'
    for recall in RECALLS:
        yield f'<path class="grid" d="M{box.x(recall):.1f} {box.top:.1f}V{bottom:.1f}"/>'
        place = f'x="{box.x(recall):.1f}" y="{bottom + 17:.1f}"'
        yield f'<text {place} text-anchor="middle" class="small">{recall:g}</text>'
    area = f'x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    yield f'<clipPath id="{clip}"><rect {area}/></clipPath><g clip-path="url(#{clip})">'
    for name in reversed(lines):  # ours last, on top
        path = " ".join(f"{box.x(recall):.1f},{box.y(qps):.1f}" for recall, qps in lines[name])
        ours = " ours" if name == OURS else ""
        yield f'<polyline class="line s{styles[name]}{ours}" points="{path}"/>'
        for recall, qps in lines[name]:
            told = f"<title>{escape(name)}: {qps:,.0f} queries per second at recall {recall:.4f}</title>"
            yield marker(box.x(recall), box.y(qps), styles[name], told)
    yield "</g>"


def marker(x: float, y: float, style: int, told: str) -> str:
    """Return the mark of a style, with what is told of it."""
    shapes = {
        "circle": f'<circle class="f{style}" cx="{x:.1f}" cy="{y:.1f}" r="4">',
        "square": f'<path class="f{style}" d="M{x - 3.6:.1f} {y - 3.6:.1f}h7.2v7.2h-7.2z">',
        "diamond": f'<path class="f{style}" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z">',
        "triangle": f'<path class="f{style}" d="M{x:.1f} {y - 5:.1f}l5 8.6h-10z">',
    }
    shape = shapes[MARKERS[style % len(MARKERS)]]
    return f"{shape}{told}</{shape[1:].split()[0]}>"
