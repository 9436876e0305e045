"""Product quantization of what vectors are beyond the centers of their lists: codes that 32 at a time are looked up."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.errors import FormatError, InputError
from nearly.kmeans import kmeans
from nearly.quantizers.base import CODED, Floats
from nearly.quantizers.product import Product, learn_rotation, padded_books, parts_of
from nearly.quantizers.reduced import byte_layout
from nearly.transforms.pca import covariance, principal

__all__ = ["BLOCK", "MOST_BOOKS", "FittedListed"]

BLOCK = 32  # slots that are looked up together
MOST_BOOKS = 256  # whose sums fit 16 bits
_ENERGY = 0.96  # share of the variance of residuals that the projection keeps: levers table of benchmarks/README.md
_EMPTY = np.zeros(0, np.int8)
_BLOCK = 1024  # vectors in hand at a time


@dataclass(frozen=True, eq=False)
class FittedListed:
    """Codebooks of 16 words for the parts of a residual's image: see `Product`, whose codes these are.

    A vector is about the center of its list plus its codewords, taken by a factor of its own.

    Attributes
    ----------
    dim : int
        Columns of a vector.
    metric : str
    books : int
        Codebooks.
    rotates : bool
        Whether the image is rotated, and its weakest directions left out.
    matrix : ndarray of int8
        The projection in the core's layout, or empty.
    matrix_scale : ndarray of shape (dims,) or (0,), float32
    mean : ndarray of shape (dims,), float32
        The image of the mean of all vectors; zero under ip.
    codewords : ndarray of shape (books, 16, width), float32
    """

    kind: ClassVar[str] = "listed"

    dim: int
    metric: str
    books: int
    rotates: bool
    matrix: NDArray[np.int8]
    matrix_scale: Floats
    mean: Floats
    codewords: Floats

    @classmethod
    def fit(
        cls, vectors: Floats, centers: Floats, labels: NDArray[np.uint32], quantizer: Product, *, metric: str,
        seed: int, threads: int,
    ) -> Self:  # fmt: skip
        """Fit to vectors in the metric's form, which become what they are beyond the centers of their lists."""
        dim = vectors.shape[1]
        books = quantizer.m if quantizer.m is not None else -(-dim // 2)
        if books > dim:
            raise InputError(f"m is {books}, but the vectors have {dim} dimensions; pass at most that, or None")
        mean = np.zeros(dim) if metric == "ip" else vectors.mean(axis=0, dtype=np.float64)
        rotates = quantizer.rotation == "opq"
        axes = _axes(vectors, books, seed, threads) if rotates else None
        residuals = vectors
        for first in range(0, len(vectors), _BLOCK):
            residuals[first : first + _BLOCK] -= centers[labels[first : first + _BLOCK]]
        matrix, scale, images = _EMPTY, np.zeros(0, np.float32), residuals
        if axes is not None:
            whole, scale = _projection(axes, residuals, books, seed, threads)
            matrix, mean = byte_layout(whole), (whole * scale[:, None]).astype(np.float64) @ mean
            images = np.empty((len(residuals), len(whole)), np.float32)
            _core.products(residuals, np.ascontiguousarray(whole, np.float32), images, threads)
            images *= scale
        words = [kmeans(part, 16, seed=seed, threads=threads) for part in parts_of(images, books)]
        return cls(dim, metric, books, rotates, matrix, scale, mean.astype(np.float32), padded_books(words))

    @property
    def quantizer(self) -> Product:
        """What it was fitted by."""
        return Product(m=self.books, bits=4, rotation="opq" if self.rotates else None)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block of codes with their factors."""
        return int(_core.Listed.block_bytes(self.dim, len(self.mean), self.books))

    @property
    def row_bytes(self) -> int:
        """Bytes of one code with its factors."""
        return self.block_bytes // BLOCK

    @property
    def name(self) -> str:
        """What the codes are, for people."""
        return f"product codes of {self.books} x 4 bits for {len(self.mean)} of {self.dim} dimensions of residuals"

    def scorer(self, centers: Any, blocks: Any) -> Any:
        """Return the core's scorer over tables of centers and of blocks."""
        number = metrics.METRICS[self.metric].number
        return _core.Listed(centers, blocks, number, self.matrix, self.matrix_scale, self.mean, self.codewords)

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this again."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return arrays, {"kind": self.kind, **{name: value for name, value in values.items() if name not in arrays}}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        """Make it of what `state` gave; FormatError if it does not fit together."""
        types = {"matrix": np.int8, "matrix_scale": np.float32, "mean": np.float32, "codewords": np.float32}
        try:
            made = cls(
                dim=int(config["dim"]), metric=str(config["metric"]), books=int(config["books"]),
                rotates=bool(config["rotates"]),
                **{name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in types.items()},
            )  # fmt: skip
            if made.metric not in CODED or made.codewords.ndim != 3 or len(made.codewords) != made.books:
                raise ValueError("another metric or number of codebooks")
            if not all(np.isfinite(arrays[name]).all() for name in types if name != "matrix"):
                raise ValueError("a number is not finite")
            made.scorer(_core.Table(made.dim * 4, 0, 1), _core.Table(made.block_bytes, 0, 1))  # the core checks shapes
        except (KeyError, TypeError, ValueError, OverflowError) as problem:
            raise FormatError(f"the quantizer in this file is damaged: {problem}") from problem
        return made


def _axes(vectors: Floats, books: int, seed: int, threads: int) -> NDArray[np.float64]:
    """Directions that hold most of the vectors' variance, as centers are compared by their images too."""
    dim = vectors.shape[1]
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    axes, variances = principal(covariance(vectors, mean, threads), dim, seed, threads)
    held = np.cumsum(np.maximum(variances, 0))
    enough = int(np.searchsorted(held, _ENERGY * held[-1])) + 1
    return axes[: min(dim, max(-(-enough // 16) * 16, books))]


def _projection(
    axes: NDArray[np.float64], residuals: Floats, books: int, seed: int, threads: int
) -> tuple[NDArray[np.int8], Floats]:
    """These directions, rotated for codes of so many books: whole numbers, and their unit."""
    images = np.empty((len(residuals), len(axes)), np.float32)
    _core.products(residuals, np.ascontiguousarray(axes, np.float32), images, threads)
    matrix = learn_rotation(images, books, 16, seed, threads).astype(np.float64) @ axes
    unit = np.maximum(np.abs(matrix).max(axis=1), np.finfo(np.float32).tiny) / 127
    return np.rint(matrix / unit[:, None]).astype(np.int8), unit.astype(np.float32)
