"""What "near" means: one row per metric, its formula, and the way from kernel values to distances to scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import InputError

__all__ = ["METRICS", "AnyMetric", "CallableMetric", "Metric", "get", "named"]

Floats: TypeAlias = NDArray[np.float32]


def _same(values: Floats) -> Floats:
    return values


def _root(values: Floats) -> Floats:
    return np.sqrt(np.maximum(values, 0))


def _not_negative(values: Floats) -> Floats:
    return np.maximum(values, 0)  # rounding may carry the cosine a little above 1


def _negated(distances: Floats) -> Floats:
    return 0 - distances  # not -distances: a score of -0.0 looks like a mistake


def _complement(distances: Floats) -> Floats:
    return 1 - distances


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that the core has kernels for.

    Attributes
    ----------
    name : str
        The key in `METRICS`.
    input : {"float", "bits", "any"}
        What it compares: numbers, or packed bits (uint8, eight to a byte, `numpy.packbits` order); "any" is for
        callables.
    kernel : str
        The core's name for its kernel, whose values are smaller for nearer vectors.
    number : int
        The core's number for the metric (``enum class Metric`` in base/metric.hpp).
    formula : str
        The distance that people see.
    score : str
        The score that people see; larger is nearer.

    Examples
    --------
    >>> METRICS["l2"].distance_from_kernel([0.0, 9.0])
    array([0., 3.], dtype=float32)
    >>> METRICS["cosine"].score_from_distance([0.25])
    array([0.75], dtype=float32)
    """

    name: str
    kernel: str
    number: int
    formula: str
    score: str
    input: Literal["float", "bits", "any"] = "float"
    to_distance: Callable[[Floats], Floats] = _same
    to_score: Callable[[Floats], Floats] = _negated

    def distance_from_kernel(self, values: ArrayLike) -> Floats:
        """Turn what a scorer returned into the distances that people see.

        Parameters
        ----------
        values : array-like of any shape
            l2: |q − x|²; all others: the distance itself.

        Returns
        -------
        ndarray of that shape, float32
            Infinity (no neighbor) stays infinity.
        """
        return self.to_distance(np.asarray(values, np.float32))

    def score_from_distance(self, distances: ArrayLike) -> Floats:
        """Turn distances into scores, larger is nearer.

        Parameters
        ----------
        distances : array-like of any shape

        Returns
        -------
        ndarray of that shape, float32
            An infinite distance (no neighbor) becomes minus infinity.
        """
        return self.to_score(np.asarray(distances, np.float32))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class CallableMetric:
    """A Python function as a metric: ``function(item, items)`` returns the distances from one item to many.

    Parameters
    ----------
    function : callable
        Gets one item and a sequence of items, and returns one finite number per item, smaller is nearer. It need be
        neither symmetric nor a metric. It is never saved; pass it again when loading.

    Notes
    -----
    What the function returns is checked at each call. What it raises ends the search and reaches the caller.
    Distances are kept in float32. ``score`` is −distance.

    Examples
    --------
    >>> lengths = CallableMetric(lambda item, items: [abs(len(item) - len(other)) for other in items])
    >>> lengths("word", ["a", "word", "words"])
    array([3., 0., 1.], dtype=float32)
    """

    function: Callable[[Any, Sequence[Any]], ArrayLike]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(f"metric is {self.function!r}, but a function f(item, items) is wanted")

    @property
    def name(self) -> str:
        """The function's own name."""
        named = getattr(self.function, "__name__", None) or getattr(type(self.function), "__name__", "callable")
        return str(named)

    @property
    def input(self) -> Literal["any"]:
        """Callables compare anything."""
        return "any"

    @property
    def kernel(self) -> Literal["callable"]:
        """The core calls back into Python."""
        return "callable"

    @property
    def number(self) -> int:
        """The core passes the distances on as they are, as it does those of ip."""
        return 2

    @property
    def formula(self) -> str:
        """Where the distance comes from."""
        return f"{self.name}(item, items)"

    def __call__(self, item: Any, items: Sequence[Any]) -> Floats:
        """Return the distances from ``item`` to ``items``, checked.

        Returns
        -------
        ndarray of shape (len(items),), float32

        Raises
        ------
        InputError
            If the function returned something other than one finite number per item.
        """
        result = self.function(item, items)
        wanted = f"metric {self.name}(item, items) must return one finite number per item, shape ({len(items)},)"
        try:
            values = np.asarray(result)
        except (ValueError, TypeError) as problem:
            raise InputError(f"{wanted}, but what it returned is no array: {problem}") from problem
        if values.dtype.kind not in "biuf":
            raise InputError(f"{wanted}, but it returned {type(result).__name__} of dtype {values.dtype}")
        if values.shape != (len(items),):
            hint = "; it gets one item and a sequence of items, not a pair" if values.ndim == 0 else ""
            raise InputError(f"{wanted}, but it returned shape {values.shape}{hint}")
        with np.errstate(over="ignore", under="ignore"):
            distances = values.astype(np.float32)
        finite = np.isfinite(distances)
        if not finite.all():
            at = int(np.argmin(finite))
            raise InputError(f"{wanted} within the range of float32, but it returned {values[at]!s} for item {at}")
        return distances

    def distance_from_kernel(self, values: ArrayLike) -> Floats:
        """Return the values as they are: the function returns distances."""
        return np.asarray(values, np.float32)

    def score_from_distance(self, distances: ArrayLike) -> Floats:
        """Return −distance."""
        return _negated(np.asarray(distances, np.float32))

    def __str__(self) -> str:
        return self.name


AnyMetric: TypeAlias = Metric | CallableMetric

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "l2",
            kernel="l2",
            number=0,
            formula="sqrt(sum((q - x)**2)), Euclidean, not squared",
            score="-distance",
            to_distance=_root,
        ),
        Metric("ip", kernel="ip", number=2, formula="-sum(q * x)", score="sum(q * x)"),
        Metric(
            "cosine",
            kernel="cosine",
            number=1,
            formula="1 - sum(q * x) / (|q| * |x|), and 1 where q or x is zero or shorter than 3e-39",
            score="sum(q * x) / (|q| * |x|)",
            to_distance=_not_negative,
            to_score=_complement,
        ),
        Metric(
            "hamming",
            kernel="hamming",
            number=4,
            input="bits",
            formula="number of bits that differ",
            score="-distance",
        ),
        Metric(
            "jaccard",
            kernel="jaccard",
            number=5,
            input="bits",
            formula="1 - |q & x| / |q | x| over the bits set, and 0 for two empty sets",
            score="|q & x| / |q | x|",
            to_score=_complement,
        ),
        Metric("l1", kernel="l1", number=3, formula="sum(|q - x|)", score="-distance"),
    )
}

_MEANT = {  # names of other libraries; the answer is an error that knows what was meant
    "ip": "dot dotproduct inner innerproduct negativeinnerproduct maxinnerproduct maximuminnerproduct mips",
    "l2": "euclidean euclid l2squared l2sq squaredl2 sqeuclidean squaredeuclidean minkowski",
    "cosine": "cos cosinesimilarity cosinedistance angular angle normalizedinnerproduct",
    "l1": "manhattan cityblock taxicab",
    "hamming": "bithamming binaryhamming",
    "jaccard": "bitjaccard tanimoto tanimotodistance jaccardsimilarity",
}
_SUGGESTED = {word: name for name, words in _MEANT.items() for word in words.split()}


def get(metric: str | AnyMetric | Callable[[Any, Sequence[Any]], ArrayLike]) -> AnyMetric:
    """Return the metric that a user named, or wrap the function they passed.

    Parameters
    ----------
    metric : str, Metric, CallableMetric or callable
        A key of `METRICS`, or ``f(item, items) -> distances``.

    Returns
    -------
    Metric or CallableMetric

    Raises
    ------
    InputError
        If it is neither. Names that other libraries use are answered with ours.

    Examples
    --------
    >>> get("l2").formula
    'sqrt(sum((q - x)**2)), Euclidean, not squared'
    >>> get("euclidean")
    Traceback (most recent call last):
        ...
    nearly.errors.InputError: metric is 'euclidean', but one of 'l2', 'ip', 'cosine', 'hamming', 'jaccard', 'l1', or a \
function f(item, items) -> distances, is wanted; did you mean 'l2'?
    """
    if isinstance(metric, Metric | CallableMetric):
        return metric
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]
    if callable(metric) and not isinstance(metric, type):
        return CallableMetric(metric)
    raise _unknown(metric, ", or a function f(item, items) -> distances,")


def named(metric: Any) -> Metric:
    """Return the metric that a user named, where functions cannot be used.

    Raises
    ------
    InputError
        If it is a function, or no metric at all.

    Examples
    --------
    >>> named("cosine").name
    'cosine'
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]
    if isinstance(metric, CallableMetric) or (callable(metric) and not isinstance(metric, type)):
        raise InputError(f"metric is a function, which only nearly.HNSW takes: nearly.HNSW(items, metric=f); here one "
                         f"of {', '.join(map(repr, METRICS))} is wanted")  # fmt: skip
    raise _unknown(metric, "")


def _unknown(metric: object, alternative: str) -> InputError:
    near = _suggest(metric) if isinstance(metric, str) else None
    hint = f"; did you mean {near!r}?" if near else ""
    return InputError(f"metric is {metric!r}, but one of {', '.join(map(repr, METRICS))}{alternative} is wanted{hint}")


def _suggest(word: str) -> str | None:
    plain = "".join(letter for letter in word.lower() if letter.isalnum())
    known = _SUGGESTED | {name: name for name in METRICS}
    if plain in known:
        return known[plain]
    import difflib  # late: only mistakes need it

    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.7)
    return known[near[0]] if near else None
