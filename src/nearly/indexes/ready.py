"""Filtered searches made ready: what does not depend on the queries is decided once for each filter."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from nearly import _core
from nearly.hits import Hits, SearchContext
from nearly.indexes import sifting
from nearly.indexes.allowed import Allowed
from nearly.indexes.base import Index
from nearly.indexes.contract import MOST, Effort
from nearly.indexes.needs import Needs

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex

Search: TypeAlias = Callable[[Any], Any]

__all__ = ["Ready", "made_ready", "ready", "ready_many", "ready_scan"]

_KEPT = 8  # for each filter: numbers of neighbors, targets, sizes of batches


class Ready:
    """A filtered search, and what it was made of: other things took their place if these are not those there are.

    ``walk`` gives nothing where the query is to be scanned for; ``by`` is codes and how far they err, or None for the
    vectors, and the scan is made ready when the first one is. Nothing here holds the index or the filter that hold it.
    """

    __slots__ = ("by", "context", "k", "made_of", "scan", "scanned", "walk")

    def __init__(
        self, made_of: tuple[Any, Any, Any], k: int, by: tuple[Any, float], scanned: SearchContext,
        walk: Search | None = None, context: SearchContext | None = None,
    ) -> None:  # fmt: skip
        self.made_of, self.k, self.by, self.scanned, self.walk, self.context = made_of, k, by, scanned, walk, context
        self.scan: _core.ChosenScan | None = None

    def fits(self, index: "GraphIndex") -> bool:
        """Whether what it was made of is still there."""
        efforts, graph, store = self.made_of
        return efforts is index._contract.efforts and graph is index._graph and store is index._store

    def ask(self, index: Index, allowed: Allowed, query: Any) -> Hits | None:
        """Search for a contiguous row of float32; None where it is none, or rows come or went meanwhile."""
        if self.walk is not None and self.context is not None:
            answer = self.walk(query)
            if answer is not None:
                return Hits(answer, None, True, self.context, answer)
        scan = self.scan
        if scan is None:
            scan = self._made_scan(index, allowed)
            if scan is None:
                return None
        answer = scan.find(query)
        return None if answer is None else Hits(answer, None, True, self.scanned, answer)

    def ask_many(self, index: Index, allowed: Allowed, queries: Any, threads: int) -> Hits | None:
        """The same for contiguous rows of float32, all of which are scanned for."""
        scan = self._made_scan(index, allowed)
        if scan is None:
            return None
        ids = np.empty((len(queries), self.k), np.int64)
        distances = np.empty(ids.shape, np.float32)
        work = scan.find_many(queries, ids, distances, threads)
        return None if work is None else Hits(ids, distances, False, self.scanned, work)

    def _made_scan(self, index: Index, allowed: Allowed) -> "_core.ChosenScan | None":
        """A scan of what passes; None while rows are being added that pass, or when another store took the place."""
        if self.scan is not None:
            return self.scan
        store, (codes, spread) = self.made_of[2], self.by
        nodes, (n_nodes, now) = allowed.nodes(index), index._snapshot()
        if codes is not None:
            n_nodes = min(n_nodes, codes.n_rows)
        if now is not store or nodes.n_nodes > n_nodes:
            return None
        self.scan = _core.ChosenScan(
            store.scorer, codes, spread, store.rows, n_nodes, self.k, store.metric.number, allowed.bits, nodes.bits,
            allowed.n,
        )  # fmt: skip
        return self.scan


def ready(index: "GraphIndex", allowed: Allowed, k: int, recall: float | None) -> Ready | None:
    """Make a search ready, or find it again; None where the long way is needed."""
    known: Ready | None = allowed.ready.get((k, recall))
    if known is not None and known.fits(index):
        return known
    if not 0 < k <= MOST or not 0 < allowed.n < len(index) or index._store.metric.input != "float":
        return None
    how = index._contract.effort(index, k, recall, None)
    if how.scan or how.reaches is None:
        return None
    target = index._contract.target if recall is None else recall
    way = index._contract.way(index, k, target, allowed.n, allowed.uneven(index))
    made = made_ready(index, allowed, k, how, way, by_codes=sifting.scans_by_codes(index, k, target, allowed.n))
    _keep(allowed, (k, recall), made)
    return made


def ready_many(index: "GraphIndex", allowed: Allowed, k: int, recall: float | None, n: int) -> Ready | None:
    """The same for so many queries that are compared with all that passes; None also where each walks."""
    known = allowed.ready.get((k, recall, n))
    if known is not None and known.fits(index):
        return cast(Ready, known)
    if not 0 < k <= min(MOST, allowed.n) or allowed.n >= len(index) or index._store.metric.input != "float":
        return None  # an answer is as wide as k, without gaps
    how = index._contract.effort(index, k, recall, None)
    shared = index._shared_scan(k, recall, how, allowed, n)
    if shared is None:
        return None
    by_codes, why = shared
    codes, spread, expected, what = _compared(index, by_codes)
    made_of = index._contract.efforts, index._graph, index._store
    made = Ready(made_of, k, (codes, spread), SearchContext(index._store.metric, f"{what}; {why}", expected))
    _keep(allowed, (k, recall, n), made)
    return made


def made_ready(
    index: "GraphIndex", allowed: Allowed, k: int, how: Effort, way: sifting.Way, *, by_codes: bool
) -> Ready:
    """Make a search ready that goes one way."""
    store = index._store
    codes, spread, expected, what = _compared(index, by_codes)
    made_of = index._contract.efforts, index._graph, store
    if way.sieve is None:
        return Ready(made_of, k, (codes, spread), SearchContext(store.metric, f"{what}; {way.why}", expected))
    nodes = allowed.nodes(index)
    share, some = allowed.n / index._n_rows, nodes.some[nodes.some < index._graph.n_nodes]
    walk = partial(
        index._graph.sift_one, how.core, way.sieve.core, allowed.bits, nodes.bits, some, share, way.most, allowed.n
    )
    context = SearchContext(store.metric, f"{how.context.plan}; {way.why}", how.context.expected_recall)
    scanned = SearchContext(store.metric, f"{what}, as a walk came back short; {way.why}", expected)
    return Ready(made_of, k, (codes, spread), scanned, walk, context)


def _compared(index: "GraphIndex", by_codes: bool) -> tuple[Any, float, float, str]:
    """By what a scan compares, how far that errs, the recall to expect, and its name."""
    if not by_codes:
        return None, 0.0, 1.0, "exact scan"
    needs = cast(Needs, index._contract.needs)
    return index._travel.scorer, needs.spread or 0.0, needs.scanned, f"scan by {index._travel.name(index._store)}"


def ready_scan(index: Index, allowed: Allowed, k: int, context: SearchContext) -> Ready | None:
    """Make an exact scan ready, or find it again; None where the long way is needed."""
    known, store = cast("Ready | None", allowed.ready.get(k)), index._store
    if known is not None and known.made_of[2] is store and known.made_of[1] == index._change:
        return known
    if not k or not 0 < allowed.n < len(index) or store.metric.input != "float":
        return None
    made = Ready((None, index._change, store), k, (None, 0.0), context)
    _keep(allowed, k, made)
    return made


def _keep(allowed: Allowed, key: Any, made: Ready) -> None:
    if len(allowed.ready) >= _KEPT:
        allowed.ready.clear()
    allowed.ready[key] = made
