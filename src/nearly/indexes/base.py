"""What all indexes do alike: the door, ids, filters, changes, files. A kind of index adds how it searches."""

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, metrics, storage
from nearly.arrays import Vectors
from nearly.errors import DimensionError, IdError, InputError, NearlyError
from nearly.hits import Hits, RangeHits, SearchContext
from nearly.indexes import files, names
from nearly.indexes.allowed import Allowed, passing
from nearly.indexes.each import search_each
from nearly.indexes.filed import FiledStore
from nearly.indexes.progress import reporter
from nearly.indexes.store import NONE, IdMap, Store, check_range, narrow
from nearly.indexes.writing import Writing

__all__ = ["REFINE", "Index", "Placed", "Progress", "surely"]

Progress = Callable[[int, int], None]  # (vectors done, vectors in all)
REFINE = ("memory", "float16", "disk")  # where full vectors may be kept
_NO_ROWS = np.zeros(0, np.uint32)
_PADDED = 1 << 16  # columns that an answer may have however few vectors there are
_AT_ONCE = 8192  # vectors converted to the stored type at a time
_SHARED = 17  # queries that the core compares with blocks of rows,
_PRODUCTS = ("l2", "cosine", "ip")  # under these metrics


def surely(step: Callable[[], None]) -> None:
    """Take a step from which there is no way back: once more from its beginning when Ctrl-C comes amidst it."""
    try:
        step()
    except BaseException:
        step()
        raise


class Placed(NamedTuple):
    """Vectors that have their places and are not seen yet: the id, row and node of each, and the nodes that are new."""

    ids: NDArray[np.int64]
    rows: NDArray[np.uint32]
    nodes: NDArray[np.uint32]
    fresh: NDArray[np.uint32]


class Index:
    """Vectors that can be searched. Not made itself: see `Flat`, `Vamana`, `HNSW`, or `nearly.build`."""

    kind: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ("float", "bits")  # what a metric may compare
    noun: ClassVar[str] = "vectors"  # what is searched, for people
    _refine: str = "memory"  # where full vectors are kept

    _store: Store
    _n_rows: int  # rows given out, removed ones included
    _n_nodes: int
    _n_live: int  # rows that are seen
    _n_removed: int  # rows removed whose place is not free yet
    _pending: list[int]  # those rows, where places are freed one by one; never changed in place
    _next_id: int
    _own_ids: bool  # ids were passed, so a mask has no meaning
    _ids: tuple[int, IdMap] | None  # the map, and the change it was made after
    # Of which change and table; whether rows are ids; where rows hang.
    _identity: "tuple[int, Any, bool, _core.NodeRuns | None] | None" = None
    _filters: "WeakKeyDictionary[Any, tuple[int, Allowed]] | None" = None  # what objects meant, and after which change
    _change: int  # counts changes of rows
    _reuse: int  # counts, in twos, what gives rows another meaning; odd meanwhile
    _distinct: Any
    _spare_rows: list[int]
    _spare_nodes: list[int]

    # -- making ------------------------------------------------------------------------------------------------------

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Say which argument of the constructor is meant by a name that others use."""
        known = names.known_to(cls.__init__)
        names.refuse(f"{cls.__name__}()", (name for name in options if name not in known), known)
        return super().__new__(cls)

    def _start(self, vectors: Any, ids: Any, metric: Any, bits_hint: str = "vectors") -> tuple[Vectors, Any]:
        """Check the arguments of a constructor before anything is built; set up an empty store."""
        chosen = metrics.named(metric)
        made = arrays.as_vectors(vectors, bits=chosen.input == "bits")
        arrays.check_finite(made)
        if made.dim == 0 and len(made):
            raise InputError("vectors has no columns; pass an array of shape (n, dim) with dim of at least 1")
        if made.dim > 32768:
            raise InputError(f"vectors has {made.dim} columns; at most 32768 are supported")
        given = None if ids is None else arrays.as_ids(ids, n=len(made))
        if self._refine == "float16" and chosen.input == "bits":
            raise InputError(f'{chosen.name} compares bits, which refine="float16" does not keep; leave refine= out')
        widest = "float16" if self._refine == "float16" else "float32"
        check_range(made, widest)
        kind: type[Store] = FiledStore if self._refine == "disk" else Store
        self._begin(kind.empty(chosen, narrow(made, widest), max(1, made.dim), len(made), widest), given)
        return made, given

    def _begin(self, store: Store, given: NDArray[np.int64] | None) -> None:
        """What holds of every index before its first row."""
        self._store = store
        self._n_rows = self._n_nodes = self._next_id = self._n_live = self._n_removed = 0
        self._change = self._reuse = 0
        self._pending = []
        self._own_ids = given is not None
        self._ids = None
        self._distinct = None
        self._spare_rows, self._spare_nodes = [], []
        self._writing = Writing()

    def _place(self, vectors: Vectors, ids: NDArray[np.int64] | None) -> Placed:
        """Put vectors at nodes, and have a row ready for each that nobody sees yet: `_show` follows."""
        n = len(vectors)
        if not n:
            return Placed(np.zeros(0, np.int64), *(np.zeros(0, np.uint32) for _ in range(3)))
        if not self._store.takes(vectors):
            self._move_to(self._store.converted(self._store.widest))
        store = self._store
        if ids is None:
            ids = arrays.next_ids(self._next_id, n)
        rows_spare = self._spare_rows[:n]
        n_rows = self._n_rows + n - len(rows_spare)
        store = store.writable().sized(n_rows, self._n_nodes + max(0, n - len(self._spare_nodes)))
        if store is not self._store:
            self._move_to(store)
        if self._distinct is None:
            self._distinct = store.distinct(self._n_nodes)
        nodes, fresh = np.empty(n, np.uint32), np.empty(n, np.uint32)
        spare = np.array(self._spare_nodes, np.uint32)
        n_fresh = 0
        for first in range(0, n, _AT_ONCE):  # converted in parts: a copy of all would be the peak of a build
            part = Vectors(vectors.array[first : first + _AT_ONCE], vectors.kind)
            n_fresh += self._distinct.place(
                store.placer, store.as_stored(part), self._n_nodes + max(0, n_fresh - len(spare)), spare[n_fresh:],
                nodes[first : first + len(part)], fresh[n_fresh : n_fresh + len(part)],
            )  # fmt: skip
        rows = np.concatenate([np.array(rows_spare, np.uint32), np.arange(self._n_rows, n_rows, dtype=np.uint32)])
        self.__dict__.update(  # in one go: Ctrl-C comes before or after
            _spare_rows=self._spare_rows[len(rows_spare) :],
            _spare_nodes=self._spare_nodes[min(n_fresh, len(spare)) :],
            _n_rows=n_rows,
            _n_nodes=self._n_nodes + max(0, n_fresh - len(spare)),
        )
        return Placed(ids, rows, nodes, fresh[:n_fresh])

    def _show(self, placed: Placed, instead_of: NDArray[np.uint32] = _NO_ROWS) -> None:
        """Let readers see what was placed, at one moment with the loss of the rows that it replaces."""
        ids, rows, nodes, _ = placed
        if not len(ids):
            return
        store, of_rows = self._store, self._store.column("nodes")
        order = np.argsort(ids, kind="stable")  # chains ascend by id: linked in that order, each link is at the end
        links = rows[order], ids[order], nodes[order]
        after = {
            "_next_id": max(self._next_id, int(ids.max()) + 1), "_n_live": self._n_live + len(ids) - len(instead_of),
            "_n_removed": self._n_removed + len(instead_of), "_pending": [*self._pending, *instead_of.tolist()],
            "_change": self._change + 1, "_reuse": self._reuse + 2,
        }  # fmt: skip
        if not len(instead_of):
            self._reuse += 1  # of freed rows some serve other ids now
            store.rows.link(*links)
            of_rows[rows] = nodes
            self.__dict__.update(after)
            return
        store.rows.prepare(*links, instead_of, of_rows[instead_of])

        def exchange() -> None:
            self._reuse |= 1
            store.rows.exchange()
            of_rows[instead_of] = NONE
            of_rows[rows] = nodes
            self.__dict__.update(after)
            store.rows.settle()

        surely(exchange)

    def _undo(self, before: dict[str, Any], placed: Placed | None) -> None:
        """Leave the index as it was before an addition that was broken off; places that it took count as removed."""
        store, spare = self._store, before["_spare_rows"]
        taken = [*spare[: len(spare) - len(self._spare_rows)], *range(before["_n_rows"], self._n_rows)]
        if store.rows.exchanging:
            store.rows.call_off()
        if placed is not None:
            store.rows.unlink(placed.rows, placed.nodes)  # those that hang
            store.column("nodes")[placed.rows] = NONE
        self.__dict__.update(
            _distinct=None,  # it knows vectors that no list leads to
            _next_id=before["_next_id"], _n_live=before["_n_live"], _n_removed=before["_n_removed"] + len(taken),
            _pending=[*before["_pending"], *taken], _change=self._change + 1, _reuse=self._reuse + self._reuse % 2,
        )  # fmt: skip
        if not before["_n_rows"]:
            self._clear_out()

    def _clear_out(self) -> None:
        """Nothing was here: the next vectors are the first, whatever their dimension."""
        self.__dict__.update(_n_rows=0, _n_nodes=0, _n_removed=0, _pending=[], _spare_rows=[], _spare_nodes=[])
        self._move_to(self._store.emptied())

    def _move_to(self, store: Store) -> None:
        """Other tables take the place of those there are; readers that come late for the old ones ask again."""
        old, self._store = self._store, store
        self._distinct = None
        self._replaced()
        old.rows.retire()

    def _replaced(self) -> None:
        """The store is a new object: whoever points into it must follow."""

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self._store.metric.name

    @property
    def dim(self) -> int:
        """Columns of a vector; bytes for bit metrics."""
        return self._store.dim

    @property
    def ids(self) -> NDArray[np.int64]:
        """Ids in the index, ascending."""

        def read() -> NDArray[np.int64]:
            n, store = self._n_rows, self._store
            return np.sort(store.column("ids")[:n][store.column("nodes")[:n] != NONE])

        return cast("NDArray[np.int64]", self._steadily(read))

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds; vectors on disk do not count."""
        return self._store.n_bytes

    @property
    def plan(self) -> str:
        """What the index is and why."""
        return self._describe() + (f" ({self._why})" if self._why else "")

    _why: str = ""  # what `build` chose it for

    def _describe(self) -> str:
        raise AssertionError("each kind says its own")  # pragma: no cover

    def __len__(self) -> int:
        return self._n_live

    def __contains__(self, id: object) -> bool:
        if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < 2**63:
            return False
        return bool(self._steadily(lambda: self._id_map().rows(np.array([id], np.int64))[1][0]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {len(self)} vectors of dimension {self.dim}, {self.metric}\n  {self.plan}"

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be pickled; use index.save(path) and nearly.load(path)")

    def get(self, ids: Any) -> NDArray[Any]:
        """Return stored vectors.

        Parameters
        ----------
        ids : int or array-like of int

        Returns
        -------
        ndarray of shape (n, dim), or (dim,) for one id
            As they came, in the stored element type (float32 that was narrowed comes back as float32).

        Raises
        ------
        IdError
            If an id is not in the index.
        """
        single = isinstance(ids, int | np.integer) and not isinstance(ids, bool)
        wanted = arrays.as_ids(ids, unique=False)

        def read() -> Vectors:
            rows, store = self._id_map().known(wanted, "get"), self._store
            nodes = store.column("nodes")
            found = nodes[np.minimum(rows, max(0, len(nodes) - 1))]
            return store.raw(np.where(found == NONE, 0, found))  # of rows that lost their meaning: read again then

        made: Vectors = self._steadily(read)
        out = made.array if made.kind in ("bits", "int8") else made.as_float32()
        return out[0] if single else out

    def _id_map(self) -> IdMap:
        held, change = self._ids, self._change
        if held is None or held[0] != change:  # a reader's map of rows that change meanwhile counts as old
            n, store = self._n_rows, self._store
            held = self._ids = change, IdMap(store.column("ids")[:n], store.column("nodes")[:n])
        return held[1]

    # -- searching ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _refuse(unknown: Mapping[str, Any]) -> None:
        """Say which argument of `search` is meant by a name that others use."""
        names.refuse("search()", unknown, ("k", "recall", "effort", "exact", "where", "threads"))

    def _queries(self, queries: Any) -> tuple[NDArray[np.uint8], bool]:
        """Queries as the core takes them: bytes of float32 rows, or packed bits."""
        bits = self._store.metric.input == "bits"
        made, single = arrays.as_queries(queries, bits=bits)
        if made.dim != self.dim and self._n_rows:
            raise DimensionError("queries", got=made.dim, expected=self.dim)
        if made.kind in ("float32", "float16", "bfloat16"):
            arrays.check_finite(made, "queries")
        rows = made.array if bits else made.as_float32()
        if made.dim != self.dim:  # the first vectors decide the dimension of an empty index: nothing is found in any
            rows = np.zeros((len(rows), self.dim), rows.dtype)
        rows = np.ascontiguousarray(rows)
        return rows.view(np.uint8).reshape(len(rows), rows.shape[1] * rows.itemsize), single

    def _for_each(self, queries: Any, where: Any, k: Any, **options: Any) -> Hits:
        """What `search` finds for each query under a filter of its own."""
        bits = self._store.metric.input == "bits"
        made, single = arrays.as_queries(queries, bits=bits)
        if made.kind in ("float32", "float16", "bfloat16"):
            arrays.check_finite(made, "queries")  # here, where the rows have their numbers
        search = cast(Any, self).search
        return search_each(
            lambda some, one: search(some, k, where=one, **options),
            made.array if bits else made.as_float32(),
            single,
            where,
        )

    def _filter(self, where: Any) -> Allowed:
        """The rows that pass."""
        return self._remembered(where) or passing(self, where)

    def _remembered(self, where: Any) -> Allowed | None:
        """What an object means that stays the same: asked for again, it costs nothing."""
        if type(where) is Allowed:
            return where
        if getattr(type(where), "__nearly_bits__", None) is None:
            return None
        filters, change = self._filters, self._change
        if filters is None:
            filters = self._filters = WeakKeyDictionary()
        known = filters.get(where)
        if known is None or known[0] != change:
            known = filters[where] = change, passing(self, where)
        return known[1]

    def _rows_are_ids(self) -> bool:
        """Row i has id i, for all rows."""
        return self._looked_at()[2]

    def _node_runs(self) -> "_core.NodeRuns | None":
        """Where rows hang; None where row i hangs on node i, for all rows."""
        return self._looked_at()[3]

    def _looked_at(self) -> "tuple[int, Any, bool, _core.NodeRuns | None]":
        known = self._identity
        if known is None or known[0] != self._change or known[1] is not self._store.nodes:
            change, n, store = self._change, self._n_rows, self._store
            ids, nodes, plain = store.column("ids")[:n], store.column("nodes")[:n], np.arange(n)
            same = len(ids) == self._next_id and bool((ids == plain[: len(ids)]).all())
            alike = len(nodes) == n and bool((nodes == plain).all())
            runs = None if alike else _core.NodeRuns(store.nodes, len(nodes))
            known = self._identity = change, store.nodes, same, runs
        return known

    def _columns(self, k: Any) -> int:
        """Columns of an answer: k, less what would be padding alone where that could fill the memory."""
        return min(arrays.check_k(k), max(self._n_live, _PADDED))

    def _scan(
        self, rows: NDArray[np.uint8], k: int, single: bool, allowed: Allowed | None, threads: int, plan: str
    ) -> Hits:
        """Compare with every vector, or with every one that passes."""
        n, passing = len(rows), len(self) if allowed is None else allowed.n
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        compared = self._scan_into(rows, ids, distances, counts := np.empty(n, np.uint32), allowed, threads)
        for _ in range(3):  # rows that a writer removed between being found and being written leave gaps
            short = np.flatnonzero(counts < min(k, passing, len(self)))
            if not len(short):
                break
            some = ids[short], distances[short], counts[short]
            compared += self._scan_into(rows[short], *some, allowed, threads)
            ids[short], distances[short], counts[short] = some
        return Hits(ids, distances, single, SearchContext(self._store.metric, plan, 1.0), (compared, 0, 0))

    def _scan_into(
        self, rows: NDArray[np.uint8], ids: NDArray[np.int64], distances: NDArray[np.float32],
        counts: NDArray[np.uint32], allowed: Allowed | None, threads: int,
    ) -> int:  # fmt: skip
        """Fill in the nearest; returns the number of comparisons."""
        compared = None
        while compared is None:  # until the store that was read is not retired meanwhile
            n_nodes, store = self._snapshot()
            bits = only = None
            if allowed is not None:
                bits, shared = allowed.bits, 32 if self._by_blocks(len(rows)) else 4
                if allowed.n * shared < n_nodes:
                    only = allowed.nodes(self).below(n_nodes)
            compared = _core.scan(store.scorer, store.rows, n_nodes, store.query_bytes, rows, store.metric.number, ids,
                                  distances, counts, bits, only, threads)  # fmt: skip
        return compared

    def search_many(
        self, queries: Any, k: int = 10, *, recall: float | None = None, exact: bool = False, where: Any = None,
        threads: int | None = None,
    ) -> Hits:  # fmt: skip
        """Search for many queries together: as `search`, in less time where so many are.

        An answer of `search` does not depend on which queries come along. Here it may: a graph compares a large batch
        with everything, or with all that passes ``where``, by blocks of codes where that is sooner than so many walks.
        It has the recall that was asked for in either case.

        Parameters
        ----------
        queries : array-like of shape (n_queries, dim)
        k : int, default 10
        recall : float, optional
        exact : bool, default False
        where : array-like of bool or int, Filter, or a list of such, optional
        threads : int, optional
            All as for `search`.

        Returns
        -------
        Hits

        Examples
        --------
        >>> import nearly
        >>> index = nearly.Flat(np.eye(4, dtype=np.float32))
        >>> index.search_many(np.eye(4), k=1).ids.ravel().tolist()
        [0, 1, 2, 3]
        """
        exact = arrays.check_flag(exact, "exact")
        options = {"recall": recall, "exact": exact or None, "where": where, "threads": threads}
        given = {name: value for name, value in options.items() if value is not None}  # not all are known to all
        return cast(Hits, cast(Any, self).search(queries, k, **given))

    def _by_blocks(self, n_queries: int) -> bool:
        """Whether a scan compares so many queries with blocks of rows, by products."""
        store = self._store
        return n_queries >= _SHARED and store.metric.name in _PRODUCTS and store.kept not in ("disk", "none")

    def _steadily(self, search: Callable[[], Any]) -> Any:
        """What a filtered search found while its rows kept their meaning: rows that are freed serve other ids."""
        for _ in range(8):
            before = self._reuse
            try:
                found = search()
            except NearlyError:  # an id that is on its way from one row to another, say
                if before % 2 == 0 and before == self._reuse:
                    raise
                continue
            if before % 2 == 0 and before == self._reuse:
                return found
        with self._writing:
            return search()

    def range_search(
        self, queries: Any, radius: float, *, where: Any = None, threads: int | None = None, **unknown: Any
    ) -> RangeHits:
        """Return every vector within a radius: exact.

        Parameters
        ----------
        queries : array-like of shape (dim,) or (n_queries, dim)
        radius : float
            Inclusive, in the unit of ``distances`` (under ip the negated inner product).
        where : array-like, optional
            As in ``search``.
        threads : int, optional

        Returns
        -------
        RangeHits
        """
        names.refuse("range_search(), which is exact,", unknown, ("radius", "where", "threads"))
        rows, single = self._queries(queries)
        limit, workers = arrays.check_real(radius, "radius"), self._threads(threads)

        def scan() -> RangeHits:
            bits = None if where is None else self._filter(where).bits
            found = None
            while found is None:
                n_nodes, store = self._snapshot()
                found = _core.scan_radius(store.scorer, store.rows, n_nodes, store.query_bytes, rows,
                                          store.metric.number, limit, bits, workers)  # fmt: skip
            context = SearchContext(store.metric, f"exact scan of {len(self)} {self.noun}", 1.0)
            return RangeHits(*found, single, context, (n_nodes * len(rows), 0, 0))

        return scan() if where is None else self._steadily(scan)

    def _snapshot(self) -> tuple[int, Store]:
        """Nodes that may be read, and where: the store may be newer than the number, and a compacted one is smaller."""
        n_nodes, store = self._n_nodes, self._store
        return min(n_nodes, store.first_rows.rows), store

    @staticmethod
    def _threads(threads: int | None) -> int:
        return 0 if threads is None else arrays.check_int(threads, "threads", low=1, high=1024)

    # -- changing ----------------------------------------------------------------------------------------------------

    def _incoming(self, vectors: Any, ids: Any, *, fresh: bool) -> tuple[Vectors, NDArray[np.int64] | None]:
        """Check what `add` and `upsert` are given; nothing has changed yet."""
        made = arrays.as_vectors(
            vectors, bits=self._store.metric.input == "bits", dim=self.dim if self._n_rows else None
        )
        arrays.check_finite(made)
        check_range(made, self._store.widest)
        return made, self._new_ids(ids, len(made), fresh=fresh)

    def _new_ids(self, ids: Any, n: int, *, fresh: bool) -> NDArray[np.int64] | None:
        """Check ids of n vectors; fresh ones must not be taken."""
        given = None if ids is None else arrays.as_ids(ids, n=n)
        if given is not None and fresh:
            _, taken = self._id_map().rows(given)
            if taken.any():
                listed = ", ".join(str(i) for i in given[taken][:5].tolist()) + (", ..." if taken.sum() > 5 else "")
                raise IdError(
                    f"{int(taken.sum())} of the ids are taken: {listed}; pass others, or use upsert to replace"
                )
        return given

    def add(
        self, vectors: Any, *, ids: Any = None, threads: int | None = None, progress: Progress | None = None
    ) -> NDArray[np.int64]:
        """Add vectors, while others may search.

        Parameters
        ----------
        vectors : array-like of shape (n, dim)
        ids : array-like of int, optional
            New to the index; None continues after the largest id ever given.
        threads : int, optional
        progress : callable, optional
            ``progress(vectors done, vectors in all)``, called while they are linked. None: a bar on a terminal.

        Returns
        -------
        ndarray of shape (n,), int64
            Their ids.

        Raises
        ------
        IdError
            If an id is taken or repeated; nothing is added then.

        Notes
        -----
        All of them are added, or none: Ctrl-C while they are linked leaves the index as it was. Where an addition makes
        a calibration due, that comes afterwards; if it is broken off, the vectors are there and the next change
        repeats it.
        """
        arrays.check_callback(progress, "progress")
        workers = self._threads(threads)
        with self._writing:
            made, given = self._incoming(vectors, ids, fresh=True)
            return self._add(made, given, workers, _NO_ROWS, progress)

    def _add(
        self, vectors: Vectors, ids: NDArray[np.int64] | None, threads: int, instead_of: NDArray[np.uint32],
        progress: Progress | None,
    ) -> NDArray[np.int64]:  # fmt: skip
        """Add vectors and lose the rows that they replace: if anything is raised before that moment nothing changed."""
        if not len(vectors):
            return np.zeros(0, np.int64)
        if self._n_rows == 0 and vectors.dim and vectors.dim != self.dim:
            self._move_to(self._store.fitting(vectors, len(vectors)))
        if self._n_nodes:
            self._own()
        self._tidy()
        before, placed = dict(self.__dict__), None
        try:
            placed = self._place(vectors, ids)
            report = reporter(progress, len(vectors))
            self._link(placed, threads, report)
            if report is not None:
                report(len(vectors))
            self._show(placed, instead_of)
        except BaseException:
            if self._change == before["_change"]:  # nobody has seen them
                self._undo(before, placed)
            raise
        self._own_ids = self._own_ids or ids is not None
        self._changed(len(placed.ids) + len(instead_of))
        return placed.ids

    def _link(self, placed: Placed, threads: int, report: Any = None) -> None:
        """Lead searches to what was placed, where a scan of all does not find it anyway; report how many are."""

    def _changed(self, n: int) -> None:
        """So many rows came or went."""
        self._tidy()

    def _tidy(self) -> None:
        """A kind of index may clean up when much is gone; what is broken off here, the next change does first."""

    def remove(self, ids: Any) -> None:
        """Remove vectors by id, while others may search.

        Parameters
        ----------
        ids : int or array-like of int

        Raises
        ------
        IdError
            If an id is not in the index; nothing is removed then.
        """
        wanted = arrays.as_ids(ids)
        with self._writing:
            rows = self._id_map().known(wanted, "remove")
            self._own()
            nodes = self._store.column("nodes")
            links = rows, np.ascontiguousarray(nodes[rows])
            after = {
                "_n_live": self._n_live - len(rows), "_n_removed": self._n_removed + len(rows),
                "_pending": [*self._pending, *rows.tolist()], "_change": self._change + 1,
            }  # fmt: skip

            def let_go() -> None:
                self._store.rows.unlink(*links)
                nodes[rows] = NONE
                self.__dict__.update(after)

            surely(let_go)
            self._changed(len(rows))

    def upsert(
        self, vectors: Any, *, ids: Any, threads: int | None = None, progress: Progress | None = None
    ) -> NDArray[np.int64]:
        """Add vectors, replacing those whose ids are there, at one moment for all who search meanwhile.

        Parameters
        ----------
        vectors : array-like of shape (n, dim)
        ids : array-like of int
            Each once.
        threads : int, optional
        progress : callable, optional
            As for ``add``.

        Returns
        -------
        ndarray of shape (n,), int64
            The ids.

        Notes
        -----
        An answer holds the old vector of each id or the new one: never neither, never both. All are replaced, or none,
        as for `add`. Waits twice until searches that have begun have ended.
        """
        arrays.check_callback(progress, "progress")
        workers = self._threads(threads)
        with self._writing:
            made, given = self._incoming(vectors, ids, fresh=False)
            if given is None:
                raise InputError("upsert needs ids=: which vectors to replace")
            rows, known = self._id_map().rows(given)
            return self._add(made, given, workers, rows[known], progress)

    def _own(self) -> None:
        """Make the tables this process's own: a loaded index is a read-only mapping until its first change."""
        store = self._store.sized(self._n_rows, self._n_nodes)
        if store is not self._store:
            self._move_to(store)

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one file, whole or not at all; the same index gives the same bytes.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced.
        """
        with self._writing:
            parts, config = files.state(self)
            extra, more = self._state()
            storage.write(path, {**parts, **extra}, {**config, **more}, kind=self.kind)

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and configuration beyond the store's."""
        return {}, {}

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        """Make an index of an opened file; everything but the vectors themselves is checked."""
        self = cls.__new__(cls)
        files.restore(self, file)
        return self

    _file: storage.File | None = None

    def verify(self) -> None:
        """Check the whole index, its file's checksums included if it was loaded.

        Raises
        ------
        FormatError
            If anything does not fit.
        """
        if self._file is not None:
            self._file.verify()
        with self._writing:
            self._store.check(self._n_rows, self._n_nodes)
