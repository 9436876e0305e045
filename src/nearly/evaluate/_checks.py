"""The door of this room: arrays and numbers that the oracle can work with, or a clear error."""

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearly.errors import DimensionError, InputError


def count(name: str, value: object) -> int:
    """Return ``value`` as an int of at least 1, or raise InputError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} is {value!r}, but a whole number of at least 1 is wanted") from None
    if isinstance(value, bool | np.bool_) or number < 1:
        raise InputError(f"{name} is {value!r}, but a whole number of at least 1 is wanted")
    return number


def is_real(dtype: np.dtype[Any]) -> bool:
    """Tell whether numbers of ``dtype`` turn into float64: bool, integers, floats and bfloat16 (known by its name)."""
    return dtype.kind in "biuf" or dtype.name == "bfloat16"


def matrix(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return ``value`` as a 2-D array of real numbers (memory maps stay maps), or raise InputError."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged lists
        raise InputError(f"{name} is no array: {error}; pass an array of shape (n, dim)") from None
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}, but (n, dim) is wanted; one vector is {name}[None, :]")
    if not is_real(array.dtype):
        raise InputError(f"{name} has dtype {array.dtype}, but real numbers are wanted")
    if array.shape[1] == 0:
        raise InputError(f"{name} has shape {array.shape}, but at least one column is wanted")
    return array


def packed_bits(name: str, value: ArrayLike) -> NDArray[np.uint8]:
    """Return ``value`` as a 2-D array of packed bits, or raise InputError."""
    array = matrix(name, value)
    if array.dtype != np.uint8:
        raise InputError(
            f"{name} has dtype {array.dtype}, but packed bits (uint8) are wanted; pass numpy.packbits({name}, axis=1)"
        )
    return array


def same_columns(name: str, array: NDArray[Any], dim: int) -> None:
    """Raise DimensionError unless ``array`` has ``dim`` columns."""
    if array.shape[1] != dim:
        raise DimensionError(name, got=array.shape[1], expected=dim)


def id_table(name: str, value: ArrayLike) -> NDArray[np.int64]:
    """Return ``value`` as a 2-D int64 array of ids (-1 marks an empty slot), or raise InputError."""
    array = np.asarray(value)
    if array.ndim != 2:
        raise InputError(f"{name} has shape {array.shape}, but (n_queries, k) is wanted; one row is {name}[None, :]")
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} has dtype {array.dtype}, but integer ids are wanted")
    table: NDArray[np.int64] = array.astype(np.int64, copy=False)
    if table.size and table.min() < -1:
        raise InputError(f"{name} holds {table.min()}, but ids are at least 0, and -1 marks an empty slot")
    return table
