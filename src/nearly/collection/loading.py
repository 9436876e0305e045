"""From a catalogue and its files to a snapshot: what opening and refreshing do. No repair: the log is read again."""

from collections.abc import Mapping
from dataclasses import replace

from nearly.collection import bits
from nearly.collection.catalogue import Catalogue, Entry, Manifest
from nearly.collection.parts import Part, Stored
from nearly.collection.records import decode
from nearly.collection.state import State
from nearly.collection.volumes import Folder
from nearly.errors import FormatError, InputError

__all__ = ["follow", "load"]

_TRIES = 20  # that a reader makes while a writer replaces segments under its hands


def load(catalogue: Catalogue, volume: Folder, known: Mapping[str, Stored]) -> tuple[State, Manifest]:
    """The state that the catalogue describes; segments that are open already stay open."""
    for attempt in range(_TRIES):
        manifest = catalogue.read()
        try:
            segments = tuple(_part(entry, volume, known) for entry in manifest.entries)
        except FileNotFoundError as problem:  # replaced since the catalogue was read
            if catalogue.writable or attempt == _TRIES - 1:
                raise FormatError(f"a file of the collection is missing: {problem}") from problem
            continue
        break
    if catalogue.writable:
        catalogue.knows(segments)
    state = State.empty(manifest.schema, segments, manifest.sequence, manifest.next_id)
    return _replayed(state, manifest), manifest


def follow(state: State, before: Manifest, now: Manifest) -> State | None:
    """The state after the records that came since; None where segments changed, so that it must be loaded anew."""
    if before.sequence != now.sequence or [e.name for e in before.entries] != [e.name for e in now.entries]:
        return None
    return _replayed(state, now)


def _replayed(state: State, manifest: Manifest) -> State:
    state = replace(state, schema=manifest.schema)
    try:
        for sequence, kind, body, octets in manifest.log:
            if sequence > state.sequence:
                state = replace(decode(kind, body, octets, manifest.schema).apply(state, sequence), sequence=sequence)
        state.tail.settle()
    except InputError as problem:  # vectors that no field takes
        raise FormatError(f"the log is damaged: {problem}") from problem
    return replace(state, sequence=max([state.sequence, *(entry.applied for entry in manifest.entries)]))


def _part(entry: Entry, volume: Folder, known: Mapping[str, Stored]) -> Part:
    held = known.get(entry.name)
    source = held if held is not None else volume.open(entry.name, entry.files)
    if source.n != entry.n:
        raise FormatError(f"segment {entry.name} has {source.n} rows, but the catalogue says {entry.n}")
    alive = bits.all_set(entry.n) if entry.alive is None else entry.alive
    return Part(source, entry.n, alive, bits.count(alive), entry.patches, entry.applied)
