"""fvecs, ivecs, bvecs: each row is an int32 number of columns and its values (http://corpus-texmex.irisa.fr/)."""

from pathlib import Path
from typing import Any

import numpy as np

from nearly.errors import FormatError, InputError
from nearly.evaluate.files._base import Array, Format, blocks_as, mapped, replacing


def vecs(suffix: str, dtype: str) -> Format:
    """Return the row of the table for little-endian values of ``dtype``."""
    scalar = np.dtype(dtype)
    return Format(
        suffix,
        read=lambda path, _name: _read(path, suffix, scalar),
        write=lambda path, array, _name: _write(path, array, suffix, scalar),
    )


def _record(scalar: np.dtype[Any], dim: int) -> np.dtype[Any]:
    return np.dtype([("dim", "<i4"), ("values", scalar, (dim,))])


def _read(path: Path, suffix: str, scalar: np.dtype[Any]) -> Array:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
    if len(head) < 4:
        raise FormatError(f"{path.name} has {size} bytes, but a {suffix} file begins with 4: the number of columns")
    dim = int(np.frombuffer(head, "<i4")[0])
    if dim < 1:
        raise FormatError(f"{path.name} says {dim} columns, but at least 1 is wanted; it is damaged or another format")
    width = 4 + dim * scalar.itemsize
    if size % width:
        raise FormatError(
            f"{path.name} has {size} bytes, but a multiple of {width} ({dim} columns) is wanted; "
            "it is truncated, damaged, or another format"
        )
    rows = mapped(path, _record(scalar, dim), (size // width,), 0)
    wrong = rows["dim"] != dim
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FormatError(f"{path.name} row {row} says {rows['dim'][row]} columns, but row 0 says {dim}")
    return np.asarray(rows["values"])


def _write(path: Path, array: Array, suffix: str, scalar: np.dtype[Any]) -> None:
    if not len(array):
        raise InputError(f"array has no rows, but a {suffix} file without rows cannot say how many columns; use .npy")
    with replacing(path) as part, part.open("wb") as file:
        for block in blocks_as(array, scalar, suffix):
            rows = np.empty(len(block), _record(scalar, array.shape[1]))
            rows["dim"], rows["values"] = array.shape[1], block
            file.write(rows.tobytes())
