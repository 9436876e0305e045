"""The rows of an index in files: what is written of them, and the checks under which they are read again."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics, storage
from nearly.errors import FormatError
from nearly.indexes.alone import CodedStore
from nearly.indexes.filed import FiledStore
from nearly.indexes.store import ELEMENTS, NONE, Store
from nearly.indexes.writing import Writing

if TYPE_CHECKING:
    from nearly.indexes.base import Index

__all__ = ["refine_of", "restore", "state"]


def state(index: "Index") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of what every index holds."""
    store = index._store
    parts = store.arrays(index._n_rows, index._n_nodes)
    parts["spare_rows"] = np.array(index._spare_rows, np.uint32)
    parts["spare_nodes"] = np.array(index._spare_nodes, np.uint32)
    config = {
        "metric": store.metric.name, "element": store.kind, "dim": store.dim, "n_rows": index._n_rows,
        "n_nodes": index._n_nodes, "next_id": index._next_id, "own_ids": index._own_ids,
        "n_removed": index._n_removed, "why": index._why,
    }  # fmt: skip
    if store.kept != "memory":
        config["refine"] = store.kept
    more, values = store.state()
    return {**parts, **more}, {"rows": config, **values}


def restore(
    index: "Index", file: storage.File, make: "Callable[[storage.File, int, int], Store] | None" = None
) -> None:
    """Give an index what `state` wrote; everything but the vectors themselves is checked.

    ``make`` gives the store of a file for so many rows and nodes, where it is not one of vectors.
    """
    n_rows = storage.config_int(file, ("rows", "n_rows"), 0, 2**31 - 1)
    n_nodes = storage.config_int(file, ("rows", "n_nodes"), 0, n_rows)
    index._n_rows, index._n_nodes = n_rows, n_nodes
    index._next_id = storage.config_int(file, ("rows", "next_id"), 0, 2**63)
    index._own_ids = storage.config_bool(file, ("rows", "own_ids"))
    index._n_removed = storage.config_int(file, ("rows", "n_removed"), 0, n_rows)
    index._why = storage.config_str(file, ("rows", "why"))
    store = index._store = (make or _store)(file, n_rows, n_nodes)
    store.check(n_rows, n_nodes)
    index._spare_rows = [int(i) for i in storage.require(file, "spare_rows", np.uint32, (None,))]
    index._spare_nodes = [int(i) for i in storage.require(file, "spare_nodes", np.uint32, (None,))]
    nodes, firsts = store.column("nodes")[:n_rows], store.column("first_rows")
    if any(i >= n_rows or nodes[i] != NONE for i in index._spare_rows) or any(
        i >= n_nodes or firsts[i] != NONE for i in index._spare_nodes
    ):
        raise FormatError(f"{file.path} is damaged: it calls rows or nodes free that are in use")
    if any(len(set(spare)) < len(spare) for spare in (index._spare_rows, index._spare_nodes)):
        raise FormatError(f"{file.path} is damaged: it calls a row or node free twice")
    index._n_live = n_rows - len(index._spare_rows) - index._n_removed
    index._change = index._reuse = 0
    index._pending = []
    if len(index) != int((nodes != NONE).sum()):
        raise FormatError(f"{file.path} is damaged: it does not hold as many rows as it says")
    ids = store.column("ids")[:n_rows][nodes != NONE]
    if len(ids) and int(ids.max()) >= index._next_id:
        raise FormatError(f"{file.path} is damaged: an id is not below the next one")
    index._ids = index._distinct = None
    index._writing = Writing()
    index._file = file


def _store(file: storage.File, n_rows: int, n_nodes: int) -> Store:
    """The tables of a file, borrowed; their contents are for the caller to check."""
    metric = metrics.METRICS[storage.config_str(file, ("rows", "metric"), allowed=metrics.METRICS)]
    bits = metric.input == "bits"
    kind = storage.config_str(file, ("rows", "element"), allowed=("bits",) if bits else ELEMENTS)
    dim = storage.config_int(file, ("rows", "dim"), 1, 32768)
    element = ELEMENTS.index("uint8" if bits else kind)
    stride = _core.Plain.row_bytes(element, metric.number, dim)
    shapes = {
        "vectors": (n_nodes, stride), "ids": (n_rows, 8), "next_rows": (n_rows, 4), "first_rows": (n_nodes, 4),
        "last_rows": (n_nodes, 4), "nodes": (n_rows, 4),
    }  # fmt: skip
    kept = refine_of(file)
    if kept == "none":
        others = [storage.require(file, n, np.uint8, shape) for n, shape in shapes.items() if n != "vectors"]
        return CodedStore.of_file(file, metric, dim, n_nodes, [_core.Table.borrow(array) for array in others])
    vectors, *others = [storage.require(file, n, np.uint8, shape) for n, shape in shapes.items()]
    tables = [_core.Table.borrow(array) for array in others]
    if kept == "disk":
        return FiledStore.of_file(file, metric, kind, dim, tables, n_nodes)
    table = _core.Table.borrow(vectors)
    scorer = _core.Plain(table, element, metric.number, dim)
    return Store(metric, kind, dim, table, scorer, *tables, widest="float16" if kept == "float16" else "float32")


def refine_of(file: storage.File) -> str:
    """Where the index of a file keeps full vectors: see `Store.kept`."""
    rows = file.config.get("rows")
    if not isinstance(rows, dict) or "refine" not in rows:
        return "memory"
    return storage.config_str(file, ("rows", "refine"), allowed=("memory", "float16", "disk", "none"))
