"""One run: vectors sorted by value, stored once, and the graphs over intervals of their ranks.

Ranks are cut into leaves. Level 1 of the tree joins ``branching`` leaves to a part with a graph, level 2 as many of
those, and so on; leaves have no graph. Only whole parts exist, so a run that grows at its end gets new parts and
changes none: a vector is linked once on each level, however it came (the logarithmic method: Bentley & Saxe,
Decomposable searching problems I, Journal of Algorithms 1980).
With ``overlap`` each level has a second row of parts, shifted by half of their length.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import Vectors
from nearly.indexes.graph import Rules
from nearly.indexes.store import ELEMENTS, Store, grow_or_copy, holds, new_table
from nearly.indexes.travel import Travel, usual_quantizer
from nearly.indexes.window.margins import NONE_KNOWN, Margins, measured
from nearly.indexes.window.part import Part, plain, view
from nearly.indexes.window.values import Column
from nearly.metrics import Metric
from nearly.quantizers import Plain, Quantizer
from nearly.quantizers.base import CODED

__all__ = ["Run", "Shape"]

Key = tuple[int, int, bool]  # level, number on that level, whether shifted by half


class Shape(NamedTuple):
    """How runs are built.

    Attributes
    ----------
    branching : int
        Parts of a level that one of the next joins.
    leaf : int
        Most vectors of a leaf.
    overlap : bool
        Whether each level has a second row of parts.
    rules, quantizer, recall, seed
        Of the graphs; see `Vamana`. Without a quantizer each run takes what is usual for its vectors.
    """

    branching: int
    leaf: int
    overlap: bool
    rules: Rules
    quantizer: Quantizer | None
    recall: float
    seed: int


@dataclass(frozen=True)
class Run:
    """Vectors sorted by value. Never changed: what comes or goes makes another one, which shares the tables.

    Attributes
    ----------
    shape : Shape
    metric : Metric
    kind : str
        Element type of the vectors.
    dim, n : int
    vectors, id_table, value_table : table
        In order of (value, id); tables may already hold rows of a later run beyond n.
    dtype : dtype
        Of values.
    travel : Travel
        The codes of all vectors.
    starts : ndarray of int64
        Ranks at which leaves begin, and where the last one ends: what is beyond is no leaf yet.
    parts : dict
        By (level, number, shifted).
    alive : ndarray of bool or None
        Which rows were not removed; None: all.
    margins : Margins
        How much wider pools must be where a window is a piece of a part.
    """

    shape: Shape
    metric: Metric
    kind: str
    dim: int
    n: int
    vectors: Any
    id_table: Any
    value_table: Any
    dtype: Any
    travel: Travel
    starts: NDArray[np.int64]
    parts: dict[Key, Part]
    alive: NDArray[np.bool_] | None = None
    margins: Margins = NONE_KNOWN
    store: Store = field(init=False)
    ids: NDArray[np.int64] = field(init=False)
    values: Column = field(init=False)
    cuts: list[int] = field(init=False)  # starts, as plain numbers
    _before: NDArray[np.int64] | None = field(init=False)  # removed rows of a smaller rank

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "ids", self.id_table.array()[: self.n].view(np.int64).reshape(-1))
        put(self, "values", self.value_table.array()[: self.n].view(self.dtype).reshape(-1))
        put(self, "store", self.slice(0, self.n))
        put(self, "cuts", self.starts.tolist())
        gone = None if self.alive is None else np.concatenate([[0], np.cumsum(~self.alive)])
        put(self, "_before", gone)

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls, shape: Shape, metric: Metric, vectors: Vectors, kind: str, values: Column, ids: NDArray[np.int64],
        probes: NDArray[np.uint8] | None, threads: int, report: Any = None,
    ) -> "Run":  # fmt: skip
        """Sort vectors by (value, id) and link them."""
        n, dim = len(vectors), max(1, vectors.dim)
        stride = _core.Plain.row_bytes(ELEMENTS.index("uint8" if kind == "bits" else kind), metric.number, dim)
        tables = new_table(stride, 0), new_table(8, 0), new_table(8, 0)
        travel = Travel(Plain(), Store.empty(metric, kind, dim, 0), shape.seed)
        blank = cls(shape, metric, kind, dim, 0, *tables, values.dtype, travel, np.zeros(1, np.int64), {})
        order = np.lexsort((ids, values))
        run = blank._filled(vectors, values, ids, order)
        leaves = 1
        while n > shape.leaf * leaves:
            leaves *= shape.branching
        if leaves > 1:
            starts = np.arange(leaves + 1, dtype=np.int64) * n // leaves
            run = replace(run, starts=starts)
        return run.grown(probes, threads, report)

    def _filled(self, vectors: Vectors, values: Column, ids: NDArray[np.int64], order: NDArray[np.intp]) -> "Run":
        """This run with more rows at its end, in this order; nothing leads to them yet but scans."""
        n, more = self.n, len(order)
        tables = [grow_or_copy(table, n + more) for table in (self.vectors, self.id_table, self.value_table)]
        run = replace(self, vectors=tables[0], id_table=tables[1], value_table=tables[2], n=n + more,
                      alive=None if self.alive is None else np.append(self.alive, np.ones(more, bool)))  # fmt: skip
        run.ids[n:], run.values[n:] = ids[order], values[order]
        scorer = plain(run.vectors, self.metric, self.kind, self.dim)
        for first in range(0, more, 4096):
            some = Vectors(np.ascontiguousarray(vectors.array[order[first : first + 4096]]), vectors.kind)
            scorer.fill(n + first, self.store.as_stored(some))
        return run

    def extended(
        self, vectors: Vectors, values: Column, ids: NDArray[np.int64], probes: NDArray[np.uint8] | None, threads: int
    ) -> "Run":
        """This run with rows none of whose values is less than its last: no part is built again."""
        run = self if holds(self.kind, vectors) else self._converted("float32")
        run = run._filled(vectors, values, ids, np.lexsort((ids, values)))
        fresh = np.arange(self.n, run.n, dtype=np.uint32)
        travel = copy.copy(run.travel)
        if travel.codes is not None:
            travel.code(run.store, run.n, fresh, threads)
            codes, fitted = travel.codes, travel.fitted
            travel.check(run.store, run.n, fresh, threads)
            if travel.fitted is not fitted:  # codes that do not hold for what came: all is built anew
                return run._again(probes, threads)
            if codes is not self.travel.codes:
                run = replace(run, travel=travel)._moved()
        run = replace(run, travel=travel)
        if run.vectors is not self.vectors or run.id_table is not self.id_table:
            run = run._moved()
        while run.n - run.starts[-1] >= self.shape.leaf:
            run = replace(run, starts=np.append(run.starts, run.starts[-1] + self.shape.leaf))
        return run.grown(probes, threads)

    def _moved(self) -> "Run":
        """The parts follow tables that were replaced."""
        return replace(self, parts={key: part.moved(self) for key, part in self.parts.items()})

    def _again(self, probes: NDArray[np.uint8] | None, threads: int) -> "Run":
        return Run.merged([self], probes, threads)

    @classmethod
    def merged(cls, runs: Sequence["Run"], probes: NDArray[np.uint8] | None, threads: int) -> "Run":
        """One run of what is alive in several, built anew."""
        first = runs[0]
        if any(run.kind != first.kind for run in runs):
            runs = [run._converted("float32") for run in runs]
        kept = [np.arange(run.n) if run.alive is None else np.flatnonzero(run.alive) for run in runs]
        rows = [run.store.raw(some) for run, some in zip(runs, kept, strict=True)]
        vectors = Vectors(np.concatenate([part.array for part in rows]), rows[0].kind)
        values, ids = (
            np.concatenate([column[some] for column, some in zip(columns, kept, strict=True)])
            for columns in ([run.values for run in runs], [run.ids for run in runs])
        )
        return cls.build(first.shape, first.metric, vectors, runs[0].kind, values, ids, probes, threads)

    def _converted(self, kind: str) -> "Run":
        if kind == self.kind:
            return self
        wider = self.store.converted(kind)
        travel = copy.copy(self.travel)
        run = replace(self, kind=kind, vectors=wider.vectors, travel=travel)
        travel.follow(run.store)
        return run._moved()

    def grown(self, probes: NDArray[np.uint8] | None, threads: int, report: Any = None) -> "Run":
        """This run with the parts that it should have and has not yet."""
        missing = [key for key in self.keys() if key not in self.parts]
        if not missing:
            return self
        run = self
        if not run.parts:
            travel = Travel(run._quantizer(), run.store, run.shape.seed)
            travel.fit(run.store, run.n, threads)
            run = replace(run, travel=travel)
        parts, done = dict(run.parts), 0
        for key in missing:
            part = parts[key] = Part.over(run, *run.interval(key))
            part.build(probes, threads, None if report is None else lambda n, so_far=done: report(so_far + n))
            done += part.stop - part.start
        run = replace(run, parts=parts)
        if max(missing) < max(parts):  # what was measured on the largest holds
            return run
        return replace(run, margins=measured(run, probes, threads))

    def _quantizer(self) -> Quantizer:
        if self.shape.quantizer is not None:
            return self.shape.quantizer
        if self.metric.name not in CODED:
            return Plain()
        return usual_quantizer(self.metric.name, self.store.raw(np.arange(self.n)), self.shape.recall)

    # -- the tree ----------------------------------------------------------------------------------------------------

    def keys(self) -> Iterator[Key]:
        """Parts that the leaves there are make up, from the smallest."""
        leaves, size, level = len(self.starts) - 1, self.shape.branching, 1
        while size <= leaves:
            yield from ((level, i, False) for i in range(leaves // size))
            if self.shape.overlap:
                yield from ((level, i, True) for i in range((leaves - size // 2) // size))
            size, level = size * self.shape.branching, level + 1

    def interval(self, key: Key) -> tuple[int, int]:
        """Ranks of a part."""
        level, i, shifted = key
        size = self.shape.branching**level
        first = i * size + (size // 2 if shifted else 0)
        return int(self.starts[first]), int(self.starts[first + size])

    def slice(self, start: int, stop: int, hung: Any = None) -> Store:
        """Rows of an interval of ranks as a store of their own, over the same memory."""
        return view(self.metric, self.kind, self.dim, self.vectors, self.id_table, start, stop, hung)

    # -- rows --------------------------------------------------------------------------------------------------------

    def ranks(self, low: Any, high: Any) -> tuple[int, int]:
        """The interval of ranks whose values lie in [low, high]."""
        start = int(np.searchsorted(self.values, low, "left"))
        return start, max(start, int(np.searchsorted(self.values, high, "right")))

    def count(self, start: int, stop: int) -> int:
        """Rows of an interval that were not removed."""
        return stop - start - (0 if self._before is None else int(self._before[stop] - self._before[start]))

    @property
    def n_live(self) -> int:
        """Rows that were not removed."""
        return self.count(0, self.n)

    @property
    def code_bytes(self) -> int:
        """Bytes that a walk reads of one row."""
        return int(self.vectors.stride if self.travel.codes is None else self.travel.codes.stride)

    def without(self, rows: NDArray[np.integer[Any]]) -> "Run":
        """This run without some rows, which searches pass over."""
        alive = np.ones(self.n, bool) if self.alive is None else self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive)

    @property
    def n_bytes(self) -> int:
        """Bytes of all tables."""
        codes = 0 if self.travel.codes is None else int(self.travel.codes.n_bytes)
        shared = sum(int(table.n_bytes) for table in (self.vectors, self.id_table, self.value_table))
        flags = 0 if self.alive is None else 9 * self.n
        return shared + codes + flags + sum(part.own_bytes for part in self.parts.values())
