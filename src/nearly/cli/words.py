"""Text to vectors without a model: hashed words and letter groups, a random projection, principal components.

Salton & Buckley (1988), https://doi.org/10.1016/0306-4573(88)90021-0, for the weights of words; Weinberger et al. (ICML
2009), https://doi.org/10.1145/1553374.1553516, for hashing; Achlioptas (2003),
https://doi.org/10.1016/S0022-0000(03)00025-4, for the projection by signs; Deerwester et al. (1990) for principal
components of texts.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Words", "count"]

Floats = NDArray[np.float32]

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")  # readlines in readLines, XML in XMLParser
_BUCKETS = 1 << 15  # of hashed features
_WIDTH = 512  # of the random projection: similarities err by about 1/sqrt(512)
_GROUPS = (3, 4, 5)  # letters; so that "compressing" is near "compress"
_GROUP_WEIGHT = 0.5  # all letter groups of a word beside the word itself, by hand
_COMMON = 0.2  # share of texts with a word from which on it says nothing
_BLOCK = 512


def count(*parts: tuple[str, float]) -> dict[str, float]:
    """Return how often each word stands in some weighted texts, lower case, single letters left out.

    Examples
    --------
    >>> count(("readLines", 2.0), ("Read a line", 1.0))
    {'read': 3.0, 'lines': 2.0, 'line': 1.0}
    """
    counts: dict[str, float] = {}
    for text, weight in parts:
        for word in _WORD.findall(text):
            if len(word) > 1:
                word = word.lower()
                counts[word] = counts.get(word, 0.0) + weight
    return counts


class Words:
    """What turns text into unit vectors, fitted to some texts.

    Parameters
    ----------
    texts : sequence of mappings
        Word counts of each text, from `count`.
    dim : int
        Length of the vectors, at most 512.
    seed : int
        Of the projection.

    Attributes
    ----------
    vectors : ndarray of shape (n_texts, dim), float32
        Of the texts it was fitted to; zero for a text without a known word.

    Examples
    --------
    >>> words = Words([count((text, 1.0)) for text in ("copy a file", "copy a folder", "square root")], dim=2)
    >>> words.vectors.shape, int(np.argmax(words.vectors @ words.embed("the root of a number")))
    ((3, 2), 2)
    """

    def __init__(self, texts: Sequence[Mapping[str, float]], *, dim: int, seed: int = 0) -> None:
        drawn = np.frombuffer(np.random.default_rng(seed).bytes(_BUCKETS * _WIDTH // 8), np.uint8)
        self._signs = np.unpackbits(drawn).view(np.int8).reshape(_BUCKETS, _WIDTH)
        self._signs *= 2
        self._signs -= 1
        self._known = {word: i for i, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
        starts = np.cumsum([0, *map(len, texts)])
        which = np.fromiter((self._known[word] for text in texts for word in text), np.int64, starts[-1])
        often = np.fromiter((value for text in texts for value in text.values()), np.float32, starts[-1])
        share = np.bincount(which, minlength=len(self._known)) / max(1, len(texts))
        rare = np.where(share > max(_COMMON, 1.5 / max(1, len(texts))), 0, np.log1p(1 / np.maximum(share, 1e-9)))
        self._unknown = float(np.log1p(len(texts)))  # the weight of a word that no text has
        self._words = self._of(list(self._known)) * rare[:, None].astype(np.float32)
        wide = np.zeros((len(texts), _WIDTH), np.float32)
        for first in range(0, len(texts), _BLOCK):
            at = starts[first : first + _BLOCK + 1]
            part = slice(at[0], at[-1])
            rows = self._words[which[part]] * np.log1p(often[part])[:, None]
            wide[first : first + len(at) - 1] = _sums(rows, at - at[0])
        wide = _unit(wide)
        values, axes = np.linalg.eigh(wide.T @ wide)
        axes = axes[:, np.argsort(-values, kind="stable")[:dim]]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        self._axes = (axes * np.where(largest < 0, -1, 1)).astype(np.float32)  # a sign is a matter of the library
        self.vectors = _unit(wide @ self._axes)

    def embed(self, text: str) -> Floats:
        """Return the vector of a text, unit or zero, of shape (dim,)."""
        counts = count((text, 1.0))
        wide = np.zeros(_WIDTH, np.float32)
        for word, often in counts.items():
            row = self._known.get(word)
            vector = self._words[row] if row is not None else self._of([word])[0] * np.float32(self._unknown)
            wide += vector * np.float32(math.log1p(often))
        found: Floats = _unit((wide @ self._axes)[None])[0]
        return found

    def _of(self, words: Sequence[str]) -> Floats:
        """Words as they are projected, before their weights."""
        out = np.empty((len(words), _WIDTH), np.float32)
        for first in range(0, len(words), _BLOCK):
            block = [_features(word) for word in words[first : first + _BLOCK]]
            starts = np.cumsum([0, *map(len, block)])
            groups = _sums(self._signs[np.concatenate(block)], starts)
            own = self._signs[[features[0] for features in block]].astype(np.float32)
            n_groups = np.maximum(1, np.diff(starts) - 1)[:, None].astype(np.float32)
            out[first : first + len(block)] = own + _GROUP_WEIGHT / np.sqrt(n_groups) * (groups - own)
        out /= np.float32(math.sqrt(_WIDTH))
        return out


def _features(word: str) -> NDArray[np.int64]:
    """Buckets of a word: itself first, then its letter groups."""
    edged = f"<{word}>"
    groups = [edged[i : i + n] for n in _GROUPS for i in range(len(edged) - n + 1)]
    return np.array([zlib.crc32(part.encode()) % _BUCKETS for part in (word, *groups)], np.int64)


def _sums(rows: NDArray[np.float32] | NDArray[np.int8], starts: NDArray[np.int64]) -> Floats:
    """Sums of consecutive rows; an empty run gives zeros."""
    out = np.zeros((len(starts) - 1, rows.shape[1]), np.float32)
    filled = np.flatnonzero(np.diff(starts))
    if len(filled):
        out[filled] = np.add.reduceat(rows, starts[filled], axis=0, dtype=np.float32)
    return out


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    out = np.zeros_like(rows)
    np.divide(rows, norms, out=out, where=norms > 1e-6)
    return out
