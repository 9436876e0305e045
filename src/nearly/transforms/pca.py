"""Principal axes: the directions in which vectors differ most."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import check_int
from nearly.errors import InputError
from nearly.transforms.base import FittedTransform, fit
from nearly.transforms.steps import Affine, Floats, Step

__all__ = ["Pca"]

_ROUNDS = 6  # of orthogonal iteration: the subspace then holds all but about 1e-3 of the best one's energy


@dataclass(frozen=True)
class Pca:
    """The leading principal components, about the mean (Pearson 1901).

    Parameters
    ----------
    dims : int or None, default None
        Components kept, at most the dimension; None keeps all.
    whiten : bool, default False
        Divide components by their standard deviation, so that all count alike. This changes what is near: codes then
        compare whitened vectors. Not for ip.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 3), dtype=np.float32) @ rng.standard_normal((3, 20), dtype=np.float32)
    >>> fitted = Pca(3).fit(vectors)
    >>> bool(np.abs(fitted.restore(fitted.apply(vectors)) - vectors).max() < 1e-4)
    True
    """

    dims: int | None = None
    whiten: bool = False

    def __post_init__(self) -> None:
        if self.dims is not None:
            check_int(self.dims, "dims", low=1)
        if not isinstance(self.whiten, bool):
            raise InputError(f"whiten is {self.whiten!r}; pass True or False")

    @property
    def by_coordinate(self) -> bool:
        """Whether it takes coordinates for what they are."""
        return False

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> FittedTransform:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same transform."""
        return fit(self, vectors, metric, seed)

    def steps(self, rows: Floats, *, metric: str, seed: int, threads: int = 0) -> list[Step]:
        """Fit to rows in the metric's form."""
        inputs = rows.shape[1]
        dims = inputs if self.dims is None else self.dims
        if dims > inputs:
            raise InputError(f"dims is {dims}, but the vectors have {inputs}; pass at most that, or None")
        if self.whiten and metric == "ip":
            raise InputError("whitening changes inner products; use Pca(whiten=False) under ip, or metric='cosine'")
        mean = rows.mean(axis=0, dtype=np.float64)
        made = covariance(rows, mean.astype(np.float32), threads)
        axes, variances = principal(made, dims, seed, threads)
        if self.whiten:
            # Of the rows themselves: the covariance is of rows of another size. A direction without spread stays.
            spread = np.sqrt(np.maximum(variances, 0) / max(float(np.trace(made)), np.finfo(np.float32).tiny))
            total = np.sqrt(((rows.astype(np.float64) - mean) ** 2).sum(axis=1).mean())
            deviation = spread * total
            axes = axes / np.where(deviation > 1e-6 * max(total, np.finfo(np.float32).tiny), deviation, 1.0)[:, None]
        return [Affine.about(axes, mean, orthonormal=not self.whiten)]


def covariance(rows: Floats, mean: Floats, threads: int) -> Floats:
    """Blocks of products in float32, added up in float64: the same bits for any number of threads.

    Of the rows by a power of two, which turns no axis: squares of very large or very small numbers are no floats.
    """
    largest = max(abs(float(rows.max(initial=0))), abs(float(rows.min(initial=0))))
    factor = np.float32(2.0 ** -np.clip(np.frexp(largest)[1], -120, 120))
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for first in range(0, len(rows), 2048):
        columns = np.ascontiguousarray(((rows[first : first + 2048] - mean) * factor).T)
        block = np.empty(total.shape, np.float32)
        _core.products(columns, columns, block, threads)
        total += block
    return np.ascontiguousarray(total / len(rows), np.float32)


def principal(
    covariance: Floats, n_axes: int, seed: int, threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal rows along the leading axes, and their variances."""
    axes, variances = np.empty((n_axes, len(covariance))), np.empty(n_axes)
    _core.principal_axes(covariance, n_axes, _ROUNDS, seed, axes, variances, threads)
    return axes, variances
