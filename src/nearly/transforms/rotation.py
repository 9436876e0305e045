"""Random rotations: they spread what vectors say evenly over all coordinates."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nearly import _core
from nearly.arrays import check_choice
from nearly.transforms.base import FittedTransform, fit
from nearly.transforms.pca import principal
from nearly.transforms.steps import Affine, Floats, Rotated, Step

__all__ = ["Rotation"]


@dataclass(frozen=True)
class Rotation:
    """A random rotation, which keeps all distances and products.

    Parameters
    ----------
    kind : {"hadamard", "orthogonal"}, default "hadamard"
        Four rounds of random signs and a fast Hadamard transform, in time n log n, padded with zeros to a multiple of
        64 (Ailon & Chazelle, SIAM J. Computing 2009); or a matrix drawn evenly from all rotations and reflections, as
        the eigenvectors of a random symmetric matrix are (Mehta, Random Matrices, section 2.5).

    Examples
    --------
    >>> vectors = np.random.default_rng(0).standard_normal((5, 100), dtype=np.float32)
    >>> turned = Rotation().fit(vectors).apply(vectors)
    >>> turned.shape, bool(np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-3))
    ((5, 128), True)
    """

    kind: Literal["hadamard", "orthogonal"] = "hadamard"

    def __post_init__(self) -> None:
        check_choice(self.kind, ("hadamard", "orthogonal"), "kind")

    @property
    def by_coordinate(self) -> bool:
        """Whether it takes coordinates for what they are."""
        return False

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> FittedTransform:
        """Draw a rotation for vectors of shape (n, dim); the same seed gives the same one."""
        return fit(self, vectors, metric, seed)

    def steps(self, rows: Floats, *, metric: str, seed: int, threads: int = 0) -> list[Step]:
        """Draw a rotation of as many coordinates as rows have."""
        inputs = rows.shape[1]
        if self.kind == "hadamard":
            signs = np.empty((inputs + 63) // 64 * 4, np.uint64)
            _core.draw_rotation(inputs, seed, signs)
            return [Rotated(signs)]
        rng = np.random.default_rng(seed)
        drawn = rng.standard_normal((inputs, inputs))
        axes, _ = principal(np.ascontiguousarray(drawn + drawn.T, np.float32), inputs, seed, threads)
        axes *= rng.choice((-1.0, 1.0), inputs)[:, None]  # the core gives each axis a sign of its own
        return [Affine.about(axes, np.zeros(inputs), orthonormal=True)]
