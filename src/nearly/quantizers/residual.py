"""Residual quantization: each codebook codes what the ones before it left."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nearly.arrays import check_int
from nearly.errors import InputError
from nearly.kmeans import assign, kmeans
from nearly.quantizers.additive import FittedAdditive
from nearly.quantizers.base import Fitted, Floats, check_metric, fit, lengthen

__all__ = ["Residual"]


@dataclass(frozen=True)
class Residual:
    """Residual quantization (Chen, Guan & Wang, Sensors 2010), coded by beam search.

    The first codebook codes vectors, the second what the first left, and so on: a vector is about the sum of one
    codeword of each level, from coarse to fine. Compared with `Product` of the same bits, codes are closer to vectors
    whose parts depend on each other, and take much longer to make.

    Parameters
    ----------
    levels : int, default 8
        Codebooks, at most 256.
    bits : {8, 4}, default 8
        Bits for each level.
    beam : int, default 4
        Partial codes kept while a vector is coded, 1 to 256: 1 takes the nearest codeword of each level in turn; more
        cost so many times as much and lose less (the beam search of additive quantization: Babenko & Lempitsky, CVPR
        2014, section 3.2).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 8), dtype=np.float32) @ rng.standard_normal((8, 32), dtype=np.float32)
    >>> few, more = (Residual(levels).fit(vectors) for levels in (2, 4))
    >>> more.row_bytes, more.error(vectors).mean < few.error(vectors).mean
    (8, True)
    """

    levels: int = 8
    bits: int = 8
    beam: int = 4

    def __post_init__(self) -> None:
        check_int(self.levels, "levels", low=1, high=256)
        check_int(self.beam, "beam", low=1, high=256)
        if self.bits not in (8, 4) or isinstance(self.bits, bool):
            raise InputError(f"bits is {self.bits!r}; pass 8 or 4")

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(
        self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0
    ) -> FittedAdditive:
        """Fit to rows in the metric's form."""
        check_metric(metric)
        rows = lengthen(sample, norm_bound)
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        left = np.ascontiguousarray(rows - mean)
        books = []
        for _ in range(self.levels):
            book = kmeans(left, 2**self.bits, seed=seed, threads=threads)
            left = left - book[assign(left, book, threads=threads)]
            books.append(book)
        return FittedAdditive(
            dim=sample.shape[1], books=self.levels, bits=self.bits, residual=True, beam=self.beam, metric=metric,
            norm_bound=norm_bound, center=mean, codewords=np.stack(books),
        )  # fmt: skip
