"""k-means: used by quantizers for their codewords and by indexes for their lists.

The same data and seed give the same bytes, whatever the number of threads: products and sums are the core's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError

__all__ = ["Nearest", "Rows", "assign", "balanced", "kmeans", "one_round", "refine"]

Floats = NDArray[np.float32]

PER_CENTER = 256  # rows that say enough about a center: Faiss's habit

_BLOCK = 4096  # rows in hand at a time


class Rows(Protocol):
    """Rows of numbers that are looked at some at a time: an array, or what reads them where they are."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> Floats:
        """Rows of a slice, or of an array of positions: float32."""
        ...


# The center nearest to each of some rows, and its squared distance.
Nearest = Callable[[Floats], tuple[NDArray[np.uint32], Floats]]


def kmeans(rows: Rows, k: int, *, seed: int = 0, iterations: int = 25, threads: int = 0) -> Floats:
    """Return k centers that lie near to rows.

    Begins with rows drawn at random, and moves each center to the mean of the rows that are nearest to it (Lloyd, IEEE
    Trans. Information Theory 1982). A center that no row is nearest to takes half of the largest cluster.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32, or Rows
        Finite, at least one. Of more than 256 for each center, that many are drawn.
    k : int
        Centers, at least 1. Where there are fewer different rows, some centers are equal.
    seed : int, default 0
    iterations : int, default 25
        At most; it ends when no row changes its center.
    threads : int, default 0
        0 means the default of the process.

    Returns
    -------
    ndarray of shape (k, dim), float32

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = np.repeat([[0, 0], [9, 9]], 100, axis=0) + rng.standard_normal((200, 2))
    >>> sorted(np.abs(kmeans(rows.astype(np.float32), 2)).round(0).tolist())
    [[0.0, 0.0], [9.0, 9.0]]
    """
    if k < 1 or not len(rows):
        raise InputError(f"k-means of {len(rows)} rows and {k} centers; both are at least one")
    drawn = np.random.default_rng(seed).permutation(len(rows))[: PER_CENTER * k]
    sample = np.ascontiguousarray(rows[drawn], np.float32)
    centers = np.ascontiguousarray(sample[np.arange(k) % len(sample)])
    return _refined(sample, centers, iterations, threads)


def refine(rows: Floats, centers: Floats, *, iterations: int, threads: int = 0) -> Floats:
    """Return centers after so many more rounds of `kmeans` on all rows."""
    return _refined(np.array(rows, np.float32), centers, iterations, threads)


def _refined(rows: Floats, centers: Floats, iterations: int, threads: int) -> Floats:
    """What `refine` does with rows that nobody needs any more."""
    # About the mean, for numbers that are small beside their distance to the origin.
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows -= mean
    centers = np.ascontiguousarray(centers - mean)
    labels = np.zeros(len(rows), np.uint32)
    for turn in range(iterations):
        before = labels
        moved, labels, _ = one_round(rows, centers, threads=threads)
        if turn and np.array_equal(labels, before):
            break
        centers = moved
    made: Floats = centers + mean
    return made


def one_round(rows: Floats, centers: Floats, *, threads: int = 0) -> tuple[Floats, NDArray[np.uint32], float]:
    """Return the means of the rows nearest to each center, each row's center, and the mean squared distance before.

    For rows about their mean: the core's products lose what is small beside the distance to the origin.
    """
    labels, distances = _nearest(rows, centers, threads)
    sums = np.zeros(centers.shape)
    _core.sum_by_label(rows, labels, sums, threads)
    return _means(sums, labels, distances, lambda row: rows[row]), labels, float(distances.mean(dtype=np.float64))


def balanced(
    rows: Rows, k: int, *, seed: int = 0, iterations: int = 10, threads: int = 0,
    nearest: Callable[[Floats], Nearest] | None = None,
) -> Floats:  # fmt: skip
    """Return k centers of clusters of about even size, at a small part of the cost of `kmeans`.

    Rows are divided among about sqrt(k) centers first, then each part among as many centers as its share of the rows
    is worth, as the trees of SPANN are (Chen et al., NeurIPS 2021, section 3.2.1); two rounds of `refine` on all rows
    mend the borders between parts.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32, or Rows
        Finite, at least one. Those of a part, or some thousands, are in hand at a time.
    k : int
        Centers, at least 1.
    seed : int, default 0
    iterations : int, default 10
        At most, of each division.
    threads : int, default 0
        0 means the default of the process.
    nearest : callable, optional
        ``nearest(centers)`` gives what finds the center nearest to each row in the rounds on all rows; it may miss a
        few. None compares with all centers.

    Returns
    -------
    ndarray of shape (k, dim), float32

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((2000, 4), dtype=np.float32)
    >>> sizes = np.bincount(assign(rows, balanced(rows, 50)), minlength=50)
    >>> bool(sizes.max() < 4 * sizes.mean())
    True
    """
    if k < 1 or not len(rows):
        raise InputError(f"k-means of {len(rows)} rows and {k} centers; both are at least one")
    n_parts = round(k**0.5)
    if n_parts < 2:
        return kmeans(rows, k, seed=seed, iterations=iterations, threads=threads)
    part = assign(rows, kmeans(rows, n_parts, seed=seed, iterations=iterations, threads=threads), threads=threads)
    sizes = np.bincount(part, minlength=n_parts)
    made = []
    for i, n in enumerate(_shared_out(k, sizes)):
        if n:
            own = rows[np.flatnonzero(part == i)]
            made.append(kmeans(own, int(n), seed=seed + 1 + i, iterations=iterations, threads=threads))
    return _mended(rows, np.concatenate(made), nearest, rounds=2, threads=threads)


def _mended(
    rows: Rows, centers: Floats, nearest: Callable[[Floats], Nearest] | None, *, rounds: int, threads: int
) -> Floats:
    """Return centers after so many rounds on all rows: `refine` with a block of them in hand."""
    sums, n = np.zeros((1, centers.shape[1])), len(rows)
    for first in range(0, n, _BLOCK):
        block = np.ascontiguousarray(rows[first : first + _BLOCK])
        _core.sum_by_label(block, np.zeros(len(block), np.uint32), sums, threads)
    mean = (sums[0] / n).astype(np.float32)
    moved: Floats = np.ascontiguousarray(centers - mean)
    labels, distances = np.empty(n, np.uint32), np.empty(n, np.float32)
    for _ in range(rounds):
        sums = np.zeros(centers.shape)
        find = partial(_nearest, centers=moved, threads=threads) if nearest is None else nearest(moved)
        for first in range(0, n, _BLOCK):
            block, at = np.ascontiguousarray(rows[first : first + _BLOCK] - mean), slice(first, first + _BLOCK)
            labels[at], distances[at] = find(block)
            _core.sum_by_label(block, labels[at], sums, threads)
        moved = _means(sums, labels, distances, lambda row: rows[row : row + 1][0] - mean)
    made: Floats = moved + mean
    return made


def _shared_out(k: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """k things shared out in proportion to sizes: whole numbers, the largest remainders rounded up."""
    wanted = k * sizes / sizes.sum()
    whole: NDArray[np.int64] = wanted.astype(np.int64)
    last = np.argsort(whole - wanted, kind="stable")[: k - int(whole.sum())]
    whole[last] += 1
    return whole


def assign(rows: Rows, centers: Floats, *, threads: int = 0) -> NDArray[np.uint32]:
    """Return the center nearest to each row, the first of equals.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32
    centers : ndarray of shape (k, dim), float32
    threads : int, default 0

    Returns
    -------
    ndarray of shape (n,), uint32

    Examples
    --------
    >>> assign(np.array([[1.0], [4.0]], np.float32), np.array([[0.0], [5.0]], np.float32)).tolist()
    [0, 1]
    """
    mean = centers.mean(axis=0, dtype=np.float64).astype(np.float32)
    moved = np.ascontiguousarray(centers - mean)
    labels = np.empty(len(rows), np.uint32)
    for first in range(0, len(rows), _BLOCK):
        block = np.ascontiguousarray(rows[first : first + _BLOCK] - mean)
        labels[first : first + len(block)], _ = _nearest(block, moved, threads)
    return labels


def _nearest(rows: Floats, centers: Floats, threads: int) -> tuple[NDArray[np.uint32], Floats]:
    """The nearest center of each row, and its squared distance."""
    labels, distances = np.empty(len(rows), np.uint32), np.empty(len(rows), np.float32)
    _core.nearest_centers(rows, centers, labels, distances, threads)
    return labels, distances


def _means(
    sums: NDArray[np.float64], labels: NDArray[np.uint32], distances: Floats, row: Callable[[int], Floats]
) -> Floats:
    """The means of clusters; a cluster without rows begins anew at the farthest row of the largest one."""
    counts = np.bincount(labels, minlength=len(sums))
    made: Floats = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        farthest = np.argsort(-distances, kind="stable")
        taken: dict[int, int] = {}  # how many rows of a cluster were taken
        left = counts.astype(np.float64)
        for center in empty:
            largest = int(left.argmax())
            own = farthest[labels[farthest] == largest]
            made[center] = row(int(own[taken.get(largest, 0) % len(own)]))
            taken[largest] = taken.get(largest, 0) + 1
            left[largest] = counts[largest] / (taken[largest] + 1)
    return made
