"""A graph over the centers of lists, where these are many: queries walk to those near to them, and do not meet all."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from nearly import storage
from nearly.errors import FormatError
from nearly.hits import Stats
from nearly.indexes import files
from nearly.indexes.sections import Section
from nearly.indexes.store import NONE
from nearly.indexes.vamana import Vamana
from nearly.kmeans import Nearest
from nearly.metrics import Metric
from nearly.quantizers.base import CODED

__all__ = [
    "ASSIGNED",
    "GUIDED",
    "Guide",
    "Near",
    "guide_bytes",
    "guide_over",
    "guide_restored",
    "guide_state",
    "walks_for",
]

# Lists from which on vectors are put into them sooner by walks, and those near to a query are found sooner: many are
# wanted, and bytes of all centers lie in order (levers table of benchmarks/README.md).
ASSIGNED, GUIDED = 12_000, 32_768
RECALL = 0.99  # of the lists that a walk finds
_SHARE = 16  # more than one in so many of all lists: all are compared
_PREFIX = "guide_"  # before the names of its arrays in files


class Near(NamedTuple):
    """Lists near to each query, nearest first, and how far their centers are as the core compares them.

    Attributes
    ----------
    lists : ndarray of shape (n_queries, n), uint32
        `NONE` where there are fewer.
    distances : ndarray of shape (n_queries, n), float32
        Squared, or negated products.
    n_distances : int
        Comparisons that finding them took.
    """

    lists: NDArray[np.uint32]
    distances: NDArray[np.float32]
    n_distances: int


class Guide:
    """Finds the centers near to a query by a walk: an index of centers, with a recall contract of its own."""

    def __init__(self, index: Vamana) -> None:
        self.index = index
        self.squared = index.metric == "l2"

    def most(self) -> int:
        """How many lists are found sooner by a walk than by comparing with all."""
        return len(self.index) // _SHARE

    def near(self, queries: NDArray[np.float32], n: int, threads: int) -> Near:
        """The n lists nearest to each query, which is where centers are."""
        hits = self.index.search(queries, k=n, recall=RECALL, threads=threads or None)
        lists = np.where(hits.ids >= 0, hits.ids, NONE).astype(np.uint32)
        distances = hits.distances * hits.distances if self.squared else hits.distances
        return Near(lists, np.ascontiguousarray(distances), cast(Stats, hits.stats).n_distances)

    def nearest(self, vectors: NDArray[np.float32], threads: int) -> NDArray[np.uint32]:
        """The list of each vector."""
        return self.near(vectors, 1, threads).lists[:, 0]

    @property
    def n_bytes(self) -> int:
        """Bytes of memory, or of mapped file."""
        return self.index.n_bytes


def guide_over(rows: NDArray[Any], metric: Metric, seed: int, threads: int) -> Guide | None:
    """A guide to these centers; None where they are few, or are not compared as floats."""
    if len(rows) < (GUIDED if metric.name == "ip" else ASSIGNED) or metric.name not in CODED:
        return None
    return _made(rows, "ip" if metric.name == "ip" else "l2", seed, threads)


def _made(rows: NDArray[Any], metric: str, seed: int, threads: int) -> Guide:
    return Guide(Vamana(rows, metric=metric, recall=RECALL, seed=seed, threads=threads or None, progress=_silent))


def walks_for(n_lists: int, seed: int, threads: int) -> Callable[[NDArray[np.float32]], Nearest] | None:
    """How centers of a round of k-means, which move in the next one, are found by walks; None where they are few."""
    if n_lists < ASSIGNED:
        return None

    def walks(centers: NDArray[np.float32]) -> Nearest:
        guide = _made(centers, "l2", seed, threads)

        def nearest(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
            near = guide.near(rows, 1, threads)
            return near.lists[:, 0], near.distances[:, 0]

        return nearest

    return walks


def guide_bytes(n_lists: int, dim: int, metric: Metric) -> int:
    """About what a guide takes for each list."""
    return 0 if n_lists < GUIDED or metric.name not in CODED else 6 * dim + 256  # center, codes of it, list, rows


def _silent(done: int, total: int) -> None:
    """Lists report for both."""


def guide_state(guide: Guide) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and configuration, as files hold them."""
    parts, config = files.state(guide.index)
    more, values = guide.index._state()
    return {f"{_PREFIX}{name}": array for name, array in {**parts, **more}.items()}, {**config, **values}


def guide_restored(file: storage.File, rows: NDArray[Any], metric: Metric) -> Guide | None:
    """What `guide_state` wrote, over these centers; None where there was none."""
    if "guide" not in file.config:
        return None
    index = Vamana._restore(Section.of(file, _PREFIX, file.config["guide"]))
    compared = "ip" if metric.name == "ip" else "l2"
    if len(index) != len(rows) or index.dim != rows.shape[1] or index.metric != compared or not index._rows_are_ids():
        raise FormatError(f"{file.path} is damaged: the guide to its lists is to others")
    return Guide(index)
