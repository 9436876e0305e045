"""Balls that hold the vectors of a segment: how near to a query any of them can be.

A search that has found its k nearest leaves out segments whose balls all lie farther: by the triangle inequality, so no
answer changes. Where vectors are unit ones, half the squared distance is the cosine's.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.errors import InputError
from nearly.metrics import AnyMetric

__all__ = ["Balls", "as_distances", "lies_in_space", "placed"]

_SLACK = 1e-4  # of distances: the engine's are float32, and a bound must never be above them

Floats = NDArray[np.float32]


def lies_in_space(metric: AnyMetric) -> bool:
    """Whether a metric's distances grow with those of space."""
    return metric.name in ("l2", "cosine")


def placed(metric: AnyMetric, vectors: Floats) -> Floats:
    """Where vectors lie in the space whose distances a metric grows with."""
    if metric.name != "cosine":
        return vectors
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    made: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return made


class Balls(NamedTuple):
    """Some balls, each around vectors of one cell.

    Attributes
    ----------
    cells : ndarray of shape (m,), int64
    centers : ndarray of shape (m, dim), float32
    radii : ndarray of shape (m,), float32
    """

    cells: NDArray[np.int64]
    centers: Floats
    radii: Floats

    @classmethod
    def checked(cls, cells: Any, centers: Any, radii: Any) -> "Balls":
        """Balls of arrays from a file; InputError where they are none."""
        wanted = ((cells, np.int64, 1), (centers, np.float32, 2), (radii, np.float32, 1))
        right = all(each is not None and each.dtype == dtype and each.ndim == rank for each, dtype, rank in wanted)
        if not right or not len(cells) == len(centers) == len(radii) > 0:
            raise InputError("arrays of its balls are missing or of another size")
        return cls(cells, centers, radii)

    @classmethod
    def around(cls, vectors: Floats, labels: NDArray[np.int64]) -> "Balls":
        """A ball around the vectors of each cell: about their mean, so that no other vector is remembered."""
        cells = np.unique(labels)
        centers = np.stack([vectors[labels == cell].mean(axis=0, dtype=np.float64) for cell in cells])
        centers = centers.astype(np.float32)
        radii = [
            np.sqrt(((vectors[labels == cell].astype(np.float64) - center) ** 2).sum(axis=1)).max()
            for cell, center in zip(cells, centers, strict=True)
        ]
        return cls(cells, centers, np.nextafter(np.array(radii, np.float32), np.float32(np.inf)))

    def bounds(self, queries: Floats) -> NDArray[np.float64]:
        """The least distance in space of a vector of each ball from each query, of shape (n_queries, m)."""
        q, c = queries.astype(np.float64), self.centers.astype(np.float64)
        squares = (q**2).sum(axis=1)[:, None] + (c**2).sum(axis=1) - 2 * q @ c.T
        far = np.sqrt(np.maximum(squares, 0))
        error = _SLACK * (far + self.radii) + 1e-6 * np.sqrt((q**2).sum(axis=1))[:, None]
        made: NDArray[np.float64] = np.maximum(far - self.radii - error, 0)
        return made

    def least(self, metric: AnyMetric, queries: Floats) -> NDArray[np.float64]:
        """The least distance of any vector from each query, in the unit of the metric."""
        return as_distances(metric, self.bounds(placed(metric, queries)).min(axis=1))

    def hold(self, metric: AnyMetric, vectors: Floats) -> bool:
        """Whether every vector is in a ball, as nearly as bounds are kept."""
        return bool((self.bounds(placed(metric, vectors)).min(axis=1, initial=np.inf) == 0).all())


def as_distances(metric: AnyMetric, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances in space in the unit of the metric, a little less."""
    return bounds**2 / 2 - 2e-5 if metric.name == "cosine" else bounds
