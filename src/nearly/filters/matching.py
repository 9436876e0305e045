"""Bits of one test of a column."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError
from nearly.filters.columns import Column, pack
from nearly.filters.spans import Spans, between

__all__ = ["check_pair", "element_bits", "pair_bits", "span_bits", "text_table"]

Bits: TypeAlias = NDArray[np.uint64]


def span_bits(column: Column, spans: Spans) -> Bits:
    """Return where the value of a column is in the spans."""
    n = len(column)
    if column.offsets is not None:  # a list: only whether there is one can be asked
        return pack(np.where(column.mask(), len(spans.low) > 0, spans.nulls))
    out = np.empty((n + 63) // 64, np.uint64)
    low, high = _clipped(column, spans)
    # What holds nearly all values is met by what it leaves out: NOT IN is as quick as IN.
    first, last = _LIMITS[column.values.dtype.name]
    inverted = len(low) > 1 and bool(low[0] <= first and high[-1] >= last)
    if inverted:
        low, high = between(low, high)
    _core.test_spans(column.values, low, high, inverted, spans.nulls, column.valid, out)
    return out


_LIMITS: dict[str, tuple[Any, Any]] = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("uint8", "uint16", "int8", "int16", "int32", "int64")
}
_LIMITS |= {"bool": _LIMITS["uint8"], "float64": (-np.inf, np.inf)}


def _clipped(column: Column, spans: Spans) -> tuple[NDArray[Any], NDArray[Any]]:
    """Spans within what the stored dtype holds."""
    if column.values.dtype.itemsize == 8:
        return spans.low, spans.high
    first, last = _LIMITS[column.values.dtype.name]
    kept = (spans.high >= first) & (spans.low <= last)
    return np.maximum(spans.low[kept], first), np.minimum(spans.high[kept], last)


def text_table(column: Column, name: str, text: str) -> NDArray[np.bool_]:
    """Return for each text of a dictionary whether it contains, starts with or ends with another.

    UTF-8 as it is stored: no text is decoded, and a part of a text is a part of its bytes.
    """
    assert column.dictionary is not None
    octets, offsets, part = column.dictionary.octets, column.dictionary.offsets, np.frombuffer(text.encode(), np.uint8)
    starts, ends, n = offsets[:-1], offsets[1:], len(part)
    table = np.zeros(len(starts), bool)
    if n == 0:
        return ~table
    if name == "contains":
        found = np.flatnonzero(octets[: len(octets) - n + 1] == part[0])
    else:
        long = np.flatnonzero(ends - starts >= n)
        found = starts[long] if name == "starts_with" else ends[long] - n
    for i in range(int(name == "contains"), n):
        found = found[octets[found + i] == part[i]]
    # Of texts that follow each other some byte may be in both: the part must end where its text does, or before.
    places = np.searchsorted(offsets, found, side="right") - 1
    table[places[found + n <= ends[places]]] = True
    return table


def element_bits(column: Column, text: str, negated: bool) -> Bits:
    """Return where the list of a row has a text among its elements, or where there is a list that has not."""
    assert column.dictionary is not None
    assert column.offsets is not None
    code, known = column.dictionary.place(text)
    out = np.empty((len(column) + 63) // 64, np.uint64)
    if known:
        _core.test_lists(column.values, code, column.offsets, negated, column.valid, out)
    else:
        out[:] = pack(column.mask() if negated else np.zeros(len(column), bool))
    return out


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": np.equal, "<>": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


def check_pair(left: Column, right: Column) -> set[str]:
    """Return the types of two columns; InputError where their values do not compare."""
    types = {left.type, right.type}
    alike = len(types) == 1 and not types & {"list[str]", "json"}
    if not (alike or types <= {"int", "float"} or types == {"date", "datetime"}):
        raise InputError(
            f"column {left.name!r} holds {left.type} and {right.name!r} holds {right.type}; they do not compare"
        )
    return types


def pair_bits(operator: str, left: Column, right: Column) -> Bits:
    """Return where the values of two columns compare; integers beside floats are compared as floats."""
    types = check_pair(left, right)
    if types == {"date", "datetime"}:
        a, b = (each.values.astype(np.int64) * (86_400_000_000 if each.type == "date" else 1) for each in (left, right))
    elif types == {"str"}:
        assert left.dictionary is not None
        assert right.dictionary is not None
        # Places in the other's order: twice the number of texts before, one more where it is among them.
        places = [left.dictionary.place(text) for text in right.dictionary.texts]
        place = np.array([2 * at + known for at, known in places] or [0], np.int64)
        a, b = left.values.astype(np.int64) * 2 + 1, place[np.minimum(right.values, len(place) - 1)]
    else:
        a, b = left.values, right.values
    return pack(_OPERATORS[operator](a, b) & left.mask() & right.mask())
