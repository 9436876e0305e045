"""What passes a filter, in the terms of an index: a bit a row, and from that the nodes."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays
from nearly.errors import InputError
from nearly.indexes.store import NONE

if TYPE_CHECKING:
    from nearly.indexes.base import Index
    from nearly.indexes.graph import GraphIndex

__all__ = ["Allowed", "Nodes", "nodes_of", "passing"]

_FEWEST, _MOST = 0.02, 0.7  # shares between which it matters how what passes lies
_SEEDS = 16  # nodes from which a walk begins among what passes, beside the graph's own entries; as many as of those


class Nodes:
    """The nodes on which rows hang that pass: a bit for each node, and what is made of them when it is asked for."""

    __slots__ = ("_numbers", "_some", "bits", "n_nodes")

    def __init__(self, bits: NDArray[np.uint64], n_nodes: int) -> None:
        self.bits, self.n_nodes = bits, n_nodes
        self._numbers: NDArray[np.uint32] | None = None
        self._some: NDArray[np.uint32] | None = None

    @property
    def numbers(self) -> NDArray[np.uint32]:
        """Their numbers, ascending."""
        if self._numbers is None:
            self._numbers = _core.set_nodes(self.bits, self.n_nodes)
        return self._numbers

    @property
    def some(self) -> NDArray[np.uint32]:
        """A few of these, from all over."""
        if self._some is None:
            self._some = _core.some_nodes(self.bits, self.n_nodes, _SEEDS)
        return self._some

    def below(self, n: int) -> NDArray[np.uint32]:
        """The numbers below n: a writer may have added nodes since a reader learned how many there are."""
        numbers = self.numbers
        return numbers if not len(numbers) or numbers[-1] < n else numbers[: np.searchsorted(numbers, n)]


class Allowed:
    """A filter for those who know the rows of an index, as a collection does.

    Passed as ``where=`` it is taken as it is. Rows past the end of the bits do not pass; the bits of rows that were
    removed must not be set. Every other ``where=`` becomes one of these. It remembers which nodes it means, so one
    object that serves many searches costs the least.

    Attributes
    ----------
    bits : ndarray of uint64
        A bit a row.
    n : int
        How many are set.
    ready : dict
        Searches that an index has made ready for it, by what was asked.
    held
        What inverted lists were found to hold of it.
    """

    __slots__ = ("_nodes", "_uneven", "bits", "held", "n", "ready")

    def __init__(self, bits: NDArray[np.uint64], n: int) -> None:
        self.bits, self.n = bits, n
        self.ready: dict[Any, Any] = {}
        self.held: Any = None
        self._nodes: tuple[Any, int, Nodes] | None = None
        self._uneven: tuple[Nodes, float] | None = None

    def nodes(self, index: "Index") -> Nodes:
        """The nodes that it means, as rows hang now."""
        held, store, change = self._nodes, index._store, index._change
        if held is None or held[0] is not store or held[1] != change:
            held = self._nodes = store, change, nodes_of(index, self.bits)
        return held[2]

    def uneven(self, index: "GraphIndex") -> float:
        """How much alike neighbors in a graph are in whether they pass, to a twentieth.

        0 where so few or so many pass that it does not matter.
        """
        if not _FEWEST < self.n / max(1, len(index)) < _MOST:
            return 0.0
        nodes = self.nodes(index)
        if self._uneven is None or self._uneven[0] is not nodes:
            self._uneven = nodes, round(20 * index._graph.unevenness(nodes.bits)) / 20
        return self._uneven[1]


def passing(index: "Index", where: Any) -> Allowed:
    """The rows that a mask passes, or ids, or an object that knows its bits."""
    highest = None if index._own_ids else index._next_id
    whole = highest is not None and highest == index._n_live and index._rows_are_ids()
    packed = getattr(type(where), "__nearly_bits__", None)
    if whole and packed is not None and where.n == highest:
        return Allowed(*packed(where))  # as they are
    if packed is not None and highest is not None and where.n != highest:
        raise InputError(f"where is a {type(where).__name__} of {where.n} rows, but this index has had {highest} "
                         "ids, and a filter has a bit for each: make it anew once rows came, or pass ids")  # fmt: skip
    chosen = arrays.as_mask_or_ids(where, n_mask=highest)
    store = index._store
    n = min(index._n_rows, store.ids.rows)
    if chosen.dtype == np.bool_:
        mask = cast("NDArray[np.bool_]", chosen)
        if whole and len(mask) == n:
            return _packed(mask)
        ids = store.column("ids")[:n]
        passes = mask[np.clip(ids, 0, len(mask) - 1)] if len(mask) else np.zeros(n, bool)
    else:
        passes, wanted = np.zeros(n, bool), cast("NDArray[np.int64]", chosen)
        if whole:
            passes[wanted[(wanted >= 0) & (wanted < n)]] = True
            return _packed(passes)
        rows, known = index._id_map().rows(wanted)
        passes[rows[known & (rows < n)]] = True
    passes &= store.column("nodes")[:n] != NONE
    return _packed(passes)


def _packed(passes: NDArray[np.bool_]) -> Allowed:
    octets = np.packbits(passes, bitorder="little")
    bits = np.zeros((len(passes) + 63) // 64, np.uint64)
    bits.view(np.uint8)[: len(octets)] = octets
    return Allowed(bits, int(_core.count_bits(bits)))


def nodes_of(index: "Index", bits: NDArray[np.uint64]) -> Nodes:
    """The nodes on which rows hang whose bit is set."""
    n_nodes, runs = index._snapshot()[0], index._node_runs()
    return Nodes(bits if runs is None else runs.nodes_of(bits, n_nodes), n_nodes)
