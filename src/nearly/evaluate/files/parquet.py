"""Parquet: a column of equally long lists, or several columns of numbers; needs pyarrow, from the extra ``data``."""

from pathlib import Path
from typing import Any

import numpy as np

from nearly.errors import FormatError, InputError, NearlyError
from nearly.evaluate.files._base import Array, Format, Name, extra, native, numpy_only, one_name, replacing

_GROUP_BYTES = 64 << 20  # of values in one row group, which readers take as a whole; chosen by hand


def _is_number(types: Any, kind: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_list(types: Any, kind: Any) -> bool:
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(lists) and _is_number(types, kind.value_type)


def _read(path: Path, name: Name | None) -> Array:
    pyarrow, parquet = extra("pyarrow", path), extra("pyarrow.parquet", path)
    with path.open("rb"):
        pass
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            schema = file.schema_arrow
            if name is not None and not isinstance(name, str):
                return _columns(pyarrow, file, schema, list(name), path)
            lists = [field.name for field in schema if _is_list(pyarrow.types, field.type)]
            if name is None and not lists:
                shown = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
                raise InputError(f"{path.name} has the columns {shown}, but one of number lists of one length is "
                                 "wanted; several columns of numbers are read by name=[...], their names")  # fmt: skip
            key = one_name("columns of number lists", path, lists, name)
            table = file.read(columns=[key])
            return _lists(table.column(key), schema.field(key).type, f"{path.name}[{key}]", pyarrow.types)
    except (NearlyError, MemoryError):
        raise
    except Exception as error:  # ArrowException, OSError and others, by where the damage is
        raise FormatError(f"{path.name} is no readable Parquet file: {error}") from None


def _columns(pyarrow: Any, file: Any, schema: Any, names: list[str], path: Path) -> Array:
    numbers = [field.name for field in schema if _is_number(pyarrow.types, field.type)]
    for name in names:
        one_name("columns of numbers", path, numbers, name)
    if not names:
        raise InputError(f"name is an empty list, but columns of {path.name} are wanted: {', '.join(numbers)}")
    table = file.read(columns=names)
    for name in names:
        if table.column(name).null_count:
            raise FormatError(f"{path.name}[{name}] has {table.column(name).null_count} nulls, but numbers are wanted")
    return np.column_stack([table.column(name).to_numpy() for name in names])


def _lists(column: Any, kind: Any, label: str, types: Any) -> Array:
    parts: list[Array] = []
    dim = kind.list_size if types.is_fixed_size_list(kind) else None
    for chunk in column.chunks:
        if chunk.null_count:
            raise FormatError(f"{label} has {chunk.null_count} nulls, but a list in every row is wanted")
        lengths: Array = chunk.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths):
            dim = int(lengths[0]) if dim is None else dim
        if (lengths != dim).any():
            wrong = int(lengths[np.argmax(lengths != dim)])
            raise FormatError(f"{label} has lists of {dim} and of {wrong} numbers, but one length is wanted")
        values = chunk.flatten()
        if values.null_count:
            raise FormatError(f"{label} has {values.null_count} nulls inside its lists, but numbers are wanted")
        parts.append(values.to_numpy(zero_copy_only=False))
    if not dim:
        raise FormatError(f"{label} has {'no rows' if dim is None else 'empty lists'}, but numbers are wanted")
    values = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, kind.value_type.to_pandas_dtype()), *parts])
    return values.reshape(-1, dim)


def _write(path: Path, array: Array, name: str | None) -> None:
    pyarrow, parquet = extra("pyarrow", path), extra("pyarrow.parquet", path)
    values = pyarrow.array(np.ascontiguousarray(native(numpy_only(array))).ravel())
    table = pyarrow.table({name or "vectors": pyarrow.FixedSizeListArray.from_arrays(values, array.shape[1])})
    group = max(1, _GROUP_BYTES // (array.dtype.itemsize * array.shape[1]))
    with replacing(path) as part:
        parquet.write_table(table, part, row_group_size=group, compression="zstd", use_dictionary=False)


PARQUET = Format(".parquet", _read, _write, named=True)
