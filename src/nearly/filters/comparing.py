"""A constant beside a column: which spans of the column's order pass a comparison. Exact, whatever the types."""

import datetime as dt
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.columns import Column
from nearly.filters.expressions import Scalar
from nearly.filters.spans import Spans

__all__ = ["compared", "domain", "equal_to_one"]

_WHOLE, _REAL = np.dtype(np.int64), np.dtype(np.float64)
_MIN, _MAX = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
_ENDS = {_WHOLE: (_MIN, _MAX), _REAL: (-math.inf, math.inf)}
# Which values a comparison is true for: those below the constant, its equal, those above.
_BELOW, _EQUAL, _ABOVE = frozenset(("<", "<=", "<>")), frozenset(("=", "<=", ">=")), frozenset((">", ">=", "<>"))
_EPOCH = dt.datetime(1970, 1, 1)


def domain(column: Column) -> np.dtype[Any]:
    """Return the dtype in which spans of a column are written."""
    return _REAL if column.type == "float" else _WHOLE


def compared(column: Column, operator: str, value: Scalar) -> Spans:
    """Return the values of a column for which a comparison with a constant is true.

    Parameters
    ----------
    column : Column
        Any but lists and JSON.
    operator : str
        One of ``= <> < <= > >=``.
    value : bool, int, float, str, date, datetime or None
        Integers and floats compare as numbers do, without rounding; text is read as a date where the column holds
        dates. Nothing compares with None.

    Raises
    ------
    InputError
        If the value is of a type that does not compare with the column's.

    Examples
    --------
    >>> compared(Column.from_values("year", [2000]), ">", 1999.5)
    Spans(low=[2000], high=[9223372036854775807], nulls=False)
    """
    dtype = domain(column)
    if value is None:
        return Spans.of([], [], dtype)
    at, exact = _place(column, value)  # the first value that is not below; None when all are
    first, last = _ENDS[dtype]
    low: list[Any] = []
    high: list[Any] = []
    if operator in _BELOW and at != first:
        low.append(first)
        high.append(last if at is None else _neighbor(at, -1))
    if operator in _EQUAL and exact:
        low = low or [at]
        high = [at]
    if operator in _ABOVE and at is not None and not (exact and at == last):
        if high and (operator in _EQUAL or not exact):
            high = [last]
        else:
            low.append(_neighbor(at, 1) if exact else at)
            high.append(last)
    return Spans(np.array(low, dtype), np.array(high, dtype))


def equal_to_one(column: Column, values: Iterable[Scalar]) -> Spans:
    """Return the values of a column that equal one of some constants."""
    places = [_place(column, value) for value in values if value is not None]
    points = [at for at, exact in places if exact]
    return Spans.of(points, points, domain(column))


def _neighbor(value: Any, step: int) -> Any:
    """The value before or after."""
    return value + step if isinstance(value, int) else math.nextafter(value, step * math.inf)


def _place(column: Column, value: Any) -> tuple[Any, bool]:
    """The first value of the column's type that is not below, None when all are; and whether it is equal."""
    if column.type not in _WANTED:
        what, advice = _OTHERS[column.type]
        raise InputError(f"column {column.name!r} holds {what} not compare with {describe(value)}; use {advice}")
    try:
        if column.type == "str":
            if not isinstance(value, str):
                raise TypeError
            assert column.dictionary is not None
            at, exact = column.dictionary.place(value)
            return (at if at < len(column.dictionary) else None), exact
        return _PLACES[column.type](value)
    except TypeError:
        raise InputError(
            f"column {column.name!r} holds {column.type}, but is compared with {describe(value)}; "
            f"pass {_WANTED[column.type]}"
        ) from None
    except (ValueError, OverflowError) as problem:
        raise InputError(
            f"column {column.name!r} holds {column.type}, but {describe(value)} is none: {problem}"
        ) from None


def _of_bool(value: Any) -> tuple[Any, bool]:
    if not isinstance(value, bool):
        raise TypeError
    return int(value), True


def _of_int(value: Any) -> tuple[Any, bool]:
    if type(value) is int and _MIN <= value <= _MAX:  # nearly always
        return value, True
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if isinstance(value, float) and math.isinf(value):
        return (None if value > 0 else _MIN), False
    at = math.ceil(value)
    if at > _MAX:
        return None, False
    return (at, at == value) if at >= _MIN else (_MIN, False)


def _of_float(value: Any) -> tuple[Any, bool]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    try:
        near = float(value)
    except OverflowError:
        return (math.inf, False) if value > 0 else (-math.inf, False)
    if near == value:
        return near, True
    return (near if near > value else math.nextafter(near, math.inf)), False


def _of_date(value: Any) -> tuple[Any, bool]:
    at, exact = _of_datetime(value)
    days, rest = divmod(at, 86_400_000_000)
    return (days + 1, False) if rest else (days, exact)


def _of_datetime(value: Any) -> tuple[Any, bool]:
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value.strip())
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise TypeError
    return (value - _EPOCH) // dt.timedelta(microseconds=1), True


_PLACES = {"bool": _of_bool, "int": _of_int, "float": _of_float, "date": _of_date, "datetime": _of_datetime}
_OTHERS = {
    "list[str]": ("lists, which do", "contains"),
    "json": ("JSON, which does", "json_extract_string(...) in SQL"),
}
_WANTED = {
    "bool": "True or False",
    "int": "a number",
    "float": "a number",
    "str": "text",
    "date": "a date, or text such as '2020-12-31'",
    "datetime": "a datetime, or text such as '2020-12-31T23:59:00+00:00'",
}
