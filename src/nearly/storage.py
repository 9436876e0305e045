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

import contextlib
import errno
import json
import math
import mmap
import os
import re
import stat
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nearly.errors import FormatError, InputError, StateError

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

FORMAT_VERSION = 1

Array: TypeAlias = NDArray[Any]
Key: TypeAlias = str | tuple[str, ...]

_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(text)
    for name, text in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "BF16": "<u2",
    }.items()
}  # fmt: skip
_NAMES = {dtype.str[1:]: name for name, dtype in _DTYPES.items() if name != "BF16"}  # by kind and size: any byte order

_DATA_ALIGNMENT = 4096  # a page, and a block of most disks
_ARRAY_ALIGNMENT = 64  # a cache line, and an AVX-512 register
_HEADER_LIMIT = 1 << 20  # chosen by hand: ours take kilobytes, and hostile JSON of this size costs half a second
_DEPTH_LIMIT = 32  # of nested JSON; the interpreter's own limit is adjustable, hence no guard
_INT_LIMITS = (-(2**63), 2**64 - 1)
_DIMENSIONS_LIMIT = 32  # NumPy 1.26 has no more
_SIZE_LIMIT = 2**63 - 1
_CHUNK = 16 << 20  # bytes between two chances for Ctrl-C, and the most that a strided array takes in memory
_SEAL = b'"crc32":"%08x"'  # these bytes occur once: inside a JSON string the quotes would have backslashes
_DAMAGED = "the file is damaged: restore a copy or build it again"


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


class _Entry(NamedTuple):
    """One array of the file; offsets count from the beginning of the data."""

    name: str
    code: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def is_padding(self) -> bool:
        return self.name.startswith("__pad")


# Writing


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
    with _replacing(os.path.realpath(os.fsdecode(path))) as descriptor:
        os.lseek(descriptor, start, os.SEEK_SET)
        for entry in entries:
            if entry.is_padding:
                _write_all(descriptor, memoryview(bytes(entry.end - entry.begin)))
                continue
            for chunk in _chunks(entry.name, arrays[entry.name]):
                checksums[entry.name] = zlib.crc32(chunk, checksums[entry.name])
                _write_all(descriptor, chunk)
        os.lseek(descriptor, 0, os.SEEK_SET)
        _write_all(descriptor, memoryview(_header(entries, config, kind, checksums)))
    return start + (entries[-1].end if entries else 0)


def _check_config(value: Any, where: str, depth: int) -> None:
    """Refuse what JSON would change or lose, and what `read` would refuse."""
    if isinstance(value, dict | list | tuple) and depth >= _DEPTH_LIMIT:  # ours is one more level around config
        raise InputError(f"{where} is nested more than {_DEPTH_LIMIT} deep; flatten the configuration")
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
        if not _INT_LIMITS[0] <= value <= _INT_LIMITS[1]:
            raise InputError(f"{where} is an integer beyond 64 bits; store it as a string")
    elif value is not None and not isinstance(value, str):
        raise InputError(
            f"{where} is a {type(value).__name__}, but None, bool, int, float, str, list, tuple or dict is wanted; "
            "convert it, or store it among the arrays"
        )


def _lay_out(arrays: Mapping[str, Array | Blocks], bfloat16: frozenset[str]) -> list[_Entry]:
    """Give every array its place, in the order of names, with padding in the gaps."""
    if unknown := sorted(bfloat16 - arrays.keys()):
        raise InputError(f"bfloat16 names arrays that are not there: {unknown}")
    entries: list[_Entry] = []
    offset = n_paddings = 0
    for name in arrays:
        _check_name(name)
    for name in sorted(arrays):
        code, shape = _described(name, arrays[name], name in bfloat16)
        if gap := -offset % _ARRAY_ALIGNMENT:
            entries.append(_Entry(f"__pad{n_paddings}", "U8", (gap,), offset, offset + gap))
            offset += gap
            n_paddings += 1
        end = offset + math.prod(shape) * _DTYPES[code].itemsize
        entries.append(_Entry(name, code, shape, offset, end))
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
    code = _NAMES.get(dtype.str[1:])
    if code is None:
        raise InputError(f"array {name!r} is {dtype}, but only float16/32/64, (u)int8/16/32/64 and bool can be stored")
    if is_bfloat16:
        if code != "U16":
            raise InputError(f"array {name!r} is {dtype}, but bfloat16 arrays are passed as uint16 bit patterns")
        code = "BF16"
    shape = tuple(int(length) for length in source.shape)
    if isinstance(source, Blocks) and not shape:
        raise InputError(f"array {name!r} comes in blocks, which need at least one dimension; pass an ndarray")
    if problem := _shape_problem(list(shape), dtype.itemsize):
        raise InputError(f"array {name!r}: {problem}")
    return code, shape


def _header(entries: list[_Entry], config: Mapping[str, Any], kind: str, checksums: Mapping[str, int]) -> bytes:
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
    text += b" " * (-(8 + len(text)) % _DATA_ALIGNMENT)
    if len(text) > _HEADER_LIMIT:
        raise InputError(
            f"the header takes {len(text)} bytes, but at most {_HEADER_LIMIT} are allowed; "
            "move large parts of the configuration into arrays"
        )
    text = text.replace(_SEAL % 0, _SEAL % zlib.crc32(text), 1)
    return len(text).to_bytes(8, "little") + text


def _dump(value: Any) -> str:
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
        buffersize=min(source.size, _CHUNK // source.itemsize),
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


def _write_all(descriptor: int, octets: memoryview) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]


@contextlib.contextmanager
def _replacing(target: str) -> Iterator[int]:
    """Open a temporary file beside `target`; it takes the target's place when the body ends well."""
    mode = _replaceable_mode(target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = os.path.join(os.path.dirname(target), f".nearly-{os.urandom(12).hex()}.tmp")
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                if mode is not None:
                    os.fchmod(descriptor, mode)  # before any content: what was private never becomes public
                yield descriptor
                _sync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(folder)
    finally:
        os.close(folder)


def _replaceable_mode(target: str) -> int | None:
    """Return the permissions of the file to be replaced, None if there is none, or raise."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if not stat.S_ISREG(mode):
        raise InputError(f"{target!r} is a device, a pipe or a socket, which cannot be replaced by a file")
    if not os.access(target, os.W_OK):  # a rename would not ask
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    return stat.S_IMODE(mode) & 0o777


def _sync(descriptor: int) -> None:
    """Put a file or a folder on the disk, past the drive's own cache where the system can say so."""
    import fcntl  # here, not at the top: Windows has none

    full_sync = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full_sync is not None:
        with contextlib.suppress(OSError):  # network file systems do not know it
            fcntl.fcntl(descriptor, full_sync)
            return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot sync a folder say EINVAL
            raise


# Reading


class File:
    """An open file of ours: a configuration and read-only arrays that live in a memory mapping. Made by `read`.

    The mapping lives as long as any of its arrays, also after `close`, and after the file was replaced or deleted.

    Attributes
    ----------
    path : str
        Where the file was.
    kind : str
        What it holds, for example ``"vamana"``.
    version : int
        Format version it was written with, 1 to `FORMAT_VERSION`.
    config : dict
        The configuration as written (tuples have become lists).
    arrays : dict of str to ndarray
        Read-only, C-contiguous, 64-byte aligned; empty after `close`.
    bfloat16 : frozenset of str
        Names of the uint16 arrays whose elements are bfloat16 bit patterns.
    n_bytes : int
        Size of the file.
    """

    __slots__ = (
        "__weakref__", "_checksums", "_entries", "_mapping", "arrays", "bfloat16", "config", "kind", "n_bytes",
        "path", "version",
    )  # fmt: skip

    def __init__(self, path: str, mapping: mmap.mmap, header: "_Header") -> None:
        self.path = path
        self.kind, self.version, self.config = header.kind, header.version, header.config
        self.n_bytes = header.n_bytes
        self.bfloat16 = frozenset(entry.name for entry in header.entries if entry.code == "BF16")
        self.arrays: dict[str, Array] = {}
        self._mapping: mmap.mmap | None = mapping
        self._entries, self._checksums = header.entries, header.checksums
        for entry in self._entries:
            if not entry.is_padding:
                self.arrays[entry.name] = _mapped(mapping, entry)

    def verify(self) -> None:
        """Read everything and compare it with the checksums.

        CRC-32 ran at 1.6 to 3.4 GB/s on one busy core (x86-64, zlib 1.2.13), so one usually waits for the disk.

        Raises
        ------
        FormatError
            If a byte has changed since it was written; names the array.
        StateError
            If the file has been closed.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> path = os.path.join(tempfile.mkdtemp(), "three.nearly")
        >>> n_bytes = write(path, {"x": np.arange(3)}, {}, kind="example")
        >>> read(path).verify()
        """
        if self._mapping is None:
            raise StateError(f"{self.path!r} has been closed; read it again to verify it")
        with memoryview(self._mapping) as octets:
            for entry in self._entries:
                checksum = 0
                for begin in range(entry.begin, entry.end, _CHUNK):
                    checksum = zlib.crc32(octets[begin : min(begin + _CHUNK, entry.end)], checksum)
                expected = zlib.crc32(bytes(*entry.shape)) if entry.is_padding else self._checksums[entry.name]
                if checksum != expected:
                    raise FormatError(
                        f"{self.path!r}: the checksum of array {entry.name!r} is {checksum:08x}, "
                        f"but {expected:08x} was stored; {_DAMAGED}"
                    )

    def close(self) -> None:
        """Let go of the mapping; it ends with the last of its arrays that someone else still holds."""
        self.arrays = {}
        self._mapping = None

    def __enter__(self) -> "File":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._mapping is None else f"{len(self.arrays)} arrays"
        return f"File({self.path!r}, kind={self.kind!r}, version={self.version}, {state}, {self.n_bytes} bytes)"


class _Header(NamedTuple):
    """What a header says, after every check that needs no data."""

    kind: str
    version: int
    config: dict[str, Any]
    checksums: dict[str, int]
    entries: list[_Entry]  # offsets count from the beginning of the file
    n_bytes: int  # of the file


def read(path: str | os.PathLike[str]) -> File:
    """Open a file that `write` made, as a memory mapping.

    Reads and checks the whole header; of the arrays only those of dtype bool (an octet that is neither 0 nor 1 would
    make NumPy read out of bounds). A damaged element elsewhere is found by `File.verify`. What the elements mean,
    row numbers for example, is for the caller to check.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    File
        With ``arrays``, ``config``, ``kind``; may be used in a ``with`` statement.

    Raises
    ------
    FormatError
        If the file is truncated, of another program, newer than this version of nearly, or damaged.
    OSError
        If it cannot be opened: FileNotFoundError, PermissionError, IsADirectoryError.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "ids.nearly")
    >>> n_bytes = write(path, {"ids": np.array([3, 1])}, {"metric": "l2"}, kind="example")
    >>> with read(path) as file:
    ...     print(file.kind, file.config, file.arrays["ids"])
    example {'metric': 'l2'} [3 1]
    """
    name = os.fsdecode(path)
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait for a writer if it is a pipe
    try:
        header = _read_header(descriptor, name)
        try:
            mapping = mmap.mmap(descriptor, header.n_bytes, access=mmap.ACCESS_READ)
        except ValueError:  # it shrank since its size was taken
            raise FormatError("truncated while it was being opened") from None
        return File(name, mapping, header)
    except FormatError as error:
        raise FormatError(f"{name!r}: {error}") from error.__cause__
    finally:
        os.close(descriptor)


def _read_header(descriptor: int, name: str) -> _Header:
    """Read and check the header, and that the file is as long as it says."""
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("not a regular file; an index is read from a file on a disk")
    size = status.st_size
    if size == 0:
        raise FormatError("the file is empty")
    field = os.pread(descriptor, 8, 0)
    length = int.from_bytes(field, "little")
    text = os.pread(descriptor, length, 8) if 2 <= length <= _HEADER_LIMIT else b""
    if len(field) < 8 or not text.startswith(b"{"):
        raise FormatError("not a nearly file; pass a file that save() wrote")
    if size < 8 + length or len(text) < length:
        raise FormatError(f"truncated: at least {8 + length - size} bytes are missing; restore a copy")
    header = _parse(text)
    if size < header.n_bytes:
        raise FormatError(f"truncated: {header.n_bytes - size} of {header.n_bytes} bytes are missing; restore a copy")
    if size > header.n_bytes:
        raise FormatError(f"{size - header.n_bytes} bytes more than its header describes; {_DAMAGED}")
    return header


def _parse(text: bytes) -> _Header:
    """Check a header: ours or foreign, intact or not, new or old, and then every entry."""
    table = _load_json(text, "the header")
    if b"\\u" in text:
        _check_unicode(table)
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("nearly"), str):
        raise FormatError("a safetensors file of another program; pass a file that save() wrote")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"not all metadata of the header are strings; {_DAMAGED}")
    _check_seal(text, metadata)
    ours = _load_json(metadata["nearly"], "our part of the header")
    version = ours.get("version")
    if ours.get("format") != "nearly" or not isinstance(version, int) or version is True or version < 1:
        raise FormatError(f"the header names neither our format nor its version; {_DAMAGED}")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"written in format version {version}, but this nearly reads up to {FORMAT_VERSION}; "
            "upgrade it: pip install -U nearly"
        )
    kind, config, checksums = ours.get("kind"), ours.get("config"), ours.get("checksums")
    if not (isinstance(kind, str) and kind and isinstance(config, dict) and isinstance(checksums, dict)):
        raise FormatError(f"the header has no kind, config or checksums; {_DAMAGED}")
    start = 8 + len(text)
    if start % _DATA_ALIGNMENT:
        raise FormatError(f"data begins at {start}, not at a multiple of {_DATA_ALIGNMENT}; {_DAMAGED}")
    entries = [entry._replace(begin=start + entry.begin, end=start + entry.end) for entry in _checked_entries(table)]
    if checksums.keys() != {entry.name for entry in entries if not entry.is_padding}:
        raise FormatError(f"arrays and checksums have different names; {_DAMAGED}")
    sums = {name: _unhex(checksum) for name, checksum in checksums.items()}
    return _Header(kind, version, config, sums, entries, entries[-1].end if entries else start)


_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: linear on any input
_ONLY_BRACKETS = {code: {"[": "[", "{": "[", "]": "]", "}": "]"}.get(chr(code)) for code in range(128)}
_DIGITS_TO_ZERO = str.maketrans("123456789E", "000000000e", "+")


def _load_json(source: str | bytes, what: str) -> dict[str, Any]:
    """Parse JSON that may be hostile: no deep nesting, no repeated key, no NaN, no number beyond 64 bits."""
    try:
        text = source.decode() if isinstance(source, bytes) else source
        bare = _STRINGS.sub("", text)
        brackets = bare.translate(_ONLY_BRACKETS)
        for _ in range(_DEPTH_LIMIT):  # each round removes the innermost level
            brackets = brackets.replace("[]", "")
        if "[" in brackets:
            raise ValueError(f"nested more than {_DEPTH_LIMIT} deep, or brackets that do not match")
        checks: dict[str, Any] = {}
        digits = bare.translate(_DIGITS_TO_ZERO)
        if "0" * 19 in digits or "e000" in digits:  # perhaps a large number; else the parser needs no slow calls
            checks = {"parse_int": _small_int, "parse_float": _finite}
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, **checks)
    except ValueError as error:
        raise FormatError(f"{what} is not valid JSON ({error}); {_DAMAGED}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object; {_DAMAGED}")
    return value


def _check_unicode(value: Any) -> None:
    """Refuse half surrogate pairs, which only Python lets through as escapes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"the header is not valid Unicode; {_DAMAGED}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _small_int(text: str) -> int:
    if len(text) > 20 or not _INT_LIMITS[0] <= int(text) <= _INT_LIMITS[1]:
        raise ValueError("an integer beyond 64 bits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond the floats")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _check_seal(text: bytes, metadata: dict[str, Any]) -> None:
    seal = _SEAL % _unhex(metadata.get("crc32"))
    if text.count(seal) != 1 or zlib.crc32(text.replace(seal, _SEAL % 0)) != int(metadata["crc32"], 16):
        raise FormatError(f"the checksum of the header is wrong; {_DAMAGED}")


def _unhex(value: Any) -> int:
    if not (isinstance(value, str) and re.fullmatch("[0-9a-f]{8}", value)):
        raise FormatError(f"a checksum is not eight hexadecimal digits; {_DAMAGED}")
    return int(value, 16)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shape_problem(shape: list[Any], itemsize: int) -> str | None:
    """Say what is wrong with a shape, or None."""
    if len(shape) > _DIMENSIONS_LIMIT:
        return f"it has {len(shape)} dimensions, but at most {_DIMENSIONS_LIMIT} are allowed"
    if not all(_is_int(length) and length >= 0 for length in shape):
        return f"its shape is {shape!r}, but integers of at least 0 are wanted"
    if math.prod(length or 1 for length in shape) * itemsize > _SIZE_LIMIT:  # NumPy too counts 0 as 1 here
        return f"its shape {shape!r} is too large for any machine"
    return None


def _checked_entries(table: dict[str, Any]) -> list[_Entry]:
    """Return the arrays of the header in the order of their offsets, which leave no hole and no overlap."""
    entries = sorted((_checked_entry(name, info) for name, info in table.items()), key=lambda entry: entry[-2:])
    offset = 0
    for entry in entries:
        if entry.begin != offset:
            raise FormatError(f"array {entry.name[:80]!r} begins at {entry.begin}, not at {offset}; {_DAMAGED}")
        offset = entry.end
    return entries


def _checked_entry(name: str, info: Any) -> _Entry:
    where = f"array {name[:80]!r}"
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} needs dtype, shape, data_offsets and nothing else; {_DAMAGED}")
    code, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise FormatError(f"{where} has the unknown dtype {repr(code)[:80]}; {_DAMAGED}")
    if not isinstance(shape, list) or _shape_problem(shape, _DTYPES[code].itemsize):
        raise FormatError(f"{where} has the impossible shape {repr(shape)[:80]}; {_DAMAGED}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_int, offsets))):
        raise FormatError(f"{where} has the impossible offsets {repr(offsets)[:80]}; {_DAMAGED}")
    entry = _Entry(name, code, tuple(shape), *offsets)
    if entry.begin < 0 or entry.end - entry.begin != math.prod(shape) * _DTYPES[code].itemsize:
        raise FormatError(f"{where} takes bytes {entry.begin} to {entry.end}, which its shape denies; {_DAMAGED}")
    if entry.is_padding:
        if code != "U8" or len(shape) != 1 or not 0 < shape[0] < _ARRAY_ALIGNMENT:
            raise FormatError(f"{where} is no padding of ours; {_DAMAGED}")
    elif entry.begin % _ARRAY_ALIGNMENT or not name or name.startswith("__"):
        raise FormatError(f"{where} has a name or a place that we never give; {_DAMAGED}")
    return entry


def _mapped(mapping: mmap.mmap, entry: _Entry) -> Array:
    """Return one array of the mapping, read-only."""
    if entry.begin == entry.end:
        array: Array = np.empty(entry.shape, _DTYPES[entry.code])
        array.flags.writeable = False
        return array
    array = np.ndarray(entry.shape, _DTYPES[entry.code], buffer=mapping, offset=entry.begin)
    if entry.code == "BOOL" and array.view(np.uint8).max() > 1:
        raise FormatError(f"array {entry.name!r} is bool, but not all of its octets are 0 or 1; {_DAMAGED}")
    return array


# What the loaders of indexes ask of a file


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
    >>> path = os.path.join(tempfile.mkdtemp(), "rows.nearly")
    >>> n_bytes = write(path, {"rows": np.zeros((5, 2), np.float32)}, {}, kind="example")
    >>> require(read(path), "rows", np.float32, (None, 2)).shape
    (5, 2)
    """
    wanted_name = "bfloat16" if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name
    wanted = f"{wanted_name} of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
    array = file.arrays.get(name)
    if array is None:
        raise FormatError(f"{file.path!r}: array {name!r} is missing, but {wanted} is wanted; {_DAMAGED}")
    came_name = "bfloat16" if name in file.bfloat16 else array.dtype.name
    fits = array.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
    if came_name != wanted_name or not fits:
        raise FormatError(
            f"{file.path!r}: array {name!r} is {came_name} of shape {array.shape}, but {wanted} is wanted; {_DAMAGED}"
        )
    return array


def _config_value(file: File, key: Key, kinds: tuple[type, ...], wanted: str) -> Any:
    value: Any = file.config
    path = (key,) if isinstance(key, str) else key
    for part in path:
        if not isinstance(value, dict) or part not in value:
            raise FormatError(f"{file.path!r}: config has no {'/'.join(path)!r}, but {wanted} is wanted; {_DAMAGED}")
        value = value[part]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _config_error(file, key, value, wanted)
    return value


def _config_error(file: File, key: Key, value: Any, wanted: str) -> FormatError:
    name = key if isinstance(key, str) else "/".join(key)
    return FormatError(f"{file.path!r}: config {name!r} is {repr(value)[:80]}, but {wanted} is wanted; {_DAMAGED}")


def config_int(file: File, key: Key, lo: int = _INT_LIMITS[0], hi: int = _INT_LIMITS[1]) -> int:
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
    >>> path = os.path.join(tempfile.mkdtemp(), "config.nearly")
    >>> n_bytes = write(path, {}, {"shuffled": True}, kind="example")
    >>> config_bool(read(path), "shuffled")
    True
    """
    value: bool = _config_value(file, key, (bool,), "true or false")
    return value
