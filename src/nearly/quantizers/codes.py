"""Fitted scalar codes, with a projection before them or not: what `Scalar` and `Reduced` become."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.quantizers.base import Fitted, Floats

__all__ = ["FittedCodes"]


def _empty(dtype: Any) -> NDArray[Any]:
    return np.zeros(0, dtype)


@dataclass(frozen=True, eq=False)
class FittedCodes(Fitted):
    """A fitted scalar code, with an optional projection before it: immutable.

    A vector x becomes z = projection(x) - center, and z whole numbers c with z about step * (c - half the range).

    Attributes
    ----------
    dims : int
        Dimensions that are coded.
    bits : int
        8 or 4 per dimension.
    per_vector : bool
        Whether each vector has its own step (LVQ) instead of one shared by all.
    """

    kind: ClassVar[str] = "codes"

    dim: int
    dims: int
    bits: int
    per_vector: bool
    metric: str
    norm_bound: float
    center: Floats
    step: Floats
    matrix: NDArray[np.int8] = field(default_factory=lambda: _empty(np.int8))
    matrix_scale: Floats = field(default_factory=lambda: _empty(np.float32))
    offset: Floats = field(default_factory=lambda: _empty(np.float32))
    mean: Floats = field(default_factory=lambda: _empty(np.float32))
    energy: float = 1.0  # share of the variance that the projection keeps

    @property
    def row_bytes(self) -> int:
        """Bytes of one code, factors and padding included."""
        return int(_core.Codes.row_bytes(self.dims, self.bits, self.per_vector, self.compares_products))

    @property
    def name(self) -> str:
        """What the codes are, for people."""
        of = f" of {self.dim}" if self.dims < self.dim else ""
        return f"{self.bits}-bit codes of {self.dims}{of} dimensions"

    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private)."""
        return _core.Codes(
            table, self.dim, self.dims, self.bits, self.per_vector, metrics.METRICS[self.metric].number,
            self.norm_bound, self.center, self.step, self.matrix, self.matrix_scale, self.offset, self.mean,
        )  # fmt: skip

    def _restored(self, coded: Floats) -> Floats:
        if len(self.matrix):
            # The rows of the projection are orthonormal to rounding.
            columns = np.ascontiguousarray(self._matrix_floats().T)
            restored = np.empty((len(coded), len(columns)), np.float32)
            _core.products(coded, columns, restored)
            coded = restored + self.mean
        return super()._restored(coded)

    def _matrix_floats(self) -> Floats:
        inputs, outputs = self.dim + (self.norm_bound > 0), (self.dims + 15) // 16 * 16
        pairs = self.matrix.reshape(-1, outputs, 2)
        rows = pairs.transpose(1, 0, 2).reshape(outputs, -1)[: self.dims, :inputs]
        return rows * self.matrix_scale[:, None]

    @classmethod
    def _of_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        types = {"center": np.float32, "step": np.float32, "matrix": np.int8, "matrix_scale": np.float32,
                 "offset": np.float32, "mean": np.float32}  # fmt: skip
        made = cls(
            **{name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in types.items()},
            dim=int(config["dim"]), dims=int(config["dims"]), bits=int(config["bits"]),
            per_vector=bool(config["per_vector"]), metric=str(config["metric"]),
            norm_bound=float(config["norm_bound"]), energy=float(config["energy"]),
        )  # fmt: skip
        if (made.step < 0).any():
            raise ValueError("a step is negative")
        return made
