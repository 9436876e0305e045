"""What searches and reads of a collection return: answers that know their rows, and read them when they are asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly.collection.paging import Seen, cursor_of
from nearly.collection.parts import Part
from nearly.collection.rows import Document
from nearly.hits import Context, Hit, Hits, RangeHits, Tabular

__all__ = ["Found", "FoundInRange", "Joiner", "Row", "Rows", "locators"]

Array = NDArray[Any]
_SHIFT = 32  # a locator is the number of a part, then the row in it


def locators(part: int, rows: Array) -> NDArray[np.int64]:
    """Rows of a part as numbers that tell where they are; empty slots (-1) stay."""
    return np.where(rows < 0, -1, rows | (part << _SHIFT)).astype(np.int64)


class Row(NamedTuple):
    """One row: its key, its metadata, and its document and vector where they were asked for."""

    id: Any
    metadata: dict[str, Any]
    document: Document = None
    vector: Any = None


class Joiner:
    """Finds the rows of locators in the snapshot that a search saw.

    Parameters
    ----------
    parts : sequence of Part
    names : sequence of str
        Columns of metadata to join.
    integer_keys : bool
    """

    def __init__(self, parts: Sequence[Part], names: Sequence[str], integer_keys: bool) -> None:
        self.parts, self.names, self.integer_keys = parts, names, integer_keys

    def _groups(self, at: Array) -> "list[tuple[Part, Sequence[int], Array]]":
        """For each part its places among flat locators, and its rows there."""
        if len(self.parts) == 1 and (not len(at) or at.min() >= 0):
            return [(self.parts[0], range(len(at)), at)]
        which = at >> _SHIFT
        groups: list[tuple[Part, Sequence[int], Array]] = []
        for number in sorted(set(which.tolist()) - {-1}):
            places = np.flatnonzero(which == number)
            groups.append((self.parts[number], places.tolist(), at[places] & 0xFFFFFFFF))
        return groups

    def keys(self, at: Array) -> Array:
        """Keys in the shape of the locators: int64 with -1, or objects with None, in empty slots."""
        flat = at.reshape(-1)
        made = np.full(len(flat), -1, np.int64) if self.integer_keys else np.empty(len(flat), object)
        for part, places, rows in self._groups(flat):
            made[slice(None) if len(places) == len(flat) else places] = part.keys_of(rows)
        return made.reshape(at.shape)

    def metadata(self, at: Array) -> dict[str, Array]:
        """Columns in the shape of the locators, objects: None where there is no value."""
        flat = at.reshape(-1)
        groups = self._groups(flat)

        def column(name: str) -> Array:
            return _objects(len(flat), groups, lambda part, rows: part.values(name, rows)).reshape(at.shape)

        return {name: column(name) for name in self.names}

    def documents(self, at: Array) -> Array:
        """Documents in the shape of the locators."""
        flat = at.reshape(-1)
        return _objects(len(flat), self._groups(flat), lambda part, rows: part.documents(rows)).reshape(at.shape)

    def vectors(self, at: Array, field: str) -> list[Any]:
        """Vectors of flat locators."""
        made: list[Any] = [None] * len(at)
        for part, places, rows in self._groups(at):
            for place, vector in zip(places, part.source.index(field).get(rows), strict=True):
                made[place] = vector
        return made


_Groups = Sequence[tuple[Part, Sequence[int], Array]]


def _objects(n: int, groups: _Groups, read: Callable[[Part, Array], list[Any]]) -> Array:
    """Values that are objects, lists among them; None where no group has a place."""
    if len(groups) == 1 and len(groups[0][1]) == n:
        part, _, rows = groups[0]
        return np.fromiter(read(part, rows), object, n)
    made = np.empty(n, object)
    for part, places, rows in groups:
        for place, value in zip(places, read(part, rows), strict=True):  # assigned at once, lists would be a matrix
            made[place] = value
    return made


class _Joined:
    """Keys, metadata and documents of an answer, read when they are first asked for."""

    __slots__ = ()

    _joiner: Joiner
    _joined: dict[str, Any]

    def _read(self, name: str, at: Array) -> Any:
        held = self._joined.get(name)
        if held is None:
            held = self._joined[name] = getattr(self._joiner, name)(at)
        return held


class Found(Hits, _Joined):
    """Neighbors in a collection: `Hits` whose ids are keys, and whose metadata and documents are read when asked for.

    Attributes
    ----------
    ids : ndarray
        int64, or objects (str) where keys are texts; padded with -1, or None.
    metadata : mapping of str to ndarray of objects
        In the shape of ``ids``; None where a row has no value.
    documents : ndarray of objects
        str, bytes or None.
    cursor : str
        Where this answer ends: pass it as ``after=`` for the next ones. Of one query.
    """

    __slots__ = ("_batch", "_joined", "_joiner", "_seen")

    def __init__(
        self, at: Any, distances: Any, single: bool, context: Context, work: Any, joiner: Joiner,
        batch: "tuple[Found, int | slice] | None" = None, trimmed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(at, distances, single, context, work)
        self._trimmed |= trimmed
        self._joiner, self._joined, self._batch = joiner, {}, batch
        self._seen: Seen | None = None

    @property
    def _at(self) -> NDArray[np.int64]:
        return Hits.ids.fget(self)  # type: ignore[attr-defined,no-any-return]

    @property
    def ids(self) -> Array:
        """Keys, nearest first."""
        keys = self._joined.get("keys")
        if keys is None:
            if not self._trimmed:
                self._trim()
            if self._batch is None:
                return self._read("keys", self._ids)  # type: ignore[no-any-return]
            batch, place = self._batch  # whose keys are read at once: who reads those of one reads others too
            keys = batch.ids[place]
            if len(keys) != len(self._ids):
                keys = keys[: len(self._ids)]
            self._joined["keys"] = keys
        return keys

    @property
    def metadata(self) -> Mapping[str, Array]:
        """Columns beside the ids."""
        return self._read("metadata", self._at)  # type: ignore[no-any-return]

    @property
    def documents(self) -> Array:
        """Documents beside the ids."""
        return self._read("documents", self._at)  # type: ignore[no-any-return]

    @property
    def cursor(self) -> str:
        """Where this answer ends."""
        return cursor_of(self, self._seen)

    def __len__(self) -> int:
        return len(self._at)

    def __iter__(self) -> Iterator[Any]:
        if self.single:
            return map(Hit, self.ids.tolist(), self.distances.tolist())
        context, work, joiner = self._context, self._work, self._joiner
        rows = self._at
        whole = bool(rows.shape[1]) and bool((rows[:, -1] >= 0).all())  # nothing is to be trimmed of any
        return (
            Found(at, far, True, context, work, joiner, (self, i), whole)
            for i, (at, far) in enumerate(zip(rows, self.distances, strict=True))
        )

    def __getitem__(self, at: int | slice) -> Any:
        places, distances = self._at[at], self.distances[at]
        one = not isinstance(at, slice)
        if one and self.single:
            key: Any = self.ids[at]
            return Hit(key.item() if isinstance(key, np.generic) else key, float(distances))
        return Found(places, distances, one or self.single, self._context, self._work, self._joiner, (self, at))

    def _columns(self) -> dict[str, Array]:
        at, distances = np.atleast_2d(self._at), np.atleast_2d(self.distances)
        query, rank = np.nonzero(at >= 0)
        found = at[query, rank]
        columns: dict[str, Array] = {"query": query, "rank": rank, "id": self._joiner.keys(found)}
        columns |= {"distance": distances[query, rank], "score": np.atleast_2d(self.scores)[query, rank]}
        return _beside(columns, self._joiner.metadata(found))


class FoundInRange(RangeHits, _Joined):
    """`RangeHits` whose ids are keys, as `Found`."""

    __slots__ = ("_at", "_joined", "_joiner")

    def __init__(
        self, at: Array, distances: Array, offsets: Array, single: bool, context: Context, work: Any, joiner: Joiner
    ) -> None:
        self._at, self._joiner, self._joined = at, joiner, {}
        super().__init__(joiner.keys(at), distances, offsets, single, context, work)

    @property
    def metadata(self) -> Mapping[str, Array]:
        """Columns beside the ids."""
        return self._read("metadata", self._at)  # type: ignore[no-any-return]

    @property
    def documents(self) -> Array:
        """Documents beside the ids."""
        return self._read("documents", self._at)  # type: ignore[no-any-return]

    def _query(self, i: int) -> Hits:
        at = slice(self.offsets[i], self.offsets[i + 1])
        return Found(self._at[at], self.distances[at], True, self._context, self._work, self._joiner)

    def __getitem__(self, at: int | slice) -> Any:
        if self.single or not isinstance(at, slice):
            return super().__getitem__(at)
        chosen = range(len(self))[at]
        if chosen.step != 1:
            return super().__getitem__(at)
        offsets = self.offsets[chosen.start : chosen.start + len(chosen) + 1]
        flat = slice(offsets[0], offsets[-1])
        return FoundInRange(
            self._at[flat], self.distances[flat], offsets - offsets[0], False, self._context, self._work, self._joiner
        )

    def _columns(self) -> dict[str, Array]:
        return _beside(super()._columns(), self._joiner.metadata(self._at))


def _beside(columns: dict[str, Array], metadata: dict[str, Array]) -> dict[str, Array]:
    """Columns of an answer, then of metadata; of two with one name that of metadata says what it is."""
    return columns | {f"metadata.{name}" if name in columns else name: c for name, c in metadata.items()}


class Rows(Tabular, Sequence[Row]):
    """Rows that were read: a sequence of `Row`, and the same by columns.

    Attributes
    ----------
    ids : ndarray
    metadata : dict of str to ndarray of objects
    documents : ndarray of objects, or None where they were not asked for
    vectors : list or None
        A vector for each row, or a dict of vectors where several fields were asked for.

    Examples
    --------
    >>> rows = Rows(np.array([4, 7]), {"year": np.array([1999, None], object)}, None, None)
    >>> rows[0].metadata, [row.id for row in rows]
    ({'year': 1999}, [4, 7])
    """

    def __init__(self, ids: Array, metadata: dict[str, Array], documents: Array | None, vectors: Any) -> None:
        self.ids, self.metadata, self.documents, self.vectors = ids, metadata, documents, vectors

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            documents = None if self.documents is None else self.documents[at]
            vectors = None if self.vectors is None else self.vectors[at]
            return Rows(self.ids[at], {name: v[at] for name, v in self.metadata.items()}, documents, vectors)
        key = self.ids[at]
        return Row(
            key.item() if isinstance(key, np.generic) else key,
            {name: column[at] for name, column in self.metadata.items()},
            None if self.documents is None else self.documents[at],
            None if self.vectors is None else self.vectors[at],
        )

    def __repr__(self) -> str:
        lines = "".join(f"\n  {row.id!r}: {row.metadata}" for row in self[:3])
        return f"Rows: {len(self)} rows{lines}" + ("\n  ..." if len(self) > 3 else "")

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {"id": self.ids.tolist()}
        columns |= {name: column.tolist() for name, column in self.metadata.items()}
        if self.documents is not None:
            columns["document"] = self.documents.tolist()
        if self.vectors is not None:
            several = len(self.vectors) and isinstance(self.vectors[0], dict)
            names = self.vectors[0] if several else ()
            columns |= {n: [row[n] for row in self.vectors] for n in names} or {"vector": list(self.vectors)}
        return columns
