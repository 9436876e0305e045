"""Traces of bytes that were erased: enough to know them again in a file, too little to make them anew.

Of a text or a vector, pieces of 16 octets are remembered: one for each 2 KiB and four at least, the first and the last
among them, so that a page of SQLite (4 KiB) full of it has a whole one. Of a piece that is 128 bits of a keyed BLAKE2b
(RFC 7693), and 32 bits of a sum of products by which a scan passes over nearly everything (multiply-shift,
Dietzfelbinger et al. 1997, https://doi.org/10.1006/jagm.1997.0873). The key is the collection's own. Nothing is found
by chance: pieces that differ have one hash with probability 2**-128. Who guesses all 16 octets can tell whether they
were there.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

__all__ = ["Traces", "hash_of", "pieces_of"]

PIECE = 16
_EVERY = 2048
_LEAST = 4
_DISTINCT = 6  # values of octets in a piece; zeros, spaces and small numbers are in every file
_BITS = 20  # of the table that a scan looks into first
BLOCK = 1 << 18  # octets that are scanned at a time: what the caches hold


def pieces_of(octets: bytes) -> list[bytes]:
    """The pieces that stand for some octets; none of fewer than 16, or of hardly any different ones.

    Examples
    --------
    >>> pieces_of(b"the end of all things")
    [b'the end of all t', b'he end of all th', b' end of all thin', b'nd of all things']
    >>> pieces_of(bytes(100))
    []
    """
    last = len(octets) - PIECE
    if last < 0:
        return []
    starts = np.unique(np.linspace(0, last, max(_LEAST, -(-last // _EVERY) + 1)).astype(np.int64))
    found = [octets[at : at + PIECE] for at in starts.tolist()]
    return [piece for piece in found if len(set(piece)) >= _DISTINCT]


class Traces:
    """Traces of a collection, made and found by its key.

    Parameters
    ----------
    key : bytes
        16 random octets.
    known : iterable of (int, bytes)
        What `of` gave: those that `find` looks for.

    Examples
    --------
    >>> made = Traces(bytes(16)).of([b"what nobody may read again"])
    >>> len(made), Traces(bytes(16), made).find(b"... what nobody may read again ...") == {hash for _, hash in made}
    (4, True)
    """

    def __init__(self, key: bytes, known: Iterable[tuple[int, bytes]] = ()) -> None:
        self.key = key
        self._factors = np.frombuffer(blake2b(key, digest_size=16).digest(), "<u8") | np.uint64(1)
        listed = list(known)
        self._hashes = {hash for _, hash in listed}
        self._sums = np.unique(np.array([each for each, _ in listed], np.uint32))
        self._table = np.zeros(1 << _BITS, bool)
        self._table[self._sums >> np.uint32(32 - _BITS)] = True

    def __len__(self) -> int:
        return len(self._hashes)

    def of(self, contents: Iterable[bytes]) -> list[tuple[int, bytes]]:
        """The sum and the hash of each piece of some contents."""
        found = {piece: None for octets in contents for piece in pieces_of(octets)}
        return [(int((_words(p) * self._factors).sum() >> np.uint64(32)), self._hash(p)) for p in found]

    def find(self, octets: bytes) -> set[bytes]:
        """The hashes of known pieces that are in some octets, wherever they begin."""
        if not self._hashes:
            return set()
        likely = (piece for first in range(0, len(octets), BLOCK) for piece in self._likely(octets, first))
        return {hash for hash in map(self._hash, likely) if hash in self._hashes}

    def _likely(self, octets: bytes, start: int) -> Iterator[bytes]:
        """Pieces of a block whose sum is known, by eight rows of words: one from each of the first octets on."""
        sums, products = np.empty((2, BLOCK // 8), np.uint64)
        there = np.empty(BLOCK // 8, bool)
        for first in range(start, min(start + 8, len(octets) - PIECE + 1)):
            n = min(BLOCK // 8, (len(octets) - first) // 8 - 1)
            words = _words(octets, first, n + 1)
            x, y, z = sums[:n], products[:n], there[:n]
            np.multiply(words[:-1], self._factors[0], out=x)
            np.multiply(words[1:], self._factors[1], out=y)
            np.add(x, y, out=x)
            np.right_shift(x, np.uint64(64 - _BITS), out=y)
            np.take(self._table, y.view(np.int64), out=z, mode="clip")
            at = np.flatnonzero(z)
            upper = (x[at] >> np.uint64(32)).astype(np.uint32)
            at = at[self._sums[np.searchsorted(self._sums[:-1], upper)] == upper]
            yield from (octets[i : i + PIECE] for i in (at * 8 + first).tolist())

    def _hash(self, piece: bytes) -> bytes:
        return hash_of(piece, self.key)


def hash_of(octets: bytes, salt: bytes) -> bytes:
    """BLAKE2b of 128 bits under a salt."""
    return blake2b(octets, key=salt, digest_size=16).digest()


def _words(octets: bytes, first: int = 0, n: int = 2) -> NDArray[np.uint64]:
    return np.frombuffer(octets, "<u8", n, first)
