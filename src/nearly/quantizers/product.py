"""Product quantization: parts of a vector, each coded by the nearest of its codewords."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import check_choice, check_int
from nearly.errors import InputError
from nearly.kmeans import kmeans, one_round
from nearly.quantizers.additive import FittedAdditive
from nearly.quantizers.base import Fitted, Floats, check_metric, fit, lengthen
from nearly.quantizers.transformed import code_images
from nearly.transforms import FittedTransform
from nearly.transforms.pca import covariance, principal
from nearly.transforms.procrustes import closest_rotation
from nearly.transforms.steps import Affine

__all__ = ["Product", "learn_rotation", "padded_books", "parts_of"]

_ROUNDS = 12  # of learning a rotation: from the allocation by variances, later ones change less than a hundredth
_FIRST = 6  # rounds of k-means before the first rotation


@dataclass(frozen=True)
class Product:
    """Product quantization (Jégou, Douze & Schmid, TPAMI 2011), optimized or not (Ge et al., CVPR 2013).

    The coordinates are divided into ``m`` parts, and each part becomes the number of the nearest of 2**bits codewords,
    which k-means finds. A query is compared with all codewords once; a distance is then a sum of ``m`` lookups.

    Parameters
    ----------
    m : int or None, default None
        Parts, at most the dimension. None: one for 4 dimensions with 8 bits, one for 2 with 4 bits, a sixteenth of the
        memory of float32 either way.
    bits : {8, 4}, default 8
        Bits for each part. Lookups of 4 bits stay in registers, 32 vectors at a time (FastScan: André et al., PVLDB
        2015), and are many times faster, at a larger error for the same memory.
    rotation : {None, "opq"}, default None
        ``"opq"`` learns a rotation that makes the parts easier to code: principal axes, dealt out so that the parts'
        variances have about the same product, then in turns codewords and the rotation that fits them (OPQ, sections
        3.1 and 3.2). For embeddings nearly always worth it; for data of an even spectrum it does nothing.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 8), dtype=np.float32) @ rng.standard_normal((8, 32), dtype=np.float32)
    >>> plain, turned = (Product(m=8, rotation=r).fit(vectors) for r in (None, "opq"))
    >>> plain.row_bytes, turned.error(vectors).mean < plain.error(vectors).mean
    (8, True)
    """

    m: int | None = None
    bits: int = 8
    rotation: Literal["opq"] | None = None

    def __post_init__(self) -> None:
        if self.m is not None:
            check_int(self.m, "m", low=1)
        if self.bits not in (8, 4) or isinstance(self.bits, bool):
            raise InputError(f"bits is {self.bits!r}; pass 8 or 4")
        if self.rotation is not None:
            check_choice(self.rotation, ("opq",), "rotation")

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0) -> Fitted:
        """Fit to rows in the metric's form."""
        check_metric(metric)
        dim = sample.shape[1]
        parts = self.m if self.m is not None else -(-dim * 2 // self.bits)
        if parts > dim:
            raise InputError(f"m is {parts}, but the vectors have {dim} dimensions; pass at most that, or None")
        rows = np.ascontiguousarray(lengthen(sample, norm_bound))
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        if self.rotation == "opq":
            matrix = learn_rotation(rows - mean, parts, 2**self.bits, seed, threads)
            step = Affine.about(matrix, mean, orthonormal=True)
            compared = "ip" if metric == "ip" and norm_bound == 0 else "cosine" if metric == "cosine" else "l2"
            return code_images(
                FittedTransform(rows.shape[1], compared, (step,)), Product(parts, self.bits), rows, dim=dim,
                metric=metric, norm_bound=norm_bound, label="OPQ", seed=seed, threads=threads,
            )  # fmt: skip
        residuals = rows - mean
        books = [kmeans(part, 2**self.bits, seed=seed, threads=threads) for part in parts_of(residuals, parts)]
        return FittedAdditive(
            dim=dim, books=parts, bits=self.bits, residual=False, beam=1, metric=metric, norm_bound=norm_bound,
            center=mean, codewords=padded_books(books),
        )  # fmt: skip


def _bounds(dim: int, parts: int) -> list[tuple[int, int]]:
    """Where parts begin and end, as the core divides coordinates."""
    cuts = [part * dim // parts for part in range(parts + 1)]
    return list(pairwise(cuts))


def parts_of(rows: Floats, parts: int) -> Iterator[Floats]:
    """Copies of columns that belong together, one at a time."""
    return (np.ascontiguousarray(rows[:, first:last]) for first, last in _bounds(rows.shape[1], parts))


def padded_books(books: list[Floats]) -> Floats:
    width = max(book.shape[1] for book in books)
    return np.stack([np.pad(book, ((0, 0), (0, width - book.shape[1]))) for book in books])


def learn_rotation(rows: Floats, parts: int, words: int, seed: int, threads: int) -> Floats:
    """A rotation of centered rows for which products of so many words lose little."""
    dim = rows.shape[1]
    axes, variances = principal(covariance(rows, np.zeros(dim, np.float32), threads), dim, seed, threads)
    dealt = np.ascontiguousarray(axes[_allocate(variances, parts)], np.float32)
    # Coordinates as they come may belong together already, as those of SIFT do: the better start counts.
    starts = (_Words.fit(rows, start, parts, words, seed, threads) for start in (dealt, np.eye(dim, dtype=np.float32)))
    best = min(starts, key=lambda start: start.loss)
    for _ in range(_ROUNDS):
        best = best.turned(rows, closest_rotation(rows, best.coded, best.rotation, threads), threads)
    return best.rotation


class _Words(NamedTuple):
    """Codewords of rotated rows, in the midst of learning."""

    rotation: Floats
    books: list[Floats]
    coded: Floats  # each row's codewords
    loss: float  # before the last round of k-means

    @classmethod
    def fit(cls, rows: Floats, rotation: Floats, parts: int, words: int, seed: int, threads: int) -> Self:
        cut = parts_of(_rotated(rows, rotation, threads), parts)
        books = [kmeans(part, words, seed=seed, iterations=_FIRST, threads=threads) for part in cut]
        return cls(rotation, books, rows, 0.0).turned(rows, rotation, threads)

    def turned(self, rows: Floats, rotation: Floats, threads: int) -> Self:
        """The codewords after another rotation and a round of k-means."""
        cut = parts_of(_rotated(rows, rotation, threads), len(self.books))
        made = [one_round(part, book, threads=threads) for part, book in zip(cut, self.books, strict=True)]
        coded = np.concatenate([book[labels] for book, labels, _ in made], axis=1)
        return type(self)(rotation, [book for book, _, _ in made], coded, sum(loss for _, _, loss in made))


def _rotated(rows: Floats, rotation: Floats, threads: int) -> Floats:
    turned = np.empty(rows.shape, np.float32)
    _core.products(rows, rotation, turned, threads)
    return turned


def _allocate(variances: NDArray[np.float64], parts: int) -> list[int]:
    """Axes in the order of parts: each, the largest first, goes to the part with the smallest product that has room."""
    sizes = [last - first for first, last in _bounds(len(variances), parts)]
    logs = np.log(np.maximum(variances, max(float(variances.max()) * 1e-12, 1e-300)))
    logs -= logs.min()  # so that more axes never make a product smaller
    sums, chosen = np.zeros(parts), [list[int]() for _ in range(parts)]
    for axis in np.argsort(-variances, kind="stable"):
        room = [part for part in range(parts) if len(chosen[part]) < sizes[part]]
        part = min(room, key=lambda p: (sums[p], p))
        chosen[part].append(int(axis))
        sums[part] += logs[axis]
    return [axis for part in chosen for axis in part]
