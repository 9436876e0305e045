"""Codes instead of vectors: a vector is what its code says, and nothing else is kept (``refine=None``)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.arrays import Vectors
from nearly.errors import FormatError, InputError
from nearly.indexes.store import NONE, Store
from nearly.metrics import Metric
from nearly.quantizers import Fitted, from_state
from nearly.quantizers.base import CODED, SAMPLE, common_norm, in_form, squares

if TYPE_CHECKING:
    from nearly.quantizers import Quantizer

__all__ = ["CodedStore", "fitted_to", "told"]

_BLOCK = 4096  # vectors coded at a time
_AT_ONCE = 16_384  # vectors compared at a time with queries, to see what codes tell
_ASKED = 300  # vectors that are asked for then
_KS = (1, 3, 10, 30, 100)  # numbers of neighbors for which that is measured


def fitted_to(quantizer: "Quantizer", vectors: Vectors, metric: Metric, seed: int, threads: int) -> Fitted:
    """Codes for vectors, of which a sample tells; InputError where they cannot stand alone."""
    if metric.name not in CODED:
        raise InputError(f'refine=None keeps codes alone, which are for {", ".join(CODED)}, not {metric.name}; pass '
                         'refine="memory"')  # fmt: skip
    if not len(vectors):
        raise InputError("refine=None codes all vectors by what the first ones tell; pass some, or another refine=")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:SAMPLE])
    sample = in_form(Vectors(vectors.array[drawn], vectors.kind).as_float32(), metric.name)
    bound = 0.0
    if metric.name == "ip":
        parts = [Vectors(vectors.array[i : i + _BLOCK], vectors.kind) for i in range(0, len(vectors), _BLOCK)]
        bound = common_norm(np.concatenate([squares(part.as_float32()) for part in parts]))
    fitted = quantizer.fit_floats(sample, metric=metric.name, norm_bound=bound, seed=seed, threads=threads)
    if fitted is None:
        raise InputError("refine=None keeps codes alone, and Plain() makes none; pass another, as nearly.SAQ(4)")
    return fitted


@dataclass(frozen=True)
class CodedStore(Store):
    """A store whose table of vectors holds codes, by node. Vectors of equal codes are one node.

    Attributes
    ----------
    fitted : Fitted
        What makes codes of vectors, and vectors of codes.
    """

    fitted: Fitted = field(kw_only=True)

    @classmethod
    def of(cls, metric: Metric, fitted: Fitted, room: int) -> Self:
        """A store without rows."""
        tables = [_core.Table(size, 0, max(4096, 8 * room)) for size in (fitted.row_bytes, 8, 4, 4, 4, 4)]
        return cls.over(metric, fitted, tables)

    @classmethod
    def over(cls, metric: Metric, fitted: Fitted, tables: list[Any]) -> Self:
        """The store over these tables."""
        return cls(
            metric, "float32", fitted.dim, tables[0], _scorer(metric, fitted, tables[0]), *tables[1:], fitted=fitted
        )

    @classmethod
    def of_file(cls, file: storage.File, metric: Metric, dim: int, n_nodes: int, others: list[Any]) -> Self:
        """The store of a saved index; the contents of its tables are for the caller to check."""
        prefix = "alone_"
        parts = {name.removeprefix(prefix): a for name, a in file.arrays.items() if name.startswith(prefix)}
        if not isinstance(file.config.get("alone"), dict):
            raise FormatError(f"{file.path} is damaged: it does not say what its codes mean")
        fitted = from_state(parts, file.config["alone"])
        if fitted.dim != dim or fitted.metric != metric.name:
            raise FormatError(f"{file.path} is damaged: its codes are for other vectors")
        codes = storage.require(file, "vectors", np.uint8, (n_nodes, fitted.row_bytes))
        return cls.over(metric, fitted, [_core.Table.borrow(codes), *others])

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and configuration beyond the tables, as files hold them."""
        arrays, values = self.fitted.state()
        return {f"alone_{name}": array for name, array in arrays.items()}, {"alone": values}

    def emptied(self) -> Store:
        return type(self).of(self.metric, self.fitted, 0)

    def fitting(self, vectors: Vectors, room: int = 0) -> Store:
        raise InputError(f"vectors has {vectors.dim} columns, but the codes that this index keeps (refine=None) are of "
                         f"{self.dim}; build another index")  # fmt: skip

    def takes(self, vectors: Vectors) -> bool:
        return True

    @property
    def kept(self) -> str:
        return "none"

    @property
    def noun(self) -> str:
        return self.fitted.name

    @property
    def placer(self) -> Any:
        return _core.Plain(self.vectors, 4, 0, self.fitted.row_bytes)  # codes as bytes, equal where all of them are

    def _scorer_over(self, vectors: Any, kind: str) -> Any:
        return _scorer(self.metric, self.fitted, vectors)

    def _like(self, kind: str, vectors: Any, scorer: Any, tables: list[Any]) -> Store:
        ids, next_rows, first_rows, last_rows, nodes = tables
        return type(self)(
            self.metric, kind, self.dim, vectors, scorer, ids, next_rows, first_rows, last_rows, nodes, self.readers,
            widest=self.widest, fitted=self.fitted,
        )  # fmt: skip

    def as_stored(self, vectors: Vectors) -> NDArray[np.uint8]:
        return self.fitted.encode(vectors.as_float32())

    def raw(self, nodes: NDArray[np.integer[Any]]) -> Vectors:
        """What the codes of nodes say: under cosine of unit length."""
        return Vectors(self.in_form(np.asarray(nodes, np.uint32)), "float32")

    def in_form(self, nodes: NDArray[np.uint32], threads: int = 0) -> NDArray[np.float32]:
        rows = self.fitted.decode(self.vectors.array()[nodes])
        return in_form(np.ascontiguousarray(rows, np.float32), self.metric.name)

    def distinct(self, n_nodes: int) -> Any:
        alive = self.column("first_rows")[:n_nodes] != NONE
        return _core.Distinct(self.vectors, self.fitted.row_bytes, n_nodes, alive.astype(np.uint8))


def _scorer(metric: Metric, fitted: Fitted, table: Any) -> Any:
    return _core.Alone(fitted.scorer(table), metric.number, fitted.norm_bound)


def told(
    index: Any, vectors: Vectors, queries: NDArray[np.float32] | None, seed: int, threads: int
) -> Mapping[int, float]:
    """Share of the true neighbors of queries that codes put first, for some numbers of neighbors.

    ``vectors`` are those that the index was just built of. Without queries some of them are asked for, each as if it
    was not there.
    """
    from nearly.indexes.flat import Flat  # an index beside this one

    ks = tuple(k for k in _KS if k < len(vectors))
    if not ks:
        return {}
    own = np.full(0 if queries is None else len(queries), -1)
    if queries is None:
        own = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:_ASKED])
        queries = Vectors(vectors.array[own], vectors.kind).as_float32()
    n, most = len(queries), ks[-1] + 1
    best = np.full((n, most), np.inf, np.float32)
    rows = np.zeros((n, most), np.int64)
    for first in range(0, len(vectors), _AT_ONCE):
        part = Flat(vectors.array[first : first + _AT_ONCE], metric=index.metric)
        hits = part.search(queries, k=min(most, len(part)), threads=threads or None)
        both = np.concatenate([best, hits.distances], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :most]
        best = np.take_along_axis(both, order, axis=1)
        rows = np.take_along_axis(np.concatenate([rows, hits.ids + first], axis=1), order, axis=1)
    by_code = index._scan(index._queries(queries)[0], most, False, None, threads, "")
    found = index._id_map().rows(by_code._ids.ravel())[0].reshape(by_code._ids.shape).astype(np.int64)
    rows, found = (_others(some, own) for some in (rows, found))
    shares = {}
    for k in ks:
        held = (rows[:, :k, None] == found[:, None, :k]).any(axis=2)
        shares[k] = math.floor(1e6 * float(held.mean())) / 1e6
    return shares


def _others(rows: NDArray[np.int64], own: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Rows found for queries, in order, without those that they are themselves."""
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)
