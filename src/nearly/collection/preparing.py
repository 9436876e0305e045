"""From what a user passed to checked rows: keys, vectors, typed metadata and documents, against the schema as it is."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import arrays
from nearly.arrays import Vectors
from nearly.arrays.words import describe, listing
from nearly.collection.cells import Cells, as_cells
from nearly.collection.inputs import Incoming, listed
from nearly.collection.keys import Keys, as_keys, kind_of
from nearly.collection.rows import Document
from nearly.collection.schema import RESERVED, Schema
from nearly.collection.state import State
from nearly.collection.tail import Batch
from nearly.errors import IdError, InputError

__all__ = ["as_documents", "located", "prepared", "prepared_cells", "prepared_vectors", "spread",
           "vector_columns"]  # fmt: skip


def prepared_vectors(came: Incoming, schema: Schema) -> dict[str, Vectors]:
    """Vectors of every field, as many of each."""
    missing = [name for name in schema.fields if name not in came.vectors]
    if missing:
        raise InputError(f"there are no vectors for {listing(missing)}; every row has one of each field")
    made: dict[str, Vectors] = {}
    for name, field in schema.fields.items():
        label = "vectors" if len(schema.fields) == 1 else name
        n = len(next(iter(made.values()))) if made else None
        made[name] = field.check(came.vectors[name], label, n)
    return made


def prepared(state: State, came: Incoming, vectors: Mapping[str, Vectors]) -> tuple[State, Batch]:
    """The rows, and the state with what its schema learns from them; nothing has changed yet."""
    n = len(next(iter(vectors.values())))
    schema = state.schema
    for name, made in vectors.items():  # decided by others since
        schema.fields[name].check_dim(made, name)
    kind = schema.keys or ("int" if came.ids is None else kind_of(came.ids))
    if came.ids is None and kind != "int" and n:
        raise IdError("the keys of this collection are str; pass ids=, one for each row")
    if came.ids is None:
        keys = Keys(arrays.next_ids(state.next_id, n) if kind == "int" else [])
    else:
        keys = as_keys(came.ids, kind, n=n)
    schema, cells = prepared_cells(schema, came.metadata, n)
    if n:
        schema = schema.with_dims({name: each.dim for name, each in vectors.items()}, kind)
    batch = Batch(keys, vectors, cells, as_documents(came.documents, n))
    return (state if schema is state.schema else replace(state, schema=schema)), batch


def prepared_cells(schema: Schema, metadata: Mapping[str, Any], n: int) -> tuple[Schema, dict[str, Cells]]:
    """Typed columns, and the schema with those that are new."""
    cells: dict[str, Cells] = {}
    for name, values in metadata.items():
        if name in RESERVED or name in schema.fields:
            raise InputError(
                f"a column of metadata cannot be named {name!r}, which means something else here; rename it"
            )
        made = as_cells(name, values, schema.columns.get(name), n)
        if made is not None:
            cells[name] = made
    return schema.with_columns({name: each.type for name, each in cells.items()}), cells


def as_documents(documents: Any, n: int) -> list[Document] | None:
    """Documents of n rows: str, bytes or None each."""
    if documents is None:
        return None
    if isinstance(documents, str | bytes | Set) or not isinstance(documents, Iterable):
        raise InputError(f"documents is {describe(documents)}, but one str, bytes or None for each row is wanted")
    entries = [None if _is_missing(each) else each for each in documents]
    if len(entries) != n:
        raise InputError(f"documents has {len(entries)} entries, but there are {n} rows; pass one for each")
    for i, each in enumerate(entries):
        if each is not None and not isinstance(each, str | bytes):
            raise InputError(f"documents[{i}] is {describe(each)}, but str, bytes or None is wanted")
        if isinstance(each, str):
            try:
                each.encode()
            except UnicodeEncodeError as problem:
                raise InputError(
                    f"documents[{i}] is not valid Unicode ({problem.reason}); mend it, or pass bytes"
                ) from None
    return [each if each is None else str(each) if isinstance(each, str) else bytes(each) for each in entries]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def located(state: State, ids: Any, what: str, unique: bool = True) -> tuple[Keys, NDArray[np.int64]]:
    """Keys that are all there, and the locators of their rows; IdError that lists those that are not."""
    ids = listed(ids)
    keys = as_keys(ids, state.schema.keys or kind_of([ids] if isinstance(ids, int | str) else ids), unique=unique)
    which, rows = state.locate(keys)
    unknown = np.flatnonzero(which < 0)
    if len(unknown):
        shown = listing(keys.take(unknown).tolist())
        raise IdError(f"{what}: {len(unknown)} of {len(keys)} ids are not in this collection: {shown}")
    return keys, rows | (which << 32)


def spread(value: Any, n: int) -> Any:
    """A value for each of n rows: one for all is repeated."""
    if isinstance(value, list | tuple | np.ndarray) or hasattr(value, "to_numpy") or hasattr(value, "to_pylist"):
        return value
    return [value] * n


def vector_columns(schema: Schema, vector: Any) -> dict[str, str]:
    """The column of a table that holds the vectors of each field."""
    names = {name: name for name in schema.fields}
    if vector is None:
        return names
    if isinstance(vector, str) and len(names) == 1:
        return {next(iter(names)): vector}
    if not isinstance(vector, Mapping) or vector.keys() - names.keys():
        raise InputError(f"vector is {describe(vector)}, but the name of a column is wanted, or a dict from fields "
                         f"({', '.join(names)}) to columns")  # fmt: skip
    return {**names, **{str(name): str(column) for name, column in vector.items()}}
