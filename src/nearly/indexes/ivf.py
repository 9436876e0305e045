"""IVF: vectors in lists by their nearest center; a search reads the lists whose centers are near to its query."""

import math
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, storage
from nearly.arrays import Vectors
from nearly.errors import FormatError, InputError, StateError
from nearly.hits import Hits, RangeHits, SearchContext
from nearly.indexes import calibration, ivf_files, list_codes, lists
from nearly.indexes.allowed import Allowed
from nearly.indexes.alone import CodedStore, fitted_to, told
from nearly.indexes.base import REFINE, Index, Placed, Progress, surely
from nearly.indexes.coarse import Centers, check_coarse, fit_coarse
from nearly.indexes.each import is_for_each
from nearly.indexes.guide import Near
from nearly.indexes.ivf_contract import Held, ListContract, Probe
from nearly.indexes.list_codes import ListCodes
from nearly.indexes.lists import SPILLS, Lists, second
from nearly.indexes.progress import reporter
from nearly.indexes.store import NONE, as_bytes
from nearly.indexes.travel import check_quantizer
from nearly.quantizers import SAQ, Plain, Product, Quantizer, Scalar
from nearly.quantizers.base import CODED
from nearly.quantizers.listed import MOST_BOOKS
from nearly.transforms import Transform
from nearly.tuning import Probing

__all__ = ["IVF", "usual_codes", "usual_lists"]

_DEAD = 0.2  # share of dead nodes at which lists are packed anew
_PER_ROOT = 3.2  # lists by the square root of the number of vectors; levers table of benchmarks/README.md
_LEAST_IN_LIST = 8  # vectors that a list holds on average, where there are few
_MOST_LISTS = 1 << 20
_ALONE_BITS = 4  # of a dimension, on average, where codes stand alone
_SHORT = 8  # dimensions below which a byte for each is little enough


class IVF(Index):
    """Approximate search of inverted lists (Jégou et al., PAMI 2011, section IV).

    Each vector is in the list of the center that it is nearest to. A search reads the codes of the lists whose centers
    are not much farther from the query than the nearest one, and ranks what is near by the vectors themselves. How much
    farther follows from the recall that is asked for, so that queries whose neighbors lie scattered read more lists.
    The same arguments give the same bytes for any number of threads.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        float32, float16, bfloat16, float64, int8 or uint8; packed bits (uint8) for bit metrics.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    lists : int, optional
        Number of lists; None takes about 6 sqrt(n). They are made anew when more vectors came than there were. From
        32,768 on a graph over their centers finds those near to a query (l2, cosine, ip).
    quantizer : Quantizer, optional
        What lists hold: `nearly.Scalar`, `nearly.RaBitQ`, ...; `nearly.Plain` compares the vectors themselves.
        ``Product(m, bits=4)`` codes what vectors are beyond the centers of their lists, and is looked up 32 vectors at
        a time. None takes it with ``rotation="opq"`` for l2, cosine and ip.
    refine : {"memory", "float16", "disk"} or None, default "memory"
        Where full vectors are, which rank what was found: in memory as they came, in memory as float16 (rounded), or in
        a file from which they are read (docs/memory.md). None: nowhere. A vector is then what its code says: distances
        are estimates, `get` gives what codes mean, vectors of one code are one, and a recall beyond the codes is
        refused. ``quantizer`` is ``nearly.SAQ(4)`` then unless told otherwise.
    spill : {"soar", "closure"}, optional
        A second list for vectors, so that fewer lists need be read, for up to twice the memory of codes: "soar", for
        each, the list whose center errs in another direction (Sun et al., NeurIPS 2023); "closure", the next list, for
        those that are nearly as near to it (Chen et al., NeurIPS 2021).
    coarse : Transform, optional
        What vectors and queries go through before they are compared with the centers of lists, which then have fewer
        dimensions: ``Matryoshka(64)`` for embeddings that were trained for it, ``Pca(64)`` for others. Lists are built
        in less time and memory; codes and ranking keep their own widths (AdANNS, arXiv 2305.19435).
    recall : float, default 0.95
        What searches deliver on average unless told otherwise.
    queries : array-like of shape (n_queries, dim), optional
        Queries like those to come, for calibration; None makes some from the data.
    calibrate : bool, default True
        False skips calibration; searches then need ``effort=``.
    seed : int, default 0
    threads : int, optional
    progress : callable, optional
        ``progress(done, total)``, in vectors that were put into lists.

    Notes
    -----
    Built in a small part of the time of a graph, and added to at once; a search compares with more vectors, but reads
    them one after the other.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 16), dtype=np.float32)
    >>> index = IVF(vectors, recall=0.9)
    >>> hits = index.search(vectors[:5], k=3)
    >>> hits.ids[:, 0].tolist(), hits.expected_recall >= 0.9
    ([0, 1, 2, 3, 4], True)
    """

    kind: ClassVar[str] = "ivf"

    _lists: Lists
    _codes: ListCodes
    _contract: ListContract
    _core: Any = None  # None: nothing was ever in it
    _parts: tuple[Any, ...]  # what the core's lists were assembled of
    _wanted: int | None  # lists that were asked for
    _seed: int
    _spill: str | None = None  # which vectors are in a second list
    _coarse: Transform | None = None  # what vectors and queries go through before they are compared with centers
    _clustered: int = 0  # nodes that the centers were made for
    _added: int = 0  # nodes added since

    def __init__(
        self,
        vectors: Any,
        *,
        ids: Any = None,
        metric: Any = "l2",
        lists: int | None = None,
        quantizer: Quantizer | None = None,
        refine: str | None = "memory",
        spill: str | None = None,
        coarse: Transform | None = None,
        recall: float = 0.95,
        queries: Any = None,
        calibrate: bool = True,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._wanted = None if lists is None else arrays.check_int(lists, "lists", low=1, high=_MOST_LISTS)
        self._seed = arrays.check_seed(seed)
        self._spill = None if spill is None else arrays.check_choice(spill, SPILLS, "spill")
        self._contract = ListContract(
            arrays.check_fraction(recall, "recall"), arrays.check_flag(calibrate, "calibrate")
        )
        arrays.check_callback(progress, "progress")
        self._refine = "memory" if refine is None else arrays.check_choice(refine, REFINE, "refine")
        workers = self._threads(threads)
        made, given = self._start(vectors, ids, metric)
        self._coarse = None if coarse is None else check_coarse(coarse, self._store.metric)
        probes = None if queries is None else self._check_queries(queries, made)
        if quantizer is not None:
            check_quantizer(quantizer, self._store.metric.name)
        elif refine is None:
            quantizer = SAQ(_ALONE_BITS)
        elif self._store.metric.name in CODED:
            quantizer = usual_codes(self.dim)
        if refine is None:
            fitted = fitted_to(quantizer or Plain(), made, self._store.metric, self._seed, workers)
            self._store, quantizer = CodedStore.of(self._store.metric, fitted, len(made)), Plain()
        placed = self._place(made, given)
        self._show(placed)
        if refine is None:
            asked = None if probes is None else probes.rows.view(np.float32)
            self._contract.told = told(self, made, asked, self._seed, workers)
        del made
        self._codes = list_codes.codes_by(quantizer or Plain(), self._store, self._seed)
        self._cluster(placed.fresh, workers, reporter(progress, len(placed.fresh)))
        if calibrate and self._n_nodes and (probes is not None or self._contract.due(self._n_nodes)):
            self._contract.measure_lists(self, probes, threads=workers)

    def _check_queries(self, queries: Any, vectors: Vectors) -> calibration.Probes:
        bits = self._store.metric.input == "bits"
        made, _ = arrays.as_queries(queries, bits=bits, dim=vectors.dim if len(vectors) else None)
        arrays.check_finite(made, "queries")
        return calibration.from_queries(
            as_bytes(made.array if bits else made.as_float32()), "the queries passed when it was built"
        )

    def _cluster(self, nodes: NDArray[np.uint32], threads: int, report: Any = None) -> None:
        """Make centers and lists of nodes, and code them."""
        if not len(nodes):
            return
        n_lists = usual_lists(len(nodes)) if self._wanted is None else min(self._wanted, len(nodes))
        coarse = None
        if self._coarse is not None:
            coarse = fit_coarse(self._coarse, self._store, nodes, self._seed, threads)
        centers, labels = lists.cluster(
            self._store, nodes, n_lists, coarse=coarse, with_means=self._codes.of_residuals, seed=self._seed,
            threads=threads, report=report,
        )  # fmt: skip
        labels, nodes_in = self._spilled(centers, labels, nodes, threads)
        made = Lists.build(self._store, centers, labels, nodes_in, self._codes.unit)
        codes = self._codes.of(made)
        if codes.fitted is None:
            codes.fit(self._store, self._n_nodes, threads)
        else:
            codes.recode(self._store, self._n_nodes, threads)
        self._install(made, codes, _clustered=len(nodes), _added=0)

    def _spilled(
        self, centers: Centers, labels: NDArray[np.uint32], nodes: NDArray[np.uint32], threads: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Lists and the nodes in them, those among them that are in a second one."""
        if self._spill is None:
            return labels, nodes
        more = second(self._store, nodes, centers, labels, self._spill, threads)
        some = more != NONE
        return np.concatenate([labels, more[some]]), np.concatenate([nodes, nodes[some]])

    def _install(self, made: Lists, codes: ListCodes, **more: Any) -> None:
        """Have readers search the core's lists over these tables from now on, if they do not yet."""
        store, old = self._store, self._core
        # Blocks know the centers that their residuals are to: another scorer of the same would be a copy.
        scorer = made.scorer if codes.blocks is None or made.centers.coarse is not None else None
        parts = (made.chunks, made.members, scorer, codes.scorer, store.scorer, store.rows, codes.blocks)
        if old is not None and all(a is b for a, b in zip(parts, self._parts, strict=True)):
            return
        core = _core.Inverted(made.chunks, made.members, len(made), *parts[2:], copies=self._spill is not None)

        def exchange() -> None:
            self.__dict__.update(_lists=made, _codes=codes, _core=core, _parts=parts, **more)
            if old is not None:
                old.retire()

        surely(exchange)

    def _assemble(self) -> None:
        self._install(self._lists, self._codes)

    def _replaced(self) -> None:
        if self._core is not None:
            self._codes.follow(self._store)
            self._assemble()

    # -- the recall contract -----------------------------------------------------------------------------------------

    @property
    def curve(self) -> Probing | None:
        """What calibration measured, or None."""
        return self._contract.probing

    def calibrate(self, queries: Any = None, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Measure recall anew, on queries like those to come.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim), optional
            A few hundred at least; not vectors of the index themselves. None makes some from stored vectors.
        threads : int, optional
        progress : callable, optional
            ``progress(1, 1)`` when it is done: one search of all queries tells how far to reach.
        """
        arrays.check_callback(progress, "progress")
        workers = self._threads(threads)
        with self._writing:
            if min(len(self), self._n_nodes) < 2:
                raise StateError("an index of fewer than two vectors cannot be calibrated; add some first")
            probes = None
            if queries is not None:
                probes = calibration.from_queries(self._queries(queries)[0], "the queries passed to calibrate")
            self._contract.measure_lists(self, probes, threads=workers)
            if (report := reporter(progress, 1, "trials")) is not None:
                report(1)

    def _costs(self) -> tuple[float, float]:
        """What comparing with a code, and ranking a vector, cost in comparisons of vectors that lie side by side."""
        if self._codes.fitted is None:
            return 1.0, 0.0
        share = self._codes.fitted.row_bytes / self._store.vectors.stride
        code, vector = (max(0.05, share / 2), 3.0) if self._codes.blocks is not None else (max(0.05, share), 2.0)
        scanning, apart = self._store.costs
        return code / scanning, vector * apart / scanning

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
            Number of lists to look at, the same for every query, instead of a target.
        exact : bool, default False
            Compare with every vector.
        where : array-like of bool or int, or a list of such, optional
            A mask with one entry per id 0..max (not where ids were given), or the ids that may be returned. A list, or
            a boolean matrix, holds a filter for each query; None in it filters nothing.
        threads : int, optional

        Returns
        -------
        Hits
            ``plan`` says what was compared and what it was calibrated on; ``expected_recall`` is the estimate.
        """
        if unknown:
            self._refuse(unknown)
        if where is not None and is_for_each(where):
            return self._for_each(queries, where, k, recall=recall, effort=effort, exact=exact, threads=threads)
        workers, k, exact = self._threads(threads), self._columns(k), arrays.check_flag(exact, "exact")
        if recall is not None and effort is not None:
            raise InputError("recall= and effort= exclude each other; pass one")
        if recall is not None:
            recall = arrays.check_fraction(recall, "recall")
        rows, single = self._queries(queries)
        if where is None:
            return self._search(rows, single, k, recall, effort, exact, None, workers)
        return cast("Hits", self._steadily(
            lambda: self._search(rows, single, k, recall, effort, exact, self._filter(where), workers)
        ))  # fmt: skip

    def _search(
        self, rows: NDArray[np.uint8], single: bool, k: int, recall: float | None, effort: int | None, exact: bool,
        chosen: Allowed | None, threads: int,
    ) -> Hits:  # fmt: skip
        passing = len(self) if chosen is None else chosen.n
        if passing == len(self):
            chosen = None  # all pass: the very search without a filter
        if exact and self._store.kept == "none":
            raise InputError("exact=True compares vectors, and this index keeps codes alone (refine=None); leave it "
                             'out, or build with refine="disk"')  # fmt: skip
        if exact or self._core is None:
            return self._scan(rows, k, single, chosen, threads, f"exact scan of {len(self)} vectors, as asked")
        if chosen is None or effort is not None:
            how = self._contract.probe(self, k, recall, effort)
        else:
            how = self._contract.filtered(self, k, recall, passing, lambda: self._held(chosen))
        if how.scan:
            return self._scan(rows, k, single, chosen, threads, how.context.plan)
        return self._look(rows, min(k, 1 << 20), single, how, chosen, passing, threads)

    def _held(self, chosen: Allowed) -> Held:
        """What passes in each list; remembered with the filter, until the index changes."""
        found = chosen.held
        if found is not None and found.change == self._change and found.core is self._core:
            return cast("Held", found)
        while True:  # until the lists that were counted are not retired meanwhile
            change, core = self._change, self._core
            counts = np.empty(core.n_lists, np.uint32)
            if core.passing(chosen.bits, counts):
                break
        found = chosen.held = Held(core, counts, change)
        return found

    def _look(
        self, rows: NDArray[np.uint8], k: int, single: bool, how: Probe, chosen: Allowed | None, passing: int,
        threads: int,
    ) -> Hits:  # fmt: skip
        """Read lists; queries that come back short although more pass are scanned."""
        n, store = len(rows), self._store
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        counts, work = np.empty(n, np.uint32), None
        bits = None if chosen is None else chosen.bits
        while work is None:  # until the lists that were searched are not retired meanwhile
            core, held = (self._core, None) if chosen is None else self._held(chosen)[:2]
            near = None if held is not None else self._near(rows, how, core, threads)
            found, away = (None, None) if near is None else (near.lists, near.distances)
            work = core.search(
                store.query_bytes, rows, store.metric.number, how.width, how.reach, how.depth, not self._n_removed, ids,
                distances, counts, bits, threads, held, how.beyond, how.spread, how.most, found, away,
            )  # fmt: skip
            if work is not None and near is not None:
                work = (work[0] + near.n_distances, *work[1:])
        plan, expected = how.context.plan, how.context.expected_recall
        short = np.flatnonzero(counts < min(k, passing))
        if len(short):
            rest = self._scan(rows[short], k, False, chosen, threads, "")
            ids[short], distances[short] = rest._ids, rest._distances
            plan += f"; {len(short)} queries came back short and were scanned"
        if chosen is not None:
            plan += f"; {passing} of {len(self)} vectors pass"
        return Hits(ids, distances, single, SearchContext(store.metric, plan, expected), work)

    def _near(self, rows: NDArray[np.uint8], how: Probe, core: Any, threads: int) -> Near | None:
        """Lists near to queries, where a guide finds them; None where the core compares all centers."""
        centers = self._lists.centers  # once: others may take their place meanwhile
        if not how.guided or centers.guide is None or core is not self._core:
            return None
        queries = centers.queries(rows.view(np.float32), self._store.metric, threads)
        return centers.guide.near(queries, how.guided, threads)

    def _scan(self, rows: NDArray[np.uint8], k: int, single: bool, chosen: Any, threads: int, plan: str) -> Hits:
        hits = super()._scan(rows, k, single, chosen, threads, plan)
        if self._store.kept != "none":
            return hits
        plan = plan.replace("exact scan", "scan of codes")
        context = SearchContext(self._store.metric, plan, self._contract.reached(k))
        return Hits(hits._ids, hits._distances, single, context, hits.stats)

    def range_search(
        self, queries: Any, radius: float, *, where: Any = None, threads: int | None = None, **unknown: Any
    ) -> RangeHits:
        """Return every vector within a radius: as all indexes do, but not where codes alone are kept."""
        if self._store.kept == "none":
            raise InputError("range_search is exact, and this index keeps codes alone (refine=None); build with "
                             'refine="disk"')  # fmt: skip
        return super().range_search(queries, radius, where=where, threads=threads, **unknown)

    # -- changing ----------------------------------------------------------------------------------------------------

    def _link(self, placed: Placed, threads: int, report: Any = None) -> None:
        """Every node whose place is not free is in a list, whether rows hang on it or not."""
        fresh = placed.fresh
        if self._core is None:
            self._codes.follow(self._store)
            self._cluster(fresh, threads)
            return
        self._contract.added(fresh)
        if self._added + len(fresh) > self._clustered:
            held = np.ones(self._n_nodes, bool)
            held[self._spare_nodes] = False
            self._cluster(np.flatnonzero(held).astype(np.uint32), threads)
            self._contract.void()
        elif len(fresh):
            self._enlist(fresh, threads)

    def _enlist(self, nodes: NDArray[np.uint32], threads: int) -> None:
        """Put new nodes into the lists of their centers."""
        made = self._lists
        labels = lists.assign(self._store, nodes, made.centers, threads)
        labels, nodes_in = self._spilled(made.centers, labels, nodes, threads)
        change = made.reserve(labels)
        self._codes.put(self._store, change, nodes_in, threads)
        made.members.array().view(np.uint32)[change.slots, 0] = nodes_in
        self._assemble()
        surely(lambda: made.commit(change, self._core))
        self._added += len(nodes)
        unsound = self._codes.check(self._store, self._n_nodes, nodes, threads)
        if len(unsound):
            self._contract.set_apart(unsound, self._seed)
            self._assemble()

    def _clear_out(self) -> None:
        self.__dict__.update(_core=None, _clustered=0, _added=0)
        self._codes.give_up(self._store)
        super()._clear_out()

    def _changed(self, n: int) -> None:
        self._contract.note(n)
        self._tidy()
        self._calibrate_if_due()
        if self._core is not None:  # by the curve that will serve it
            self._contract.prove(self)
            self._calibrate_if_due()

    def _calibrate_if_due(self) -> None:
        if self._contract.due(min(len(self), self._n_nodes)):
            self.calibrate()

    def _tidy(self) -> None:
        if self._n_removed:
            firsts = self._store.column("first_rows")[: self._n_nodes]
            dead = int((firsts == NONE).sum()) - len(self._spare_nodes)
            if dead > _DEAD * self._n_nodes or self._n_removed * 2 > self._n_rows:
                self.consolidate()

    def consolidate(self, *, threads: int | None = None) -> None:
        """Pack the lists without removed vectors and free their places; happens by itself when many are gone."""
        self._threads(threads)
        with self._writing:
            if self._core is None:
                return
            self._own()
            gone = self._store.column("first_rows")[: self._n_nodes] == NONE
            slots, owners = self._lists.in_use()
            nodes = self._lists.nodes(slots)
            kept = ~gone[nodes]
            gone[self._spare_nodes] = False
            freed = np.flatnonzero(gone).astype(np.uint32)
            if self._distinct is not None:
                self._distinct.erase(freed)  # first: no vector may come back to a node that is in no list
            if not kept.all():
                made = Lists.build(self._store, self._lists.centers, owners[kept], nodes[kept], self._codes.unit)
                self._install(made, self._codes.of(made, self._store))
            self._core.wait_for_readers()
            self.__dict__.update(
                _spare_nodes=[*self._spare_nodes, *freed.tolist()], _spare_rows=[*self._spare_rows, *self._pending],
                _n_removed=self._n_removed - len(self._pending), _pending=[],
            )  # fmt: skip

    def _own(self) -> None:
        super()._own()
        if self._core is not None:
            moved = self._codes.own(self._lists.n_slots)
            if self._lists.own() or moved:
                self._assemble()

    # -- what it is --------------------------------------------------------------------------------------------------

    def _describe(self) -> str:
        curve = "not calibrated" if self.curve is None else f"calibrated on {self.curve.n_queries} queries"
        n_lists = 0 if self._core is None else len(self._lists)
        if self._store.kept == "none":
            reach = self._contract.reached(10)
            found = "" if reach is None else f", which find {reach:.3f} of 10 neighbors at best"
            return (f"IVF of {n_lists} lists{self._width()}, {self._store.noun} alone{found}, "
                    f"recall {self._contract.target:g}, {curve}")  # fmt: skip
        twice = self._width()
        if self._spill is not None and n_lists:
            twice += f", {self._lists.sizes.sum() / max(1, self._n_nodes):.2f} of them a vector"
        return (f"IVF of {n_lists} lists{twice}, {self._codes.name(self._store)}, ranked by {self._store.noun}, "
                f"recall {self._contract.target:g}, {curve}")  # fmt: skip

    def _width(self) -> str:
        """In how many dimensions lists are, where these are fewer, for people."""
        if self._core is None or self._lists.centers.coarse is None:
            return ""
        return f" by {self._lists.centers.coarse.dims} of {self.dim} dimensions"

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds."""
        if self._core is None:
            return super().n_bytes
        codes = 0 if self._codes.codes is None else int(self._codes.codes.n_bytes)
        return super().n_bytes + codes + self._lists.n_bytes

    # -- files -------------------------------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return ivf_files.state(self)

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        self = super()._restore(file)
        ivf_files.restore(self, file)
        return self

    def verify(self) -> None:
        """Check the whole index: rows, lists, and that every vector is in one. Raises FormatError."""
        with self._writing:
            super().verify()
            if self._core is not None:
                self._check_lists("this index")

    def _check_lists(self, name: str) -> None:
        try:
            self._core.check(self._lists.n_chunks, self._n_nodes)
        except ValueError as problem:
            raise FormatError(f"{name} is damaged: {problem}") from problem
        alive = np.flatnonzero(self._store.column("first_rows")[: self._n_nodes] != NONE)
        outside = np.setdiff1d(alive, self._lists.nodes(self._lists.in_use()[0]))
        if len(outside):
            raise FormatError(f"{name} is damaged: {len(outside)} vectors are in no list")


def usual_lists(n: int) -> int:
    """How many lists n vectors are put into unless told otherwise."""
    return max(1, min(round(_PER_ROOT * math.sqrt(n)), n // _LEAST_IN_LIST))


def usual_codes(dim: int) -> Product | Scalar:
    """What lists hold unless told otherwise, under l2, cosine or ip."""
    return Product(m=_books(dim), bits=4, rotation="opq") if dim >= _SHORT else Scalar(bits=8)


def _books(dim: int) -> int:
    """Codebooks of 4 bits that the best speed at recall 0.95 took: levers table of benchmarks/README.md."""
    return min(MOST_BOOKS, max(min(dim // 2, 32), dim // 6 // 4 * 4))
