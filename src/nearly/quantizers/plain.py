"""Vectors as they are: no codes beside them."""

from dataclasses import dataclass
from typing import Any

from nearly.quantizers.base import Fitted, Floats, fit

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain:
    """No quantizer: traverse by the vectors themselves, in the element type that they came in.

    float32 vectors that are whole numbers in 0..255, or exact in float16, are stored as those: nothing is lost, and
    comparisons read a quarter or half of the memory.

    Examples
    --------
    >>> Plain()
    Plain()
    """

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Raise an InputError: there is nothing to fit."""
        return fit(self, vectors, metric, seed)

    def fit_floats(
        self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0
    ) -> Fitted | None:
        """Return None: vectors are kept as they are."""
        return None
