"""HDF5 as ann-benchmarks uses it (https://github.com/erikbern/ann-benchmarks); needs h5py, from the extra ``data``.

Sizes are compared before memory is taken, and nothing outside the file is followed. But the HDF5 library reads the rest
of the metadata itself, and was seen (2.0.0, by flipping bytes) to loop without end: read only files from known sources.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nearly.errors import FormatError, InputError, NearlyError
from nearly.evaluate import _checks
from nearly.evaluate.files._base import Array, Format, extra, n_bytes, native, numpy_only, one_name, replacing

_MOST_DEFLATE = 1032  # as for npz: a larger claim about compressed chunks is a lie


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file to read; what the library raises about damage becomes FormatError."""
    h5py = extra("h5py", path)
    with path.open("rb"):  # a missing file is the system's error, not one of the format
        pass
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (NearlyError, MemoryError):
        raise
    except Exception as error:  # OSError, KeyError, RuntimeError, ValueError, by where the damage is
        raise FormatError(f"{path.name} is no readable HDF5 file: {error}") from None


def array_of(file: Any, key: str, path: Path) -> Array:
    """Return a matrix of an open file, mapped where it lies in one piece."""
    h5py = extra("h5py", path)
    label = f"{path.name}[{key}]"
    item = file[key]
    if not isinstance(file.get(key, getlink=True), h5py.HardLink) or not isinstance(item, h5py.Dataset):
        raise FormatError(f"{label} is a link or a group, but an array in this file is wanted")
    if item.external or item.is_virtual:
        raise FormatError(f"{label} lies in other files, but an array in this file is wanted")
    if not _checks.is_real(item.dtype):
        raise FormatError(f"{label} holds {item.dtype}, but real numbers are wanted")
    if len(item.shape or ()) != 2 or item.shape[1] == 0:
        raise FormatError(f"{label} has shape {item.shape}, but a matrix (n, dim) is wanted")
    wanted, stored = n_bytes(item.dtype, item.shape), item.id.get_storage_size()
    if wanted > _MOST_DEFLATE * min(stored, path.stat().st_size):
        raise FormatError(f"{label} claims {wanted} bytes from {stored}; the file is truncated or damaged")
    offset = item.id.get_offset()
    if offset is None or item.dtype.kind == "b" or offset + wanted > path.stat().st_size or not wanted:
        return native(item[()])
    return native(np.asarray(np.memmap(path, dtype=item.dtype, mode="r", offset=offset, shape=item.shape)))


def write_arrays(path: Path, arrays: Mapping[str, Array], attributes: Mapping[str, str | int]) -> None:
    """Write several arrays, each in one piece so that it can be mapped, and attributes of the file."""
    h5py = extra("h5py", path)
    with replacing(path) as part, h5py.File(part, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=numpy_only(array))
        file.attrs.update(attributes)


def _read(path: Path, name: object) -> Array:
    with opened(path) as file:
        return array_of(file, one_name("data sets", path, list(file), name, default="train"), path)


def _write(path: Path, array: Array, name: str | None) -> None:
    if name is not None and (not name or "/" in name or name == "."):
        raise InputError(f"name is {name!r}, but one without slashes is wanted")
    write_arrays(path, {name or "train": array}, {})


HDF5 = Format(".hdf5", _read, _write, named=True)
H5 = Format(".h5", _read, _write, named=True)
