"""The rotation that brings one set of vectors nearest to another: what OPQ and ITQ improve theirs by."""

import numpy as np
from numpy.typing import NDArray

from nearly import _core

__all__ = ["closest_rotation", "random_rotation"]

Floats = NDArray[np.float32]

_BLOCK = 2048  # rows whose products are summed in float32
_STAY = np.float32(0.01)  # pull towards the rotation before, so that directions without spread keep theirs
_ROUNDS = 60  # of Newton's iteration at most; a singular value of 1e-6 takes 35
_CLOSE = 1e-5  # largest error of an orthonormal product at which it ends


def closest_rotation(rows: Floats, images: Floats, rotation: Floats, threads: int = 0) -> Floats:
    """Return the rotation R for which ``rows @ R.T`` lies nearest to images (orthogonal Procrustes; Schönemann 1966).

    The polar factor of the products of images with rows, by Newton's iteration X (3 I - XᵀX) / 2 (Björck & Bowie, SIAM
    J. Numerical Analysis 1971): nothing but products, which are the same for any number of threads.

    Parameters
    ----------
    rows : ndarray of shape (n, dim), float32
    images : ndarray of shape (n, dim), float32
    rotation : ndarray of shape (dim, dim), float32
        The one before.
    """
    total = np.zeros(rotation.shape)
    for first in range(0, len(rows), _BLOCK):
        part = slice(first, first + _BLOCK)
        total += _products(images[part].T, rows[part].T, threads)
    # No singular value is larger than this.
    bound = np.sqrt(np.abs(total).sum(axis=0).max() * np.abs(total).sum(axis=1).max())
    if not bound > 0:
        return rotation
    made = np.ascontiguousarray((total / bound).astype(np.float32) + _STAY * rotation)
    made /= 1 + _STAY
    unit = np.eye(len(made), dtype=np.float32)
    for _ in range(_ROUNDS):
        inner = _products(made.T, made.T, threads)
        if np.abs(inner - unit).max() < _CLOSE:
            break
        made = _products(made, np.float32(1.5) * unit - np.float32(0.5) * inner, threads)
    return made


def random_rotation(dim: int, seed: int, threads: int = 0) -> Floats:
    """Return a rotation or reflection drawn evenly from all: the polar factor of a normal matrix."""
    drawn = np.random.default_rng(seed).standard_normal((dim, dim), dtype=np.float32)
    unit = np.eye(dim, dtype=np.float32)
    return closest_rotation(unit, drawn, unit, threads)


def _products(rows: Floats, columns: Floats, threads: int) -> Floats:
    out = np.empty((len(rows), len(columns)), np.float32)
    _core.products(np.ascontiguousarray(rows), np.ascontiguousarray(columns), out, threads)
    return out
