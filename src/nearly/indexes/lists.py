"""Inverted lists: centers, and the chunks of slots that hold the nodes near to each."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, kmeans
from nearly.indexes.coarse import Centers, in_space, scorer_of
from nearly.indexes.guide import GUIDED, guide_over, walks_for
from nearly.indexes.store import NONE, Store, grow_or_copy, new_table
from nearly.transforms import FittedTransform

__all__ = ["BLOCK", "HELD", "PER_LIST", "SPILLS", "Change", "Lists", "assign", "cluster", "second"]

CHUNK = np.dtype([("first", "<u4"), ("count", "<u4"), ("capacity", "<u4"), ("next", "<u4")])  # as the core has it
SPILLS = ("soar", "closure")  # ways to choose a second list
PER_LIST = 48  # vectors that a center is found by: beyond about 40, recall per vector compared hardly grows
BLOCK = 4096  # vectors in hand at a time
HELD = 1 << 24  # bytes of a sample that is read once: more are read again for each round of k-means
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


def cluster(
    store: Store, nodes: Nodes, n_lists: int, *, coarse: FittedTransform | None = None, with_means: bool = False,
    seed: int, threads: int, report: Any = None,
) -> tuple[Centers, NDArray[np.uint32]]:  # fmt: skip
    """Return centers, as they are stored, and the list of each node."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(nodes))[: n_lists * PER_LIST])
    sample: kmeans.Rows = _Sample(store, nodes[drawn], coarse, threads)
    if coarse is not None or sample[:1].nbytes * len(sample) <= HELD:  # a transform is dear to apply again and again
        sample = _held(sample)
    walks = walks_for(n_lists, seed, threads)
    made: NDArray[Any] = kmeans.balanced(sample, n_lists, seed=seed, threads=threads, nearest=walks)
    del sample
    if store.metric.input == "bits":
        made = np.packbits(made >= 0.5, axis=1)
    centers = Centers(made, coarse, guide=guide_over(made, store.metric, seed, threads))
    labels = assign(store, nodes, centers, threads, report)
    if len(made) < GUIDED:
        centers = centers._replace(guide=None)
    return (_with_means(store, nodes, centers, labels, threads) if with_means and coarse else centers), labels


class _Sample:
    """Vectors of some nodes where they are clustered, which are made as they are asked for."""

    def __init__(self, store: Store, nodes: Nodes, coarse: FittedTransform | None, threads: int) -> None:
        self._store, self._nodes, self._coarse, self._threads = store, nodes, coarse, threads

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, which: Any, /) -> NDArray[np.float32]:
        return in_space(self._store, self._nodes[which], self._threads, self._coarse)


def _held(rows: kmeans.Rows) -> NDArray[np.float32]:
    """All rows in one array."""
    made = np.empty((len(rows), rows[:1].shape[1]), np.float32)
    for first in range(0, len(made), BLOCK):
        made[first : first + BLOCK] = rows[first : first + BLOCK]
    return made


def _with_means(store: Store, nodes: Nodes, centers: Centers, labels: NDArray[np.uint32], threads: int) -> Centers:
    """The same centers with the means of their lists; of an empty one, what its center says is all there is."""
    assert centers.coarse is not None
    sums = np.zeros((len(centers.rows), store.dim))
    for first in range(0, len(nodes), BLOCK):
        block = slice(first, first + BLOCK)
        _core.sum_by_label(in_space(store, nodes[block], threads), labels[block], sums, threads)
    counts = np.bincount(labels, minlength=len(sums))
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if not counts.all():
        means[counts == 0] = centers.coarse.restore(centers.rows[counts == 0])
    return centers._replace(means=means)


def assign(store: Store, nodes: Nodes, centers: Centers, threads: int, report: Any = None) -> NDArray[np.uint32]:
    """The list of each node: that of its nearest center, or of one that a guide finds. ``report(done)`` is called now
    and then."""
    middles = _numbers(store, centers)
    guide = centers.guide if centers.guide is not None and centers.guide.squared else None
    labels = np.empty(len(nodes), np.uint32)
    for first in range(0, len(nodes), BLOCK):
        block = in_space(store, nodes[first : first + BLOCK], threads, centers.coarse)
        labels[first : first + len(block)] = (
            kmeans.assign(block, middles, threads=threads) if guide is None else guide.nearest(block, threads)
        )
        if report is not None:
            report(first + len(block))
    return labels


def _numbers(store: Store, centers: Centers) -> NDArray[np.float32]:
    """Centers as numbers, bits too."""
    bits = store.metric.input == "bits"
    return np.unpackbits(centers.rows, axis=1).astype(np.float32) if bits else centers.rows


def second(
    store: Store, nodes: Nodes, centers: Centers, labels: NDArray[np.uint32], spill: str, threads: int
) -> NDArray[np.uint32]:
    """Another list of each node, beside that of its nearest center; NONE for one that needs none.

    "soar": the one whose residual is short and says something else than the first one's: what is along that weighs by
    `_ALONG` more (Sun et al., SOAR, NeurIPS 2023, theorem 3.1). "closure": the next nearest one, if it is at most
    `_NEARLY` farther than the nearest and on another side of the vector (Chen et al., SPANN, NeurIPS 2021, section
    3.2).
    """
    from nearly.indexes.flat import Flat  # an index beside those that stand on lists

    found = np.full(len(nodes), NONE, np.uint32)
    middles = _numbers(store, centers)
    if len(middles) < 2:
        return found
    guide = centers.guide
    nearest = guide.index if guide is not None and guide.squared else Flat(middles)
    for first in range(0, len(nodes), _SPILLED):
        vectors = in_space(store, nodes[first : first + _SPILLED], threads, centers.coarse)
        own = labels[first : first + _SPILLED]
        hits = nearest.search(vectors, k=min(_CANDIDATES, len(middles)), threads=threads or None)
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
    centers : Centers
    chunks, members : table
        Chunks of slots, and the node of each slot.
    unit : int
        Chunks begin at multiples of so many slots.
    tails, sizes : ndarray of shape (n_lists,)
        The last chunk of each list, and how many nodes it holds.
    n_chunks, n_slots : int
        In use; tables may have more rows, which mean nothing.
    """

    def __init__(self, store: Store, centers: Centers, chunks: Any, members: Any, unit: int = 1) -> None:
        self.centers, self.chunks, self.members, self.unit = centers, chunks, members, unit
        self._metric, self._dim = store.metric, store.dim
        self.tails, self.sizes = np.arange(len(self), dtype=np.uint32), np.zeros(len(self), np.int64)
        self.n_chunks = self.n_slots = 0
        for owners, at in self._levels():
            self.tails[owners] = at
            self.sizes[owners] += self.table["count"][at]
            ends = self.table["first"][at].astype(np.int64) + self.table["capacity"][at]
            self.n_chunks = max(self.n_chunks, int(at.max()) + 1)
            self.n_slots = max(self.n_slots, int(ends.max()))

    @classmethod
    def build(cls, store: Store, centers: Centers, labels: NDArray[np.uint32], nodes: Nodes, unit: int = 1) -> Self:
        """Lists of nodes, each in one chunk, as tight as they can be."""
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=len(centers.rows))
        made = np.empty(len(counts), CHUNK)
        room = -(-counts // unit) * unit
        first = np.cumsum(room) - room
        made["first"], made["count"], made["capacity"], made["next"] = first, counts, room, NONE
        chunks, members = new_table(CHUNK.itemsize, len(counts)), new_table(4, int(room.sum()))
        chunks.array()[:] = made.view(np.uint8).reshape(-1, CHUNK.itemsize)
        within = np.arange(len(nodes)) - np.repeat(np.cumsum(counts) - counts, counts)
        members.array().view(np.uint32)[np.repeat(first, counts) + within, 0] = nodes[order]
        return cls(store, centers, chunks, members, unit)

    def __len__(self) -> int:
        return len(self.centers.rows)

    @cached_property
    def scorer(self) -> Any:
        """The core's scorer over the centers: made when lists are first chosen by it."""
        return scorer_of(self._metric, self._dim, self.centers)

    @property
    def table(self) -> NDArray[Any]:
        """The chunks as records."""
        return cast("NDArray[Any]", self.chunks.array().view(CHUNK)[:, 0])

    @property
    def n_bytes(self) -> int:
        """Bytes of centers and tables."""
        centers = sum(part.nbytes for part in (self.centers.rows, self.centers.means) if part is not None)
        centers += 0 if self.centers.guide is None else self.centers.guide.n_bytes
        return int(centers + self.chunks.n_bytes + self.members.n_bytes)

    def _levels(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Lists and their first chunks, lists and their second chunks, and so on."""
        owners = at = np.arange(len(self))
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
