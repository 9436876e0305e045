"""Reading a file as a memory mapping."""

import errno
import mmap
import os
import stat
import zlib
from collections.abc import Collection
from types import TracebackType

import numpy as np

from nearly.errors import FormatError, StateError
from nearly.storage.layout import ARRAY_ALIGNMENT, CHUNK, DAMAGED, DTYPES, HEADER_LIMIT, Array, Entry
from nearly.storage.parsing import Header, parse

__all__ = ["File", "read"]


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
        "__weakref__", "_checksums", "_entries", "_mapping", "_of", "arrays", "bfloat16", "config", "kind", "n_bytes",
        "path", "version",
    )  # fmt: skip

    def __init__(self, path: str, mapping: mmap.mmap, header: Header, of: tuple[int, int]) -> None:
        self.path = path
        self._of = of  # device and number of the file
        self.kind, self.version, self.config = header.kind, header.version, header.config
        self.n_bytes = header.n_bytes
        self.bfloat16 = frozenset(entry.name for entry in header.entries if entry.code == "BF16")
        self.arrays: dict[str, Array] = {}
        self._mapping: mmap.mmap | None = mapping
        self._entries, self._checksums = header.entries, header.checksums
        for entry in self._entries:
            if not entry.is_padding:
                self.arrays[entry.name] = _mapped(mapping, entry)

    def verify(self, only: Collection[str] | None = None) -> None:
        """Read everything, or the arrays of some names, and compare it with the checksums.

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
        >>> from nearly.storage import write
        >>> import numpy as np
        >>> path = os.path.join(tempfile.mkdtemp(), "three.nearly")
        >>> n_bytes = write(path, {"x": np.arange(3)}, {}, kind="example")
        >>> read(path).verify()
        """
        if self._mapping is None:
            raise StateError(f"{self.path!r} has been closed; read it again to verify it")
        self._check_length()
        with memoryview(self._mapping) as octets:
            for entry in self._entries:
                if only is not None and entry.name not in only:
                    continue
                checksum = 0
                for begin in range(entry.begin, entry.end, CHUNK):
                    checksum = zlib.crc32(octets[begin : min(begin + CHUNK, entry.end)], checksum)
                expected = zlib.crc32(bytes(*entry.shape)) if entry.is_padding else self._checksums[entry.name]
                if checksum != expected:
                    raise FormatError(
                        f"{self.path!r}: the checksum of array {entry.name!r} is {checksum:08x}, "
                        f"but {expected:08x} was stored; {DAMAGED}"
                    )

    def reopen(self, name: str) -> tuple[int, int]:
        """Open the file once more, to read one of its arrays by position and not by mapping.

        Returns
        -------
        descriptor : int
            The caller's to close.
        offset : int
            Where the array begins.

        Raises
        ------
        FormatError
            If another file stands there by now, or a shorter one.
        """
        entry = next(entry for entry in self._entries if entry.name == name)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != self._of or status.st_size < self.n_bytes:
            os.close(descriptor)
            raise FormatError(f"{self.path!r} was replaced or truncated while it was being opened; load it again")
        return descriptor, entry.begin

    def hold(self, *but: str) -> None:
        """Copy arrays into memory, all but some: what happens to the file later does not matter to them then."""
        for entry in self._entries:
            if not entry.is_padding and entry.name not in but and entry.end > entry.begin:
                self.arrays[entry.name] = _copied(self.arrays[entry.name])

    def close(self) -> None:
        """Let go of the mapping; it ends with the last of its arrays that someone else still holds."""
        self.arrays = {}
        self._mapping = None

    def _check_length(self) -> None:
        """Refuse to read a file that somebody shortened: its mapping would end the process."""
        try:
            status = os.stat(self.path)
        except OSError:
            return  # no name leads to it any more, so nobody shortens it either
        if (status.st_dev, status.st_ino) == self._of and status.st_size < self.n_bytes:
            raise FormatError(f"{self.path!r} was truncated from {self.n_bytes} to {status.st_size} bytes; restore it")

    def __enter__(self) -> "File":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._mapping is None else f"{len(self.arrays)} arrays"
        return f"File({self.path!r}, kind={self.kind!r}, version={self.version}, {state}, {self.n_bytes} bytes)"


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
    >>> from nearly.storage import write
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
        status = os.fstat(descriptor)
        return File(name, mapping, header, (status.st_dev, status.st_ino))
    except FormatError as error:
        raise FormatError(f"{name!r}: {error}") from error.__cause__
    finally:
        os.close(descriptor)


def _read_header(descriptor: int, name: str) -> Header:
    """Read and check the header, and that the file is as long as it says."""
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "an index is a file, and nearly.open opens a collection's folder", name)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("not a regular file; an index is read from a file on a disk")
    size = status.st_size
    if size == 0:
        raise FormatError("the file is empty")
    field = os.pread(descriptor, 8, 0)
    length = int.from_bytes(field, "little")
    text = os.pread(descriptor, length, 8) if 2 <= length <= HEADER_LIMIT else b""
    if len(field) < 8 or not text.startswith(b"{"):
        raise FormatError("not a nearly file; pass a file that save() wrote")
    if size < 8 + length or len(text) < length:
        raise FormatError(f"truncated: at least {8 + length - size} bytes are missing; restore a copy")
    header = parse(text)
    if size < header.n_bytes:
        raise FormatError(f"truncated: {header.n_bytes - size} of {header.n_bytes} bytes are missing; restore a copy")
    if size > header.n_bytes:
        raise FormatError(f"{size - header.n_bytes} bytes more than its header describes; {DAMAGED}")
    return header


def _copied(array: Array) -> Array:
    """A read-only copy that begins as arrays of a file do: at a cache line."""
    octets = np.empty(array.nbytes + ARRAY_ALIGNMENT, np.uint8)
    octets = octets[-octets.ctypes.data % ARRAY_ALIGNMENT :][: array.nbytes]
    copy: Array = octets.view(array.dtype).reshape(array.shape)
    copy[...] = array
    copy.flags.writeable = False
    return copy


def _mapped(mapping: mmap.mmap, entry: Entry) -> Array:
    """Return one array of the mapping, read-only."""
    if entry.begin == entry.end:
        array: Array = np.empty(entry.shape, DTYPES[entry.code])
        array.flags.writeable = False
        return array
    array = np.ndarray(entry.shape, DTYPES[entry.code], buffer=mapping, offset=entry.begin)
    if entry.code == "BOOL" and array.view(np.uint8).max() > 1:
        raise FormatError(f"array {entry.name!r} is bool, but not all of its octets are 0 or 1; {DAMAGED}")
    return array
