"""Data sets from files: the HDF5 layout of ann-benchmarks, and the project's own real data."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.errors import FormatError, InputError
from nearly.evaluate._distances import METRICS
from nearly.evaluate.dataset import Dataset
from nearly.evaluate.files import read
from nearly.evaluate.files.hdf5 import array_of, opened, write_arrays
from nearly.evaluate.truth import pair_distances

__all__ = ["DATASETS", "data_folder", "load", "read_dataset", "write_dataset"]

Array = NDArray[Any]

_FROM_ANN = {
    "euclidean": "l2",
    "angular": "cosine",
    "dot": "ip",
    "ip": "ip",
    "hamming": "hamming",
    "jaccard": "jaccard",
}
_TO_ANN = {"l2": "euclidean", "cosine": "angular"}
_BITS = ("hamming", "jaccard")


def read_dataset(path: str | os.PathLike[str], *, metric: str | None = None) -> Dataset:
    """Read a data set in the HDF5 layout of ann-benchmarks.

    Parameters
    ----------
    path : str or path
        File with ``train``, ``test``, ``neighbors`` and, if possible, ``distances``.
    metric : str, optional
        Needed where the file has no attribute ``distance``; where it has one, they must agree.

    Returns
    -------
    Dataset
        Named after the file. Arrays are mapped where they lie in one piece. Bits that are stored as one byte each are
        packed. Distances are in the unit of `exact`: older files hold the *share* of bits that differ, and others
        squares for ``l2`` or scores for ``ip``; a few queries are measured to tell. Missing distances are computed.

    Raises
    ------
    FormatError
        If the file is damaged, lacks an array, holds sets of items (the sparse ``jaccard`` files), or its distances fit
        no known unit.
    ImportError
        If the extra ``nearly[data]`` is not installed.

    Notes
    -----
    https://github.com/erikbern/ann-benchmarks, section "Data sets".

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.hdf5"
    >>> write_dataset(path, Dataset.compute("toy", np.eye(3), np.eye(3)[:1], metric="l2", k=2))
    >>> read_dataset(path)
    Dataset(toy, l2, 3 x 3 float64, 1 queries, 2 neighbors each)
    """
    path = Path(path)
    with opened(path) as file:
        found = _metric_of(file, path, metric)
        base, queries, ids = (array_of(file, key, path) for key in ("train", "test", "neighbors"))
        distances = array_of(file, "distances", path) if "distances" in file else None
    n_bits = base.shape[1]
    if found in _BITS:
        base, queries = _packed(base, "train", path), _packed(queries, "test", path)
    try:
        if distances is None:
            ids, distances = _sorted(ids, pair_distances(base, queries, ids, metric=found))
        else:
            distances = _in_our_unit(base, queries, ids, distances, found, n_bits)
        return Dataset(path.stem, base, queries, ids, distances, found)
    except InputError as error:  # what a caller would have got wrong, the file has
        raise FormatError(f"{path.name}: {error}") from None


def write_dataset(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Write a data set in the HDF5 layout of ann-benchmarks. The file appears whole or not at all.

    Parameters
    ----------
    path : str or path
        File ending in ``.hdf5`` or ``.h5``.
    dataset : Dataset
        Packed bits are written as one byte per bit, as other readers expect.

    Raises
    ------
    InputError
        If the suffix is another.
    ImportError
        If the extra ``nearly[data]`` is not installed.

    Examples
    --------
    See `read_dataset`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".hdf5", ".h5"):
        raise InputError(f"{path.name} ends in {path.suffix or 'no suffix'}, but .hdf5 or .h5 is wanted")
    bits = dataset.metric in _BITS
    ids = dataset.truth_ids
    arrays = {
        "train": _unpacked(dataset.base) if bits else dataset.base,
        "test": _unpacked(dataset.queries) if bits else dataset.queries,
        "neighbors": ids.astype(np.int32) if len(dataset.base) < 2**31 else ids,
        "distances": dataset.truth_distances,
    }
    write_arrays(
        path,
        arrays,
        {
            "distance": _TO_ANN.get(dataset.metric, dataset.metric),
            "type": "dense",
            "point_type": "bit" if bits else "float",
            "dimension": arrays["train"].shape[1],
        },
    )


def _metric_of(file: Any, path: Path, metric: str | None) -> str:
    said = file.attrs.get("distance")
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    missing = {"train", "test", "neighbors"} - set(file)
    if missing:
        raise FormatError(f"{path.name} lacks {', '.join(sorted(missing))}; wanted is the layout of ann-benchmarks")
    if file.attrs.get("type") in ("sparse", b"sparse"):
        raise FormatError(f"{path.name} holds sets of items in one long row, but vectors or bits are wanted")
    if said is None:
        if metric not in METRICS:
            raise InputError(
                f"metric is {metric!r}, and {path.name} does not say its own; pass one of {', '.join(METRICS)}"
            )
        return metric
    found = _FROM_ANN.get(str(said), str(said))
    if found not in METRICS:
        raise FormatError(f"{path.name} says its metric is {said!r}, but one of {', '.join(_FROM_ANN)} is wanted")
    if metric not in (None, found):
        raise InputError(f"metric is {metric!r}, but {path.name} says {said!r}, which is {found!r}")
    return found


def _unpacked(array: Array) -> Array:
    bits: Array = np.unpackbits(array, axis=1).astype(np.bool_)
    return bits


def _packed(array: Array, key: str, path: Path) -> Array:
    """Packed bits of an array of one bit per element, whatever its dtype; bytes that are no bits are packed already."""
    if array.dtype == np.bool_ or ((array == 0) | (array == 1)).all():
        return np.packbits(array != 0, axis=1)
    if array.dtype != np.uint8:
        raise FormatError(f"{path.name}[{key}] holds {array.dtype} other than 0 and 1, but bits are wanted")
    return array


def _sorted(ids: Array, distances: Array) -> tuple[Array, Array]:
    order = np.lexsort((ids, distances), axis=1)
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1)


def _in_our_unit(base: Array, queries: Array, ids: Array, said: Array, metric: str, n_bits: int) -> Array:
    """``said`` in the unit of `exact`, by measuring a few queries. Other units in use give the same order."""
    if len(ids) != len(queries) or ids.shape != said.shape:
        raise InputError(f"neighbors {ids.shape} and distances {said.shape} do not fit {len(queries)} queries")
    units: dict[str, tuple[Callable[[Array], Array], ...]] = {
        "l2": (np.asarray, lambda squares: np.sqrt(np.maximum(squares, 0))),
        "ip": (np.asarray, np.negative),
        "hamming": (np.asarray, lambda shares: np.rint(shares.astype(np.float64) * n_bits)),
    }
    sample = np.unique(np.linspace(0, len(ids) - 1, num=10, dtype=np.int64)) if len(ids) else np.empty(0, np.int64)
    wanted = pair_distances(base, queries[sample], ids[sample], metric=metric)
    scale = np.abs(np.where(np.isfinite(wanted), wanted, 0)).max(initial=0.0)
    for unit in units.get(metric, (np.asarray,)):
        # 1e-3: distances that somebody computed in float32, cosine near 0 among them
        if np.allclose(unit(said[sample]).astype(np.float64), wanted, rtol=0, atol=1e-3 * scale):
            return np.asarray(unit(said))
    raise InputError(f"its distances are not those of its neighbors under {metric}, in any known unit")


def data_folder() -> Path | None:
    """Return the folder of the project's real data sets, or None where there is none.

    Returns
    -------
    Path or None
        The folder that the environment variable ``NEARLY_DATA`` names; without it, ``../shared/data`` as seen from the
        repository, for those who work in a checkout.

    Examples
    --------
    >>> folder = data_folder()
    >>> folder is None or folder.is_dir()
    True
    """
    named = os.environ.get("NEARLY_DATA")
    if named:
        return Path(named) if Path(named).is_dir() else None
    repository = Path(__file__).resolve().parents[3]
    beside = repository.parent / "shared" / "data"
    return beside if (repository / "pyproject.toml").is_file() and beside.is_dir() else None


@dataclass(frozen=True)
class _Source:
    """A data set of the project: its metrics, the usual one first, and how to read it."""

    metrics: tuple[str, ...]
    read: Callable[[Path, str, str], Dataset]


def _archive(folder: Path, name: str, metric: str) -> Dataset:
    base, queries, ids, distances = (
        read(folder / f"{name}.npz", name=key) for key in ("base", "queries", "gt_ids", "gt_dist")
    )
    return Dataset(name, base, queries, ids, distances.astype(np.float32), metric)


def _separate(folder: Path, name: str, metric: str) -> Dataset:
    base, queries, ids, distances = (
        read(folder / f"{name}_{key}.npy") for key in ("base", "queries", "gt_ids", "gt_dist")
    )
    return Dataset(name, base, queries, ids, distances, metric)


def _words(folder: Path, name: str, metric: str) -> Dataset:
    short = {"cosine": "cos"}.get(metric, metric)
    queries, ids, values = (
        read(folder / f"{name}_queries_gt.npz", name=key)
        for key in ("queries", f"{short}_gt_ids", f"{short}_gt_{'score' if metric == 'ip' else 'dist'}")
    )
    # the file has scores for ip, higher is better
    return Dataset(name, read(folder / f"{name}_base.npy"), queries, ids, -values if metric == "ip" else values, metric)


DATASETS: dict[str, _Source] = {
    "mnist_784_l2": _Source(("l2",), _archive),
    "sift_bsds_128_l2": _Source(("l2",), _archive),
    "cve_minilm_384": _Source(("cosine",), _separate),
    "wordvec_trivia_64": _Source(("cosine", "ip", "l2"), _words),
    "orb_bsds_256bit_hamming": _Source(("hamming",), _archive),
}
"""The project's own data sets, by name."""


def load(name: str, folder: str | os.PathLike[str] | None = None, *, metric: str | None = None) -> Dataset:
    """Load a data set by name, and measure some of its truth.

    Parameters
    ----------
    name : str
        One of `DATASETS`, or of a file ``<name>.hdf5`` in the layout of ann-benchmarks in the folder.
    folder : str or path, optional
        Where the files are; default `data_folder`.
    metric : str, optional
        Which truth, where there are several: ``wordvec_trivia_64`` has ``cosine`` (default), ``ip`` and ``l2``.

    Returns
    -------
    Dataset
        Vectors in the dtype of the file: uint8 for images and bits, float16 for embeddings.

    Raises
    ------
    FormatError
        If a file is damaged, or the distances of the truth are not those of its ids (20 queries are measured).
    InputError
        If the name is unknown, or the data set has no truth for this metric.
    FileNotFoundError
        If there is no data folder, or a file is missing from it.

    Examples
    --------
    >>> dataset = load("mnist_784_l2") if data_folder() else None
    >>> dataset is None or dataset.base.shape == (60000, 784)
    True
    """
    place = Path(folder) if folder is not None else data_folder()
    if place is None:
        raise FileNotFoundError(
            f"there is no data folder (NEARLY_DATA is {os.environ.get('NEARLY_DATA')!r}); "
            "set NEARLY_DATA to the folder that holds the data sets, or pass folder="
        )
    if name not in DATASETS:
        path = place / f"{name}.hdf5"
        if not path.is_file():
            raise InputError(f"name is {name!r}, but one of {', '.join(DATASETS)} or of an .hdf5 file there is wanted")
        dataset = read_dataset(path, metric=metric)
    else:
        source = DATASETS[name]
        if metric is not None and metric not in source.metrics:
            raise InputError(f"metric is {metric!r}, but {name} has the truth of {', '.join(source.metrics)}")
        dataset = source.read(place, name, metric or source.metrics[0])
    dataset.verify(n_queries=20, search=False)
    return dataset
