"""The values of one column for some rows: checked once, kept as what the next step needs.

A few rows stay plain Python values, which the log writes as JSON; many become a `filters.Column`, which segments hold.
A plain value is bool, int, float, str, date, datetime (naive, UTC), a list of str, what JSON knows, or None for null.
"""

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.columns import TYPES, Column, Dictionary, code_dtype, narrowed, pack
from nearly.filters.inference import infer_type

__all__ = ["Cells", "as_cells", "column_from_arrays", "column_to_arrays", "concatenated", "from_json", "to_json"]

Array = NDArray[Any]
_EXACT: Mapping[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
_FEW = 64  # rows up to which each value is looked at by itself


class Cells:
    """The values of one column: a list, a `Column`, and each from the other when it is asked for."""

    __slots__ = ("_column", "_plain", "name", "type")

    def __init__(self, name: str, type: str, plain: list[Any] | None = None, column: Column | None = None) -> None:
        self.name, self.type, self._plain, self._column = name, type, plain, column

    @property
    def plain(self) -> list[Any]:
        if self._plain is None:
            assert self._column is not None
            self._plain = self._column.to_list()
        return self._plain

    @property
    def column(self) -> Column:
        if self._column is None:
            self._column = Column.from_values(self.name, self.plain, self.type)
        return self._column

    def __len__(self) -> int:
        return len(self._plain) if self._plain is not None else len(self.column)


def as_cells(name: Any, values: Any, type: str | None, n: int) -> Cells | None:
    """Check the values of a column for n rows; None where all are null and no type is known.

    Raises
    ------
    InputError
        If values are of several types, of none, or not of the type that the column has.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"a column is named {describe(name)}, but names are str that are not empty")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"a column is named {describe(name)}, which is not valid Unicode; rename it") from None
    if type is not None and isinstance(values, list) and 0 < len(values) == n <= _FEW:
        exact = _EXACT.get(type)
        if exact is not None and all(v is None or (v.__class__ is exact and _ordinary(v)) for v in values):
            return Cells(name, type, plain=values)
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        values = [values] * n if n == 1 else values
    type = type or infer_type(name, values)
    if type is None:
        _check_length(name, len(_sized(values)), n)
        return None
    made = Column.from_values(name, values, type)
    _check_length(name, len(made), n)
    return Cells(name, type, column=made)


def _ordinary(value: Any) -> bool:
    if value.__class__ is int:
        return bool(-(2**63) <= value < 2**63)
    if value.__class__ is str:
        return bool(value.isascii())
    return bool(value == value)


def _sized(values: Iterable[Any]) -> Sequence[Any]:
    return values if isinstance(values, Sequence) else list(values)


def _check_length(name: str, got: int, n: int) -> None:
    if got != n:
        raise InputError(f"column {name!r} has {got} values, but there are {n} rows; pass one for each")


# -- JSON, for the log and for patches -------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A plain value as JSON has it: dates as ISO 8601."""
    return value.isoformat() if isinstance(value, dt.date) else value


def from_json(type: str, value: Any) -> Any:
    """The plain value of a column of some type that `to_json` wrote; ValueError where it cannot have been."""
    if value is None:
        return None
    made = _FROM_ISO[type](value) if type in _FROM_ISO and isinstance(value, str) else value
    exact = _EXACT.get(type) or {"date": dt.date, "datetime": dt.datetime, "list[str]": list}.get(type)
    if exact is not None and made.__class__ is not exact:
        raise ValueError(f"{describe(value)} is no {type}")
    if made.__class__ is int and not -(2**63) <= made < 2**63:
        raise ValueError(f"{made} is beyond 64 bits")
    if type == "datetime" and made.tzinfo is not None:
        raise ValueError(f"{value!r} has a time zone")
    if type == "list[str]" and not all(each.__class__ is str for each in made):
        raise ValueError("a list holds something else than texts")
    if type in ("str", "list[str]", "json"):
        json.dumps(made, ensure_ascii=False).encode()  # halves of surrogate pairs are no Unicode
    return made


_FROM_ISO: Mapping[str, Any] = {"date": dt.date.fromisoformat, "datetime": dt.datetime.fromisoformat}


# -- arrays, for segments --------------------------------------------------------------------------------------------


def column_to_arrays(column: Column) -> dict[str, Array]:
    """What a column consists of, by the names that `column_from_arrays` knows."""
    found = {"values": column.values, "valid": column.valid, "offsets": column.offsets, "cover": column.outline()}
    if column.dictionary is not None:
        found |= {"text_offsets": column.dictionary.offsets, "text_octets": column.dictionary.octets}
    return {name: array for name, array in found.items() if array is not None}


def column_from_arrays(name: str, type: str, parts: Mapping[str, Array]) -> Column:
    """A column over arrays, which may be mapped from a file; raises InputError where they do not fit together."""
    if type not in TYPES:
        raise InputError(f"column {name!r} has type {type!r}, which this version does not know")
    dictionary = None
    if "text_offsets" in parts and "text_octets" in parts:
        dictionary = Dictionary(parts["text_offsets"], parts["text_octets"])
    if "values" not in parts:
        raise InputError(f"column {name!r} has no values")
    return Column(
        name, type, parts["values"], valid=parts.get("valid"), dictionary=dictionary, offsets=parts.get("offsets"),
        cover=parts.get("cover"),
    )  # fmt: skip


def concatenated(name: str, type: str, parts: Sequence[tuple[Column | None, Array]]) -> Column:
    """The rows that are chosen of several columns, one after the other; a part without the column is all null.

    Texts that no row has any more are left out: nothing of a deleted row stays behind.
    """
    valid = np.concatenate(
        [np.zeros(len(rows), bool) if column is None else column.mask()[rows] for column, rows in parts]
    )
    if type in ("str", "json", "list[str]"):
        return _joined_texts(name, type, parts, valid)
    dtype: Any = {"bool": np.bool_, "float": np.float64, "date": np.int32}.get(type, np.int64)
    values = np.zeros(len(valid), dtype)
    at = 0
    for column, rows in parts:
        if column is not None:
            values[at : at + len(rows)] = column.values[rows]
        at += len(rows)
    values[~valid] = 0
    return Column(name, type, narrowed(values) if type == "int" else values, valid=valid)


def _joined_texts(name: str, type: str, parts: Sequence[tuple[Column | None, Array]], valid: Array) -> Column:
    lengths, used = [], []  # for each part: elements a row, and the codes of all its elements
    for column, rows in parts:
        if column is None:
            lengths.append(np.zeros(len(rows), np.int64))
            used.append(np.zeros(0, np.int64))
        elif column.offsets is not None:
            counts = np.where(column.mask()[rows], column.offsets[rows + 1] - column.offsets[rows], 0)
            begins = np.repeat(column.offsets[rows] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
            lengths.append(counts)
            used.append(column.values[begins + np.arange(len(begins))].astype(np.int64))
        else:
            present = column.mask()[rows]
            lengths.append(present.astype(np.int64))
            used.append(column.values[rows[present]].astype(np.int64))
    texts: list[list[str]] = []
    codes: list[Array] = []
    for (column, _), elements in zip(parts, used, strict=True):
        if column is None or column.dictionary is None or not len(elements):
            texts.append([])
            codes.append(elements)
            continue
        seen = np.zeros(len(column.dictionary), bool)
        seen[elements] = True
        kept = np.flatnonzero(seen)
        renamed = np.zeros(len(seen), np.int64)
        renamed[kept] = np.arange(len(kept))
        texts.append([column.dictionary[i] for i in kept.tolist()])
        codes.append(renamed[elements])
    flat = [text for part in texts for text in part]
    dictionary, places = Dictionary.from_texts(flat)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in texts])]).astype(np.int64)
    merged = [places[code + start] if len(code) else places[:0] for code, start in zip(codes, starts[:-1], strict=True)]
    values = np.concatenate(merged) if merged else np.zeros(0, places.dtype)
    values = np.ascontiguousarray(values.astype(code_dtype(len(dictionary))))
    if type == "list[str]":
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return Column(name, type, values, valid=pack(valid), dictionary=dictionary, offsets=offsets)
    spread = np.zeros(len(valid), values.dtype)
    spread[valid] = values
    return Column(name, type, spread, valid=valid, dictionary=dictionary)
