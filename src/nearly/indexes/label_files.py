"""Labels in files: what is written of them, and the checks under which they are read again."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError, InputError
from nearly.filters import Column, Dictionary
from nearly.indexes.label_walks import LabelContract
from nearly.indexes.labels import ENTRIES, NAME, Labels, joined, no_labels
from nearly.indexes.travel import NOBODY

if TYPE_CHECKING:
    from nearly.indexes.labeled import LabeledGraph

__all__ = ["restore", "state"]

_TABLES = (("labels_of_nodes", 4), ("labels_set_ends", 4), ("labels_set_members", 2), ("labels_entries", 4 * ENTRIES))
_VALUES = {"int": ("int8", "int16", "int32", "int64"), "str": ("uint8", "uint16", "int32")}
_VALUES["list[str]"] = _VALUES["str"]


def state(index: "LabeledGraph") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of the labels of an index that has some."""
    labels, contract = index._labels, index._label_contract
    assert labels is not None
    assert contract is not None
    column, sizes = labels.column, (index._n_nodes, None, None, None)
    if len(column) < index._n_rows:  # rows of an addition that was broken off
        column = joined(column, no_labels(column, 0), NOBODY, index._n_rows)
    tables = zip(_TABLES, labels.tables, sizes, strict=True)
    parts: dict[str, NDArray[Any]] = {name: table.array()[:n] for (name, _), table, n in tables}
    parts["labels"] = column.values
    if column.valid is not None:
        parts["labels_valid"] = column.valid
    if column.offsets is not None:
        parts["labels_offsets"] = column.offsets
    common = labels.common
    if column.dictionary is not None:
        parts["labels_texts"], parts["labels_text_ends"] = column.dictionary.octets, column.dictionary.offsets
        common = [column.dictionary.place(text)[0] for text in common]
    parts["labels_common"] = np.array(common, np.int64)
    curve, values = contract.state()
    return {**parts, **curve}, {"labels": {"type": column.type, **values}}


def restore(index: "LabeledGraph", file: storage.File) -> None:
    """Give an index whose graph is there what `state` wrote; everything is checked."""
    try:
        column = _column(file, index._n_rows)
    except (InputError, UnicodeDecodeError) as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    common: list[Any] = storage.require(file, "labels_common", np.int64, (None,)).tolist()
    if column.dictionary is not None:
        if any(not 0 <= code < len(column.dictionary) for code in common):
            raise FormatError(f"{file.path} is damaged: a common label is none of its labels")
        common = [column.dictionary[code] for code in common]
    if len(set(common)) < len(common):
        raise FormatError(f"{file.path} is damaged: a common label is there twice")
    sizes = (index._n_nodes, None, None, len(common))
    shapes = zip(_TABLES, sizes, strict=True)
    arrays = [storage.require(file, name, np.uint8, (n, width)) for (name, width), n in shapes]
    tables = [_core.Table.borrow(array) for array in arrays]
    try:
        index._graph.set_labels(*tables)
    except ValueError as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    index._labels, index._label_contract = Labels(column, common, tables), LabelContract.restore(file)


def _column(file: storage.File, n_rows: int) -> Column:
    kind = storage.config_str(file, ("labels", "type"), allowed=_VALUES)
    values = file.arrays.get("labels")
    if values is None or values.dtype.name not in _VALUES[kind]:
        raise FormatError(f"{file.path} is damaged: its labels are missing, or of another type than it says")
    valid = storage.require(file, "labels_valid", np.uint64, (None,)) if "labels_valid" in file.arrays else None
    offsets = storage.require(file, "labels_offsets", np.int64, (None,)) if kind == "list[str]" else None
    dictionary = None
    if kind != "int":
        ends = storage.require(file, "labels_text_ends", np.int64, (None,))
        octets = storage.require(file, "labels_texts", np.uint8, (None,))
        if not len(ends) or ends[0] != 0 or ends[-1] != len(octets) or (np.diff(ends) < 0).any():
            raise FormatError(f"{file.path} is damaged: the texts of its labels do not end where they should")
        dictionary = Dictionary(np.array(ends), np.array(octets))
        texts = [text.encode() for text in dictionary.texts]
        if any(a >= b for a, b in pairwise(texts)):
            raise FormatError(f"{file.path} is damaged: the texts of its labels are in no order")
    column = Column(NAME, kind, values, valid=valid, dictionary=dictionary, offsets=offsets)
    used = values if offsets is not None else values[column.mask()]
    if dictionary is not None and len(used) and (int(used.max()) >= len(dictionary) or int(used.min()) < 0):
        raise FormatError(f"{file.path} is damaged: a label has no text")
    if len(column) != n_rows:
        raise FormatError(f"{file.path} is damaged: it has labels of {len(column)} rows, but holds {n_rows}")
    return column
