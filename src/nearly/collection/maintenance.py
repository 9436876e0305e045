"""What makes writes quick to search: tails become segments, drafts graphs, many segments few.

Segments are of sizes that grow fourfold; four of one size become one of the next. So a row is rewritten once a size,
log4(n / 4096) times in all, and there are at most three segments of each size. A segment with many dead rows is
written anew without them, and one with many patches gets its columns written anew. Where the collection has a layout
(layout.py), segments of different leaves are not joined; what came since is in segments of no leaf, and once these are
a part of all worth it, all rows are laid out anew by the same tree. All of it runs while others read and
write: what happened meanwhile is carried over in the commit that exchanges segments.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence, Set
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
from nearly.collection.layout import Layout
from nearly.collection.parts import Part, Stored
from nearly.collection.records import Delete
from nearly.collection.rows import Document, rows_arrays
from nearly.collection.schema import Schema
from nearly.collection.space import Cells
from nearly.collection.state import State, empty_tail, stored
from nearly.collection.tail import Batch, Tail
from nearly.collection.writing import Writer
from nearly.filters.columns import Column
from nearly.indexes import Flat, Index, build

__all__ = ["Maintenance", "every_column"]

_FAN_IN = 4
_DEAD = 0.3  # share of dead rows at which a segment is written anew
_PATCHED = 1 / 16  # share of patched rows at which columns are
_FEW_DEAD, _FEW_PATCHES = 64, 1024  # fewer are not worth a step
_NEWER = 0.25  # share of rows in segments of no leaf at which all are laid out anew: each row 5 times in all, at most

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
        if state.layout is not None and _newer(state) > _NEWER * sum(part.n_alive for part in state.segments):
            return partial(self.lay_out, state.layout)
        sizes: dict[tuple[int, int], list[Part]] = {}
        for part, leaf in zip(state.segments, _leaves(state), strict=True):
            size = _size(part.n_alive, self._writer.limits.tail_rows)
            sizes.setdefault((size, -1 if leaf is None else leaf), []).append(part)
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
        leaves = {*_leaves(state, parts)}
        leaf = leaves.pop() if len(leaves) == 1 else None
        self._exchange(parts, [self._made(parts, rows, state, progress, leaf)] if starts[-1] else [], targets)

    def lay_out(self, layout: Layout, progress: Progress | None, cells: Cells | None = None) -> None:
        """Make a segment of each leaf of a layout, of all rows that segments hold.

        Where it divides by cells they are given, or those by which segments are laid out already.
        """
        state = self._writer.state
        parts, rows = state.segments, [part.rows() for part in state.segments]
        n = sum(map(len, rows))
        columns = every_column(parts, rows, state.schema, layout.columns)
        cells, labels = cells or _cells(state, layout), None
        if layout.field is not None and cells is not None:
            found = [
                cells.find(part.vectors(layout.field, mine).as_float32())
                for part, mine in zip(parts, rows, strict=True)
            ]
            labels = np.concatenate(found)
        leaves = np.split(layout.leaves(columns, n, labels), np.cumsum([len(mine) for mine in rows])[:-1])
        targets, made, at = [np.full(part.n, -1, np.int64) for part in parts], [], 0
        try:
            for leaf in range(layout.n_leaves):
                chosen = [mine[where == leaf] for mine, where in zip(rows, leaves, strict=True)]
                for target, mine in zip(targets, chosen, strict=True):
                    target[mine] = np.arange(at, at + len(mine))
                    at += len(mine)
                if any(map(len, chosen)):
                    made.append(self._made(parts, chosen, replace(state, layout=layout), progress, leaf, cells))
        except BaseException:
            self._writer.discard(made)
            raise
        self._exchange(parts, made, targets, layout=layout)

    def forget_layout(self) -> None:
        """Keep segments as they are, to be merged like any."""
        with self._working, self._writer.changing():
            self._writer.commit_segments(replace(self._writer.state, layout=None), layout=None)

    def _merge_patches(self, part: Part, progress: Progress | None) -> None:
        """Write the columns of a segment anew, with the values that patches gave; its vectors stay as they are."""
        source, schema = stored(part), self._writer.state.schema
        everything = np.arange(part.n)
        keys = Keys(_as_values(source.keys_of(everything), schema))
        columns = _columns([part], [everything], schema)
        rows = rows_arrays(keys, columns, source.documents(everything), source.rows.balls)
        made = self._writer.volume.replaced(source, rows=rows)
        self._exchange([part], [made], [everything], part.alive)

    def _replace_draft(self, part: Part, progress: Progress | None) -> None:
        """Build the graphs of a segment that was committed without."""
        schema, everything = self._writer.state.schema, np.arange(part.n)
        indexes = {n: self._index(schema, n, part.vectors(n, everything), progress) for n in stored(part).fields}
        self.exchange_indexes(part, indexes)

    def exchange_indexes(self, part: Part, indexes: Mapping[str, Index]) -> None:
        """Give a segment other indexes of the same vectors."""
        made = self._writer.volume.replaced(stored(part), indexes=indexes)
        self._exchange([part], [made], [np.arange(part.n)], part.alive, keep_patches=True)

    def alone(self) -> Any:
        """Held, no other step begins."""
        return self._working

    # -- how ---------------------------------------------------------------------------------------------------------

    def _made(
        self, parts: Sequence[Part], rows: Sequence[Array], state: State, progress: Progress | None,
        leaf: int | None = None, cells: Cells | None = None,
    ) -> Stored:  # fmt: skip
        """A segment of some rows of some parts, with balls around its vectors where it is a leaf of cells."""
        schema = state.schema
        keys = Keys(_as_values([k for p, mine in zip(parts, rows, strict=True) for k in p.keys_of(mine)], schema))
        documents: list[Document] = [d for p, mine in zip(parts, rows, strict=True) for d in p.documents(mine)]
        indexes, balls = {}, {}
        cells = cells or (None if leaf is None else _cells(state, state.layout))
        for name in schema.fields:
            vectors = _together([part.vectors(name, mine) for part, mine in zip(parts, rows, strict=True) if len(mine)])
            indexes[name] = self._index(schema, name, vectors, progress)
            if cells is not None and state.layout is not None and name == state.layout.field:
                balls[name] = cells.around(vectors.as_float32())
        columns = _columns(parts, rows, schema)
        return self._writer.volume.store(rows_arrays(keys, columns, documents, balls), indexes, leaf=leaf)

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
        self, parts: Sequence[Part], made: Sequence[Stored], targets: Sequence[Array], alive: bits.Bits | None = None,
        *, keep_patches: bool = False, layout: Layout | None = None,
    ) -> None:  # fmt: skip
        """Let segments take the place of others, with what happened to their rows since they were begun.

        `targets` says for each old segment where its rows are now, counted through all that were made; rows that stayed
        where they were come with the bits of those `alive`, and with their patches where the new segment does not
        contain them.
        """
        writer = self._writer
        with writer.changing():
            state = writer.state
            kept = [part for part in state.segments if not any(part.source is old.source for old in parts)]
            fresh = [Part.whole(each, state.sequence) for each in made]
            if alive is not None:
                fresh = [replace(part, alive=alive, n_alive=bits.count(alive)) for part in fresh]
            starts = np.cumsum([0, *(part.n for part in fresh)]).tolist()
            for old, target in zip(parts, targets, strict=True):
                now = writer.current(old)
                assert now is not None
                died = target[bits.rows_of(old.alive & ~now.alive)]
                contained = {} if keep_patches else old.patches
                late = {int(target[row]): new for row, new in now.patches.items() if contained.get(row) is not new}
                for i, (start, part) in enumerate(zip(starts[:-1], fresh, strict=True)):
                    mine = [row for row in late if start <= row < start + part.n]
                    part = part.without(died[(died >= start) & (died < start + part.n)] - start)
                    fresh[i] = part.patched(np.array(mine, np.int64) - start, [late[row] for row in mine])
            after = replace(state, segments=(*kept, *fresh), layout=layout or state.layout)
            writer.commit_segments(after, **({} if layout is None else {"layout": layout.to_json()}))

    def compact(self, progress: Progress | None) -> None:
        """One segment, or one of each leaf of the layout, without anything dead in it."""
        with self._working:
            self.finish(progress)
            state = self._writer.state
            parts = state.segments
            due = any(part.n_alive < part.n or part.patches for part in parts)
            if state.layout is None and (due or len(parts) > 1):
                self.merge(parts, progress)
            elif state.layout is not None and (due or _newer(state) or len({*_leaves(state)}) < len(parts)):
                self.lay_out(state.layout, progress)
            catalogue = self._writer.catalogue
            if catalogue is not None:
                with self._writer.mutex, suppress(Exception):
                    catalogue.shrink()


def _size(n: int, smallest: int) -> int:
    return math.floor(math.log(n / smallest, _FAN_IN) + 1e-9) if n > smallest else 0


def _leaves(state: State, parts: Sequence[Part] | None = None) -> list[int | None]:
    """The leaf of each segment in the layout that there is."""
    return [None if state.layout is None else stored(part).leaf for part in (parts or state.segments)]


def _cells(state: State, layout: Layout | None) -> Cells | None:
    """The cells that a layout divides by, as far as segments know them."""
    return None if layout is None or layout.field is None else Cells.of(state, layout.field)


def _newer(state: State) -> int:
    """Rows of segments of no leaf."""
    return sum(part.n_alive for part, leaf in zip(state.segments, _leaves(state), strict=True) if leaf is None)


def _as_values(keys: list[Any], schema: Schema) -> Any:
    return np.array(keys, np.int64) if schema.keys == "int" else keys


def _together(vectors: Sequence[Vectors]) -> Vectors:
    kinds = {each.kind for each in vectors}
    if len(kinds) == 1:
        return vectors[0] if len(vectors) == 1 else Vectors(np.concatenate([v.array for v in vectors]), kinds.pop())
    return Vectors(np.concatenate([v.as_float32() for v in vectors]), "float32")


def every_column(parts: Sequence[Part], rows: Sequence[Array], schema: Schema, names: Set[str]) -> dict[str, Column]:
    """Some columns over some rows of some parts, by name."""
    n = sum(map(len, rows))
    made = {each.name: each for each in _columns(parts, rows, schema, names)}
    absent = {name: concatenated(name, schema.columns[name], [(None, np.arange(n))]) for name in names - made.keys()}
    return made | absent


def _columns(
    parts: Sequence[Part], rows: Sequence[Array], schema: Schema, names: Set[str] | None = None
) -> list[Column]:
    """All columns that have a value, or those of some names, over some rows of some parts."""
    made = []
    for name, type in schema.columns.items():
        if names is not None and name not in names:
            continue
        if any(isinstance(p.source, Tail) or any(name in new for new in p.patches.values()) for p in parts):
            values = [v for part, mine in zip(parts, rows, strict=True) for v in part.values(name, mine)]
            if any(value is not None for value in values):
                made.append(Column.from_values(name, values, type))
            continue
        sources = [stored(part).rows.column(name) for part in parts]
        if any(source is not None for source in sources):
            made.append(concatenated(name, type, list(zip(sources, rows, strict=True))))
    return made
