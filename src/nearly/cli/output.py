"""What commands print: aligned text for people, one JSON object for machines."""

import datetime as dt
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nearly.collection import lines

__all__ = ["as_bytes", "as_json", "note", "per_second", "table", "table_in_parts"]


def as_json(value: Any) -> str:
    """Return JSON on one line: NumPy values as plain ones, dates in ISO 8601, numbers that JSON lacks as null.

    Bytes are an object with their base64, as `nearly.collection.lines` has it.

    Examples
    --------
    >>> as_json({"ids": np.arange(2), "distance": np.float32("inf"), "recall": 0.95})
    '{"ids": [0, 1], "distance": null, "recall": 0.95}'
    """
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return lines.binary(value)
    return value.isoformat() if isinstance(value, dt.date) else value  # a datetime is a date


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 0, indent: str = "  ") -> str:
    """Return columns aligned to the right, the first ``left`` ones to the left.

    Examples
    --------
    >>> print(table(["name", "n"], [["a", "7"], ["b", "1,000"]], left=1))
      name      n
      a         7
      b     1,000
    """
    return next(table_in_parts(head, [rows], left=left, indent=indent))


def table_in_parts(
    head: Sequence[str], parts: Iterable[Iterable[Sequence[str]]], *, left: int = 0, indent: str = "  "
) -> Iterator[str]:
    """Yield a table part by part, as its rows come; each is as wide as those before it at least.

    Examples
    --------
    >>> print(*table_in_parts(["n"], [[["7"]], [["1,000"]]], indent=""), sep="\\n")
    n
    7
    1,000
    """
    widths = [0 for _ in head]

    def aligned(line: Sequence[str]) -> str:
        cells = enumerate(zip(line, widths, strict=True))
        return "  ".join(cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in cells)

    for i, rows in enumerate(parts):
        lines = [list(row) for row in rows]
        if i == 0:
            lines.insert(0, list(head))
        widths = [max(widest, *(len(line[j]) for line in lines), 0) for j, widest in enumerate(widths)]
        if lines:
            yield "\n".join((indent + aligned(line)).rstrip() for line in lines)


def as_bytes(n: float) -> str:
    """Return a size for people, in powers of 1000.

    Examples
    --------
    >>> as_bytes(999), as_bytes(26_214_400)
    ('999 B', '26.2 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def per_second(rate: float) -> str:
    """Return a rate with three digits that mean something.

    Examples
    --------
    >>> per_second(20428.2), per_second(149.15), per_second(7.018)
    ('20,400', '149', '7.02')
    """
    if rate <= 0 or not math.isfinite(rate):
        return "-"
    digits = 2 - math.floor(math.log10(rate))
    return f"{round(rate, digits):,.{max(0, digits)}f}"


def note(message: str) -> None:
    """Say something beside the answer, on standard error."""
    print(message, file=sys.stderr)
