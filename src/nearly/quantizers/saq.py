"""SAQ: principal components in segments, each with as many bits a dimension as its variance deserves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.arrays import check_int, check_real
from nearly.errors import InputError
from nearly.quantizers.base import Fitted, Floats, check_metric, fit, lengthen
from nearly.quantizers.rabitq import check_epsilon, words
from nearly.transforms.pca import covariance, principal

__all__ = ["SAQ", "FittedSAQ", "plan_segments"]

_UNIT = 64  # dimensions that the kernels take together
_MOST = 12  # bits of a dimension
_SEGMENTS = 8  # at most: each is a call of its own when a block of rows is compared
_BLOCKS = 32  # that a plan is made of at most, so that planning takes milliseconds whatever the dimension
_WORTH = 0.01  # what one more segment must take off the error to be worth its calls (the paper's share, section 4.2)
# Mean squared errors of the best uniform quantizers of a normal variable of variance 1, for 0 to 12 bits: Max, IRE
# Transactions 1960; from 6 bits on computed likewise. The core has the same figures.
ERRORS = (1.0, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.00104, 3.043e-4, 8.769e-5, 2.492e-5, 6.997e-6, 1.944e-6,
          5.355e-7)  # fmt: skip


@dataclass(frozen=True)
class SAQ:
    """Segmented codes with adjustment (SAQ, SIGMOD 2026, arXiv 2509.12086).

    Vectors are turned to their principal axes, which are cut into segments; a dynamic programme gives each segment
    the number of bits a dimension, 0 to 12, with which the whole loses least. Each segment is rotated at random, so
    that estimates are right on average and have bounds, as those of `RaBitQ`. For embeddings, whose variance falls from
    axis to axis, codes of the same size lose less than half of what those of `RaBitQ` do; where no axis differs from
    another they are the same, and fitting was in vain.

    Parameters
    ----------
    bits : float, default 4.0
        Bits for each dimension on average, above 0 and at most 8; fractions count. Dimensions are padded to a multiple
        of 64, and what is coded are whole bits for 64 dimensions, so that a budget may not be used up.
    epsilon : float, default 1.9
        Half-width of bounds, in standard deviations of an estimate, as in `RaBitQ`.
    rounds : int, default 6
        How often codes are adjusted to their step and the step to its codes, at most; 0 leaves the best of nine steps
        around that for which rounding and clipping together err least.

    Notes
    -----
    A row takes 16 bytes beside its codes, 24 if a segment has 5 bits or more. Compared with the paper, plans minimize
    the squared error, not the absolute one; segments share the step of a vector, which leaves more bits for codes; and
    all dimensions are adjusted at once.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> axes = rng.standard_normal((256, 256)) * 0.97 ** np.arange(256)[:, None]
    >>> vectors = (rng.standard_normal((2000, 256)) @ axes).astype(np.float32)
    >>> fitted = SAQ(bits=2).fit(vectors)
    >>> fitted.row_bytes, fitted.name
    (96, 'SAQ codes of 256 dimensions: 64 x 6, 64 x 2 bits')
    """

    bits: float = 4.0
    epsilon: float = 1.9
    rounds: int = 6

    bounded: ClassVar[bool] = True  # estimates come with bounds

    def __post_init__(self) -> None:
        if not 0 < check_real(self.bits, "bits") <= 8:
            raise InputError(f"bits is {self.bits}; pass a number above 0 and at most 8, for example 2.5")
        check_epsilon(self.epsilon)
        check_int(self.rounds, "rounds", low=0, high=100)

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0) -> "FittedSAQ":
        """Fit to rows in the metric's form."""
        check_metric(metric)
        rows = np.ascontiguousarray(lengthen(sample, norm_bound))
        inputs = rows.shape[1]
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        axes, variances = principal(covariance(rows, mean, threads), inputs, seed, threads)
        lengths, bits = _plan(np.maximum(variances, 0), self.bits, sample.shape[1])
        cuts = np.cumsum([0, *lengths])
        spread = np.array([variances[first:last].mean() for first, last in pairwise(cuts)])
        spread = np.maximum(spread / max(float(spread.max()), np.finfo(np.float32).tiny), 1e-8)
        signs = [np.empty((length + _UNIT - 1) // _UNIT * 4, np.uint64) for length in lengths]
        for place, drawn in enumerate(signs):
            _core.draw_rotation(lengths[place], seed + place, drawn)
        return FittedSAQ(
            dim=sample.shape[1], epsilon=float(self.epsilon), rounds=self.rounds, metric=metric, norm_bound=norm_bound,
            center=mean, axes=np.ascontiguousarray(axes[: cuts[-1]], np.float32),
            lengths=np.array(lengths, np.uint32), bits=np.array(bits, np.uint8),
            variances=spread.astype(np.float32), signs=np.concatenate(signs),
        )  # fmt: skip


def _plan(variances: NDArray[np.float64], bits: float, dim: int) -> tuple[list[int], list[int]]:
    """Lengths and bits of the segments that are coded."""
    inputs = len(variances)
    units = -(-inputs // _UNIT)
    wide = _UNIT * -(-units // _BLOCKS)  # of a block
    blocks = [float(variances[first : first + wide].sum()) for first in range(0, inputs, wide)]
    padded = _UNIT * -(-dim // _UNIT)
    budget = int(bits * padded / wide + 1e-9)
    if budget < 1:
        raise InputError(
            f"bits is {bits}, which is less than one bit for {wide} of {dim} dimensions; pass at least "
            f"{wide / padded:.3g}"
        )
    lengths, numbers, at = [], [], 0
    for n_blocks, number in plan_segments(blocks, budget):
        end = min(at + n_blocks * wide, inputs)
        if number:
            lengths.append(end - at)
            numbers.append(number)
        at = end
    return lengths, numbers


def plan_segments(
    blocks: Sequence[float], budget: int, *, segments: int = _SEGMENTS, worth: float = _WORTH
) -> list[tuple[int, int]]:
    """Cut blocks of falling variance into segments and give each its bits, so that the whole loses least.

    A dynamic programme (SAQ, section 4.2) over the number of segments, of blocks and of bits: a segment costs its bits
    a dimension times its blocks and loses its variance times the error of a quantizer of so many bits. Only
    the last segment may have none.

    Parameters
    ----------
    blocks : sequence of float
        The variance of each block of dimensions, falling.
    budget : int
        The sum, over blocks, of bits a dimension: at least 1.
    segments : int
        Segments that have bits, at most.
    worth : float
        More segments are taken while they lose less than those of fewer by this share.

    Returns
    -------
    list of (blocks, bits)
        The segments; bits are 0 for what is left out.

    Examples
    --------
    >>> plan_segments([8.0, 2.0, 0.5, 0.0], budget=8)
    [(1, 4), (1, 3), (1, 1), (1, 0)]
    """
    n, budget = len(blocks), min(budget, len(blocks) * _MOST)
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(blocks, np.float64))])
    left_out = sums[-1] - sums
    loss = np.full((n + 1, budget + 1), np.inf)  # of the first i blocks, with u of the budget used
    loss[0, 0] = 0.0
    steps: list[NDArray[np.int32]] = []
    found: list[tuple[float, int, int, int]] = []  # error, segments, blocks, used
    for count in range(1, min(segments, n) + 1):
        fresh, step = np.full_like(loss, np.inf), np.zeros(loss.shape, np.int32)
        for length in range(1, n + 1):
            variance = (sums[length:] - sums[:-length])[:, None]
            for bits in range(1, min(_MOST, budget // length) + 1):
                used = length * bits
                tried = loss[: n + 1 - length, : budget + 1 - used] + variance * ERRORS[bits]
                better = tried < fresh[length:, used:]
                fresh[length:, used:][better] = tried[better]
                step[length:, used:][better] = length * (_MOST + 1) + bits
        loss = fresh
        steps.append(step)
        whole = loss + left_out[:, None]
        end = int(np.argmin(whole))
        found.append((float(whole.flat[end]), count, *divmod(end, budget + 1)))
    best = min(found)[0]
    _, count, place, used = next(plan for plan in found if plan[0] <= best * (1 + worth))
    made = [(n - place, 0)] if place < n else []
    while count:
        count -= 1
        length, bits = divmod(int(steps[count][place, used]), _MOST + 1)
        made.append((length, bits))
        place, used = place - length, used - length * bits
    return made[::-1]


@dataclass(frozen=True, eq=False)
class FittedSAQ(Fitted):
    """Principal axes, the segments that they are cut into, and a random rotation of each: see `SAQ`.

    Attributes
    ----------
    epsilon : float
        Half-width of bounds, in standard deviations.
    rounds : int
        Of adjusting codes, at most.
    center : ndarray of float32
        What residuals are taken to.
    axes : ndarray of shape (coded dimensions, inputs), float32
        The leading principal axes.
    lengths, bits : ndarray of uint32 and of uint8
        Dimensions of each segment that is coded, and bits for each of them.
    variances : ndarray of float32
        Of a dimension in each segment, as a share of the largest.
    signs : ndarray of uint64
        The random bits of the rotations, one after another.
    """

    kind: ClassVar[str] = "saq"

    dim: int
    epsilon: float
    rounds: int
    metric: str
    norm_bound: float
    center: Floats
    axes: Floats
    lengths: NDArray[np.uint32]
    bits: NDArray[np.uint8]
    variances: Floats
    signs: NDArray[np.uint64]

    @property
    def epsilon_of_bounds(self) -> float | None:
        """Half-width of the bounds around estimates in standard deviations."""
        return self.epsilon

    @property
    def row_bytes(self) -> int:
        """Bytes of one code, factors and padding included."""
        return int(_core.Saq.row_bytes(self.lengths, self.bits))

    @property
    def name(self) -> str:
        """What the codes are, for people."""
        parts = ", ".join(f"{n} x {b}" for n, b in zip(self.lengths.tolist(), self.bits.tolist(), strict=True))
        return f"SAQ codes of {self.dim} dimensions: {parts} bits"

    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private)."""
        return _core.Saq(
            table, self.dim, metrics.METRICS[self.metric].number, self.norm_bound, self.epsilon, self.rounds,
            self.center, self.axes, self.lengths, self.bits, self.variances, self.signs,
        )  # fmt: skip

    def _restored(self, coded: Floats) -> Floats:
        rows = np.empty((len(coded), len(self.center)), np.float32)
        _core.products(np.ascontiguousarray(coded), np.ascontiguousarray(self.axes.T), rows)
        return super()._restored(rows + self.center)

    @classmethod
    def _of_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        return cls(
            dim=int(config["dim"]), epsilon=float(config["epsilon"]), rounds=int(config["rounds"]),
            metric=str(config["metric"]), norm_bound=float(config["norm_bound"]),
            lengths=_whole(arrays["lengths"], np.uint32), bits=_whole(arrays["bits"], np.uint8),
            signs=words(arrays["signs"]),
            **{name: np.ascontiguousarray(arrays[name], np.float32) for name in ("center", "axes", "variances")},
        )  # fmt: skip


def _whole(numbers: NDArray[Any], kind: Any) -> NDArray[Any]:
    if numbers.dtype != kind:
        raise TypeError(f"whole numbers are {numbers.dtype}")
    return np.ascontiguousarray(numbers)
