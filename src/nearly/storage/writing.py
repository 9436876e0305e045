"""Writing a file: checks, layout, header and bytes."""

import math
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nearly.errors import InputError
from nearly.storage.layout import (
    ARRAY_ALIGNMENT,
    CHUNK,
    DATA_ALIGNMENT,
    DEPTH_LIMIT,
    DTYPES,
    FORMAT_VERSION,
    HEADER_LIMIT,
    INT_LIMITS,
    NAMES,
    SEAL,
    Array,
    Entry,
    shape_problem,
)
from nearly.storage.replacing import replacing, write_all

__all__ = ["Blocks", "write"]


@dataclass(frozen=True)
class Blocks:
    """An array to be written that comes in blocks of rows, so that it never stands in memory whole.

    Parameters
    ----------
    shape : sequence of int
        Shape of the whole array, at least one dimension.
    dtype : dtype
        Its dtype; every block has it too.
    blocks : iterable of ndarray
        Blocks of shape ``(any, *shape[1:])``, in order, ``shape[0]`` rows in all. Consumed once, while writing.

    Examples
    --------
    >>> import os, tempfile
    >>> from nearly.storage import read
    >>> import numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "squares.nearly")
    >>> rows = (np.full((1, 2), i * i, np.int32) for i in range(3))
    >>> n_bytes = write(path, {"squares": Blocks((3, 2), np.int32, rows)}, {}, kind="example")
    >>> read(path).arrays["squares"].tolist()
    [[0, 0], [1, 1], [4, 4]]
    """

    shape: Sequence[int]
    dtype: DTypeLike
    blocks: Iterable[Array]


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array | Blocks],
    config: Mapping[str, Any],
    *,
    kind: str,
    bfloat16: Collection[str] = (),
) -> int:
    """Write arrays and a configuration to one file, whole or not at all.

    The bytes go to a temporary file (``.nearly-*.tmp``) in the same folder, which is synced to the disk and renamed;
    then the folder is synced. On an error, Ctrl-C or a full disk the temporary file is removed and an older file at
    `path` is as it was (only if the last step fails, syncing the folder, the new file already stands there).
    Readers that have the older file mapped keep it. A symbolic link stays, its target is replaced; the permissions
    of a replaced file stay, those of a new one follow the umask.

    Parameters
    ----------
    path : path-like
        The file to make or to replace. Its folder must exist.
    arrays : mapping of str to ndarray or Blocks
        Float16/32/64, (u)int8/16/32/64 or bool; any shape up to 32 dimensions, any strides, any byte order.
        Written in the order of their names, nothing is copied whole. Names must not begin with two underscores.
    config : mapping of str to JSON values
        None, bool, int (64-bit), finite float, str, and lists, tuples and dicts of these; a tuple returns as a list.
    kind : str
        What the file holds, for example ``"vamana"``.
    bfloat16 : collection of str, optional
        Names of uint16 arrays whose elements are bfloat16 bit patterns; the file says BF16.

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    InputError
        If a name, dtype, shape, config value or block is not one of those above. Nothing is replaced.
    OSError
        If the folder is missing, the disk is full, the old file is a folder or write-protected, and so on.

    Examples
    --------
    >>> import os, tempfile
    >>> from nearly.storage import read
    >>> import numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "line.nearly")
    >>> write(path, {"vectors": np.zeros((3, 2), np.float32)}, {"metric": "l2"}, kind="example")
    4120
    >>> read(path).config
    {'metric': 'l2'}
    """
    if not (isinstance(kind, str) and kind):
        raise InputError(f"kind is {kind!r}, but a non-empty str is wanted, such as 'flat'")
    config = dict(config)
    _check_config(config, "config", 1)
    entries = _lay_out(arrays, frozenset(bfloat16))
    checksums = {entry.name: 0 for entry in entries if not entry.is_padding}
    start = len(_header(entries, config, kind, checksums))  # checksums have a fixed width, so the length is final
    with replacing(os.path.realpath(os.fsdecode(path))) as descriptor:
        os.lseek(descriptor, start, os.SEEK_SET)
        for entry in entries:
            if entry.is_padding:
                write_all(descriptor, memoryview(bytes(entry.end - entry.begin)))
                continue
            for chunk in _chunks(entry.name, arrays[entry.name]):
                checksums[entry.name] = zlib.crc32(chunk, checksums[entry.name])
                write_all(descriptor, chunk)
        os.lseek(descriptor, 0, os.SEEK_SET)
        write_all(descriptor, memoryview(_header(entries, config, kind, checksums)))
    return start + (entries[-1].end if entries else 0)


def _check_config(value: Any, where: str, depth: int) -> None:
    """Refuse what JSON would change or lose, and what `read` would refuse."""
    if isinstance(value, dict | list | tuple) and depth >= DEPTH_LIMIT:  # ours is one more level around config
        raise InputError(f"{where} is nested more than {DEPTH_LIMIT} deep; flatten the configuration")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where} has the key {key!r}, but every key must be a str")
            _check_config(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_config(item, f"{where}[{i}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where} is {value}, but JSON has finite numbers only; use None or a string")
    elif isinstance(value, int):
        if not INT_LIMITS[0] <= value <= INT_LIMITS[1]:
            raise InputError(f"{where} is an integer beyond 64 bits; store it as a string")
    elif value is not None and not isinstance(value, str):
        raise InputError(
            f"{where} is a {type(value).__name__}, but None, bool, int, float, str, list, tuple or dict is wanted; "
            "convert it, or store it among the arrays"
        )


def _lay_out(arrays: Mapping[str, Array | Blocks], bfloat16: frozenset[str]) -> list[Entry]:
    """Give every array its place, in the order of names, with padding in the gaps."""
    if unknown := sorted(bfloat16 - arrays.keys()):
        raise InputError(f"bfloat16 names arrays that are not there: {unknown}")
    entries: list[Entry] = []
    offset = n_paddings = 0
    for name in arrays:
        _check_name(name)
    for name in sorted(arrays):
        code, shape = _described(name, arrays[name], name in bfloat16)
        if gap := -offset % ARRAY_ALIGNMENT:
            entries.append(Entry(f"__pad{n_paddings}", "U8", (gap,), offset, offset + gap))
            offset += gap
            n_paddings += 1
        end = offset + math.prod(shape) * DTYPES[code].itemsize
        entries.append(Entry(name, code, shape, offset, end))
        offset = end
    return entries


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or name.startswith("__"):
        raise InputError(f"array name {name!r} must be a str that is not empty and does not begin with two underscores")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"array name {name!r} is not valid Unicode; rename the array") from None


def _described(name: str, source: Array | Blocks, is_bfloat16: bool) -> tuple[str, tuple[int, ...]]:
    """Return the dtype code and the shape of a source, or say why it cannot be written."""
    if not isinstance(source, np.ndarray | Blocks):
        raise InputError(f"array {name!r} is a {type(source).__name__}, but an ndarray or Blocks is wanted")
    dtype = np.dtype(source.dtype)
    code = NAMES.get(dtype.str[1:])
    if code is None:
        raise InputError(f"array {name!r} is {dtype}, but only float16/32/64, (u)int8/16/32/64 and bool can be stored")
    if is_bfloat16:
        if code != "U16":
            raise InputError(f"array {name!r} is {dtype}, but bfloat16 arrays are passed as uint16 bit patterns")
        code = "BF16"
    shape = tuple(int(length) for length in source.shape)
    if isinstance(source, Blocks) and not shape:
        raise InputError(f"array {name!r} comes in blocks, which need at least one dimension; pass an ndarray")
    if problem := shape_problem(list(shape), dtype.itemsize):
        raise InputError(f"array {name!r}: {problem}")
    return code, shape


def _header(entries: list[Entry], config: Mapping[str, Any], kind: str, checksums: Mapping[str, int]) -> bytes:
    """Return the length field and the sealed header, a multiple of 4096 bytes in all."""
    ours = {
        "format": "nearly",
        "version": FORMAT_VERSION,
        "kind": kind,
        "config": config,
        "checksums": {name: f"{checksum:08x}" for name, checksum in checksums.items()},
    }
    table: dict[str, Any] = {
        entry.name: {"dtype": entry.code, "shape": entry.shape, "data_offsets": (entry.begin, entry.end)}
        for entry in entries
    }
    table["__metadata__"] = {"crc32": "00000000", "nearly": _dump(ours)}
    text = _dump(table).encode("ascii")
    text += b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise InputError(
            f"the header takes {len(text)} bytes, but at most {HEADER_LIMIT} are allowed; "
            "move large parts of the configuration into arrays"
        )
    text = text.replace(SEAL % 0, SEAL % zlib.crc32(text), 1)
    return len(text).to_bytes(8, "little") + text


def _dump(value: Any) -> str:
    import json  # late: only files need it

    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _chunks(name: str, source: Array | Blocks) -> Iterator[memoryview]:
    """Yield the little-endian bytes of a source in C order, a few megabytes at a time."""
    if isinstance(source, Blocks):
        for block in _checked_blocks(name, source):
            yield from _chunks(name, block)
        return
    if source.size == 0:
        return
    walk = np.nditer(
        source,
        flags=["external_loop", "buffered"],
        op_flags=["readonly"],
        op_dtypes=source.dtype.newbyteorder("<"),
        order="C",
        casting="equiv",
        buffersize=min(source.size, CHUNK // source.itemsize),
    )
    with walk:
        for chunk in walk:
            octets = np.ascontiguousarray(chunk).view(np.uint8)
            yield ((octets != 0).view(np.uint8) if source.dtype == np.bool_ else octets).data


def _checked_blocks(name: str, source: Blocks) -> Iterator[Array]:
    dtype, shape, n_rows = np.dtype(source.dtype), tuple(source.shape), 0
    for block in source.blocks:
        if not isinstance(block, np.ndarray) or block.ndim == 0:
            raise InputError(f"array {name!r}: a block is a {type(block).__name__}, but an ndarray of rows is wanted")
        if block.dtype != dtype or block.shape[1:] != shape[1:]:
            raise InputError(
                f"array {name!r}: a block is {block.dtype} of shape {block.shape}, "
                f"but {dtype} of shape (any, {', '.join(map(str, shape[1:]))}) was promised"
            )
        n_rows += len(block)
        if n_rows > shape[0]:
            break
        yield block
    if n_rows != shape[0]:
        raise InputError(f"array {name!r}: {shape[0]} rows were promised, but the blocks hold {n_rows} or more")
