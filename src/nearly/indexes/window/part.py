"""A graph over neighbors in the order of values, on tables that it shares with all others of its run."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.indexes import calibration
from nearly.indexes.contract import Contract, Effort
from nearly.indexes.store import ELEMENTS, NONE, Store
from nearly.indexes.travel import Travel
from nearly.indexes.vamana import Vamana
from nearly.indexes.writing import Writing
from nearly.metrics import Metric

if TYPE_CHECKING:
    from nearly.indexes.window.run import Run

__all__ = ["Part", "chains", "plain", "view"]

_alone = np.zeros((2, 0), np.uint32)  # the chains of rows that are all alone on their nodes; grows by doubling


def _chains_of_one(n: int) -> NDArray[np.uint32]:
    global _alone
    held = _alone
    if held.shape[1] < n:
        size = max(4096, 2 * n)
        held = _alone = np.stack([np.arange(size, dtype=np.uint32), np.full(size, NONE, np.uint32)])
    return held


def view(metric: Metric, kind: str, dim: int, vectors: Any, ids: Any, start: int, stop: int, hung: Any = None) -> Store:
    """Neighbors in the order of values as a store of their own, over the same memory.

    ``hung`` holds the chains of rows with equal vectors, from `chains`; None: each row is a node.
    """
    n = stop - start
    if hung is None:
        alone = _chains_of_one(n)
        first = last = nodes = alone[0, :n]
        following = alone[1, :n]
    else:
        following, first, last, nodes = hung
    borrow = _core.Table.borrow
    table = borrow(vectors.array()[start:stop])
    octets = [borrow(column.view(np.uint8).reshape(n, 4)) for column in (following, first, last, nodes)]
    return Store(metric, kind, dim, table, plain(table, metric, kind, dim), borrow(ids.array()[start:stop]), *octets)


def plain(table: Any, metric: Metric, kind: str, dim: int) -> Any:
    """The core's exact scorer over a table of vectors."""
    return _core.Plain(table, ELEMENTS.index("uint8" if kind == "bits" else kind), metric.number, dim)


def chains(store: Store, ids: NDArray[np.int64]) -> NDArray[np.uint32] | None:
    """Hang rows with equal vectors on the first of them, in order of id: next, first, last and node, each of length n.

    None where all vectors differ.
    """
    n = len(ids)
    octets = store.raw(np.arange(n)).array
    keys = octets.view(np.dtype((np.void, octets.shape[1] * octets.itemsize))).reshape(-1)
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    if len(firsts) == n:
        return None
    nodes = firsts[inverse].astype(np.uint32)
    order = np.lexsort((ids, nodes)).astype(np.uint32)
    ends = np.append(nodes[order][1:] != nodes[order][:-1], True)
    begins = np.append(True, ends[:-1])
    made = np.full((4, n), NONE, np.uint32)
    made[0, order[:-1][~ends[:-1]]] = order[1:][~ends[:-1]]
    made[1, nodes[order[begins]]] = order[begins]
    made[2, nodes[order[ends]]] = order[ends]
    made[3] = nodes
    return made


class Part(Vamana):
    """The graph of one node of a window search tree. It is built once; its run decides what becomes of it.

    Attributes
    ----------
    start, stop : int
        Ranks of its rows in the run.
    """

    kind: ClassVar[str] = "part"
    start: int
    stop: int
    _hung: NDArray[np.uint32] | None
    _known: dict[tuple[int, float | None], Effort]

    @classmethod
    def over(cls, run: "Run", start: int, stop: int, hung: NDArray[np.uint32] | None = None) -> Self:
        """A part without its graph; ``hung`` is known of one that is read from a file."""
        self = object.__new__(cls)
        n = stop - start
        self.start, self.stop = start, stop
        shape = run.shape
        self._rules, self._seed = shape.rules, shape.seed
        self._n_rows = self._n_nodes = self._n_live = n
        self._n_removed = self._change = self._reuse = self._next_id = 0
        self._pending, self._spare_rows, self._spare_nodes = [], [], []
        self._own_ids, self._ids, self._distinct = True, None, None
        self._writing = Writing()
        self._contract = Contract(shape.recall, True)
        self._lists, self._slots, self._known = [], [], {}
        self._hung = hung
        self._share(run)
        return self

    def _share(self, run: "Run") -> None:
        """Look at the tables of a run, and travel by its codes."""
        travel = run.travel
        self._store = run.slice(self.start, self.stop, self._hung)
        self._travel = Travel(travel.quantizer, self._store, self._seed)
        if travel.codes is not None and travel.fitted is not None:
            codes = _core.Table.borrow(travel.codes.array()[self.start : self.stop])
            self._travel.fitted, self._travel.codes = travel.fitted, codes
            self._travel.scorer = travel.fitted.scorer(codes)

    def build(self, probes: NDArray[np.uint8] | None, threads: int, report: Any) -> None:
        """Link its nodes and measure what it can promise."""
        self._hung = chains(self._store, self._store.column("ids"))
        old = self._store
        self._store = view(old.metric, old.kind, old.dim, old.vectors, old.ids, 0, len(self), self._hung)
        self._travel.follow(self._store)
        nodes = np.flatnonzero(self._store.column("first_rows") != NONE)
        chosen = np.random.default_rng((self._seed, self.start, self.stop)).permutation(nodes).astype(np.uint32)
        self._lay_out(chosen)
        self._assemble(0)
        held = 0 if probes is not None or len(chosen) < calibration.LEAST else calibration.held_out(len(chosen))
        self._weave(chosen, held, probes, threads, report)

    def moved(self, run: "Run") -> Self:
        """The same graph over the tables of a run that replaced those it was built on."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._share(run)
        other._graph = None
        other._assemble(self._graph.n_nodes, self._graph.entries)
        return other

    def effort(self, k: int, recall: float | None) -> Effort:
        """What a target means for k neighbors; remembered."""
        known = self._known.get((k, recall))
        if known is None:
            how = self._contract.effort(self, k, recall, None)
            known = self._known[k, recall] = how
        return known

    def calibrated(self, probes: NDArray[np.uint8] | None, threads: int) -> None:
        """Measure what it can promise anew."""
        self._contract, self._known = Contract(self._contract.target, True), {}
        if probes is not None:
            made = calibration.from_queries(probes, "the queries passed to calibrate")
        else:
            made = calibration.from_stored(self)
        self._contract.measure(self, made, threads=threads)

    @property
    def own_bytes(self) -> int:
        """Bytes beyond what it shares: its lists, and the chains of equal vectors."""
        return sum(int(t.n_bytes) for t in self._lists) + (0 if self._hung is None else self._hung.nbytes)
