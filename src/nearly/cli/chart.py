"""One chart as SVG: queries per second against recall."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from nearly.cli.measure import Measured
from nearly.cli.output import per_second

__all__ = ["chart"]

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, _WIDTH - 36, 26, _HEIGHT - 56
_BEST = 0.9995  # recall at which the axis ends; exact search stands behind it
_TICKS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


def chart(sweep: Sequence[Measured], rows: Sequence[Measured]) -> str:
    """Return an SVG element.

    Parameters
    ----------
    sweep : sequence of Measured
        Searches of rising effort: the line.
    rows : sequence of Measured
        Searches for a recall, marked on it; the last is exact search.
    """
    return "\n".join(
        (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Queries per second against recall">',
            *_drawn(sorted(sweep, key=lambda row: (row.delivered, -row.batch)), rows[:-1], rows[-1]),
            "</svg>",
        )
    )


def _drawn(sweep: Sequence[Measured], asked: Sequence[Measured], exact: Measured) -> Iterator[str]:
    rates = [row.batch for row in (*sweep, *asked, exact)]
    low, high = math.log10(min(rates)) - 0.12, math.log10(max(rates)) + 0.12
    least = min([0.75, *(row.delivered for row in (*sweep, *asked))])
    left, end = _stretched(least) - 0.06, _stretched(_BEST)
    right = end + 0.14 * (end - left)

    def x(recall: float) -> str:
        return f"{_LEFT + (_stretched(recall) - left) / (right - left) * (_RIGHT - _LEFT):.1f}"

    def y(rate: float, above: float = 0) -> str:
        return f"{_TOP + (high - math.log10(rate)) / (high - low) * (_BOTTOM - _TOP) - above:.1f}"

    for rate in _rates(low, high):
        yield f'<path class="grid" d="M{_LEFT} {y(rate)}H{_RIGHT}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y(rate, -4)}" text-anchor="end">{rate:,}</text>'
    for recall in (tick for tick in _TICKS if tick >= least):
        yield f'<path class="grid" d="M{x(recall)} {_TOP}V{_BOTTOM}"/>'
        yield f'<text class="tick" x="{x(recall)}" y="{_BOTTOM + 18}" text-anchor="middle">{recall:g}</text>'
    yield f'<text class="tick" x="{_RIGHT}" y="{_BOTTOM + 18}" text-anchor="middle">exact</text>'
    yield f'<text class="axis" x="{_LEFT}" y="14">queries per second (logarithmic)</text>'
    middle, below = (_LEFT + _RIGHT) / 2, _HEIGHT - 12
    yield f'<text class="axis" x="{middle}" y="{below}" text-anchor="middle">recall delivered (stretched to 1)</text>'

    yield f'<path class="exactline" d="M{_LEFT} {y(exact.batch)}H{_RIGHT}"/>'
    yield f'<rect class="exact" x="{_RIGHT - 5}" y="{y(exact.batch, 5)}" width="10" height="10">{_title(exact)}</rect>'
    yield f'<text class="label" x="{_RIGHT - 10}" y="{y(exact.batch, 10)}" text-anchor="end">exact search</text>'
    points = " ".join(f"{x(row.delivered)},{y(row.batch)}" for row in sweep)
    yield f'<polyline class="line" fill="none" points="{points}"/>'
    for row in sweep:
        yield f'<circle class="dot" cx="{x(row.delivered)}" cy="{y(row.batch)}" r="3">{_title(row)}</circle>'
    for row in asked:
        at = float(x(row.delivered))
        yield f'<circle class="target" cx="{at}" cy="{y(row.batch)}" r="6">{_title(row)}</circle>'
        label = f"asked {row.settings['recall']:g}"  # below and to the left of the ring: the line is above it
        yield f'<text class="label" x="{at - 8:.1f}" y="{y(row.batch, -17)}" text-anchor="end">{label}</text>'


def _stretched(recall: float) -> float:
    """Every further nine takes the same room."""
    return -math.log10(1 - min(recall, _BEST))


def _rates(low: float, high: float) -> list[int]:
    """1, 2 and 5 times powers of ten in the range."""
    found = [m * 10**e for e in range(math.floor(max(0.0, low)), math.ceil(high) + 1) for m in (1, 2, 5)]
    return [rate for rate in found if low < math.log10(rate) < high]


def _title(row: Measured) -> str:
    return f"<title>{escape(row.name)}: recall {row.delivered:.4f}, {per_second(row.batch)} queries per second</title>"
