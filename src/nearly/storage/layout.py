"""What the bytes of a file are: names of dtypes, alignments, limits, the place of an array."""

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAY_ALIGNMENT",
    "CHUNK",
    "DAMAGED",
    "DATA_ALIGNMENT",
    "DEPTH_LIMIT",
    "DTYPES",
    "FORMAT_VERSION",
    "HEADER_LIMIT",
    "INT_LIMITS",
    "NAMES",
    "SEAL",
    "Array",
    "Entry",
    "is_int",
    "shape_problem",
]

FORMAT_VERSION = 1

Array: TypeAlias = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(text)
    for name, text in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "BF16": "<u2",
    }.items()
}  # fmt: skip
NAMES = {dtype.str[1:]: name for name, dtype in DTYPES.items() if name != "BF16"}  # by kind and size: any byte order

DATA_ALIGNMENT = 4096  # a page, and a block of most disks
ARRAY_ALIGNMENT = 64  # a cache line, and an AVX-512 register
HEADER_LIMIT = 1 << 20  # chosen by hand: ours take kilobytes, and hostile JSON of this size costs half a second
DEPTH_LIMIT = 32  # of nested JSON; the interpreter's own limit is adjustable, hence no guard
INT_LIMITS = (-(2**63), 2**64 - 1)
_DIMENSIONS_LIMIT = 32  # NumPy 1.26 has no more
_SIZE_LIMIT = 2**63 - 1
CHUNK = 16 << 20  # bytes between two chances for Ctrl-C, and the most that a strided array takes in memory
SEAL = b'"crc32":"%08x"'  # these bytes occur once: inside a JSON string the quotes would have backslashes
DAMAGED = "the file is damaged: restore a copy or build it again"


class Entry(NamedTuple):
    """One array of the file; offsets count from the beginning of the data."""

    name: str
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def is_padding(self) -> bool:
        """Whether it only fills a gap."""
        return self.name.startswith("__pad")


def is_int(value: Any) -> bool:
    """Whether a value is an integer and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def shape_problem(shape: list[Any], itemsize: int) -> str | None:
    """Say what is wrong with a shape, or None."""
    if len(shape) > _DIMENSIONS_LIMIT:
        return f"it has {len(shape)} dimensions, but at most {_DIMENSIONS_LIMIT} are allowed"
    if not all(is_int(length) and length >= 0 for length in shape):
        return f"its shape is {shape!r}, but integers of at least 0 are wanted"
    if math.prod(length or 1 for length in shape) * itemsize > _SIZE_LIMIT:  # NumPy too counts 0 as 1 here
        return f"its shape {shape!r} is too large for any machine"
    return None
