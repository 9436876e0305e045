"""The door to windows: vectors with an ordered attribute, searched between two of its values."""

from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, metrics, storage
from nearly.arrays import Vectors
from nearly.errors import InputError
from nearly.hits import Hits, RangeHits, SearchContext
from nearly.indexes import calibration, names
from nearly.indexes.base import Index, Progress
from nearly.indexes.contract import MOST
from nearly.indexes.graph import Rules
from nearly.indexes.progress import reporter
from nearly.indexes.store import NONE, IdMap, Store, as_bytes, narrow
from nearly.indexes.travel import check_quantizer
from nearly.indexes.window import files
from nearly.indexes.window.batch import Batch, Told, intervals
from nearly.indexes.window.margins import bits_of, measured
from nearly.indexes.window.run import Run, Shape
from nearly.indexes.window.values import Column, as_column, as_windows
from nearly.indexes.window.ways import METHODS, Asked
from nearly.indexes.writing import Writing
from nearly.quantizers import Quantizer

__all__ = ["Window"]

_DEAD = 0.2  # share of removed rows at which a run is built anew


class Window(Index):
    """Search among the vectors whose value lies between two bounds: a time, a price, any ordered attribute.

    Vectors are stored once, sorted by value, so a window is an interval of ranks. Graphs over nested intervals of ranks
    (a window search tree: Engels et al., Approximate Nearest Neighbor Search with Window Filters, ICML 2024) answer any
    window with a few walks that need no filter, or hardly one; short windows are scanned.

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        float32, float16, bfloat16, float64, int8 or uint8; packed bits (uint8) for bit metrics.
    values : array-like of shape (n,)
        Integers, floats or datetime64, one for each vector. NaN and NaT are refused.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    branching : int, default 4
        Parts that one of the next level joins; 2 takes twice the memory and answers short windows sooner.
    leaf : int, default 1024
        Intervals of so many ranks at most have no graph and are scanned.
    overlap : bool, default False
        A second row of graphs on each level, shifted by half, for windows that straddle the others: twice the graphs.
    degree, beam, alpha, quantizer
        Of each graph; see `Vamana`.
    recall : float, default 0.95
        What searches deliver on average unless told otherwise.
    queries : array-like of shape (n_queries, dim), optional
        Queries like those to come, for calibration; None holds out some vectors.
    seed : int, default 0
    threads : int, optional
    progress : callable, optional
        ``progress(done, total)``, counting each vector on each level.

    Notes
    -----
    Graphs take about ``4 * degree * n * floor(log(n / leaf, branching) + 1)`` bytes, twice that with ``overlap``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors, year = rng.standard_normal((3000, 16), dtype=np.float32), rng.integers(1990, 2026, 3000)
    >>> index = Window(vectors, year, leaf=256)
    >>> hits = index.search(vectors[0], k=3, window=(2001, 2010))
    >>> bool(np.isin(year[hits.ids], np.arange(2001, 2011)).all())
    True
    >>> index.search(vectors[:2], k=1, window=[(None, 2000), (2020, None)]).counts.tolist()
    [1, 1]
    >>> index.add(vectors[:1], [2026]).tolist()
    [3000]
    >>> index.search(vectors[0], window=(2026, 2026)).ids.tolist()
    [3000]
    """

    kind: ClassVar[str] = "window"

    _shape: Shape
    _runs: tuple[Run, ...]
    _column: str  # what values are
    _probes: NDArray[np.uint8] | None = None
    _made: tuple[tuple[Run, ...], IdMap] | None = None

    def __init__(
        self, vectors: Any, values: Any, *, ids: Any = None, metric: Any = "l2", branching: int = 4, leaf: int = 1024,
        overlap: bool = False, degree: int = 32, beam: int = 200, alpha: float = 1.2,
        quantizer: Quantizer | None = None, recall: float = 0.95, queries: Any = None, seed: int = 0,
        threads: int | None = None, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        rules = Rules(
            arrays.check_int(beam, "beam", low=1, high=65536), arrays.check_int(degree, "degree", low=2, high=512),
            arrays.check_real(alpha, "alpha", low=1.0, high=100.0), metrics.named(metric) != metrics.METRICS["ip"],
        )  # fmt: skip
        branching = arrays.check_int(branching, "branching", low=2, high=64)
        leaf = arrays.check_int(leaf, "leaf", low=16, high=1 << 24)
        overlap, target = arrays.check_flag(overlap, "overlap"), arrays.check_fraction(recall, "recall")
        seed, workers = arrays.check_seed(seed), self._threads(threads)
        arrays.check_callback(progress, "progress")
        made, given = self._start(vectors, ids, metric)
        column, self._column = as_column(values, len(made))
        if quantizer is not None:
            check_quantizer(quantizer, self._store.metric.name)
        self._shape = Shape(branching, leaf, overlap, rules, quantizer, target, seed)
        if queries is not None:
            bits = self._store.metric.input == "bits"
            asked, _ = arrays.as_queries(queries, bits=bits, dim=made.dim if len(made) else None)
            arrays.check_finite(asked, "queries")
            rows = as_bytes(asked.array if bits else asked.as_float32())
            self._probes = calibration.from_queries(rows, "").rows
        numbers = arrays.next_ids(0, len(made)) if given is None else given
        self._become(self._placed((), made, column, numbers, workers, progress), numbers)

    def _become(self, runs: tuple[Run, ...], ids: NDArray[np.int64] | None = None) -> None:
        """Other runs take the place of those there are, at one moment."""
        highest = int(ids.max()) + 1 if ids is not None and len(ids) else 0
        self.__dict__.update(
            _runs=runs, _n_live=sum(run.n_live for run in runs), _n_rows=sum(run.n for run in runs),
            _next_id=max(self._next_id, highest), _change=self._change + 1,
            _store=runs[0].store if runs else self._store,
        )  # fmt: skip

    # -- reading -----------------------------------------------------------------------------------------------------

    def _describe(self) -> str:
        parts = sum(len(run.parts) for run in self._runs)
        shape = self._shape
        beside = ", overlapping" if shape.overlap else ""
        return (
            f"{self._column} values in {len(self._runs)} sorted run{'s' * (len(self._runs) != 1)}, {parts} graphs of "
            f"degree {shape.rules.new_degree}, branching {shape.branching}{beside}, recall {shape.recall:g}"
        )

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids in the index, ascending."""
        kept = [run.ids if run.alive is None else run.ids[run.alive] for run in self._runs]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds."""
        return sum(run.n_bytes for run in self._runs)

    def _mapped(self) -> tuple[tuple[Run, ...], IdMap]:
        """The runs, and positions by id, counted through all of them."""
        made, runs = self._made, self._runs
        if made is None or made[0] is not runs:
            ids = np.concatenate([np.zeros(0, np.int64), *(run.ids for run in runs)])
            nodes = np.arange(len(ids), dtype=np.uint32)
            gone = [np.zeros(run.n, bool) if run.alive is None else ~run.alive for run in runs]
            nodes[np.concatenate([np.zeros(0, bool), *gone])] = NONE
            made = self._made = runs, IdMap(ids, nodes)
        return made

    def _id_map(self) -> IdMap:
        return self._mapped()[1]

    def _located(self, ids: Any, what: str, *, unique: bool) -> tuple[tuple[Run, ...], NDArray[np.int64], NDArray[Any]]:
        """The runs, and which one and which of its rows each id is."""
        runs, known = self._mapped()
        rows = known.known(arrays.as_ids(ids, unique=unique), what).astype(np.int64)
        ends = np.cumsum([run.n for run in runs])
        which = np.searchsorted(ends, rows, "right")
        return runs, which, rows - np.append(0, ends)[which]

    def get(self, ids: Any) -> NDArray[Any]:
        """Return stored vectors; see `Flat.get`."""
        single = isinstance(ids, int | np.integer) and not isinstance(ids, bool)
        runs, which, rows = self._located(ids, "get", unique=False)
        kinds = {run.kind for run in runs}
        out: NDArray[Any] | None = None
        for i, run in enumerate(runs):
            made = run.store.raw(rows[which == i])
            part = made.array if kinds in ({"bits"}, {"int8"}) else made.as_float32()
            out = np.empty((len(rows), part.shape[1]), part.dtype) if out is None else out
            out[which == i] = part
        out = np.empty((0, self.dim), np.float32) if out is None else out
        return out[0] if single else out

    def values(self, ids: Any) -> NDArray[Any]:
        """Return the values of vectors.

        Parameters
        ----------
        ids : int or array-like of int

        Returns
        -------
        ndarray of shape (n,)
            int64, float64 or datetime64.
        """
        runs, which, rows = self._located(ids, "values", unique=False)
        out = np.empty(len(rows), np.float64 if self._column == "float64" else np.int64)
        for i, run in enumerate(runs):
            out[which == i] = run.values[rows[which == i]]
        return out.view(self._column) if self._column.startswith("datetime64") else out

    # -- searching ---------------------------------------------------------------------------------------------------

    def search(
        self, queries: Any, k: int = 10, *, window: Any = None, recall: float | None = None, exact: bool = False,
        method: str = "auto", threads: int | None = None, **unknown: Any,
    ) -> Hits:  # fmt: skip
        """Return the k nearest vectors whose value lies in a window.

        Parameters
        ----------
        queries : array-like of shape (dim,) or (n_queries, dim)
        k : int, default 10
            Neighbors wanted; a window that holds fewer gives exactly those.
        window : pair, or n_queries pairs, optional
            ``(low, high)``, both inclusive, None for an open end; low above high is empty. One pair for each query of a
            batch may be given, as a list or an array of shape (n_queries, 2). None: everything.
        recall : float, optional
            Mean share of the true k nearest that the answer should hold.
        exact : bool, default False
            Compare with every vector in the window.
        method : {"auto", "scan", "cover", "within", "split", "overlapping"}, default "auto"
            "auto" takes what should need the fewest comparisons. The others, for trials: a scan; the largest graphs
            inside of the window and scans at its ends (Fenwick); the smallest graph around it, filtered (post-filter);
            the largest graph inside and the rests filtered (three-way split); "within" among overlapping graphs
            (super-post-filter), if built with ``overlap=True``. Where a window has no such answer it is covered.
        threads : int, optional

        Returns
        -------
        Hits
            ``plan`` names the ways that were taken.
        """
        names.refuse("search()", unknown, ("k", "window", "recall", "exact", "method", "threads"))
        rows, single = self._queries(queries)
        k, workers, exact = self._columns(k), self._threads(threads), arrays.check_flag(exact, "exact")
        arrays.check_choice(method, ("auto", *METHODS), "method")
        target = None if recall is None else arrays.check_fraction(recall, "recall")
        runs = self._runs
        lows, highs = as_windows(window, self._column, len(rows), single)
        if exact or k > MOST:
            method = "scan"
        batch = Batch(rows, k, workers)
        for run in runs:
            batch.plan(run, lows, highs, Asked(k, target), method)
        batch.run_jobs()
        asked = self._shape.recall if target is None else target
        context = Told(self._store.metric, batch, len(self), asked)
        return Hits(batch.ids, batch.distances, single, context, batch.work.tolist())

    def range_search(  # type: ignore[override]
        self, queries: Any, radius: float, *, window: Any = None, threads: int | None = None
    ) -> RangeHits:
        """Return every vector in a window and within a radius: exact.

        Parameters
        ----------
        queries : array-like of shape (dim,) or (n_queries, dim)
        radius : float
            Inclusive, in the unit of ``distances`` (under ip the negated inner product).
        window : pair, or n_queries pairs, optional
            As in ``search``.
        threads : int, optional

        Returns
        -------
        RangeHits
        """
        rows, single = self._queries(queries)
        limit, workers = arrays.check_real(radius, "radius"), self._threads(threads)
        lows, highs = as_windows(window, self._column, len(rows), single)
        found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        compared, metric = 0, self._store.metric
        for run in self._runs:
            for start, stop, which in intervals(run, lows, highs, len(rows)):
                store = run.slice(start, stop)
                bits = None if run.alive is None else bits_of(stop - start, 0, stop - start, run.alive[start:stop])
                answer = _core.scan_radius(
                    store.scorer, store.rows, stop - start, store.query_bytes, np.ascontiguousarray(rows[which]),
                    metric.number, limit, bits, workers,
                )  # fmt: skip
                assert answer is not None  # these rows are never retired
                found.append((np.repeat(which, np.diff(answer[2])), *answer[:2]))
                compared += (stop - start) * len(which)
        query = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in found)])
        ids = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in found)])
        distances = np.concatenate([np.zeros(0, np.float32), *(part[2] for part in found)])
        order = np.lexsort((ids, distances, query))
        offsets = np.searchsorted(query[order], np.arange(len(rows) + 1)).astype(np.int64)
        context = SearchContext(metric, "exact scan of the window", 1.0)
        return RangeHits(ids[order], distances[order], offsets, single, context, (compared, 0, 0))

    def calibrate(self, queries: Any = None, *, threads: int | None = None) -> None:
        """Measure the recall of all graphs anew, on queries like those to come.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim), optional
            A few hundred at least; not vectors of the index themselves. None makes some from stored vectors.
        threads : int, optional
        """
        workers = self._threads(threads)
        with self._writing:
            probes = None
            if queries is not None:
                probes = calibration.from_queries(self._queries(queries)[0], "the queries passed to calibrate").rows
            runs = []
            for run in self._runs:
                parts = {key: part.moved(run) for key, part in run.parts.items()}
                for part in parts.values():
                    part.calibrated(probes, workers)
                again = replace(run, parts=parts)
                runs.append(replace(again, margins=measured(again, probes, workers)))
            self._probes = probes
            self._become(tuple(runs))

    # -- changing ----------------------------------------------------------------------------------------------------

    def _came(self, vectors: Any, values: Any, ids: Any, *, fresh: bool) -> tuple[Vectors, Column, NDArray[np.int64]]:
        made, given = self._incoming(vectors, ids, fresh=fresh)
        column, kind = as_column(values, len(made), self._column if self._n_rows else None)
        if not self._n_rows:
            self._column = kind
        return made, column, arrays.next_ids(self._next_id, len(made)) if given is None else given

    def add(  # type: ignore[override]
        self, vectors: Any, values: Any, *, ids: Any = None, threads: int | None = None
    ) -> NDArray[np.int64]:
        """Add vectors, while others may search.

        Values from the largest on lengthen the tree, and nothing is built again. Earlier ones gather in runs of their
        own, which are merged when they are no longer small beside those before them (the logarithmic method).

        Parameters
        ----------
        vectors : array-like of shape (n, dim)
        values : array-like of shape (n,)
        ids : array-like of int, optional
            New to the index; None continues after the largest id ever given.
        threads : int, optional

        Returns
        -------
        ndarray of shape (n,), int64
            Their ids. All are added, or none.
        """
        workers = self._threads(threads)
        with self._writing:
            made, column, numbers = self._came(vectors, values, ids, fresh=True)
            if len(made):
                self._become(self._placed(self._runs, made, column, numbers, workers), numbers)
                self._own_ids = self._own_ids or ids is not None
            return numbers

    def upsert(  # type: ignore[override]
        self, vectors: Any, values: Any, *, ids: Any, threads: int | None = None
    ) -> NDArray[np.int64]:
        """Add vectors, and replace those whose ids are there; parameters as for `add`."""
        workers = self._threads(threads)
        with self._writing:
            if ids is None:
                raise InputError("upsert needs ids=: which vectors to replace")
            made, column, numbers = self._came(vectors, values, ids, fresh=False)
            if len(made):
                _, known = self._id_map().rows(numbers)
                runs = self._without(numbers[known])
                self._become(self._placed(runs, made, column, numbers, workers), numbers)
                self._own_ids = True
            return numbers

    def remove(self, ids: Any) -> None:
        """Remove vectors by id, while others may search; IdError if one is not there, and then none is removed."""
        with self._writing:
            self._become(self._without(ids))

    def _without(self, ids: Any) -> tuple[Run, ...]:
        runs, which, rows = self._located(ids, "remove", unique=True)
        left = [run.without(rows[which == i]) if (which == i).any() else run for i, run in enumerate(runs)]
        return tuple(
            run if run.n_live >= (1 - _DEAD) * run.n else Run.merged([run], self._probes, 0)
            for run in left
            if run.n_live
        )

    def _placed(
        self, runs: tuple[Run, ...], made: Vectors, column: Column, ids: NDArray[np.int64], threads: int,
        progress: Progress | None = None,
    ) -> tuple[Run, ...]:  # fmt: skip
        """The runs with more vectors in them."""
        if not len(made):
            return runs
        if runs:
            ordered = column >= runs[0].values[-1]
            if ordered.any():
                longer = runs[0].extended(_some(made, ordered), column[ordered], ids[ordered], self._probes, threads)
                runs = (longer, *runs[1:])
            made, column, ids = _some(made, ~ordered), column[~ordered], ids[~ordered]
        if len(made):
            kind = narrow(made)
            levels = int(np.log(max(1.0, len(made) / self._shape.leaf)) / np.log(self._shape.branching) + 1)
            report = None if runs else reporter(progress, levels * len(made))
            run = Run.build(self._shape, self._store.metric, made, kind, column, ids, self._probes, threads, report)
            runs = (*runs, run)
        most = self._shape.branching
        while len(runs) > 1 and runs[-2].n <= max(most * runs[-1].n, self._shape.leaf):
            runs = (*runs[:-2], Run.merged(runs[-2:], self._probes, threads))
        return runs

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the index to one file, whole or not at all; the same index gives the same bytes."""
        with self._writing:
            storage.write(path, *files.state(self), kind=self.kind)

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        self = object.__new__(cls)
        files.restore(self, file)
        return self

    def _fresh(self, metric: Any, kind: str, dim: int) -> None:
        """An index without rows."""
        self._store = Store.empty(metric, kind, dim, 0)
        self._n_rows = self._next_id = self._n_live = self._change = self._reuse = 0
        self._writing = Writing()

    def verify(self) -> None:
        """Check the whole index, its file's checksums included if it was loaded. Raises FormatError."""
        if self._file is not None:
            self._file.verify()
        for run in self._runs:
            files.check(run)
            for part in run.parts.values():
                part.verify()


def _some(made: Vectors, chosen: NDArray[np.bool_]) -> Vectors:
    return made if chosen.all() else Vectors(np.ascontiguousarray(made.array[chosen]), made.kind)
