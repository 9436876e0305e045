"""HNSW over anything, by a Python function: no coordinates, only distances."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import arrays, metrics, storage
from nearly.errors import InputError, StateError
from nearly.hits import Hits, RangeHits
from nearly.indexes import calibration, files, graph_files, names
from nearly.indexes.base import Index, Placed, Progress
from nearly.indexes.graph import Rules
from nearly.indexes.hnsw import HNSW
from nearly.indexes.items import FREE, ItemStore, OutsideMetric, Source, as_items, packed, unpacked
from nearly.indexes.store import NONE
from nearly.quantizers import Plain, Quantizer

__all__ = ["CallableHNSW"]


class CallableHNSW(HNSW):
    """What ``HNSW(items, metric=f)`` makes: search among items of any kind.

    Everything is there that `HNSW` has over vectors, except what needs coordinates or a second thread: there is no
    ``quantizer=``, no ``threads=`` (Python runs one at a time), no batch of queries (a list may be an item itself), and
    equal items are not recognized as such.

    Parameters
    ----------
    items : sequence
        Anything; kept in a list, not copied.
    metric : callable
        ``f(item, items) -> distances``: one item against a list of items, a float each, smaller is nearer. It need not
        be a metric in the mathematical sense, but a graph finds little where nearness is not at all transitive. It must
        not search, change or save the index.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    M, ef_construction, order, seed, progress
        As for `HNSW`; ``ef_construction`` is 100 by default.
    recall : float, default 0.95
        Mean share of the true nearest that a search should deliver, unless told otherwise.
    queries : sequence, optional
        20 items or more, like those to be searched for, to measure recall on. None: items that are searched for before
        they are inserted, some hundreds at most. No harder ones are made of them, as for vectors, so the promise holds
        for queries like the items.
    calibrate : bool, default True
        Measure recall; without, every search needs ``effort=``.

    Examples
    --------
    >>> def letters(word, words):
    ...     return [len(set(word) ^ set(other)) for other in words]
    >>> from nearly import HNSW
    >>> index = HNSW(["tea", "teas", "coffee", "milk"], metric=letters)
    >>> index.search("eat", k=2).ids.tolist()
    [0, 1]
    >>> index.get([3, 0])
    ['milk', 'tea']
    """

    kind: ClassVar[str] = "callable"
    noun: ClassVar[str] = "items"

    _source: Source
    _undone: tuple[list[int], list[NDArray[np.uint8]]] | None = None  # entries and lists before an addition

    def __init__(
        self,
        items: Sequence[Any],
        *,
        metric: Callable[[Any, Sequence[Any]], Any],
        ids: Any = None,
        M: int = 16,
        ef_construction: int = 100,
        recall: float = 0.95,
        queries: Sequence[Any] | None = None,
        calibrate: bool = True,
        order: Any = "random",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        m = arrays.check_int(M, "M", low=2, high=256)
        beam = arrays.check_int(ef_construction, "ef_construction", low=1, high=65536)
        self._rules = Rules(beam, m, 1.0, False)
        self._seed = arrays.check_seed(seed)
        self._lists, self._slots = [], []
        self._source = Source(_checked(metric))
        with self._source.asking(as_items([] if queries is None else queries, "queries")) as asked:
            self._build(
                items, ids, metric, quantizer=None, recall=recall, queries=None if queries is None else asked,
                calibrate=calibrate, order=order, threads=None, progress=progress,
            )  # fmt: skip

    def _start(self, vectors: Any, ids: Any, metric: Any, bits_hint: str = "") -> tuple[Any, Any]:
        listed = as_items(vectors)
        given = None if ids is None else arrays.as_ids(ids, n=len(listed))
        self._begin(ItemStore.over(self._source), given)
        self._writing = OutsideMetric(self._source)
        return listed, given

    def _check_queries(self, queries: Any, vectors: Any) -> NDArray[np.uint8]:
        return calibration.from_queries(queries, "").rows

    def _choose_quantizer(self, quantizer: Quantizer | None, vectors: Any) -> Quantizer:
        return Plain()

    @staticmethod
    def _threads(threads: int | None) -> int:
        return 1

    def _place(self, vectors: Any, ids: NDArray[np.int64] | None) -> Placed:
        """Each item is a node of its own."""
        n = len(vectors)
        if ids is None:
            ids = arrays.next_ids(self._next_id, n)
        spare_rows, spare_nodes = self._spare_rows[:n], self._spare_nodes[:n]
        n_rows, n_nodes = self._n_rows + n - len(spare_rows), self._n_nodes + n - len(spare_nodes)
        store = self._store.sized(n_rows, n_nodes)
        if store is not self._store:
            self._move_to(store)
        rows = np.array([*spare_rows, *range(self._n_rows, n_rows)], np.uint32)
        nodes = np.array([*spare_nodes, *range(self._n_nodes, n_nodes)], np.uint32)
        held = self._source.items
        held.extend([FREE] * (n_nodes - len(held)))
        for node, item in zip(nodes.tolist(), vectors, strict=True):
            held[node] = item
        self.__dict__.update(  # in one go: Ctrl-C comes before or after
            _spare_rows=self._spare_rows[n:], _spare_nodes=self._spare_nodes[n:], _n_rows=n_rows, _n_nodes=n_nodes
        )
        return Placed(ids, rows, nodes, nodes)

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Items have none: AttributeError."""
        raise AttributeError("items have no dimension")

    def __repr__(self) -> str:
        return f"HNSW: {len(self)} items, {self.metric}\n  {self.plan}"

    def _describe(self) -> str:
        curve = "not calibrated" if self.curve is None else f"calibrated on {self.curve.n_queries} queries"
        return (f"{self._describe_graph()}, distances by a Python function, recall {self._contract.target:g}, "
                f"{curve}")  # fmt: skip

    def get(self, ids: Any) -> Any:
        """Return stored items.

        Parameters
        ----------
        ids : int or array-like of int

        Returns
        -------
        object, or list of objects
            The item of one id, or those of several, in their order.

        Raises
        ------
        IdError
            If an id is not in the index.
        """
        single = isinstance(ids, int | np.integer) and not isinstance(ids, bool)
        wanted = arrays.as_ids(ids, unique=False)

        def read() -> list[Any]:
            rows = self._id_map().known(wanted, "get")
            nodes = np.minimum(self._store.column("nodes")[rows], max(0, len(self._source.items) - 1))
            return [self._source.items[node] for node in nodes.tolist()]  # of rows that lost it: read again then

        found: list[Any] = self._steadily(read)
        return found[0] if single else found

    # -- searching ---------------------------------------------------------------------------------------------------

    def _queries(self, queries: Any) -> tuple[NDArray[np.uint8], bool]:
        return queries, True  # the core's bytes already

    def search(  # type: ignore[override]
        self, query: Any, k: int = 10, *, recall: float | None = None, effort: int | None = None,
        exact: bool = False, where: Any = None, **unknown: Any,
    ) -> Hits:  # fmt: skip
        """Return the k items nearest to one query, at the recall that the index was built for unless told otherwise.

        Parameters
        ----------
        query : object
            What the metric takes; one.
        k, recall, effort, exact, where
            As for `HNSW`.

        Returns
        -------
        Hits

        Examples
        --------
        >>> from nearly import HNSW
        >>> index = HNSW(list(range(0, 100, 10)), metric=lambda x, others: [abs(x - y) for y in others])
        >>> index.search(42, k=2).ids.tolist(), index.range_search(42, 10).ids.tolist()
        ([4, 5], [4, 5])
        """
        names.refuse("search()", unknown, ("k", "recall", "effort", "exact", "where"))
        with self._source.asking([query]) as asked:
            return super().search(asked, k, recall=recall, effort=effort, exact=exact, where=where)

    def search_many(self, queries: Any, k: int = 10, **options: Any) -> Hits:
        """Refused, as all batches are here: call `search` for each item.

        Parameters
        ----------
        queries, k, **options
            As for other indexes.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError("a metric in Python is asked for one query at a time; call search for each of them")

    def range_search(  # type: ignore[override]
        self, query: Any, radius: float, *, where: Any = None, **unknown: Any
    ) -> RangeHits:
        """Return every item within a radius of one query: exact.

        Parameters
        ----------
        query : object
        radius : float
            Inclusive, as the metric gives distances.
        where : array-like, optional
            As in ``search``.

        Returns
        -------
        RangeHits
        """
        names.refuse("range_search(), which is exact,", unknown, ("radius", "where"))
        with self._source.asking([query]) as asked:
            return super().range_search(asked, radius, where=where)

    def calibrate(  # type: ignore[override]
        self, queries: Sequence[Any] | None = None, *, progress: Progress | None = None
    ) -> None:
        """Measure recall anew, on queries like those to come.

        Parameters
        ----------
        queries : sequence, optional
            A few hundred items at least, not of the index themselves. None builds another graph of the same items
            to search it for some before they are inserted: it takes as long as building the index anew.
        progress : callable, optional
            As for `HNSW`: trials of the queries, or items of the other graph.
        """
        arrays.check_callback(progress, "progress")
        with self._writing:
            if not len(self):
                raise StateError("an empty index cannot be calibrated; add items first")
            if queries is not None:
                with self._source.asking(as_items(queries, "queries")) as asked:
                    probes = calibration.from_queries(asked, "the queries passed to calibrate")
                    self._contract.measure(self, probes, threads=1, progress=progress)
                return
            live = self._store.column("first_rows")[: self._n_nodes] != NONE
            another = CallableHNSW(
                [self._source.items[node] for node in np.flatnonzero(live).tolist()], metric=self._source.metric,
                M=self._rules.new_degree, ef_construction=self._rules.beam, seed=self._seed,
                progress=progress,
            )  # fmt: skip
            self._contract.adopt(another._contract, len(self))

    # -- changing ----------------------------------------------------------------------------------------------------

    def _incoming(self, vectors: Any, ids: Any, *, fresh: bool) -> tuple[Any, NDArray[np.int64] | None]:
        listed = as_items(vectors)
        return listed, self._new_ids(ids, len(listed), fresh=fresh)

    def add(  # type: ignore[override]
        self, items: Sequence[Any], *, ids: Any = None, progress: Progress | None = None
    ) -> NDArray[np.int64]:
        """Add items, while others may search.

        Parameters
        ----------
        items : sequence
        ids : array-like of int, optional
            New to the index; None continues after the largest id ever given.
        progress : callable, optional
            As for `HNSW`.

        Returns
        -------
        ndarray of shape (n,), int64
            Their ids.

        Raises
        ------
        IdError
            If an id is taken or repeated; nothing is added then. Nor is anything if the metric raises.

        Notes
        -----
        Recall is measured anew once there are twice as many items, as `calibrate` does; meanwhile searches by
        ``recall=`` take more effort, as many times as there are more items.
        """
        return super().add(items, ids=ids, progress=progress)

    def upsert(  # type: ignore[override]
        self, items: Sequence[Any], *, ids: Any, progress: Progress | None = None
    ) -> NDArray[np.int64]:
        """Add items, replacing those whose ids are there, at one moment for all who search meanwhile.

        Parameters
        ----------
        items : sequence
        ids : array-like of int
            Each once.
        progress : callable, optional

        Returns
        -------
        ndarray of shape (n,), int64
            The ids.
        """
        return super().upsert(items, ids=ids, progress=progress)

    def consolidate(self) -> None:  # type: ignore[override]
        """Repair the lists around removed items and forget them; happens by itself when many are gone."""
        super().consolidate()

    def _link(self, placed: Placed, threads: int, report: Any = None) -> None:
        self._undone = list(self._graph.entries), [table.array().copy() for table in self._lists]
        super()._link(placed, threads, report)

    def _undo(self, before: dict[str, Any], placed: Placed | None) -> None:
        """Lists as they were, without asking a metric that may be what was broken."""
        Index._undo(self, before, placed)
        if not self._n_nodes:
            return
        self._lay_out(np.zeros(0, np.uint32))
        self._assemble(self._graph.n_nodes)
        if self._undone is None:
            return
        (entries, lists), self._undone = self._undone, None
        for i, table in enumerate(self._lists):
            array, n = table.array(), len(lists[i]) if i < len(lists) else 0  # a new layer held nothing
            array[n:] = 255
            if n:
                array[:n] = lists[i]
        self._graph.entries = entries

    def _changed(self, n: int) -> None:
        self._undone = None
        self._contract.note(n)
        self._tidy()
        if self._contract.due(len(self)) if self.curve is None else self._contract.worn:  # it builds another graph
            self.calibrate()

    def _clear(self, nodes: NDArray[np.uint32]) -> None:
        super()._clear(nodes)
        for node in nodes.tolist():
            self._source.items[node] = FREE

    # -- files -------------------------------------------------------------------------------------------------------

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        held = self._source.items[: self._n_nodes]
        for node in self._spare_nodes:
            held[node] = FREE
        parts, form = packed(held)
        extra, config = super()._state()
        return {**extra, **parts}, {**config, "items": {"form": form}}

    def save(self, path: Any) -> None:
        """Write the index to one file, whole or not at all, without its function.

        Items that are strings, numbers or equally long arrays of numbers are saved with it: ``nearly.load(path,
        metric=f)``. Other items are given again, in ascending order of their ids: ``nearly.load(path, metric=f,
        items=[...])``; such an index is consolidated first, so that no removed item is needed.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced.
        """
        with self._writing:
            if self._n_removed and packed(self._source.items[: self._n_nodes])[1] == "given":
                self.consolidate()
            super().save(path)

    @classmethod
    def _open(cls, file: storage.File, metric: Any, items: Any) -> Self:
        if not callable(metric):
            raise InputError("this index was built with a callable metric, which is not saved; pass load(path, "
                             "metric=f)")  # fmt: skip
        self = object.__new__(cls)
        self._source = Source(_checked(metric))
        files.restore(self, file, lambda *sizes: ItemStore.borrowed(self._source, *sizes))
        graph_files.restore(self, file, Rules)
        self._writing = OutsideMetric(self._source)
        held = unpacked(file, self._n_nodes)
        if held is None:
            held = self._given(items)
        elif items is not None:
            raise InputError("items= is for indexes whose items could not be saved; this file holds them, leave it out")
        self._source.items = held
        return self

    def _given(self, items: Any) -> list[Any]:
        """Items in order of ids, each at its node."""
        if items is None:
            raise InputError("the items of this index are no strings, numbers or arrays, so they were not saved; pass "
                             "load(path, metric=f, items=...): items in ascending order of ids")  # fmt: skip
        listed = as_items(items)
        ids = self.ids
        if len(listed) != len(ids):
            raise InputError(f"items has {len(listed)} entries, but the index holds {len(ids)}: one for each id, in "
                             "ascending order")  # fmt: skip
        held = [FREE] * self._n_nodes
        nodes = self._store.column("nodes")[self._id_map().known(ids, "load")]
        for node, item in zip(nodes.tolist(), listed, strict=True):
            held[node] = item
        return held


def _checked(metric: Any) -> metrics.CallableMetric:
    chosen = metrics.get(metric)
    if not isinstance(chosen, metrics.CallableMetric):
        raise InputError(f"metric is {metric!r}, but a function f(item, items) -> distances is wanted")
    return chosen
