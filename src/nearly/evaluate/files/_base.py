"""What all kinds of files share: the row of the table, mapping with exact sizes, writing whole or not at all."""

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.errors import FormatError, InputError

Array = NDArray[Any]
Name = str | Sequence[str]


@dataclass(frozen=True)
class Format:
    """One kind of file: how to read it, how to write it, and whether arrays in it have names."""

    suffix: str
    read: Callable[[Path, Any], Array]
    write: Callable[[Path, Array, Any], None]
    named: bool = False


def extra(module: str, path: Path) -> Any:
    """Import a library of the extra ``data``, when it is first needed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{path.name} needs {module.partition(".")[0]}, which is not installed; pip install "nearly[data]"',
            name=module,
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; that file takes the place of ``path`` if all goes well."""
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def n_bytes(dtype: np.dtype[Any], shape: Sequence[int]) -> int:
    """Size of an array as an exact integer: a hostile shape must not overflow."""
    size = dtype.itemsize
    for length in shape:
        size *= int(length)
    return size


def mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
    """Map an array that must fill the file from ``offset`` to its end, after comparing the sizes."""
    wanted = offset + n_bytes(dtype, shape)
    size = path.stat().st_size
    if size != wanted:
        raise FormatError(
            f"{path.name} has {size} bytes, but its header ({' x '.join(map(str, shape))} of {dtype}) wants {wanted}; "
            f"it is {'truncated' if size < wanted else 'too long'}, damaged, or another format"
        )
    if 0 in shape:
        try:
            return np.empty(shape, dtype)
        except ValueError as error:  # no rows of more columns than memory has bytes
            raise FormatError(f"{path.name} has shape {shape}: {error}") from None
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape))


def native(array: Array) -> Array:
    """The same values in the byte order of this machine."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def numpy_only(array: Array) -> Array:
    """Refuse dtypes that NumPy itself cannot write, such as bfloat16."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"array has dtype {array.dtype}, but a dtype of NumPy is wanted; pass array.astype('float32')")
    return array


def blocks_as(array: Array, dtype: np.dtype[Any], suffix: str) -> Iterator[Array]:
    """Return ``array`` in blocks of rows as ``dtype``; refused beforehand if any value would change."""
    step = max(1, (8 << 20) // (8 * array.shape[1]))

    def cast(start: int) -> Array:
        with np.errstate(all="ignore"):
            return array[start : start + step].astype(dtype)

    for start in range(0, len(array), step):
        if array.dtype == dtype:
            break
        rows, there = array[start : start + step], cast(start)
        with np.errstate(all="ignore"):
            back = there.astype(array.dtype)
        same = ((there == rows) & (back == rows)) | ((there != there) & (rows != rows))  # NaN stays NaN
        if not same.all():
            raise InputError(
                f"array row {start + int(np.argmin(same.all(axis=1)))} ({array.dtype}) holds a value that "
                f"{suffix} files ({dtype.name}) cannot hold; pass array.astype('{dtype.name}') if the change is meant"
            )
    return (cast(start) for start in range(0, len(array), step))


def one_name(kind: str, path: Path, names: Sequence[str], name: object, default: str | None = None) -> str:
    """The name that is meant, out of those that a file has."""
    if name is None:
        name = default if default in names else names[0] if len(names) == 1 else None
    if not isinstance(name, str) or name not in names:
        came = "no name was given" if name is None else f"name is {name!r}"
        raise InputError(f"{came}, but {path.name} has {kind} {', '.join(sorted(names)) or 'of no usable kind'}")
    return name
