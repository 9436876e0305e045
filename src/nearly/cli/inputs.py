"""What commands read: files by the part they play, sizes, vectors typed by hand; and the index they build."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

import nearly
from nearly import evaluate, storage
from nearly.collection import lines
from nearly.errors import FormatError, InputError
from nearly.metrics import METRICS

__all__ = [
    "check_kind",
    "check_output",
    "make_index",
    "parse_size",
    "parse_vectors",
    "read_json_lines",
    "read_queries",
    "read_truth",
    "read_vectors",
]

Array = NDArray[Any]
_BITS = tuple(name for name, metric in METRICS.items() if metric.input == "bits")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?\s*", re.IGNORECASE)


def read_vectors(path: Path, *, name: str | None = None, metric: str | None = None) -> tuple[Array, Array | None, str]:
    """Return vectors, the queries that came with them or None, and the metric.

    Parameters
    ----------
    path : Path
        Any file that `nearly.evaluate.read` knows. An HDF5 file in the layout of ann-benchmarks also says its metric,
        has queries, and its bits are packed.
    name : str, optional
        Which array of the file.
    metric : str, optional
        What the user asked for; default what the file says, else l2.
    """
    if name is None and _is_dataset(path):
        data = evaluate.read_dataset(path, metric=metric)
        return data.base, data.queries, data.metric
    return _matrix(path, evaluate.read(path, name=name)), None, metric or "l2"


def read_queries(path: Path, *, metric: str, name: str | None = None) -> Array:
    """Return queries: of an ann-benchmarks file its test set, of another file its array."""
    if name is None and _is_dataset(path):
        return evaluate.read_dataset(path, metric=metric).queries
    queries = _matrix(path, evaluate.read(path, name=name))
    if not len(queries):
        raise InputError(f"{path.name} holds no queries")
    return queries


def read_truth(path: Path, *, metric: str, name: str | None = None) -> NDArray[np.int64]:
    """Return the ids of the true neighbors, one row per query."""
    if name is None and _is_dataset(path):
        return evaluate.read_dataset(path, metric=metric).truth_ids
    truth = _matrix(path, evaluate.read(path, name=name))
    if truth.dtype.kind not in "iu":
        raise InputError(f"{path.name} holds {truth.dtype} values, but ids of neighbors (integers) are wanted as truth")
    return truth.astype(np.int64)


def read_json_lines(path: Path) -> list[Any]:
    """Return what each line of a file says; lines without a word are passed over."""
    return [value for _, value, _ in lines.values_of(path)]


def _is_dataset(path: Path) -> bool:
    if path.suffix.lower() not in (".hdf5", ".h5"):
        return False
    try:
        return all(len(evaluate.read(path, name=part)) for part in ("train", "test", "neighbors"))
    except InputError:  # has no such array
        return False


def _matrix(path: Path, array: Array) -> Array:
    if array.ndim != 2:
        raise InputError(f"{path.name} has shape {array.shape}, but a matrix with one row per vector is wanted")
    return array


def parse_vectors(texts: list[str], *, metric: str, dim: int | None = None) -> Array:
    """Return vectors of ``dim`` numbers written as "1, 2.5, -3" (for bit metrics: bytes, 0 to 255), one row each.

    Examples
    --------
    >>> parse_vectors(["1,2", "3 -4"], metric="l2").tolist()
    [[1.0, 2.0], [3.0, -4.0]]
    """
    rows = []
    for text in texts:
        try:
            row = [float(part) for part in re.split(r"[,\s]+", text.strip(" ,[]()"))]
        except ValueError:
            raise typer.BadParameter(f'{text!r} is no vector; write numbers with commas: "1,2.5,-3"') from None
        if metric in _BITS and not all(value.is_integer() and 0 <= value <= 255 for value in row):
            raise typer.BadParameter(f"{text!r}: {metric} compares packed bits; write bytes, 0 to 255")
        if not all(map(math.isfinite, row)):
            raise typer.BadParameter(f"{text!r} is no vector; its numbers must be finite")
        rows.append(row)
    wrong = next((len(row) for row in rows if dim not in (None, len(row))), None)
    if wrong is not None:
        raise typer.BadParameter(f"a vector has {wrong} numbers, but those of the index have {dim}")
    if len({len(row) for row in rows}) > 1:
        raise typer.BadParameter("the vectors differ in length: " + ", ".join(str(len(row)) for row in rows))
    return np.array(rows, np.uint8 if metric in _BITS else np.float32)


def parse_size(text: str) -> int:
    """Return bytes of "2GB" (powers of 1000), "2GiB" (powers of 1024) or "2000000000".

    Examples
    --------
    >>> parse_size("1.5 GB"), parse_size("64MiB"), parse_size("1000")
    (1500000000, 67108864, 1000)
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; write 500MB, 2GB, 2GiB or a number of bytes")
    number, prefix, binary = found.groups()
    size = int(float(number) * (1024 if binary else 1000) ** " kmgt".index((prefix or " ").lower()))
    if size < 1:
        raise typer.BadParameter(f"{text!r} is nothing; write 500MB, 2GB, 2GiB or a number of bytes")
    return size


def check_output(path: Path, *, force: bool) -> None:
    """Refuse to replace anything but an index: ``nearly build vectors.npy queries.npy`` is soon typed."""
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file, such as {path / 'index.nearly'}")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}")
    if path.exists() and path.stat().st_size and not force:
        try:
            storage.read(path).close()
        except FormatError as problem:
            raise typer.BadParameter(f"{path} is there and is no index; choose another name, or --force") from problem


def check_kind(kind: str, *, memory_limit: object, **approximate: object) -> None:
    """Refuse options that a kind of index cannot use: none is ignored."""
    if kind == "flat":
        for name, value in approximate.items():
            if value is not None:
                raise typer.BadParameter(f"--{name} has no meaning for --index flat, which is always exact")
    if kind != "auto" and memory_limit is not None:
        raise typer.BadParameter("--memory-limit chooses between indexes; leave --index out")


def make_index(
    vectors: Array, kind: str, *, metric: str, recall: float | None = None, queries: Array | None = None,
    memory_limit: int | None = None, seed: int | None = None, threads: int | None = None, ids: Any = None,
) -> Any:  # fmt: skip
    """Build the index that was asked for."""
    if kind == "flat":
        return nearly.Flat(vectors, ids=ids, metric=metric, threads=threads)
    target, seed = 0.95 if recall is None else recall, seed or 0
    if kind == "auto":
        return nearly.build(
            vectors,
            metric=metric,
            recall=target,
            ids=ids,
            queries=queries,
            memory_limit=memory_limit,
            seed=seed,
            threads=threads,
        )
    made = {"vamana": nearly.Vamana, "hnsw": nearly.HNSW, "ivf": nearly.IVF}[kind]
    return made(vectors, metric=metric, recall=target, queries=queries, seed=seed, threads=threads, ids=ids)
