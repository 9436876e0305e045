"""The ordered attribute: numbers or points in time as one column, and the windows that are asked of it."""

import datetime
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.errors import InputError

__all__ = ["Column", "as_column", "as_windows"]

Column = NDArray[Any]  # int64 or float64
_LEAST, _MOST = -(2**63), 2**63 - 1


def as_column(values: Any, n: int, kind: str | None = None) -> tuple[Column, str]:
    """Return values as int64 or float64, and what they were: "int64", "float64" or "datetime64[unit]".

    ``kind`` is what the index holds already: integers that float64 holds join floats, points in time take its unit.
    """
    try:
        made = np.asarray(values)
    except ValueError as problem:
        raise InputError(f"values must be a column of numbers or of points in time: {problem}") from None
    if made.ndim != 1 or len(made) != n:
        raise InputError(f"values has the shape {made.shape}, but there are {n} vectors; pass one value for each")
    if made.dtype == object and n and all(isinstance(v, datetime.date) for v in made):
        made = made.astype("datetime64[us]")
    if n == 0:
        return np.zeros(0, np.float64 if kind == "float64" else np.int64), kind or "int64"
    if made.dtype.kind == "M":
        column, own = _points(made, kind)
    elif made.dtype.kind in "iu":
        if made.dtype == np.uint64 and int(made.max()) > _MOST:
            raise InputError(f"values holds {int(made.max())}, beyond the range of int64; pass float64")
        column, own = made.astype(np.int64), "int64"
    elif made.dtype.kind == "f":
        column, own = made.astype(np.float64), "float64"
        _refuse_missing(np.isnan(column), "NaN")
    else:
        raise InputError(f"values has the dtype {made.dtype}; pass integers, floats or datetime64")
    if kind is None or own == kind:
        return column, own
    if kind == "float64" and own == "int64":
        floats = column.astype(np.float64)
        if not (floats.astype(object) == column.astype(object)).all():
            raise InputError("values holds integers that float64 rounds, and this index holds float64 values")
        return floats, kind
    raise InputError(f"values is {own}, but this index holds {kind} values; convert them to that")


def _refuse_missing(missing: NDArray[np.bool_], what: str) -> None:
    if missing.any():
        count, first = int(missing.sum()), int(missing.argmax())
        raise InputError(f"values holds {what} {count} times, first at {first}, which lies in no window; leave these "
                         "vectors out, or give them a value")  # fmt: skip


def _points(made: NDArray[Any], kind: str | None) -> tuple[NDArray[np.int64], str]:
    _refuse_missing(np.isnat(made), "NaT")
    if np.datetime_data(made.dtype)[0] == "generic":
        raise InputError("values has no unit of time; pass datetime64[s] or another")
    if kind is None or not kind.startswith("datetime64"):
        return made.astype(np.int64), str(made.dtype)
    moved = made.astype(kind)
    if (moved.astype(made.dtype) != made).any():
        raise InputError(f"values is {made.dtype}, finer than the {kind} of this index; round them first")
    return moved.astype(np.int64), kind


def as_windows(window: Any, kind: str, n_queries: int, single: bool) -> tuple[Column, Column]:
    """Return the inclusive bounds of a window for all queries (length 1), or of one for each (length n).

    Bounds that the column cannot hold move inwards to ones it can: nothing outside of the window as asked is let in.
    """
    if window is None:
        window = (None, None)
    pairs = _pairs(window, n_queries, single)
    dtype = np.float64 if kind == "float64" else np.int64
    lows, highs = (np.empty(len(pairs), dtype) for _ in range(2))
    if isinstance(pairs, np.ndarray) and pairs.dtype.kind in "iuf" and pairs.dtype != np.uint64:
        given = pairs.astype(np.float64) if pairs.dtype.kind == "f" else pairs.astype(np.int64)
        if np.isnan(given).any():
            raise InputError("window holds NaN; pass None for an open end")
        if given.dtype == dtype:
            return np.ascontiguousarray(given[:, 0]), np.ascontiguousarray(given[:, 1])
    for i, pair in enumerate(pairs):
        low, high = pair
        lows[i], highs[i] = _bound(low, kind, False), _bound(high, kind, True)
        if not kind.startswith("float") and (_beyond(low, above=True) or _beyond(high, above=False)):
            lows[i], highs[i] = 1, 0  # empty
    return lows, highs


def _pairs(window: Any, n_queries: int, single: bool) -> Any:
    wanted = "window is a pair (low, high), either of them None, or one pair for each query"
    if isinstance(window, np.ndarray) and window.shape == (2,):
        return window[None]
    if isinstance(window, str) or not hasattr(window, "__len__"):
        raise InputError(f"{wanted}; {window!r} came")
    if len(window) == 2 and not any(isinstance(end, tuple | list | np.ndarray) for end in window):
        return [tuple(window)]
    if any(isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 2 for pair in window):
        raise InputError(f"{wanted}; what came is neither")
    if single or len(window) != n_queries:
        raise InputError(f"window holds {len(window)} pairs, but {'one query' if single else f'{n_queries} queries'} "
                         "came; pass one pair for all, or one for each")  # fmt: skip
    return window


def _beyond(end: Any, *, above: bool) -> bool:
    """Whether a bound lies beyond all integers of 64 bits, so that no value is on its inner side."""
    if isinstance(end, int | float | np.integer | np.floating) and not isinstance(end, bool):
        return bool(end > _MOST if above else end < _LEAST)
    return False


def _bound(end: Any, kind: str, upper: bool) -> int | float:
    """One end as a value of the column: the nearest that does not lie outside of it."""
    if kind.startswith("datetime64"):
        return _moment(end, kind, upper)
    if end is None:
        return (math.inf if upper else -math.inf) if kind == "float64" else (_MOST if upper else _LEAST)
    if isinstance(end, bool | np.bool_) or not isinstance(end, int | float | np.integer | np.floating):
        raise InputError(f"window has the end {end!r}; this index holds numbers: pass numbers or None")
    if end != end:
        raise InputError("window holds NaN; pass None for an open end")
    exact: int | float = int(end) if isinstance(end, int | np.integer) else float(end)
    if kind == "float64":
        try:
            value = float(exact)
        except OverflowError:
            value = math.inf if exact > 0 else -math.inf
        if upper and value > exact:
            return math.nextafter(value, -math.inf)
        return math.nextafter(value, math.inf) if not upper and value < exact else value
    if math.isinf(exact):
        return _MOST if exact > 0 else _LEAST
    whole = math.floor(exact) if upper else math.ceil(exact)
    return min(_MOST, max(_LEAST, whole))


def _moment(end: Any, kind: str, upper: bool) -> int:
    if end is None:
        return _MOST if upper else _LEAST
    if isinstance(end, datetime.date):
        if isinstance(end, datetime.datetime) and end.tzinfo is not None:
            end = end.astimezone(datetime.UTC).replace(tzinfo=None)
        end = np.datetime64(end)
    if not isinstance(end, np.datetime64):
        raise InputError(f"window has the end {end!r}; this index holds points in time: pass datetime64, datetime or "
                         "None")  # fmt: skip
    if np.isnat(end):
        raise InputError("window holds NaT; pass None for an open end")
    moved = end.astype(kind)  # rounds down
    whole = int(moved.astype(np.int64))
    return whole if upper or moved.astype(end.dtype) == end else whole + 1
