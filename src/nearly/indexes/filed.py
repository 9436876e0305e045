"""Vectors in a file instead of memory: what ranks what codes have found (``refine="disk"``)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.indexes.store import Store, element, row_bytes
from nearly.metrics import Metric

__all__ = ["FiledStore"]

_BLOCK = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class FiledStore(Store):
    """Rows and ids in memory as in every store; vectors in a file of their own, or in that of a saved index.

    Their own one has no name: it is gone with the store, or with the process however that ends. The file of a saved
    index is read only; vectors that come later go to a file of their own, to which the others are copied first.
    """

    # From the page cache; one system call a vector takes 1 to 3 microseconds (benchmarks/bench_memory.py).
    costs: ClassVar[tuple[float, float]] = (3.0, 8.0)

    @staticmethod
    def _room(stride: int, n: int, room: int) -> Any:
        import tempfile  # late: only these stores need it

        with tempfile.TemporaryFile(prefix="nearly-") as made:
            table = _core.FileTable(os.dup(made.fileno()), True, 0, stride, 0)
        table.grow(n)
        return table

    @staticmethod
    def _scorer_of(vectors: Any, metric: Metric, kind: str, dim: int) -> Any:
        return _core.Filed(vectors, element(kind), metric.number, dim)

    @classmethod
    def of_file(
        cls, file: storage.File, metric: Metric, kind: str, dim: int, tables: list[Any], n_nodes: int
    ) -> "FiledStore":
        """The store over the vectors of a saved index; the contents of other tables are for the caller to check."""
        descriptor, offset = file.reopen("vectors")
        vectors = _core.FileTable(descriptor, False, offset, row_bytes(metric, kind, dim), n_nodes)
        return cls(metric, kind, dim, vectors, cls._scorer_of(vectors, metric, kind, dim), *tables)

    @property
    def kept(self) -> str:
        return "disk"

    @property
    def noun(self) -> str:
        return f"{self.kind} vectors on disk"

    @property
    def n_bytes(self) -> int:
        return super().n_bytes - int(self.vectors.n_bytes)

    def writable(self) -> "Store":
        if not self.vectors.borrowed:
            return self
        vectors = self._room(self.vectors.stride, self.vectors.rows, 0)
        first = 0
        for block in self._blocks(self.vectors.rows):
            vectors.write(first, block)
            first += len(block)
        others = [self.ids, self.next_rows, self.first_rows, self.last_rows, self.nodes]
        return self._successor(self.kind, vectors, others)

    def _grown(self, n_nodes: int) -> Any:
        if n_nodes > self.vectors.rows:
            self.vectors.grow(n_nodes)
        return self.vectors

    def _octets(self, nodes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        out = np.empty((len(nodes), self.vectors.stride), np.uint8)
        self.vectors.gather(np.ascontiguousarray(nodes, np.uint32), out)
        return out

    def _blocks(self, n_nodes: int) -> Iterator[NDArray[np.uint8]]:
        step = max(1, _BLOCK // self.vectors.stride)
        for first in range(0, n_nodes, step):
            block = np.empty((min(step, n_nodes - first), self.vectors.stride), np.uint8)
            self.vectors.read(first, block)
            yield block

    def _written(self, table: Any, n: int) -> Any:
        if table is not self.vectors:
            return super()._written(table, n)
        return storage.Blocks((n, table.stride), np.uint8, self._blocks(n))
