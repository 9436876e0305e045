"""Ids, and what selects rows by them: masks and lists."""

from collections.abc import Mapping, Set

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.foreign import to_numpy
from nearly.arrays.words import describe, listing
from nearly.errors import IdError, InputError

__all__ = ["as_ids", "as_mask_or_ids", "next_ids"]


def next_ids(first: int, n: int) -> NDArray[np.int64]:
    """Return n ids from the first on, or raise `IdError` where int64 holds no more."""
    if first + n > 2**63:
        raise IdError(f"{n} ids from {first} on go beyond 2**63 - 1, the largest; pass ids=")
    return np.arange(n, dtype=np.int64) + (first if n else 0)


def as_ids(value: object, *, n: int | None = None, name: str = "ids", unique: bool = True) -> NDArray[np.int64]:
    """Turn what a user passed as ids into int64.

    Parameters
    ----------
    value : array-like of int of shape (n,)
        A single integer is one id. No booleans, no floats.
    n : int, optional
        How many are wanted. Any number when None.
    name : str
        The argument's name, for messages.
    unique : bool
        Refuse repeated ids.

    Returns
    -------
    ndarray of shape (n,), int64
        Contiguous, every id ≥ 0. Shares memory with ``value`` where it can.

    Raises
    ------
    IdError
        If ids are not integers, negative, beyond int64, repeated (the first few are listed), or not ``n``.

    Examples
    --------
    >>> as_ids([7, 3], n=2)
    array([7, 3])
    """
    array = _to_integers(value, name, "one integer id >= 0 per vector")
    if n is not None and len(array) != n:
        raise IdError(f"{name} holds {len(array)} ids, but there are {n} vectors; pass one id for each")
    if unique and len(array) > 1 and not bool((array[1:] > array[:-1]).all()):
        ordered = np.sort(array)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if len(repeated):
            raise IdError(
                f"{name} must be distinct, but {listing(repeated)} {'is' if len(repeated) == 1 else 'are'} "
                f"repeated; pass each id once"
            )
    return array


def as_mask_or_ids(where: object, *, n_mask: int | None, name: str = "where") -> NDArray[np.bool_] | NDArray[np.int64]:
    """Turn what a user passed as ``where=`` into a boolean mask or int64 ids; the dtype of the answer says which.

    Parameters
    ----------
    where : array-like of bool of shape (n_mask,) or of int of shape (m,), or a set of int
        A mask has one entry per id 0, 1, …; integers are the ids to allow, in any order, repeats allowed.
    n_mask : int or None
        Entries a mask must have: the largest id + 1. None where the user gave the ids, so that a mask has no meaning.
    name : str
        The argument's name, for messages.

    Returns
    -------
    ndarray of shape (n_mask,), bool, or of shape (m,), int64
        Contiguous. Ids are ≥ 0; whether they exist is for the index to say.

    Raises
    ------
    InputError
        If it is neither, a mask of the wrong length, a mask where ids were given, or zeros and ones that look like
        a mask.
    IdError
        If an id is negative or beyond int64.

    Examples
    --------
    >>> as_mask_or_ids([True, False, True], n_mask=3)
    array([ True, False,  True])
    >>> as_mask_or_ids([4, 2], n_mask=None)
    array([4, 2])
    """
    if isinstance(where, str | Mapping) or getattr(type(where), "__nearly_condition__", False):
        raise InputError(
            f"{name} is {describe(where)}, but a boolean mask or integer ids are wanted; of a condition make them by "
            "nearly.filters.select(condition, columns, n), or keep the columns in a collection (nearly.open)"
        )
    if isinstance(where, slice) or callable(where):
        advice = "numpy.arange(start, stop)" if isinstance(where, slice) else "the mask, or the ids, that it stands for"
        raise InputError(f"{name} is {describe(where)}, but a boolean mask or integer ids are wanted; pass {advice}")
    if isinstance(where, Set):  # a set, a frozenset, the keys of a dict
        if any(isinstance(item, bool | np.bool_) for item in where):
            raise InputError(f"{name} is {describe(where)} of booleans, but a mask has an order; pass a list, or ids")
        where = list(where)
    array, bfloat16 = to_numpy(where, name)
    if bfloat16 or array.dtype != np.bool_:
        ids = _to_integers(array, name, "a boolean mask or integer ids", error=InputError)
        if len(ids) > 2 and ids.max() <= 1:
            raise InputError(
                f"{name} holds only zeros and ones, like a mask; pass {name}.astype(bool), or distinct ids"
            )
        return ids
    if n_mask is None:
        raise InputError(
            f"{name} is a boolean mask, but this index was given its ids, so that positions mean nothing; "
            f"pass the ids to allow, for example ids[mask]"
        )
    if array.shape != (n_mask,):
        raise InputError(
            f"{name} is a boolean mask of shape {array.shape}, but one entry per id 0 to {n_mask - 1}, "
            f"shape ({n_mask},), is wanted; pass such a mask, or the integer ids to allow"
        )
    return np.ascontiguousarray(array)


def _to_integers(value: object, name: str, wanted: str, error: type[InputError] = IdError) -> NDArray[np.int64]:
    array, bfloat16 = to_numpy(value, name) if not _is_integer(value) else (np.array([value]), False)
    if array.size == 0 and array.dtype.kind != "b":
        return np.empty(0, np.int64)
    if bfloat16 or array.ndim != 1 or array.dtype.kind not in "iu":
        what = f"of shape {array.shape} and dtype {'bfloat16' if bfloat16 else array.dtype}"
        missing = sum(map(_is_missing, array.flat)) if array.dtype.kind in "fO" else 0
        if missing:
            raise error(f"{name} has nulls or NaN ({missing} of {array.size} values), but {wanted} is wanted; leave "
                        "them out, or fill them in")  # fmt: skip
        whole = array.dtype.kind == "f" and array.ndim == 1
        advice = f"; pass {name}.astype(numpy.int64)" if whole else "; pass a one-dimensional int64 array"
        raise error(f"{name} is {what}, but {wanted} is wanted{advice}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.max() > np.iinfo(np.int64).max:
        raise IdError(f"{name} holds {array.max()}, but ids are int64, at most {np.iinfo(np.int64).max}")
    if array.min() < 0:
        negative = np.unique(array[array < 0])
        raise IdError(
            f"{name} holds {listing(negative)}, but ids are >= 0; number the vectors from 0, or leave ids out"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
