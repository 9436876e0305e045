"""Codes of the leading principal directions only: fewer bytes to read for each comparison."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import check_fraction, check_int
from nearly.errors import InputError
from nearly.quantizers.base import Fitted, Floats, check_metric, fit, lengthen
from nearly.quantizers.codes import FittedCodes
from nearly.quantizers.scalar import Scalar
from nearly.transforms.pca import covariance, principal

__all__ = ["Reduced", "byte_layout"]


@dataclass(frozen=True)
class Reduced:
    """Scalar codes of the leading principal components (LeanVec's idea: Tepper et al., TMLR 2024).

    What ``Transformed(Pca(dims), code)`` does, faster: the projection is rounded to bytes when it is fitted, and
    vectors and queries pass through the same rounded matrix. What it leaves out of a vector is remembered as one
    number, so that distances stay right on average.

    Parameters
    ----------
    dims : int or None, default None
        Components kept, at most the dimension. None takes the smallest number that fills whole cache lines and keeps
        ``energy``.
    code : Scalar, default Scalar(bits=8)
        How components are coded.

    energy : float, default 0.9
        Share of the variance that an automatic choice of ``dims`` must keep, in (0, 1].

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 8), dtype=np.float32) @ rng.standard_normal((8, 96), dtype=np.float32)
    >>> fitted = Reduced(dims=12).fit(vectors)
    >>> fitted.row_bytes, round(fitted.energy, 3)
    (32, 1.0)
    """

    dims: int | None = None
    code: Scalar = field(default_factory=Scalar)
    energy: float = 0.9

    def __post_init__(self) -> None:
        if self.dims is not None:
            check_int(self.dims, "dims", low=1)
        check_fraction(self.energy, "energy")
        if not isinstance(self.code, Scalar):
            raise InputError(f"code is {self.code!r}; pass a Scalar, for example nearly.Scalar(bits=8)")

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0) -> FittedCodes:
        """Fit to rows in the metric's form."""
        check_metric(metric)
        rows = np.ascontiguousarray(lengthen(sample, norm_bound))
        inputs, product = rows.shape[1], metric == "ip" and norm_bound == 0
        if self.dims is not None and self.dims > inputs:
            raise InputError(f"dims is {self.dims}, but the vectors have {inputs}; pass at most that, or None")
        mean = rows.mean(axis=0, dtype=np.float64)
        spread = covariance(rows, mean.astype(np.float32), threads)
        total = float(np.trace(spread))
        for dims in [self.dims] if self.dims is not None else _line_dims(inputs, self.code, product):
            axes, variances = principal(spread, dims, seed, threads)
            energy = float(np.maximum(variances, 0).sum()) / total if total > 0 else 1.0
            if energy >= self.energy:
                break
        scale = np.maximum(np.abs(axes).max(axis=1), np.finfo(np.float32).tiny) / 127
        whole = np.rint(axes / scale[:, None]).astype(np.int8)
        scale = scale.astype(np.float32)
        offset = ((whole * scale[:, None]).astype(np.float64) * mean).sum(axis=1).astype(np.float32)
        projected = np.empty((len(rows), dims), np.float32)
        _core.products(rows, np.ascontiguousarray(whole, np.float32), projected, threads)
        projected = projected * scale - offset
        center, step = self.code.ranges(projected)
        return FittedCodes(
            dim=sample.shape[1], dims=dims, bits=self.code.bits, per_vector=self.code.scale == "vector", metric=metric,
            norm_bound=norm_bound, center=center, step=step, matrix=byte_layout(whole),
            matrix_scale=scale, offset=offset, mean=mean.astype(np.float32), energy=min(1.0, energy),
        )  # fmt: skip


def _line_dims(inputs: int, code: Scalar, product: bool) -> list[int]:
    """Numbers of components whose codes fill whole cache lines together with their factors, rising."""
    header = 12 if code.scale == "vector" else 0 if product else 4
    fitting = [(lines * 64 - header) * 8 // code.bits for lines in (1, 2, 3, 4, 6, 8)]
    return [dims for dims in fitting if dims <= inputs] or [inputs]


def byte_layout(whole: NDArray[np.int8]) -> NDArray[np.int8]:
    """The projection as the core reads it: pairs of inputs beside each other, outputs padded to 16."""
    dims, inputs = whole.shape
    padded = np.zeros(((dims + 15) // 16 * 16, (inputs + 1) // 2 * 2), np.int8)
    padded[:dims, :inputs] = whole
    return np.ascontiguousarray(padded.reshape(len(padded), -1, 2).transpose(1, 0, 2)).reshape(-1)
