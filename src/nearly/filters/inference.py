"""What type a column of Python values has, and its values as arrays."""

import datetime as dt
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.words import describe
from nearly.errors import InputError

__all__ = ["as_written", "convert", "infer_type", "plain"]

Array: TypeAlias = NDArray[Any]

_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "U": "str"}
_EPOCH = dt.datetime(1970, 1, 1)


def infer_type(name: str, values: Iterable[Any]) -> str | None:
    """Return the type of values, None where all are null.

    Raises
    ------
    InputError
        If they are of several types, or of one that no column has.
    """
    array = _as_rows(name, values)
    if array.dtype.kind in _KINDS:
        return None if _nulls(array).all() else _KINDS[array.dtype.kind]
    if array.dtype.kind == "M":
        if np.isnat(array).all():
            return None
        return "date" if np.datetime_data(array.dtype)[0] in "YMWD" else "datetime"
    if array.dtype.kind != "O":
        raise InputError(f"column {name!r} came as {describe(array)}, which is none of the types that columns have")
    first: dict[str, int] = {}
    for kind, rows in _rows_of_each_class(array).items():
        for row in rows:
            type = _type_of(name, row, array[row], kind)
            if type is not None and row < first.get(type, len(array)):
                first[type] = row
    types = set(first)
    if types == {"int", "float"}:
        return "float"
    if types == {"list[str]", "json"}:
        return "json"
    if len(types) > 1:
        mixed = sorted(first.items(), key=lambda item: item[1])
        shown = " and ".join(f"{type} (row {row}: {_shown(array[row])})" for type, row in mixed)
        raise InputError(f"column {name!r} mixes {shown}; pass values of one type, or declare the type")
    return types.pop() if types else None


def convert(name: str, values: Iterable[Any], type: str) -> tuple[Array, NDArray[np.bool_]]:
    """Return values as an array (objects for texts and lists), and which rows have one.

    Raises
    ------
    InputError
        If a value is not of the type; the first is named.
    """
    array = _as_rows(name, values)
    valid = ~_nulls(array)
    ready = _convert_array(name, array, valid, type)
    if ready is not None:
        return ready, valid
    dtype, empty, one = _OF[type]
    made = np.empty(len(array), dtype)
    for row in np.flatnonzero(~valid).tolist():
        made[row] = empty
    for row in np.flatnonzero(valid).tolist():
        value = array[row]
        try:
            made[row] = one(plain(value) if isinstance(value, np.generic) and dtype is not object else value)
        except (TypeError, ValueError, OverflowError) as problem:
            reason = f": {problem}" if str(problem) else ""
            raise InputError(f"column {name!r} holds {type}, but row {row} is {_shown(value)}{reason}") from None
    return made, valid


def _as_rows(name: str, values: Iterable[Any]) -> Array:
    """One entry a row, never an array of two dimensions."""
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if values.dtype.kind == "f":  # as they are: float32 has a rule of its own
            return np.where(mask, values.dtype.type(np.nan), values.data)
        objects = np.asarray(values.data).astype(object)
        objects[mask] = None
        values = objects
    if not isinstance(values, np.ndarray) and hasattr(values, "to_numpy") and hasattr(values, "dtype"):
        values = values.to_numpy()  # pandas and Polars
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(f"column {name!r} came as {describe(values)}; pass one value a row")
        return values
    if isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        raise InputError(f"column {name!r} came as {describe(values)}; pass a list or an array, one value a row")
    values = list(values)
    array = np.empty(len(values), object)
    for row, value in enumerate(values):  # assigning the list at once would make lists of one length a matrix
        array[row] = value
    return array


def as_written(numbers: Array) -> NDArray[np.float64]:
    """Numbers as float64; fractions that are shorter by the least decimal that they stand for, as people wrote them.

    Examples
    --------
    >>> as_written(np.array([8.8, 0.1, 2**30], np.float32)).tolist()
    [8.8, 0.1, 1073741824.0]
    """
    made = numbers.astype(np.float64)
    if numbers.dtype.itemsize >= 8:
        return made
    fractions = np.isfinite(made) & (made != np.trunc(made))
    different, places = np.unique(numbers[fractions], return_inverse=True)
    made[fractions] = different.astype("U").astype(np.float64)[places]
    return made


def plain(value: np.generic) -> Any:
    """A NumPy number as Python has it, and as columns have it."""
    item = value.item()
    if isinstance(value, np.float32 | np.float16) and math.isfinite(item) and item != math.trunc(item):
        return float(str(value))
    return item


def _nulls(array: Array) -> NDArray[np.bool_]:
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype.kind == "M":
        return np.isnat(array)
    if array.dtype.kind != "O":
        return np.zeros(len(array), bool)
    return np.fromiter((_is_null(value) for value in array), bool, len(array))


def _is_null(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, np.datetime64) and bool(np.isnat(value)))


def _rows_of_each_class(array: Array) -> dict[type, list[int]]:
    """Rows to look at: the first of each class, all of those whose class does not say what they are."""
    rows: dict[type, list[int]] = {}
    for row, value in enumerate(array):
        kind = value.__class__
        if kind is float and value != value:
            continue
        seen = rows.get(kind)
        if seen is None:
            rows[kind] = [row]
        elif kind in (list, tuple, np.ndarray, np.datetime64, np.float32, np.float64):
            seen.append(row)
    return rows


def _type_of(name: str, row: int, value: Any, kind: type) -> str | None:
    if _is_null(value):
        return None
    if issubclass(kind, bool | np.bool_):
        return "bool"
    if issubclass(kind, int | np.integer):
        return "int"
    if issubclass(kind, float | np.floating):
        return "float"
    if issubclass(kind, str):
        return "str"
    if issubclass(kind, dt.datetime):
        return "datetime"
    if issubclass(kind, dt.date):
        return "date"
    if issubclass(kind, np.datetime64):
        return "date" if np.datetime_data(value.dtype)[0] in "YMWD" else "datetime"
    if issubclass(kind, list | tuple | np.ndarray):
        return "list[str]" if all(isinstance(part, str) for part in value) else "json"
    if issubclass(kind, dict):
        return "json"
    raise InputError(
        f"column {name!r} has {describe(value)} in row {row}, but columns hold bool, int, float, str, date, datetime, "
        f"lists of str or JSON; convert it, for example by float() or str()"
    )


def _convert_array(name: str, array: Array, valid: NDArray[np.bool_], type: str) -> Array | None:
    """Whole arrays of NumPy's own types at once; None where each value must be looked at."""
    kind = array.dtype.kind
    if type == "bool" and kind == "b":
        return np.ascontiguousarray(array)
    if type == "int" and kind in "iu":
        if kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            row = int(np.argmax(array > np.iinfo(np.int64).max))
            raise InputError(f"column {name!r} holds int, but row {row} is {array[row]}: {_BEYOND}")
        return array.astype(np.int64)
    if type == "float" and kind == "f":
        return as_written(np.where(valid, array, array.dtype.type(0)))
    if type == "datetime" and kind == "M":
        return np.where(valid, array.astype("datetime64[us]").astype(np.int64), 0)
    if type == "date" and kind == "M" and np.datetime_data(array.dtype)[0] in "YMWD":
        days = np.where(valid, array.astype("datetime64[D]").astype(np.int64), 0)
        if bool((np.abs(days) < 1 << 31).all()):
            return days.astype(np.int32)
    return None


_BEYOND = "int64 ends at 2**63; store it as str"


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _int(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if not -(2**63) <= value < 2**63:
        raise ValueError(_BEYOND)
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if isinstance(value, int) and int(float(value)) != value:
        raise ValueError("no float is that number; declare the type int, or pass floats")
    return float(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    text = str.__str__(value)
    text.encode()
    return text


def _date(value: Any) -> int:
    if isinstance(value, np.datetime64):
        value = value.item()
    if isinstance(value, str):
        value = dt.date.fromisoformat(value)
    if isinstance(value, dt.datetime):
        raise TypeError("it has a time; declare the type datetime, or pass .date()")
    if not isinstance(value, dt.date):
        raise TypeError
    return (value - _EPOCH.date()).days


def _datetime(value: Any) -> int:
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[us]").astype(np.int64))
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise TypeError
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return int((value - _EPOCH) // dt.timedelta(microseconds=1))


def _list(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise TypeError
    for part in value:
        if not isinstance(part, str):
            raise TypeError(f"it holds {describe(part)}, but lists hold str; declare the type json for others")
    return tuple(map(_str, value))


def _json(value: Any) -> str:
    try:
        text = _json_text(value)
    except RecursionError:
        raise ValueError("it is nested too deep, or holds itself") from None
    text.encode()
    return text


def _json_text(value: Any) -> str:
    return json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _without_nan(value: Any) -> Any:
    """NaN is null inside of JSON as well, which has no other word for it."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return value


# dtype, what stands where there is no value, and how one value is converted.
_OF: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
    "bool": (np.bool_, False, _bool),
    "int": (np.int64, 0, _int),
    "float": (np.float64, 0.0, _float),
    "str": (object, "", _str),
    "date": (np.int32, 0, _date),
    "datetime": (np.int64, 0, _datetime),
    "list[str]": (object, (), _list),
    "json": (object, "null", _json),
}


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} of lists in lists"
    return text if len(text) <= 40 else f"{text[:37]}..."
