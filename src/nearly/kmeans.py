"""k-means: used by quantizers for their codewords and by indexes for their lists.

The same data and seed give the same bytes, whatever the number of threads: products and sums are the core's own.
"""

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError

__all__ = ["assign", "balanced", "kmeans", "one_round", "refine"]

Floats = NDArray[np.float32]

PER_CENTER = 256  # rows that say enough about a center: Faiss's habit

_BLOCK = 65_536  # rows moved to the centers' mean at a time


def kmeans(rows: Floats, k: int, *, seed: int = 0, iterations: int = 25, threads: int = 0) -> Floats:
    """Return k centers that lie near to rows.

    Begins with rows drawn at random, and moves each center to the mean of the rows that are nearest to it (Lloyd, IEEE
    Trans. Information Theory 1982). A center that no row is nearest to takes half of the largest cluster.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32
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
    return refine(sample, centers, iterations=iterations, threads=threads)


def refine(rows: Floats, centers: Floats, *, iterations: int, threads: int = 0) -> Floats:
    """Return centers after so many more rounds of `kmeans` on all rows."""
    # About the mean, for numbers that are small beside their distance to the origin.
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows, centers = np.ascontiguousarray(rows - mean), np.ascontiguousarray(centers - mean)
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
    return _means(rows, centers, labels, distances, threads), labels, float(distances.mean(dtype=np.float64))


def balanced(rows: Floats, k: int, *, seed: int = 0, iterations: int = 10, threads: int = 0) -> Floats:
    """Return k centers of clusters of about even size, at a small part of the cost of `kmeans`.

    Rows are divided among about sqrt(k) centers first, then each part among as many centers as its share of the rows
    is worth, as the trees of SPANN are (Chen et al., NeurIPS 2021, section 3.2.1); two rounds of `refine` on all rows
    mend the borders between parts.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32
        Finite, at least one.
    k : int
        Centers, at least 1.
    seed : int, default 0
    iterations : int, default 10
        At most, of each division.
    threads : int, default 0
        0 means the default of the process.

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
            own = rows[part == i]
            made.append(kmeans(own, int(n), seed=seed + 1 + i, iterations=iterations, threads=threads))
    return refine(rows, np.concatenate(made), iterations=2, threads=threads)


def _shared_out(k: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """k things shared out in proportion to sizes: whole numbers, the largest remainders rounded up."""
    wanted = k * sizes / sizes.sum()
    whole: NDArray[np.int64] = wanted.astype(np.int64)
    last = np.argsort(whole - wanted, kind="stable")[: k - int(whole.sum())]
    whole[last] += 1
    return whole


def assign(rows: Floats, centers: Floats, *, threads: int = 0) -> NDArray[np.uint32]:
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


def _means(rows: Floats, centers: Floats, labels: NDArray[np.uint32], distances: Floats, threads: int) -> Floats:
    """The means of clusters; a cluster without rows begins anew at the farthest row of the largest one."""
    sums = np.zeros(centers.shape)
    _core.sum_by_label(rows, labels, sums, threads)
    counts = np.bincount(labels, minlength=len(centers))
    made = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        farthest = np.argsort(-distances, kind="stable")
        taken: dict[int, int] = {}  # how many rows of a cluster were taken
        left = counts.astype(np.float64)
        for center in empty:
            largest = int(left.argmax())
            own = farthest[labels[farthest] == largest]
            made[center] = rows[own[taken.get(largest, 0) % len(own)]]
            taken[largest] = taken.get(largest, 0) + 1
            left[largest] = counts[largest] / (taken[largest] + 1)
    return made
