"""For a collection that damage keeps from being opened: what is damaged is set aside, so that the rest opens."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from nearly.arrays.words import listing
from nearly.collection.catalogue import NAME, Catalogue, Entry
from nearly.collection.loading import part_of
from nearly.collection.locking import LOCK, FolderLock
from nearly.collection.parts import NO_PATCHES
from nearly.collection.records import decode
from nearly.collection.schema import Schema
from nearly.collection.sealed import rows_of
from nearly.collection.volumes import SEGMENTS, Folder, names_of
from nearly.errors import FormatError, InputError

__all__ = ["mend"]

_UNREADABLE = (InputError, FileNotFoundError, KeyError, TypeError, ValueError, AttributeError)


def mend(path: str | os.PathLike[str]) -> list[str]:
    """Let a collection be opened again that `nearly.open` refuses as damaged.

    Segments whose files are missing or damaged, and rows of the catalogue that are not what was written, are taken out.
    Copies of the catalogue as it was, and of the files that it names no more, go into the folder ``lost`` beside it.
    What can be opened is for `Collection.repair`, which mends more.

    Parameters
    ----------
    path : path-like
        The folder of a collection that nobody has open.

    Returns
    -------
    list of str
        What was taken out; empty where nothing was.

    Raises
    ------
    FormatError
        If the catalogue cannot be read at all, or its configuration is damaged: restore a snapshot then.
    StateError
        If somebody has the collection open for writing.

    Examples
    --------
    >>> import tempfile, nearly
    >>> folder = tempfile.mkdtemp() + "/docs"
    >>> nearly.open(folder).close()
    >>> mend(folder)
    []
    """
    folder = Path(os.fsdecode(path)).absolute()
    if not (folder / NAME).exists():
        raise FileNotFoundError(f"there is no collection at {str(folder)!r}")
    lock = FolderLock(folder / LOCK)
    try:
        catalogue = Catalogue(folder / NAME, writable=True)
        try:
            return _mended(catalogue, folder)
        except (*_UNREADABLE, sqlite3.DatabaseError) as problem:
            raise FormatError(f"{str(folder)!r} cannot be mended: {problem}; restore a snapshot") from problem
        finally:
            catalogue.close()
    finally:
        lock.release()


def _mended(catalogue: Catalogue, folder: Path) -> list[str]:
    sql = catalogue.connection
    schema = _schema(sql)
    volume, done = Folder(folder / SEGMENTS), []
    kept: dict[str, set[str]] = {}  # segments that are whole, and their files
    segments = []
    for row, sound in rows_of(sql, "segments", "place"):
        problem = "its row in the catalogue is not what was written" if not sound else None
        try:
            entry = Entry.read(row, NO_PATCHES)
            part_of(entry, volume, {}, schema)
            kept |= {entry.name: names_of(entry.files)} if sound else {}
        except _UNREADABLE as trouble:
            problem = problem or str(trouble)
        if problem is not None:
            segments.append(row[0])
            done.append(f"segment {row[0]} is lost with up to {row[1]} rows: {problem}")
    patches = [row[:2] for row, sound in rows_of(sql, "patches", "segment, row") if not sound or row[0] not in kept]
    if updates := [str(row) for segment, row in patches if segment in kept]:
        done.append(f"{len(updates)} updates of metadata are lost, of rows {listing(updates)} of segments")
    records = list(_broken_records(sql, schema))
    done += [f"record {sequence} of the log is lost: {problem}" for sequence, problem in records]
    if not done:
        return []
    _set_aside(catalogue, folder, set().union(*kept.values()))
    with catalogue.transaction():
        sql.executemany("DELETE FROM segments WHERE name IS ?", [(name,) for name in segments])
        sql.executemany("DELETE FROM patches WHERE segment IS ? AND row IS ?", patches)
        sql.executemany("DELETE FROM log WHERE sequence = ?", [(sequence,) for sequence, _ in records])
    return done


def _schema(sql: sqlite3.Connection) -> Schema:
    configured = {}
    for (name, value), sound in rows_of(sql, "configuration", "name"):
        if not sound:
            raise ValueError(f"{name!r} in its configuration is not what was written")
        configured[name] = json.loads(value)
    return Schema.from_json(configured["schema"])


def _broken_records(sql: sqlite3.Connection, schema: Schema) -> Iterator[tuple[int, str]]:
    for (sequence, kind, body, octets), sound in rows_of(sql, "log", "sequence"):
        problem = None if sound else "it is not what was written"
        if sound:
            try:
                decode(kind, body, octets, schema)
            except InputError as trouble:
                problem = str(trouble)
        if problem is not None:
            yield sequence, problem


def _set_aside(catalogue: Catalogue, folder: Path, kept: set[str]) -> None:
    """Copy what is about to be taken out, and files that would be removed as those of no segment."""
    aside = folder / "lost"
    aside.mkdir(exist_ok=True)
    (aside / NAME).unlink(missing_ok=True)
    catalogue.copy(aside / NAME)
    for file in sorted((folder / SEGMENTS).iterdir()):
        if file.name not in kept:
            shutil.copyfile(file, aside / file.name)
