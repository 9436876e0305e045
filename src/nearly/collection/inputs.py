"""The forms in which rows may come: arrays beside columns, tables of several libraries, files, generators."""

import os
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from nearly.arrays.words import describe
from nearly.collection import lines
from nearly.errors import InputError

__all__ = ["Incoming", "Names", "batches", "columns_of", "incoming", "listed", "metadata_columns"]

_PLAIN = (list, np.ndarray)  # what comes most often, told first: asking for abstract classes takes longer
_ROWS = 16384  # of a file, or of a generator of single rows, that are taken at a time
_OTHER = f"; files of JSON lines end in {' or '.join(lines.SUFFIXES)}"


@dataclass(frozen=True)
class Names:
    """Which columns of a table are no metadata: by default ``id``, ``document``, and the name of each field.

    Attributes
    ----------
    id, document : str
    vectors : mapping of str to str
        The column of each field.
    """

    id: str
    document: str
    vectors: Mapping[str, str]


@dataclass
class Incoming:
    """Rows as they came, not checked yet."""

    vectors: dict[str, Any] = field(default_factory=dict)
    ids: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    documents: Any = None


def is_stream(data: Any) -> bool:
    """Whether rows come in parts: a generator, a reader of batches, a file."""
    if data.__class__ in _PLAIN:
        return False
    return isinstance(data, Iterator | str | os.PathLike) or hasattr(data, "read_next_batch")


def batches(data: Any) -> Iterator[Any]:
    """The parts of what comes in parts."""
    if isinstance(data, str | os.PathLike):
        yield from _file(os.fsdecode(data))
    elif hasattr(data, "read_next_batch"):
        yield from data
    else:
        rows = iter(data)
        for first in rows:
            if isinstance(first, Mapping) and not _is_table(first):  # single rows: some at a time
                yield [first, *islice(rows, _ROWS - 1)]
            else:
                yield first


def _file(path: str) -> Iterator[Any]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path!r}; pass a file of Parquet or JSON lines, a table, or arrays")
    if path.lower().endswith(lines.SUFFIXES):
        yield from lines.rows_of(path)
    else:
        yield from _parquet(path)


def _parquet(path: str) -> Iterator[Any]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        yield from _parquet_by_duckdb(path)
        return
    try:
        file = pq.ParquetFile(path)
    except Exception as problem:
        raise InputError(f"{path!r} cannot be read as Parquet ({problem}){_OTHER}") from problem
    with file:
        yield from file.iter_batches(_ROWS)


def _parquet_by_duckdb(path: str) -> Iterator[Any]:
    import duckdb

    with duckdb.connect() as connection:
        try:
            found = connection.execute("SELECT * FROM read_parquet(?)", [path])
        except duckdb.Error as problem:
            raise InputError(f"{path!r} cannot be read as Parquet ({problem}){_OTHER}") from problem
        about = [(column[0], str(column[1]) == "FLOAT") for column in found.description or ()]
        while rows := found.fetchmany(_ROWS):
            yield {
                name: np.array(values, np.float32) if short else list(values)
                for (name, short), values in zip(about, zip(*rows, strict=True), strict=True)
            }


def incoming(data: Any, ids: Any, metadata: Any, documents: Any, names: Names) -> Incoming:
    """Sort out which form came; raises InputError where it is none, or where something is given twice."""
    ids, documents = listed(ids), listed(documents)
    if isinstance(data, Mapping) and set(data) <= set(names.vectors) and data:
        return Incoming(dict(data), ids, metadata_columns(metadata), documents)
    table = _table(data, names)
    if table is None:
        if len(names.vectors) > 1:
            raise InputError(
                f"this collection has the fields {', '.join(names.vectors)}; pass a dict with the vectors of each"
            )
        return Incoming({next(iter(names.vectors)): data}, ids, metadata_columns(metadata), documents)
    for given, argument, column in ((ids, "ids", names.id), (documents, "documents", names.document)):
        if given is not None and column in table:
            raise InputError(f"{argument}= came, and the table has a column {column!r} too; leave one of them out")
    vectors = {}
    for name, column in names.vectors.items():
        if column not in table:
            raise InputError(
                f"the table has no column {column!r} for the vectors; its columns are {', '.join(map(str, table))}; "
                "name it by vector="
            )
        vectors[name] = made = table.pop(column)
        missing = [i for i, each in enumerate(made) if each is None] if isinstance(made, list) else []
        if missing:
            raise InputError(f"row {missing[0]} has no vector: there is none in column {column!r}")
    found_ids, found_documents = table.pop(names.id, None), table.pop(names.document, None)
    if isinstance(data, lines.Lines) and found_documents is not None:
        found_documents = [lines.from_binary(each) for each in found_documents]
    extra = metadata_columns(metadata)
    if twice := sorted(extra.keys() & table.keys()):
        raise InputError(f"metadata= has the columns {', '.join(twice)}, which the table has too")
    values = {name: listed(column) for name, column in table.items()} | extra
    return Incoming(
        vectors, ids if found_ids is None else listed(found_ids), values,
        documents if found_documents is None else listed(found_documents),
    )  # fmt: skip


def _table(data: Any, names: Names) -> dict[str, Any] | None:
    """The columns of a table, None where it is none."""
    columns = columns_of(data)
    if columns is None:
        return None
    numbers = not isinstance(data, Mapping | list | tuple) and not hasattr(data, "column")  # Arrow's are tables
    if numbers and not any(column in columns for column in names.vectors.values()):
        return None if not {names.id, names.document} & columns.keys() else columns  # a frame of numbers: vectors
    return columns


def columns_of(data: Any) -> dict[str, Any] | None:
    """The columns of a frame, an Arrow table, a dict of columns or a list of dicts; None where it is none of these."""
    if data.__class__ is np.ndarray:
        return None
    if isinstance(data, Mapping):
        if len({str(name) for name in data}) < len(data):
            raise InputError(f"two columns have one name as text, among {', '.join(map(repr, data))}; rename one")
        return {str(name): column for name, column in data.items()}
    if isinstance(data, Sequence) and len(data) and isinstance(data[0], Mapping):
        found: dict[str, list[Any]] = {}
        for i, row in enumerate(data):
            if not isinstance(row, Mapping):
                raise InputError(f"row {i} is {describe(row)}, but the rows before are dicts")
            for name in row.keys() - found.keys():
                found[name] = [None] * i
            for name, column in found.items():
                column.append(row.get(name))
        first = {name: found[name] for name in data[0]}
        return first | found
    origin = type(data).__module__.partition(".")[0]
    if origin == "polars" and hasattr(data, "collect") and not hasattr(data, "height"):
        data = data.collect()
    if origin == "pandas" and hasattr(data, "columns"):
        return {str(name): data[name] for name in data.columns}
    if origin == "polars" and hasattr(data, "columns"):
        return {name: data[name] for name in data.columns}
    if hasattr(data, "column_names") and hasattr(data, "column"):
        return {name: data.column(i) for i, name in enumerate(data.column_names)}
    if hasattr(data, "schema") and hasattr(data, "column"):
        return {name: data.column(i) for i, name in enumerate(data.schema.names)}
    return None


def _is_table(row: Mapping[Any, Any]) -> bool:
    """Whether a dict is columns rather than one row: its values are lists of rows, and one of those is a vector."""
    return any(getattr(value, "ndim", 1) == 2 or _is_nested(value) for value in row.values())


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and hasattr(value[0], "__len__") and not isinstance(value[0], str)


def listed(column: Any) -> Any:
    """A column, ids or documents as what is read further: NumPy, pandas, a list, or what is no column at all."""
    if column is None or column.__class__ in _PLAIN:
        return column
    if hasattr(column, "to_pylist"):
        kind, values = str(column.type), column.to_pylist()
        if kind.startswith("dictionary"):
            kind = str(column.type.value_type)
        short = {"float": np.float32, "halffloat": np.float16}.get(kind)
        return values if short is None else np.array(values, short)
    if isinstance(column, Iterator | KeysView | ValuesView):  # read once; keys and values of a dict, which are in order
        return list(column)
    origin = type(column).__module__.partition(".")[0]
    if origin == "polars":
        return column.to_numpy() if str(column.dtype) == "Float32" else column.to_list()
    if origin == "pandas" and not isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub":
        return column.tolist()  # integers with nulls, which NumPy would make floats
    return column


def metadata_columns(metadata: Any) -> dict[str, Any]:
    """Columns of metadata in any form in which they may come beside vectors."""
    if metadata is None:
        return {}
    columns = columns_of(metadata)
    if columns is None:
        if isinstance(metadata, Iterable) and not isinstance(metadata, str | bytes):
            rows = list(metadata)
            if not rows:
                return {}
            columns = columns_of(rows)
        if columns is None:
            raise InputError(
                f"metadata is {describe(metadata)}, but a dict of columns, a list of dicts or a table is wanted"
            )
    return {name: listed(column) for name, column in columns.items()}
