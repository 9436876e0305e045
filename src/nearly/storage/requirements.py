"""What the loaders of indexes ask of a file."""

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from nearly.errors import FormatError
from nearly.storage.layout import DAMAGED, INT_LIMITS, Array
from nearly.storage.reading import File

__all__ = ["Key", "config_bool", "config_float", "config_int", "config_str", "require"]

Key: TypeAlias = str | tuple[str, ...]


def require(file: File, name: str, dtype: DTypeLike, shape: Sequence[int | None]) -> Array:
    """Return an array of a file if it has the dtype and the shape that a loader needs.

    Parameters
    ----------
    file : File
        From `read`.
    name : str
        Name of the array.
    dtype : dtype
        The dtype wanted; ``"bfloat16"`` wants a uint16 array that is marked so, and ``uint16`` one that is not.
    shape : sequence of int or None
        The shape wanted; None stands for any length.

    Returns
    -------
    ndarray
        Read-only, mapped.

    Raises
    ------
    FormatError
        If the array is missing or different: says what came and what was wanted.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from nearly.storage import read, write
    >>> path = os.path.join(tempfile.mkdtemp(), "rows.nearly")
    >>> n_bytes = write(path, {"rows": np.zeros((5, 2), np.float32)}, {}, kind="example")
    >>> require(read(path), "rows", np.float32, (None, 2)).shape
    (5, 2)
    """
    wanted_name = "bfloat16" if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name
    wanted = f"{wanted_name} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
    array = file.arrays.get(name)
    if array is None:
        raise FormatError(f"{file.path!r}: array {name!r} is missing, but {wanted} is wanted; {DAMAGED}")
    came_name = "bfloat16" if name in file.bfloat16 else array.dtype.name
    fits = array.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
    if came_name != wanted_name or not fits:
        raise FormatError(
            f"{file.path!r}: array {name!r} is {came_name} of shape {array.shape}, but {wanted} is wanted; {DAMAGED}"
        )
    return array


def _config_value(file: File, key: Key, kinds: tuple[type, ...], wanted: str) -> Any:
    value: Any = file.config
    path = (key,) if isinstance(key, str) else key
    for part in path:
        if not isinstance(value, dict) or part not in value:
            raise FormatError(f"{file.path!r}: config has no {'/'.join(path)!r}, but {wanted} is wanted; {DAMAGED}")
        value = value[part]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _config_error(file, key, value, wanted)
    return value


def _config_error(file: File, key: Key, value: Any, wanted: str) -> FormatError:
    name = key if isinstance(key, str) else "/".join(key)
    return FormatError(f"{file.path!r}: config {name!r} is {repr(value)[:80]}, but {wanted} is wanted; {DAMAGED}")


def config_int(file: File, key: Key, lo: int = INT_LIMITS[0], hi: int = INT_LIMITS[1]) -> int:
    """Return an integer of the configuration, in [lo, hi].

    Parameters
    ----------
    file : File
        From `read`.
    key : str or tuple of str
        Name of the value; a tuple walks down nested dicts.
    lo, hi : int, optional
        Least and greatest value allowed; 64 bits if not given.

    Returns
    -------
    int
        The value; True and False are none.

    Raises
    ------
    FormatError
        If it is missing, no integer, or out of range.

    Examples
    --------
    >>> import os, tempfile
    >>> from nearly.storage import read, write
    >>> path = os.path.join(tempfile.mkdtemp(), "config.nearly")
    >>> n_bytes = write(path, {}, {"graph": {"degree": 32}}, kind="example")
    >>> config_int(read(path), ("graph", "degree"), 1, 1024)
    32
    """
    wanted = f"an integer from {lo} to {hi}"
    value: int = _config_value(file, key, (int,), wanted)
    if not lo <= value <= hi:
        raise _config_error(file, key, value, wanted)
    return value


def config_float(file: File, key: Key, lo: float = -math.inf, hi: float = math.inf) -> float:
    """Return a finite number of the configuration, in [lo, hi]; parameters and errors as `config_int`.

    Examples
    --------
    >>> import os, tempfile
    >>> from nearly.storage import read, write
    >>> path = os.path.join(tempfile.mkdtemp(), "config.nearly")
    >>> n_bytes = write(path, {}, {"alpha": 1.2}, kind="example")
    >>> config_float(read(path), "alpha", 1.0, 2.0)
    1.2
    """
    wanted = f"a number from {lo} to {hi}"
    value = float(_config_value(file, key, (int, float), wanted))
    if not lo <= value <= hi:
        raise _config_error(file, key, value, wanted)
    return value


def config_str(file: File, key: Key, *, allowed: Collection[str] | None = None) -> str:
    """Return a string of the configuration, one of `allowed` if given; other parameters and errors as `config_int`.

    Examples
    --------
    >>> import os, tempfile
    >>> from nearly.storage import read, write
    >>> path = os.path.join(tempfile.mkdtemp(), "config.nearly")
    >>> n_bytes = write(path, {}, {"metric": "l2"}, kind="example")
    >>> config_str(read(path), "metric", allowed={"l2", "ip"})
    'l2'
    """
    wanted = "a str" if allowed is None else f"one of {sorted(allowed)}"
    value: str = _config_value(file, key, (str,), wanted)
    if allowed is not None and value not in allowed:
        raise _config_error(file, key, value, wanted)
    return value


def config_bool(file: File, key: Key) -> bool:
    """Return True or False from the configuration; parameters and errors as `config_int`.

    Examples
    --------
    >>> import os, tempfile
    >>> from nearly.storage import read, write
    >>> path = os.path.join(tempfile.mkdtemp(), "config.nearly")
    >>> n_bytes = write(path, {}, {"shuffled": True}, kind="example")
    >>> config_bool(read(path), "shuffled")
    True
    """
    value: bool = _config_value(file, key, (bool,), "true or false")
    return value
