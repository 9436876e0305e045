"""What makes writes quick to search: tails become segments, drafts graphs, many segments few.

Segments are of sizes that grow fourfold; four of one size become one of the next. So a row is rewritten once a size,
log4(n / 4096) times in all, and there are at most three segments of each size. A segment with many dead rows is
written anew without them, and one with many patches gets its columns written anew. All of it runs while others read and
write: what happened meanwhile is carried over in the commit that exchanges segments.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.arrays import Vectors
from nearly.collection import bits
from nearly.collection.cells import concatenated
from nearly.collection.keys import Keys
from nearly.collection.parts import Part, Stored
from nearly.collection.records import Delete
from nearly.collection.rows import Document, rows_arrays
from nearly.collection.schema import Schema
from nearly.collection.state import State, empty_tail, stored
from nearly.collection.tail import Batch, Tail
from nearly.collection.writing import Writer
from nearly.filters.columns import Column
from nearly.indexes import Flat, Index, build

__all__ = ["Maintenance"]

_FAN_IN = 4
_DEAD = 0.3  # share of dead rows at which a segment is written anew
_PATCHED = 1 / 16  # share of patched rows at which columns are
_FEW_DEAD, _FEW_PATCHES = 64, 1024  # fewer are not worth a step

Array = NDArray[Any]
Progress = Callable[[int, int], None]


class _Stopped(Exception):
    """The collection is being closed."""


class Maintenance:
    """Flushing, building and merging for one writer.

    Parameters
    ----------
    writer : Writer
    background : bool
        Whether a thread does what is due after writes; otherwise `flush` and `compact` alone do.
    """

    def __init__(self, writer: Writer, background: bool) -> None:
        self._writer, self._background = writer, background
        self._working = threading.RLock()  # one of these steps at a time
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._again = self._stopping = False
        self.problem: BaseException | None = None

    # -- when --------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """After writes: see to what is due, here or in a thread."""
        self.make_room()
        if self._background and (self._full() or self._due() is not None):
            with self._guard:
                self._again = True
                if self._thread is None and not self._stopping:
                    thread = threading.Thread(target=self._run, name="nearly-maintenance", daemon=True)
                    try:
                        thread.start()
                        self._thread = thread
                    except RuntimeError as problem:  # no more threads: the next write tries again
                        self.problem = problem

    def make_room(self) -> None:
        """Flush the tail where nobody else does soon enough: who writes faster than segments are made waits."""
        if self._full(2) or (self._full() and not self._background):
            try:
                self.flush_tail(draft=True)
            except Exception as problem:  # the write that came before is there, and must not seem to have failed
                self.problem = problem

    def _full(self, times: int = 1) -> bool:
        """Whether the tail is as full as it should get, or so many times."""
        state, limits = self._writer.state, self._writer.limits
        return limits.tail_is_full(state.fresh.n // times, state.tail.n_bytes // times)

    def _run(self) -> None:
        while True:
            with self._guard:
                if not self._again or self._stopping:
                    self._thread = None
                    return
                self._again = False
            try:
                if self._full():
                    self.flush_tail()
                while not self._stopping and self._step(None):
                    pass
            except _Stopped:
                pass
            except BaseException as problem:  # a full disk, say: writes go on, and flush() says it
                self.problem = problem

    def stop(self) -> None:
        """End the thread; what it was at is begun anew when the collection is opened again."""
        self._stopping = True
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def finish(self, progress: Progress | None) -> None:
        """Do everything that is due, here and now; raises what the thread could not do."""
        self.problem = None
        with self._working:
            self.flush_tail()
            while self._step(progress):
                pass

    # -- what --------------------------------------------------------------------------------------------------------

    def _due(self) -> Callable[[Progress | None], None] | None:
        """The next step that pays, None where there is none."""
        state = self._writer.state
        drafts = [part for part in state.segments if stored(part).draft]
        if len(drafts) > 1:  # batches of one stream, say: one graph for all
            return partial(self.merge, drafts)
        for part in state.segments:
            if not part.n_alive or part.n - part.n_alive > max(_DEAD * part.n, _FEW_DEAD):
                return partial(self.merge, [part])
            if stored(part).draft:
                return partial(self._replace_draft, part)
            if len(part.patches) > max(_FEW_PATCHES, _PATCHED * part.n):
                return partial(self._merge_patches, part)
        sizes: dict[int, list[Part]] = {}
        for part in state.segments:
            sizes.setdefault(_size(part.n_alive, self._writer.limits.tail_rows), []).append(part)
        for _, parts in sorted(sizes.items()):
            if len(parts) >= _FAN_IN:
                return partial(self.merge, parts)
        return None

    def _step(self, progress: Progress | None) -> bool:
        with self._working:
            due = self._due()
            if due is None:
                return False
            due(progress)
            return True

    def flush_tail(self, *, draft: bool = False) -> None:
        """Make a segment of the tail, and empty the log; a draft where nobody shall wait for a graph."""
        writer = self._writer
        writer.check_process()
        with writer.changing():
            state = writer.state
            if state.fresh.applied == state.sequence:  # nothing was logged since
                return
            segments, fresh = state.segments, state.fresh
            if fresh.n_alive:
                draft = draft and self._deserves_a_graph(fresh.n_alive, state.schema)
                made = self._drafted(fresh, state) if draft else self._made([fresh], [fresh.rows()], state, None)
                segments = (*segments, Part.whole(made, state.sequence))
            segments = tuple(replace(part, applied=state.sequence) for part in segments)
            after = replace(state, segments=segments, fresh=empty_tail(state.schema, state.sequence))
            writer.commit_segments(after, flushed=state.sequence, next_id=state.next_id)
            if writer.catalogue is not None:
                writer.catalogue.checkpoint(empty=False)

    def put_segment(self, state: State, batch: Batch) -> None:
        """Commit many rows as a segment of their own, a draft where a graph is to follow; the mutex is held."""
        writer, schema = self._writer, state.schema
        indexes = {name: Flat(batch.vectors[name], metric=field.metric) for name, field in schema.fields.items()}
        columns = [batch.cells[name].column for name in batch.cells]
        draft = self._deserves_a_graph(len(batch), schema)
        made = writer.volume.store(rows_arrays(batch.keys, columns, batch.documents), indexes, draft=draft)
        sequence = state.sequence + 1
        after = replace(state.grown(Part.whole(made, sequence), batch.keys, sequence), sequence=sequence)
        replaced = [(sequence, Delete(batch.keys))] if state.known(batch.keys).any() else []
        changed = None if schema is writer.state.schema else schema
        writer.commit_segments(after, records=replaced, schema=changed, next_id=after.next_id)

    def merge(self, parts: Sequence[Part], progress: Progress | None) -> None:
        """Make one segment of the living rows of some."""
        state = self._writer.state
        rows = [part.rows() for part in parts]
        starts = np.cumsum([0, *(len(each) for each in rows)])
        targets = []
        for part, mine, start in zip(parts, rows, starts[:-1].tolist(), strict=True):
            target = np.full(part.n, -1, np.int64)
            target[mine] = np.arange(start, start + len(mine))
            targets.append(target)
        made = self._made(parts, rows, state, progress) if starts[-1] else None
        self._exchange(parts, made, targets)

    def _merge_patches(self, part: Part, progress: Progress | None) -> None:
        """Write the columns of a segment anew, with the values that patches gave; its vectors stay as they are."""
        source, schema = stored(part), self._writer.state.schema
        everything = np.arange(part.n)
        keys = Keys(_as_values(source.keys_of(everything), schema))
        columns = _columns([part], [everything], schema)
        made = self._writer.volume.replaced(source, rows=rows_arrays(keys, columns, source.documents(everything)))
        self._exchange([part], made, [everything], part.alive)

    def _replace_draft(self, part: Part, progress: Progress | None) -> None:
        """Build the graphs of a segment that was committed without."""
        schema, everything = self._writer.state.schema, np.arange(part.n)
        indexes = {n: self._index(schema, n, part.vectors(n, everything), progress) for n in stored(part).fields}
        self.exchange_indexes(part, indexes)

    def exchange_indexes(self, part: Part, indexes: Mapping[str, Index]) -> None:
        """Give a segment other indexes of the same vectors."""
        made = self._writer.volume.replaced(stored(part), indexes=indexes)
        self._exchange([part], made, [np.arange(part.n)], part.alive, keep_patches=True)

    def alone(self) -> Any:
        """Held, no other step begins."""
        return self._working

    # -- how ---------------------------------------------------------------------------------------------------------

    def _made(self, parts: Sequence[Part], rows: Sequence[Array], state: State, progress: Progress | None) -> Stored:
        """A segment of some rows of some parts."""
        schema = state.schema
        keys = Keys(_as_values([k for p, mine in zip(parts, rows, strict=True) for k in p.keys_of(mine)], schema))
        documents: list[Document] = [d for p, mine in zip(parts, rows, strict=True) for d in p.documents(mine)]
        indexes = {}
        for name in schema.fields:
            vectors = [part.vectors(name, mine) for part, mine in zip(parts, rows, strict=True) if len(mine)]
            indexes[name] = self._index(schema, name, _together(vectors), progress)
        return self._writer.volume.store(rows_arrays(keys, _columns(parts, rows, schema), documents), indexes)

    def _deserves_a_graph(self, n: int, schema: Schema) -> bool:
        return n >= self._writer.limits.draft_rows and schema.recall < 1

    def _drafted(self, part: Part, state: State) -> Stored:
        """A segment of the rows of a part, which is scanned until a graph takes its place."""
        schema, rows = state.schema, part.rows()
        keys = Keys(_as_values(part.keys_of(rows), schema))
        indexes = {name: Flat(part.vectors(name, rows), metric=field.metric) for name, field in schema.fields.items()}
        arrays = rows_arrays(keys, _columns([part], [rows], schema), part.documents(rows))
        return self._writer.volume.store(arrays, indexes, draft=True)

    def _index(self, schema: Schema, name: str, vectors: Vectors, progress: Progress | None) -> Index:
        def report(done: int, total: int) -> None:
            if self._stopping and threading.current_thread() is self._thread:
                raise _Stopped
            if progress is not None:
                progress(done, total)

        watched = progress is not None or threading.current_thread() is self._thread
        return build(vectors, metric=schema.fields[name].metric, recall=schema.recall, seed=schema.seed,
                     progress=report if watched else None)  # fmt: skip

    def _exchange(
        self, parts: Sequence[Part], made: Stored | None, targets: Sequence[Array], alive: bits.Bits | None = None,
        *, keep_patches: bool = False,
    ) -> None:  # fmt: skip
        """Let a segment take the place of others, with what happened to their rows since it was begun.

        `targets` says for each old segment where its rows are now; rows that stayed where they were come with the bits
        of those `alive`, and with their patches where the new segment does not contain them.
        """
        writer = self._writer
        with writer.changing():
            state = writer.state
            kept = [part for part in state.segments if not any(part.source is old.source for old in parts)]
            if made is not None:
                part = Part.whole(made, state.sequence)
                if alive is not None:
                    part = replace(part, alive=alive, n_alive=bits.count(alive))
                for old, target in zip(parts, targets, strict=True):
                    now = writer.current(old)
                    assert now is not None
                    died = bits.rows_of(old.alive & ~now.alive)
                    part = part.without(target[died])
                    contained = {} if keep_patches else old.patches
                    late = [row for row, new in now.patches.items() if contained.get(row) is not new]
                    part = part.patched(target[np.array(late, np.int64)], [now.patches[row] for row in late])
                kept.append(part)
            writer.commit_segments(replace(state, segments=tuple(kept)))

    def compact(self, progress: Progress | None) -> None:
        """One segment, without anything dead in it."""
        with self._working:
            self.finish(progress)
            parts = self._writer.state.segments
            if len(parts) > 1 or any(part.n_alive < part.n or part.patches for part in parts):
                self.merge(parts, progress)
            catalogue = self._writer.catalogue
            if catalogue is not None:
                with self._writer.mutex, suppress(Exception):
                    catalogue.shrink()


def _size(n: int, smallest: int) -> int:
    return math.floor(math.log(n / smallest, _FAN_IN) + 1e-9) if n > smallest else 0


def _as_values(keys: list[Any], schema: Schema) -> Any:
    return np.array(keys, np.int64) if schema.keys == "int" else keys


def _together(vectors: Sequence[Vectors]) -> Vectors:
    kinds = {each.kind for each in vectors}
    if len(kinds) == 1:
        return vectors[0] if len(vectors) == 1 else Vectors(np.concatenate([v.array for v in vectors]), kinds.pop())
    return Vectors(np.concatenate([v.as_float32() for v in vectors]), "float32")


def _columns(parts: Sequence[Part], rows: Sequence[Array], schema: Schema) -> list[Column]:
    """All columns that have a value, over some rows of some parts."""
    made = []
    for name, type in schema.columns.items():
        if any(isinstance(p.source, Tail) or any(name in new for new in p.patches.values()) for p in parts):
            values = [v for part, mine in zip(parts, rows, strict=True) for v in part.values(name, mine)]
            if any(value is not None for value in values):
                made.append(Column.from_values(name, values, type))
            continue
        sources = [stored(part).rows.column(name) for part in parts]
        if any(source is not None for source in sources):
            made.append(concatenated(name, type, list(zip(sources, rows, strict=True))))
    return made
