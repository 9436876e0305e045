"""Records of the log: a write as the catalogue keeps it until a segment holds it. Keys and metadata are JSON texts,
vectors are their bytes, so that any tool can read them."""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nearly import arrays
from nearly.arrays import Vectors
from nearly.collection.cells import Cells, from_json, to_json
from nearly.collection.keys import Keys, as_keys
from nearly.collection.rows import Document
from nearly.collection.schema import Schema
from nearly.collection.state import State
from nearly.collection.tail import Batch
from nearly.errors import InputError

__all__ = ["Delete", "Patch", "Put", "Record", "decode"]

_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "|i1", "uint8": "|u1", "bits": "|u1"}


@dataclass
class Record(ABC):
    """One write: what it does to a state, and how it is written down."""

    keys: Keys

    @abstractmethod
    def apply(self, state: State, sequence: int) -> State:
        """The state after it."""

    @abstractmethod
    def encode(self) -> tuple[str, str, bytes | None]:
        """Its kind, body and vectors in the log."""

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
    """The record that `encode` wrote; InputError where it cannot have been, or is of another schema."""
    try:
        made = json.loads(body)
        keys = _keys(made["keys"], schema)
        if kind == "delete":
            return Delete(keys)
        cells = _cells(made.get("columns", {}), schema, len(keys))
        if kind == "update":
            if not cells:
                raise ValueError("it updates nothing")
            return Patch(keys, cells)
        if kind != "put":
            raise ValueError(f"{kind!r} is no kind of record")
        vectors = _vectors(made["fields"], octets or b"", schema, len(keys))
        return Put(keys, Batch(keys, vectors, cells, _documents(made.get("documents"), len(keys))))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise InputError(f"a record of the log cannot be read ({problem!r})") from problem


def _keys(listed: Any, schema: Schema) -> Keys:
    wanted = int if schema.keys == "int" else str
    if schema.keys is None or not isinstance(listed, list) or any(key.__class__ is not wanted for key in listed):
        raise ValueError("its keys are not of the kind that the collection has")
    return as_keys(listed, schema.keys)


def _cells(columns: Mapping[str, Any], schema: Schema, n: int) -> dict[str, Cells]:
    cells = {}
    for name, values in columns.items():
        type = schema.columns[name]
        if not isinstance(values, list) or len(values) != n:
            raise ValueError(f"column {name!r} has not a value for each row")
        cells[name] = Cells(name, type, plain=[from_json(type, value) for value in values])
    return cells


def _vectors(fields: Mapping[str, Any], octets: bytes, schema: Schema, n: int) -> dict[str, Vectors]:
    if fields.keys() != schema.fields.keys():
        raise ValueError(f"it has the fields {', '.join(fields)}, the collection {', '.join(schema.fields)}")
    vectors, at = {}, 0
    for name, (element, dim) in fields.items():
        dtype = np.dtype(_DTYPES[element])
        array = np.frombuffer(octets, dtype, n * arrays.check_int(dim, "dim", low=1), at).reshape(n, dim)
        at += array.nbytes
        field, found = schema.fields[name], Vectors(array.astype(dtype.newbyteorder("="), copy=False), element)
        if (element == "bits") != field.bits or field.dtype not in (None, element) or found.dim != field.dim:
            raise ValueError(f"its vectors are none of the field {name!r}")
        arrays.check_finite(found, name)
        vectors[name] = found
    if at != len(octets):
        raise ValueError("it has not one vector of each field for each row")
    return vectors


def _documents(listed: Any, n: int) -> list[Document] | None:
    if not listed:
        return None
    documents = [base64.b64decode(d["base64"]) if isinstance(d, dict) else d for d in listed]
    if len(documents) != n or not all(d is None or isinstance(d, str | bytes) for d in documents):
        raise ValueError("it has not a document for each row")
    for document in documents:
        if isinstance(document, str):
            document.encode()
    return documents
