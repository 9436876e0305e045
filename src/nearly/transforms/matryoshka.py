"""Leading coordinates of embeddings that were trained so that these are embeddings themselves."""

from dataclasses import dataclass
from typing import Any

from nearly.arrays import check_int
from nearly.errors import InputError
from nearly.transforms.base import FittedTransform, fit
from nearly.transforms.steps import Floats, Leading, Step, Unit

__all__ = ["Matryoshka"]


@dataclass(frozen=True)
class Matryoshka:
    """The leading coordinates, of unit length again under cosine (Kusupati et al., NeurIPS 2022).

    For vectors trained this way. Of others leading coordinates say little: take `Pca`, which puts what says most first.

    Parameters
    ----------
    dims : int
        Coordinates kept, at most the dimension.

    Examples
    --------
    >>> import numpy as np
    >>> Matryoshka(2).fit(np.eye(3, dtype=np.float32)).apply(np.array([[1, 2, 3]], np.float32)).tolist()
    [[1.0, 2.0]]
    """

    dims: int

    def __post_init__(self) -> None:
        check_int(self.dims, "dims", low=1)

    @property
    def by_coordinate(self) -> bool:
        """Whether it takes coordinates for what they are."""
        return True

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> FittedTransform:
        """Fit to vectors of shape (n, dim): only their dimension matters."""
        return fit(self, vectors, metric, seed)

    def steps(self, rows: Floats, *, metric: str, seed: int, threads: int = 0) -> list[Step]:
        """The steps for rows of this dimension."""
        if self.dims > rows.shape[1]:
            raise InputError(f"dims is {self.dims}, but the vectors have {rows.shape[1]}; pass at most that")
        return [Leading(self.dims), *([Unit()] if metric == "cosine" else [])]
