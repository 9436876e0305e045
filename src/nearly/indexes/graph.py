"""What graph indexes share: building, searching, changes. See travel.py for codes, contract.py for recall."""

import math
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.arrays import Vectors
from nearly.errors import FormatError, InputError, StateError
from nearly.hits import Hits, SearchContext
from nearly.indexes import calibration, graph_files, sifting
from nearly.indexes.allowed import Allowed
from nearly.indexes.base import REFINE, Index, Placed, Progress
from nearly.indexes.contract import MOST, SCAN_FACTOR, Contract, Effort
from nearly.indexes.each import is_for_each
from nearly.indexes.needs import Needs
from nearly.indexes.order import insertion_order
from nearly.indexes.progress import reporter
from nearly.indexes.ready import ready, ready_many
from nearly.indexes.store import NONE, as_bytes, grow_or_copy, new_table
from nearly.indexes.travel import NOBODY, Travel, check_quantizer, usual_quantizer
from nearly.quantizers import Plain, Quantizer
from nearly.quantizers.base import CODED
from nearly.tuning import RecallCurve
from nearly.tuning.costs import TOGETHER
from nearly.tuning.curve import PROBE

__all__ = ["GraphIndex", "Rules"]

_ENTRIES = 16  # nodes scored in one block before the first hop; levers table of benchmarks/README.md
# A list costs as much as comparing a query with so many vectors where others are compared with them, too: measured on
# SIFT (50 to 480 for 8 to 300 queries) and CVE (20 to 175), whose rows are longer.
_ONE_LIST, _EACH_QUERY, _MANY_LISTS = 8.0, 1.4, 140.0
_WIDEST = 512  # neighbors of a list
_DEAD = 0.2  # share of dead nodes at which lists are repaired: FreshDiskANN consolidates at 5 to 20 %


class Rules(NamedTuple):
    """How a graph is built: what `BuildRules` of the core takes."""

    beam: int
    new_degree: int
    alpha: float
    fill: bool


class GraphIndex(Index):
    """Vectors joined to near ones; a search walks towards its query. Not made itself: see `Vamana` and `HNSW`."""

    _lists: list[Any]  # tables of neighbor lists, ground first
    _slots: list[Any]  # for each upper layer: where a node's list is
    _wide: Any = None  # lists of what two steps lead to, for filtered walks
    _expansion: int = 0  # their degree
    _travel: Travel
    _contract: Contract
    _graph: Any = None
    _parts: list[Any]  # what the graph was assembled of
    _rules: Rules
    _seed: int
    _unlinked: int = 0  # nodes added since reachability was last checked
    _unsound: NDArray[np.uint32] = NOBODY  # nodes to link again, as codes that did not hold for them led to them

    layered: ClassVar[bool] = False

    # -- building ----------------------------------------------------------------------------------------------------

    def _build(
        self, vectors: Any, ids: Any, metric: Any, *, quantizer: Quantizer | None, recall: float, queries: Any,
        calibrate: bool, order: Any, threads: int | None, progress: Progress | None, refine: str = "memory",
    ) -> None:  # fmt: skip
        self._refine = arrays.check_choice(refine, REFINE, "refine")
        self._contract = Contract(arrays.check_fraction(recall, "recall"), arrays.check_flag(calibrate, "calibrate"))
        arrays.check_callback(progress, "progress")
        workers = self._threads(threads)
        made, given = self._start(vectors, ids, metric)
        probes = None if queries is None else self._check_queries(queries, made)
        chosen_quantizer = self._choose_quantizer(quantizer, made)
        placed = self._place(made, given)
        self._show(placed)
        fresh = placed.fresh
        del made, placed
        self._travel = Travel(chosen_quantizer, self._store, self._seed)
        self._travel.fit(self._store, self._n_nodes, workers)
        self._lay_out(fresh)
        self._lay_out_wide()
        self._assemble(0)
        chosen = self._order(order, len(fresh))
        held = 0
        if calibrate and probes is None and len(fresh) >= calibration.LEAST:
            held = calibration.held_out(len(fresh))
        if held and not (isinstance(order, str) and order == "random"):  # the last of another order are no sample
            late = np.zeros(len(chosen), bool)
            late[1 + np.random.default_rng(self._seed).permutation(len(chosen) - 1)[:held]] = True
            chosen = np.concatenate([chosen[~late], chosen[late]])
        self._weave(chosen, held, probes, workers, reporter(progress, len(chosen)))

    def _weave(
        self, chosen: NDArray[np.uint32], held: int, probes: NDArray[np.uint8] | None, workers: int, report: Any
    ) -> None:
        """Insert nodes in this order, the last ``held`` after they have served as queries; measure what is promised."""
        first, last = chosen[: len(chosen) - held], chosen[len(chosen) - held :]
        self._insert(first, workers, report)
        self._elect()
        if held:
            self._widen(first, workers)
            self._contract.measure(
                self, calibration.from_held_out(self, last), bits=self._rows_of(first), threads=workers
            )
            self._insert(last, workers, None if report is None else lambda done: report(len(first) + done))
            self._elect()
        self._graph.connect(self._rules.beam)
        self._widen(chosen, workers)
        if report is not None:
            report(len(chosen))
        if self._contract.calibrates and probes is not None and self._n_nodes:
            made_of = calibration.from_queries(probes, "the queries passed when it was built")
            self._contract.measure(self, made_of, threads=workers)

    def _check_queries(self, queries: Any, vectors: Vectors) -> NDArray[np.uint8]:
        bits = self._store.metric.input == "bits"
        made, _ = arrays.as_queries(queries, bits=bits, dim=vectors.dim if len(vectors) else None)
        arrays.check_finite(made, "queries")
        return calibration.from_queries(as_bytes(made.array if bits else made.as_float32()), "").rows

    def _choose_quantizer(self, quantizer: Quantizer | None, vectors: Vectors) -> Quantizer:
        if quantizer is not None:
            check_quantizer(quantizer, self._store.metric.name)
            return quantizer
        if self._store.metric.name not in CODED:
            return Plain()
        return usual_quantizer(self._store.metric.name, vectors, self._contract.target)

    def _lay_out(self, fresh: NDArray[np.uint32]) -> None:
        """Give new nodes empty lists."""
        raise AssertionError  # pragma: no cover

    def _assemble(self, n_linked: int, entries: list[int] | None = None) -> None:
        """A core graph over the tables as they are: a new one where any was replaced, and readers move on to it."""
        store, travel, old = self._store, self._travel.scorer, self._graph
        parts = [*self._lists, *self._slots, self._wide, travel, store.scorer, store.rows]
        if old is not None and list(map(id, parts)) == list(map(id, self._parts)):
            return
        if entries is None:
            entries = [e for e in old.entries if e < n_linked] if n_linked else []
        self._graph = _core.Graph(
            self._lists, self._slots, entries, travel, store.scorer, store.rows, n_linked, self._wide
        )
        self._parts = parts
        if old is not None:
            old.retire()

    def _replaced(self) -> None:
        if self._graph is None:
            return
        self._travel.follow(self._store)
        self._assemble(self._graph.n_nodes if self._n_nodes else 0)

    def _order(self, order: Any, n: int) -> NDArray[np.uint32]:
        """The order of insertion, as nodes."""
        return insertion_order(self, order, n)

    def _insert(self, nodes: NDArray[np.uint32], threads: int, report: Any) -> None:
        rules = self._rules
        self._graph.insert(
            nodes, self._n_nodes, rules.beam, rules.new_degree, rules.alpha, fill=rules.fill, threads=threads,
            progress=report,
        )  # fmt: skip

    def _widen(self, nodes: NDArray[np.uint32], threads: int) -> None:
        """Make wide lists of these nodes anew, from what their lists lead to now."""
        if self._expansion:
            self._graph.widen(np.ascontiguousarray(nodes), threads)

    def _widen_around(self, fresh: NDArray[np.uint32], threads: int) -> None:
        """The same of new nodes, and of those that they are joined to."""
        if not self._expansion:
            return
        if len(fresh) * 10 < self._n_nodes:
            near = self._lists[0].array()[fresh].view(np.uint32).ravel()
            nodes = np.union1d(fresh, near[near < self._graph.n_nodes]).astype(np.uint32)
        else:
            nodes = np.arange(self._graph.n_nodes, dtype=np.uint32)
        self._widen(nodes, threads)

    def _lay_out_wide(self) -> None:
        """Room for wide lists."""
        if self._expansion:
            size = 4 * self._expansion
            self._wide = (
                new_table(size, self._n_nodes, 255)
                if self._wide is None
                else grow_or_copy(self._wide, self._n_nodes, 255)
            )

    def _elect(self, fresh: NDArray[np.uint32] = NOBODY) -> None:
        """Choose the nodes that searches start from, among those that hold rows and new ones that will."""
        linked = self._linked(fresh)
        if len(linked):
            drawn = np.random.default_rng(self._seed).permutation(len(linked))[:_ENTRIES]
            self._graph.entries = [int(linked[i]) for i in np.sort(drawn)]

    def _linked(self, fresh: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Nodes that hold rows, or will, and that the graph leads on from."""
        n = self._graph.n_nodes
        alive = self._store.column("first_rows")[:n] != NONE
        alive[fresh] = True
        leads = self._lists[0].array()[:n].view(np.uint32)[:, 0] != NONE
        return np.flatnonzero(alive & leads if (alive & leads).any() else alive)

    # -- the recall contract -----------------------------------------------------------------------------------------

    @property
    def curve(self) -> RecallCurve | None:
        """What calibration measured, or None."""
        return self._contract.curve

    def calibrate(self, queries: Any = None, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Measure recall anew, on queries like those to come.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim), optional
            A few hundred at least; not vectors of the index themselves. None searches for stored vectors, each as if
            it was not there.
        threads : int, optional
        progress : callable, optional
            ``progress(trials done, trials in all)``; fewer may be needed. None: a bar on a terminal.
        """
        arrays.check_callback(progress, "progress")
        workers = self._threads(threads)
        with self._writing:
            if not self._n_nodes or not len(self):
                raise StateError(f"an empty index cannot be calibrated; add {self.noun} first")
            if queries is None:
                probes = calibration.from_stored(self, self._contract.topics)
            else:
                rows = self._queries(queries)[0]
                probes = calibration.from_queries(rows, "the queries passed to calibrate")
            self._contract.measure(self, probes, threads=workers, progress=progress)

    def _rows_of(self, nodes: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """A filter that passes the rows of these nodes."""
        chosen = np.zeros(self._n_nodes + 1, bool)
        chosen[nodes] = True
        of_row = self._store.column("nodes")[: self._n_rows]
        passes = chosen[np.minimum(of_row, self._n_nodes)]
        padded = np.zeros((self._n_rows + 63) // 64 * 64, bool)
        padded[: self._n_rows] = passes
        return np.packbits(padded, bitorder="little").view(np.uint64)

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
        where : array-like of bool or int, Filter, or a list of such, optional
            A mask with one entry per id 0..max (not where ids were given), or the ids that may be returned; a
            `nearly.filters.Filter` serves many queries best. A list, or a boolean matrix, holds a filter for each
            query; None in it filters nothing.
        threads : int, optional

        Returns
        -------
        Hits
            ``plan`` names the effort and what it was calibrated on; ``expected_recall`` is the estimate.
        """
        if unknown:
            self._refuse(unknown)
        # Overhead matters for one contiguous float32 row: straight to the core, which sees whether it is one.
        if (
            where is None
            and exact is False
            and type(queries) is ndarray
            and type(k) is int
            and (recall is None or type(recall) is float)
            and (effort is None or type(effort) is int)
            and (threads is None or (type(threads) is int and 0 < threads <= 1024))
        ):
            how = self._contract.efforts.get((k, recall, effort))
            if how is not None and not how.scan and not self._n_removed:
                answer = self._graph.search_one(how.core, queries, self._n_live)
                if answer is not None:
                    return Hits(answer, None, True, how.context, answer)
        if where is None:
            return self._search(queries, k, recall, effort, exact, None, threads)
        if exact is False and effort is None and type(queries) is ndarray and queries.ndim == 1 and type(k) is int:
            found = self._quickly(queries, k, recall, where, threads)
            if found is not None:
                return found
        return self._filtered(queries, k, recall, effort, exact, where, threads)

    def _quickly(self, queries: NDArray[Any], k: int, recall: Any, where: Any, threads: Any) -> Hits | None:
        """The short way for a filter that was made before; None where the long one is needed."""
        if not (recall is None or (type(recall) is float and 0 < recall <= 1)) or not (
            threads is None or (type(threads) is int and 0 < threads <= 1024)
        ):
            return None
        before, allowed = self._reuse, self._remembered(where)
        if allowed is None or before % 2:
            return None
        if queries.ndim == 1:
            asked = ready(self, allowed, k, recall)
            found = None if asked is None else asked.ask(self, allowed, queries)
        else:
            asked = ready_many(self, allowed, k, recall, len(queries))
            found = None if asked is None else asked.ask_many(self, allowed, queries, threads or 0)
        return found if before == self._reuse else None

    def _filtered(self, queries: Any, k: int, recall: Any, effort: Any, exact: bool, where: Any, threads: Any) -> Hits:
        # Apart from `search`, which a closure would slow down.
        if is_for_each(where) and self._store.metric.input != "any":
            return self._for_each(queries, where, k, recall=recall, effort=effort, exact=exact, threads=threads)
        return cast("Hits", self._steadily(
            lambda: self._search(queries, k, recall, effort, exact, where, threads)
        ))  # fmt: skip

    def _search(
        self, queries: Any, k: int, recall: Any, effort: Any, exact: bool, where: Any, threads: int | None
    ) -> Hits:
        workers, k, exact = self._threads(threads), self._columns(k), arrays.check_flag(exact, "exact")
        if recall is not None and effort is not None:
            raise InputError("recall= and effort= exclude each other; pass one")
        if recall is not None:
            recall = arrays.check_fraction(recall, "recall")
        if effort is not None:
            effort = arrays.check_int(effort, "effort", low=1, high=1 << 20)
        rows, single = self._queries(queries)
        allowed = None if where is None else self._filter(where)
        if exact:
            return self._scan(rows, k, single, allowed, workers, f"exact scan of {len(self)} {self.noun}, as asked")
        if k > MOST:
            return self._scan(
                rows, k, single, allowed, workers, f"exact scan: a walk looks for at most {MOST} neighbors"
            )
        how = self._contract.effort(self, k, recall, effort)
        if allowed is not None and allowed.n == len(self):
            allowed = None  # all pass: the very search without a filter
        if how.scan:
            return self._scan(rows, k, single, allowed, workers, how.context.plan)
        if allowed is None:
            return self._walk(rows, k, single, how, None, workers)
        if how.reaches is not None:
            target = self._contract.target if recall is None else recall
            way = self._contract.way(self, k, target, allowed.n, allowed.uneven(self))
            return self._sift(rows, k, single, target, way, allowed, workers)
        if allowed.n**2 <= SCAN_FACTOR * how.lists * max(1, self._n_nodes):
            plan = f"exact scan of the {allowed.n} {self.noun} that pass, of {len(self)}"
            return self._scan(rows, k, single, allowed, workers, plan)
        return self._walk(rows, k, single, how, allowed, workers)

    def search_many(
        self, queries: Any, k: int = 10, *, recall: float | None = None, exact: bool = False, where: Any = None,
        threads: int | None = None,
    ) -> Hits:  # fmt: skip
        many = type(queries) is ndarray and queries.ndim == 2 and len(queries) >= TOGETHER
        if many and exact is False and where is not None and type(k) is int:
            quick = self._quickly(queries, k, recall, where, threads)
            if quick is not None:
                return quick
        target = None if recall is None else arrays.check_fraction(recall, "recall")
        columns, exact = self._columns(k), arrays.check_flag(exact, "exact")
        if exact is False and columns <= MOST and self._store.metric.input == "float" and not is_for_each(where):
            found: Hits | None = self._steadily(lambda: self._together(queries, columns, target, where, threads))
            if found is not None:
                return found
        return super().search_many(queries, k, recall=recall, exact=exact, where=where, threads=threads)

    def _together(self, queries: Any, k: int, recall: float | None, where: Any, threads: int | None) -> Hits | None:
        """Compare queries with all that passes; None where each, or some, find their own sooner by a walk."""
        how, workers = self._contract.effort(self, k, recall, None), self._threads(threads)
        rows, single = self._queries(queries)
        allowed = None if where is None else self._filter(where)
        shared = self._shared_scan(k, recall, how, allowed, len(rows))
        if shared is None:
            return None
        by_codes, why = shared
        if by_codes:
            return self._scan_by_codes(rows, k, single, allowed, workers, why)
        return self._scan(rows, k, single, allowed, workers, f"exact scan; {why}")

    def _shared_scan(
        self, k: int, recall: float | None, how: Effort, allowed: Allowed | None, n: int
    ) -> tuple[bool, str] | None:
        """Whether so many queries are compared with all that passes by codes, or by the vectors, and why so.

        None where each, or some, find their own sooner by a walk.
        """
        if n < TOGETHER or how.scan or how.reaches is None:
            return None
        target, passing = self._contract.target if recall is None else recall, len(self)
        uneven = 0.0
        if allowed is not None:
            passing, uneven = allowed.n, allowed.uneven(self)
        why = f"{passing} of {len(self)} {self.noun} pass: sooner than {n} walks"
        way = self._contract.way(self, k, target, passing, uneven)
        if sifting.scanned_together(self, k, target, passing, n, way.nanoseconds):
            return True, why
        in_a_list = min(_ONE_LIST + _EACH_QUERY * n, _MANY_LISTS)
        if self._by_blocks(n) and passing**2 <= in_a_list * how.lists * max(1, self._n_nodes):
            return False, why
        if allowed is None or way.sieve is not None or not 0 < passing < len(self):
            return None
        return sifting.scans_by_codes(self, k, target, passing), way.why

    def _sift(
        self, rows: NDArray[np.uint8], k: int, single: bool, target: float, way: sifting.Way, allowed: Allowed,
        threads: int,
    ) -> Hits:  # fmt: skip
        """Search for what passes; queries that give up, or come back short though more pass, are scanned."""
        if way.sieve is None:
            return self._scan_passing(rows, k, single, target, allowed, threads, way.why)
        n, store, how = len(rows), self._store, way.sieve.how
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts, work = np.empty(n, np.uint32), None
        share = allowed.n / max(1, self._n_rows)
        width = max(k, min(self._n_nodes, way.most))
        widths = np.full(len(cast("NDArray[np.float32]", how.bounds)) + 1, width, np.uint32)
        while work is None:  # until the graph that was searched is not retired meanwhile
            nodes = allowed.nodes(self)
            some = nodes.some[nodes.some < self._graph.n_nodes]
            work = self._graph.search(
                store.query_bytes, rows, store.metric.number, width, how.depth, ids, distances, counts, allowed.bits,
                PROBE, how.bounds, widths, None, threads, None, how.reaches, how.anchor, 1 / share, way.sieve.core,
                nodes.bits, some, share, way.most,
            )  # fmt: skip
        *done, hopped, gave_up = work
        told = [how.context.plan, way.why]
        if hopped:
            told.append(f"{hopped} of {n} queries hopped over what does not pass")
        short = np.flatnonzero(counts < min(k, allowed.n))
        if len(short):
            rest = self._scan_passing(rows[short], k, False, target, allowed, threads, "")
            ids[short], distances[short] = rest._ids, rest._distances
            done = [a + b for a, b in zip(done, cast("tuple[int, ...]", rest._work), strict=True)]
            told.append(f"{len(short)} queries came back short and were scanned, {gave_up} of them gave up")
        context = SearchContext(store.metric, "; ".join(told), how.context.expected_recall)
        return Hits(ids, distances, single, context, tuple(done))

    def _scan_passing(
        self, rows: NDArray[np.uint8], k: int, single: bool, target: float, allowed: Allowed, threads: int, why: str
    ) -> Hits:
        """Compare with all that pass: by codes first, where these tell which may be among the nearest."""
        if sifting.scans_by_codes(self, k, target, allowed.n):
            return self._scan_by_codes(rows, k, single, allowed, threads, why)
        return self._scan(rows, k, single, allowed, threads, f"exact scan; {why}")

    def _scan_by_codes(
        self, rows: NDArray[np.uint8], k: int, single: bool, allowed: Allowed | None, threads: int, why: str
    ) -> Hits:
        n, needs = len(rows), cast("Needs", self._contract.needs)
        spread = needs.spread or 0.0
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts, work = np.empty(n, np.uint32), None
        while work is None:  # until the store that was read is not retired meanwhile
            n_nodes, store = self._snapshot()
            codes = self._travel.scorer
            n_nodes = min(n_nodes, codes.n_rows)
            bits, only = (None, None) if allowed is None else (allowed.bits, allowed.nodes(self).below(n_nodes))
            work = _core.scan_coded(
                store.scorer, codes, spread, store.rows, n_nodes, store.query_bytes, rows, store.metric.number,
                ids, distances, counts, bits, only, threads,
            )  # fmt: skip
        by_codes, by_vectors = work
        short = np.flatnonzero(counts < min(k, len(self) if allowed is None else allowed.n))
        if len(short):  # rows that a writer removed between being found and being written leave gaps
            rest = self._scan(rows[short], k, False, allowed, threads, "")
            ids[short], distances[short] = rest._ids, rest._distances
        context = SearchContext(self._store.metric, f"scan by {self._travel.name(self._store)}; {why}", needs.scanned)
        return Hits(ids, distances, single, context, (by_codes, 0, by_vectors))

    def _walk(
        self, rows: NDArray[np.uint8], k: int, single: bool, how: Effort, allowed: Allowed | None, threads: int
    ) -> Hits:
        """Search the graph; queries that come back short although more pass are scanned.

        Under a filter: by a width, or, as windows ask for, by a reach that they know to suit an interval.
        """
        # Candidates that are dead or do not pass take places in the pool: it grows by their share.
        passing = len(self) if allowed is None else allowed.n
        stretch = self._n_rows / max(1, passing) if (allowed is not None or self._n_removed) else 1.0
        width = math.ceil(how.width * stretch)
        widths = None if how.widths is None else np.ceil(how.widths * stretch).astype(np.uint32)
        if how.reaches is not None and allowed is not None:  # a walk as long as a scan gives up, and is scanned
            most = max(k, int(passing / SCAN_FACTOR))
            width, widths = min(width, most), None if widths is None else np.minimum(widths, most).astype(np.uint32)
        n, store = len(rows), self._store
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts = np.empty(n, np.uint32)
        bits = None if allowed is None else allowed.bits
        work = None
        while work is None:  # until the graph that was searched is not retired meanwhile
            work = self._graph.search(
                store.query_bytes, rows, store.metric.number, width, how.depth, ids, distances, counts, bits, PROBE,
                how.bounds, widths, None, threads, None, how.reaches, how.anchor, stretch,
            )  # fmt: skip
        context = how.context
        short = np.flatnonzero(counts < min(k, passing))
        if len(short):
            rest = self._scan(rows[short], k, False, allowed, threads, "")
            ids[short], distances[short] = rest._ids, rest._distances
            context = SearchContext(
                store.metric,
                f"{context.plan}; {len(short)} queries came back short and were scanned",
                context.expected_recall,
            )
        if allowed is not None:
            context = SearchContext(
                store.metric, f"{context.plan}; {passing} of {len(self)} {self.noun} pass", context.expected_recall
            )
        return Hits(ids, distances, single, context, work[:3])

    # -- changing ----------------------------------------------------------------------------------------------------

    def _link(self, placed: Placed, threads: int, report: Any = None) -> None:
        fresh = placed.fresh
        if not self._graph.n_nodes:  # nothing was there to fit codes to
            self._travel.fit(self._store, self._n_nodes, threads)
            self._lists, self._slots, self._wide = [], [], None
        else:
            self._travel.code(self._store, self._n_nodes, fresh, threads)
            self._contract.added(fresh)
            unsound = self._travel.check(self._store, self._n_nodes, fresh, threads)
            if len(unsound):
                self._contract.set_apart(unsound, self._seed)
                self._unsound = np.union1d(self._unsound, np.setdiff1d(unsound, fresh))
        self._lay_out(fresh)
        self._lay_out_wide()
        self._assemble(self._graph.n_nodes)
        # Nobody sees them yet: new nodes, and those whose vectors come back, to which no list may lead any more.
        unseen = np.unique(placed.nodes[self._store.column("first_rows")[placed.nodes] == NONE])
        self._unlinked += len(unseen)
        again = self._unsound[self._store.column("first_rows")[self._unsound] != NONE]  # some may have gone since
        nodes = np.union1d(fresh, again)
        self._insert(
            np.random.default_rng(self._seed + self._n_live + len(placed.ids)).permutation(nodes), threads,
            None if report is None else lambda done: report(min(done, len(fresh))),
        )  # fmt: skip
        self._unsound = NOBODY
        if len(self._graph.entries) < min(_ENTRIES, self._n_nodes) or self.layered:
            self._elect(unseen)
        if self._n_nodes <= 20_000 or self._unlinked * 200 >= self._n_nodes:
            self._graph.connect(self._rules.beam, unseen)
            self._unlinked = 0
        self._widen_around(nodes, threads)

    def _undo(self, before: dict[str, Any], placed: Placed | None) -> None:
        super()._undo(before, placed)
        if self._n_nodes:  # places have their lists and codes, whoever has them next
            self._travel.code(self._store, self._n_nodes, NOBODY, 0)
            self._lay_out(NOBODY)
            self._lay_out_wide()
            self._assemble(self._graph.n_nodes)
            self._graph.connect(self._rules.beam, listen=False)  # lists may have given way to those that went again

    def _clear_out(self) -> None:
        self._n_nodes, self._lists, self._slots, self._wide = 0, [], [], None
        self._travel.give_up(self._store)
        self._lay_out(NOBODY)
        self._lay_out_wide()
        super()._clear_out()

    def _changed(self, n: int) -> None:
        self._contract.note(n)
        self._tidy()
        self._contract.prove(self)
        if self._contract.due(min(len(self), self._n_nodes)):
            self.calibrate()

    def _tidy(self) -> None:
        if self._n_removed:
            firsts = self._store.column("first_rows")[: self._n_nodes]
            dead = int((firsts == NONE).sum()) - len(self._spare_nodes)
            if dead > _DEAD * self._n_nodes or self._n_removed * 2 > self._n_rows:
                self.consolidate()

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
                try:
                    self._graph.consolidate(dead.astype(np.uint8), rules.beam, rules.new_degree, rules.alpha, workers)
                finally:  # also when Ctrl-C came between two layers
                    self._elect()
                    self._graph.connect(rules.beam, listen=False)
                self._widen(np.flatnonzero(~dead[: self._graph.n_nodes]).astype(np.uint32), workers)
                self._unlinked = 0
                self._graph.wait_for_readers()
                gone = np.flatnonzero(fresh).astype(np.uint32)
                if self._distinct is not None:
                    self._distinct.erase(gone)
                self._clear(gone)
            else:
                gone = NOBODY
                self._graph.wait_for_readers()
            self.__dict__.update(
                _spare_nodes=[*self._spare_nodes, *gone.tolist()], _spare_rows=[*self._spare_rows, *self._pending],
                _n_removed=self._n_removed - len(self._pending), _pending=[],
            )  # fmt: skip

    def _clear(self, nodes: NDArray[np.uint32]) -> None:
        """Empty the lists of freed nodes."""
        self._lists[0].array()[nodes] = 255
        if self._wide is not None:
            self._wide.array()[nodes[nodes < self._wide.rows]] = 255

    def _own(self) -> None:
        super()._own()
        moved = self._travel.own(self._n_nodes)
        for tables in (self._lists, self._slots):
            for i, table in enumerate(tables):
                if table.borrowed:
                    tables[i] = grow_or_copy(table, table.rows)
                    moved = True
        if self._wide is not None and self._wide.borrowed:
            self._wide = grow_or_copy(self._wide, self._wide.rows)
            moved = True
        if moved:
            self._assemble(self._graph.n_nodes)

    # -- what it is --------------------------------------------------------------------------------------------------

    def _describe(self) -> str:
        wide = f" and lists of {self._expansion} for filters" if self._expansion else ""
        curve = "not calibrated" if self.curve is None else f"calibrated on {self.curve.n_queries} queries"
        return (
            f"{self._describe_graph()}{wide}, {self._travel.name(self._store)}, ranked by {self._store.noun}, "
            f"recall {self._contract.target:g}, "
            f"{curve}"
        )

    @staticmethod
    def _expanded(filter_expansion: Any, degree: int) -> int:
        """The degree of wide lists for so many times the degree of the others."""
        times = arrays.check_int(filter_expansion, "filter_expansion", low=1, high=512)
        if times * degree > _WIDEST:
            most = _WIDEST // degree
            raise InputError(
                f"filter_expansion is {times}, but lists hold at most {_WIDEST} neighbors; pass at most {most}"
            )
        return times * degree if times > 1 else 0

    def _describe_graph(self) -> str:
        raise AssertionError  # pragma: no cover

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds."""
        tables = [*self._lists, *self._slots, *(t for t in (self._travel.codes, self._wide) if t is not None)]
        return super().n_bytes + sum(int(t.n_bytes) for t in tables)

    # -- files -------------------------------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return graph_files.state(self)

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        self = super()._restore(file)
        graph_files.restore(self, file, Rules)
        return self

    def verify(self) -> None:
        """Check the whole index: rows, lists, and that every node can be reached. Raises FormatError."""
        with self._writing:
            super().verify()
            lost = self._graph.count_unreachable() if self._n_nodes else 0
            if lost and self._unlinked == 0:
                raise FormatError(f"{lost} vectors cannot be reached from the entry points; rebuild the index")
