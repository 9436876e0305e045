"""The keys of rows: integers or texts, and how a row is found by its key.

Rows are found by the sorted 64-bit hashes of their keys, which are mapped with the rest of a segment: a lookup is a
binary search and one comparison, and no collection keeps all its keys in Python.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly import arrays
from nearly.arrays.words import describe, listing
from nearly.errors import IdError

__all__ = ["Key", "KeyKind", "Keys", "as_keys", "kind_of"]

Key: TypeAlias = int | str
KeyKind: TypeAlias = Literal["int", "str"]
Array: TypeAlias = NDArray[Any]


class Keys:
    """The keys of some rows, in their order.

    Parameters
    ----------
    values : ndarray of int64, or list of str
    """

    __slots__ = ("_hashes", "values")

    def __init__(self, values: NDArray[np.int64] | list[str]) -> None:
        self.values = values
        self._hashes: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """The hash of each key, made once."""
        if self._hashes is None:
            values = self.values
            self._hashes = _mixed(values) if isinstance(values, np.ndarray) else _digests(values)
        return self._hashes

    def tolist(self) -> list[Any]:
        return self.values.tolist() if isinstance(self.values, np.ndarray) else self.values

    def take(self, rows: Array) -> "Keys":
        if isinstance(self.values, np.ndarray):
            return Keys(self.values[rows])
        return Keys([self.values[i] for i in rows.tolist()])

    def columns(self) -> dict[str, Array]:
        """The arrays that `Mapped` reads."""
        order = np.argsort(self.hashes, kind="stable")
        found: dict[str, Array] = {"hashes": self.hashes[order], "hash_rows": order.astype(np.uint32)}
        if isinstance(self.values, np.ndarray):
            return {**found, "keys": self.values}
        octets, offsets = joined(text.encode() for text in self.values)
        return {**found, "key_octets": octets, "key_offsets": offsets}


class Mapped:
    """Keys as they lie in a file: `Keys.columns`, and the search among them."""

    __slots__ = ("_hash_rows", "_hashes", "_keys", "_octets", "_offsets", "n")

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self._hashes, self._hash_rows = columns["hashes"], columns["hash_rows"]
        self._keys = columns.get("keys")
        self._octets, self._offsets = columns.get("key_octets"), columns.get("key_offsets")
        self.n = len(self._hashes)

    def take(self, rows: Array) -> list[Any]:
        """The keys of some rows."""
        if self._keys is not None:
            found: list[Any] = self._keys[rows].tolist()
            return found
        assert self._octets is not None
        assert self._offsets is not None
        spans = zip(self._offsets[rows].tolist(), self._offsets[rows + 1].tolist(), strict=True)
        octets = self._octets.data
        return [str(octets[a:b], "utf-8") for a, b in spans]

    def find(self, wanted: Keys) -> NDArray[np.int64]:
        """The row of each key, -1 where there is none."""
        rows = np.full(len(wanted), -1, np.int64)
        if not self.n:
            return rows
        hashes = wanted.hashes
        at = np.searchsorted(self._hashes, hashes)
        active = np.arange(len(wanted))
        while len(active):  # more than once only where two keys have one hash
            here = np.minimum(at, self.n - 1)
            same = (at < self.n) & (self._hashes[here] == hashes[active])
            active, here, at = active[same], here[same], at[same]
            found = self._hash_rows[here].astype(np.int64)
            equal = self._equal(found, wanted, active)
            rows[active[equal]] = found[equal]
            active, at = active[~equal], at[~equal] + 1
        return rows

    def _equal(self, rows: NDArray[np.int64], wanted: Keys, which: Array) -> NDArray[np.bool_]:
        values = wanted.values
        if self._keys is not None and isinstance(values, np.ndarray):
            return np.asarray(self._keys[rows] == values[which])
        mine = self.take(rows)
        return np.fromiter((key == values[i] for key, i in zip(mine, which.tolist(), strict=True)), bool, len(rows))


def kind_of(ids: Any) -> KeyKind:
    """What the first ids of a collection make of its keys."""
    if isinstance(ids, str):
        return "str"
    array = ids if isinstance(ids, np.ndarray) else None
    if array is not None and array.dtype.kind in "US":
        return "str"
    first = next(iter(ids), 0) if isinstance(ids, Iterable) else ids
    return "str" if isinstance(first, str) else "int"


def as_keys(ids: Any, kind: KeyKind, *, n: int | None = None, name: str = "ids", unique: bool = True) -> Keys:
    """Turn what a user passed as ids into keys of one kind; raises IdError that says what is wrong."""
    if kind == "int":
        return Keys(_as_integers(ids, n, name, unique))
    if isinstance(ids, str):
        ids = [ids]
    if n is not None and isinstance(ids, Set):
        raise IdError(f"{name} is {describe(ids)}, which has no order; pass a list, in the order of the rows")
    if not isinstance(ids, list):
        ids = ids.tolist() if hasattr(ids, "tolist") else ids.to_pylist() if hasattr(ids, "to_pylist") else ids
    if isinstance(ids, bytes) or not isinstance(ids, Iterable):
        raise IdError(f"{name} is {describe(ids)}, but the keys of this collection are str; pass a str for each row")
    values = list(ids)
    for i, key in enumerate(values):
        if type(key) is not str:
            if not isinstance(key, str):
                raise IdError(f"{name}[{i}] is {describe(key)}, but the keys of this collection are str")
            values[i] = str.__str__(key)
        if not key.isascii():
            _check_unicode(key, i, name)
    if n is not None and len(values) != n:
        raise IdError(f"{name} holds {len(values)} ids, but there are {n} rows; pass one id for each")
    if unique and len(values) > 1 and len(set(values)) < len(values):
        raise IdError(f"{name} must be distinct, but {listing(_repeated(values))} came more than once")
    return Keys(values)


def _as_integers(ids: Any, n: int | None, name: str, unique: bool) -> NDArray[np.int64]:
    if isinstance(ids, str) or (isinstance(ids, Sequence) and len(ids) and isinstance(ids[0], str)):
        raise IdError(f"{name} holds texts, but the keys of this collection are int; pass integers")
    for i, key in enumerate(ids if isinstance(ids, list | tuple) else ()):  # NumPy would say what it made of them all
        if isinstance(key, str | bytes) or (isinstance(key, int) and key >= 2**63):
            raise IdError(f"{name}[{i}] is {describe(key)}, but the keys of this collection are int, below 2**63")
    return arrays.as_ids(ids, n=n, name=name, unique=unique).copy()


def _check_unicode(key: str, i: int, name: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise IdError(f"{name}[{i}] is {describe(key)}, which is not valid Unicode; rename it") from None


def _repeated(values: Iterable[Key]) -> list[Key]:
    seen: set[Key] = set()
    twice: dict[Key, None] = {}
    for value in values:
        if value in seen:
            twice[value] = None
        seen.add(value)
    return list(twice)


def joined(pieces: Iterable[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Octets of all pieces one after the other, and where each begins."""
    listed = list(pieces)
    offsets = np.zeros(len(listed) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, listed), np.int64, len(listed)), out=offsets[1:])
    return np.frombuffer(b"".join(listed), np.uint8), offsets


def _digests(texts: list[str]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join([blake2b(text.encode(), digest_size=8).digest() for text in texts]), "<u8").astype(
        np.uint64
    )


def _mixed(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A bijection that spreads integers over 64 bits: SplitMix64's output function (Steele et al., OOPSLA 2014)."""
    x = values.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
