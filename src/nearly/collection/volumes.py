"""Where segments live: immutable files in a folder, or the same objects in memory."""

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nearly import storage
from nearly.collection.parts import Opener, Stored
from nearly.collection.rows import Rows
from nearly.errors import FormatError, InputError
from nearly.indexes import Index, restore

__all__ = ["SEGMENTS", "Folder", "Memory", "Volume", "files_in", "names_of", "sync_folder"]

SEGMENTS = "segments"  # the folder of their files

Array = NDArray[Any]
Files = dict[str, Any]
RowsOf = tuple[Mapping[str, Array], Mapping[str, Any]]  # what `rows_arrays` gives
_SEGMENT_FILE = re.compile(r"(\d{8})\.[a-z]+\d*\.nearly")


class Memory:
    """Segments of a collection without a path."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def _name(self) -> str:
        return f"{next(self._numbers):08d}"

    def store(
        self, rows: RowsOf, indexes: Mapping[str, Index], *, draft: bool = False, leaf: int | None = None
    ) -> Stored:
        """Make a segment of rows and an index a field; a draft's indexes are to be replaced by quicker ones."""
        openers = {field: partial(_same, index) for field, index in indexes.items()}
        return Stored(self._name(), Rows(*rows), openers, {"draft": draft, **_of_leaf(leaf)})

    def replaced(
        self, old: Stored, *, rows: RowsOf | None = None, indexes: Mapping[str, Index] | None = None
    ) -> Stored:
        """A segment of the same rows, in the same places, with other indexes or with other columns."""
        openers: dict[str, Opener] = {field: partial(old.index, field) for field in old.fields}
        openers |= {field: partial(_same, index) for field, index in (indexes or {}).items()}
        files = {**old.files, "draft": old.files["draft"] and not indexes}
        return Stored(self._name(), old.rows if rows is None else Rows(*rows), openers, files)

    def remove(self, names: set[str]) -> None:
        """There are no files."""

    def clean(self, keep: set[str]) -> None:
        """There are no files."""


def _same(index: Index) -> Index:
    return index


def _of_leaf(leaf: int | None) -> Files:
    return {} if leaf is None else {"leaf": leaf}


class Folder:
    """Segments as files: written, synced and renamed before the catalogue names them, and never changed.

    Parameters
    ----------
    path : Path
        The folder of segments.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        numbers = [int(found[1]) for name in os.listdir(path) if (found := _SEGMENT_FILE.fullmatch(name))]
        self._numbers = count(max(numbers, default=0) + 1)

    def _number(self) -> str:
        return f"{next(self._numbers):08d}"

    def store(
        self, rows: RowsOf, indexes: Mapping[str, Index], *, draft: bool = False, leaf: int | None = None
    ) -> Stored:
        """Write a segment of rows and an index a field; a draft's indexes are to be replaced by quicker ones."""
        name = self._number()
        fields = {field: self._write_index(name, i, index) for i, (field, index) in enumerate(indexes.items())}
        files = {"rows": self._write_rows(name, rows), "fields": fields, "draft": draft, **_of_leaf(leaf)}
        return self.open(name, files)

    def replaced(
        self, old: Stored, *, rows: RowsOf | None = None, indexes: Mapping[str, Index] | None = None
    ) -> Stored:
        """A segment of the same rows, in the same places, with other files for its indexes or for its columns."""
        name, files = self._number(), dict(old.files)
        if rows is not None:
            files["rows"] = self._write_rows(name, rows)
        if indexes:
            fields = {field: self._write_index(name, i, index) for i, (field, index) in enumerate(indexes.items())}
            files |= {"fields": {**files["fields"], **fields}, "draft": False}
        return self.open(name, files)

    def _write_rows(self, number: str, rows: RowsOf) -> Files:
        name = f"{number}.rows.nearly"
        storage.write(self.path / name, *rows, kind="rows")
        return self._described(name)

    def _write_index(self, number: str, place: int, index: Index) -> Files:
        name = f"{number}.index{place}.nearly"
        index.save(self.path / name)
        return self._described(name)

    def _described(self, name: str) -> Files:
        path = self.path / name
        return {"name": name, "bytes": path.stat().st_size, "checksum": _checksum(path)}

    def open(self, name: str, files: Files) -> Stored:
        """The segment that the catalogue describes; FileNotFoundError where a file is gone."""
        try:
            rows = self._opened(files["rows"])
            fields = {field: self._opened(each) for field, each in files["fields"].items()}
        except (KeyError, TypeError, AttributeError) as problem:
            raise InputError(f"it does not name the files of segment {name!r}") from problem
        openers: dict[str, Opener] = {field: partial(restore, file) for field, file in fields.items()}
        if rows.kind != "rows":
            raise FormatError(f"{rows.path!r} holds {rows.kind!r}, but the rows of a segment are wanted")
        return Stored(name, Rows(rows.arrays, rows.config, rows.path), openers, files, (rows, *fields.values()))

    def _opened(self, described: Files) -> storage.File:
        name = str(described["name"])
        if not _SEGMENT_FILE.fullmatch(name):
            raise InputError(f"{name!r} is no name of a segment's file")
        path = self.path / name
        file = storage.read(path)
        if file.n_bytes != described["bytes"] or _checksum(path) != described["checksum"]:
            raise FormatError(f"{str(path)!r} is not the file that the catalogue names; restore a copy, or let "
                              "nearly.collection.mend set its segment aside")  # fmt: skip
        return file

    def remove(self, names: set[str]) -> None:
        """Remove files of segments that were replaced; whoever has them mapped keeps them."""
        for name in names:
            with suppress(OSError):
                os.unlink(self.path / name)

    def clean(self, keep: set[str]) -> None:
        """Remove the files that the catalogue does not name: of writes that were broken off."""
        for name in os.listdir(self.path):
            ours = _SEGMENT_FILE.fullmatch(name) or (name.startswith(".nearly-") and name.endswith(".tmp"))
            if ours and name not in keep:
                with suppress(OSError):
                    os.unlink(self.path / name)


def _checksum(path: Path) -> str:
    """CRC-32 of the header of a file, which holds those of all its arrays."""
    with open(path, "rb") as file:
        head = file.read(8)
        head += file.read(min(int.from_bytes(head, "little"), 1 << 24))
    return f"{zlib.crc32(head):08x}"


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system knows it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_of(files: Mapping[str, Any]) -> set[str]:
    """The files that a segment consists of."""
    return {files["rows"]["name"], *(each["name"] for each in files["fields"].values())}


Volume = Memory | Folder


def files_in(path: Path | None) -> Iterator[tuple[Path, int]]:
    """All files below a folder, and their sizes; those that go meanwhile are left out."""
    for folder, _, names in os.walk(path) if path is not None else ():
        for name in names:
            with suppress(OSError):
                yield Path(folder) / name, os.path.getsize(Path(folder) / name)
