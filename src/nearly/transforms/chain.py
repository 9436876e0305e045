"""One transform after another."""

from dataclasses import dataclass
from typing import Any

from nearly.errors import InputError
from nearly.transforms.base import FittedTransform, Transform, fit, fit_rows
from nearly.transforms.steps import Floats, Step, fold

__all__ = ["Chain"]


@dataclass(frozen=True, init=False)
class Chain:
    """Transforms in order. Neighbors become one matrix where one of them is a matrix.

    Parameters
    ----------
    *transforms : Transform
        At least one.

    Examples
    --------
    >>> import numpy as np
    >>> from nearly import Matryoshka, Pca, Rotation
    >>> vectors = np.random.default_rng(0).standard_normal((500, 96), dtype=np.float32)
    >>> fitted = Chain(Matryoshka(80), Pca(64), Rotation()).fit(vectors)
    >>> fitted.dims, [part.kind for part in fitted.parts]
    (64, ['leading', 'affine'])
    """

    transforms: tuple[Transform, ...]

    def __init__(self, *transforms: Transform) -> None:
        for transform in transforms:
            if isinstance(transform, type) or not hasattr(transform, "steps"):
                raise InputError(f"{transform!r} is no transform; pass for example nearly.Pca(64)")
        if not transforms:
            raise InputError("Chain takes at least one transform, for example nearly.Pca(64)")
        object.__setattr__(self, "transforms", transforms)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.transforms))})"

    @property
    def by_coordinate(self) -> bool:
        """Whether one of them takes coordinates for what they are."""
        return any(transform.by_coordinate for transform in self.transforms)

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> FittedTransform:
        """Fit each to the images of the one before; the same seed gives the same chain."""
        return fit(self, vectors, metric, seed)

    def steps(self, rows: Floats, *, metric: str, seed: int, threads: int = 0) -> list[Step]:
        """Fit each to the images of the one before."""
        made: list[Step] = []
        for transform in self.transforms:
            fitted = fit_rows(transform, rows, metric=metric, seed=seed, threads=threads)
            made += fitted.parts
            rows = fitted.images(rows, threads)
        return list(fold(made))
