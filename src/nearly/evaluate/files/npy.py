"""npy and npz, never with pickles (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nearly.errors import FormatError, InputError
from nearly.evaluate import _checks
from nearly.evaluate.files._base import Array, Format, mapped, n_bytes, native, numpy_only, one_name, replacing

if TYPE_CHECKING:
    import zipfile

_MOST_DEFLATE = 1032  # deflate shrinks at most so far (https://zlib.net/zlib_tech.html): a larger claim is a lie


def _header(file: IO[bytes], label: str) -> tuple[tuple[int, int], np.dtype[Any], bool]:
    """Shape, dtype and Fortran order of a matrix; leaves ``file`` at the values."""
    try:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,  # 3.0 exists for the field names of structured arrays only
        }[version]
        shape, fortran, dtype = reader(file)
    except Exception as error:  # the header is a Python literal, and a hostile one fails in many ways
        raise FormatError(f"{label} has no readable npy header: {error}") from None
    if not _checks.is_real(dtype) or dtype.hasobject or dtype.subdtype is not None:
        raise FormatError(f"{label} holds {dtype}, but real numbers are wanted")
    # True passes for 1 in numpy's own check, and fails only later
    if len(shape) != 2 or any(type(length) is not int or length < 0 for length in shape) or shape[1] == 0:
        raise FormatError(f"{label} has shape {shape}, but a matrix (n, dim) is wanted")
    return shape, dtype, bool(fortran)


def _read_npy(path: Path, _name: None) -> Array:
    with path.open("rb") as file:
        shape, dtype, fortran = _header(file, path.name)
        offset = file.tell()
    array = mapped(path, dtype, shape[::-1] if fortran else shape, offset)
    return native(array.T if fortran else array)


def _write_npy(path: Path, array: Array, _name: None) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.lib.format.write_array(file, numpy_only(array), allow_pickle=False)


def _read_npz(path: Path, name: object) -> Array:
    import zipfile  # late, as it is slow to import

    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                return _read_member(archive, members[one_name("arrays", path, list(members), name)], path)
        except (FormatError, InputError, MemoryError):
            raise
        except Exception as error:  # damaged archives fail in many ways, BadZipFile and struct.error among them
            raise FormatError(f"{path.name} is no readable npz file: {error}") from None


def _read_member(archive: "zipfile.ZipFile", info: "zipfile.ZipInfo", path: Path) -> Array:
    label = f"{path.name}[{info.filename.removesuffix('.npy')}]"
    if info.compress_type not in (0, 8):  # the zip specification, section 4.4.5
        raise FormatError(f"{label} has compression method {info.compress_type}, but stored or deflated is wanted")
    most = _MOST_DEFLATE * min(info.compress_size, path.stat().st_size)
    if info.file_size > most:
        raise FormatError(f"{label} claims {info.file_size} bytes, but at most {most} can come out; it is damaged")
    with archive.open(info) as file:
        shape, dtype, fortran = _header(file, label)
        wanted, left = n_bytes(dtype, shape), info.file_size - file.tell()
        if wanted != left:
            raise FormatError(f"{label} has {left} bytes, but its header ({shape} of {dtype}) wants {wanted}")
        array = np.frombuffer(bytearray(file.read(wanted)), dtype)  # a bytearray, so that the array can be changed
    return native(array.reshape(shape, order="F" if fortran else "C"))


def _write_npz(path: Path, array: Array, name: str | None) -> None:
    import zipfile

    with (
        replacing(path) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name or 'vectors'}.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array(file, numpy_only(array), allow_pickle=False)


NPY = Format(".npy", _read_npy, _write_npy)
NPZ = Format(".npz", _read_npz, _write_npz, named=True)
