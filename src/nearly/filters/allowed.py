"""Which of n rows are allowed, as an object: a bit a row, or the rows themselves where they are few."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import check_int
from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.columns import pack, unpack

__all__ = ["Filter"]

_SMALL = 1 << 14  # bytes of bits that are kept whatever they say: making rows of them takes longer than a small search
_SPARSE = 32  # a row in 4 bytes takes less than a bit for each when fewer than one of so many is allowed


class Filter:
    """A set of rows, of n there are. Immutable.

    Made by `select` from an expression, or by `from_mask`, `from_rows` and `from_bits`; joined by ``&``, ``|`` and
    ``~``. ``where=`` of every index takes it; its bits are used as they are where ids are rows, and none was removed.

    Attributes
    ----------
    n : int
        Rows there are.
    count : int
        Rows that are allowed.

    Examples
    --------
    >>> some = Filter.from_rows([2, 7], n=100)
    >>> some.count, 7 in some, list(~some)[:3]
    (2, True, [0, 1, 3])
    >>> (some & Filter.from_mask([False, True] * 50)).rows()
    array([7])
    """

    __slots__ = ("__weakref__", "_bits", "_rows", "count", "n")

    def __init__(self, bits: NDArray[np.uint64] | None, rows: NDArray[np.uint32] | None, count: int, n: int) -> None:
        self._bits, self._rows, self.count, self.n = bits, rows, count, n

    @classmethod
    def from_bits(cls, bits: NDArray[np.uint64], n: int) -> "Filter":
        """Return the rows whose bit is set: row 0 is the lowest bit of word 0, bits past n are 0.

        Raises
        ------
        InputError
            If there are not (n + 63) // 64 contiguous words of uint64, or bits past n are set.
        """
        n = check_int(n, "n", low=0, high=1 << 32)
        if not isinstance(bits, np.ndarray) or bits.dtype != np.uint64 or bits.shape != ((n + 63) // 64,):
            raise InputError(
                f"bits is {describe(bits)}, but uint64 of shape ({(n + 63) // 64},) is wanted for {n} rows"
            )
        if n % 64 and int(bits[-1]) >> n % 64:
            raise InputError(f"bits has some set past row {n - 1}, the last; clear them")
        return cls._of_bits(bits.copy(), n)  # a filter does not change with them

    @classmethod
    def _of_bits(cls, bits: NDArray[np.uint64], n: int) -> "Filter":
        """The same, of bits that are right."""
        return cls._kept(bits, _core.count_bits(bits), n)

    @classmethod
    def _kept(cls, bits: NDArray[np.uint64], count: int, n: int) -> "Filter":
        """The same, of which so many are set."""
        if count * _SPARSE >= n or bits.nbytes <= _SMALL:
            return cls(bits, None, count, n)
        return cls(None, _core.set_nodes(bits, n), count, n)

    @classmethod
    def from_mask(cls, mask: Any) -> "Filter":
        """Return the rows at which a boolean mask is true."""
        array = np.asarray(mask)
        if array.ndim != 1 or array.dtype != np.bool_:
            raise InputError(f"mask is {describe(array)}, but bool of one dimension is wanted")
        return cls._of_bits(pack(array), len(array))

    @classmethod
    def from_rows(cls, rows: Any, n: int) -> "Filter":
        """Return these of n rows, in any order, repeats allowed."""
        array = np.asarray(rows)
        array = array.astype(np.int64) if array.size == 0 else array
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"rows is {describe(array)}, but integers in one dimension are wanted")
        n = check_int(n, "n", low=0, high=1 << 32)
        if array.size and (array.min() < 0 or array.max() >= n):
            wrong = array[(array < 0) | (array >= n)][0]
            raise InputError(f"rows has {wrong}, but there are {n} rows, from 0 on")
        ascending = bool((array[1:] > array[:-1]).all())
        found = (array if ascending else np.unique(array)).astype(np.uint32)
        if len(found) * _SPARSE < n and n > 8 * _SMALL:
            return cls(None, found, len(found), n)
        return cls(_bits_of(found, n), None, len(found), n)

    @property
    def bits(self) -> NDArray[np.uint64]:
        """A bit a row; made anew at each call where rows are few."""
        if self._bits is not None:
            return self._bits
        assert self._rows is not None
        return _bits_of(self._rows, self.n)

    @property
    def n_bytes(self) -> int:
        """Bytes that it takes."""
        return sum(each.nbytes for each in (self._rows, self._bits) if each is not None)

    def __nearly_bits__(self) -> tuple[NDArray[np.uint64], int]:
        """What ``where=`` asks for: the bits, and how many are set."""
        return self.bits, self.count

    def contains(self, row: int) -> bool:
        """Return whether a row is allowed: a test of one bit, or a search among few."""
        if not 0 <= row < self.n:
            return False
        if self._bits is not None:
            return bool(self._bits.item(row >> 6) >> (row & 63) & 1)
        assert self._rows is not None
        at = int(self._rows.searchsorted(np.uint32(row)))  # of another dtype, all would be converted
        return at < self.count and self._rows.item(at) == row

    def __contains__(self, row: int) -> bool:
        return self.contains(row)

    def rows(self) -> NDArray[np.int64]:
        """Return the rows that are allowed, ascending."""
        rows: NDArray[np.uint32] = _core.set_nodes(self.bits, self.n) if self._rows is None else self._rows
        return rows.astype(np.int64)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows().tolist())

    def mask(self) -> NDArray[np.bool_]:
        """Return for every row whether it is allowed."""
        if self._rows is None:
            return unpack(self.bits, self.n)
        mask = np.zeros(self.n, bool)
        mask[self._rows] = True
        return mask

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.mask() if dtype is None else self.mask().astype(dtype)

    def __and__(self, other: "Filter") -> "Filter":
        self._require_same(other)
        if self._rows is None and other._rows is None:
            return Filter._of_bits(self.bits & other.bits, self.n)
        if self._rows is not None and other._rows is not None:
            rows = np.intersect1d(self._rows, other._rows, assume_unique=True)
        else:
            few, many = (self, other) if self._rows is not None else (other, self)
            assert few._rows is not None
            rows = few._rows[_bits_at(many.bits, few._rows)]
        return Filter(None, rows, len(rows), self.n)

    def __or__(self, other: "Filter") -> "Filter":
        self._require_same(other)
        if self._rows is not None and other._rows is not None and (self.count + other.count) * _SPARSE < self.n:
            rows = np.concatenate([self._rows, other._rows])
            rows.sort(kind="stable")  # merges what ascends already
            rows = np.delete(rows, 1 + np.flatnonzero(rows[1:] == rows[:-1]))
            return Filter(None, rows, len(rows), self.n)
        return Filter._of_bits(self.bits | other.bits, self.n)

    def __invert__(self) -> "Filter":
        bits = ~self.bits
        if self.n % 64:
            bits[-1] &= np.uint64((1 << self.n % 64) - 1)
        return Filter._of_bits(bits, self.n)

    def __repr__(self) -> str:
        return f"Filter({self.count} of {self.n} rows, {self.n_bytes} bytes)"

    def _require_same(self, other: object) -> None:
        if not isinstance(other, Filter):
            raise InputError(f"a Filter is joined with {describe(other)}; pass another Filter")
        if other.n != self.n:
            raise InputError(f"a Filter of {self.n} rows is joined with one of {other.n}")


def _bits_of(rows: NDArray[np.uint32], n: int) -> NDArray[np.uint64]:
    bits = np.zeros((n + 63) // 64, np.uint64)
    _core.set_bits(rows, bits)
    return bits


def _bits_at(bits: NDArray[np.uint64], rows: NDArray[np.uint32]) -> NDArray[np.bool_]:
    octets = bits.view(np.uint8)[rows >> np.uint32(3)]
    found: NDArray[np.uint8] = octets >> (rows & np.uint32(7)).astype(np.uint8) & np.uint8(1)
    return found.astype(np.bool_)
