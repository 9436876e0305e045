"""Graphs in files: what is written of one, and the checks under which it is read again."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError
from nearly.indexes.contract import Contract
from nearly.indexes.store import NONE
from nearly.indexes.travel import Travel

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex, Rules

__all__ = ["restore", "state"]


def state(index: "GraphIndex") -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration of a graph, its codes and its contract, beyond the store's."""
    n, rules = index._n_nodes, index._rules
    lists = {f"lists_{i}": table.array()[: n if i == 0 else None] for i, table in enumerate(index._lists)}
    slots = {f"slots_{i}": table.array()[:n] for i, table in enumerate(index._slots, 1)}
    wide = {} if index._wide is None else {"wide_lists": index._wide.array()[:n]}
    entries, pending = np.array(index._graph.entries, np.uint32), np.array(index._pending, np.uint32)
    codes, quantizer = index._travel.state(n)
    curve, promises, measured = index._contract.state()
    config: dict[str, Any] = {
        "graph": {
            "beam": rules.beam, "new_degree": rules.new_degree, "alpha": float(rules.alpha), "fill": rules.fill,
            "seed": index._seed, "layers": len(index._lists), "n_linked": int(index._graph.n_nodes),
            "unlinked": index._unlinked, "degree": index._lists[0].stride // 4, **promises,
        }
    }  # fmt: skip
    return (
        {"entries": entries, "pending_rows": pending, **lists, **slots, **wide, **codes, **curve},
        {**config, **quantizer, **measured},
    )


def restore(index: "GraphIndex", file: storage.File, rules: "type[Rules]") -> None:
    """Give an index whose store is there its graph, codes and contract; everything but bulk numbers is checked."""
    n = index._n_nodes
    if not isinstance(file.config.get("graph"), dict):
        raise FormatError(f"{file.path} holds no graph")
    integer = storage.config_int
    index._rules = rules(
        integer(file, ("graph", "beam"), 1, 65536), integer(file, ("graph", "new_degree"), 1, 512),
        storage.config_float(file, ("graph", "alpha"), 1.0, 100.0), storage.config_bool(file, ("graph", "fill")),
    )  # fmt: skip
    index._seed = integer(file, ("graph", "seed"), 0)
    index._unlinked = integer(file, ("graph", "unlinked"), 0)
    degree = integer(file, ("graph", "degree"), 1, 512)
    layers = integer(file, ("graph", "layers"), 1, 64)
    linked = integer(file, ("graph", "n_linked"), 0, n)
    index._contract = Contract.restore(file)
    index._pending = [int(i) for i in storage.require(file, "pending_rows", np.uint32, (None,))]
    nodes = index._store.column("nodes")
    if len(index._pending) != index._n_removed or any(i >= index._n_rows or nodes[i] != NONE for i in index._pending):
        raise FormatError(f"{file.path} is damaged: it lists removed rows that are in use")
    if len({*index._pending, *index._spare_rows}) < len(index._pending) + len(index._spare_rows):
        raise FormatError(f"{file.path} is damaged: it lists a removed row twice")
    index._travel = Travel.restore(file, index._store, n, index._seed)
    index._lists, index._slots = _layers(file, n, layers, degree, linked)
    if "wide_lists" in file.arrays:
        index._wide = _wide(file, n, linked)
        index._expansion = index._wide.stride // 4
    entries = [int(e) for e in storage.require(file, "entries", np.uint32, (None,))]
    if any(e >= linked for e in entries) or (linked and len(index) and not entries):
        raise FormatError(f"{file.path} is damaged: its entry nodes do not exist")
    index._assemble(linked, entries)


def _wide(file: storage.File, n: int, linked: int) -> Any:
    """The table of wide lists; every node that they name exists."""
    array = storage.require(file, "wide_lists", np.uint8, (n, None))
    try:
        table = _core.Table.borrow(array)
        _core.check_lists(table, n, linked, True)
        if table.stride > 4 * 512:
            raise ValueError("lists are too long")
    except ValueError as problem:
        raise FormatError(f"{file.path} is damaged: wide lists: {problem}") from problem
    return table


def _layers(file: storage.File, n: int, layers: int, degree: int, linked: int) -> tuple[list[Any], list[Any]]:
    """Tables of lists and slots, borrowed from a file; every node that they name exists and is in that layer."""
    lists: list[Any] = []
    slots: list[Any] = []
    below = np.zeros(n, np.uint32)
    try:
        for level in range(layers):
            stride = degree * 4 if level == 0 else None
            array = storage.require(file, f"lists_{level}", np.uint8, (n if level == 0 else None, stride))
            table = _core.Table.borrow(array)
            _core.check_lists(table, table.rows, linked, level == 0)
            lists.append(table)
            if level:
                places = storage.require(file, f"slots_{level}", np.uint8, (n, 4))
                held = places.view(np.uint32).reshape(-1)
                named = array.view(np.uint32)
                if (held[held != NONE] >= table.rows).any():
                    raise ValueError("a node's list does not exist")
                if (held[named[named != NONE]] == NONE).any() or (below[held != NONE] == NONE).any():
                    raise ValueError("a node is met in a layer that does not hold it")
                below = held
                slots.append(_core.Table.borrow(places))
    except ValueError as problem:
        raise FormatError(f"{file.path} is damaged: {problem}") from problem
    return lists, slots
