"""Inverted lists: centers, and the chunks of slots that hold the nodes near to each."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, kmeans
from nearly.indexes.store import NONE, Store, as_bytes, grow_or_copy, new_table
from nearly.quantizers import Scalar
from nearly.quantizers.base import CODED

__all__ = ["PER_LIST", "SPILLS", "Change", "Lists", "assign", "cluster", "in_space", "second"]

CHUNK = np.dtype([("first", "<u4"), ("count", "<u4"), ("capacity", "<u4"), ("next", "<u4")])  # as the core has it
SPILLS = ("soar", "closure")  # ways to choose a second list
PER_LIST = 48  # vectors that a center is found by: beyond about 40, recall per vector compared hardly grows
_BLOCK = 16_384  # vectors assigned at a time
_SPILLED = 1024  # the same where lists are compared with each other
_CANDIDATES = 16  # nearest lists of which a second one is chosen
_ALONG = 1.0  # weight of what a second residual has along the first one: levers table of benchmarks/README.md
_NEARLY = 0.1  # by how much farther a second list may be
_LEAST_ROOM = 16  # slots of a chunk that is appended

Nodes = NDArray[np.uint32]


class Change(NamedTuple):
    """What adding nodes means for chunks: counts to publish, chunks to chain to others, and what there is then."""

    lists: Nodes  # of each node that is added
    slots: Nodes
    extended: Nodes
    counts: Nodes
    chained: Nodes
    nexts: Nodes
    tails: Nodes
    sizes: NDArray[np.int64]
    n_chunks: int
    n_slots: int


def in_space(store: Store, nodes: Nodes, threads: int = 0) -> NDArray[np.float32]:
    """Vectors of nodes where they are clustered: of unit length under cosine; bits become numbers 0 and 1."""
    if store.metric.input == "bits":
        return np.unpackbits(store.raw(nodes).array, axis=1).astype(np.float32)
    return store.in_form(nodes, threads)


def cluster(
    store: Store, nodes: Nodes, n_lists: int, *, seed: int, threads: int, report: Any = None
) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    """Return centers, as they are stored, and the list of each node."""
    drawn = np.random.default_rng(seed).permutation(len(nodes))[: n_lists * PER_LIST]
    sample = in_space(store, nodes[np.sort(drawn)], threads)
    centers: NDArray[Any] = kmeans.balanced(sample, n_lists, seed=seed, threads=threads)
    if store.metric.input == "bits":
        centers = np.packbits(centers >= 0.5, axis=1)
    return centers, assign(store, nodes, centers, threads, report)


def assign(store: Store, nodes: Nodes, centers: NDArray[Any], threads: int, report: Any = None) -> NDArray[np.uint32]:
    """The list of each node: that of its nearest center. ``report(done)`` is called now and then."""
    if store.metric.input == "bits":
        centers = np.unpackbits(centers, axis=1).astype(np.float32)
    labels = np.empty(len(nodes), np.uint32)
    for first in range(0, len(nodes), _BLOCK):
        block = nodes[first : first + _BLOCK]
        labels[first : first + len(block)] = kmeans.assign(in_space(store, block, threads), centers, threads=threads)
        if report is not None:
            report(first + len(block))
    return labels


def second(
    store: Store, nodes: Nodes, centers: NDArray[Any], labels: NDArray[np.uint32], spill: str, threads: int
) -> NDArray[np.uint32]:
    """Another list of each node, beside that of its nearest center; NONE for one that needs none.

    "soar": the one whose residual is short and says something else than the first one's: what is along that weighs by
    `_ALONG` more (Sun et al., SOAR, NeurIPS 2023, theorem 3.1). "closure": the next nearest one, if it is at most
    `_NEARLY` farther than the nearest and on another side of the vector (Chen et al., SPANN, NeurIPS 2021, section
    3.2).
    """
    from nearly.indexes.flat import Flat  # an index beside those that stand on lists

    found = np.full(len(nodes), NONE, np.uint32)
    if len(centers) < 2:
        return found
    bits = store.metric.input == "bits"
    middles = np.unpackbits(centers, axis=1).astype(np.float32) if bits else centers
    nearest = Flat(middles)
    for first in range(0, len(nodes), _SPILLED):
        vectors = in_space(store, nodes[first : first + _SPILLED], threads)
        own = labels[first : first + _SPILLED]
        hits = nearest.search(vectors, k=min(_CANDIDATES, len(centers)), threads=threads or None)
        lists = hits.ids
        away = vectors - middles[own]
        squared = np.einsum("ij,ij->i", away, away)
        residuals = vectors[:, None] - middles[lists]
        costs = np.einsum("ikj,ikj->ik", residuals, residuals)
        if spill == "soar":
            along = np.einsum("ikj,ij->ik", residuals, away)
            costs += _ALONG * along * along / np.maximum(squared, np.finfo(np.float32).tiny)[:, None]
            allowed = lists != own[:, None]
        else:
            between = ((middles[lists] - middles[own][:, None]) ** 2).sum(axis=2)
            allowed = (lists != own[:, None]) & (costs <= (1 + _NEARLY) ** 2 * squared[:, None]) & (between >= costs)
        costs[~allowed] = np.inf
        at = costs.argmin(axis=1)
        some = np.arange(len(own))
        found[first : first + _SPILLED] = np.where(allowed[some, at], lists[some, at], NONE)
    return found


class Lists:
    """Which node is in which list, and where.

    Attributes
    ----------
    centers : ndarray of shape (n_lists, dim)
        float32, or packed bits.
    chunks, members : table
        Chunks of slots, and the node of each slot.
    scorer
        The core's scorer over the centers.
    unit : int
        Chunks begin at multiples of so many slots.
    tails, sizes : ndarray of shape (n_lists,)
        The last chunk of each list, and how many nodes it holds.
    n_chunks, n_slots : int
        In use; tables may have more rows, which mean nothing.
    """

    def __init__(self, store: Store, centers: NDArray[Any], chunks: Any, members: Any, unit: int = 1) -> None:
        self.centers, self.chunks, self.members, self.unit = centers, chunks, members, unit
        self.scorer = _scorer(store, centers)
        self.tails, self.sizes = np.arange(len(self.centers), dtype=np.uint32), np.zeros(len(self.centers), np.int64)
        self.n_chunks = self.n_slots = 0
        for owners, at in self._levels():
            self.tails[owners] = at
            self.sizes[owners] += self.table["count"][at]
            ends = self.table["first"][at].astype(np.int64) + self.table["capacity"][at]
            self.n_chunks = max(self.n_chunks, int(at.max()) + 1)
            self.n_slots = max(self.n_slots, int(ends.max()))

    @classmethod
    def build(
        cls, store: Store, centers: NDArray[Any], labels: NDArray[np.uint32], nodes: Nodes, unit: int = 1
    ) -> Self:
        """Lists of nodes, each in one chunk, as tight as they can be."""
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=len(centers))
        made = np.empty(len(centers), CHUNK)
        room = -(-counts // unit) * unit
        first = np.cumsum(room) - room
        made["first"], made["count"], made["capacity"], made["next"] = first, counts, room, NONE
        chunks, members = new_table(CHUNK.itemsize, len(centers)), new_table(4, int(room.sum()))
        chunks.array()[:] = made.view(np.uint8).reshape(-1, CHUNK.itemsize)
        within = np.arange(len(nodes)) - np.repeat(np.cumsum(counts) - counts, counts)
        members.array().view(np.uint32)[np.repeat(first, counts) + within, 0] = nodes[order]
        return cls(store, centers, chunks, members, unit)

    @property
    def table(self) -> NDArray[Any]:
        """The chunks as records."""
        return cast("NDArray[Any]", self.chunks.array().view(CHUNK)[:, 0])

    @property
    def n_bytes(self) -> int:
        """Bytes of centers and tables."""
        return int(self.centers.nbytes + self.chunks.n_bytes + self.members.n_bytes)

    def _levels(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Lists and their first chunks, lists and their second chunks, and so on."""
        owners = at = np.arange(len(self.centers))
        while len(at):
            yield owners, at
            following = self.table["next"][at]
            more = following != NONE
            owners, at = owners[more], following[more].astype(np.intp)

    def in_use(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Slots that hold a node, list by list, and the list of each."""
        owner, at = (np.concatenate(parts) for parts in zip(*self._levels(), strict=True))
        order = np.argsort(owner, kind="stable")  # chunks of a list in their order
        owner, chunk = owner[order], self.table[at[order]]
        first, count = chunk["first"].astype(np.int64), chunk["count"].astype(np.int64)
        before = np.repeat(np.cumsum(count) - count, count)
        slots = np.arange(int(count.sum())) - before + np.repeat(first, count)
        return slots.astype(np.uint32), np.repeat(owner, count).astype(np.uint32)

    def nodes(self, slots: NDArray[np.uint32]) -> Nodes:
        """The nodes in these slots."""
        return np.ascontiguousarray(self.members.array().view(np.uint32)[slots, 0])

    def slots_of(self, nodes: Nodes) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """A slot of each of some nodes that are in lists, and its list."""
        slots, owners = self.in_use()
        held = self.nodes(slots)
        order = np.argsort(held, kind="stable")
        at = order[np.searchsorted(held, nodes, sorter=order)]
        return slots[at], owners[at]

    def labels(self, n_nodes: int) -> NDArray[np.uint32]:
        """The list of each node; NONE for one that is in none."""
        slots, owners = self.in_use()
        labels = np.full(n_nodes, NONE, np.uint32)
        labels[self.nodes(slots)] = owners
        return labels

    def places(self, n_nodes: int) -> NDArray[np.uint32]:
        """The first and the last list of each node, the same for one that is in one; NONE for one that is in none."""
        slots, owners = self.in_use()
        nodes, places = self.nodes(slots), np.full((n_nodes, 2), NONE, np.uint32)
        places[nodes[::-1], 0] = owners[::-1]
        places[nodes, 1] = owners
        return places

    def reserve(self, labels: NDArray[np.uint32]) -> Change:
        """Make room at the ends of lists; nothing of it counts before `commit`."""
        order = np.argsort(labels, kind="stable")
        lists, counts = np.unique(labels, return_counts=True)
        table, tails, sizes = self.table, self.tails.copy(), self.sizes.copy()
        n_chunks, n_slots = self.n_chunks, self.n_slots
        added: list[tuple[int, int, int, int]] = []
        published: list[tuple[int, int]] = []
        chained: list[tuple[int, int]] = []
        slots: list[NDArray[np.int64]] = []
        for label, count in zip(lists.tolist(), counts.tolist(), strict=True):
            tail = int(tails[label])
            used, room = int(table["count"][tail]), int(table["capacity"][tail])
            here = min(count, room - used)
            if here:
                published.append((tail, used + here))
                slots.append(np.arange(here) + int(table["first"][tail]) + used)
            if count > here:
                capacity = max(count - here, _LEAST_ROOM, int(sizes[label]) // 4)
                capacity = -(-capacity // self.unit) * self.unit
                added.append((n_slots, 0, capacity, NONE))
                published.append((n_chunks, count - here))
                chained.append((tail, n_chunks))
                slots.append(np.arange(count - here) + n_slots)
                tails[label] = n_chunks
                n_chunks, n_slots = n_chunks + 1, n_slots + capacity
            sizes[label] += count
        self.chunks = grow_or_copy(self.chunks, n_chunks)
        self.members = grow_or_copy(self.members, n_slots)
        if added:
            self.table[self.n_chunks : n_chunks] = np.array(added, CHUNK)
        places = np.empty(len(labels), np.uint32)
        places[order] = np.concatenate(slots)
        pairs = (np.array(p, np.uint32).reshape(-1, 2).T.copy() for p in (published, chained))
        (extended, published_counts), (before, after) = pairs
        return Change(labels, places, extended, published_counts, before, after, tails, sizes, n_chunks, n_slots)

    def commit(self, change: Change, core: Any) -> None:
        """Let readers see what is in the reserved slots now. Once more changes nothing."""
        core.extend(change.extended, change.counts)
        core.chain(change.chained, change.nexts)
        self.__dict__.update(tails=change.tails, sizes=change.sizes, n_chunks=change.n_chunks, n_slots=change.n_slots)

    def own(self) -> bool:
        """Copy tables that are a read-only mapping; True if they were."""
        borrowed = bool(self.chunks.borrowed or self.members.borrowed)
        self.chunks = grow_or_copy(self.chunks, self.chunks.rows)
        self.members = grow_or_copy(self.members, self.members.rows)
        return borrowed


def _scorer(store: Store, centers: NDArray[Any]) -> Any:
    """The core's scorer over centers: by bytes where codes can stand for the metric, which order lists well enough."""
    metric = store.metric
    if metric.name in CODED:
        fitted = Scalar(bits=8).fit_floats(centers, metric=metric.name, norm_bound=0.0, seed=0)
        table = _core.Table(fitted.row_bytes, len(centers), len(centers))
        scorer = fitted.scorer(table)
        scorer.encode(0, centers)
        return scorer
    element = 4 if metric.input == "bits" else 0
    table = _core.Table(_core.Plain.row_bytes(element, metric.number, store.dim), len(centers), len(centers))
    plain = _core.Plain(table, element, metric.number, store.dim)
    plain.fill(0, as_bytes(centers))
    return plain
