"""Whole numbers of 8 or 4 bits for each dimension."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nearly.arrays import check_choice
from nearly.errors import InputError
from nearly.quantizers.base import Fitted, Floats, check_metric, fit, lengthen
from nearly.quantizers.codes import FittedCodes

__all__ = ["Scalar"]

_TAIL = 0.0005  # share of the sample cut off at either end of a dimension: one outlier must not widen the step of all


@dataclass(frozen=True)
class Scalar:
    """Scalar quantization: a dimension becomes a whole number of ``bits`` bits.

    Parameters
    ----------
    bits : {8, 4}, default 8
        Bits for each dimension.
    scale : {"global", "dimension", "vector"}, default "global"
        Whose range the numbers divide: one step for all, one for each dimension, or one for each vector (LVQ:
        Aguerrebere et al., PVLDB 2023, section 3).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> fitted = Scalar(bits=8).fit(rng.standard_normal((1000, 64), dtype=np.float32))
    >>> fitted.row_bytes, fitted.error(rng.standard_normal((100, 64), dtype=np.float32)).mean < 1e-3
    (128, True)
    """

    bits: int = 8
    scale: Literal["global", "dimension", "vector"] = "global"

    def __post_init__(self) -> None:
        if self.bits not in (8, 4) or isinstance(self.bits, bool):
            raise InputError(f"bits is {self.bits!r}; pass 8 or 4")
        check_choice(self.scale, ("global", "dimension", "vector"), "scale")

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0) -> FittedCodes:
        """Fit to rows in the metric's form."""
        check_metric(metric)
        rows = lengthen(sample, norm_bound)
        center, step = self.ranges(rows)
        return FittedCodes(
            dim=sample.shape[1], dims=rows.shape[1], bits=self.bits, per_vector=self.scale == "vector", metric=metric,
            norm_bound=norm_bound, center=center, step=step,
        )  # fmt: skip

    def ranges(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return center and step of each dimension."""
        if self.scale == "vector":
            center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
            return center, np.zeros(rows.shape[1], np.float32)
        ordered = np.sort(rows, axis=0)
        cut = int(len(rows) * _TAIL)
        low, high = ordered[cut].astype(np.float64), ordered[-1 - cut].astype(np.float64)
        width = high - low
        if self.scale == "global":
            width = np.full_like(width, width.max())
        return ((low + high) / 2).astype(np.float32), (width / (2**self.bits - 1)).astype(np.float32)
