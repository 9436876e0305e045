"""The truth about a collection: which files are its segments, what is dead in them, and the log of recent writes.

A SQLite database in WAL mode. One connection writes and checkpoints, in the process that holds the lock of the folder,
behind one mutex; SQLite before 3.50.7 and 3.51.3 may damage a database where two connections do. Readers open it
read-only and never checkpoint. Every commit is synced before it returns. What is deleted is overwritten with zeros.
SQLite's pages have no checksums, so every row that matters has one of its own (sealed.py).
"""

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nearly.collection import bits, sealed
from nearly.collection.bits import Bits
from nearly.collection.cells import from_json, to_json
from nearly.collection.layout import Layout
from nearly.collection.locking import LOCK
from nearly.collection.parts import NO_PATCHES, Part, Patches
from nearly.collection.records import Record
from nearly.collection.schema import Schema
from nearly.collection.state import stored
from nearly.errors import FormatError, InputError, StateError

__all__ = ["FORMAT_VERSION", "NAME", "Catalogue", "Entry", "Manifest"]

NAME = "catalogue.sqlite"
FORMAT_VERSION = 1
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)  # SQLite's own messages may quote what is damaged
_CIRCUMSTANCES = {  # that are no damage: codes of sqlite.org/rescode.html
    "SQLITE_PERM", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_FULL",
    "SQLITE_CANTOPEN",
}  # fmt: skip
_LOG_STEP = 1 << 20  # bytes that the file of the log is made longer by
_MANY = 1 << 62  # more records or rows than can ever come
_APPLICATION = 0x6E72_6C79  # "nrly", for `file` and friends
_TABLES = """
CREATE TABLE configuration (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE segments (place INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL,
  applied INTEGER NOT NULL, files TEXT NOT NULL, alive BLOB, checksum INTEGER);
CREATE TABLE patches (segment TEXT NOT NULL, row INTEGER NOT NULL, changes TEXT NOT NULL, checksum INTEGER,
  PRIMARY KEY (segment, row)) WITHOUT ROWID;
CREATE TABLE log (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, vectors BLOB, checksum INTEGER);
CREATE TABLE erased (hash BLOB PRIMARY KEY, salt BLOB NOT NULL, day TEXT NOT NULL) WITHOUT ROWID;
"""
_TRACES = """CREATE TABLE IF NOT EXISTS traces (erased BLOB NOT NULL, piece BLOB NOT NULL, sum INTEGER NOT NULL,
  checksum INTEGER, PRIMARY KEY (erased, piece)) WITHOUT ROWID"""  # of rows of erased; made when the first come


@dataclass
class Entry:
    """A segment as the catalogue names it."""

    name: str
    n: int
    applied: int
    files: dict[str, Any]
    alive: Bits | None
    patches: Patches

    @classmethod
    def read(cls, row: Sequence[Any], patches: Patches) -> "Entry":
        """What a row of the table says; InputError or ValueError where it cannot mean anything."""
        name, rows, applied, files, alive = row
        return cls(name, rows, applied, json.loads(files), _unpacked(alive, rows), patches)


@dataclass
class Manifest:
    """What one transaction saw."""

    schema: Schema
    sequence: int
    next_id: int
    entries: list[Entry]
    log: list[tuple[int, str, str, bytes | None]]
    layout: Layout | None = None


class Catalogue:
    """The database of one collection.

    Parameters
    ----------
    path : Path
        Its file.
    writable : bool
        Whether this is the one connection that writes.
    durable : bool
        Whether a commit waits until it is on the disk. Otherwise a killed process loses nothing, a power cut may lose
        the last commits, whole.
    """

    def __init__(self, path: Path, *, writable: bool, durable: bool = True) -> None:
        self.path, self.writable, self._durable = path, writable, durable
        self._log, self._log_size = f"{os.fspath(path)}-wal", 0  # as it was left here; longer when SQLite needed more
        self._watched = [os.fspath(path), *([os.fspath(path.with_name(LOCK))] if writable else [])]
        self._frozen = False  # read as a file that nobody changes
        self._known: dict[str, tuple[Any, Any]] = {}  # by segment: alive and patches as they are written there
        self._connection: sqlite3.Connection | None = self._connect()
        self._identity = self._files()
        self._version: int | None = None  # of the database, when this connection last read it whole

    def is_blank(self) -> bool:
        """Whether nothing was ever committed here."""
        try:
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()
            (tables,) = self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except _DAMAGE as problem:
            raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem
        return not version and not tables

    def create(self, schema: Schema) -> None:
        """Make the tables of a new collection, in one commit."""
        with self.transaction() as sql:
            for statement in filter(str.strip, _TABLES.split(";")):
                sql.execute(statement)
            sql.execute(f"PRAGMA application_id = {_APPLICATION}")
            sql.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            _configure(sql, schema=schema.to_json(), sequence=0, next_id=0)

    def seal(self) -> None:
        """Give the rows of a catalogue of an early version their checksums."""
        if sealed.has_checksums(self.connection):
            return
        with self.transaction() as sql:
            for table, columns in sealed.SEALED.items():
                rows = list(sealed.rows(sql, table, columns[0]))
                sql.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")
                same = " AND ".join(f"{column} IS ?" for column in columns)
                sql.executemany(
                    f"UPDATE {table} SET checksum = ? WHERE {same}", ((sealed.checksum(row), *row) for row in rows)
                )

    # -- the connection ----------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        mode = "rwc" if self.writable else "ro"
        address = f"file:{quote(str(self.path))}?mode={mode}{'&immutable=1' if self._frozen else ''}"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            if self.writable:
                pragmas = [
                    "journal_mode = WAL", "wal_autocheckpoint = 0", "secure_delete = ON",
                    f"synchronous = {'FULL' if self._durable else 'NORMAL'}",
                ]  # fmt: skip
                if sys.platform == "darwin" and self._durable:
                    pragmas += ["fullfsync = ON", "checkpoint_fullfsync = ON"]
            else:
                pragmas = ["query_only = ON"]
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except _DAMAGE as problem:
            connection.close()
            raise FormatError(f"{str(self.path)!r} is no catalogue, or damaged: {problem}") from problem
        return connection

    def abandon(self) -> None:
        """In a forked child: the parent's connection must not be used, nor closed; one to read with is opened later."""
        _ABANDONED.append(self._connection)
        self._connection, self.writable, self._version = None, False, None
        self._watched, self._identity = self._watched[:1], self._identity[:1]

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        """Close the connection; the writer's leaves one file, all of it synced."""
        if self._connection is None:
            return
        if self.writable:
            with suppress(sqlite3.Error):
                self.checkpoint()
        self._connection.close()

    def checkpoint(self, *, empty: bool = True) -> bool:
        """Move the write-ahead log into the database; False where a reader is still at work on it.

        The file of the log is emptied, or kept to be written over, which a disk does quicker than making it longer.
        """
        busy, *_ = self.connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if empty else 'RESTART'})").fetchone()
        return not busy

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything that the body does, or nothing."""
        self._check_there()
        connection = self.connection
        self._end_broken_off()
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._check_alone()
            yield connection
            connection.execute("COMMIT")
        except BaseException as problem:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if isinstance(problem, sqlite3.OperationalError) and _is_circumstance(problem):
                raise StateError(f"{str(self.path)!r} cannot be written: {problem}; nothing was changed") from problem
            if isinstance(problem, _DAMAGE):
                raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem
            raise

    def _files(self) -> list[tuple[int, int] | None]:
        """What tells this catalogue from another of its name; of the writer's also the lock."""
        return [_identity(path) for path in self._watched]

    def _check_there(self) -> None:
        if self._files() != self._identity:
            raise StateError(f"{str(self.path)!r} or the lock beside it was removed, moved or replaced since it was "
                             "opened; close the collection and open it where it is now")  # fmt: skip

    def _check_alone(self) -> None:
        """Refuse to write where somebody else has written, lock or no lock."""
        if self._version not in (None, self._data_version()):
            raise StateError(f"another process has written into {str(self.path)!r}, although this one has its lock; "
                             "nothing was changed: close the collection and open it again")  # fmt: skip

    def _data_version(self) -> int:
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _freeze(self) -> bool:
        """Read a folder that may not be written to, if nobody is at work in it; False where that cannot be."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if self.writable or os.access(self.path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
            return False
        self.close()
        self._frozen, self._connection = True, None
        return True

    def _end_broken_off(self) -> None:
        """Take back what Ctrl-C left open between two steps; nobody else uses this connection."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    @contextmanager
    def _surely(self) -> Iterator[None]:
        """Commits of the body are on the disk when it ends, whatever was asked for: files are removed after them."""
        if not self._durable:
            self.connection.execute("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            if not self._durable:
                self.connection.execute("PRAGMA synchronous = NORMAL")

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self) -> Manifest:
        """Everything, as one transaction sees it; FormatError where it is damaged or newer."""
        self._check_there()
        if self._frozen:  # SQLite does not look whether the file has changed
            self.close()
            self._frozen, self._connection = False, None
        try:
            return self._read_whole()
        except StateError:
            if not self._freeze():
                raise
        return self._read_whole()

    def _read_whole(self) -> Manifest:
        sql = self.connection
        try:
            self._end_broken_off()
            sql.execute("BEGIN")
            try:
                found = self._read(sql)
                self._version = self._data_version() if self.writable else None
                return found
            finally:
                if sql.in_transaction:
                    sql.execute("COMMIT")
        except FormatError:
            raise
        except sqlite3.OperationalError as problem:
            if _is_circumstance(problem):
                raise StateError(f"{str(self.path)!r} cannot be read ({problem}): where the folder may not be written "
                                 "to, a collection is read along only while its writer has it open, or once it was "
                                 "closed") from problem  # fmt: skip
            raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
            raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem

    def _read(self, sql: sqlite3.Connection) -> Manifest:
        (application,), (version,) = (sql.execute(f"PRAGMA {n}").fetchone() for n in ("application_id", "user_version"))
        if application != _APPLICATION:
            raise FormatError(f"{str(self.path)!r} is no catalogue of nearly; pass the folder of a collection")
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{str(self.path)!r} has format version {version}, but this version of nearly reads up to "
                f"{FORMAT_VERSION}; upgrade nearly"
            )
        configured = {name: json.loads(value) for name, value in sealed.rows(sql, "configuration", "name")}
        if not {"schema", "sequence", "next_id"} <= configured.keys():
            raise FormatError(f"{str(self.path)!r} is damaged: its configuration is not complete")
        schema = Schema.from_json(configured["schema"])
        segments, log = list(sealed.rows(sql, "segments", "place")), list(sealed.rows(sql, "log", "sequence"))
        counts = [configured["sequence"], *(sequence for sequence, *_ in log)]
        counts += [count for _, rows, applied, *_ in segments for count in (rows, applied)]
        if not all(type(count) is int and 0 <= count < _MANY for count in counts):  # SQLite takes any type anywhere
            raise FormatError(f"{str(self.path)!r} is damaged: a count in it is no whole number that can be")
        if type(configured["next_id"]) is not int or not 0 <= configured["next_id"] <= 2**63:
            raise FormatError(f"{str(self.path)!r} is damaged: its next key is none")
        patches = _patches(sql, schema, {name: rows for name, rows, *_ in segments})
        entries = [Entry.read(row, patches.get(row[0], NO_PATCHES)) for row in segments]
        layout = Layout.from_json(configured.get("layout"))
        if layout is not None and not layout.columns <= schema.columns.keys():
            raise FormatError(f"{str(self.path)!r} is damaged: its layout names columns that there are not")
        return Manifest(schema, configured["sequence"], configured["next_id"], entries, log, layout)

    def knows(self, parts: Iterable[Part]) -> None:
        """These parts are as the catalogue names them: `write_segments` writes what differs."""
        self._known = {stored(part).name: (part.alive, part.patches) for part in parts}

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[tuple[int, Record]], schema: Schema | None) -> None:
        """Commit records of the log, and the schema where it changed."""
        with self.transaction() as sql:
            if self._durable:  # here, where this folder is known to be ours still
                self._lengthen_log()
            if schema is not None:
                _configure(sql, schema=schema.to_json())
            _log(sql, records)

    def _lengthen_log(self) -> None:
        """Make the file of the log longer by many commits at once, where SQLite has come to its end.

        By zeros, which are no frames of it. A disk that writes over what is there need not write down as well how long
        a file is now: that is half the time of a commit.
        """
        try:
            size = os.stat(self._log).st_size
            if size > self._log_size:
                log = os.open(self._log, os.O_WRONLY)
                try:
                    size += os.pwrite(log, bytes(_LOG_STEP), size)
                finally:
                    os.close(log)
            self._log_size = size
        except OSError:  # a full disk, say: the commit will tell
            pass

    def write_segments(
        self,
        parts: Sequence[Part],
        *,
        records: Sequence[tuple[int, Record]] = (),
        schema: Schema | None = None,
        flushed: int | None = None,
        next_id: int | None = None,
        **configured: Any,
    ) -> None:
        """Commit which segments there are: new ones, those that are gone, and what changed in the others.

        Parameters
        ----------
        parts : sequence of Part
            All segments, in order.
        records : sequence, optional
            Go into the log with them.
        schema : Schema, optional
            If it changed.
        flushed : int, optional
            The log up to this record has become segments, dead rows and patches, so it is emptied.
        next_id : int, optional
            The next integer key, where rows came without passing through the log.
        **configured
            What else of the configuration changed, as JSON.
        """
        named = {stored(part).name: part for part in parts}
        with self._surely(), self.transaction() as sql:
            for name in self._known.keys() - named.keys():
                sql.execute("DELETE FROM segments WHERE name = ?", (name,))
                sql.execute("DELETE FROM patches WHERE segment = ?", (name,))
            for name, part in named.items():
                self._write_segment(sql, name, part, flushed)
            _log(sql, records)
            _configure(sql, **({} if schema is None else {"schema": schema.to_json()}))
            if flushed is not None:
                sql.execute("DELETE FROM log")
                _configure(sql, sequence=flushed)
            _configure(sql, **({} if next_id is None else {"next_id": next_id}), **configured)
        before = self._known
        self.knows(parts)
        if flushed is None:  # of those that were there before nothing was written
            self._known.update({name: before[name] for name in before.keys() & named.keys()})

    def _write_segment(self, sql: sqlite3.Connection, name: str, part: Part, flushed: int | None) -> None:
        before = self._known.get(name)
        alive = None if part.n_alive == part.n else _packed(part.alive)
        if before is None:
            applied = part.applied if flushed is None else flushed
            sealed.insert(sql, "segments", [(name, part.n, applied, json.dumps(stored(part).files), alive)])
            _write_patches(sql, name, NO_PATCHES, part.patches)
        elif flushed is not None:
            sql.execute("UPDATE segments SET applied = ? WHERE name = ?", (flushed, name))
            if before[0] is not part.alive:
                sql.execute("UPDATE segments SET alive = ? WHERE name = ?", (alive, name))
            columns = ", ".join(sealed.SEALED["segments"])
            row = sql.execute(f"SELECT {columns} FROM segments WHERE name = ?", (name,)).fetchone()
            if row is None:
                raise FormatError(f"{self.path} is damaged: segment {name}, which it named when it was opened, is not "
                                  "found in it any more; see nearly.collection.mend")  # fmt: skip
            sql.execute("UPDATE segments SET checksum = ? WHERE name = ?", (sealed.checksum(row), name))
            _write_patches(sql, name, before[1], part.patches)

    def erased(self) -> list[tuple[bytes, bytes, str]]:
        """Hash, salt and day of every key that was erased."""
        return list(self.connection.execute("SELECT hash, salt, day FROM erased"))

    def record_erased(
        self, records: Sequence[tuple[bytes, bytes, str]], traces: Sequence[tuple[bytes, bytes, int]], key: bytes
    ) -> None:  # fmt: skip
        """Remember keys whose rows are gone, by hash, salt and day.

        Parameters
        ----------
        records : sequence of (bytes, bytes, str)
        traces : sequence of (bytes, bytes, int)
            For pieces of what was in the rows: the hash of the key, and the hash and the sum of the piece.
        key : bytes
            Of the hashes of all pieces.
        """
        with self.transaction() as sql:
            sql.executemany("INSERT OR REPLACE INTO erased VALUES (?, ?, ?)", records)
            if traces:
                sql.execute(_TRACES)
                sealed.insert(sql, "traces", traces, replace=True)
                _configure(sql, traces=key.hex())

    def trace_key(self) -> bytes | None:
        """The key of the hashes of pieces; None before the first."""
        held = self.connection.execute("SELECT value FROM configuration WHERE name = 'traces'").fetchone()
        try:
            return None if held is None else bytes.fromhex(json.loads(held[0]))
        except (TypeError, ValueError) as problem:
            raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem

    def traces(self, erased: Iterable[bytes]) -> list[tuple[bytes, bytes, int]]:
        """What `record_erased` was told of keys with these hashes; FormatError where it is damaged."""
        sql, columns = self.connection, sealed.COLUMNS["traces"]
        if not sql.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'traces'").fetchone()[0]:
            return []  # they were erased by an early version
        question = f"SELECT {', '.join(columns)}, checksum FROM traces WHERE erased = ?"
        try:
            rows = [row for each in erased for row in sql.execute(question, (each,))]
        except _DAMAGE as problem:
            raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem
        if any(sealed.checksum(row[:-1]) != row[-1] for row in rows):
            raise FormatError(f"{str(self.path)!r} is damaged: a row of traces is not what was written")
        return [row[:-1] for row in rows]

    def log(self) -> list[tuple[int, str, str, bytes | None]]:
        """The records that no segment has yet."""
        return list(sealed.rows(self.connection, "log", "sequence"))

    def shrink(self) -> None:
        """Write all pages anew and give back those that are free, so that nothing is left in any of them."""
        self.connection.execute("VACUUM")
        if not self.checkpoint():
            raise StateError("another process reads the catalogue all the time, so that its log could not be emptied; "
                             "call erase() again once it is done")  # fmt: skip

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Close the connection while files are read by other means, which would end its locks."""
        self.close()
        self._connection = None
        try:
            yield
        finally:
            self._connection = self._connect()
            self._version = self._data_version() if self.writable else None  # each connection counts for itself

    def copy(self, path: Path) -> list[dict[str, Any]]:
        """A copy of the database in another file, of one moment; returns what it says of the files of segments."""
        with closing(sqlite3.connect(path)) as target:
            self.connection.backup(target)
            files = [json.loads(files) for (files,) in target.execute("SELECT files FROM segments")]
            target.execute("PRAGMA journal_mode = WAL")
            return files

    def check(self) -> None:
        """SQLite's own check of all pages; FormatError where it finds something."""
        try:
            (found,) = self.connection.execute("PRAGMA integrity_check").fetchone()
        except _DAMAGE as problem:
            raise FormatError(f"{str(self.path)!r} is damaged: {problem}") from problem
        if found != "ok":
            raise FormatError(f"{str(self.path)!r} is damaged: {found}")


_ABANDONED: list[sqlite3.Connection | None] = []  # of a parent process; closing them would touch its files


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_circumstance(problem: sqlite3.OperationalError) -> bool:
    return "_".join(str(getattr(problem, "sqlite_errorname", "")).split("_")[:2]) in _CIRCUMSTANCES


def _configure(sql: sqlite3.Connection, **values: Any) -> None:
    sealed.insert(sql, "configuration", [(name, json.dumps(value)) for name, value in values.items()], replace=True)


def _log(sql: sqlite3.Connection, records: Sequence[tuple[int, Record]]) -> None:
    sealed.insert(sql, "log", ((sequence, *record.encode()) for sequence, record in records))


def _patches(sql: sqlite3.Connection, schema: Schema, rows: Mapping[str, int]) -> dict[str, dict[int, Any]]:
    """Patches of each segment, by row."""
    made: dict[str, dict[int, Any]] = {}
    for segment, row, changes in sealed.rows(sql, "patches", "segment, row"):
        if type(row) is not int or not 0 <= row < rows[segment]:
            raise ValueError(f"row {row!r} of segment {segment!r} was updated, and there is none")
        made.setdefault(segment, {})[row] = {
            name: from_json(schema.columns[name], value) for name, value in json.loads(changes).items()
        }
    return made


def _write_patches(sql: sqlite3.Connection, name: str, before: Patches, after: Patches) -> None:
    if before is after:
        return
    gone = [(name, row) for row in before.keys() - after.keys()]
    sql.executemany("DELETE FROM patches WHERE segment = ? AND row = ?", gone)
    changed = [(name, row, _changes(new)) for row, new in after.items() if before.get(row) is not new]
    sealed.insert(sql, "patches", changed, replace=True)


def _changes(changes: Mapping[str, Any]) -> str:
    return json.dumps({name: to_json(value) for name, value in changes.items()}, separators=(",", ":"))


def _packed(alive: Bits) -> bytes:
    return zlib.compress(alive.astype("<u8").tobytes(), 1)


def _unpacked(blob: bytes | None, n: int) -> Bits | None:
    if blob is None:
        return None
    try:
        made = np.frombuffer(zlib.decompress(blob), "<u8").astype(np.uint64)
    except (zlib.error, ValueError) as problem:
        raise InputError(f"it does not say which rows are alive ({problem})") from problem
    if len(made) != (n + 63) // 64 or (n and bits.count(made & ~bits.all_set(n))):
        raise InputError("rows that there are not are called alive")
    return made
