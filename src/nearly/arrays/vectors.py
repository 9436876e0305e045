"""Vectors and queries: one checked matrix of a known element type."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.foreign import Array, to_numpy
from nearly.arrays.words import describe
from nearly.errors import DimensionError, InputError

__all__ = ["Kind", "Vectors", "as_queries", "as_vectors", "check_finite"]

Kind: TypeAlias = Literal["float32", "float16", "bfloat16", "int8", "uint8", "bits"]

_ndarray = np.ndarray
_FLOAT32 = np.dtype(np.float32)
_KEPT: dict[np.dtype[Any], Kind] = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(np.int8): "int8",
    np.dtype(np.uint8): "uint8",
}


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
        return cast("NDArray[np.float32]", self.array.astype(np.float32, copy=False))


_put_array, _put_kind = Vectors.__dict__["array"].__set__, Vectors.__dict__["kind"].__set__


def as_vectors(value: object, *, name: str = "vectors", dim: int | None = None, bits: bool = False) -> Vectors:
    """Turn what a user passed as vectors into one checked matrix, without a copy where none is needed.

    Parameters
    ----------
    value : array-like of shape (n, dim)
        A NumPy array; anything with ``__array__``, ``__dlpack__``, the buffer protocol or the Arrow PyCapsule
        interface (a fixed-size-list column, a list column of equal lengths, or numeric columns); nested lists; a
        pandas or Polars frame of numbers. An empty list is no vectors, of shape (0, dim). `Vectors` pass as they are.
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
    if isinstance(value, Vectors) and dim in (None, value.dim) and bits == (value.kind == "bits"):
        return value  # checked already
    array, bfloat16 = to_numpy(value, name)
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
    array, bfloat16 = to_numpy(value, name)
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
            advice = f"{name}{at} is {describe(array.flat[odd])}; leave such values out"
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
