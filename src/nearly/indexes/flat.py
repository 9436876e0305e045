"""Every vector compared: exact, the yardstick of all others; or every code, and the vectors that may be near."""

from typing import Any, ClassVar, Self

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.errors import FormatError, InputError
from nearly.hits import Hits, SearchContext
from nearly.indexes import calibration
from nearly.indexes.allowed import Allowed
from nearly.indexes.base import REFINE, Index, Placed, Progress
from nearly.indexes.each import is_for_each
from nearly.indexes.progress import reporter
from nearly.indexes.ready import ready_scan
from nearly.indexes.store import NONE, Store
from nearly.indexes.travel import Travel, check_quantizer
from nearly.quantizers import Plain, Quantizer

__all__ = ["Flat"]

_AT_ONCE = 8192  # vectors copied at a time
_FEW = 4096  # neighbors: an answer of more is not made before the arguments are checked


class Flat(Index):
    """Search by comparing with every vector, exactly; or with every code, and with the vectors that may be near.

    Batches go through matrix products, whose estimates only leave out what cannot be among the nearest; the answer is
    that of single queries, bit for bit.

    With a quantizer whose estimates come with bounds, vectors are compared only where the bound does not tell that they
    are beyond the k nearest so far (Gao & Long, SIGMOD 2024, section 4). A neighbor is missed only if its own bound is
    wrong, so the width of bounds follows from the recall that is asked for.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        float32, float16, bfloat16, float64, int8 or uint8; packed bits (uint8) for bit metrics.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    quantizer : RaBitQ, SAQ or Plain, optional
        Codes to scan, for l2, cosine and ip. None, like ``Plain()``, scans the vectors.
    refine : {"memory", "float16", "disk"}, default "memory"
        Where full vectors are: in memory as they came, in memory as float16 (rounded), or in a file from which they are
        read (docs/memory.md).
    recall : float, default 0.95
        With codes: mean share of the true nearest that a search should deliver, unless told otherwise.
    seed : int, default 0
        Of the codes.
    threads : int, optional
        For building; see `nearly.set_threads`.

    Examples
    --------
    >>> index = Flat(np.eye(4, dtype=np.float32))
    >>> hits = index.search(np.array([0.9, 0, 0, 0], np.float32), k=2)
    >>> hits.ids.tolist(), [round(d, 3) for d in hits.distances.tolist()]
    ([0, 1], [0.1, 1.345])

    >>> from nearly import RaBitQ
    >>> vectors = np.random.default_rng(0).standard_normal((3000, 64), dtype=np.float32)
    >>> hits = Flat(vectors, quantizer=RaBitQ(bits=4)).search(vectors[:5], k=3)
    >>> hits.ids[:, 0].tolist(), hits.stats.n_reranked < 5 * 300
    ([0, 1, 2, 3, 4], True)
    """

    kind: ClassVar[str] = "flat"

    _travel: Travel | None = None  # None: the vectors themselves are scanned
    _recall: float = 1.0
    # The store whose nodes are coded, the scorer of the codes, and how many: what readers may use together.
    _coded: tuple[Store, Any, int] | None = None

    def __init__(
        self, vectors: Any, *, ids: Any = None, metric: Any = "l2", quantizer: Quantizer | None = None,
        refine: str = "memory", recall: float = 0.95, seed: int = 0, threads: int | None = None,
    ) -> None:  # fmt: skip
        self._refine = arrays.check_choice(refine, REFINE, "refine")
        workers = self._threads(threads)
        target, seed = arrays.check_fraction(recall, "recall"), arrays.check_seed(seed)
        made, given = self._start(vectors, ids, metric)
        if quantizer is not None:
            check_quantizer(quantizer, self._store.metric.name)
        coded = quantizer is not None and not isinstance(quantizer, Plain)
        if coded and not getattr(quantizer, "bounded", False):
            raise InputError(f"Flat scans codes whose estimates have bounds, and {type(quantizer).__name__} has none; "
                             "use nearly.RaBitQ, nearly.SAQ, or a graph such as nearly.Vamana")  # fmt: skip
        if coded and quantizer is not None:
            self._recall, self._travel = target, Travel(quantizer, self._store, seed)
        placed = self._place(made, given)
        self._link(placed, workers)
        self._show(placed)

    def _describe(self) -> str:
        if self._travel is None:
            where = " on disk" if self._store.kept == "disk" else ""
            return f"exact scan of {len(self)} vectors stored as {self._store.kind}{where}"
        return f"{self._by()}, recall {self._recall:g}"

    def _by(self) -> str:
        assert self._travel is not None
        return (f"scan of {len(self)} vectors by {self._travel.name(self._store)}, ranked by {self._store.noun} "
                "within their bounds")  # fmt: skip

    # -- searching ---------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        recall: float | None = None,
        effort: int | None = None,
        exact: bool | None = None,
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
        recall : float, optional
            With codes: mean share of the true k nearest that the answer should hold, at least; 1 is exact. Without
            codes every answer is.
        effort : int, optional
            Checked as by a graph, for `nearly.build` may choose either: an exact answer meets any. Not with codes.
        exact : bool, optional
            Compare with every vector, which is what happens without codes in any case.
        where : array-like of bool or int, or a list of such, optional
            A mask with one entry per id 0..max (not where ids were given), or the ids that may be returned. A list, or
            a boolean matrix, holds a filter for each query; None in it filters nothing.
        threads : int, optional

        Returns
        -------
        Hits
            ``plan`` says how they were found; ``expected_recall`` is 1, or what bounds are as wide as.
        """
        # Overhead matters for one contiguous float32 row: straight to the core, which sees whether it is one.
        if (
            where is None
            and recall is None
            and effort is None
            and (exact is None or exact is True or exact is False)
            and not unknown
            and type(queries) is ndarray
            and type(k) is int
            and 0 < k <= _FEW
            and (threads is None or (type(threads) is int and 0 < threads <= 1024))
            and self._travel is None
        ):
            n_nodes, store = self._snapshot()
            scorer, number = store.scorer, store.metric.number
            bits = store.kind == "bits"
            answer = None if bits else _core.scan_one(scorer, store.rows, n_nodes, queries, k, number, self._n_live)
            if answer is not None:
                return Hits(answer, None, True, self._context(), answer)
        elif (
            recall is None
            and effort is None
            and (exact is None or exact is True or exact is False)
            and not unknown
            and type(queries) is ndarray
            and queries.ndim in (1, 2)
            and type(k) is int
            and 0 < k <= _FEW
            and self._travel is None
        ):
            found = self._quickly(queries, k, where, threads)
            if found is not None:
                return found
        self._refuse(unknown)
        if where is not None and is_for_each(where):
            return self._for_each(queries, where, k, recall=recall, effort=effort, exact=exact, threads=threads)
        if exact is not None:
            arrays.check_flag(exact, "exact")
        if recall is not None and effort is not None:
            raise InputError("recall= and effort= exclude each other; pass one")
        target = self._recall if recall is None else arrays.check_fraction(recall, "recall")
        if effort is not None:
            arrays.check_int(effort, "effort", low=1, high=1 << 20)
            if self._travel is not None and not exact:
                raise InputError("Flat by codes has no effort: pass recall=, or exact=True")
        rows, single = self._queries(queries)
        k, workers = self._columns(k), self._threads(threads)
        if exact or target >= 1.0 or self._travel is None:
            plan = self.plan if self._travel is None else f"exact scan of {len(self)} vectors, as asked"
            return self._exactly(rows, k, single, where, workers, plan)
        if where is None:
            return self._by_codes(rows, k, single, None, workers, target)
        return self._steadily(  # type: ignore[no-any-return]
            lambda: self._by_codes(rows, k, single, self._filter(where), workers, target)
        )

    def _quickly(self, queries: NDArray[Any], k: int, where: Any, threads: Any) -> Hits | None:
        """The short way for a filter that was made before and passes few; None where the long one is needed."""
        if not (threads is None or (type(threads) is int and 0 < threads <= 1024)):
            return None
        before, allowed = self._reuse, self._remembered(where)
        one = queries.ndim == 1
        if allowed is None or before % 2 or allowed.n * 4 >= self._n_nodes or (not one and k > allowed.n):
            return None
        asked = ready_scan(self, allowed, k, self._context())
        if asked is None:
            return None
        found = asked.ask(self, allowed, queries) if one else asked.ask_many(self, allowed, queries, threads or 0)
        return found if before == self._reuse else None

    def _exactly(self, rows: NDArray[np.uint8], k: int, single: bool, where: Any, threads: int, plan: str) -> Hits:
        if where is None:
            return self._scan(rows, k, single, None, threads, plan)
        return self._steadily(  # type: ignore[no-any-return]
            lambda: self._scan(rows, k, single, self._filter(where), threads, plan)
        )

    def _by_codes(
        self, rows: NDArray[np.uint8], k: int, single: bool, chosen: Allowed | None, threads: int, target: float
    ) -> Hits:
        bits, passing = (None, len(self)) if chosen is None else (chosen.bits, chosen.n)
        n = len(rows)
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts, work = np.empty(n, np.uint32), None
        while work is None:  # until the store that was read is not retired meanwhile
            n_nodes, store = self._snapshot()
            coded, fitted = self._coded, None if self._travel is None else self._travel.fitted
            if coded is None or coded[0] is not store or fitted is None or passing * 4 < n_nodes:
                few = f"; {passing} pass" if passing < len(self) else ""
                return self._scan(rows, k, single, chosen, threads, f"exact scan of {len(self)} vectors{few}")
            work = _core.scan_bounded(
                store.scorer, coded[1], _widths(target) / float(fitted.epsilon_of_bounds or 1), store.rows,
                min(n_nodes, coded[2]), store.query_bytes, rows, store.metric.number, ids, distances, counts, bits,
                threads,
            )  # fmt: skip
        short = np.flatnonzero(counts < min(k, passing))
        if len(short):  # rows that a writer removed between being found and being written
            rest = self._scan(rows[short], k, False, chosen, threads, "")
            ids[short], distances[short] = rest._ids, rest._distances
        context = SearchContext(self._store.metric, f"{self._by()} for recall {target:g}", target)
        return Hits(ids, distances, single, context, (work[0], 0, work[1]))

    def calibrate(self, queries: Any = None, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Check the arguments as a graph does, and do nothing: exact answers need no calibration.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim), optional
        threads : int, optional
        progress : callable, optional
            Called once: all is done.
        """
        arrays.check_callback(progress, "progress")
        self._threads(threads)
        if queries is not None:
            calibration.from_queries(self._queries(queries)[0], "")
        if (report := reporter(progress, 1, "trials")) is not None:
            report(1)

    _made: tuple[int, SearchContext] | None = None  # what answers share, and the change that it was made after

    def _context(self) -> SearchContext:
        made, change = self._made, self._change
        if made is None or made[0] != change:
            made = self._made = change, SearchContext(self._store.metric, self.plan, 1.0)
        return made[1]

    # -- changing ----------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Let readers use the codes there are, with the store that they are of."""
        assert self._travel is not None
        self._coded = None if self._travel.codes is None else (self._store, self._travel.scorer, self._n_nodes)

    def _replaced(self) -> None:
        if self._travel is not None:
            self._travel.follow(self._store)
            self._coded = (self._store, *self._coded[1:]) if self._coded is not None and self._n_nodes else None

    def _link(self, placed: Placed, threads: int, report: Any = None) -> None:
        """Code what was placed, before it is seen."""
        if self._travel is None or not self._n_nodes:
            return
        if len(placed.fresh) == self._n_nodes:  # nothing was there to fit codes to
            self._travel.fit(self._store, self._n_nodes, threads)
        else:
            self._travel.code(self._store, self._n_nodes, placed.fresh, threads)
        self._publish()

    def _tidy(self) -> None:
        """Copy what is left once half of the rows are gone; readers keep the old tables until they are done."""
        if self._n_removed * 2 > self._n_rows:
            self._compact()
        # After a compaction codes are of another store: readers see that, and scan the vectors until here.
        travel, coded = self._travel, self._coded
        if travel is not None and travel.codes is not None and coded is not None and coded[0] is not self._store:
            travel.recode(self._store, self._n_nodes, 0)
            self._publish()

    def _compact(self) -> None:
        store, n = self._store, self._n_rows
        nodes = store.column("nodes")[:n]
        rows = np.flatnonzero(nodes != NONE)
        smaller = object.__new__(Flat)
        smaller._store = type(store).empty(store.metric, store.kind, store.dim, len(rows), store.widest)
        smaller._n_rows = smaller._n_nodes = smaller._next_id = smaller._n_live = smaller._n_removed = 0
        smaller._change = smaller._reuse = 0
        smaller._spare_rows, smaller._spare_nodes, smaller._pending, smaller._distinct = [], [], [], None
        ids = store.column("ids")[rows].copy()
        for first in range(0, len(rows), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            smaller._show(smaller._place(store.raw(nodes[rows[some]]), ids[some]))
        self.__dict__.update(  # in one go
            _store=smaller._store, _n_rows=smaller._n_rows, _n_nodes=smaller._n_nodes, _n_removed=0, _pending=[],
            _distinct=smaller._distinct, _change=self._change + 1, _reuse=self._reuse + 2,
        )  # fmt: skip

    # -- files -------------------------------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds."""
        codes = None if self._travel is None else self._travel.codes
        return super().n_bytes + (0 if codes is None else int(codes.n_bytes))

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        if self._travel is None:
            return {}, {}
        codes, quantizer = self._travel.state(self._n_nodes)
        return codes, {**quantizer, "flat": {"recall": float(self._recall)}}

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        self = super()._restore(file)
        if "quantizer" in file.config:
            self._recall = storage.config_float(file, ("flat", "recall"), 0.0, 1.0)
            self._travel = Travel.restore(file, self._store, self._n_nodes, 0)
            fitted = self._travel.fitted
            bounded = getattr(self._travel.quantizer, "bounded", isinstance(self._travel.quantizer, Plain))
            if fitted is None or not bounded or not 0 < (fitted.epsilon_of_bounds or 0) < np.inf:
                raise FormatError(f"{file.path} is damaged: its codes have no bounds")
            self._publish()
        return self


def _widths(target: float) -> float:
    """Standard deviations by which bounds must be wide so that a share of all true values is above the lower ones."""
    from statistics import NormalDist

    return max(0.0, NormalDist().inv_cdf(target)) if target < 1.0 else np.inf
