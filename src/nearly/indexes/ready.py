"""Filtered searches for one query, made ready: what does not depend on the query is decided once for each filter."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

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

__all__ = ["Ready", "made_ready", "ready", "ready_scan"]

_KEPT = 8  # for each filter: numbers of neighbors and targets


class Ready:
    """A search for one query, and what it was made of: other things took their place if these are not those there are.

    ``walk`` gives nothing where the query is to be scanned for; ``by`` is codes and how far they err, or None for the
    vectors, and the scan is made ready when the first one is. Nothing here holds the index or the filter that hold it.
    """

    __slots__ = ("by", "context", "k", "made_of", "scan", "scanned", "walk")

    def __init__(
        self, made_of: tuple[Any, Any, Any], k: int, by: tuple[Any, float], scanned: SearchContext,
        walk: Search | None = None, context: SearchContext | None = None,
    ) -> None:  # fmt: skip
        self.made_of, self.k, self.by, self.scanned, self.walk, self.context = made_of, k, by, scanned, walk, context
        self.scan: Search | None = None

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
            scan = self.scan = self._scan(index, allowed)
            if scan is None:
                return None
        answer = scan(query)
        return None if answer is None else Hits(answer, None, True, self.scanned, answer)

    def _scan(self, index: Index, allowed: Allowed) -> Search | None:
        """A scan of what passes; None while rows are being added that pass, or when another store took the place."""
        store, (codes, spread) = self.made_of[2], self.by
        numbers, (n_nodes, now) = allowed.nodes(index).numbers, index._snapshot()
        if codes is not None:
            n_nodes = min(n_nodes, codes.n_rows)
        if now is not store or (len(numbers) and numbers[-1] >= n_nodes):
            return None
        made = _core.ChosenScan(
            store.scorer, codes, spread, store.rows, n_nodes, self.k, store.metric.number, allowed.bits, numbers,
            allowed.n,
        )  # fmt: skip
        return cast(Search, made.find)


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


def made_ready(
    index: "GraphIndex", allowed: Allowed, k: int, how: Effort, way: sifting.Way, *, by_codes: bool
) -> Ready:
    """Make a search ready that goes one way."""
    store, codes, spread, expected, what = index._store, None, 0.0, 1.0, "exact scan"
    if by_codes:
        codes, needs = index._travel.scorer, cast(Needs, index._contract.needs)
        spread, expected, what = needs.spread or 0.0, needs.scanned, f"scan by {index._travel.name(store)}"
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
