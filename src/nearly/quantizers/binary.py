"""One bit a dimension: signs, compared by counting those that differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.arrays import check_choice
from nearly.quantizers.base import Fitted, Floats, check_metric, fit
from nearly.quantizers.transformed import code_images
from nearly.transforms import FittedTransform, Rotation
from nearly.transforms.base import fit_rows
from nearly.transforms.procrustes import closest_rotation, random_rotation
from nearly.transforms.steps import Affine

__all__ = ["Binary", "FittedBinary"]

_ROUNDS = 50  # of learning a rotation: ITQ, section 2.2
_SAMPLE = 4096  # rows it is learned from


@dataclass(frozen=True)
class Binary:
    """Sign bits about the mean, after a rotation; distances are the numbers of bits that differ.

    The smallest and fastest codes, and the coarsest: they tell far from near, and the vectors themselves must rank what
    is near. `RaBitQ` of 1 bit takes 12 more bytes a vector and tells far more.

    Parameters
    ----------
    rotation : {"random", "itq", None}, default "random"
        ``"random"``: a random rotation, so that bits count angles (Charikar, STOC 2002); dimensions are padded to
        a multiple of 64. ``"itq"``: a rotation learned so that vectors lie near the corners of a cube, which their
        bits name (Gong & Lazebnik, CVPR 2011). None: the coordinates as they are.

    Notes
    -----
    Under ip, products are told by the angle between the query and a vector's residual to the mean; norms count only
    when a search ranks by the vectors. Where norms differ much take `Scalar` or `RaBitQ`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> fitted = Binary().fit(rng.standard_normal((1000, 128), dtype=np.float32))
    >>> fitted.row_bytes, fitted.name
    (16, 'sign bits of 128 dimensions after Rotation')
    """

    rotation: Literal["random", "itq"] | None = "random"

    def __post_init__(self) -> None:
        if self.rotation is not None:
            check_choice(self.rotation, ("random", "itq"), "rotation")

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0) -> Fitted:
        """Fit to rows in the metric's form; products are compared as they are, whatever the norms."""
        check_metric(metric)
        rows = np.ascontiguousarray(sample)
        dim = rows.shape[1]
        if self.rotation is None:
            center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
            return FittedBinary(
                dim=dim, metric=metric, norm_bound=0.0, center=center,
                levels=np.abs(rows - center).mean(axis=0, dtype=np.float64).astype(np.float32),
            )  # fmt: skip
        if self.rotation == "random":
            transform = fit_rows(Rotation(), rows, metric=metric, seed=seed, threads=threads)
        else:
            mean = rows.mean(axis=0, dtype=np.float64)
            matrix = _learn(rows[:_SAMPLE] - mean.astype(np.float32), seed, threads)
            transform = FittedTransform(dim, metric, (Affine.about(matrix, mean, orthonormal=True),))
        label = "Rotation" if self.rotation == "random" else "ITQ"
        return code_images(
            transform, Binary(None), rows, dim=dim, metric=metric, norm_bound=0.0, label=label, seed=seed,
            threads=threads,
        )  # fmt: skip


def _learn(rows: Floats, seed: int, threads: int) -> Floats:
    """A rotation of centered rows that lie near the corners of a cube after it."""
    rotation = random_rotation(rows.shape[1], seed, threads)
    turned = np.empty(rows.shape, np.float32)
    for _ in range(_ROUNDS):
        _core.products(rows, rotation, turned, threads)
        rotation = closest_rotation(rows, np.where(turned > 0, np.float32(1), np.float32(-1)), rotation, threads)
    return rotation


@dataclass(frozen=True, eq=False)
class FittedBinary(Fitted):
    """Signs about a center: see `Binary`.

    Attributes
    ----------
    center : ndarray of float32
        The mean of what was fitted to.
    levels : ndarray of float32
        How far from it, on average, each coordinate lies.
    """

    kind: ClassVar[str] = "binary"

    dim: int
    metric: str
    norm_bound: float
    center: Floats
    levels: Floats

    @property
    def row_bytes(self) -> int:
        """Bytes of one code, padding included."""
        return int(_core.Binary.row_bytes(self.dim, metrics.METRICS[self.metric].number, self.norm_bound))

    @property
    def name(self) -> str:
        """What the codes are, for people."""
        return f"sign bits of {self.dim} dimensions"

    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private)."""
        number = metrics.METRICS[self.metric].number
        return _core.Binary(table, self.dim, number, self.norm_bound, self.center, self.levels)

    @classmethod
    def _of_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        return cls(
            center=np.ascontiguousarray(arrays["center"], np.float32),
            levels=np.ascontiguousarray(arrays["levels"], np.float32),
            dim=int(config["dim"]), metric=str(config["metric"]), norm_bound=float(config["norm_bound"]),
        )  # fmt: skip
