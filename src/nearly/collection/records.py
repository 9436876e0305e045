"""Records of the log: a write as the catalogue keeps it until a segment holds it. Keys and metadata are JSON texts,
vectors are their bytes, so that any tool can read them."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearly.arrays import Vectors
from nearly.collection.cells import Cells, from_json, to_json
from nearly.collection.keys import KeyKind, Keys
from nearly.collection.schema import Schema
from nearly.collection.state import State
from nearly.collection.tail import Batch
from nearly.errors import FormatError

__all__ = ["Delete", "Patch", "Put", "Record", "decode"]

_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "|i1", "uint8": "|u1", "bits": "|u1"}


@dataclass
class Record:
    """One write: what it does to a state, and how it is written down."""

    keys: Keys

    kind = ""

    def apply(self, state: State, sequence: int) -> State:
        raise AssertionError  # pragma: no cover

    def encode(self) -> tuple[str, str, bytes | None]:
        raise AssertionError  # pragma: no cover

    @property
    def n_bytes(self) -> int:
        return 64 * len(self.keys)


@dataclass
class Put(Record):
    """Rows that are new, or take the place of those with equal keys."""

    batch: Batch
    kind = "put"

    def apply(self, state: State, sequence: int) -> State:
        return state.put(self.batch, sequence)

    @property
    def n_bytes(self) -> int:
        return super().n_bytes + self.batch.n_bytes

    def encode(self) -> tuple[str, str, bytes | None]:
        batch = self.batch
        fields = {name: [each.kind, each.dim] for name, each in batch.vectors.items()}
        body: dict[str, Any] = {"keys": self.keys.tolist(), "fields": fields}
        if batch.cells:
            body["columns"] = {name: _plain(cells) for name, cells in batch.cells.items()}
        if batch.documents is not None:
            body["documents"] = [
                {"base64": base64.b64encode(d).decode("ascii")} if isinstance(d, bytes) else d for d in batch.documents
            ]
        octets = b"".join(v.array.astype(_DTYPES[v.kind], copy=False).tobytes() for v in batch.vectors.values())
        return self.kind, json.dumps(body, separators=(",", ":")), octets


@dataclass
class Delete(Record):
    """Rows that go."""

    kind = "delete"

    def apply(self, state: State, sequence: int) -> State:
        return state.delete(self.keys, sequence)

    def encode(self) -> tuple[str, str, bytes | None]:
        return self.kind, json.dumps({"keys": self.keys.tolist()}, separators=(",", ":")), None


@dataclass
class Patch(Record):
    """Other metadata, and documents, of rows that stay."""

    cells: Mapping[str, Cells]
    kind = "update"

    def apply(self, state: State, sequence: int) -> State:
        names = list(self.cells)
        columns = [self.cells[name].plain for name in names]
        changes = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        return state.patch(self.keys, changes, sequence)

    def encode(self) -> tuple[str, str, bytes | None]:
        columns = {name: _plain(cells) for name, cells in self.cells.items()}
        return self.kind, json.dumps({"keys": self.keys.tolist(), "columns": columns}, separators=(",", ":")), None


def _plain(cells: Cells) -> list[Any]:
    if cells.type in ("date", "datetime"):
        return [to_json(value) for value in cells.plain]
    return cells.plain


def decode(kind: str, body: str, octets: bytes | None, schema: Schema) -> Record:
    """The record that `encode` wrote; FormatError where it cannot have been."""
    try:
        made = json.loads(body)
        keys = _keys(made["keys"], schema.keys)
        if kind == "delete":
            return Delete(keys)
        n, fields = len(keys), made.get("fields", {})
        lengths = [len(values) for values in made.get("columns", {}).values()] + [len(made.get("documents") or keys)]
        if any(length != n for length in lengths) or (kind == "put" and fields.keys() != schema.fields.keys()):
            raise ValueError("it has not a value for each row")
        cells = {
            name: Cells(name, schema.columns[name], plain=[from_json(schema.columns[name], v) for v in values])
            for name, values in made.get("columns", {}).items()
        }
        if kind == "update":
            return Patch(keys, cells)
        if kind != "put":
            raise ValueError(f"{kind!r} is no kind of record")
        vectors, at = {}, 0
        for name, (element, dim) in fields.items():
            dtype = np.dtype(_DTYPES[element])
            size = n * dim
            array = np.frombuffer(octets or b"", dtype, size, at).reshape(n, dim)
            vectors[name] = Vectors(array.astype(dtype.newbyteorder("="), copy=False), element)
            at += size * dtype.itemsize
        documents = made.get("documents")
        if documents is not None:
            documents = [base64.b64decode(d["base64"]) if isinstance(d, dict) else d for d in documents]
        return Put(keys, Batch(keys, vectors, cells, documents))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise FormatError(f"the log is damaged: a record cannot be read ({problem!r})") from problem


def _keys(listed: list[Any], kind: KeyKind | None) -> Keys:
    return Keys(np.array(listed, np.int64) if kind == "int" else [str(key) for key in listed])
