"""What graph indexes share: codes to travel by, building, the recall contract, changes, files."""

import math
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.arrays import Vectors
from nearly.errors import FormatError, InputError, StateError
from nearly.hits import Hits, SearchContext
from nearly.indexes import calibration
from nearly.indexes.base import Index, Progress
from nearly.indexes.store import NONE, as_bytes, grow_or_copy, new_table
from nearly.quantizers import FittedCodes, Plain, Quantizer, Reduced, Scalar
from nearly.quantizers.codes import SAMPLE
from nearly.tuning import RecallCurve
from nearly.tuning.curve import PROBE

__all__ = ["GraphIndex", "Rules"]

_ENTRIES = 16  # nodes scored in one block before the first hop; levers table of benchmarks/README.md
_DEAD = 0.2  # share of dead nodes at which lists are repaired: FreshDiskANN consolidates at 5 to 20 %
_SCAN_FACTOR = 16.0  # a hop costs about as much as comparing with this many vectors in a row
_EVEN = 1.5  # largest norm by median norm up to which inner product behaves like l2
_HIGH = 0.97  # targets beyond which a finer code saves more re-ranking than it costs
_DRIFT = 0.05  # containment that codes may lose on new vectors before they are fitted anew
_DEPTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


class Rules(NamedTuple):
    """How a graph is built: what `BuildRules` of the core takes."""

    beam: int
    new_degree: int
    alpha: float
    fill: bool


class _Effort(NamedTuple):
    width: int
    depth: int
    bounds: NDArray[np.float32] | None
    widths: NDArray[np.uint32] | None
    context: SearchContext
    scan: bool
    core: Any = None  # the same for `search_one`


class GraphIndex(Index):
    """Vectors joined to near ones; a search walks towards its query. Not made itself: see `Vamana` and `HNSW`."""

    _lists: list[Any]  # tables of neighbor lists, ground first
    _slots: list[Any]  # for each upper layer: where a node's list is
    _codes: Any  # table of codes, or None: travel by the vectors themselves
    _fitted: FittedCodes | None
    _travel: Any
    _graph: Any = None
    _parts: list[Any]  # what the graph was assembled of
    _rules: Rules
    _seed: int
    _quantizer: Quantizer
    _curve: RecallCurve | None = None
    _curve_size: int = 0  # vectors when the curve was measured
    _changed: int = 0  # vectors added or removed since
    _depth_factor: float = 3.0
    _recall: float = 0.95
    _unlinked: int = 0  # nodes added since reachability was last checked

    layered: ClassVar[bool] = False

    # -- building ----------------------------------------------------------------------------------------------------

    def _build(
        self, vectors: Any, ids: Any, metric: Any, *, quantizer: Quantizer | None, recall: float, queries: Any,
        calibrate: bool, order: Any, threads: int | None, progress: Progress | None,
    ) -> None:  # fmt: skip
        self._recall = arrays.check_fraction(recall, "recall")
        workers = self._threads(threads)
        made, given = self._start(vectors, ids, metric)
        probes = None if queries is None else self._check_queries(queries, made)
        self._quantizer = self._choose_quantizer(quantizer, made)
        _, fresh = self._place(made, given)
        del made
        self._fit_codes(workers)
        self._lay_out(0, fresh)
        self._assemble(0)
        chosen = self._order(order, len(fresh))
        held = 0
        if calibrate and probes is None and len(fresh) >= calibration.LEAST:
            held = calibration.held_out(len(fresh))
        if held and not (isinstance(order, str) and order == "random"):  # the last of another order are no sample
            late = np.zeros(len(chosen), bool)
            late[1 + np.random.default_rng(self._seed).permutation(len(chosen) - 1)[:held]] = True
            chosen = np.concatenate([chosen[~late], chosen[late]])
        first, last = chosen[: len(chosen) - held], chosen[len(chosen) - held :]
        report = _reporter(progress, len(chosen))
        self._insert(first, workers, report)
        self._elect()
        if held:
            self._measure(calibration.synthetic(self, last, workers), "points held out of the build and harder ones",
                          self._rows_of(first), workers)  # fmt: skip
            self._insert(last, workers, None if report is None else lambda done: report(len(first) + done))
            self._elect()
        self._graph.connect(self._rules.beam)
        if calibrate and probes is not None and self._n_nodes:
            self._measure(probes, "the queries passed when it was built", None, workers)

    def _check_queries(self, queries: Any, vectors: Vectors) -> NDArray[np.uint8]:
        bits = self._store.metric.input == "bits"
        made, _ = arrays.as_queries(queries, bits=bits, dim=vectors.dim if len(vectors) else None)
        arrays.check_finite(made, "queries")
        return as_bytes(made.array if bits else made.as_float32())

    def _choose_quantizer(self, quantizer: Quantizer | None, vectors: Vectors) -> Quantizer:
        if self._store.metric.name not in ("l2", "cosine", "ip"):
            if quantizer is not None and not isinstance(quantizer, Plain):
                raise InputError(f"{type(quantizer).__name__} is for l2, cosine and ip, not {self._store.metric.name}; "
                                 "leave quantizer= out")  # fmt: skip
            return Plain()
        if quantizer is None:
            # One cache line of codes where the vector allows it, principal components above that.
            if self._store.metric.name == "ip" and _norm_spread(vectors) > _EVEN:
                return Plain()  # long vectors win: they are no near ones in any l2 form that codes could take
            if vectors.dim + 5 <= 64:
                return Scalar(bits=8)
            return Reduced(energy=0.9 if self._recall <= _HIGH else 0.93)
        if not hasattr(quantizer, "fit_floats"):
            raise InputError(
                f"quantizer is {quantizer!r}; pass nearly.Plain(), nearly.Scalar(...) or nearly.Reduced(...)"
            )
        return quantizer

    def _fit_codes(self, threads: int) -> None:
        store, n = self._store, self._n_nodes
        self._fitted = self._codes = None
        if n:
            chosen = np.sort(np.random.default_rng(self._seed).permutation(n)[:SAMPLE]).astype(np.uint32)
            bound = 0.0
            if store.metric.name == "ip":
                for first in range(0, n, 65536):
                    rows = store.in_form(np.arange(first, min(n, first + 65536), dtype=np.uint32), threads)
                    bound = max(bound, float((rows.astype(np.float64) ** 2).sum(1).max()))
            if store.metric.name in ("l2", "cosine", "ip"):
                self._fitted = self._quantizer.fit_floats(
                    store.in_form(chosen, threads),
                    metric=store.metric.name,
                    norm_bound=math.sqrt(bound),
                    seed=self._seed,
                )
        if self._fitted is not None:
            self._codes = new_table(self._fitted.row_bytes, n)
            self._travel = self._fitted.scorer(self._codes)
            self._travel.fill(store.scorer, 0, n, threads)
        else:
            self._travel = store.scorer

    def _lay_out(self, n_old: int, fresh: NDArray[np.uint32]) -> None:
        """Give new nodes empty lists."""
        raise AssertionError  # pragma: no cover

    def _assemble(self, n_linked: int, entries: list[int] | None = None) -> None:
        """A core graph over the tables as they are: a new one where any was replaced, and readers move on to it."""
        store, old = self._store, self._graph
        parts = [*self._lists, *self._slots, self._travel, store.scorer, store.rows]
        if old is not None and list(map(id, parts)) == list(map(id, self._parts)):
            return
        if entries is None:
            entries = [e for e in old.entries if e < n_linked] if n_linked else []
        self._graph = _core.Graph(self._lists, self._slots, entries, self._travel, store.scorer, store.rows, n_linked)
        self._parts = parts
        if old is not None:
            old.retire()

    def _replaced(self) -> None:
        if self._graph is None:
            return
        if self._codes is None:
            self._travel = self._store.scorer
        self._assemble(self._graph.n_nodes)

    def _order(self, order: Any, n: int) -> NDArray[np.uint32]:
        """The order of insertion, as nodes."""
        if isinstance(order, str):
            arrays.check_choice(order, ("random", "given", "lid_descending", "lid_ascending"), "order")
            if order == "given":
                return np.arange(n, dtype=np.uint32)
            if order.startswith("lid"):
                return calibration.lid_order(self, n, descending=order.endswith("descending"), seed=self._seed)
            return np.random.default_rng(self._seed).permutation(n).astype(np.uint32)
        rows = arrays.as_ids(order, n=n, name="order")
        if n and int(rows.max()) >= n:
            raise InputError(f"order must hold each of 0..{n - 1} once")
        return rows.astype(np.uint32)

    def _insert(self, nodes: NDArray[np.uint32], threads: int, report: Any) -> None:
        rules = self._rules
        self._graph.insert(
            nodes, self._n_nodes, rules.beam, rules.new_degree, rules.alpha, fill=rules.fill, threads=threads,
            progress=report,
        )  # fmt: skip

    def _elect(self) -> None:
        """Choose the nodes that searches start from."""
        firsts = self._store.column("first_rows")[: self._graph.n_nodes]
        alive = np.flatnonzero(firsts != NONE)
        if len(alive):
            drawn = np.random.default_rng(self._seed).permutation(len(alive))[:_ENTRIES]
            self._graph.entries = [int(alive[i]) for i in np.sort(drawn)]

    # -- the recall contract -----------------------------------------------------------------------------------------

    @property
    def curve(self) -> RecallCurve | None:
        """What calibration measured, or None."""
        return self._curve

    def calibrate(self, queries: Any = None, *, threads: int | None = None) -> None:
        """Measure recall anew, on queries like those to come.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim), optional
            A few hundred at least; not vectors of the index themselves. None makes some from stored vectors.
        threads : int, optional
        """
        workers = self._threads(threads)
        with self._writing:
            if not self._n_nodes:
                raise StateError("an empty index cannot be calibrated; add vectors first")
            if queries is None:
                picked = self._alive_sample(1000)
                self._measure(calibration.synthetic(self, picked, workers), "noisy copies of stored points", None,
                              workers,
                              drop=len(picked))  # fmt: skip
            else:
                rows, _ = self._queries(queries)
                self._measure(rows, "the queries passed to calibrate", None, workers)

    def _alive_sample(self, n: int) -> NDArray[np.uint32]:
        alive = np.flatnonzero(self._store.column("first_rows")[: self._n_nodes] != NONE)
        return np.random.default_rng(self._seed).permutation(alive)[:n].astype(np.uint32)

    def _rows_of(self, nodes: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """A filter that passes the rows of these nodes."""
        chosen = np.zeros(self._n_nodes + 1, bool)
        chosen[nodes] = True
        of_row = self._store.column("nodes")[: self._n_rows]
        passes = chosen[np.minimum(of_row, self._n_nodes)]
        padded = np.zeros((self._n_rows + 63) // 64 * 64, bool)
        padded[: self._n_rows] = passes
        return np.packbits(padded, bitorder="little").view(np.uint64)

    def _measure(
        self, queries: NDArray[np.uint8], source: str, bits: NDArray[np.uint64] | None, threads: int, drop: int = 0
    ) -> None:
        self._curve, self._depth_factor = calibration.measure(self, queries[drop:], source, bits, threads, _DEPTHS)
        self._curve_size, self._changed = len(self), 0
        self._efforts: dict[Any, _Effort] = {}

    def _effort(self, k: int, recall: float | None, effort: int | None) -> _Effort:
        """What a target, or a given effort, means for k neighbors; remembered."""
        key = (k, recall, effort)
        known = self._efforts.get(key)
        if known is None:
            known = self._resolve(k, recall, effort)
            core = _core.Plan(
                self._store.query_bytes // 4, self._store.metric.number, known.width, known.depth, PROBE, known.bounds,
                known.widths,
            )  # fmt: skip
            known = known._replace(core=core)
            self._efforts[key] = known
        return known

    def _depth(self, k: int, factor: float, width: int) -> int:
        """How many candidates the vectors themselves rank: a wide pool holds more than what codes put first."""
        return k if self._codes is None else max(k, math.ceil(k * factor), width // 4)

    def _resolve(self, k: int, recall: float | None, effort: int | None) -> _Effort:
        metric, name = self._store.metric, f"{type(self).__name__} over {self._travel_name}"
        curve = self._curve
        if effort is not None:
            width = max(k, arrays.check_int(effort, "effort", low=1, high=1 << 20))
            expected = None if curve is None else curve.at_width(k, width)
            context = SearchContext(metric, f"{name}, effort {width}", expected)
            return _Effort(width, self._depth(k, self._depth_factor, width), None, None, context, False)
        target = self._recall if recall is None else recall
        if curve is None:
            if self._calibrates or len(self) < calibration.LEAST:  # many rows may be few distinct vectors
                plan = f"exact scan: {self._n_nodes} distinct vectors are too few to calibrate a graph on"
                return _Effort(1, k, None, None, SearchContext(metric, plan, 1.0), True)
            raise StateError("this index was built with calibrate=False, so a recall target has no meaning; "
                             "pass effort=, or call calibrate()")  # fmt: skip
        chosen = curve.choose(k, target)
        stale = f"; {self._changed} changes since" if self._changed * 5 > self._curve_size else ""
        basis = f"calibrated on {curve.n_queries} queries ({curve.source}){stale}"
        if not chosen.met:
            plan = f"exact scan: recall {target:g} is beyond the graph, which reached {curve.best(k):.3f}, {basis}"
            return _Effort(1, k, None, None, SearchContext(metric, plan, 1.0), True)
        widths = np.maximum(chosen.widths, k).astype(np.uint32)
        depth = self._depth(k, self._depth_factor, int(widths.max()))
        if int(widths.max()) * _SCAN_FACTOR > 4 * max(1, self._n_nodes):
            plan = f"exact scan: cheaper than a graph search of {int(widths.max())} candidates among {len(self)}"
            return _Effort(1, k, None, None, SearchContext(metric, plan, 1.0), True)
        plan = f"{name}, effort {int(widths.min())} to {int(widths.max())} for recall {target:g}, {basis}"
        if len(set(widths.tolist())) == 1:
            return _Effort(int(widths[0]), depth, None, None, SearchContext(metric, plan, chosen.expected), False)
        return _Effort(
            int(widths.max()), depth, curve.bounds, widths, SearchContext(metric, plan, chosen.expected), False
        )

    # -- searching ---------------------------------------------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        recall: float | None = None,
        effort: int | None = None,
        exact: bool = False,
        where: Any = None,
        threads: int | None = None,
        **unknown: Any,
    ) -> Hits:
        """Return the k nearest vectors, at the recall that the index was built for unless told otherwise.

        Parameters
        ----------
        queries : array-like of shape (dim,) or (n_queries, dim)
        k : int, default 10
        recall : float, optional
            Mean share of the true k nearest that the answer should hold. Unreachable targets are answered exactly.
        effort : int, optional
            Candidates kept while walking (ef in HNSW, L in DiskANN), instead of a target.
        exact : bool, default False
            Compare with every vector.
        where : array-like of bool or int, optional
            A mask with one entry per id 0..max (not where ids were given), or the ids that may be returned.
        threads : int, optional

        Returns
        -------
        Hits
            ``plan`` names the effort and what it was calibrated on; ``expected_recall`` is the estimate.
        """
        if unknown:
            self._refuse(unknown)
        # One contiguous float32 row is the case that overhead matters for: straight to the core.
        if (
            where is None
            and not exact
            and arrays.is_row(queries, self._store.dim)
            and (threads is None or (type(threads) is int and 0 < threads <= 1024))
        ):
            how = self._efforts.get((k, recall, effort))
            if how is not None and not how.scan and not self._n_removed:
                ids, distances = np.empty(k, np.int64), np.empty(k, np.float32)
                work = self._graph.search_one(how.core, queries, ids, distances)
                if work is not None and (ids[-1] >= 0 or len(self) < k):
                    return Hits(ids, distances, True, how.context, work)
        if where is None:
            return self._search(queries, k, recall, effort, exact, None, threads)
        return self._steadily(  # type: ignore[no-any-return]
            lambda: self._search(queries, k, recall, effort, exact, where, threads)
        )

    def _search(
        self, queries: Any, k: int, recall: Any, effort: Any, exact: bool, where: Any, threads: int | None
    ) -> Hits:
        workers, k = self._threads(threads), arrays.check_k(k)
        if recall is not None and effort is not None:
            raise InputError("recall= and effort= exclude each other; pass one")
        if recall is not None:
            recall = arrays.check_fraction(recall, "recall")
        rows, single = self._queries(queries)
        chosen = None if where is None else self._filter(where)
        if exact:
            return self._scan(rows, k, single, chosen, workers, f"exact scan of {len(self)} vectors, as asked")
        how = self._effort(k, recall, effort)
        passing = len(self) if chosen is None else chosen[1]
        if passing == len(self):
            chosen = None  # all pass: the very search without a filter
        if how.scan:
            return self._scan(rows, k, single, chosen, workers, how.context.plan)
        if chosen is not None and passing**2 <= _SCAN_FACTOR * how.width * max(1, self._n_nodes):
            plan = f"exact scan of the {passing} vectors that pass, of {len(self)}"
            return self._scan(rows, k, single, chosen, workers, plan)
        return self._walk(rows, min(k, 1 << 20), single, how, chosen, passing, workers)

    def _walk(
        self, rows: NDArray[np.uint8], k: int, single: bool, how: _Effort, chosen: Any, passing: int, threads: int
    ) -> Hits:
        """Search the graph; queries that come back short although more pass are scanned."""
        # Candidates that are dead or do not pass take places in the pool: it grows by their share.
        stretch = self._n_rows / max(1, passing) if (chosen is not None or self._n_removed) else 1.0
        width = math.ceil(how.width * stretch)
        widths = None if how.widths is None else np.ceil(how.widths * stretch).astype(np.uint32)
        n, store = len(rows), self._store
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts = np.empty(n, np.uint32)
        bits = None if chosen is None else chosen[0]
        work = None
        while work is None:  # until the graph that was searched is not retired meanwhile
            work = self._graph.search(
                store.query_bytes, rows, store.metric.number, width, how.depth, ids, distances, counts, bits, PROBE,
                how.bounds, widths, None, threads,
            )  # fmt: skip
        context = how.context
        short = np.flatnonzero(counts < min(k, passing))
        if len(short):
            rest = self._scan(rows[short], k, False, chosen, threads, "")
            ids[short], distances[short] = rest._ids, rest._distances
            context = SearchContext(
                store.metric,
                f"{context.plan}; {len(short)} queries came back short and were scanned",
                context.expected_recall,
            )
        if chosen is not None:
            context = SearchContext(
                store.metric, f"{context.plan}; {passing} of {len(self)} vectors pass", context.expected_recall
            )
        return Hits(ids, distances, single, context, work)

    # -- changing ----------------------------------------------------------------------------------------------------

    def _grow(self, vectors: Vectors, ids: NDArray[np.int64] | None, threads: int) -> NDArray[np.int64]:
        if not self._n_nodes:  # nothing was there to fit codes to
            given, fresh = self._place(vectors, ids)
            self._fit_codes(threads)
            self._lists, self._slots = [], []
            self._lay_out(0, fresh)
            self._assemble(0)
        else:
            n_old = self._n_nodes
            given, fresh = self._place(vectors, ids)
            if self._codes is not None:
                assert self._fitted is not None
                codes = grow_or_copy(self._codes, self._n_nodes)
                if codes is not self._codes:
                    self._codes = codes
                    self._travel = self._fitted.scorer(codes)
                for first, last in _runs(fresh):
                    self._travel.fill(self._store.scorer, first, last, threads)
                self._check_codes(fresh, threads)
            self._lay_out(n_old, fresh)
            self._assemble(self._graph.n_nodes)
        again, self._relink = self._relink, np.zeros(0, np.uint32)
        self._insert(np.random.default_rng(self._seed + len(self)).permutation(np.union1d(fresh, again)), threads, None)
        if len(self._graph.entries) < min(_ENTRIES, self._n_nodes) or self.layered:
            self._elect()
        self._unlinked += len(fresh)
        if self._n_nodes <= 20_000 or self._unlinked * 200 >= self._n_nodes:
            self._graph.connect(self._rules.beam)
            self._unlinked = 0
        self._note_change(len(vectors))
        return given

    def _check_codes(self, fresh: NDArray[np.uint32], threads: int) -> None:
        """See whether the codes hold for new vectors too; fit them anew, or travel by the vectors, if not."""
        self._unproven = np.concatenate([self._unproven, fresh])
        if len(self._unproven) < max(32, self._n_nodes // 100):
            return
        fresh, self._unproven = self._unproven, np.zeros(0, np.uint32)
        old = np.setdiff1d(self._alive_sample(4000), fresh)
        if len(old) < 32:  # codes that were fitted to next to nothing
            self._fit_codes(threads)
        else:
            before = self._containment(old, old)
            if self._containment(fresh, old) >= before - _DRIFT:
                return
            self._fit_codes(threads)
            if min(self._containment(fresh, old), self._containment(old, old)) < before - _DRIFT:
                self._fitted = self._codes = None
                self._travel = self._store.scorer
        self._relink = fresh  # those of earlier calls were linked by what the old codes said
        self._changed = self._curve_size + 1  # what was calibrated no longer holds

    _unproven = np.zeros(0, np.uint32)  # nodes added since codes were last checked
    _relink = np.zeros(0, np.uint32)

    def _containment(self, nodes: NDArray[np.uint32], others: NDArray[np.uint32]) -> float:
        """Share of the true 10 nearest that codes rank among the first 20, of some nodes in a sample of their like."""
        rng = np.random.default_rng(self._seed)
        probes, like = rng.permutation(nodes)[:48], rng.permutation(nodes)[:2000]
        crowd = np.union1d(like, rng.permutation(others)[:1000]).astype(np.uint32)
        exact, coded = np.empty(len(crowd), np.float32), np.empty(len(crowd), np.float32)
        shares = []
        for probe in probes:
            self._store.scorer.between(int(probe), crowd, exact)
            self._travel.between(int(probe), crowd, coded)
            nearest = np.argsort(exact, kind="stable")[1:11]
            shares.append(np.isin(nearest, np.argsort(coded, kind="stable")[:21]).mean())
        return float(np.mean(shares)) if shares else 1.0

    def _note_change(self, n: int) -> None:
        self._changed += n
        self._efforts = {}
        if self._curve is not None and self._changed > self._curve_size:
            self.calibrate()  # what was measured is less than half of what is there
        elif self._curve is None and self._calibrates and self._n_nodes >= calibration.LEAST:
            self.calibrate()

    _calibrates: bool = True

    def _removed(self, rows: NDArray[np.uint32]) -> None:
        self._pending = [*self._pending, *rows.tolist()]
        self._note_change(len(rows))
        firsts = self._store.column("first_rows")[: self._n_nodes]
        dead = int((firsts == NONE).sum()) - len(self._spare_nodes)
        if dead > _DEAD * self._n_nodes or self._n_removed * 2 > self._n_rows:
            self.consolidate()

    _pending: list[int] = []  # noqa: RUF012 - rows whose slot is free once lists are repaired; never changed in place

    def consolidate(self, *, threads: int | None = None) -> None:
        """Repair the lists around removed vectors and free their places; happens by itself when many are gone."""
        workers = self._threads(threads)
        with self._writing:
            if not self._n_nodes:
                return
            self._own()
            firsts = self._store.column("first_rows")[: self._n_nodes]
            dead = firsts == NONE
            fresh = dead.copy()
            fresh[self._spare_nodes] = False
            if fresh.any():
                rules = self._rules
                self._graph.consolidate(dead.astype(np.uint8), rules.beam, rules.new_degree, rules.alpha, workers)
                self._elect()
                self._graph.connect(rules.beam)
                self._graph.wait_for_readers()
                gone = np.flatnonzero(fresh).astype(np.uint32)
                if self._distinct is not None:
                    self._distinct.erase(gone)
                self._clear(gone)
                self._spare_nodes = [*self._spare_nodes, *gone.tolist()]
            else:
                self._graph.wait_for_readers()
            self._spare_rows = [*self._spare_rows, *self._pending]
            self._n_removed -= len(self._pending)
            self._pending = []

    def _clear(self, nodes: NDArray[np.uint32]) -> None:
        """Empty the lists of freed nodes."""
        self._lists[0].array()[nodes] = 255

    def _own(self) -> None:
        super()._own()
        moved = False
        if self._codes is not None and self._codes.borrowed:
            assert self._fitted is not None
            self._codes = grow_or_copy(self._codes, self._n_nodes)
            self._travel = self._fitted.scorer(self._codes)
            moved = True
        for tables in (self._lists, self._slots):
            for i, table in enumerate(tables):
                if table.borrowed:
                    tables[i] = grow_or_copy(table, table.rows)
                    moved = True
        if moved:
            self._assemble(self._graph.n_nodes)

    def add(self, vectors: Any, *, ids: Any = None, threads: int | None = None) -> NDArray[np.int64]:
        """Add vectors, while others may search: see `Index.add`."""
        with self._writing:
            if self._n_nodes:
                self._own()
            return super().add(vectors, ids=ids, threads=threads)

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def _travel_name(self) -> str:
        fitted = self._fitted
        if fitted is None:
            return f"{self._store.kind} vectors"
        of = f" of {fitted.dim}" if fitted.dims < fitted.dim else ""
        return f"{fitted.bits}-bit codes of {fitted.dims}{of} dimensions"

    def _describe(self) -> str:
        curve = "not calibrated" if self._curve is None else f"calibrated on {self._curve.n_queries} queries"
        return (
            f"{self._describe_graph()}, {self._travel_name}, ranked by {self._store.kind} vectors, "
            f"recall {self._recall:g}, "
            f"{curve}"
        )

    def _describe_graph(self) -> str:
        raise AssertionError  # pragma: no cover

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds."""
        tables = [*self._lists, *self._slots, *([] if self._codes is None else [self._codes])]
        return super().n_bytes + sum(int(t.n_bytes) for t in tables)

    # -- files -------------------------------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        n = self._n_nodes
        parts: dict[str, NDArray[Any]] = {"entries": np.array(self._graph.entries, np.uint32)}
        parts["pending_rows"] = np.array(self._pending, np.uint32)
        for level, table in enumerate(self._lists):
            parts[f"lists_{level}"] = table.array()[: n if level == 0 else None]
        for level, table in enumerate(self._slots, 1):
            parts[f"slots_{level}"] = table.array()[:n]
        config: dict[str, Any] = {
            "graph": {
                "beam": self._rules.beam, "new_degree": self._rules.new_degree, "alpha": float(self._rules.alpha),
                "fill": self._rules.fill, "seed": self._seed, "layers": len(self._lists), "recall": float(self._recall),
                "n_linked": int(self._graph.n_nodes), "depth_factor": float(self._depth_factor),
                "curve_size": self._curve_size, "changed": self._changed, "unlinked": self._unlinked,
                "calibrates": self._calibrates, "degree": self._lists[0].stride // 4,
            }
        }  # fmt: skip
        if self._fitted is not None and self._codes is not None:
            parts["codes"] = self._codes.array()[:n]
            fitted, values = self._fitted.state()
            parts |= {f"quantizer_{name}": a for name, a in fitted.items()}
            config["quantizer"] = values
        if self._curve is not None:
            curve, values = self._curve.state()
            parts |= curve
            config["curve"] = values
        return parts, config

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        self = super()._restore(file)
        n = self._n_nodes
        config = file.config.get("graph")
        if not isinstance(config, dict):
            raise FormatError(f"{file.path} holds no graph")
        integer = storage.config_int
        self._rules = Rules(
            integer(file, ("graph", "beam"), 1, 65536), integer(file, ("graph", "new_degree"), 1, 512),
            storage.config_float(file, ("graph", "alpha"), 1.0, 100.0), storage.config_bool(file, ("graph", "fill")),
        )  # fmt: skip
        self._seed = integer(file, ("graph", "seed"), 0)
        self._recall = storage.config_float(file, ("graph", "recall"), 0.0, 1.0)
        self._depth_factor = storage.config_float(file, ("graph", "depth_factor"), 1.0, 1000.0)
        self._curve_size = integer(file, ("graph", "curve_size"), 0)
        self._changed = integer(file, ("graph", "changed"), 0)
        self._unlinked = integer(file, ("graph", "unlinked"), 0)
        self._calibrates = storage.config_bool(file, ("graph", "calibrates"))
        degree = integer(file, ("graph", "degree"), 1, 512)
        layers = integer(file, ("graph", "layers"), 1, 64)
        linked = integer(file, ("graph", "n_linked"), 0, n)
        self._pending = [int(i) for i in storage.require(file, "pending_rows", np.uint32, (None,))]
        nodes = self._store.column("nodes")
        if len(self._pending) != self._n_removed or any(i >= self._n_rows or nodes[i] != NONE for i in self._pending):
            raise FormatError(f"{file.path} is damaged: it lists removed rows that are in use")
        self._quantizer = Plain()
        self._fitted = self._codes = None
        self._travel = self._store.scorer
        if "quantizer" in file.config:
            parts = {
                name.removeprefix("quantizer_"): a for name, a in file.arrays.items() if name.startswith("quantizer_")
            }
            fitted = FittedCodes.from_state(parts, file.config["quantizer"])
            if fitted.dim != self._store.dim or fitted.metric != self._store.metric.name:
                raise FormatError(f"{file.path} is damaged: its quantizer is for other vectors")
            self._fitted = fitted
            self._codes = _core.Table.borrow(storage.require(file, "codes", np.uint8, (n, fitted.row_bytes)))
            self._travel = fitted.scorer(self._codes)
        self._restore_layers(file, layers, degree, linked)
        entries = [int(e) for e in storage.require(file, "entries", np.uint32, (None,))]
        if any(e >= linked for e in entries) or (linked and len(self) and not entries):
            raise FormatError(f"{file.path} is damaged: its entry nodes do not exist")
        self._assemble(linked, entries)
        self._curve = None
        if "curve" in file.config:
            self._curve = RecallCurve.from_state(file.arrays, file.config["curve"])
        self._efforts = {}
        return self

    def _restore_layers(self, file: storage.File, layers: int, degree: int, linked: int) -> None:
        n = self._n_nodes
        self._lists, self._slots = [], []
        below = np.zeros(n, np.uint32)
        try:
            for level in range(layers):
                stride = degree * 4 if level == 0 else None
                array = storage.require(file, f"lists_{level}", np.uint8, (n if level == 0 else None, stride))
                table = _core.Table.borrow(array)
                _core.check_lists(table, table.rows, linked, level == 0)
                self._lists.append(table)
                if level:
                    slots = storage.require(file, f"slots_{level}", np.uint8, (n, 4))
                    held = slots.view(np.uint32).reshape(-1)
                    named = array.view(np.uint32)
                    if (held[held != NONE] >= table.rows).any():
                        raise ValueError("a node's list does not exist")
                    if (held[named[named != NONE]] == NONE).any() or (below[held != NONE] == NONE).any():
                        raise ValueError("a node is met in a layer that does not hold it")
                    below = held
                    self._slots.append(_core.Table.borrow(slots))
        except ValueError as problem:
            raise FormatError(f"{file.path} is damaged: {problem}") from problem

    def verify(self) -> None:
        """Check the whole index: rows, lists, and that every node can be reached. Raises FormatError."""
        with self._writing:
            super().verify()
            lost = self._graph.count_unreachable() if self._n_nodes else 0
            if lost and self._unlinked == 0:
                raise FormatError(f"{lost} vectors cannot be reached from the entry points; rebuild the index")


def _runs(nodes: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Half-open ranges that the nodes form, in rising order."""
    if not len(nodes):
        return []
    ordered = np.sort(nodes.astype(np.int64))
    cuts = np.flatnonzero(np.diff(ordered) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(ordered, cuts)]


def _reporter(progress: Any, total: int) -> Any:
    """What the core calls between batches: the user's callback, or a bar on a terminal."""
    if progress is False:
        return None
    if progress is not None:
        return lambda done: progress(int(done), total)
    from nearly.indexes.progress import bar

    return bar(total)


def _norm_spread(vectors: Vectors) -> float:
    """Largest norm by median norm, of a sample."""
    step = max(1, len(vectors) // 4096)
    norms = np.linalg.norm(Vectors(np.ascontiguousarray(vectors.array[::step]), vectors.kind).as_float32(), axis=1)
    middle = float(np.median(norms)) if len(norms) else 0.0
    return float(norms.max()) / middle if middle > 0 else 1.0
