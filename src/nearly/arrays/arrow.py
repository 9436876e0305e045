"""Arrow data, from any library that speaks the PyCapsule interface, to NumPy."""

import sys
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.words import describe, listing
from nearly.errors import InputError

__all__ = ["from_arrow", "has_pyarrow"]

Array: TypeAlias = NDArray[Any]


def has_pyarrow() -> bool:
    """Whether pyarrow can be imported, without importing it."""
    if "pyarrow" in sys.modules:
        return True
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None


def from_arrow(value: Any, name: str) -> Array:
    """Read an Arrow array, chunked array, record batch or table: one row per entry of a column of lists."""
    if not has_pyarrow():
        raise ImportError(
            f'{name} is {describe(value)}, and reading Arrow data needs pyarrow: pip install "nearly[arrow]"'
        )
    import pyarrow as pa

    data: Any  # a table, or one column
    if isinstance(value, pa.ListScalar):  # one row of a column
        value = value.values
    if isinstance(value, pa.Table | pa.RecordBatch | pa.ChunkedArray):
        data = value
    elif not hasattr(value, "__arrow_c_stream__"):
        data = pa.array(value)
    elif int(pa.__version__.partition(".")[0]) < 16:  # older ones read tables only
        data = pa.RecordBatchReader.from_stream(value).read_all()
    else:
        data = pa.chunked_array(value)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if not isinstance(data, pa.Table):
        data = data if isinstance(data, pa.ChunkedArray) else pa.chunked_array([data])
        if not pa.types.is_struct(data.type):
            return _from_column(data, name)
        data = pa.Table.from_struct_array(data)
    return _from_table(data, value, name)


def _from_table(table: Any, value: object, name: str) -> Array:
    import pyarrow as pa

    if table.num_columns == 1:
        return _from_column(table.column(0), name)
    types = pa.types
    odd = [
        f"{field.name} ({field.type})"
        for field in table.schema
        if not (types.is_integer(field.type) or types.is_floating(field.type))
    ]
    if odd or not table.num_columns:
        raise InputError(
            f"{name} is {describe(value)} with columns {', '.join(table.column_names)}, but numeric columns or one "
            f"column of lists are wanted, unlike {listing(odd)}; select the column or columns that hold the vectors"
        )
    return np.column_stack([_from_column(column, name) for column in table.columns])


def _from_column(column: Any, name: str) -> Array:
    """Turn an Arrow column into one row per entry (lists) or one number per entry; no copy of a single chunk."""
    parts: list[Array] = []
    done = 0
    for chunk in column.chunks:
        part = _from_chunk(chunk, name, done)
        if parts and part.shape[1:] != parts[0].shape[1:] and len(part):
            raise InputError(
                f"{name} is ragged: row {done} has {part.shape[1]} values, but row 0 has {parts[0].shape[1]}"
            )
        if len(part):
            parts.append(part)
        done += len(part)
    if not parts:
        return np.empty((0, getattr(column.type, "list_size", 0)), np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _from_chunk(chunk: Any, name: str, done: int) -> Array:
    import pyarrow as pa

    if isinstance(chunk, pa.ExtensionArray):  # such as a fixed-shape tensor
        chunk = chunk.storage
    values, width = chunk, None
    lists = pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type)
    if chunk.null_count:
        row = int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{name} has no value in row {done + row} ({chunk.null_count} are null); leave those rows out")
    if pa.types.is_fixed_size_list(chunk.type):
        values, width = chunk.flatten(), chunk.type.list_size
    elif lists:
        lengths = chunk.value_lengths().to_numpy()
        values, width = chunk.flatten(), int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            row = int(np.argmax(lengths != width))
            raise InputError(
                f"{name} is ragged: row {done + row} has {lengths[row]} values, but row {done} has {width}; "
                f"pass rows of one length"
            )
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // (width or 1)
        raise InputError(f"{name} holds a null value in row {done + row}; leave those rows out, or fill them")
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise InputError(
            f"{name} holds Arrow values of type {chunk.type}, but numbers, or lists of numbers, are wanted"
        )
    array = cast(Array, values.to_numpy(zero_copy_only=False))
    return array if width is None else array.reshape(len(chunk), width)
