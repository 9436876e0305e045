"""HNSW: a hierarchy of graphs, each with a share of the nodes of the one below; the field's common baseline."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nearly import arrays
from nearly.indexes import names
from nearly.indexes.base import Progress
from nearly.indexes.graph import GraphIndex, Rules
from nearly.indexes.store import NONE, grow_or_copy, new_table
from nearly.indexes.travel import NOBODY
from nearly.quantizers import Quantizer

__all__ = ["HNSW"]


class HNSW(GraphIndex):
    """Hierarchical navigable small world graphs (Malkov & Yashunin, TPAMI 2018).

    Nodes are drawn into upper layers by a hash of seed and node, and inserted in batches that search a frozen graph, so
    the same arguments give the same bytes for any number of threads.

    Parameters
    ----------
    vectors : array-like of shape (n, dim), or a sequence of anything with a callable metric
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    metric : str or callable, default "l2"
        A name in `nearly.metrics.METRICS`, or ``f(item, items) -> distances``, the distances of one item to some.
    M : int, default 16
        Neighbors that a new node starts with; lists hold M in upper layers and 2 M on the ground. 2 to 256.
    ef_construction : int, default 200
        Candidates kept while building; fewer than M make lists that short.
    quantizer, refine, recall, queries, calibrate, order, filter_expansion, seed, threads, progress
        As for `Vamana`.

    Notes
    -----
    With the M and ef_construction of another library, ``effort`` as its ef and ``quantizer=Plain()``, recall is that of
    hnswlib to within some thousandths (benchmarks/README.md). The default walks by codes, which is quicker, and finds a
    little less at small efforts.

    With a function as metric, items may be anything, one is searched for at a time, ``ef_construction`` is 100 by
    default, and ``quantizer=`` and ``threads=`` are not there: Python runs one thread at a time, and codes need
    coordinates. The recall contract, changes, filters and files are those of vectors. The function is not saved:
    ``nearly.load(path, metric=f)``; items are, where they are strings, numbers or equally long arrays of numbers;
    others are given again as ``items=``. See `nearly.indexes.callable.CallableHNSW`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 16), dtype=np.float32)
    >>> index = HNSW(vectors, M=12)
    >>> index.search(vectors[7], k=1).ids.tolist()
    [7]
    """

    kind: ClassVar[str] = "hnsw"
    layered: ClassVar[bool] = True

    def __new__(cls, vectors: Any = None, *args: Any, metric: Any = "l2", **kwargs: Any) -> Any:
        if callable(metric):
            from nearly.indexes.callable import CallableHNSW

            known = names.known_to(CallableHNSW.__init__)
            names.refuse("HNSW() over a function", (name for name in kwargs if name not in known), known)
            return object.__new__(CallableHNSW)
        return super().__new__(cls, vectors, *args, metric=metric, **kwargs)

    def __init__(
        self,
        vectors: Any,
        *,
        ids: Any = None,
        metric: str | Callable[[Any, Sequence[Any]], Any] = "l2",
        M: int = 16,
        ef_construction: int = 200,
        quantizer: Quantizer | None = None,
        refine: str = "memory",
        recall: float = 0.95,
        queries: Any = None,
        calibrate: bool = True,
        order: Any = "random",
        filter_expansion: int = 1,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        m = arrays.check_int(M, "M", low=2, high=256)
        beam = arrays.check_int(ef_construction, "ef_construction", low=1, high=65536)
        self._rules = Rules(beam, m, 1.0, False)
        self._seed = arrays.check_seed(seed)
        self._lists, self._slots = [], []
        self._expansion = self._expanded(filter_expansion, 2 * m)
        self._build(vectors, ids, metric, quantizer=quantizer, recall=recall, queries=queries, calibrate=calibrate,
                    order=order, threads=threads, progress=progress, refine=refine)  # fmt: skip

    def _levels(self, nodes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Level of each node: floor(-ln(u) / ln(M)), u in (0, 1] a hash of seed and node (splitmix64)."""
        with np.errstate(over="ignore"):
            z = (nodes.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            z += np.uint64(self._seed & (2**63 - 1))
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
        u = ((z >> np.uint64(11)).astype(np.float64) + 1) / 2.0**53
        levels: NDArray[np.int64] = np.floor(-np.log(u) / np.log(self._rules.new_degree)).astype(np.int64)
        return levels

    def _lay_out(self, fresh: NDArray[np.uint32]) -> None:
        m, n = self._rules.new_degree, self._n_nodes
        if not self._lists:
            self._lists = [new_table(8 * m, n, 255)]
        else:
            self._lists[0] = grow_or_copy(self._lists[0], n, 255)
        self._lists[0].array()[fresh] = 255
        for i, table in enumerate(self._slots):
            self._slots[i] = grow_or_copy(table, n, 255)
        levels = self._levels(fresh)
        for level in range(1, int(levels.max(initial=0)) + 1):
            if len(self._slots) < level:
                self._slots.append(new_table(4, n, 255))
                self._lists.append(new_table(4 * m, 0))
            members = fresh[levels >= level]
            held = self._slots[level - 1].array().view(np.uint32).reshape(-1)
            missing = members[held[members] == NONE]
            first = self._lists[level].rows
            self._lists[level] = grow_or_copy(self._lists[level], first + len(missing), 255)
            held[missing] = np.arange(first, first + len(missing), dtype=np.uint32)

    def _clear(self, nodes: NDArray[np.uint32]) -> None:
        """Empty the lists of freed nodes; a node keeps its level and its places when it is used again."""
        super()._clear(nodes)
        for table, slots in zip(self._lists[1:], self._slots, strict=True):
            held = slots.array().view(np.uint32).reshape(-1)[nodes]
            table.array()[held[held != NONE]] = 255

    def _order(self, order: Any, n: int) -> NDArray[np.uint32]:
        """The highest node comes first: the descent starts from it, so every layer is met from the beginning."""
        chosen = super()._order(order, n)
        if n:
            top = int(np.argmax(self._levels(chosen)))
            chosen = np.concatenate([chosen[top : top + 1], chosen[:top], chosen[top + 1 :]])
        return chosen

    def _elect(self, fresh: NDArray[np.uint32] = NOBODY) -> None:
        """The descent starts from a node of the highest layer that is in use."""
        linked = self._linked(fresh)
        if len(linked):
            self._graph.entries = [int(linked[np.argmax(self._levels(linked))])]

    def _describe_graph(self) -> str:
        return f"HNSW graph with M={self._rules.new_degree}, ef_construction={self._rules.beam}"
