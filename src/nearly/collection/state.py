"""A snapshot of a collection: immutable, so that readers need no lock, and what each record of the log does to it.

The same functions serve a writer, who goes on to commit what they gave, and whoever reads the log again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.collection.keys import Keys
from nearly.collection.layout import Layout
from nearly.collection.parts import Part, Stored
from nearly.collection.schema import Schema
from nearly.collection.tail import Batch, Tail

__all__ = ["State", "empty_tail", "stored"]


@dataclass(frozen=True, eq=False)
class State:
    """What the collection holds at one moment.

    Attributes
    ----------
    schema : Schema
    segments : tuple of Part
        In the order in which they were committed.
    fresh : Part
        The rows of the tail.
    sequence : int
        The last record of the log that is in it.
    next_id : int
        The least integer key above all that were ever given.
    layout : Layout or None
        How rows are divided among segments, where a workload was learned from.
    """

    schema: Schema
    segments: tuple[Part, ...]
    fresh: Part
    sequence: int = 0
    next_id: int = 0
    layout: Layout | None = None

    @classmethod
    def empty(
        cls, schema: Schema, segments: tuple[Part, ...] = (), sequence: int = 0, next_id: int = 0,
        layout: Layout | None = None,
    ) -> "State":  # fmt: skip
        """A state with an empty tail."""
        return cls(schema, segments, empty_tail(schema, sequence), sequence, next_id, layout)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything that a search looks at; the tail last."""
        return (*self.segments, self.fresh) if self.fresh.n_alive else self.segments

    @property
    def tail(self) -> Tail:
        tail = self.fresh.source
        assert isinstance(tail, Tail)
        return tail

    def __len__(self) -> int:
        return sum(part.n_alive for part in self.segments) + self.fresh.n_alive

    def locate(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each key the number of its part (the tail last, -1 where it is in none) and its row there."""
        which = np.full(len(keys), -1, np.int64)
        rows = np.full(len(keys), -1, np.int64)
        for number, part in enumerate((*self.segments, self.fresh)):
            if not part.n_alive:
                continue
            found = part.find(keys)
            here = found >= 0
            if here.any():
                which[here], rows[here] = number, found[here]
        return which, rows

    def known(self, keys: Keys) -> NDArray[np.bool_]:
        """Whether each key is there."""
        return self.locate(keys)[0] >= 0

    # -- what records do ---------------------------------------------------------------------------------------------

    def delete(self, keys: Keys, sequence: int) -> "State":
        """Without the rows of some keys; unknown keys do nothing."""
        return self._each(keys, sequence, lambda part, rows, _: part.without(rows))

    def patch(self, keys: Keys, changes: Sequence[Mapping[str, Any]], sequence: int) -> "State":
        """With other metadata in the rows of some keys."""

        def patched(part: Part, rows: NDArray[np.int64], which: NDArray[np.intp]) -> Part:
            return part.patched(rows, [changes[i] for i in which.tolist()])

        return self._each(keys, sequence, patched)

    def put(self, batch: Batch, sequence: int) -> "State":
        """With new rows in the tail, which replace those of equal keys."""
        state = self.delete(batch.keys, sequence)
        tail = state.tail
        first = tail.append(batch)
        fresh = state.fresh
        if first > fresh.n:  # rows of a write that failed lie between; nobody sees them
            fresh = replace(fresh, n=first)
        return replace(state, fresh=fresh.longer(len(batch)), next_id=state.after(batch.keys))

    def grown(self, part: Part, keys: Keys, sequence: int) -> "State":
        """With a new segment, whose rows replace those of equal keys."""
        state = self.delete(keys, sequence)
        return replace(state, segments=(*state.segments, part), next_id=state.after(keys))

    def counted(self, keys: Keys) -> "State":
        """This state once these keys are given, to rows that are put later."""
        next_id = self.after(keys)
        return self if next_id == self.next_id else replace(self, next_id=next_id)

    def after(self, keys: Keys) -> int:
        """The next integer key once these were given."""
        if isinstance(keys.values, np.ndarray) and len(keys):
            return max(self.next_id, int(keys.values.max()) + 1)
        return self.next_id

    def _each(self, keys: Keys, sequence: int, change: Any) -> "State":
        parts = []
        for part in (*self.segments, self.fresh):
            if part.applied < sequence and part.n_alive:
                found = part.find(keys)
                which = np.flatnonzero(found >= 0)
                if len(which):
                    part = change(part, found[which], which)
            parts.append(part)
        *segments, fresh = parts
        return replace(self, segments=tuple(segments), fresh=fresh, sequence=sequence)


def empty_tail(schema: Schema, sequence: int) -> Part:
    """A tail without rows."""
    tail = Tail({name: field.metric for name, field in schema.fields.items()})
    return Part(tail, 0, np.zeros(0, np.uint64), 0, {}, sequence)


def stored(part: Part) -> Stored:
    """The segment of a part that is none of the tail."""
    assert isinstance(part.source, Stored)
    return part.source
