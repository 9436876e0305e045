"""A bit a row, in words of 64: which rows of a segment are alive, and which pass. Never changed in place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.filters.columns import pack, unpack

__all__ = ["Bits", "all_set", "cleared", "count", "extended", "is_set", "pack", "rows_of", "unpack"]

Bits = NDArray[np.uint64]
_ONE = np.uint64(1)


def all_set(n: int) -> Bits:
    """Bits of n rows, all set."""
    words = np.full((n + 63) // 64, ~np.uint64(0))
    if n % 64:
        words[-1] = (_ONE << np.uint64(n % 64)) - _ONE
    return words


def cleared(bits: Bits, rows: NDArray[Any]) -> Bits:
    """These bits without some rows."""
    made = bits.copy()
    np.bitwise_and.at(made, rows >> 6, ~(_ONE << (rows & 63).astype(np.uint64)))
    return made


def extended(bits: Bits, first: int, n: int) -> Bits:
    """These bits and n more rows from the first on, all of them set."""
    made = np.zeros((first + n + 63) // 64, np.uint64)
    made[: len(bits)] = bits
    if n == 1:
        made[first >> 6] |= _ONE << np.uint64(first & 63)
    elif n:
        mask = unpack(made, first + n)
        mask = mask.copy()
        mask[first:] = True
        made = pack(mask)
    return made


def is_set(bits: Bits, rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each row is set; rows past the end are not."""
    inside = (rows >= 0) & (rows < len(bits) * 64)
    at = np.where(inside, rows, 0)
    if not len(bits):
        return np.zeros(len(rows), bool)
    return np.asarray(inside & ((bits[at >> 6] >> (at & 63).astype(np.uint64)) & _ONE).astype(bool))


def count(bits: Bits) -> int:
    """How many are set."""
    return (
        int(np.bitwise_count(bits).sum()) if hasattr(np, "bitwise_count") else int(unpack(bits, len(bits) * 64).sum())
    )


def rows_of(bits: Bits) -> NDArray[np.int64]:
    """The rows that are set, ascending."""
    return np.flatnonzero(unpack(bits, len(bits) * 64))
