"""Where vectors, their rows and their ids live: what every index stands on.

A node is one distinct vector; the rows that are equal to it hang on it. Searches meet nodes, people meet rows by id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import Kind, Vectors
from nearly.errors import FormatError, IdError, InputError
from nearly.metrics import Metric

__all__ = ["ELEMENTS", "NONE", "Store", "check_range", "element", "grow_or_copy", "narrow", "row_bytes"]

ELEMENTS = ("float32", "float16", "bfloat16", "int8", "uint8")  # in the core's order
_BLOCK = 4096  # vectors looked at in one go
NONE = 0xFFFFFFFF
_MOST_HALF = float(np.finfo(np.float16).max)
_DTYPES: Mapping[str, Any] = {
    "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int8": np.int8, "uint8": np.uint8,
}  # fmt: skip


def _capacity(n: int) -> int:
    """Rows of address space to set aside: growth without a copy costs nothing until it is used."""
    return max(4096, 8 * n)


def new_table(stride: int, n: int, fill: int | None = None) -> Any:
    """A table of n rows with room to grow."""
    table = _core.Table(stride, n, _capacity(n))
    if fill is not None:
        table.fill(0, n, fill)
    return table


def grow_or_copy(table: Any, n: int, fill: int | None = None) -> Any:
    """The table with n rows: grown in place, or a larger copy where it is borrowed or its reservation is full."""
    old = table.rows
    if n <= old and not table.borrowed:
        return table
    if table.borrowed or not table.grow(n, fill or 0):
        table = _copy(table, n)
        if fill is not None and n > old:
            table.fill(old, n, fill)
    return table


def _copy(table: Any, n: int = 0) -> Any:
    """Another table of the same rows, and of n at least."""
    larger = _core.Table(table.stride, max(n, table.rows), _capacity(max(n, table.rows)))
    larger.array()[: table.rows] = table.array()
    return larger


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """A contiguous matrix as bytes, without a copy."""
    array = np.ascontiguousarray(array)
    return array.view(np.uint8).reshape(len(array), array.shape[1] * array.itemsize)


def query_form(vectors: Vectors) -> NDArray[np.uint8]:
    """Stored vectors as queries in the core's bytes: float32, or packed bits."""
    return as_bytes(vectors.array if vectors.kind == "bits" else vectors.as_float32())


def narrow(vectors: Vectors, widest: str = "float32") -> str:
    """The smallest element type that holds float32 vectors without loss, of uint8 and float16, or else the widest."""
    if vectors.kind != "float32":
        return vectors.kind
    if not len(vectors):
        return widest
    return next((kind for kind in ("uint8", "float16") if holds(kind, vectors)), widest)


def check_range(vectors: Vectors, widest: str) -> None:
    """Refuse numbers that the widest element type does not reach."""
    if widest != "float16" or vectors.kind not in ("float32", "bfloat16"):
        return
    blocks = (Vectors(vectors.array[i : i + _BLOCK], vectors.kind) for i in range(0, len(vectors), _BLOCK))
    most = max((float(np.abs(block.as_float32()).max(initial=0)) for block in blocks), default=0.0)
    if most > _MOST_HALF:
        raise InputError(f'vectors has numbers up to {most:g}, but refine="float16" keeps them up to {_MOST_HALF:g}; '
                         'divide all vectors by a constant, or pass refine="memory"')  # fmt: skip


@dataclass(frozen=True)
class Store:
    """Tables of one generation: a change that they cannot take makes a new Store, and readers keep the old one.

    Attributes
    ----------
    metric : Metric
    kind : str
        Element type of the stored vectors, or "bits".
    dim : int
        Columns of a vector; bytes for bits.
    vectors, scorer
        The table of vectors by node, and the core's exact scorer over it.
    ids, next_rows, first_rows, last_rows, rows
        Ids by row and the chains that hang rows on nodes.
    nodes : table of uint32
        The node of each row; NONE for a row that was removed.
    readers
        Who reads now, of this store and of those before it: places are used again when they have ended.
    widest : str
        Element type that takes what a narrower one does not hold: float32 holds all, float16 rounds.
    """

    metric: Metric
    kind: str
    dim: int
    vectors: Any
    scorer: Any
    ids: Any
    next_rows: Any
    first_rows: Any
    last_rows: Any
    nodes: Any
    # What reading a vector in a scan, and one that lies apart, costs beside reading it from memory.
    costs: ClassVar[tuple[float, float]] = (1.0, 1.0)

    readers: Any = field(default_factory=_core.Readers)
    widest: str = field(default="float32", kw_only=True)
    rows: Any = field(init=False)

    def __post_init__(self) -> None:
        rows = _core.Rows(self.ids, self.next_rows, self.first_rows, self.last_rows, self.readers)
        object.__setattr__(self, "rows", rows)

    @classmethod
    def empty(cls, metric: Metric, kind: str, dim: int, room: int, widest: str = "float32") -> Self:
        """A store without rows, with room for so many before a copy."""
        vectors = cls._room(row_bytes(metric, kind, dim), 0, room)
        tables = [_core.Table(size, 0, _capacity(room)) for size in (8, 4, 4, 4, 4)]
        return cls(metric, kind, dim, vectors, cls._scorer_of(vectors, metric, kind, dim), *tables, widest=widest)

    @staticmethod
    def _room(stride: int, n: int, room: int) -> Any:
        """A table of n vectors, with room for so many."""
        return _core.Table(stride, n, _capacity(room))

    @staticmethod
    def _scorer_of(vectors: Any, metric: Metric, kind: str, dim: int) -> Any:
        return _core.Plain(vectors, element(kind), metric.number, dim)

    def emptied(self) -> "Store":
        """Another store for such vectors, with none in it."""
        return type(self).empty(self.metric, self.kind, self.dim, 0, self.widest)

    def fitting(self, vectors: Vectors, room: int = 0) -> "Store":
        """Another store for vectors of this kind and dimension, with none in it."""
        return type(self).empty(self.metric, narrow(vectors, self.widest), max(1, vectors.dim), room, self.widest)

    def takes(self, vectors: Vectors) -> bool:
        """Whether vectors can be kept in the element type there is; `converted` makes another of it."""
        return self.kind == self.widest or holds(self.kind, vectors)

    def writable(self) -> "Store":
        """This store if its vectors may be written, or one with a copy of them."""
        return self

    @property
    def kept(self) -> str:
        """Where full vectors are, as ``refine=`` calls it."""
        return "float16" if self.widest == "float16" else "memory"

    @property
    def noun(self) -> str:
        """What full vectors are, for people."""
        return f"{self.kind} vectors"

    @property
    def placer(self) -> Any:
        """What puts vectors, as `as_stored` gives them, at nodes."""
        return self.scorer

    @property
    def query_bytes(self) -> int:
        """Bytes of a query as the core takes it."""
        return self.dim if self.kind == "bits" else self.dim * 4

    @property
    def n_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(t.n_bytes for t in self.tables().values())

    def tables(self) -> dict[str, Any]:
        """The tables by the name that they have in files."""
        return {
            "vectors": self.vectors, "ids": self.ids, "next_rows": self.next_rows, "first_rows": self.first_rows,
            "last_rows": self.last_rows, "nodes": self.nodes,
        }  # fmt: skip

    def sized(self, n_rows: int, n_nodes: int) -> "Store":
        """This store with room for so many rows and nodes: itself where its tables could grow in place."""
        vectors = self._grown(n_nodes)
        sizes = (n_rows, n_rows, n_nodes, n_nodes, n_rows)
        old = (self.ids, self.next_rows, self.first_rows, self.last_rows, self.nodes)
        fresh = [grow_or_copy(table, n, 255) for table, n in zip(old, sizes, strict=True)]
        if vectors is self.vectors and all(a is b for a, b in zip(fresh, old, strict=True)):
            return self
        return self._successor(self.kind, vectors, fresh)

    def _grown(self, n_nodes: int) -> Any:
        """The table of vectors with room for so many nodes."""
        return grow_or_copy(self.vectors, n_nodes)

    def _scorer_over(self, vectors: Any, kind: str) -> Any:
        return self._scorer_of(vectors, self.metric, kind, self.dim)

    def _successor(self, kind: str, vectors: Any, fresh: list[Any]) -> "Store":
        """A store over other tables, none that says which rows hang where is shared.

        Whoever still reads this store must not meet rows that are hung later: their ids or vectors may be in the other
        one's tables alone.
        """
        old = (self.ids, self.next_rows, self.first_rows, self.last_rows, self.nodes)
        tables = [_copy(t) if any(t is o for o in old) else t for t in fresh]
        return self._like(kind, vectors, self._scorer_over(vectors, kind), tables)

    def _like(self, kind: str, vectors: Any, scorer: Any, tables: list[Any]) -> "Store":
        """A store over these tables, for the same readers."""
        ids, next_rows, first_rows, last_rows, nodes = tables
        return type(self)(
            self.metric, kind, self.dim, vectors, scorer, ids, next_rows, first_rows, last_rows, nodes, self.readers,
            widest=self.widest,
        )  # fmt: skip

    def converted(self, kind: str) -> "Store":
        """This store with its vectors in another element type that holds them all."""
        n = self.vectors.rows
        vectors = self._room(row_bytes(self.metric, kind, self.dim), n, n)
        scorer = self._scorer_over(vectors, kind)
        for first in range(0, n, 4096):
            last = min(n, first + 4096)
            scorer.fill(first, as_bytes(_convert(self.raw(np.arange(first, last)), kind)))
        return self._successor(kind, vectors, [self.ids, self.next_rows, self.first_rows, self.last_rows, self.nodes])

    def as_stored(self, vectors: Vectors) -> NDArray[np.uint8]:
        """Vectors as bytes in this store's element type."""
        return as_bytes(_convert(vectors, self.kind))

    def raw(self, nodes: NDArray[np.integer[Any]]) -> Vectors:
        """Vectors of nodes as they came, in the stored element type."""
        dtype = np.dtype(_DTYPES.get(self.kind, np.uint8))
        octets = self._octets(nodes)[:, : self.dim * dtype.itemsize]
        return Vectors(np.ascontiguousarray(octets).view(dtype).reshape(len(nodes), self.dim), cast(Kind, self.kind))

    def _octets(self, nodes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Rows of the table of vectors."""
        return cast("NDArray[np.uint8]", self.vectors.array()[nodes])

    def arrays(self, n_rows: int, n_nodes: int) -> dict[str, Any]:
        """The tables of so many rows and nodes, as files take them."""
        sizes = {"vectors": n_nodes, "first_rows": n_nodes, "last_rows": n_nodes}
        return {name: self._written(table, sizes.get(name, n_rows)) for name, table in self.tables().items()}

    def _written(self, table: Any, n: int) -> Any:
        """The first n rows of a table, as files take them."""
        return table.array()[:n]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and configuration beyond the tables, as files hold them."""
        return {}, {}

    def as_queries(self, nodes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Stored vectors as queries in the core's bytes."""
        return query_form(self.raw(nodes))

    def in_form(self, nodes: NDArray[np.uint32], threads: int = 0) -> NDArray[np.float32]:
        """Vectors of nodes as float32 in the metric's form: unit length under cosine."""
        out = np.empty((len(nodes), self.dim), np.float32)
        self.scorer.decode(np.ascontiguousarray(nodes, np.uint32), out, threads)
        return out

    def in_use(self, nodes: NDArray[np.uint32], n_nodes: int) -> NDArray[np.uint32]:
        """Those of some nodes that there are and that hold rows."""
        nodes = nodes[nodes < n_nodes]
        return np.asarray(nodes[self.column("first_rows")[nodes] != NONE])

    def alone(self, nodes: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Those of some nodes that hold one row, or all if most hold several."""
        single = self.column("first_rows")[nodes] == self.column("last_rows")[nodes]
        return np.asarray(nodes[single]) if 2 * int(single.sum()) >= len(nodes) else nodes

    def distinct(self, n_nodes: int) -> Any:
        """What finds equal vectors among the nodes in use."""
        alive = self.column("first_rows")[:n_nodes] != NONE
        width = self.dim * np.dtype(_DTYPES.get(self.kind, np.uint8)).itemsize
        return _core.Distinct(self.vectors, width, n_nodes, alive.astype(np.uint8))

    def column(self, name: str) -> NDArray[Any]:
        """A table of single numbers as an array: ids (int64), or one of the uint32 tables."""
        column: NDArray[Any] = self.tables()[name].array().view(np.int64 if name == "ids" else np.uint32).reshape(-1)
        return column

    def check(self, n_rows: int, n_nodes: int) -> None:
        """Raise FormatError unless rows, chains and ids fit together: what a loaded file must show."""
        try:
            live = self.rows.check(n_rows, n_nodes)
        except ValueError as problem:
            raise FormatError(f"the rows of this file are damaged: {problem}") from problem
        nodes, ids = self.column("nodes")[:n_rows], self.column("ids")[:n_rows]
        present = nodes != NONE
        if live != int(present.sum()) or (nodes[present] >= n_nodes).any():
            raise FormatError("the rows of this file are damaged: rows and nodes do not name each other")
        firsts = self.column("first_rows")[:n_nodes]
        heads = firsts[firsts != NONE]
        if (nodes[heads] != np.flatnonzero(firsts != NONE)).any():
            raise FormatError("the rows of this file are damaged: a chain hangs on another node than its rows say")
        used = np.sort(ids[present])  # np.unique would import a module of its own first
        if (used[1:] == used[:-1]).any():
            raise FormatError("the ids of this file are damaged: an id is there twice")


class IdMap:
    """Rows by id: arithmetic while ids are row numbers, a sorted copy otherwise. Made anew after changes."""

    def __init__(self, ids: NDArray[np.int64], nodes: NDArray[np.uint32]) -> None:
        present = nodes != NONE
        self._identity = bool(present.all()) and bool((ids == np.arange(len(ids))).all())
        self._n = len(ids)
        if not self._identity:
            rows = np.flatnonzero(present).astype(np.uint32)
            order = np.argsort(ids[rows], kind="stable")
            self._rows, self._ids = rows[order], ids[rows][order]

    def rows(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """The row of each id, and whether there is one."""
        if self._identity:
            known = (ids >= 0) & (ids < self._n)
            return np.where(known, ids, 0).astype(np.uint32), known
        if not len(self._ids):
            return np.zeros(len(ids), np.uint32), np.zeros(len(ids), bool)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return self._rows[at], self._ids[at] == ids

    def known(self, ids: NDArray[np.int64], what: str) -> NDArray[np.uint32]:
        """The row of each id; IdError that lists the unknown."""
        rows, found = self.rows(ids)
        if not found.all():
            missing = ids[~found]
            shown = ", ".join(str(i) for i in missing[:5].tolist()) + (", ..." if len(missing) > 5 else "")
            raise IdError(f"{what}: {len(missing)} of {len(ids)} ids are not in this index: {shown}")
        return rows


def row_bytes(metric: Metric, kind: str, dim: int) -> int:
    """Bytes of a stored vector."""
    return int(_core.Plain.row_bytes(element(kind), metric.number, dim))


def element(kind: str) -> int:
    """Its number in the core."""
    return ELEMENTS.index("uint8" if kind == "bits" else kind)


def _convert(vectors: Vectors, kind: str) -> NDArray[Any]:
    """Values of one element type as another that holds them."""
    if vectors.kind == kind:
        return vectors.array
    if kind == "bits" or vectors.kind == "bits":
        raise InputError(f"this index holds {kind}, but {vectors.kind} came")
    if kind == "bfloat16":
        floats = np.ascontiguousarray(vectors.as_float32())
        return (floats.view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(vectors.as_float32().astype(_DTYPES[kind]))


def holds(kind: str, vectors: Vectors) -> bool:
    """Whether an element type holds these vectors without loss."""
    if kind in (vectors.kind, "float32"):
        return True
    blocks = (Vectors(vectors.array[i : i + _BLOCK], vectors.kind) for i in range(0, len(vectors), _BLOCK))
    return all(_holds_floats(kind, block.as_float32()) for block in blocks)  # most data fails in its first block


def _holds_floats(kind: str, floats: NDArray[np.float32]) -> bool:
    if kind == "bfloat16":
        return bool((np.ascontiguousarray(floats).view(np.uint32) & 0xFFFF == 0).all())
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (0, 255) if kind == "uint8" else (-128, 127)
        if kind in ("uint8", "int8") and not ((floats >= low) & (floats <= high)).all():
            return False
        return bool((floats.astype(_DTYPES[kind]).astype(np.float32) == floats).all())
