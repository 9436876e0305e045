"""What transforms share: a specification's interface, and the map that it becomes when it is fitted to vectors."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import as_vectors, check_finite, check_seed
from nearly.errors import FormatError, InputError
from nearly.transforms.steps import Floats, Step, step_from_state

__all__ = ["FittedTransform", "Transform", "unit_rows"]

SAMPLE = 10_000  # rows that a fit looks at: covariances of 1,000 dimensions are settled by far fewer
METRICS = ("l2", "cosine", "ip")


class Transform(Protocol):
    """The specification of a transform: immutable, comparable, cheap."""

    @property
    def by_coordinate(self) -> bool:
        """Whether it takes coordinates for what they are, so that none may be added to vectors before it."""
        ...

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> "FittedTransform":
        """Return the transform fitted to vectors."""
        ...

    def steps(self, rows: Floats, *, metric: str, seed: int, threads: int = 0) -> list[Step]:
        """Fit to rows in the metric's form (unit length under cosine): the steps that vectors go through."""
        ...


@dataclass(frozen=True, eq=False)
class FittedTransform:
    """A transform fitted to vectors: a map of steps, immutable.

    Attributes
    ----------
    dim : int
        Columns of a vector.
    metric : str
        l2, ip or cosine; under cosine vectors get unit length first.
    parts : tuple of Step
        What vectors go through.
    """

    dim: int
    metric: str
    parts: tuple[Step, ...]

    @cached_property
    def map(self) -> Any:
        """The map of the core (private)."""
        made = _core.Map(self.dim)
        for part in self.parts:
            part.join(made)
        return made

    @property
    def dims(self) -> int:
        """Coordinates of an image."""
        return int(self.map.outputs)

    @cached_property
    def _inputs(self) -> list[int]:
        sizes = [self.dim]
        for part in self.parts:
            sizes.append(part.outputs(sizes[-1]))
        return sizes

    @property
    def orthonormal(self) -> bool:
        """Whether images keep distances, but for what the transform leaves out."""
        return all(part.keeps_distances for part in self.parts)

    @property
    def leaves_out(self) -> bool:
        """Whether images say less than vectors."""
        said = (part.says(inputs) for part, inputs in zip(self.parts, self._inputs, strict=False))
        return min(said, default=self.dim) < self.dim

    @cached_property
    def center(self) -> Floats:
        """A vector whose image is 0: the mean of what was fitted to, or 0 where nothing is centered."""
        center: Floats = self._back(np.zeros((1, self.dims), np.float32))[0]
        return center

    def _back(self, images: Floats) -> Floats:
        for part, inputs in zip(reversed(self.parts), reversed(self._inputs[:-1]), strict=True):
            images = part.undo(images, inputs)
        return images

    def images(self, rows: Floats, threads: int = 0) -> Floats:
        """Return the images of rows in the metric's form (private)."""
        out = np.empty((len(rows), self.dims), np.float32)
        self.map.apply(np.ascontiguousarray(rows), True, out, threads)
        return out

    def apply(self, vectors: Any) -> Floats:
        """Return the images of vectors.

        Parameters
        ----------
        vectors : array-like of shape (n, dim)

        Returns
        -------
        ndarray of shape (n, dims), float32

        Examples
        --------
        >>> from nearly import Matryoshka
        >>> fitted = Matryoshka(2).fit(np.eye(4, dtype=np.float32), metric="cosine")
        >>> fitted.apply(np.array([[3, 4, 5, 6]], np.float32)).round(6).tolist()
        [[0.6000000238418579, 0.800000011920929]]
        """
        made = as_vectors(vectors, dim=self.dim)
        check_finite(made)
        rows = np.ascontiguousarray(made.as_float32())
        return self.images(unit_rows(rows) if self.metric == "cosine" else rows)

    def restore(self, images: Any) -> Floats:
        """Return vectors that have these images: what a transform left out is that of its center.

        Parameters
        ----------
        images : array-like of shape (n, dims)

        Returns
        -------
        ndarray of shape (n, dim), float32
        """
        made = as_vectors(images, dim=self.dims)
        return self._back(np.ascontiguousarray(made.as_float32()))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this transform again."""
        arrays: dict[str, NDArray[Any]] = {}
        steps: list[dict[str, Any]] = []
        for i, part in enumerate(self.parts):
            values = {f.name: getattr(part, f.name) for f in fields(part)}  # type: ignore[arg-type]  # dataclasses
            arrays |= {f"{i}_{name}": value for name, value in values.items() if isinstance(value, np.ndarray)}
            plain = {name: value for name, value in values.items() if not isinstance(value, np.ndarray)}
            steps.append({"kind": part.kind, **plain})
        return arrays, {"dim": self.dim, "metric": self.metric, "steps": steps}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> "FittedTransform":
        """Make a transform of what `state` gave; everything is checked.

        Raises
        ------
        FormatError
            If something is missing, of the wrong type, or does not fit together.
        """
        try:
            steps = config["steps"]
            if not isinstance(steps, list) or len(steps) > 64:
                raise ValueError("no list of steps")
            parts = []
            for i, step in enumerate(steps):
                own = {n.partition("_")[2]: a for n, a in arrays.items() if n.partition("_")[0] == str(i)}
                parts.append(step_from_state(step, own))
            made = cls(int(config["dim"]), str(config["metric"]), tuple(parts))
            if made.metric not in METRICS:
                raise ValueError(f"metric {made.metric!r}")
            made.map  # noqa: B018 - the core checks shapes
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as problem:
            raise FormatError(f"the transform in this file is damaged: {problem}") from problem
        return made


def unit_rows(rows: Floats) -> Floats:
    """Rows of unit length; zero rows stay zero."""
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    unit: Floats = rows * scale.astype(np.float32)[:, None]
    return unit


def fit(transform: Transform, vectors: Any, metric: str, seed: int) -> FittedTransform:
    """What the public ``fit`` of transforms does."""
    check_seed(seed)
    if metric not in METRICS:
        raise InputError(f"transforms are for {', '.join(METRICS)}, not {metric!r}")
    made = as_vectors(vectors)
    check_finite(made)
    if not len(made):
        raise InputError("vectors is empty; a transform is fitted to at least one vector")
    rows = np.ascontiguousarray(made.as_float32())
    rows = unit_rows(rows) if metric == "cosine" else rows
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE]
    return fit_rows(transform, rows[chosen], metric=metric, seed=seed)


def fit_rows(transform: Transform, rows: Floats, *, metric: str, seed: int, threads: int = 0) -> FittedTransform:
    """Fit to rows in the metric's form."""
    steps = transform.steps(rows, metric=metric, seed=seed, threads=threads)
    return FittedTransform(rows.shape[1], metric, tuple(steps))
