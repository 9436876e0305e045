"""HNSW over anything, by a Python function: no coordinates, only distances."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays, metrics, storage
from nearly.errors import FormatError, IdError, InputError
from nearly.hits import Hits, SearchContext
from nearly.indexes.base import Index
from nearly.indexes.store import NONE, IdMap, grow_or_copy, new_table
from nearly.indexes.writing import Writing

__all__ = ["CallableHNSW"]

_EFFORT = 64
_TABLES = ("_ids", "_next", "_first", "_last", "_lists")


class _Source:
    """Items and their metric: what the core's scorer calls. Knows nothing of the index: no circle of references."""

    def __init__(self, metric: Any, items: list[Any]) -> None:
        self.metric = metric
        self.items = items
        self.query = threading.local()

    def __call__(self, stored: bool, which: int, rows: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Distances from a query, or from a stored item, to stored items."""
        item = self.items[which] if stored else self.query.item
        return np.ascontiguousarray(self.metric(item, [self.items[r] for r in rows.tolist()]), np.float32)


class CallableHNSW:
    """What ``HNSW(items, metric=f)`` makes: approximate search among items of any kind.

    Parameters
    ----------
    items : sequence
        Anything; kept as a list, not copied.
    metric : callable
        ``f(item, items) -> distances``: one item against a list of items, a float each, smaller is nearer. It need not
        be a metric in the mathematical sense, but a graph finds little where nearness is not at all transitive.
    ids : array-like of int, optional
        Not negative, each once; 0..n-1 by default.
    M, ef_construction, seed
        As for `HNSW`. Building runs on one thread, because Python does.

    Examples
    --------
    >>> def letters(word, words):
    ...     return [len(set(word) ^ set(other)) for other in words]
    >>> from nearly import HNSW
    >>> index = HNSW(["tea", "teas", "coffee", "milk"], metric=letters)
    >>> index.search("eat", k=2).ids.tolist()
    [0, 1]
    """

    def __init__(
        self,
        items: Sequence[Any],
        *,
        metric: Callable[[Any, Sequence[Any]], Any],
        ids: Any = None,
        M: int = 16,
        ef_construction: int = 100,
        seed: int = 0,
    ) -> None:
        listed = _as_items(items, "items")
        given = None if ids is None else arrays.as_ids(ids, n=len(listed))
        self._m = arrays.check_int(M, "M", low=2, high=256)
        self._beam = arrays.check_int(ef_construction, "ef_construction", low=1, high=65536)
        self._seed = arrays.check_seed(seed)
        self._next_id = 0
        self._setup(metric, [])
        if listed:
            self._append(listed, given)

    def _setup(self, metric: Any, items: list[Any]) -> None:
        n = len(items)
        self._metric = metrics.get(metric)
        self._source = _Source(self._metric, items)
        self._writing = Writing()
        self._scorer = _core.Callable(self._source, n)
        self._ids = new_table(8, n, 255)
        self._next, self._first, self._last = (new_table(4, n, 255) for _ in range(3))
        self._lists = new_table(8 * self._m, n, 255)
        self._rows = _core.Rows(self._ids, self._next, self._first, self._last)
        self._removed = np.zeros(n, bool)
        self._map: IdMap | None = None
        self._graph: Any = None

    def _assemble(self, entries: list[int], linked: int) -> None:
        self._rows = _core.Rows(self._ids, self._next, self._first, self._last)
        self._graph = _core.Graph([self._lists], [], entries, self._scorer, self._scorer, self._rows, linked)

    def _append(self, items: list[Any], ids: NDArray[np.int64] | None) -> NDArray[np.int64]:
        old, n = len(self._items), len(self._items) + len(items)
        if ids is None:
            ids = arrays.next_ids(self._next_id, len(items))
        items_before, removed_before, graph_before = self._items, self._removed, self._graph
        lists_before = self._lists.array()[:old].copy()
        entries = [] if graph_before is None else graph_before.entries
        self._source.items = [*items_before, *items]
        self._scorer.set_rows(n)
        for name in _TABLES:
            setattr(self, name, grow_or_copy(getattr(self, name), n, 255))
        self._removed = np.concatenate([self._removed, np.zeros(len(items), bool)])
        self._assemble(entries, old if graph_before is not None else 0)
        rows = np.arange(old, n, dtype=np.uint32)
        order = np.random.default_rng(self._seed + old).permutation(rows)
        try:
            self._graph.insert(order, n, self._beam, 2 * self._m, 1.0, threads=1)
            self._rows.link(rows, ids, rows)
            self._graph.connect(self._beam)
        except BaseException:  # of the metric, or Ctrl-C: all as it was
            self._lists.array()[:old] = lists_before
            for name in _TABLES:
                getattr(self, name).fill(old, n, 255)
            self._source.items, self._removed = items_before, removed_before
            self._scorer.set_rows(old)
            self._assemble(entries, old if graph_before is not None else 0)
            self._graph = None if graph_before is None else self._graph
            raise
        self._next_id = max(self._next_id, int(ids.max()) + 1)
        self._map = None
        return ids

    @property
    def _items(self) -> list[Any]:
        return self._source.items

    def __len__(self) -> int:
        return len(self._items) - int(self._removed.sum())

    def __contains__(self, id: object) -> bool:
        if isinstance(id, bool) or not isinstance(id, int | np.integer):
            return False
        return bool(self._id_map().rows(np.array([id], np.int64))[1][0])

    def __repr__(self) -> str:
        return f"HNSW: {len(self)} items, {self._metric.name}\n  {self.plan}"

    __reduce__ = Index.__reduce__

    @property
    def plan(self) -> str:
        """What the index is and why."""
        return f"HNSW graph with M={self._m}, ef_construction={self._beam}, distances by a Python function"

    def _id_map(self) -> IdMap:
        if self._map is None:
            n = len(self._items)
            nodes = np.where(self._removed, NONE, np.arange(n)).astype(np.uint32)
            self._map = IdMap(self._ids.array().view(np.int64).reshape(-1)[:n], nodes)
        return self._map

    def get(self, id: int) -> Any:
        """Return an item by its id; IdError if there is none."""
        return self._items[int(self._id_map().known(arrays.as_ids(id), "get")[0])]

    def add(self, items: Sequence[Any], *, ids: Any = None) -> NDArray[np.int64]:
        """Add items; returns their ids."""
        with self._writing:
            listed = _as_items(items, "items")
            given = None if ids is None else arrays.as_ids(ids, n=len(listed))
            if given is not None and self._id_map().rows(given)[1].any():
                raise IdError("some of the ids are taken; pass others")
            return self._append(listed, given) if listed else np.zeros(0, np.int64)

    def remove(self, ids: Any) -> None:
        """Remove items by id; IdError if one is not there."""
        with self._writing:
            rows = self._id_map().known(arrays.as_ids(ids), "remove")
            self._rows.unlink(rows, rows)
            self._removed[rows] = True
            self._map = None

    def search(
        self, query: Any, k: int = 10, *, effort: int | None = None, exact: bool = False, where: Any = None
    ) -> Hits:
        """Return the k nearest items to one query.

        Parameters
        ----------
        query : object
            What the metric takes.
        k : int, default 10
        effort : int, optional
            Candidates kept while walking; 64, or k where that is more.
        exact : bool, default False
            Compare with every item.
        where : array-like of int, optional
            The ids that may be returned.

        Returns
        -------
        Hits
        """
        k = arrays.check_k(k)
        width = max(k, _EFFORT if effort is None else arrays.check_int(effort, "effort", low=1, high=1 << 20))
        graph, rows = self._graph, self._rows  # in this order: a writer puts larger ones in their place, rows first
        n, passing, bits = (0 if graph is None else graph.n_nodes), len(self), None
        if where is not None:
            chosen, known = self._id_map().rows(cast(NDArray[np.int64], arrays.as_mask_or_ids(where, n_mask=None)))
            flags = np.zeros((n + 63) // 64 * 64, bool)
            flags[chosen[known & (chosen < n)]] = True
            passing, bits = int(flags.sum()), np.packbits(flags, bitorder="little").view(np.uint64)
        ids, distances = np.empty((1, k), np.int64), np.empty((1, k), np.float32)
        counts, handle = np.empty(1, np.uint32), np.zeros((1, 8), np.uint8)
        held = getattr(self._source.query, "item", None)  # of a search whose metric searches
        self._source.query.item = query
        try:
            if graph is not None and not exact and passing**2 > 16 * width * n:
                stretch = int(np.ceil(width * n / max(1, passing)))
                graph.search(8, handle, 1, stretch, k, ids, distances, counts, bits, threads=1)
                plan = f"{self.plan}, effort {width}"
            else:
                counts[0] = 0
                plan = f"exact scan of {passing} items"
            if counts[0] < min(k, passing) or plan.startswith("exact"):
                _core.scan(self._scorer, rows, n, 8, handle, 1, ids, distances, counts, bits, None, 1)
        finally:
            self._source.query.item = held
        return Hits(ids, distances, True, SearchContext(self._metric, plan, 1.0 if plan.startswith("exact") else None))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to one file: neither the function nor the items, which `nearly.load` is given again."""
        n = len(self._items)
        entries = [] if self._graph is None else self._graph.entries
        parts = {"ids": self._ids.array()[:n], "lists": self._lists.array()[:n], "removed": self._removed,
                 "entries": np.array(entries, np.uint32)}  # fmt: skip
        config = {"n": n, "M": self._m, "ef_construction": self._beam, "seed": self._seed, "next_id": self._next_id}
        storage.write(path, parts, config, kind="callable")

    @classmethod
    def _open(cls, file: storage.File, metric: Any, items: Any, verify: bool) -> Self:
        if not callable(metric) or items is None:
            raise InputError("this index was built with a callable metric, which is not saved; pass "
                             "load(path, metric=f, "
                             "items=items) with the items in the order of their ids")  # fmt: skip
        self = cls.__new__(cls)
        n = storage.config_int(file, "n", 0, 2**31 - 1)
        self._m, self._beam = (
            storage.config_int(file, "M", 2, 256),
            storage.config_int(file, "ef_construction", 1, 65536),
        )
        self._seed, self._next_id = storage.config_int(file, "seed", 0), storage.config_int(file, "next_id", 0, 2**63)
        listed = _as_items(items, "items")
        if len(listed) != n:
            raise InputError(f"items has {len(listed)} entries, but the index was built over {n}")
        if verify:
            file.verify()
        self._setup(metric, listed)
        ids = storage.require(file, "ids", np.uint8, (n, 8)).view(np.int64).reshape(-1)
        removed = storage.require(file, "removed", np.bool_, (n,))
        entries = [int(e) for e in storage.require(file, "entries", np.uint32, (None,))]
        lists = storage.require(file, "lists", np.uint8, (n, 8 * self._m))
        if any(e >= n for e in entries) or (ids < 0).any() or (n and not entries):
            raise FormatError(f"{file.path} is damaged: its ids or entry nodes cannot be")
        self._lists.array()[:] = lists
        try:
            _core.check_lists(self._lists, n, n, True)
        except ValueError as problem:
            raise FormatError(f"{file.path} is damaged: {problem}") from problem
        self._removed = removed.copy()
        self._assemble(entries, n)
        rows = np.arange(n, dtype=np.uint32)
        self._ids.array()[:] = ids.view(np.uint8).reshape(n, 8)
        live = rows[~removed]
        if len(np.unique(ids[live])) != len(live) or (len(live) and int(ids[live].max()) >= self._next_id):
            raise FormatError(f"{file.path} is damaged: its ids cannot be")
        self._rows.link(live, np.ascontiguousarray(ids[live]), live)
        return self


def _as_items(items: Any, name: str) -> list[Any]:
    try:
        return list(items)
    except TypeError:
        raise InputError(f"{name} is {type(items).__name__}; pass a sequence of items") from None
