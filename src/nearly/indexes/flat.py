"""Every vector compared: exact, and the yardstick of all others."""

from typing import Any, ClassVar

import numpy as np
from numpy import ndarray

from nearly import _core, arrays
from nearly.errors import InputError
from nearly.hits import Hits, SearchContext
from nearly.indexes import calibration
from nearly.indexes.base import Index
from nearly.indexes.store import NONE

__all__ = ["Flat"]

_FEW = 4096  # neighbors: an answer of more is not made before the arguments are checked


class Flat(Index):
    """Exact search by comparing with every vector.

    Batches go through matrix products, whose estimates only leave out what cannot be among the nearest; the answer is
    that of single queries, bit for bit.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        float32, float16, bfloat16, float64, int8 or uint8; packed bits (uint8) for bit metrics.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    threads : int, optional
        For building; see `nearly.set_threads`.

    Examples
    --------
    >>> index = Flat(np.eye(4, dtype=np.float32))
    >>> hits = index.search(np.array([0.9, 0, 0, 0], np.float32), k=2)
    >>> hits.ids.tolist(), [round(d, 3) for d in hits.distances.tolist()]
    ([0, 1], [0.1, 1.345])
    """

    kind: ClassVar[str] = "flat"

    def __init__(self, vectors: Any, *, ids: Any = None, metric: Any = "l2", threads: int | None = None) -> None:
        self._threads(threads)
        made, given = self._start(vectors, ids, metric)
        self._show(self._place(made, given))

    def _describe(self) -> str:
        return f"exact scan of {len(self)} vectors stored as {self._store.kind}"

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        recall: float | None = None,
        effort: int | None = None,
        exact: bool = True,
        where: Any = None,
        threads: int | None = None,
        **unknown: Any,
    ) -> Hits:
        """Return the k nearest vectors.

        Parameters
        ----------
        queries : array-like of shape (dim,) or (n_queries, dim)
        k : int, default 10
            Neighbors wanted; fewer are returned where fewer pass.
        recall, effort, exact : optional
            Checked as by a graph, for `nearly.build` may choose either; an exact answer meets all of them.
        where : array-like of bool or int, optional
            A mask with one entry per id 0..max (not where ids were given), or the ids that may be returned.
        threads : int, optional

        Returns
        -------
        Hits
        """
        # Overhead matters for one contiguous float32 row: straight to the core, which sees whether it is one.
        if (
            where is None
            and recall is None
            and effort is None
            and (exact is True or exact is False)
            and not unknown
            and type(queries) is ndarray
            and type(k) is int
            and 0 < k <= _FEW
            and (threads is None or (type(threads) is int and 0 < threads <= 1024))
        ):
            n_nodes, store = self._snapshot()
            scorer, number = store.scorer, store.metric.number
            bits = store.kind == "bits"
            answer = None if bits else _core.scan_one(scorer, store.rows, n_nodes, queries, k, number, self._n_live)
            if answer is not None:
                return Hits(answer, None, True, self._context(), answer)
        arrays.check_flag(exact, "exact")
        self._refuse(unknown)
        if recall is not None and effort is not None:
            raise InputError("recall= and effort= exclude each other; pass one")
        if recall is not None:
            arrays.check_fraction(recall, "recall")
        if effort is not None:
            arrays.check_int(effort, "effort", low=1, high=1 << 20)
        rows, single = self._queries(queries)
        k, workers = arrays.check_k(k), self._threads(threads)
        if where is None:
            return self._scan(rows, k, single, None, workers, self.plan)
        return self._steadily(lambda: self._scan(rows, k, single, where, workers, self.plan))  # type: ignore[no-any-return]

    def calibrate(self, queries: Any = None, *, threads: int | None = None) -> None:
        """Check the arguments as a graph does, and do nothing: exact answers need no calibration.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim), optional
        threads : int, optional
        """
        self._threads(threads)
        if queries is not None:
            calibration.from_queries(self._queries(queries)[0], "")

    _made: tuple[int, SearchContext] | None = None  # what answers share, and the change that it was made after

    def _context(self) -> SearchContext:
        made, change = self._made, self._change
        if made is None or made[0] != change:
            made = self._made = change, SearchContext(self._store.metric, self.plan, 1.0)
        return made[1]

    def _tidy(self) -> None:
        """Copy what is left once half of the rows are gone; readers keep the old tables until they are done."""
        if self._n_removed * 2 > self._n_rows:
            self._compact()

    def _compact(self) -> None:
        store, n = self._store, self._n_rows
        nodes = store.column("nodes")[:n]
        rows = np.flatnonzero(nodes != NONE)
        smaller = object.__new__(Flat)
        smaller._store = type(store).empty(store.metric, store.kind, store.dim, len(rows))
        smaller._n_rows = smaller._n_nodes = smaller._next_id = smaller._n_live = smaller._n_removed = 0
        smaller._change = smaller._reuse = 0
        smaller._spare_rows, smaller._spare_nodes, smaller._pending, smaller._distinct = [], [], [], None
        smaller._show(smaller._place(store.raw(nodes[rows]), store.column("ids")[rows].copy()))
        self.__dict__.update(  # in one go
            _store=smaller._store, _n_rows=smaller._n_rows, _n_nodes=smaller._n_nodes, _n_removed=0, _pending=[],
            _distinct=smaller._distinct, _change=self._change + 1, _reuse=self._reuse + 2,
        )  # fmt: skip
