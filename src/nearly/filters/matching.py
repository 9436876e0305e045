"""Bits of one test of a column."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly.errors import InputError
from nearly.filters.columns import Column, pack
from nearly.filters.spans import Spans

__all__ = ["element_bits", "pair_bits", "span_bits", "text_table"]

Bits: TypeAlias = NDArray[np.uint64]


def span_bits(column: Column, spans: Spans) -> Bits:
    """Return where the value of a column is in the spans."""
    n = len(column)
    if column.offsets is not None:  # a list: only whether there is one can be asked
        inside = np.full(n, len(spans.low) > 0)
    else:
        at = np.searchsorted(spans.low, column.values, side="right") - 1
        inside = (at >= 0) & (column.values <= np.append(spans.high, [0])[at])
    return pack(np.where(column.mask(), inside, spans.nulls))


def text_table(column: Column, name: str, text: str) -> NDArray[np.bool_]:
    """Return for each text of a dictionary whether it contains, starts with or ends with another."""
    assert column.dictionary is not None
    texts = column.dictionary.texts
    test: Callable[[str], bool]
    if name == "contains":
        found = (text in each for each in texts)
    else:
        found = (each.startswith(text) if name == "starts_with" else each.endswith(text) for each in texts)
    return np.fromiter(found, bool, len(texts))


def element_bits(column: Column, text: str, negated: bool) -> Bits:
    """Return where the list of a row has a text among its elements, or where there is a list that has not."""
    assert column.dictionary is not None
    assert column.offsets is not None
    code, known = column.dictionary.place(text)
    found = np.zeros(len(column), bool)
    if known:
        elements = np.flatnonzero(column.values == code)
        found[np.searchsorted(column.offsets, elements, side="right") - 1] = True
    return pack((found != negated) & column.mask())


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": np.equal, "<>": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


def pair_bits(operator: str, left: Column, right: Column) -> Bits:
    """Return where the values of two columns compare; integers beside floats are compared as floats."""
    types = {left.type, right.type}
    if types <= {"int", "float"} or types in ({"bool"}, {"date"}, {"datetime"}):
        a, b = left.values, right.values
    elif types == {"date", "datetime"}:
        a, b = (each.values.astype(np.int64) * (86_400_000_000 if each.type == "date" else 1) for each in (left, right))
    elif types == {"str"}:
        assert left.dictionary is not None
        assert right.dictionary is not None
        # Places in the other's order: twice the number of texts before, one more where it is among them.
        places = [left.dictionary.place(text) for text in right.dictionary.texts]
        place = np.array([2 * at + known for at, known in places] or [0], np.int64)
        a, b = left.values.astype(np.int64) * 2 + 1, place[np.minimum(right.values, len(place) - 1)]
    else:
        raise InputError(
            f"column {left.name!r} holds {left.type} and {right.name!r} holds {right.type}; they do not compare"
        )
    return pack(_OPERATORS[operator](a, b) & left.mask() & right.mask())
