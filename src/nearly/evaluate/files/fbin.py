"""fbin, f16bin, u8bin, i8bin, ibin: uint32 rows, uint32 columns, then the values, all little-endian.

The layout of big-ann-benchmarks and of cuVS (https://docs.rapids.ai/api/cuvs/stable/cuvs_bench/datasets).
"""

from pathlib import Path
from typing import Any

import numpy as np

from nearly.errors import FormatError, InputError
from nearly.evaluate.files._base import Array, Format, blocks_as, mapped, replacing


def fbin(suffix: str, dtype: str) -> Format:
    """Return the row of the table for little-endian values of ``dtype``."""
    scalar = np.dtype(dtype)
    return Format(
        suffix,
        read=lambda path, _name: _read(path, suffix, scalar),
        write=lambda path, array, _name: _write(path, array, suffix, scalar),
    )


def _read(path: Path, suffix: str, scalar: np.dtype[Any]) -> Array:
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8:
        raise FormatError(f"{path.name} has {len(head)} bytes, but a {suffix} file begins with 8: rows and columns")
    n, dim = np.frombuffer(head, "<u4").tolist()
    if dim < 1:
        raise FormatError(f"{path.name} says {n} rows of {dim} columns, but at least 1 column is wanted")
    return mapped(path, scalar, (n, dim), 8)


def _write(path: Path, array: Array, suffix: str, scalar: np.dtype[Any]) -> None:
    if len(array) >= 2**32:
        raise InputError(f"array has {len(array)} rows, but {suffix} files count them in 32 bits; use .npy")
    with replacing(path) as part, part.open("wb") as file:
        file.write(np.array(array.shape, "<u4").tobytes())
        for block in blocks_as(array, scalar, suffix):
            file.write(block.tobytes())
