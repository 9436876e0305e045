"""The one door for what users pass in: arrays, ids, masks and plain numbers are checked and normalized here."""

import difflib
import math
import operator
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nearly.errors import DimensionError, IdError, InputError

__all__ = [
    "Kind",
    "Vectors",
    "as_ids",
    "as_mask_or_ids",
    "as_queries",
    "as_vectors",
    "check_choice",
    "check_finite",
    "check_fraction",
    "check_int",
    "check_k",
    "check_positive",
    "check_real",
    "check_seed",
    "is_row",
]

Kind: TypeAlias = Literal["float32", "float16", "bfloat16", "int8", "uint8", "bits"]
Array: TypeAlias = NDArray[Any]
Text = TypeVar("Text", bound=str)

_ndarray = np.ndarray
_FLOAT32 = np.dtype(np.float32)
_KEPT: dict[np.dtype[Any], Kind] = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(np.int8): "int8",
    np.dtype(np.uint8): "uint8",
}
_HOST_DEVICES = {1, 3, 11, 13}  # DLPack: CPU, CUDA pinned, ROCm pinned, CUDA managed
_LARGEST_SEED = 2**64 - 1
_SHOWN = 5  # offenders an error lists


@dataclass(frozen=True, slots=True, init=False)
class Vectors:
    """Checked vectors: one C-contiguous, aligned, native-endian matrix and what its numbers are.

    Attributes
    ----------
    array : ndarray of shape (n, dim)
        float32, float16, int8 or uint8; uint16 holding the bit patterns when ``kind`` is "bfloat16"; uint8 holding
        eight bits each, in the order of `numpy.packbits`, when ``kind`` is "bits".
    kind : {"float32", "float16", "bfloat16", "int8", "uint8", "bits"}

    Notes
    -----
    The array may share memory with what the user passed. It is never written to, and who keeps it must copy it.
    """

    array: Array
    kind: Kind

    def __init__(self, array: Array, kind: Kind) -> None:
        _put_array(self, array)  # half the time of object.__setattr__, which counts in a single query
        _put_kind(self, kind)

    def __len__(self) -> int:
        return len(self.array)

    @property
    def dim(self) -> int:
        """Columns; bytes for "bits"."""
        return int(self.array.shape[1])

    def as_float32(self) -> NDArray[np.float32]:
        """Return the vectors in float32, exactly, whatever their kind (bits: the bytes as numbers).

        Returns
        -------
        ndarray of shape (n, dim), float32
            The array itself when it is float32 already.

        Examples
        --------
        >>> Vectors(np.array([[0x3FC0]], np.uint16), "bfloat16").as_float32()
        array([[1.5]], dtype=float32)
        """
        if self.kind == "bfloat16":  # the upper half of a float32
            return (self.array.astype(np.uint32) << 16).view(np.float32)
        return cast(NDArray[np.float32], self.array.astype(np.float32, copy=False))


_put_array, _put_kind = Vectors.__dict__["array"].__set__, Vectors.__dict__["kind"].__set__


def is_row(value: object, dim: int) -> bool:
    """Return whether ``value`` is one contiguous float32 vector of ``dim`` numbers, usable as it is.

    The quickest test of a single query (about 0.2 µs); everything else goes through `as_queries`.

    Examples
    --------
    >>> is_row(np.zeros(8, np.float32), 8), is_row([0.0] * 8, 8)
    (True, False)
    """
    if type(value) is not _ndarray or value.dtype is not _FLOAT32 or value.shape != (dim,):
        return False
    flags = value.flags
    return flags.c_contiguous and flags.aligned


def as_vectors(value: object, *, name: str = "vectors", dim: int | None = None, bits: bool = False) -> Vectors:
    """Turn what a user passed as vectors into one checked matrix, without a copy where none is needed.

    Parameters
    ----------
    value : array-like of shape (n, dim)
        A NumPy array; anything with ``__array__``, ``__dlpack__``, the buffer protocol or the Arrow PyCapsule
        interface (a fixed-size-list column, a list column of equal lengths, or numeric columns); nested lists; a
        pandas or Polars frame of numbers. An empty list is no vectors, of shape (0, dim).
    name : str
        The argument's name, for messages.
    dim : int, optional
        Columns that are wanted. Any number from 1 on when None.
    bits : bool
        Take uint8 (or integers 0 to 255) as packed bits, eight to a byte; ``dim`` then counts bytes.

    Returns
    -------
    Vectors
        float32, float16, bfloat16, int8 and uint8 keep their type. float64 and longer floats are rounded to float32;
        other integers and booleans become float32 when that is exact.

    Raises
    ------
    DimensionError
        If the number of columns is not ``dim``.
    InputError
        If the shape or the type cannot be used, or a number has no float32. The message names the argument, what
        came, what was wanted, and what to do.
    ImportError
        If an Arrow object needs pyarrow and it is not installed.

    Notes
    -----
    NaN and infinity pass; `check_finite` refuses them. A uint16 array is integers: bfloat16 is known by its name
    (ml_dtypes) or its DLPack type. PyCapsule interface: https://arrow.apache.org/docs/format/CDataInterface.html.

    Examples
    --------
    >>> as_vectors([[1, 2], [3, 4]])
    Vectors(array=array([[1., 2.],
           [3., 4.]], dtype=float32), kind='float32')
    >>> ready = np.zeros((2, 4), np.float32)
    >>> as_vectors(ready).array is ready
    True
    """
    array, bfloat16 = _to_numpy(value, name)
    if array.ndim == 1 and array.size:
        raise InputError(
            f"{name} has shape {array.shape}, but one row per vector, (n, {dim or 'dim'}), is wanted; "
            f"for one vector pass {name}.reshape(1, -1)"
        )
    return _to_vectors(array, bfloat16, name, dim, bits)


def as_queries(
    value: object, *, name: str = "queries", dim: int | None = None, bits: bool = False
) -> tuple[Vectors, bool]:
    """Turn what a user passed as one query or many into a checked matrix.

    Parameters
    ----------
    value : array-like of shape (n_queries, dim) or (dim,)
        As in `as_vectors`; one dimension is one query. An empty list is no queries.
    name, dim, bits
        As in `as_vectors`.

    Returns
    -------
    queries : Vectors
        Of shape (n_queries, dim); one query has n_queries = 1.
    single : bool
        Whether one query came on its own.

    Raises
    ------
    DimensionError, InputError, ImportError
        As in `as_vectors`.

    Examples
    --------
    >>> queries, single = as_queries([0.5, 1.0], dim=2)
    >>> queries.array.shape, single
    ((1, 2), True)
    """
    if type(value) is _ndarray and value.dtype is _FLOAT32 and dim is not None and not bits:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            shape = value.shape
            if shape == (dim,):
                return Vectors(value[None], "float32"), True
            if len(shape) == 2 and shape[1] == dim:
                return Vectors(value, "float32"), False
    array, bfloat16 = _to_numpy(value, name)
    single = array.ndim == 1 and array.size > 0
    return _to_vectors(array[None] if single else array, bfloat16, name, dim, bits), single


def check_finite(vectors: Vectors, name: str = "vectors") -> None:
    """Refuse NaN and infinity.

    Parameters
    ----------
    vectors : Vectors
    name : str
        The argument's name, for messages.

    Raises
    ------
    InputError
        Naming the first row with such a value, what it holds, and how many rows have one.

    Examples
    --------
    >>> check_finite(as_vectors([[1.0, 2.0]]))
    """
    if vectors.kind not in ("float32", "float16", "bfloat16"):
        return
    from nearly import _core  # late: the module then serves before the core is built, and imports quickly

    row = int(_core.first_nonfinite(vectors.array, bfloat16=vectors.kind == "bfloat16"))
    if row < 0:
        return
    values = Vectors(vectors.array[row : row + 1], vectors.kind).as_float32()[0]
    columns = np.flatnonzero(~np.isfinite(values))
    bad = _count_nonfinite_rows(vectors)
    raise InputError(
        f"{name} must be finite, but row {row} holds {np.isnan(values).sum()} NaN and {np.isinf(values).sum()} "
        f"infinite values, the first in column {columns[0]} ({bad} of {len(vectors)} rows have such values); "
        f"fix or leave out those rows: numpy.isfinite({name}).all(axis=1) is True for the good ones"
    )


def as_ids(value: object, *, n: int | None = None, name: str = "ids", unique: bool = True) -> NDArray[np.int64]:
    """Turn what a user passed as ids into int64.

    Parameters
    ----------
    value : array-like of int of shape (n,)
        A single integer is one id. No booleans, no floats.
    n : int, optional
        How many are wanted. Any number when None.
    name : str
        The argument's name, for messages.
    unique : bool
        Refuse repeated ids.

    Returns
    -------
    ndarray of shape (n,), int64
        Contiguous, every id ≥ 0. Shares memory with ``value`` where it can.

    Raises
    ------
    IdError
        If ids are not integers, negative, beyond int64, repeated (the first few are listed), or not ``n``.

    Examples
    --------
    >>> as_ids([7, 3], n=2)
    array([7, 3])
    """
    array = _to_integers(value, name, "one integer id >= 0 per vector")
    if n is not None and len(array) != n:
        raise IdError(f"{name} holds {len(array)} ids, but there are {n} vectors; pass one id for each")
    if unique and len(array) > 1 and not bool((array[1:] > array[:-1]).all()):
        ordered = np.sort(array)
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if len(repeated):
            raise IdError(
                f"{name} must be distinct, but {_listing(repeated)} {'is' if len(repeated) == 1 else 'are'} "
                f"repeated; pass each id once"
            )
    return array


def as_mask_or_ids(where: object, *, n_mask: int | None, name: str = "where") -> NDArray[np.bool_] | NDArray[np.int64]:
    """Turn what a user passed as ``where=`` into a boolean mask or int64 ids; the dtype of the answer says which.

    Parameters
    ----------
    where : array-like of bool of shape (n_mask,) or of int of shape (m,)
        A mask has one entry per id 0, 1, …; integers are the ids to allow, in any order, repeats allowed.
    n_mask : int or None
        Entries a mask must have: the largest id + 1. None where the user gave the ids, so that a mask has no meaning.
    name : str
        The argument's name, for messages.

    Returns
    -------
    ndarray of shape (n_mask,), bool, or of shape (m,), int64
        Contiguous. Ids are ≥ 0; whether they exist is for the index to say.

    Raises
    ------
    InputError
        If it is neither, a mask of the wrong length, a mask where ids were given, or zeros and ones that look like
        a mask.
    IdError
        If an id is negative or beyond int64.

    Examples
    --------
    >>> as_mask_or_ids([True, False, True], n_mask=3)
    array([ True, False,  True])
    >>> as_mask_or_ids([4, 2], n_mask=None)
    array([4, 2])
    """
    if isinstance(where, str) or callable(where):
        raise InputError(
            f"{name} is {_describe(where)}, but an index takes a boolean mask or integer ids; "
            f"predicates on metadata are for collections"
        )
    array, bfloat16 = _to_numpy(where, name)
    if bfloat16 or array.dtype != np.bool_:
        ids = _to_integers(array, name, "a boolean mask or integer ids", error=InputError)
        if len(ids) > 2 and ids.max() <= 1:
            raise InputError(
                f"{name} holds only zeros and ones, like a mask; pass {name}.astype(bool), or distinct ids"
            )
        return ids
    if n_mask is None:
        raise InputError(
            f"{name} is a boolean mask, but this index was given its ids, so that positions mean nothing; "
            f"pass the ids to allow, for example ids[mask]"
        )
    if array.shape != (n_mask,):
        raise InputError(
            f"{name} is a boolean mask of shape {array.shape}, but one entry per id 0 to {n_mask - 1}, "
            f"shape ({n_mask},), is wanted; pass such a mask, or the integer ids to allow"
        )
    return np.ascontiguousarray(array)


def check_int(value: object, name: str, *, low: int, high: int | None = None) -> int:
    """Return an integer argument as int, or raise `InputError`: no booleans, no floats, ``low <= value <= high``.

    Examples
    --------
    >>> check_int(np.uint8(3), "degree", low=1)
    3
    """
    wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = isinstance(value, float | np.floating) and math.isfinite(value) and value == int(value)
        advice = f"; pass {name}={int(value)}" if whole else ""  # type: ignore[call-overload]
        raise InputError(f"{name} is {_describe(value)}, but {wanted} is wanted{advice}") from None
    if number < low or (high is not None and number > high):
        raise InputError(f"{name} is {number}, but {wanted} is wanted")
    return number


def check_k(k: object, name: str = "k") -> int:
    """Return the number of neighbors asked for as int, or raise `InputError` unless it is an integer ≥ 1."""
    return check_int(k, name, low=1)


def check_seed(seed: object, name: str = "seed") -> int:
    """Return a seed as int, or raise `InputError` unless it is an integer in [0, 2**64): same seed, same bytes."""
    return check_int(seed, name, low=0, high=_LARGEST_SEED)


def check_real(value: object, name: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a real argument as float, or raise `InputError`: finite, no booleans, ``low <= value <= high``.

    Examples
    --------
    >>> check_real(np.float32(0.5), "radius", low=0)
    0.5
    """
    wanted = "a finite number"
    if low > -math.inf or high < math.inf:
        wanted += f" from {low:g}" + (f" to {high:g}" if high < math.inf else " on")
    number = math.nan
    if not isinstance(value, bool | np.bool_ | str | bytes) and getattr(value, "ndim", 0) == 0:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name} is {_describe(value)}, but {wanted} is wanted") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise InputError(f"{name} is {_describe(value)}, but {wanted} is wanted")
    return number


def check_positive(value: object, name: str) -> float:
    """Return a real argument as float, or raise `InputError` unless it is finite and > 0."""
    number = check_real(value, name)
    if number <= 0:
        raise InputError(f"{name} is {_describe(value)}, but a number above 0 is wanted")
    return number


def check_fraction(value: object, name: str) -> float:
    """Return a share such as a recall target as float, or raise `InputError` unless it is in (0, 1]."""
    number = check_real(value, name)
    if not 0 < number <= 1:
        percent = f"; for {number:g} % pass {number / 100:g}" if 1 < number <= 100 else ""
        raise InputError(f"{name} is {_describe(value)}, but a number above 0 and up to 1 is wanted{percent}")
    return number


def check_choice(value: object, choices: Iterable[Text], name: str) -> Text:
    """Return one of a few words, or raise `InputError` that lists them and suggests the nearest.

    Examples
    --------
    >>> check_choice("given", ("random", "given"), "order")
    'given'
    """
    words = list(choices)
    if isinstance(value, str):
        for word in words:
            if word == value:
                return word
        near = difflib.get_close_matches(value.lower(), words, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    else:
        hint = ""
    raise InputError(f"{name} is {_describe(value)}, but one of {', '.join(map(repr, words))} is wanted{hint}")


# --- from a NumPy array to Vectors ------------------------------------------------------------------------------------


def _to_vectors(array: Array, bfloat16: bool, name: str, dim: int | None, bits: bool) -> Vectors:
    if array.size == 0 and array.shape in ((0,), (0, 0)):
        array = np.empty((0, dim or 0), np.uint8 if bits else array.dtype if array.ndim == 2 else _FLOAT32)
    if array.ndim != 2:
        advice = "pass a matrix" if array.ndim < 2 else f"pass {name}.reshape(-1, {name}.shape[-1])"
        raise InputError(
            f"{name} has shape {array.shape}, but one row per vector, (n, {dim or 'dim'}), is wanted; {advice}"
        )
    if dim is not None and array.shape[1] != dim:
        raise DimensionError(name, got=array.shape[1], expected=dim)
    if array.shape[1] == 0 and len(array):
        raise InputError(
            f"{name} has shape {array.shape}, but vectors of at least one number are wanted; pass (n, dim)"
        )
    if bits:
        return Vectors(_as_bytes(array, bfloat16, name), "bits")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    kind: Kind | None = "bfloat16" if bfloat16 else _KEPT.get(array.dtype)
    if kind is None:
        array, kind = _to_float32(array, name), "float32"
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = np.require(array, requirements=["C", "A"])
    return Vectors(array, kind)


def _as_bytes(array: Array, bfloat16: bool, name: str) -> Array:
    wide = array.dtype.kind in "iu" and not bfloat16 and array.dtype.itemsize > 1
    if wide and array.size and (array.min() < 0 or array.max() > 255):
        raise InputError(
            f"{name} holds integers from {array.min()} to {array.max()}, but packed bits, bytes 0 to 255, are wanted; "
            f"pack booleans with numpy.packbits({name}, axis=1)"
        )
    if not wide and array.dtype != np.uint8:
        _refuse_dtype(array, name)
        advice = f"{name}.view(numpy.uint8)" if array.dtype == np.int8 else "numpy.packbits(values > 0, axis=1)"
        if array.dtype == np.bool_:
            advice = f"numpy.packbits({name}, axis=1)"
        raise InputError(
            f"{name} has dtype {'bfloat16' if bfloat16 else array.dtype}, but this metric takes packed bits, "
            f"uint8 with eight bits to a byte; pass {advice}"
        )
    return np.ascontiguousarray(array, dtype=np.uint8)


def _to_float32(array: Array, name: str) -> Array:
    kind = array.dtype.kind
    if array.dtype.char not in "dg" and kind not in "biu":
        _refuse_dtype(array, name)
    if kind in "iu":
        _check_exact(array, name)
    try:
        with np.errstate(over="raise", under="ignore", invalid="ignore"):
            return array.astype(_FLOAT32, order="C")
    except FloatingPointError:
        largest = float(np.finfo(np.float32).max)
        row, column = np.argwhere(np.isfinite(array) & (np.abs(array) > largest))[0]
        raise InputError(
            f"{name} has dtype {array.dtype}, and row {row} holds {array[row, column]!s} in column {column}, which is "
            f"too large for float32 (largest {largest:.4g}); scale the vectors down"
        ) from None


def _check_exact(array: Array, name: str) -> None:
    if array.dtype.itemsize < 4 or not array.size or (array.min() >= -(2**24) and array.max() <= 2**24):
        return
    size = np.abs(array.astype(np.int64)).view(np.uint64) if array.dtype.kind == "i" else array.astype(np.uint64)
    size[size == 0] = 1
    lowest = size & (~size + np.uint64(1))  # the lowest bit set: 24 bits from there are exact
    inexact = np.argwhere(size // lowest >= 2**24)
    if len(inexact):
        row, column = inexact[0]
        raise InputError(
            f"{name} holds integers of dtype {array.dtype}, and {array[row, column]} in row {row} is not exact in "
            f"float32 (integers up to 2**24 are); scale the values down, or pass {name}.astype(numpy.float32) to round"
        )


def _refuse_dtype(array: Array, name: str) -> None:
    dtype = array.dtype
    if dtype.kind in "biuf" and dtype.name[:6] != "float8":
        return
    advice = "pass float32, float16, bfloat16, int8 or uint8"
    if dtype.kind == "O":
        odd = next((i for i, item in enumerate(array.flat) if not isinstance(item, int | float | np.number)), None)
        if odd is not None:
            at = "".join(f"[{int(i)}]" for i in np.unravel_index(odd, array.shape))
            advice = f"{name}{at} is {_describe(array.flat[odd])}; leave such values out"
        else:
            advice = f"pass {name}.astype(numpy.float32)"
    elif dtype.kind == "c":
        advice = "stack the real and imaginary parts side by side: numpy.hstack([x.real, x.imag])"
    elif dtype.names:
        advice = f"pass numpy.lib.recfunctions.structured_to_unstructured({name})"
    elif dtype.kind in "SU":
        advice = "embed the text first, then pass its vectors"
    elif dtype.kind in "mM":
        advice = "leave the date columns out, or turn them into numbers that mean a distance"
    elif dtype.kind in "Vf":
        advice = f"pass {name}.astype(numpy.float32)"
    raise InputError(f"{name} has dtype {dtype}, but numbers are wanted; {advice}")


def _count_nonfinite_rows(vectors: Vectors, block: int = 4096) -> int:
    count = 0
    for start in range(0, len(vectors), block):
        part = Vectors(vectors.array[start : start + block], vectors.kind).as_float32()
        count += int((~np.isfinite(part)).any(axis=1).sum())
    return count


def _to_integers(value: object, name: str, wanted: str, error: type[InputError] = IdError) -> NDArray[np.int64]:
    array, bfloat16 = _to_numpy(value, name) if not _is_integer(value) else (np.array([value]), False)
    if array.size == 0 and array.dtype.kind != "b":
        return np.empty(0, np.int64)
    if bfloat16 or array.ndim != 1 or array.dtype.kind not in "iu":
        what = f"of shape {array.shape} and dtype {'bfloat16' if bfloat16 else array.dtype}"
        whole = array.dtype.kind == "f" and array.ndim == 1
        advice = f"; pass {name}.astype(numpy.int64)" if whole else "; pass a one-dimensional int64 array"
        raise error(f"{name} is {what}, but {wanted} is wanted{advice}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.max() > np.iinfo(np.int64).max:
        raise IdError(f"{name} holds {array.max()}, but ids are int64, at most {np.iinfo(np.int64).max}")
    if array.min() < 0:
        negative = np.unique(array[array < 0])
        raise IdError(
            f"{name} holds {_listing(negative)}, but ids are >= 0; number the vectors from 0, or leave ids out"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _listing(values: Collection[Any]) -> str:
    shown = ", ".join(str(v) for v in list(values)[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if value is None or isinstance(value, str | bytes | int | float | complex | np.generic):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


# --- from anything to a NumPy array -----------------------------------------------------------------------------------


def _to_numpy(value: object, name: str) -> tuple[Array, bool]:
    """Return any array-like as a plain ndarray, and whether it is bfloat16 (then as uint16 bit patterns)."""
    bfloat16 = False
    array: Array
    if type(value) is _ndarray:
        array = value
    elif isinstance(value, np.ndarray):
        array = _from_subclass(value, name)
    elif isinstance(value, list | tuple):
        array = _from_sequence(value, name)
    else:
        array, bfloat16 = _from_foreign(value, name)
    if (
        array.dtype.kind == "V" and array.dtype.name == "bfloat16"
    ):  # ml_dtypes, known by name so that we need not import it
        array, bfloat16 = array.view(np.uint16), True
    if array.dtype.kind == "O":
        array = _from_objects(array, name)
    return array, bfloat16


def _from_subclass(value: Array, name: str) -> Array:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        rows = np.flatnonzero(np.ma.getmaskarray(value).reshape(len(value), -1).any(axis=1)) if value.ndim else [0]
        raise InputError(
            f"{name} is a masked array with masked values, first in row {rows[0]} ({len(rows)} rows have some); "
            f"leave those rows out, or fill them with {name}.filled(...)"
        )
    return np.asarray(value)


def _from_sequence(value: Sequence[Any], name: str) -> Array:
    try:
        return np.array(value)
    except (ValueError, TypeError, RuntimeError) as problem:
        lengths = [len(row) if hasattr(row, "__len__") else None for row in value]
        odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
        if odd is None:
            raise InputError(
                f"{name} cannot become an array ({problem}); pass rows of numbers of one length"
            ) from problem
        what = _describe(value[odd]) if lengths[odd] is None else f"{lengths[odd]} values"
        first = _describe(value[0]) if lengths[0] is None else f"{lengths[0]}"
        raise InputError(
            f"{name} is ragged: row {odd} has {what}, but row 0 has {first}; pass rows of one length"
        ) from None


def _from_objects(array: Array, name: str) -> Array:
    """Stack a column whose cells are vectors, such as a pandas Series of lists; other objects stay as they came."""
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim == 1 and len(column) and isinstance(column[0], list | tuple | np.ndarray):
        return _from_sequence(list(column), name)
    return array


def _from_foreign(value: object, name: str) -> tuple[Array, bool]:
    """Read an object of another library by the protocol it offers."""
    if hasattr(value, "tocsr") and hasattr(value, "toarray"):
        raise InputError(f"{name} is {_describe(value)}, but dense vectors are wanted; pass {name}.toarray()")
    if getattr(value, "requires_grad", False) is True:
        raise InputError(f"{name} is {_describe(value)} that requires gradients; pass {name}.detach()")
    _refuse_other_devices(value, name)
    named = str(getattr(value, "dtype", "")).rpartition(".")[2]
    origin = type(value).__module__.partition(".")[0]
    arrow = origin == "pyarrow" or hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__")
    try:
        if hasattr(value, "__dlpack__") and (named == "bfloat16" or not hasattr(value, "__array__")):
            return _from_dlpack(value)
        if arrow and (origin == "pyarrow" or not hasattr(value, "__array__")):
            return _from_arrow(value, name), False
        if hasattr(value, "__array__"):
            array = np.asarray(cast(Any, value))
            if array.dtype.kind == "O" and arrow and origin != "pandas" and _has_pyarrow():
                return _from_arrow(value, name), False
            return (_from_subclass(array, name) if type(array) is not _ndarray else array), False
        if isinstance(value, range):
            return np.arange(value.start, value.stop, value.step), False
        if not isinstance(value, str | bytes):
            try:
                return np.asarray(memoryview(cast(Any, value))), False
            except TypeError:
                if isinstance(value, Sequence):
                    return _from_sequence(list(value), name), False
    except (InputError, ImportError, MemoryError):
        raise
    except Exception as problem:  # whatever the other library raises, the argument at fault has a name
        raise InputError(
            f"{name} is {_describe(value)} and cannot be read as an array ({problem}); pass a NumPy array"
        ) from problem
    raise InputError(
        f"{name} is {_describe(value)}, but an array of numbers is wanted; pass a NumPy array or nested lists"
    )


def _refuse_other_devices(value: object, name: str) -> None:
    device = getattr(value, "__dlpack_device__", None)
    if device is None:
        return
    try:
        kind = int(device()[0])
    except Exception:  # such as a tensor without storage: reading it fails later, with its own words
        return
    if kind not in _HOST_DEVICES:
        shown = getattr(value, "device", f"of DLPack type {kind}")
        raise InputError(
            f"{name} is {_describe(value)} on device {shown}, but an array in main memory is wanted; "
            f"pass {name}.cpu(), or numpy.asarray({name}) where that copies it over"
        )


class _Relabeled:
    """A DLPack producer whose bfloat16 tensor is announced as uint16, which NumPy can import."""

    def __init__(self, value: Any) -> None:
        import ctypes

        self.capsule = value.__dlpack__()
        self.device = value.__dlpack_device__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # DLTensor opens with data (8 bytes), device (8), ndim (4), then the type: code and bits, one byte each.
        # https://github.com/dmlc/dlpack/blob/main/include/dlpack/dlpack.h
        dtype = (ctypes.c_uint8 * 2).from_address(pointer(self.capsule, b"dltensor") + 20)
        self.bfloat16 = tuple(dtype) == (4, 16)
        if self.bfloat16:
            dtype[0] = 1  # unsigned integer; the tensor's layout and its deleter stay as they are

    def __dlpack__(self, **_: object) -> object:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return cast(tuple[int, int], self.device)


def _from_dlpack(value: Any) -> tuple[Array, bool]:
    if not str(getattr(value, "dtype", "")).endswith("bfloat16"):
        try:
            return np.from_dlpack(value), False
        except (BufferError, RuntimeError) as problem:
            relabeled = _Relabeled(value)
            if not relabeled.bfloat16:
                raise problem
    else:
        relabeled = _Relabeled(value)
    return np.from_dlpack(cast(Any, relabeled)), relabeled.bfloat16


def _has_pyarrow() -> bool:
    if "pyarrow" in sys.modules:
        return True
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None


def _from_arrow(value: Any, name: str) -> Array:
    if not _has_pyarrow():
        raise ImportError(
            f'{name} is {_describe(value)}, and reading Arrow data needs pyarrow: pip install "nearly[arrow]"'
        )
    import pyarrow as pa

    data: Any  # a table, or one column
    if isinstance(value, pa.ListScalar):  # one row of a column
        value = value.values
    if isinstance(value, pa.Table | pa.RecordBatch | pa.ChunkedArray):
        data = value
    elif not hasattr(value, "__arrow_c_stream__"):
        data = pa.array(value)
    elif int(pa.__version__.partition(".")[0]) < 16:  # older ones read tables only
        data = pa.RecordBatchReader.from_stream(value).read_all()
    else:
        data = pa.chunked_array(value)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if not isinstance(data, pa.Table):
        data = data if isinstance(data, pa.ChunkedArray) else pa.chunked_array([data])
        if not pa.types.is_struct(data.type):
            return _from_column(data, name)
        data = pa.Table.from_struct_array(data)
    return _from_table(data, value, name)


def _from_table(table: Any, value: object, name: str) -> Array:
    import pyarrow as pa

    if table.num_columns == 1:
        return _from_column(table.column(0), name)
    types = pa.types
    odd = [
        f"{field.name} ({field.type})"
        for field in table.schema
        if not (types.is_integer(field.type) or types.is_floating(field.type))
    ]
    if odd or not table.num_columns:
        raise InputError(
            f"{name} is {_describe(value)} with columns {', '.join(table.column_names)}, but numeric columns or one "
            f"column of lists are wanted, unlike {_listing(odd)}; select the column or columns that hold the vectors"
        )
    return np.column_stack([_from_column(column, name) for column in table.columns])


def _from_column(column: Any, name: str) -> Array:
    """Turn an Arrow column into one row per entry (lists) or one number per entry; no copy of a single chunk."""
    parts: list[Array] = []
    done = 0
    for chunk in column.chunks:
        part = _from_chunk(chunk, name, done)
        if parts and part.shape[1:] != parts[0].shape[1:] and len(part):
            raise InputError(
                f"{name} is ragged: row {done} has {part.shape[1]} values, but row 0 has {parts[0].shape[1]}"
            )
        if len(part):
            parts.append(part)
        done += len(part)
    if not parts:
        return np.empty((0, getattr(column.type, "list_size", 0)), _FLOAT32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _from_chunk(chunk: Any, name: str, done: int) -> Array:
    import pyarrow as pa

    if isinstance(chunk, pa.ExtensionArray):  # such as a fixed-shape tensor
        chunk = chunk.storage
    values, width = chunk, None
    lists = pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type)
    if chunk.null_count:
        row = int(np.argmax(chunk.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"{name} has no value in row {done + row} ({chunk.null_count} are null); leave those rows out")
    if pa.types.is_fixed_size_list(chunk.type):
        values, width = chunk.flatten(), chunk.type.list_size
    elif lists:
        lengths = chunk.value_lengths().to_numpy()
        values, width = chunk.flatten(), int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            row = int(np.argmax(lengths != width))
            raise InputError(
                f"{name} is ragged: row {done + row} has {lengths[row]} values, but row {done} has {width}; "
                f"pass rows of one length"
            )
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // (width or 1)
        raise InputError(f"{name} holds a null value in row {done + row}; leave those rows out, or fill them")
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
        raise InputError(
            f"{name} holds Arrow values of type {chunk.type}, but numbers, or lists of numbers, are wanted"
        )
    array = cast(Array, values.to_numpy(zero_copy_only=False))
    return array if width is None else array.reshape(len(chunk), width)
