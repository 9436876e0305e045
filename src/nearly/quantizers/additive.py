"""Fitted codes that name one codeword of each of several codebooks: what `Product` and `Residual` become."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.quantizers.base import Fitted, Floats

__all__ = ["FittedAdditive"]


@dataclass(frozen=True, eq=False)
class FittedAdditive(Fitted):
    """Codebooks: a vector is about the center plus one codeword of each.

    Attributes
    ----------
    books : int
        Codebooks.
    bits : int
        8 or 4 for each codebook.
    residual : bool
        Whether each codebook is of all coordinates; otherwise each has coordinates of its own.
    beam : int
        Partial codes that are kept while a vector is coded.
    center : ndarray of float32
        The mean of what was fitted to.
    codewords : ndarray of shape (books, 2**bits, width), float32
        About the center, padded with zeros where codebooks differ in width.
    """

    kind: ClassVar[str] = "additive"

    dim: int
    books: int
    bits: int
    residual: bool
    beam: int
    metric: str
    norm_bound: float
    center: Floats
    codewords: Floats

    @property
    def row_bytes(self) -> int:
        """Bytes of one code, factors and padding included."""
        number = metrics.METRICS[self.metric].number
        return int(_core.Additive.row_bytes(self.dim, number, self.norm_bound, self.books, self.bits, self.residual))

    @property
    def name(self) -> str:
        """What the codes are, for people."""
        how = "residual" if self.residual else "product"
        return f"{how} codes of {self.books} x {self.bits} bits for {self.dim} dimensions"

    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private)."""
        return _core.Additive(
            table, self.dim, metrics.METRICS[self.metric].number, self.norm_bound, self.bits, self.residual, self.beam,
            self.center, self.codewords,
        )  # fmt: skip

    @classmethod
    def _of_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        made = cls(
            center=np.ascontiguousarray(arrays["center"], np.float32),
            codewords=np.ascontiguousarray(arrays["codewords"], np.float32),
            dim=int(config["dim"]), books=int(config["books"]), bits=int(config["bits"]),
            residual=bool(config["residual"]), beam=int(config["beam"]), metric=str(config["metric"]),
            norm_bound=float(config["norm_bound"]),
        )  # fmt: skip
        if made.codewords.ndim != 3 or len(made.codewords) != made.books:
            raise ValueError("another number of codebooks")
        return made
