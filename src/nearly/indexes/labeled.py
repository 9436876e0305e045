"""What a graph does that keeps labels: it is linked for walks within them, and searched by filters over them.

What labels there are is in labels.py, how far walks within one must go in label_walks.py.
"""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nearly import arrays, storage
from nearly.arrays import Vectors
from nearly.errors import InputError
from nearly.hits import Hits
from nearly.indexes.allowed import Allowed
from nearly.indexes.base import Placed, Progress
from nearly.indexes.contract import MOST
from nearly.indexes.graph import GraphIndex
from nearly.indexes.travel import NOBODY

if TYPE_CHECKING:
    from nearly.filters import Column
    from nearly.indexes.label_walks import LabelContract
    from nearly.indexes.labels import Labels, Within

__all__ = ["LabeledGraph"]


class LabeledGraph(GraphIndex):
    """A graph that may keep labels. Not made itself: see `Vamana`."""

    _labels: "Labels | None" = None
    _label_contract: "LabelContract | None" = None
    _coming: "Column | None" = None  # labels of what is being built or added
    _labeled: tuple[Any, ...] = ()  # the graph that was told of labels, and their tables then

    # -- building ------------------------------------------------------------------------------------------------------

    def _begin_labels(self, labels: Any) -> None:
        """Check the labels of a build; None keeps none."""
        if labels is not None:
            from nearly.indexes.label_walks import LabelContract
            from nearly.indexes.labels import Labels, as_labels, no_labels

            self._coming, self._label_contract = as_labels(labels), LabelContract()
            self._labels = Labels(no_labels(self._coming, 0))

    def _start(self, vectors: Any, ids: Any, metric: Any, bits_hint: str = "vectors") -> tuple[Vectors, Any]:
        made, given = super()._start(vectors, ids, metric, bits_hint)
        self._check_labels(len(made))
        return made, given

    def _label_first(self, fresh: NDArray[np.uint32]) -> None:
        """Give the rows of a build their labels: all have their nodes, and none is linked."""
        if self._graph is None and self._coming is not None:
            rows = np.arange(len(self._coming), dtype=np.uint32)
            self._give_labels(rows, self._store.column("nodes")[: len(rows)].copy(), fresh)

    def _weave(
        self, chosen: NDArray[np.uint32], held: int, probes: NDArray[np.uint8] | None, workers: int, report: Any
    ) -> None:
        super()._weave(chosen, held, probes, workers, report)
        if self._labels is not None:
            self._graph.connect_labels(self._rules.beam)
            self._measure_labels(workers)

    def _describe_labels(self) -> str:
        return "" if self._labels is None else f", made for {len(self._labels.common)} common labels"

    def _check_labels(self, n: int) -> None:
        if self._coming is not None and len(self._coming) != n:
            raise InputError(f"labels has {len(self._coming)} entries, but there are {n} vectors; pass one for each, "
                             "None where there is none")  # fmt: skip

    def _give_labels(self, rows: NDArray[np.uint32], nodes: NDArray[np.uint32], fresh: NDArray[np.uint32]) -> None:
        """Nodes of older rows that get other labels by this are linked again."""
        assert self._labels is not None
        assert self._coming is not None
        of_rows = self._store.column("nodes")[: self._n_rows]
        again = self._labels.place(self._coming, rows, nodes, fresh, self._n_rows, self._n_nodes, of_rows)
        self._coming = None
        self._unsound = np.union1d(self._unsound, again).astype(np.uint32) if len(again) else self._unsound

    def _assemble(self, n_linked: int, entries: list[int] | None = None) -> None:
        super()._assemble(n_linked, entries)
        self._tell_labels()

    def _tell_labels(self) -> None:
        """The core graph reads the tables of labels that there are."""
        if self._labels is None:
            return
        parts = (self._graph, *self._labels.tables)
        if len(parts) != len(self._labeled) or any(a is not b for a, b in zip(parts, self._labeled, strict=True)):
            self._graph.set_labels(*self._labels.tables)
            self._labeled = parts

    def _measure_labels(self, workers: int) -> None:
        if self._label_contract is not None and self._contract.calibrates:
            self._label_contract.measure(self, workers)

    def calibrate(self, queries: Any = None, *, threads: int | None = None, progress: Progress | None = None) -> None:
        with self._writing:
            super().calibrate(queries, threads=threads, progress=progress)
            if self._label_contract is not None:
                self._label_contract.measure(self, self._threads(threads))

    calibrate.__doc__ = GraphIndex.calibrate.__doc__

    def labels_of(self, ids: Any) -> list[Any]:
        """Return the labels of vectors: for each id a label, a list of labels, or None.

        Parameters
        ----------
        ids : array-like of int

        Raises
        ------
        IdError
            If an id is not in the index.
        InputError
            If the index keeps no labels.
        """
        if self._labels is None:
            raise InputError("this index keeps no labels; build it with labels=")
        wanted, labels = arrays.as_ids(ids, unique=False), self._labels
        found = self._steadily(lambda: labels.column.to_list(self._id_map().known(wanted, "labels_of")))
        return list(found)

    # -- searching -----------------------------------------------------------------------------------------------------

    def _within(self, where: Any) -> "Within | None":
        """A filter over labels in terms of rows and nodes; None for masks and ids, which are no such filters."""
        if self._labels is None or isinstance(where, Allowed):
            return None
        from nearly.indexes.labels import is_of_labels

        if not is_of_labels(where):
            return None
        n, store = self._n_rows, self._store
        return self._labels.within(where, store.column("nodes")[:n], self._change)

    def _filter(self, where: Any) -> Allowed:
        within = self._within(where)
        return super()._filter(where) if within is None else within.allowed

    def _search(
        self, queries: Any, k: int, recall: Any, effort: Any, exact: bool, where: Any, threads: int | None
    ) -> Hits:
        within = None if where is None else self._within(where)
        if within is None:
            return super()._search(queries, k, recall, effort, exact, where, threads)
        assert self._label_contract is not None
        plain = within.allowed
        if within.among is None or exact is not False or (recall is not None and effort is not None):
            return super()._search(queries, k, recall, effort, exact, plain, threads)
        if recall is not None:
            recall = arrays.check_fraction(recall, "recall")
        if effort is not None:
            effort = arrays.check_int(effort, "effort", low=1, high=1 << 20)
        workers, columns = self._threads(threads), self._columns(k)
        how = None if columns > MOST else self._label_contract.effort(self, columns, recall, effort)
        if how is None or plain.n == len(self):
            return super()._search(queries, k, recall, effort, exact, plain, threads)
        from nearly.indexes.label_walks import search_within

        rows, single = self._queries(queries)
        found = search_within(self, rows, columns, single, how, within, workers)
        if found is not None:
            return found
        plan = f"exact scan of the {plain.n} {self.noun} that pass, of {len(self)}"
        return self._scan(rows, columns, single, plain, workers, plan)

    def _together(self, queries: Any, k: int, recall: float | None, where: Any, threads: int | None) -> Hits | None:
        within = None if where is None else self._within(where)  # walks among labels have costs of their own
        return None if within is not None else super()._together(queries, k, recall, where, threads)

    # -- changing ------------------------------------------------------------------------------------------------------

    def add(
        self, vectors: Any, *, ids: Any = None, labels: Any = None, threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:  # fmt: skip
        """As of every index, with the labels of the vectors: see `Vamana`."""
        with self._writing:
            try:
                self._take_labels(labels)
                return super().add(vectors, ids=ids, threads=threads, progress=progress)
            finally:
                self._coming = None

    def upsert(
        self, vectors: Any, *, ids: Any, labels: Any = None, threads: int | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.int64]:  # fmt: skip
        """As of every index, with the labels of the vectors: see `Vamana`. Those that are replaced lose theirs."""
        with self._writing:
            try:
                self._take_labels(labels)
                return super().upsert(vectors, ids=ids, threads=threads, progress=progress)
            finally:
                self._coming = None

    def _take_labels(self, labels: Any) -> None:
        """Check the labels of what comes."""
        if labels is None:
            return
        if self._labels is None:
            raise InputError("this index keeps no labels; build it with labels=, if only of None")
        from nearly.indexes.labels import as_labels, of_one_type

        self._coming = as_labels(labels)
        of_one_type(self._labels.column, self._coming)

    def _incoming(self, vectors: Any, ids: Any, *, fresh: bool) -> tuple[Vectors, NDArray[np.int64] | None]:
        made, given = super()._incoming(vectors, ids, fresh=fresh)
        self._check_labels(len(made))
        return made, given

    def _link(self, placed: Placed, threads: int, report: Any = None) -> None:
        if self._labels is not None:
            if self._coming is None:
                from nearly.indexes.labels import no_labels

                self._coming = no_labels(self._labels.column, len(placed.rows))
            self._give_labels(placed.rows, placed.nodes, placed.fresh)
        super()._link(placed, threads, report)
        if self._labels is not None and not self._unlinked:
            self._graph.connect_labels(self._rules.beam, np.unique(placed.nodes))

    def _changed(self, n: int) -> None:
        super()._changed(n)
        contract, labels = self._label_contract, self._labels
        if contract is not None and labels is not None and contract.due(labels.n_having):
            self._measure_labels(0)

    def _clear_out(self) -> None:
        if self._labels is not None:
            self._labels.clear()
        super()._clear_out()

    def consolidate(self, *, threads: int | None = None) -> None:
        with self._writing:
            before = set(self._spare_nodes)
            super().consolidate(threads=threads)
            freed = np.array([node for node in self._spare_nodes if node not in before], np.uint32)
            if self._labels is not None and len(freed):
                alive = np.zeros(self._n_nodes, bool)
                alive[self._linked(NOBODY)] = True
                self._labels.free(freed, alive, self._seed)
                self._graph.connect_labels(self._rules.beam, listen=False)

    consolidate.__doc__ = GraphIndex.consolidate.__doc__

    def _own(self) -> None:
        super()._own()
        if self._labels is not None and self._labels.own():
            self._tell_labels()

    # -- files ---------------------------------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        """Bytes of memory (or of mapped file) that the index holds."""
        return super().n_bytes + (0 if self._labels is None else self._labels.n_bytes)

    def _state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        parts, config = super()._state()
        if self._labels is None:
            return parts, config
        from nearly.indexes import label_files

        more, told = label_files.state(self)
        return {**parts, **more}, {**config, **told}

    @classmethod
    def _restore(cls, file: storage.File) -> Self:
        self = super()._restore(file)
        if "labels" in file.config:
            from nearly.indexes import label_files

            label_files.restore(self, file)
            self._tell_labels()
        return self
