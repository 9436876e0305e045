"""Six distances in float64 NumPy, each written twice: fast for many with many, exact for row with row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import InputError
from nearly.evaluate import _checks

Floats = NDArray[np.float64]

_LARGEST = 1e150  # squares and sums of larger values overflow float64
_EPS = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Metric:
    """One row per metric: ``keys`` is fast, many with many; ``pairs`` is exact, row with row."""

    prepare: Callable[[NDArray[Any]], NDArray[Any]]
    # (queries, rows) -> keys (n_queries, n) and their error (n_queries,); None: the keys are the distances
    keys: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], Floats | None]]
    pairs: Callable[[NDArray[Any], NDArray[Any]], Floats]  # user-visible distances of queries[i] and rows[i]
    to_key: Callable[[Floats], Floats]  # the key of a distance
    bits: bool = False


def _as_float(rows: NDArray[Any]) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # long doubles; prepare() refuses what comes out
        return np.ascontiguousarray(rows, dtype=np.float64)


def _as_unit(rows: NDArray[Any]) -> Floats:
    """Rows of length 1; zero rows stay zero. Scaled by the largest value first, so that no square underflows."""
    rows = _as_float(rows)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1.0)
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.where(length > 0, length, 1.0))


def _as_bits(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Bits as 0.0 and 1.0: products of such rows are counts, exact in float32 below 2**24 bits."""
    return np.unpackbits(np.ascontiguousarray(rows), axis=1).astype(np.float32)


def _lengths(rows: Floats) -> Floats:
    return np.asarray(np.sqrt((rows * rows).sum(axis=1)))


def _error(queries: Floats, size: Floats) -> Floats:
    # A sum of dim products is off by at most dim * eps/2 * the sum of their sizes, in any order (Higham 2002,
    # section 3.1); 4 * (dim + 8) leaves room for the other few roundings of a key and of the direct distance.
    return np.asarray(4 * (queries.shape[1] + 8) * (_EPS * size + _TINY))


def _l2_keys(queries: Floats, rows: Floats) -> tuple[Floats, Floats]:
    # |q|^2 + |x|^2 - 2qx cancels for near rows, so it only selects; pairs() measures what is left.
    query_lengths, lengths = _lengths(queries), _lengths(rows)
    keys = queries @ rows.T
    keys *= -2
    keys += (query_lengths**2)[:, None]
    keys += lengths**2
    return keys, _error(queries, (query_lengths + lengths.max()) ** 2)


def _ip_keys(queries: Floats, rows: Floats) -> tuple[Floats, Floats]:
    return -(queries @ rows.T), _error(queries, _lengths(queries) * _lengths(rows).max())


def _cosine_keys(queries: Floats, rows: Floats) -> tuple[Floats, Floats]:
    return 1 - queries @ rows.T, _error(queries, np.full(len(queries), 4.0))


def _hamming_keys(queries: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[Any], None]:
    return queries.sum(axis=1)[:, None] + rows.sum(axis=1) - 2 * (queries @ rows.T), None


def _jaccard_distance(both: NDArray[Any], total: NDArray[Any]) -> Floats:
    either = (total - both).astype(np.float64)
    return np.asarray((either - both) / np.where(either > 0, either, 1.0))  # two empty sets: 0 / 1


def _jaccard_keys(queries: NDArray[Any], rows: NDArray[Any]) -> tuple[Floats, None]:
    return _jaccard_distance(queries @ rows.T, queries.sum(axis=1)[:, None] + rows.sum(axis=1)), None


def _l1_keys(queries: Floats, rows: Floats) -> tuple[Floats, None]:
    return np.stack([np.abs(rows - query).sum(axis=1) for query in queries]), None


def _cosine_pairs(queries: Floats, rows: Floats) -> Floats:
    """1 - cos as half the squared chord: exactly 0 for equal directions, and no cancellation for near ones."""
    chord = ((queries - rows) ** 2).sum(axis=1)
    chord[chord <= 16 * _EPS**2] = 0  # one direction scaled in two ways differs by rounding alone
    zero = ~(queries.any(axis=1) & rows.any(axis=1))
    return np.where(zero, 1.0, np.minimum(chord / 2, 2.0))


def _same(distances: Floats) -> Floats:
    return distances


METRICS = {
    "l2": Metric(
        prepare=_as_float,
        keys=_l2_keys,
        pairs=lambda queries, rows: np.sqrt(((queries - rows) ** 2).sum(axis=1)),
        to_key=lambda distances: np.where(distances < 0, -np.inf, np.minimum(distances, 1e153) ** 2),  # no overflow
    ),
    "ip": Metric(
        prepare=_as_float,
        keys=_ip_keys,
        pairs=lambda queries, rows: 0.0 - (queries * rows).sum(axis=1),  # 0.0 - 0.0 is not -0.0
        to_key=_same,
    ),
    "cosine": Metric(prepare=_as_unit, keys=_cosine_keys, pairs=_cosine_pairs, to_key=_same),
    "hamming": Metric(
        prepare=_as_bits,
        keys=_hamming_keys,
        pairs=lambda queries, rows: np.abs(queries - rows).sum(axis=1, dtype=np.float64),
        to_key=_same,
        bits=True,
    ),
    "jaccard": Metric(
        prepare=_as_bits,
        keys=_jaccard_keys,
        pairs=lambda queries, rows: _jaccard_distance((queries * rows).sum(axis=1), (queries + rows).sum(axis=1)),
        to_key=_same,
        bits=True,
    ),
    "l1": Metric(
        prepare=_as_float,
        keys=_l1_keys,
        pairs=lambda queries, rows: np.abs(rows - queries).sum(axis=1),
        to_key=_same,
    ),
}


def named(name: object) -> Metric:
    if not isinstance(name, str) or name not in METRICS:
        raise InputError(f"metric is {name!r}, but one of {', '.join(METRICS)} or f(item, items) is wanted")
    return METRICS[name]


def inputs(
    metric: Metric, vectors: ArrayLike, queries: ArrayLike, *, name: str = "vectors"
) -> tuple[NDArray[Any], NDArray[Any]]:
    check = _checks.packed_bits if metric.bits else _checks.matrix
    base, points = check(name, vectors), check("queries", queries)
    _checks.same_columns("queries", points, base.shape[1])
    return base, points


def width(metric: Metric, array: NDArray[Any]) -> int:
    return int(array.shape[1]) * (8 if metric.bits else 1)


def prepare(metric: Metric, name: str, block: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """Check and convert some rows; ``numbers`` are their places in the whole array, for the error."""
    if not metric.bits:
        block = _as_float(block)
        good = (np.abs(block) <= _LARGEST).all(axis=1)  # False for NaN too
        if not good.all():
            raise InputError(
                f"{name} row {numbers[np.argmin(good)]} holds a value that is NaN, infinite or beyond {_LARGEST:g}; "
                "remove or replace such rows"
            )
    return metric.prepare(block)
