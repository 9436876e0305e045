"""Sets of values of one column as closed spans of its order: what every test of a column comes down to.

``year >= 2000 AND year < 2010`` is one span, ``lang IN ('de', 'en')`` is spans of positions in the dictionary, ``<>``
is two spans. So conjunctions, disjunctions and negations of tests of one column cost one pass over it.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Spans"]


@dataclass(slots=True)  # not frozen, which would take longer to make than the rest of a test
class Spans:
    """Values from ``low[i]`` to ``high[i]``, both included, and whether null is one of the set. Never changed.

    Parameters
    ----------
    low, high : ndarray of int64 or float64
        Ascending; no two spans touch.
    nulls : bool
        Rows without a value pass.

    Examples
    --------
    >>> some = Spans.of([3, 9], [5, 9]) | Spans.of([6], [7])
    >>> some
    Spans(low=[3, 9], high=[7, 9], nulls=False)
    >>> some & Spans.of([5], [9])
    Spans(low=[5, 9], high=[7, 9], nulls=False)
    """

    low: NDArray[Any]
    high: NDArray[Any]
    nulls: bool = False

    @classmethod
    def of(cls, low: Any, high: Any, dtype: DTypeLike = np.int64, nulls: bool = False) -> "Spans":
        """Return the union of spans in any order; those that end before they begin are empty."""
        low, high = np.asarray(low, dtype), np.asarray(high, dtype)
        kept = low <= high
        return cls(*_merged(low[kept], high[kept]), nulls)

    @classmethod
    def whole(cls, dtype: DTypeLike, nulls: bool = False) -> "Spans":
        """Return all values, and null or not."""
        low, high = _ends(np.dtype(dtype))
        return cls(np.array([low], dtype), np.array([high], dtype), nulls)

    @classmethod
    def where(cls, table: NDArray[np.bool_], nulls: bool = False) -> "Spans":
        """Return the positions at which a table is true."""
        edges = np.flatnonzero(np.diff(table.astype(np.int8), prepend=0, append=0))
        return cls(edges[::2].astype(np.int64), edges[1::2].astype(np.int64) - 1, nulls)

    @property
    def empty(self) -> bool:
        """Nothing passes."""
        return len(self.low) == 0 and not self.nulls

    def meets(self, other: "Spans") -> bool:
        """Return whether some value, or null, is in both.

        Examples
        --------
        >>> Spans.of([3, 9], [5, 9]).meets(Spans.of([6], [8]))
        False
        """
        if self.nulls and other.nulls:
            return True
        if not len(self.low) or not len(other.low):
            return False
        at = np.searchsorted(self.low, other.high, side="right") - 1  # the last span that begins early enough
        return bool(((at >= 0) & (self.high[at] >= other.low)).any())

    def opposite(self, nulls: bool) -> "Spans":
        """Return all other values, and null or not."""
        low, high = _complement(self.low, self.high)
        return Spans(low, high, nulls)

    def __or__(self, other: "Spans") -> "Spans":
        low, high = np.concatenate([self.low, other.low]), np.concatenate([self.high, other.high])
        return Spans(*_merged(low, high), self.nulls or other.nulls)

    def __and__(self, other: "Spans") -> "Spans":
        nulls = self.nulls and other.nulls
        if len(self.low) == 1 == len(other.low):  # the usual case, by far the quickest so
            low = self.low if self.low[0] >= other.low[0] else other.low
            high = self.high if self.high[0] <= other.high[0] else other.high
            return Spans(low, high, nulls) if low[0] <= high[0] else Spans(low[:0], high[:0], nulls)
        if len(self.low) == 1 or len(other.low) == 1:
            low, high = np.maximum(self.low, other.low), np.minimum(self.high, other.high)
            kept = low <= high
            return Spans(low[kept], high[kept], nulls)
        outside = [_complement(each.low, each.high) for each in (self, other)]
        low, high = (np.concatenate(ends) for ends in zip(*outside, strict=True))
        return Spans(*_complement(*_merged(low, high)), nulls)

    def __repr__(self) -> str:
        return f"Spans(low={self.low.tolist()}, high={self.high.tolist()}, nulls={self.nulls})"


def _ends(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    if dtype.kind == "f":
        return -np.inf, np.inf
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _next(values: NDArray[Any]) -> NDArray[Any]:
    """The values that follow; never asked of the last one."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinity is a value
            return cast("NDArray[Any]", np.nextafter(values, np.inf))
    return values + 1


def _previous(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return cast("NDArray[Any]", np.nextafter(values, -np.inf))
    return values - 1


def _merged(low: NDArray[Any], high: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if len(low) < 2:
        return low, high
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    begins = np.ones(len(low), bool)
    # Only what is above may be lowered by one: the least value has none before it.
    above = low[1:] > high[:-1]
    begins[1:] = above & (_previous(np.where(above, low[1:], 0)) > high[:-1])
    ends = np.append(begins[1:], True)
    return low[begins], high[ends]


def _complement(low: NDArray[Any], high: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    first, last = _ends(low.dtype)
    begins, ends = high[high < last], low[low > first]
    low_out, high_out = _next(begins), _previous(ends)
    if not len(low) or low[0] > first:
        low_out = np.concatenate([np.array([first], low.dtype), low_out])
    if not len(high) or high[-1] < last:
        high_out = np.concatenate([high_out, np.array([last], low.dtype)])
    return low_out, high_out
