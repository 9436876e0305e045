"""Reading and writing matrices in the files that vectors come in, suspicious of every header."""

import os
from pathlib import Path

from numpy.typing import ArrayLike

from nearly.errors import InputError
from nearly.evaluate import _checks
from nearly.evaluate.files._base import Array, Format, Name
from nearly.evaluate.files.fbin import fbin
from nearly.evaluate.files.hdf5 import H5, HDF5
from nearly.evaluate.files.npy import NPY, NPZ
from nearly.evaluate.files.parquet import PARQUET
from nearly.evaluate.files.vecs import vecs

__all__ = ["FORMATS", "read", "write"]

FORMATS: dict[str, Format] = {
    row.suffix: row
    for row in (
        NPY,
        NPZ,
        vecs(".fvecs", "<f4"),
        vecs(".ivecs", "<i4"),
        vecs(".bvecs", "u1"),
        fbin(".fbin", "<f4"),
        fbin(".f16bin", "<f2"),
        fbin(".u8bin", "u1"),
        fbin(".i8bin", "i1"),
        fbin(".ibin", "<i4"),
        HDF5,
        H5,
        PARQUET,
    )
}
"""Kinds of files, by suffix."""


def read(path: str | os.PathLike[str], *, name: Name | None = None) -> Array:
    """Read a matrix from a file; the suffix says how.

    Parameters
    ----------
    path : str or path
        File ending in one of `FORMATS`.
    name : str or sequence of str, optional
        Which array, where a file can hold several: a data set of an HDF5 file (default: ``train``, or the only one), an
        array of an npz file (default: the only one), a column of lists in a Parquet file (default: the only one). A
        sequence names Parquet columns of numbers, which become the columns of the matrix.

    Returns
    -------
    ndarray of shape (n, dim)
        In the dtype of the file. fvecs, fbin and their kin, npy, and HDF5 arrays in one piece are mapped into memory,
        read-only; copy with ``numpy.array`` to change values.

    Raises
    ------
    FormatError
        If the file is truncated, damaged, too long, or holds something other than a matrix of real numbers. Sizes are
        compared with the file before memory is taken.
    InputError
        If the suffix is unknown, or ``name`` is wrong, missing, or useless for this kind of file.
    ImportError
        If HDF5 or Parquet is read and the extra ``nearly[data]`` is not installed.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.fvecs"
    >>> write(path, [[0.0, 0.5], [1.0, 1.5]])
    >>> read(path).tolist()
    [[0.0, 0.5], [1.0, 1.5]]
    """
    path = Path(path)
    row = _row(path)
    if name is not None and not (row.named and (isinstance(name, str) or row is PARQUET)):
        wanted = "one name" if row.named else "no name, since such a file holds one array,"
        raise InputError(f"name is {name!r}, but {wanted} is wanted for {row.suffix} files")
    return row.read(path, name)


def write(path: str | os.PathLike[str], array: ArrayLike, *, name: str | None = None) -> None:
    """Write a matrix to a file; the suffix says how. The file appears whole or not at all, and replaces an older one.

    Parameters
    ----------
    path : str or path
        File ending in one of `FORMATS`.
    array : array-like of shape (n, dim)
        Real numbers that the format can hold without loss: ``.fvecs`` refuses float64 values that are not float32
        values, ``.bvecs`` refuses 256.
    name : str, optional
        Name of the array, for HDF5 (default ``train``), npz and Parquet (default ``vectors``).

    Raises
    ------
    InputError
        If the array does not fit the format, the suffix is unknown, or ``name`` is useless for this kind of file.
    ImportError
        If HDF5 or Parquet is written and the extra ``nearly[data]`` is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.u8bin"
    >>> write(path, [[1, 2], [3, 255]])
    >>> path.read_bytes().hex()
    '0200000002000000010203ff'
    """
    path = Path(path)
    row = _row(path)
    if name is not None and not (row.named and isinstance(name, str)):
        wanted = "one name" if row.named else "no name, since such a file holds one array,"
        raise InputError(f"name is {name!r}, but {wanted} is wanted for {row.suffix} files")
    row.write(path, _checks.matrix("array", array), name)


def _row(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path.name} ends in {suffix or 'no suffix'}, but one of {', '.join(FORMATS)} is wanted")
    return FORMATS[suffix]
