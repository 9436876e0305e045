"""Bits of one test of a column."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError
from nearly.filters.columns import Column, pack
from nearly.filters.spans import Spans

__all__ = [
    "check_pair",
    "element_bits",
    "join_bits",
    "join_span_bits",
    "pair_bits",
    "span_bits",
    "text_table",
]

Bits: TypeAlias = NDArray[np.uint64]
_AND, _OR = 1, 2  # how the core joins what it finds with what is there


def span_bits(column: Column, spans: Spans) -> Bits:
    """Return where the value of a column is in the spans."""
    if column._held is None:  # a list: only whether there is one can be asked
        return pack(np.where(column.mask(), len(spans.low) > 0, spans.nulls))
    out = np.empty((len(column) + 63) // 64, np.uint64)
    column._held.test(spans.low, spans.high, spans.nulls, out)
    return out


def join_span_bits(bits: Bits, column: Column, spans: Spans, *, all: bool) -> None:
    """Keep of bits where the value of a column is in the spans as well, or add where it is.

    A column is not read where bits leave nothing to find out.
    """
    if column._held is None:
        join_bits(bits, span_bits(column, spans), all=all)
    else:
        column._held.test(spans.low, spans.high, spans.nulls, bits, _AND if all else _OR)


def join_bits(bits: Bits, others: Bits, *, all: bool) -> None:
    """Keep of bits what others have too, or add what they have."""
    (np.bitwise_and if all else np.bitwise_or)(bits, others, out=bits)


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
