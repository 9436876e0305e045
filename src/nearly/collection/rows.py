"""What a segment holds beside vectors: keys, columns of metadata and documents, as arrays that a file may map.

It is both what filters read and the row store for people: reading ten rows touches a few pages of each column.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.collection.balls import Balls
from nearly.collection.cells import column_from_arrays, column_to_arrays
from nearly.collection.keys import KeyKind, Keys, Mapped, joined
from nearly.errors import FormatError, InputError
from nearly.filters.columns import Column, Dictionary
from nearly.filters.evaluating import Test, run

__all__ = ["DAMAGE", "Document", "Rows", "rows_arrays"]

Array = NDArray[Any]
Document = str | bytes | None
_NONE, _TEXT, _BYTES = 0, 1, 2
DAMAGE = (UnicodeDecodeError, IndexError, json.JSONDecodeError)  # what reading arrays of a damaged file may raise


def rows_arrays(
    keys: Keys, columns: Sequence[Column], documents: Sequence[Document] | None,
    balls: Mapping[str, Balls] | None = None,
) -> tuple[dict[str, Array], dict[str, Any]]:  # fmt: skip
    """Arrays and configuration of a file of rows; balls hold the vectors of a field."""
    arrays = keys.columns()
    described = []
    for i, column in enumerate(columns):
        arrays |= {f"column{i}.{part}": array for part, array in column_to_arrays(column).items()}
        described.append({"name": column.name, "type": column.type})
    if documents is not None and any(document is not None for document in documents):
        arrays |= _document_arrays(documents)
    for i, each in enumerate((balls or {}).values()):
        arrays |= {f"balls{i}.{part}": array for part, array in each._asdict().items()}
    return arrays, {"n": len(keys), "columns": described, **({"balls": list(balls)} if balls else {})}


def _document_arrays(documents: Iterable[Document]) -> dict[str, Array]:
    listed = list(documents)
    kinds = [_NONE if d is None else _TEXT if isinstance(d, str) else _BYTES for d in listed]
    octets, offsets = joined(d.encode() if isinstance(d, str) else d or b"" for d in listed)
    return {"document_octets": octets, "document_offsets": offsets, "document_kinds": np.array(kinds, np.uint8)}


class Rows:
    """The rows of one segment, immutable.

    Parameters
    ----------
    arrays, config
        As `rows_arrays` gives them; checked, as they may come from a damaged file.
    where : str
        The file, for messages.
    """

    def __init__(self, arrays: Mapping[str, Array], config: Mapping[str, Any], where: str = "") -> None:
        self._arrays, self._where = dict(arrays), where
        self._columns: dict[str, Column] = {}
        try:
            self.n = int(config["n"])
            self._places = {str(c["name"]): (i, str(c["type"])) for i, c in enumerate(config["columns"])}
        except (KeyError, TypeError, ValueError) as problem:
            raise FormatError(f"{where!r} is damaged: its rows cannot be read ({problem})") from problem
        self._check()
        self.balls = self._read_balls(config.get("balls", []))
        self.keys = Mapped(self._arrays)

    def _read_balls(self, fields: Sequence[str]) -> dict[str, Balls]:
        made: dict[str, Balls] = {}
        for i, name in enumerate(fields):
            parts = [self._arrays.get(f"balls{i}.{part}") for part in Balls._fields]
            try:
                made[name] = Balls.checked(*parts)
            except InputError as problem:
                raise FormatError(f"{self._where!r} is damaged: {problem}") from problem
        return made

    def _check(self) -> None:
        n = self.n
        wanted: dict[str, tuple[Any, int]] = {"hashes": (np.uint64, n), "hash_rows": (np.uint32, n)}
        if "keys" in self._arrays:
            wanted["keys"] = (np.int64, n)
        else:
            wanted |= {"key_offsets": (np.int64, n + 1)}
        if "document_kinds" in self._arrays:
            wanted |= {"document_kinds": (np.uint8, n), "document_offsets": (np.int64, n + 1)}
        for name, (dtype, length) in wanted.items():
            array = self._arrays.get(name)
            if array is None or array.dtype != dtype or array.shape != (length,):
                raise FormatError(f"{self._where!r} is damaged: array {name!r} is missing or of another size")
        for name in ("key", "document"):
            if f"{name}_offsets" in wanted and self._arrays.get(f"{name}_octets") is None:
                raise FormatError(f"{self._where!r} is damaged: array '{name}_octets' is missing")

    @property
    def n_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def types(self) -> dict[str, str]:
        """The type of each column that has a value."""
        return {name: type for name, (_, type) in self._places.items()}

    @property
    def key_kind(self) -> KeyKind:
        return "int" if "keys" in self._arrays else "str"

    def column(self, name: str) -> Column | None:
        """A column, None where no row has a value."""
        made = self._columns.get(name)
        if made is None and name in self._places:
            i, type = self._places[name]
            prefix = f"column{i}."
            parts = {k.removeprefix(prefix): a for k, a in self._arrays.items() if k.startswith(prefix)}
            try:
                made = column_from_arrays(name, type, parts)
            except InputError as problem:
                raise FormatError(f"{self._where!r} is damaged: {problem}") from problem
            if len(made) != self.n:
                raise FormatError(f"{self._where!r} is damaged: column {name!r} has not as many rows as there are")
            self._columns[name] = made
        return made

    def values(self, name: str, rows: Array) -> list[Any]:
        """Plain values of a column in some rows."""
        column = self.column(name)
        if column is None:
            return [None] * len(rows)
        try:
            return _some(column, rows)
        except DAMAGE as problem:
            raise self.damaged(problem) from problem

    def keys_of(self, rows: Array) -> list[Any]:
        """Keys of some rows."""
        try:
            return self.keys.take(rows)
        except DAMAGE as problem:
            raise self.damaged(problem) from problem

    def find(self, keys: Keys) -> Array:
        """The row of each key, -1 where there is none."""
        try:
            return self.keys.find(keys)
        except DAMAGE as problem:
            raise self.damaged(problem) from problem

    def documents(self, rows: Array) -> list[Document]:
        """Documents of some rows."""
        try:
            return self._documents(rows)
        except DAMAGE as problem:
            raise self.damaged(problem) from problem

    def damaged(self, problem: Exception) -> FormatError:
        """What to raise where the arrays cannot mean anything."""
        return FormatError(f"{self._where!r} is damaged: {problem}; call verify() and repair()")

    def _documents(self, rows: Array) -> list[Document]:
        kinds = self._arrays.get("document_kinds")
        if kinds is None:
            return [None] * len(rows)
        octets, offsets = self._arrays["document_octets"], self._arrays["document_offsets"]
        spans = zip(kinds[rows].tolist(), offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
        view = octets.data
        return [
            str(view[a:b], "utf-8") if kind == _TEXT else bytes(view[a:b]) if kind == _BYTES else None
            for kind, a, b in spans
        ]

    def check(self) -> None:
        """Read everything that has a structure; FormatError where it is broken."""
        try:
            self._check_all(np.arange(self.n))
        except DAMAGE as problem:
            raise self.damaged(problem) from problem

    def _check_all(self, rows: Array) -> None:
        listed = self.keys.take(rows)
        keys = Keys(self._arrays.get("keys", listed))
        if len(set(listed)) < self.n or not (self.keys.find(keys) == rows).all():
            raise FormatError(f"{self._where!r} is damaged: its keys are not found by their hashes, or not distinct")
        for name in self._places:
            column = self.column(name)
            assert column is not None
            if column.dictionary is not None and len(column.values):
                used = column.values if column.offsets is not None else column.values[column.mask()]
                if len(used) and not 0 <= int(used.min()) <= int(used.max()) < len(column.dictionary):
                    raise FormatError(f"{self._where!r} is damaged: column {name!r} points past its texts")
            if run(Test(column, column.cover.opposite(nulls=False)), self.n, {}).any():
                raise FormatError(f"{self._where!r} is damaged: column {name!r} has values past its ends")
        self.documents(rows)


def _some(column: Column, rows: Array) -> list[Any]:
    """Values of some rows, without reading the rest: of masks and dictionaries only what they name."""
    if len(rows) * 8 > len(column):
        return column.to_list(rows)
    return [value if there else None for value, there in zip(_plain(column, rows), _valid(column, rows), strict=True)]


def _plain(column: Column, rows: Array) -> list[Any]:
    texts, type = column.dictionary, column.type
    if texts is None:
        values = column.values[rows]
        if type in ("date", "datetime"):
            return list(values.astype(f"datetime64[{'D' if type == 'date' else 'us'}]").tolist())
        return list(values.tolist())
    if not len(texts):
        return [[]] * len(rows) if type == "list[str]" else [None] * len(rows)
    if column.offsets is not None:
        spans = zip(column.offsets[rows].tolist(), column.offsets[rows + 1].tolist(), strict=True)
        return [_texts(texts, column.values[a:b]) for a, b in spans]
    found = _texts(texts, column.values[rows])
    return [json.loads(text) for text in found] if type == "json" else found


def _texts(texts: Dictionary, codes: Array) -> list[str]:
    codes, octets = codes.astype(np.int64), texts.octets.data
    spans = zip(texts.offsets[codes].tolist(), texts.offsets[codes + 1].tolist(), strict=True)
    return [str(octets[a:b], "utf-8") for a, b in spans]


def _valid(column: Column, rows: Array) -> list[bool]:
    if column.valid is None:
        return [True] * len(rows)
    words = column.valid[rows >> 6] >> (rows & 63).astype(np.uint64)
    return [bool(word & 1) for word in words.tolist()]
