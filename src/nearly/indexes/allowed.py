"""What passes a filter, in the terms of an index: a bit a row, and from that the nodes."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core

if TYPE_CHECKING:
    from nearly.indexes.base import Index

__all__ = ["Allowed", "Nodes"]

_SEEDS = 16  # nodes from which a walk begins among what passes, beside the graph's own entries; as many as of those


class Nodes(NamedTuple):
    """The nodes on which rows hang that pass: a bit for each node, their numbers ascending, and some of these."""

    bits: NDArray[np.uint64]
    numbers: NDArray[np.uint32]
    some: NDArray[np.uint32]


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

    __slots__ = ("_nodes", "bits", "held", "n", "ready")

    def __init__(self, bits: NDArray[np.uint64], n: int) -> None:
        self.bits, self.n = bits, n
        self.ready: dict[Any, Any] = {}
        self.held: Any = None
        self._nodes: tuple[Any, int, Nodes] | None = None

    def nodes(self, index: "Index") -> Nodes:
        """The nodes that it means, as rows hang now."""
        held, store, change = self._nodes, index._store, index._change
        if held is None or held[0] is not store or held[1] != change:
            held = self._nodes = store, change, nodes_of(index, self.bits)
        return held[2]


def nodes_of(index: "Index", bits: NDArray[np.uint64]) -> Nodes:
    """The nodes on which rows hang whose bit is set."""
    n_nodes, store = index._snapshot()
    if not index._nodes_are_rows():
        rows, bits = bits, np.zeros((n_nodes + 63) // 64, np.uint64)
        _core.nodes_of(rows, store.column("nodes"), bits)
    numbers = _core.set_nodes(bits, n_nodes)
    n = len(numbers)
    some = numbers if n <= _SEEDS else numbers[(2 * np.arange(_SEEDS) + 1) * n // (2 * _SEEDS)]
    return Nodes(bits, numbers, some)
