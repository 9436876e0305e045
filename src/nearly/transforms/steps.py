"""The steps of a fitted transform: how each is applied by the core, undone, folded into another, and saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nearly import _core

__all__ = ["Affine", "Leading", "Rotated", "Step", "Unit", "fold", "step_from_state"]

Floats = NDArray[np.float32]


class Step(ABC):
    """A step from some coordinates to others. Kinds are frozen dataclasses of arrays and JSON values."""

    kind: ClassVar[str]

    @property
    def keeps_distances(self) -> bool:
        """Whether images are as far apart as what they are of, but for what is left out."""
        return True

    def outputs(self, inputs: int) -> int:
        """Return how many coordinates images have."""
        return inputs

    def says(self, inputs: int) -> int:
        """Return the dimensions in which images differ: the rank of the map."""
        return min(inputs, self.outputs(inputs))

    @abstractmethod
    def join(self, made: Any) -> None:
        """Add the step to a map of the core, which checks shapes."""

    @abstractmethod
    def undo(self, images: Floats, inputs: int) -> Floats:
        """Return the nearest of the vectors that have these images."""


@dataclass(frozen=True, eq=False)
class Leading(Step):
    """The first n coordinates."""

    kind: ClassVar[str] = "leading"
    n: int

    def outputs(self, inputs: int) -> int:
        """See `Step`."""
        return self.n

    def join(self, made: Any) -> None:
        """See `Step`."""
        made.add_leading(self.n)

    def undo(self, images: Floats, inputs: int) -> Floats:
        """See `Step`: zeros in what was left out."""
        return np.pad(images, ((0, 0), (0, inputs - self.n)))


@dataclass(frozen=True, eq=False)
class Unit(Step):
    """Unit length; zero stays zero. What length it was is forgotten."""

    kind: ClassVar[str] = "unit"

    @property
    def keeps_distances(self) -> bool:
        """See `Step`."""
        return False

    def join(self, made: Any) -> None:
        """See `Step`."""
        made.add_unit()

    def undo(self, images: Floats, inputs: int) -> Floats:
        """See `Step`: unit vectors are images of themselves."""
        return images


@dataclass(frozen=True, eq=False)
class Rotated(Step):
    """A fast random rotation, padded to a multiple of 64."""

    kind: ClassVar[str] = "rotation"
    signs: NDArray[np.uint64]

    def outputs(self, inputs: int) -> int:
        """See `Step`."""
        return (inputs + 63) // 64 * 64

    def join(self, made: Any) -> None:
        """See `Step`."""
        made.add_rotation(self.signs)

    def forward(self, rows: Floats) -> Floats:
        """Rotate rows."""
        out = np.empty((len(rows), self.outputs(rows.shape[1])), np.float32)
        _core.rotate_rows(self.signs, np.ascontiguousarray(rows), out)
        return out

    def undo(self, images: Floats, inputs: int) -> Floats:
        """See `Step`."""
        out = np.empty((len(images), inputs), np.float32)
        _core.rotate_rows(self.signs, np.ascontiguousarray(images), out, inverse=True)
        return out


@dataclass(frozen=True, eq=False)
class Affine(Step):
    """matrix (x - center).

    An orthonormal one keeps distances in as many dimensions as its rank says and drops the others, so that its
    transpose undoes it; another one has orthogonal rows.
    """

    kind: ClassVar[str] = "affine"
    matrix: Floats  # (outputs, inputs)
    offset: Floats  # matrix @ center
    center: Floats
    orthonormal: bool
    rank: int

    @classmethod
    def about(cls, matrix: NDArray[Any], center: NDArray[Any], orthonormal: bool) -> "Affine":
        """Make one whose offset follows from its center."""
        made = np.ascontiguousarray(matrix, np.float32)
        offset = (made.astype(np.float64) * center).sum(axis=1)
        return cls(made, offset.astype(np.float32), np.asarray(center, np.float32), orthonormal, len(made))

    @property
    def keeps_distances(self) -> bool:
        """See `Step`."""
        return self.orthonormal

    def outputs(self, inputs: int) -> int:
        """See `Step`."""
        return len(self.matrix)

    def says(self, inputs: int) -> int:
        """See `Step`."""
        return self.rank

    def join(self, made: Any) -> None:
        """See `Step`."""
        made.add_affine(self.matrix, self.offset)

    def undo(self, images: Floats, inputs: int) -> Floats:
        """See `Step`."""
        squares = 1.0 if self.orthonormal else (self.matrix.astype(np.float64) ** 2).sum(axis=1)
        scaled = np.ascontiguousarray(images / np.maximum(squares, np.finfo(np.float32).tiny), np.float32)
        return _product(scaled, np.ascontiguousarray(self.matrix.T)) + self.center


def fold(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps that do the same, with neighbors made one where one of them is a matrix."""
    folded: list[Step] = []
    for step in steps:
        while folded and (joined := _joined(folded[-1], step)) is not None:
            folded.pop()
            step = joined
        folded.append(step)
    return tuple(folded)


def _joined(first: Step, then: Step) -> Step | None:
    """Return the one step that is both, or None: a matrix only where it stays what `Affine` says."""
    match first, then:
        case Leading(), Leading():
            return then
        case Affine(matrix, offset, center, orthonormal, rank), Leading(n) if rank == len(matrix):
            return Affine(np.ascontiguousarray(matrix[:n]), offset[:n].copy(), center, orthonormal, n)
        case Affine(matrix, offset, center, True, rank), Rotated():
            turned = np.ascontiguousarray(then.forward(matrix.T).T)
            return Affine(turned, then.forward(offset[None])[0], center, True, rank)
        case Affine(matrix, offset, center, True, rank), Affine():
            joined = _product(then.matrix, np.ascontiguousarray(matrix.T))
            moved = (then.matrix.astype(np.float64) * offset).sum(axis=1) + then.offset
            back = (matrix.astype(np.float64) * then.center[:, None]).sum(axis=0) + center
            least = min(rank, then.rank)
            return Affine(joined, moved.astype(np.float32), back.astype(np.float32), then.orthonormal, least)
        case _:
            return None


def _product(rows: Floats, columns: Floats) -> Floats:
    """rows @ columns.T by the core, whose bits do not depend on threads."""
    out = np.empty((len(rows), len(columns)), np.float32)
    _core.products(np.ascontiguousarray(rows), columns, out)
    return out


def step_from_state(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Step:
    """Make a step of its values and arrays; KeyError, TypeError or ValueError if they are none."""
    kind = config["kind"]
    if kind == Leading.kind:
        return Leading(int(config["n"]))
    if kind == Unit.kind:
        return Unit()
    if kind == Rotated.kind:
        if arrays["signs"].dtype != np.uint64:
            raise TypeError(f"signs are {arrays['signs'].dtype}")
        return Rotated(np.ascontiguousarray(arrays["signs"]))
    if kind == Affine.kind:
        matrix, offset, center = (np.ascontiguousarray(arrays[n], np.float32) for n in ("matrix", "offset", "center"))
        if not all(np.isfinite(part).all() for part in (matrix, offset, center)) or center.shape != matrix.shape[1:]:
            raise ValueError("a matrix that is no map")
        return Affine(matrix, offset, center, bool(config["orthonormal"]), int(config["rank"]))
    raise ValueError(f"steps of the kind {kind!r} are unknown")
