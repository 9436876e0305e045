"""The fresh tail: rows that the log holds and no segment does yet. Appended to, never changed.

A snapshot knows how many rows of the tail it sees, and which of them are alive, so one tail serves all snapshots.
Vectors stand in a flat index, which readers search while a writer appends: the temporary index of FreshDiskANN (Singh
et al., arXiv 2105.09613, section 5), kept small enough that comparing with all of it takes a millisecond.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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

    @property
    def n_bytes(self) -> int:
        """Bytes of vectors and documents, which are most of a batch."""
        texts = sum(len(d) for d in self.documents or () if d is not None)
        return texts + sum(int(each.array.nbytes) for each in self.vectors.values())


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
        self._pending: list[Batch] = []
        self._columns: dict[str, tuple[int, Column | None]] = {}

    def append(self, batch: Batch) -> int:
        """Take rows over; returns the place of the first. Their vectors are found after `settle`."""
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
        self._pending.append(batch)
        self.n += n
        self.n_bytes += batch.n_bytes
        return first

    def rebuilt(self, n: int) -> "Tail":
        """Another tail of the first n rows, where an interruption may have left what comes after them half done."""
        made = Tail(self.metrics)
        if n:
            vectors = {name: self._vectors(name, n) for name in self.metrics}
            listed: list[Any] = self._keys[:n]
            keys = np.array(listed, np.int64) if isinstance(listed[0], int) else listed
            made.append(Batch(Keys(keys), vectors, {}, self._documents[:n]))
            made._rows = self._rows[:n]
            made.settle()
        return made

    def _vectors(self, name: str, n: int) -> Vectors:
        index = self._indexes[name]
        return as_vectors(index.get(np.arange(n)), bits=index._store.kind == "bits")

    def forget(self, first: int) -> None:
        """Empty the rows from some row on, of writes that failed: nobody sees them, but columns are made of all."""
        for row in range(first, self.n):
            self._rows[row], self._documents[row] = {}, None

    def settle(self) -> None:
        """Let searches find the vectors of all rows, before a snapshot that sees them is published."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        for name, metric in self.metrics.items():
            index = self._indexes.get(name)
            for kind_run in _runs([batch.vectors[name] for batch in pending]):
                if index is None:
                    index = Flat(kind_run, metric=metric)
                else:
                    index.add(kind_run)
            if index is not None:
                self._indexes[name] = index

    def index(self, name: str) -> Any:
        return self._indexes[name]

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
    return [run[0] if len(run) == 1 else Vectors(np.concatenate([v.array for v in run]), run[0].kind) for run in runs]
