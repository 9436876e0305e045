"""What shall be gone: erase, and the proof of it.

Before rows are erased, traces of their vectors, documents and texts are recorded (traces.py), in each form in which a
file may hold them. The proof looks for these and for the texts of the keys in every file of the folder, wherever they
may begin. What is found and is also in another row proves nothing, as that row may hold it; it is counted as shared.
"""

import base64
import datetime as dt
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nearly.arrays import Vectors
from nearly.arrays.words import listing
from nearly.collection.inputs import listed
from nearly.collection.keys import Key, Keys, as_keys, kind_of
from nearly.collection.maintenance import Maintenance
from nearly.collection.parts import Part
from nearly.collection.records import Delete, Patch, Put, decode
from nearly.collection.schema import Schema
from nearly.collection.state import State, stored
from nearly.collection.traces import Traces, hash_of
from nearly.collection.volumes import files_in
from nearly.collection.writing import Writer
from nearly.errors import IdError, InputError

__all__ = ["Gone", "erase", "look_for"]

_BLOCK = 1 << 23  # octets of a file that are read at a time
_ROWS = 4096  # rows that are compared at a time
_SHORT = 8  # octets of a key up to which its text is in too many files to say anything
_TEXTS = ("str", "list[str]", "json")


@dataclass(frozen=True)
class Gone:
    """What was looked for, and what is wrong."""

    keys: int
    pieces: int
    shared: int
    problems: list[str]


# -- erasing ---------------------------------------------------------------------------------------------------------


def erase(writer: Writer, maintenance: Maintenance, ids: Any) -> int:
    """Delete rows, rewrite what held them, and empty the log and the pages of the catalogue.

    What is erased is recorded first, so that an erasure that was broken off can be ended by another call.
    """
    keys = as_keys(listed([ids] if isinstance(ids, int | str) else ids), writer.state.schema.keys or kind_of(ids))
    _check_were_here(writer, keys)  # also before the wait for a graph that is being built
    with maintenance.alone():
        _check_were_here(writer, keys)
        _record(writer, keys)
        writer.submit(lambda state: (state, [Delete(keys)], len(keys)))
        maintenance.finish(None)
        # Not only segments that held them alive: an earlier version may lie dead in any.
        holding = [part for part in writer.state.segments if (stored(part).rows.keys.find(keys) >= 0).any()]
        for part in holding:
            maintenance.merge([part], None)
        if writer.catalogue is not None:
            with writer.mutex:
                writer.catalogue.shrink()
    return len(keys)


def _check_were_here(writer: Writer, keys: Keys) -> None:
    """Refuse keys of which there is nothing: no row, alive or dead, and no erasure that may have been broken off."""
    state = writer.state
    here = state.known(keys) | state.tail.held(keys)
    for part in state.segments:
        here |= stored(part).rows.find(keys) >= 0
    missing = keys.take(np.flatnonzero(~here)).tolist()
    if missing and writer.catalogue is not None:
        known = set(_records_of(missing, writer).values())
        missing = [key for key in missing if key not in known]
    if missing:
        raise IdError(f"erase: {len(missing)} of {len(keys)} ids are not in this collection: {listing(missing)}")


def _record(writer: Writer, keys: Keys) -> None:
    """Write down which keys are erased, and traces of all that any row of theirs ever held and a file still may."""
    if writer.catalogue is None:
        return
    with writer.mutex:
        state, key = writer.state, writer.catalogue.trace_key()
        traces = Traces(os.urandom(16) if key is None else key)
        salt, day = os.urandom(16), dt.datetime.now(dt.UTC).date().isoformat()
        hashes = {each: hash_of(str(each).encode(), salt) for each in keys.tolist()}
        pieces = [
            (hashes[each], piece, at) for each, contents in _contents(state, writer, keys, True)
            for at, piece in traces.of(contents)
        ]  # fmt: skip
        writer.catalogue.record_erased([(hash, salt, day) for hash in hashes.values()], pieces, traces.key)


# -- the proof -------------------------------------------------------------------------------------------------------


def look_for(state: State, writer: Writer, path: Path | None, erased: Any) -> Gone:
    """Look for rows, alive or dead, and for texts of keys and traces of contents in every file."""
    keys = as_keys([erased] if isinstance(erased, int | str) else listed(erased), state.schema.keys or kind_of(erased))
    if writer.catalogue is None or path is None:
        raise InputError("a collection in memory leaves nothing; verify(erased=) is for one with a path")
    records = _records_of(keys.tolist(), writer)
    known = set(records.values())
    if never := [key for key in keys.tolist() if key not in known]:
        raise IdError(f"{listing(never)} {'was' if len(never) == 1 else 'were'} never erased; call erase() first")
    problems = []
    for part in state.segments:
        left = np.flatnonzero(stored(part).rows.keys.find(keys) >= 0)
        if len(left):
            problems.append(f"segment {stored(part).name} still holds {listing(keys.take(left).tolist())}")
    if state.known(keys).any():
        problems.append("some of these keys are there again")
    with writer.mutex:
        wanted = _Wanted(keys, records, writer.catalogue.trace_key(), writer.catalogue.traces(records))
        found = _scanned(path, writer, wanted)
        shared = _shared(state, writer, keys, wanted, set(found)) if found else set()
    for what in found.keys() - shared:
        problems.append(f"{listing(sorted(found[what]))} still holds {wanted.names[what]}")
    return Gone(len(keys), len(wanted.traces), len(shared), sorted(problems))


class _Wanted:
    """What to look for: texts of keys, and pieces. Each has a name for messages."""

    def __init__(
        self, keys: Keys, records: dict[bytes, Key], secret: bytes | None, known: Iterable[tuple[bytes, bytes, int]]
    ) -> None:  # fmt: skip
        mine = [(piece, at, records[erased]) for erased, piece, at in known]
        self.traces = Traces(secret or b"", [(at, piece) for piece, at, _ in mine])
        self.texts = [
            form for key in keys.tolist() if isinstance(key, str) for form in _forms(key) if len(form) >= _SHORT
        ]  # fmt: skip
        self.names = {piece: f"a piece of what the row {key!r} held" for piece, _, key in mine}
        self.names |= {text: f"the erased key {text.decode()}" for text in self.texts}
        self.longest = max(16, *map(len, self.texts), 0)

    def find(self, octets: bytes) -> set[bytes]:
        return self.traces.find(octets) | {text for text in self.texts if text in octets}


def _scanned(path: Path, writer: Writer, wanted: _Wanted) -> dict[bytes, set[str]]:
    """What was found, and in which files. The catalogue is closed meanwhile: SQLite's locks end with any descriptor."""
    found: dict[bytes, set[str]] = {}
    assert writer.catalogue is not None
    writer.catalogue.checkpoint()
    with writer.catalogue.set_aside():
        for file, _ in files_in(path):
            with file.open("rb") as opened:
                before = b""
                while block := opened.read(_BLOCK):
                    octets = before + block
                    for what in wanted.find(octets):
                        found.setdefault(what, set()).add(file.name)
                    before = octets[-(wanted.longest - 1) :]
    return found


def _shared(state: State, writer: Writer, keys: Keys, wanted: _Wanted, found: set[bytes]) -> set[bytes]:
    """Which of the things that were found are in rows of other keys too."""
    shared: set[bytes] = set()
    gathered: list[bytes] = []
    size = 0
    for key, contents in _contents(state, writer, keys, False):
        gathered += [*(_forms(key) if isinstance(key, str) else ()), *contents]
        size += sum(map(len, contents))
        if size > _BLOCK:
            shared |= wanted.find(b"\0".join(gathered))
            gathered, size = [], 0
        if shared >= found:
            break
    return (shared | wanted.find(b"\0".join(gathered))) & found


# -- what rows hold, as files have it --------------------------------------------------------------------------------


def _contents(state: State, writer: Writer, keys: Keys, mine: bool) -> Iterator[tuple[Key, list[bytes]]]:
    """Keys and contents of all rows of some keys, or of all others: dead ones and earlier versions too."""
    wanted = set(keys.tolist())
    for part in state.segments:
        here = np.zeros(part.n, bool)
        rows = stored(part).rows.find(keys)
        here[rows[rows >= 0]] = True
        chosen = np.flatnonzero(here == mine)
        for first in range(0, len(chosen), _ROWS):
            yield from _of_part(part, chosen[first : first + _ROWS], state.schema)
    assert writer.catalogue is not None
    for _, kind, body, octets in writer.catalogue.log():
        record = decode(kind, body, octets, state.schema)
        yield from (each for each in _of_record(record) if (each[0] in wanted) == mine)


def _of_part(part: Part, rows: Any, schema: Schema) -> Iterator[tuple[Key, list[bytes]]]:
    columns: list[Sequence[Any]] = [part.documents(rows)]
    for name, type in schema.columns.items():
        if type in _TEXTS:
            columns += [_typed(type, each.values(name, rows)) for each in (part.source, part)]
    stacks = [octets for name in schema.fields for octets in _stored_vectors(part, name, rows)]
    for i, key in enumerate(part.keys_of(rows)):
        texts = [form for column in columns for form in _forms(column[i])]
        yield key, [*texts, *(stack[i].tobytes() for stack in stacks)]


def _stored_vectors(part: Part, name: str, rows: Any) -> list[Any]:
    """Vectors as they came, which the log had, and in the element type that the index keeps."""
    vectors: Vectors = part.vectors(name, rows)
    return [vectors.array, part.source.index(name)._store.as_stored(vectors)]


def _of_record(record: Any) -> Iterator[tuple[Key, list[bytes]]]:
    batch = record.batch if isinstance(record, Put) else None
    cells = batch.cells if batch is not None else record.cells if isinstance(record, Patch) else {}
    columns: list[Sequence[Any]] = [_typed(each.type, each.plain) for each in cells.values() if each.type in _TEXTS]
    columns += [batch.documents] if batch is not None and batch.documents else []
    stacks = [] if batch is None else [each.array for each in batch.vectors.values()]
    for i, key in enumerate(record.keys.tolist()):
        texts = [form for column in columns for form in _forms(column[i])]
        yield key, [*texts, *(stack[i].tobytes() for stack in stacks)]


class _Json(NamedTuple):
    """A value of a column of JSON, whose whole text is one."""

    value: Any


def _typed(type: str, values: Sequence[Any]) -> Sequence[Any]:
    return [None if each is None else _Json(each) for each in values] if type == "json" else values


def _forms(value: Any) -> list[bytes]:
    """A text, bytes, texts or JSON as segments and the log have it."""
    if value is None:
        return []
    if isinstance(value, bytes):
        return [value, base64.b64encode(value)]
    if isinstance(value, str):
        return list(dict.fromkeys([value.encode(), json.dumps(value)[1:-1].encode()]))
    if isinstance(value, list):
        return [form for each in value for form in _forms(each)]
    plain = [json.dumps(value.value, ensure_ascii=ascii, separators=(",", ":")).encode() for ascii in (False, True)]
    return list(dict.fromkeys(plain))


# -- records of erasures ---------------------------------------------------------------------------------------------


def _records_of(keys: Sequence[Key], writer: Writer) -> dict[bytes, Key]:
    """The hashes under which erasures of some keys were recorded, and which key each is of."""
    assert writer.catalogue is not None
    with writer.mutex:
        records = writer.catalogue.erased()
    digests: dict[bytes, set[bytes]] = {}  # by salt
    for digest, salt, _ in records:
        digests.setdefault(salt, set()).add(digest)
    found: dict[bytes, Key] = {}
    for salt, mine in digests.items():
        hashes = {hash_of(str(key).encode(), salt): key for key in keys}
        found |= {hash: key for hash, key in hashes.items() if hash in mine}
    return found
