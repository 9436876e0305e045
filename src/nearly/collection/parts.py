"""A part of a snapshot: rows of one segment or of the tail, which of them are alive, patches of their metadata."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nearly import filters, storage
from nearly.arrays import Vectors
from nearly.collection import bits
from nearly.collection.bits import Bits
from nearly.collection.cells import concatenated
from nearly.collection.keys import Keys
from nearly.collection.rows import DAMAGE, Document, Rows
from nearly.collection.tail import Tail
from nearly.filters.columns import Column
from nearly.filters.expressions import Expression
from nearly.indexes import Allowed, Index

__all__ = ["NO_PATCHES", "Part", "Patches", "Source", "Stored", "skipped"]

Array = NDArray[Any]
Patches = Mapping[int, Mapping[str, Any]]  # by row: the columns that changed, and their values
NO_PATCHES: Patches = {}
# A part remembers the bits of as many filters as take so many bytes, and of as many what they mean to its indexes, at
# four bytes for each row that passes; of so many at least.
_BITS_BYTES, _MEANING_BYTES, _LEAST_KEPT = 1 << 23, 1 << 25, 8
_BARREN = 4096  # filters that a segment remembers that nothing in it passes
_NONE: Bits = np.zeros(0, np.uint64)  # of a filter that nothing passes: its values were not looked at
_SKIPPED = Allowed(_NONE, 0)


class Opener(Protocol):
    """An index that is made when it is first asked for."""

    def __call__(self) -> Any: ...


class Stored:
    """A segment: rows and an index a field, immutable.

    Parameters
    ----------
    name : str
    rows : Rows
    openers : mapping of str to callable
        What makes the index of each field.
    files : mapping
        What the catalogue says of its files, whether its indexes are drafts, and its leaf in the layout.
    opened : sequence of storage.File
        Those files.
    """

    def __init__(
        self, name: str, rows: Rows, openers: Mapping[str, Opener], files: Mapping[str, Any],
        opened: Sequence[storage.File] = (),
    ) -> None:  # fmt: skip
        self.name, self.rows, self.files, self.opened, self._openers = name, rows, files, opened, openers
        self._indexes: dict[str, Index] = {}
        self._absent: dict[str, Column] = {}
        self._barren: set[str] = set()

    @property
    def n(self) -> int:
        return self.rows.n

    @property
    def draft(self) -> bool:
        """Whether its indexes are scans that quicker ones are to replace."""
        return bool(self.files.get("draft"))

    @property
    def leaf(self) -> int | None:
        """Its leaf in the layout (layout.py); None where its rows are of any."""
        return self.files.get("leaf")

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self._openers)

    def index(self, name: str) -> Any:
        made = self._indexes.get(name)
        if made is None:
            made = self._indexes[name] = self._openers[name]()
        return made

    def find(self, keys: Keys, alive: Bits) -> NDArray[np.int64]:
        rows = self.rows.find(keys)
        return np.where(bits.is_set(alive, rows), rows, -1)

    def keys_of(self, rows: Array) -> list[Any]:
        return self.rows.keys_of(rows)

    def values(self, name: str, rows: Array) -> list[Any]:
        return self.rows.values(name, rows)

    def documents(self, rows: Array) -> list[Document]:
        return self.rows.documents(rows)

    def column(self, name: str, type: str, n: int) -> Column:
        found = self.rows.column(name)
        if found is None:
            found = self._absent.get(name)
        if found is None:
            found = self._absent[name] = concatenated(name, type, [(None, np.arange(n))])
        return found

    def passing(self, where: Expression, types: Mapping[str, str], n: int) -> Bits | None:
        """Rows that passed a filter when they were stored, dead ones too; None where what is known of columns tells
        that there are none."""
        key = where.key
        if key in self._barren:
            return None
        columns = {name: self.column(name, types[name], n) for name in where.columns if name in types}
        try:
            found = filters.bits_if_any(where, columns, n)
        except DAMAGE as problem:
            raise self.rows.damaged(problem) from problem
        if found is None:
            if len(self._barren) >= _BARREN:
                self._barren.clear()
            self._barren.add(key)
        return found


Source = Stored | Tail


@dataclass(frozen=True, eq=False)
class Part:
    """What one snapshot sees of a source. Changes make another part; unchanged ones are shared by snapshots.

    Attributes
    ----------
    source : Stored or Tail
    n : int
        Rows seen, dead ones included.
    alive : ndarray of uint64
        A bit a row.
    n_alive : int
    patches : mapping
        Rows whose metadata was updated after they were put.
    applied : int
        The log up to this record has had its effect on the part as the catalogue names it.
    """

    source: Source
    n: int
    alive: Bits
    n_alive: int
    patches: Patches = field(default_factory=dict)
    applied: int = 0
    _filters: dict[Any, Any] = field(default_factory=dict, repr=False)
    _passing: dict[Any, Allowed] = field(default_factory=dict, repr=False)

    @classmethod
    def whole(cls, stored: Stored, applied: int) -> "Part":
        """All rows of a new segment."""
        return cls(stored, stored.n, bits.all_set(stored.n), stored.n, NO_PATCHES, applied)

    # -- changes -----------------------------------------------------------------------------------------------------

    def without(self, rows: Array) -> "Part":
        """This part after the death of rows that are alive."""
        if not len(rows):
            return self
        patches = self.patches
        if patches:
            gone = set(rows.tolist())
            if not gone.isdisjoint(patches):
                patches = {row: changes for row, changes in patches.items() if row not in gone}
        alive = bits.cleared(self.alive, rows)
        return self._with(alive=alive, n_alive=self.n_alive - len(rows), patches=patches)

    def patched(self, rows: Array, changes: Sequence[Mapping[str, Any]]) -> "Part":
        """This part with other metadata in some rows."""
        if not len(rows):
            return self
        patches = dict(self.patches)
        for row, change in zip(rows.tolist(), changes, strict=True):
            patches[row] = {**patches.get(row, {}), **change}
        return self._with(patches=patches)

    def longer(self, n: int) -> "Part":
        """This part with so many rows more, all alive."""
        alive = bits.extended(self.alive, self.n, n)
        return self._with(n=self.n + n, alive=alive, n_alive=self.n_alive + n)

    def _with(self, **changes: Any) -> "Part":
        kept = self._filters if "patches" not in changes or changes["patches"] is self.patches else {}
        return replace(self, **changes, _filters=kept if "n" not in changes else {}, _passing={})

    # -- reading -----------------------------------------------------------------------------------------------------

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each key that is alive here, or -1."""
        return self.source.find(keys, self.alive)

    def rows(self) -> NDArray[np.int64]:
        """Rows alive, ascending."""
        return bits.rows_of(self.alive)

    def keys_of(self, rows: Array) -> list[Any]:
        return self.source.keys_of(rows)

    def documents(self, rows: Array) -> list[Document]:
        return self.source.documents(rows)

    def values(self, name: str, rows: Array) -> list[Any]:
        """Plain values of a column in some rows."""
        found = self.source.values(name, rows)
        if self.patches:
            for i, row in enumerate(rows.tolist()):
                changes = self.patches.get(row)
                if changes is not None and name in changes:
                    found[i] = changes[name]
        return found

    def vectors(self, name: str, rows: Array) -> Vectors:
        """Stored vectors of some rows, as they came."""
        index = self.source.index(name)
        made = index.get(rows)
        return Vectors(made, "bits" if index._store.kind == "bits" else str(made.dtype))  # type: ignore[arg-type]

    def passing(self, where: Expression | None, types: Mapping[str, str]) -> Allowed:
        """The rows alive that pass a filter, as bits; no word of them where it is `skipped`."""
        key = None if where is None else where.key
        known = self._passing.get(key)
        if known is None:
            known = self._found(where, types)
            _make_room(self._passing, max(_LEAST_KEPT, _MEANING_BYTES // (4 * self.n + 1)))
            self._passing[key] = known
        return known

    def _found(self, where: Expression | None, types: Mapping[str, str]) -> Allowed:
        if where is None:
            return Allowed(self.alive, self.n_alive)
        key = where.key
        found = self._filters.get(key)
        if found is None:
            found = self._evaluate(where, types)
            _make_room(self._filters, max(_LEAST_KEPT, _BITS_BYTES // (self.n // 8 + 1)))
            self._filters[key] = found
        if found is _NONE:
            return _SKIPPED
        passing = found & self.alive[: len(found)]
        return Allowed(passing, bits.count(passing))

    def _evaluate(self, where: Expression, types: Mapping[str, str]) -> Bits:
        touched = [row for row, changes in self.patches.items() if not where.columns.isdisjoint(changes)]
        found = self.source.passing(where, types, self.n)
        if found is None:
            found = np.zeros((self.n + 63) // 64, np.uint64) if touched else _NONE
        if touched:  # the same question to the rows that were patched, with their new values
            rows = np.array(touched, np.int64)
            renewed = {n: Column.from_values(n, self.values(n, rows), types[n]) for n in where.columns if n in types}
            passes = filters.evaluate(where, renewed, len(rows))
            mask = bits.unpack(found, self.n).copy()
            mask[rows] = passes
            found = bits.pack(mask)
        return found


def _make_room(held: dict[Any, Any], most: int) -> None:
    """Forget the oldest, until there are fewer than so many; other readers may do the same meanwhile."""
    while len(held) >= most:
        with contextlib.suppress(RuntimeError, StopIteration):
            held.pop(next(iter(held)), None)


def skipped(allowed: Allowed) -> bool:
    """Whether a part was not looked at, as what is known of its columns tells that nothing in it passes."""
    return allowed is _SKIPPED
