"""From anything that holds numbers to a NumPy array, without a copy where none is needed."""

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.words import describe
from nearly.errors import InputError

__all__ = ["Array", "to_numpy"]

Array: TypeAlias = NDArray[Any]

_HOST_DEVICES = {1, 3, 11, 13}  # DLPack: CPU, CUDA pinned, ROCm pinned, CUDA managed


def to_numpy(value: object, name: str) -> tuple[Array, bool]:
    """Return any array-like as a plain ndarray, and whether it is bfloat16 (then as uint16 bit patterns)."""
    bfloat16 = False
    array: Array
    if type(value) is np.ndarray:
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
        what = describe(value[odd]) if lengths[odd] is None else f"{lengths[odd]} values"
        first = describe(value[0]) if lengths[0] is None else f"{lengths[0]}"
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
        raise InputError(f"{name} is {describe(value)}, but dense vectors are wanted; pass {name}.toarray()")
    if getattr(value, "requires_grad", False) is True:
        raise InputError(f"{name} is {describe(value)} that requires gradients; pass {name}.detach()")
    from nearly.arrays import arrow as reader  # late: most inputs are none of its kinds

    _refuse_other_devices(value, name)
    named = str(getattr(value, "dtype", "")).rpartition(".")[2]
    origin = type(value).__module__.partition(".")[0]
    arrow = origin == "pyarrow" or hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__")
    try:
        if hasattr(value, "__dlpack__") and (named == "bfloat16" or not hasattr(value, "__array__")):
            return _from_dlpack(value)
        if arrow and (origin == "pyarrow" or not hasattr(value, "__array__")):
            return reader.from_arrow(value, name), False
        if hasattr(value, "__array__"):
            array = np.asarray(cast(Any, value))
            if array.dtype.kind == "O" and arrow and origin != "pandas" and reader.has_pyarrow():
                return reader.from_arrow(value, name), False
            return (_from_subclass(array, name) if type(array) is not np.ndarray else array), False
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
            f"{name} is {describe(value)} and cannot be read as an array ({problem}); pass a NumPy array"
        ) from problem
    raise InputError(
        f"{name} is {describe(value)}, but an array of numbers is wanted; pass a NumPy array or nested lists"
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
            f"{name} is {describe(value)} on device {shown}, but an array in main memory is wanted; "
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
