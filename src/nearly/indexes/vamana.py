"""Vamana: one layer of neighbor lists, pruned so that a walk gets nearer at every step; built in fixed batches."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import arrays, metrics, storage
from nearly.arrays import Vectors
from nearly.errors import InputError
from nearly.hits import Hits
from nearly.indexes.allowed import Allowed
from nearly.indexes.base import Placed, Progress
from nearly.indexes.contract import MOST
from nearly.indexes.graph import GraphIndex, Rules
from nearly.indexes.store import grow_or_copy, new_table
from nearly.indexes.travel import NOBODY
from nearly.quantizers import Quantizer

if TYPE_CHECKING:
    from nearly.filters import Column
    from nearly.indexes.label_walks import LabelContract
    from nearly.indexes.labels import Labels, Within

__all__ = ["Vamana"]

_BEAM, _ALPHA = 200, 1.2  # unless told otherwise


class Vamana(GraphIndex):
    """Approximate search on a flat graph (Subramanya et al., DiskANN, NeurIPS 2019, sections 2.2 to 2.4).

    The graph is traversed over codes and the nearest are ranked by the vectors themselves. The same arguments give the
    same bytes for any number of threads: batches search a frozen graph (Manohar et al., ParlayANN, PPoPP 2024).

    Parameters
    ----------
    vectors : array-like of shape (n, dim)
        float32, float16, bfloat16, float64, int8 or uint8; packed bits (uint8) for bit metrics.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    labels : sequence, optional
        For each vector a label (text or a whole number), a list of labels (texts), or None; or a column of such
        (`nearly.filters.Column`). Filters call it ``label``: ``where=F.label == "a"``. Lists of neighbors are made so
        that walks can keep to what has a label (Gollapudi et al., Filtered-DiskANN, WWW 2023, sections 3 and 4;
        docs/filters.md).
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    degree : int, default 32
        Most neighbors of a node (R), at most 512.
    beam : int, default 200
        Candidates kept while building (L).
    alpha : float, default 1.2
        How much nearer a kept neighbor must be to a candidate to replace it, in squared distance under l2; at least 1.
    quantizer : Quantizer, optional
        What to travel by: `nearly.Plain`, `nearly.Scalar`, `nearly.Reduced`. None chooses by metric and dimension.
    refine : {"memory", "float16", "disk"}, default "memory"
        Where full vectors are, which rank what was found: in memory as they came, in memory as float16 (rounded), or in
        a file from which they are read (docs/memory.md).
    recall : float, default 0.95
        What searches deliver on average unless told otherwise.
    queries : array-like of shape (n_queries, dim), optional
        Queries like those to come, for calibration; None makes some from the data.
    calibrate : bool, default True
        False skips calibration; searches then need ``effort=``.
    order : {"random", "given", "lid_descending", "lid_ascending"} or array-like of int, default "random"
        Order of insertion.
    filter_expansion : int, default 1
        More than 1: beside each list of neighbors a wide one is kept, so many times as long, of what two steps lead to.
        Filtered searches that hop over what does not pass read it where 8 in it pass, a third to a half faster, for 4
        bytes a neighbor (gamma in ACORN: Patel et al., SIGMOD 2024, section 5).
    seed : int, default 0
    threads : int, optional
    progress : callable, optional
        ``progress(done, total)``; None shows a bar on a terminal after two seconds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 16), dtype=np.float32)
    >>> index = Vamana(vectors, recall=0.9)
    >>> hits = index.search(vectors[:5], k=3)
    >>> hits.ids[:, 0].tolist(), hits.expected_recall >= 0.9
    ([0, 1, 2, 3, 4], True)

    With labels:

    >>> from nearly import F
    >>> index = Vamana(vectors, labels=["even", "odd"] * 1000, recall=0.9)
    >>> hits = index.search(vectors[0], k=3, where=F.label == "odd")
    >>> (hits.ids % 2).tolist(), hits.plan.startswith("walk within label 'odd'")
    ([1, 1, 1], True)
    """

    kind: ClassVar[str] = "vamana"

    _labels: "Labels | None" = None
    _label_contract: "LabelContract | None" = None
    _coming: "Column | None" = None  # labels of what is being built or added
    _labeled: tuple[Any, ...] = ()  # the graph that was told of labels, and their tables then

    def __init__(
        self,
        vectors: Any,
        *,
        ids: Any = None,
        labels: Any = None,
        metric: Any = "l2",
        degree: int = 32,
        beam: int = _BEAM,
        alpha: float = _ALPHA,
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
        degree = arrays.check_int(degree, "degree", low=2, high=512)
        beam = arrays.check_int(beam, "beam", low=1, high=65536)
        self._rules = Rules(beam, degree, arrays.check_real(alpha, "alpha", low=1.0, high=100.0),
                            metrics.named(metric) != metrics.METRICS["ip"])  # fmt: skip
        self._seed = arrays.check_seed(seed)
        self._lists, self._slots = [], []
        self._expansion = self._expanded(filter_expansion, degree)
        if labels is not None:
            from nearly.indexes.label_walks import LabelContract
            from nearly.indexes.labels import Labels, as_labels, no_labels

            self._coming, self._label_contract = as_labels(labels), LabelContract()
            self._labels = Labels(no_labels(self._coming, 0))
        self._build(vectors, ids, metric, quantizer=quantizer, recall=recall, queries=queries, calibrate=calibrate,
                    order=order, threads=threads, progress=progress, refine=refine)  # fmt: skip

    def _start(self, vectors: Any, ids: Any, metric: Any, bits_hint: str = "vectors") -> tuple[Vectors, Any]:
        made, given = super()._start(vectors, ids, metric, bits_hint)
        self._check_labels(len(made))
        return made, given

    def _lay_out(self, fresh: NDArray[np.uint32]) -> None:
        if not self._lists:
            self._lists = [new_table(self._rules.new_degree * 4, self._n_nodes, 255)]
        else:
            self._lists[0] = grow_or_copy(self._lists[0], self._n_nodes, 255)
            self._clear(fresh)
        if self._graph is None and self._coming is not None:  # of a build: all rows have their nodes
            rows = np.arange(len(self._coming), dtype=np.uint32)
            self._give_labels(rows, self._store.column("nodes")[: len(rows)].copy(), fresh)

    def _weave(
        self, chosen: NDArray[np.uint32], held: int, probes: NDArray[np.uint8] | None, workers: int, report: Any
    ) -> None:
        super()._weave(chosen, held, probes, workers, report)
        if self._labels is not None:
            self._graph.connect_labels(self._rules.beam)
            self._measure_labels(workers)

    def _describe_graph(self) -> str:
        beam, alpha = self._rules.beam, self._rules.alpha
        built = (f", beam {beam}" if beam != _BEAM else "") + (f", alpha {alpha:g}" if alpha != _ALPHA else "")
        labels = "" if self._labels is None else f", made for {len(self._labels.common)} common labels"
        return f"Vamana graph of degree {self._rules.new_degree}{built}{labels}"

    # -- labels --------------------------------------------------------------------------------------------------------

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
