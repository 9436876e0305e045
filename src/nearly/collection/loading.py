"""From a catalogue and its files to a snapshot: what opening and refreshing do. No repair: the log is read again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nearly import storage
from nearly.collection import bits
from nearly.collection.catalogue import Catalogue, Entry, Manifest
from nearly.collection.parts import Part, Stored
from nearly.collection.records import decode
from nearly.collection.schema import Field, Schema
from nearly.collection.state import State, stored
from nearly.collection.volumes import Folder, names_of
from nearly.errors import FormatError, InputError

__all__ = ["follow", "load", "part_of"]

_TRIES = 20  # that a reader makes while a writer replaces segments under its hands


def load(catalogue: Catalogue, volume: Folder, known: Mapping[str, Stored]) -> tuple[State, Manifest]:
    """The state that the catalogue describes; segments that are open already stay open."""
    for attempt in range(_TRIES):
        manifest = catalogue.read()
        try:
            segments = tuple(part_of(entry, volume, known, manifest.schema) for entry in manifest.entries)
        except FileNotFoundError as problem:  # replaced since the catalogue was read
            if catalogue.writable or attempt == _TRIES - 1:
                raise FormatError(f"a file of the collection is missing: {problem}; restore it, or let "
                                  "nearly.collection.mend set its segment aside") from problem  # fmt: skip
            continue
        except InputError as problem:
            raise _damaged(catalogue, problem) from problem
        break
    names = [name for part in segments for name in names_of(stored(part).files)]
    if len(set(names)) < len(names):
        raise _damaged(catalogue, "two segments have one file")
    if catalogue.writable:
        catalogue.knows(segments)
    state = State.empty(manifest.schema, segments, manifest.sequence, manifest.next_id, manifest.layout)
    return _replayed(state, manifest, catalogue), manifest


def follow(state: State, before: Manifest, now: Manifest, catalogue: Catalogue) -> State | None:
    """The state after the records that came since; None where segments changed, so that it must be loaded anew."""
    if before.sequence != now.sequence or [e.name for e in before.entries] != [e.name for e in now.entries]:
        return None
    return _replayed(state, now, catalogue)


def _replayed(state: State, manifest: Manifest, catalogue: Catalogue) -> State:
    state = replace(state, schema=manifest.schema)
    try:
        for sequence, kind, body, octets in manifest.log:
            if sequence > state.sequence:
                state = decode(kind, body, octets, manifest.schema).apply(state, sequence)
        state.tail.settle()
    except InputError as problem:
        raise _damaged(catalogue, problem) from problem
    return replace(state, sequence=max([state.sequence, *(entry.applied for entry in manifest.entries)]))


def _damaged(catalogue: Catalogue, problem: object) -> FormatError:
    return FormatError(f"{str(catalogue.path)!r} is damaged: {problem}")


def part_of(entry: Entry, volume: Folder, known: Mapping[str, Stored], schema: Schema) -> Part:
    """The segment that the catalogue names; InputError or FileNotFoundError where its files are not those."""
    held = known.get(entry.name)
    source = held if held is not None else volume.open(entry.name, entry.files)
    _check_agrees(source, entry, schema)
    alive = bits.all_set(entry.n) if entry.alive is None else entry.alive
    return Part(source, entry.n, alive, bits.count(alive), entry.patches, entry.applied)


def _check_agrees(source: Stored, entry: Entry, schema: Schema) -> None:
    """Compare what the catalogue says of a segment with what its files say; InputError where that is not the same."""
    rows, indexes = source.rows, dict(zip(source.fields, source.opened[1:], strict=True))
    said = {
        "rows": (entry.n, source.n),
        "keys": (schema.keys, rows.key_kind),
        "fields": (sorted(schema.fields), sorted(indexes)),
        **{f"column {name!r}": (schema.columns.get(name), type) for name, type in rows.types.items()},
    }
    for name, balls in rows.balls.items():
        said[f"columns of balls of {name!r}"] = (getattr(schema.fields.get(name), "dim", None), balls.centers.shape[1])
    for name, file in indexes.items():
        field = schema.fields.get(name)
        if field is not None:
            said |= _said_of_vectors(name, field, entry.n, file)
    for what, (here, there) in said.items():
        if here != there:
            raise InputError(f"segment {entry.name} has other {what} ({there}) than it says ({here})")


def _said_of_vectors(name: str, field: Field, n: int, file: storage.File) -> dict[str, tuple[Any, Any]]:
    said = file.config.get("rows")
    said = said if isinstance(said, dict) else {}
    wanted = {"metric": field.metric, "dim": field.dim, "n_rows": n, "next_id": n, "own_ids": False, "n_removed": 0}
    if field.dtype is not None:
        wanted["element"] = field.dtype
    return {f"{what} of {name!r}": (value, said.get(what)) for what, value in wanted.items()}
