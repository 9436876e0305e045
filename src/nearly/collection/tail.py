"""The fresh tail: rows that the log holds and no segment does yet. Appended to, never changed.

A snapshot knows how many rows of the tail it sees, and which of them are alive, so one tail serves all snapshots.
Vectors stand in a flat index, which readers search while a writer appends: the temporary index of FreshDiskANN (Singh
et al., arXiv 2105.09613, section 5), kept small enough that comparing with all of it takes a millisecond. Who writes
row by row does not pay for it: the first search takes up what has come since the last one.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.arrays import Vectors, as_vectors
from nearly.collection.bits import Bits
from nearly.collection.cells import Cells
from nearly.collection.keys import Key, Keys
from nearly.collection.rows import Document
from nearly.filters import evaluate_bits
from nearly.filters.columns import Column
from nearly.filters.expressions import Expression
from nearly.indexes import Flat, Index

__all__ = ["Batch", "Tail"]

Array = NDArray[Any]


@dataclass
class Batch:
    """Rows that are checked and ready to be put."""

    keys: Keys
    vectors: Mapping[str, Vectors]
    cells: Mapping[str, Cells] = field(default_factory=dict)
    documents: list[Document] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def n_bytes(self) -> int:
        """Bytes of vectors and documents, which are most of a batch."""
        texts = sum(len(d) for d in self.documents or () if d is not None)
        return texts + sum(int(each.array.nbytes) for each in self.vectors.values())

    def is_like(self, other: "Batch") -> bool:
        """Whether the vectors of both have the same types of elements, so that they can be joined."""
        return all(each.kind == other.vectors[name].kind for name, each in self.vectors.items())

    @classmethod
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """The rows of batches that are alike, none of whose keys is in two."""
        if len(batches) == 1:
            return batches[0]
        keys: list[Any] = [key for each in batches for key in each.keys.tolist()]
        vectors = {name: _joined([each.vectors[name] for each in batches]) for name in batches[0].vectors}
        types = {name: cells.type for each in batches for name, cells in each.cells.items()}
        documents = None
        if any(each.documents is not None for each in batches):
            documents = [document for each in batches for document in each.documents or [None] * len(each)]
        cells = {name: Cells(name, type, [
            value for each in batches
            for value in (each.cells[name].plain if name in each.cells else [None] * len(each))
        ]) for name, type in types.items()}  # fmt: skip
        return cls(Keys(np.array(keys, np.int64) if isinstance(keys[0], int) else keys), vectors, cells, documents)


class Tail:
    """Rows in memory, in the order in which they came.

    Parameters
    ----------
    metrics : mapping of str to str
        The metric of each field.
    """

    def __init__(self, metrics: Mapping[str, str]) -> None:
        self.metrics = metrics
        self.n = self.n_bytes = 0
        self._keys: list[Key] = []
        self._rows: list[dict[str, Any]] = []
        self._documents: list[Document] = []
        self._latest: dict[Key, int] = {}
        self._previous: list[int] = []
        self._indexes: dict[str, Index] = {}
        self._pending: dict[str, list[tuple[int, Vectors]]] = {name: [] for name in metrics}  # with their first rows
        self._taking_up = threading.RLock()
        self._columns: dict[str, tuple[int, Column | None]] = {}

    def append(self, batch: Batch) -> int:
        """Take rows over; returns the place of the first."""
        first, n = self.n, len(batch)
        keys, names = batch.keys.tolist(), list(batch.cells)
        rows: list[dict[str, Any]] = [{}] * n
        if names:
            columns = [batch.cells[name].plain for name in names]
            rows = [
                {name: v for name, v in zip(names, values, strict=True) if v is not None}
                for values in zip(*columns, strict=True)
            ]
        for row, key in enumerate(keys, first):
            self._previous.append(self._latest.get(key, -1))
            self._latest[key] = row
        self._keys += keys
        self._rows += rows
        self._documents += batch.documents or [None] * n
        for name, waiting in self._pending.items():  # copied: what came may be the caller's own, and change later
            came = batch.vectors[name]
            waiting.append((first, Vectors(came.array.copy(), came.kind)))
        self.n += n
        self.n_bytes += batch.n_bytes
        return first

    def rebuilt(self, n: int) -> "Tail":
        """Another tail of the first n rows, where an interruption may have left what comes after them half done."""
        made = Tail(self.metrics)
        if n:
            vectors = {name: self._vectors(self.index(name), n) for name in self.metrics}
            listed: list[Any] = self._keys[:n]
            keys = np.array(listed, np.int64) if isinstance(listed[0], int) else listed
            made.append(Batch(Keys(keys), vectors, {}, self._documents[:n]))
            made._rows = self._rows[:n]
        return made

    @staticmethod
    def _vectors(index: Any, n: int) -> Vectors:
        return as_vectors(index.get(np.arange(n)), bits=index._store.kind == "bits")

    def forget(self, first: int) -> None:
        """Empty the rows from some row on, of writes that failed: nobody sees them, but columns are made of all."""
        for row in range(first, self.n):
            self._rows[row], self._documents[row] = {}, None

    def settle(self) -> None:
        """Take up all vectors; raises what is wrong with them."""
        for name in self.metrics if self.n else ():
            self.index(name)

    def index(self, name: str) -> Any:
        """The index of a field, of all rows that there are."""
        if self._pending[name]:
            with self._taking_up:
                self._take_up(name)
        return self._indexes[name]

    def _take_up(self, name: str) -> None:
        waiting = self._pending[name]
        held = len(self._indexes.get(name, ()))  # more than those before the waiting ones where Ctrl-C came
        came = [vectors for first, vectors in list(waiting) if first >= held]
        for run in _runs(came):
            if name in self._indexes:
                self._indexes[name].add(run)
            else:
                self._indexes[name] = Flat(run, metric=self.metrics[name])
        held = len(self._indexes[name])
        while waiting and waiting[0][0] < held:  # a writer may append to it meanwhile
            del waiting[0]

    def in_a_child(self) -> None:
        """After fork, maybe while another thread took up vectors: its lock, and what it had half done, stay behind."""
        self._taking_up = threading.RLock()
        for name, index in self._indexes.items():
            if self._pending[name]:
                self._indexes[name] = Flat(self._vectors(index, len(index)), metric=self.metrics[name])

    def find(self, keys: Keys, alive: Bits) -> NDArray[np.int64]:
        """The row of each key that is alive in a snapshot, or -1."""
        rows = np.full(len(keys), -1, np.int64)
        for i, key in enumerate(keys.tolist()):
            row = self._latest.get(key, -1)
            while row >= 0 and not (row < len(alive) * 64 and int(alive[row >> 6]) >> (row & 63) & 1):
                row = self._previous[row]  # newer than the snapshot, or replaced
            rows[i] = row
        return rows

    def held(self, keys: Keys) -> NDArray[np.bool_]:
        """Whether a row of each key ever came, alive or not."""
        return np.fromiter((key in self._latest for key in keys.tolist()), bool, len(keys))

    def keys_of(self, rows: Array) -> list[Any]:
        return [self._keys[row] for row in rows.tolist()]

    def values(self, name: str, rows: Array) -> list[Any]:
        return [self._rows[row].get(name) for row in rows.tolist()]

    def documents(self, rows: Array) -> list[Document]:
        return [self._documents[row] for row in rows.tolist()]

    def column(self, name: str, type: str, n: int) -> Column:
        """A column of the first n rows, for filters; kept until rows come."""
        held = self._columns.get(name)
        if held is None or held[0] != n or held[1] is None:
            values = [row.get(name) for row in self._rows[:n]]
            held = self._columns[name] = n, Column.from_values(name, values, type)
        column = held[1]
        assert column is not None
        return column

    def passing(self, where: Expression, types: Mapping[str, str], n: int) -> Bits:
        """Rows of the first n that passed a filter when they came, dead ones too."""
        columns = {name: self.column(name, types[name], n) for name in where.columns if name in types}
        return evaluate_bits(where, columns, n)


def _runs(vectors: list[Vectors]) -> list[Vectors]:
    """Neighbors of one element type joined: as few additions as there can be."""
    runs: list[list[Vectors]] = []
    for each in vectors:
        if runs and runs[-1][0].kind == each.kind:
            runs[-1].append(each)
        else:
            runs.append([each])
    return [_joined(run) for run in runs]


def _joined(vectors: Sequence[Vectors]) -> Vectors:
    """Vectors of one element type, one after the other."""
    if len(vectors) == 1:
        return vectors[0]
    return Vectors(np.concatenate([each.array for each in vectors]), vectors[0].kind)
