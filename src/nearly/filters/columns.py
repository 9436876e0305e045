"""Columns of metadata: fixed-width arrays with a bit a row that says whether there is a value."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.inference import convert, infer_type
from nearly.filters.spans import Spans

__all__ = ["TYPES", "Column", "Dictionary", "pack", "unpack"]

Array: TypeAlias = NDArray[Any]

# What values of each type are stored as; integers may be narrower where all fit.
TYPES = {
    "bool": "bool",
    "int": "int8, int16, int32 or int64",
    "float": "float64",
    "str": "uint8, uint16 or int32 positions in the dictionary",
    "date": "int32 days since 1970-01-01",
    "datetime": "int64 microseconds since 1970-01-01, UTC",
    "list[str]": "uint8, uint16 or int32 positions in the dictionary, row i from offsets[i] to offsets[i + 1]",
    "json": "as str, of JSON texts",
}
_DTYPES = {
    "bool": ["bool"],
    "int": ["int8", "int16", "int32", "int64"],
    "float": ["float64"],
    "str": ["uint8", "uint16", "int32"],
    "date": ["int32"],
    "datetime": ["int64"],
}
_KINDS = {"bool": 1, "int": 2, "float": 3, "str": 4}  # by what the core knows constants to compare them with
_DECODED = 4096  # texts that are decoded all at once when a place among them is asked for
_DTYPES["list[str]"] = _DTYPES["json"] = _DTYPES["str"]
_FEW = 64  # different values up to which each is remembered


def pack(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return a bit a row, row 0 the lowest bit of word 0; bits past the end are 0."""
    words = np.zeros((len(mask) + 63) // 64, np.uint64)
    words.view(np.uint8)[: (len(mask) + 7) // 8] = np.packbits(mask, bitorder="little")
    return words


def unpack(bits: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    """Return what `pack` was given."""
    return np.unpackbits(bits.view(np.uint8), count=n, bitorder="little").view(np.bool_)


class Dictionary:
    """Distinct texts in the order of their UTF-8 bytes, which is that of their code points.

    Parameters
    ----------
    offsets : ndarray of shape (m + 1,), int64
        Text i is ``octets[offsets[i]:offsets[i + 1]]``.
    octets : ndarray of uint8
        UTF-8. Both may be mapped from a file.

    Examples
    --------
    >>> texts, codes = Dictionary.from_texts(["de", "en", "de"])
    >>> texts.texts, codes.tolist()
    (['de', 'en'], [0, 1, 0])
    >>> texts.place("dx")
    (1, False)
    """

    __slots__ = ("_texts", "_views", "octets", "offsets")

    def __init__(self, offsets: NDArray[np.int64], octets: NDArray[np.uint8]) -> None:
        if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) < 1 or octets.dtype != np.uint8:
            raise InputError("a dictionary is int64 offsets, one more than texts, and uint8 octets")
        if offsets[0] != 0 or offsets[-1] != len(octets) or bool((offsets[1:] < offsets[:-1]).any()):
            raise InputError(f"the offsets of a dictionary must ascend from 0 to {len(octets)}, its octets")
        self.offsets, self.octets = offsets, octets
        self._views = offsets.data, octets.data  # a value of these is had sooner
        self._texts: list[str] | None = None

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> tuple["Dictionary", NDArray[Any]]:
        """Return the dictionary of some texts, and the position of each in it."""
        texts = list(texts)
        distinct = sorted(set(texts))
        place = {text: i for i, text in enumerate(distinct)}
        encoded = [text.encode() for text in distinct]
        offsets = np.zeros(len(distinct) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=offsets[1:])
        made = cls(offsets, np.frombuffer(b"".join(encoded), np.uint8))
        codes = np.fromiter(map(place.__getitem__, texts), np.int32, len(texts))
        return made, codes.astype(code_dtype(len(distinct)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Dictionary, (self.offsets, self.octets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        return self._octets(i).decode()

    def _octets(self, i: int) -> bytes:
        offsets, octets = self._views
        return octets[offsets[i] : offsets[i + 1]].tobytes()

    @property
    def texts(self) -> list[str]:
        """All texts, decoded once."""
        if self._texts is None:
            octets, ends = self.octets.tobytes(), self.offsets.tolist()
            self._texts = [octets[a:b].decode() for a, b in pairwise(ends)]
        return self._texts

    def place(self, text: str) -> tuple[int, bool]:
        """Return how many texts are before this one, and whether it is among them."""
        try:
            wanted = text.encode()
        except UnicodeEncodeError as problem:
            raise InputError(
                f"{describe(text)} is not valid Unicode ({problem.reason}); nothing stored equals it"
            ) from None
        if self._texts is None and len(self) > _DECODED:
            at = bisect_left(range(len(self)), wanted, key=self._octets)
            return at, at < len(self) and self._octets(at) == wanted
        texts = self.texts
        at = bisect_left(texts, text)
        return at, at < len(texts) and texts[at] == text


class Column:
    """One column of metadata, as filters read it.

    Parameters
    ----------
    name : str
        The name that filters use.
    type : str
        One of ``bool int float str date datetime list[str] json``.
    values : ndarray of shape (n,)
        As `TYPES` says; may be mapped from a file. Where there is no value, anything; no NaN elsewhere. Not to be
        changed afterwards: what filters found out about them is remembered.
    valid : ndarray, optional
        Which rows have a value: bool of shape (n,), or packed uint64 of shape (ceil(n / 64),). All, when None.
    dictionary : Dictionary, optional
        Of ``str``, ``json`` and ``list[str]``.
    offsets : ndarray of shape (n + 1,), int64, optional
        Of ``list[str]``.
    cover : ndarray of shape (m, 2), optional
        What `outline` gave: the ends of spans that hold all values, int64, or float64 where values are.

    Raises
    ------
    InputError
        If dtypes or lengths are not what the type says.

    Examples
    --------
    >>> column = Column.from_values("year", [2021, None, 1999])
    >>> column.type, len(column), column.values.dtype.name
    ('int', 3, 'int16')
    >>> column.to_list()
    [2021, None, 1999]
    """

    __slots__ = ("_cover", "_held", "_n", "dictionary", "name", "offsets", "type", "valid", "values")

    def __init__(
        self,
        name: str,
        type: str,
        values: Array,
        *,
        valid: Array | None = None,
        dictionary: Dictionary | None = None,
        offsets: NDArray[np.int64] | None = None,
        cover: Array | None = None,
    ) -> None:
        if type not in TYPES:
            raise InputError(f"column {name!r} has type {type!r}; choose one of {', '.join(TYPES)}")
        if values.ndim != 1 or values.dtype.name not in _DTYPES[type] or not values.flags.c_contiguous:
            raise InputError(f"column {name!r} of type {type} came as {describe(values)}; pass {TYPES[type]}")
        if (dictionary is None) == (type in ("str", "json", "list[str]")):
            raise InputError(
                f"column {name!r} of type {type} came {'without' if dictionary is None else 'with'} a dictionary"
            )
        if (offsets is None) == (type == "list[str]"):
            raise InputError(f"column {name!r} of type {type} came {'without' if offsets is None else 'with'} offsets")
        n = len(values)
        if offsets is not None:
            if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) < 1 or not offsets.flags.c_contiguous:
                raise InputError(
                    f"column {name!r} came with offsets that are {describe(offsets)}; pass int64, n + 1 of them"
                )
            if offsets[0] != 0 or offsets[-1] != n or bool((offsets[1:] < offsets[:-1]).any()):
                raise InputError(
                    f"the offsets of column {name!r} must ascend from 0 to {n}, the number of its elements"
                )
            n = len(offsets) - 1
        if valid is not None and valid.dtype == np.bool_ and valid.shape == (n,):
            valid = None if valid.all() else pack(valid)
        elif valid is not None and (valid.dtype != np.uint64 or valid.shape != ((n + 63) // 64,)):
            raise InputError(
                f"column {name!r} has {n} rows, but what says which have a value is {describe(valid)}; pass bool of "
                f"shape ({n},), or uint64 of shape ({(n + 63) // 64},)"
            )
        self.name, self.type, self.values, self.dictionary, self.offsets = name, type, values, dictionary, offsets
        self.valid: NDArray[np.uint64] | None = valid
        self._n = n
        # What the core tests: of lists only whether there is one can be asked, which is not its.
        texts = (dictionary.offsets, dictionary.octets) if type == "str" and dictionary is not None else (None, None)
        self._held = None if offsets is not None else _core.Column(values, valid, _KINDS.get(type, 0), *texts)
        self._cover = None if cover is None else self._checked(cover)

    def _checked(self, cover: Array) -> Spans:
        dtype = "float64" if self.type == "float" else "int64"
        right = cover.dtype == dtype and cover.ndim == 2 and cover.shape[1] == 2
        if not right or not (cover[:, 0] <= cover[:, 1]).all() or not (cover[1:, 0] > cover[:-1, 1]).all():
            raise InputError(f"column {self.name!r} came with values between ends that do not ascend")
        return Spans(cover[:, 0].copy(), cover[:, 1].copy(), self.valid is not None)

    @classmethod
    def from_values(cls, name: str, values: Iterable[Any], type: str | None = None) -> "Column":
        """Make a column of Python or NumPy values.

        Parameters
        ----------
        name : str
            The name that filters use.
        values : iterable
            One a row. None, NaN, NaT and pandas.NA are nulls; aware datetimes are turned into UTC.
        type : str, optional
            One of ``bool int float str date datetime list[str] json``; by default what the values are. Integers
            beside floats are floats; lists that hold other things than texts, and dicts, are ``json``.

        Raises
        ------
        InputError
            If values are of several types, do not fit the type, or are all null where no type is given.

        Examples
        --------
        >>> Column.from_values("tags", [["a", "b"], [], None]).type
        'list[str]'
        >>> Column.from_values("x", [1, "one"])
        Traceback (most recent call last):
        ...
        nearly.errors.InputError: column 'x' mixes int (row 0: 1) and str (row 1: 'one'); pass values of one type...
        """
        if type is not None and type not in TYPES:
            raise InputError(f"column {name!r} has type {type!r}; choose one of {', '.join(TYPES)}")
        type = type or infer_type(name, values)
        if type is None:
            raise InputError(f"column {name!r} holds only nulls, so that its type is unknown; pass type=")
        plain, valid = convert(name, values, type)
        if type == "list[str]":
            lengths = [len(each) for each in plain]
            offsets = np.zeros(len(plain) + 1, np.int64)
            np.cumsum(lengths, out=offsets[1:])
            dictionary, codes = Dictionary.from_texts(text for each in plain for text in each)
            return cls(name, type, codes, valid=valid, dictionary=dictionary, offsets=offsets)
        if type in ("str", "json"):
            dictionary, codes = Dictionary.from_texts(plain[valid])
            spread = np.zeros(len(plain), codes.dtype)
            spread[valid] = codes
            return cls(name, type, spread, valid=valid, dictionary=dictionary)
        return cls(name, type, narrowed(plain) if type == "int" else plain, valid=valid)

    def __reduce__(self) -> tuple[Any, ...]:
        cover = None if self._cover is None else np.stack([self._cover.low, self._cover.high], axis=1)
        made = partial(Column, valid=self.valid, dictionary=self.dictionary, offsets=self.offsets, cover=cover)
        return made, (self.name, self.type, self.values)

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        return f"Column({self.name!r}, {self.type!r}, {len(self)} rows, {self.n_bytes} bytes)"

    @property
    def n_bytes(self) -> int:
        """Bytes of the arrays."""
        texts = (self.dictionary.offsets, self.dictionary.octets) if self.dictionary is not None else ()
        return sum(each.nbytes for each in (self.values, self.valid, self.offsets, *texts) if each is not None)

    @property
    def cover(self) -> Spans:
        """Spans that hold every value, and null where rows may have none: what is outside of them, no row has.

        Least and greatest value, or what `outline` found when the column was stored. Texts are those of the dictionary.

        Examples
        --------
        >>> Column.from_values("year", [2021, None, 1999]).cover
        Spans(low=[1999], high=[2021], nulls=True)
        """
        if self._cover is None:
            nulls = self.valid is not None
            if self.offsets is not None:
                self._cover = Spans.whole("int64", nulls)
            elif self.dictionary is not None:
                self._cover = Spans.of([0], [len(self.dictionary) - 1], nulls=nulls)
            else:
                self._cover = self._between(self._present(), nulls)
        return self._cover

    def _present(self) -> Array:
        return self.values if self.valid is None else self.values[self.mask()]

    def _between(self, present: Array, nulls: bool) -> Spans:
        dtype = "float64" if self.type == "float" else "int64"
        least, greatest = ([present.min()], [present.max()]) if len(present) else ([], [])
        return Spans.of(least, greatest, dtype, nulls)

    def outline(self) -> Array | None:
        """Return the ends of spans that hold every value, closer than `cover` finds them: each where they are few.

        None where the dictionary says it all.

        Examples
        --------
        >>> Column.from_values("year", [2021, None, 1999, 2021]).outline()
        array([[1999, 1999],
               [2021, 2021]])
        """
        if self.dictionary is not None:
            return None
        present = self._present()
        found = self._between(present, self.valid is not None)
        if len(np.unique(present[:: max(1, len(present) // 1024)])) <= _FEW:
            distinct = np.unique(present)
            if len(distinct) <= _FEW:
                found = Spans.of(distinct, distinct, str(found.low.dtype))
        return np.stack([found.low, found.high], axis=1)

    def mask(self) -> NDArray[np.bool_]:
        """Return which rows have a value."""
        return np.ones(len(self), bool) if self.valid is None else unpack(self.valid, len(self))

    def to_list(self, rows: Sequence[int] | Array | None = None) -> list[Any]:
        """Return the values of all rows, or of some, as Python objects; None where there is none."""
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, np.int64)
        valid = self.mask()[chosen]
        if self.type == "list[str]":
            assert self.offsets is not None
            assert self.dictionary is not None
            texts = self.dictionary.texts
            spans = zip(self.offsets[chosen].tolist(), self.offsets[chosen + 1].tolist(), strict=True)
            found: list[Any] = [[texts[code] for code in self.values[a:b].tolist()] for a, b in spans]
        else:
            found = self._plain(self.values[chosen], valid)
        return [value if there else None for value, there in zip(found, valid.tolist(), strict=True)]

    def _plain(self, values: Array, valid: NDArray[np.bool_]) -> list[Any]:
        if self.dictionary is not None:
            texts = self.dictionary.texts
            found = [
                texts[code] if there else "null" for code, there in zip(values.tolist(), valid.tolist(), strict=True)
            ]
            return [json.loads(text) for text in found] if self.type == "json" else found
        if self.type in ("date", "datetime"):
            unit = "D" if self.type == "date" else "us"
            # NumPy gives integers beyond the years that datetime knows; those stay what they are.
            return list(np.where(valid, values, 0).astype(f"datetime64[{unit}]").tolist())
        return list(values.tolist())


def code_dtype(n: int) -> str:
    """Return the narrowest dtype that holds positions in a dictionary of n texts."""
    return "uint8" if n <= 1 << 8 else "uint16" if n <= 1 << 16 else "int32"


def narrowed(values: NDArray[np.int64]) -> NDArray[Any]:
    """Return integers in the narrowest dtype that holds them: filters read less memory."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    for dtype in (np.int8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values
