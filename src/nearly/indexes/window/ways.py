"""The ways to answer a window, each a list of pieces that make it up, and what they cost.

Engels et al., Approximate Nearest Neighbor Search with Window Filters (ICML 2024), sections 4 and 5: `cover` is their
Fenwick-style decomposition, `within` is optimized post-filtering, `split` the three-way split, `overlapping`
super-post-filtering. Costs are counts of what is compared, from the recall contract's curves, in bytes.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nearly.indexes.contract import Effort
from nearly.indexes.window.part import Part
from nearly.indexes.window.run import Run

__all__ = ["METHODS", "Asked", "Piece", "chosen"]

# In bytes of vectors scanned meanwhile; measured on SIFT and CVE, see benchmarks/README.md.
_HOP, _LINE = 60.0, 64.0  # a place in a walk's pool costs so many codes, and a line beside each
_CALL = 220_000.0  # and each piece, beside what it compares
_SPREAD = 2.5  # standard deviations by which a pool holds more than k that pass: fewer would end in a scan


class Asked(NamedTuple):
    """What a search wants of every piece."""

    k: int
    recall: float | None


class Piece(NamedTuple):
    """Ranks that are searched in one go: by walking a part, or by a scan."""

    start: int
    stop: int
    cost: float
    part: Part | None = None
    how: Effort | None = None


def _scan(run: Run, start: int, stop: int) -> list[Piece]:
    if not run.count(start, stop):
        return []
    return [Piece(start, stop, _CALL + run.vectors.stride * float(stop - start))]


def _walk(run: Run, part: Part, start: int, stop: int, asked: Asked, beyond: bool = False) -> list[Piece] | None:
    """A walk through a part for those of its rows that an interval holds; None where it promises nothing.

    ``beyond`` takes what margin there is where none is known.
    """
    passing = run.count(start, stop)
    if not passing:
        return []
    how = part.effort(asked.k, asked.recall)
    if how.scan:
        return None
    stretch = len(part) / passing
    if stretch > 1.0:
        target = part._contract.target if asked.recall is None else asked.recall
        factor = run.margins.factor(target, stretch, beyond)
        if factor == np.inf:
            return None
        how = how.wider(factor, asked.k + math.ceil(_SPREAD * math.sqrt(asked.k)))
    return [Piece(start, stop, _CALL + _HOP * (_LINE + run.code_bytes) * how.lists * stretch, part, how)]


def _cost(pieces: list[Piece]) -> float:
    return sum(piece.cost for piece in pieces)


def _better(run: Run, start: int, stop: int, walk: list[Piece] | None) -> list[Piece]:
    scan = _scan(run, start, stop)
    return scan if walk is None or _cost(scan) <= _cost(walk) else walk


def scan(run: Run, start: int, stop: int, asked: Asked, forced: bool) -> list[Piece]:
    """Compare with every vector of the window."""
    return _scan(run, start, stop)


def cover(run: Run, start: int, stop: int, asked: Asked, forced: bool) -> list[Piece]:
    """The largest parts that lie in the window, side by side, and scans of the rest at both ends."""
    at, last = bisect_left(run.cuts, start), bisect_right(run.cuts, stop) - 1
    if at >= last:
        return _scan(run, start, stop)
    pieces: list[Piece] = []
    scanned = start  # what lies between here and the next part that is walked is scanned in one go
    while at < last:
        size, part = _largest(run, at, last)
        if part is not None:
            walk = _walk(run, part, part.start, part.stop, asked)
            if walk and (forced or walk[0].cost < run.vectors.stride * float(part.stop - part.start)):
                pieces += _scan(run, scanned, part.start) if scanned < part.start else []
                pieces += walk
                scanned = part.stop
        at += size
    return pieces + (_scan(run, scanned, stop) if scanned < stop else [])


def _largest(run: Run, at: int, last: int) -> tuple[int, Part | None]:
    """The largest part that begins with a leaf and ends in time, and its leaves; one leaf if there is none."""
    branching, size, level = run.shape.branching, 1, 0
    while (
        at % (size * branching) == 0
        and at + size * branching <= last
        and (level + 1, at // (size * branching), False) in run.parts
    ):
        size, level = size * branching, level + 1
    return size, run.parts.get((level, at // size, False))


def within(run: Run, start: int, stop: int, asked: Asked, forced: bool, shifted: bool = False) -> list[Piece] | None:
    """A walk through the smallest part that holds the window, in a pool as much wider as fewer pass."""
    part = _smallest(run, start, stop, shifted)
    return None if part is None else _walk(run, part, start, stop, asked, forced)


def _smallest(run: Run, start: int, stop: int, shifted: bool) -> Part | None:
    leaves, size, level = len(run.cuts) - 1, run.shape.branching, 1
    first = bisect_right(run.cuts, start) - 1
    while size <= leaves:
        part = run.parts.get((level, first // size, False))
        if part is not None and part.stop >= stop:
            return part
        if shifted and first >= size // 2:
            part = run.parts.get((level, (first - size // 2) // size, True))
            if part is not None and part.stop >= stop:
                return part
        size, level = size * run.shape.branching, level + 1
    return None


def split(run: Run, start: int, stop: int, asked: Asked, forced: bool) -> list[Piece] | None:
    """The largest part that lies in the window, and the rests beside it, each walked in the part that holds it."""
    branching = run.shape.branching
    first, last = bisect_left(run.cuts, start), bisect_right(run.cuts, stop) - 1
    size, level, found = branching, 1, None
    while size <= last - first:
        i = -(-first // size)
        if (i + 1) * size <= last and (level, i, False) in run.parts:
            found = run.parts[level, i, False]
        size, level = size * branching, level + 1
    if found is None or (found.start == start and found.stop == stop):  # a window that one part holds is covered by it
        return None
    middle = _walk(run, found, found.start, found.stop, asked)
    if middle is None:
        return None
    rests = [(start, found.start), (found.stop, stop)]
    shifted = run.shape.overlap
    sides = [_better(run, a, b, within(run, a, b, asked, False, shifted)) for a, b in rests if a < b]
    return middle + [piece for side in sides for piece in side]


def overlapping(run: Run, start: int, stop: int, asked: Asked, forced: bool) -> list[Piece] | None:
    """As `within`, among twice as many parts: those shifted by half hold what straddles the others."""
    return within(run, start, stop, asked, forced, shifted=True) if run.shape.overlap else None


Way = Callable[[Run, int, int, Asked, bool], list[Piece] | None]
METHODS: dict[str, Way] = {
    "scan": scan, "cover": cover, "within": within, "split": split, "overlapping": overlapping,
}  # fmt: skip


def chosen(run: Run, start: int, stop: int, asked: Asked, method: str) -> tuple[str, list[Piece]]:
    """The pieces of a window by one method, or by the cheapest ("auto"); a scan where a method has none."""
    if method != "auto":
        pieces = METHODS[method](run, start, stop, asked, True)
        return (method, pieces) if pieces is not None else ("cover", cover(run, start, stop, asked, False))
    best = "scan", _scan(run, start, stop)
    if best[1] and best[1][0].cost <= 2 * _CALL:  # no walk is cheaper
        return best
    for name, way in METHODS.items():
        pieces = way(run, start, stop, asked, False)
        if pieces is not None and _cost(pieces) < _cost(best[1]):
            best = name, pieces
    return best
