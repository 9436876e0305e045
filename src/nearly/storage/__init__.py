"""One index, one file: valid safetensors, written whole or not at all, read as a memory mapping.

The layout is that of https://github.com/huggingface/safetensors (README, "Format"): eight bytes with the length of
a JSON header, the header, then the arrays without holes. We promise more, in every version of our format:

- Data begins at a multiple of 4096 (spaces end the header) and every array at a multiple of 64 (arrays ``__pad0``,
  ``__pad1``, … of zeros fill the gaps), so a mapped array has aligned rows and any safetensors reader can open it.
- ``__metadata__`` has two entries. ``nearly`` is a JSON text with format, version, kind, config and the CRC-32 of
  each array. ``crc32`` seals the header: the CRC-32 of all header bytes with its own eight digits set to ``0``.
- Numbers are little-endian. The same arrays and config give the same bytes: keys are sorted, nothing is dated.

CRC-32 (``zlib.crc32``, in every Python) finds accidents, not forgery. So a reader trusts no header: it checks each
number before use, and what it cannot check cheaply, the contents of arrays, stays inside the mapping.
A mapped file must not be changed in place (shrinking it kills the reader with SIGBUS); `write` never does that.
"""

from nearly.storage.layout import FORMAT_VERSION
from nearly.storage.reading import File, read
from nearly.storage.requirements import config_bool, config_float, config_int, config_str, require
from nearly.storage.writing import Blocks, write

__all__ = [
    "FORMAT_VERSION",
    "Blocks",
    "File",
    "config_bool",
    "config_float",
    "config_int",
    "config_str",
    "read",
    "require",
    "write",
]
