"""The data sets of the benchmarks: real ones from the folder NEARLY_DATA, ann-benchmarks files, one made here.

A name is a row of SOURCES, a path to an ann-benchmarks HDF5 file (needs h5py), or "synthetic".
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import numpy as np
from numpy.typing import NDArray

K = 10
Parts = tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]  # vectors, queries, exact ids or None


@dataclass(frozen=True)
class Dataset:
    """Vectors, queries and how far each query's k-th true neighbor is.

    Rows are float32; those of a cosine set have unit length already, so that ip and l2 order them alike.
    """

    name: str
    metric: str  # l2, ip, cosine
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    radius: NDArray[np.float64]

    def recall(self, ids: NDArray[Any]) -> float:
        """Return mean recall@10 by distance of the answers to the first ``len(ids)`` queries."""
        return float(self.recalls(ids).mean())

    def recalls(self, ids: NDArray[Any]) -> NDArray[np.float64]:
        """Return recall@10 by distance of each answer."""
        return measure.recalls_by_distance(ids, self.vectors, self.queries, self.metric, self.radius, K)

    def describe(self) -> dict[str, Any]:
        """Return the facts that go beside every figure."""
        n, dim = self.vectors.shape
        return {"name": self.name, "n": n, "dim": dim, "metric": self.metric, "n_queries": len(self.queries), "k": K}


def data_folder() -> Path:
    """Return NEARLY_DATA, or else the folder shared/data beside the checkout."""
    return Path(os.environ.get("NEARLY_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def _npz(folder: Path, name: str) -> Parts:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return file["base"], file["queries"], file["gt_ids"]


def _cve(folder: Path) -> Parts:
    base, queries, ids = (np.load(folder / f"cve_minilm_384_{part}.npy") for part in ("base", "queries", "gt_ids"))
    return base, queries, ids


def _words(folder: Path, metric: str) -> Parts:
    with np.load(folder / "wordvec_trivia_64_queries_gt.npz", allow_pickle=False) as file:
        return np.load(folder / "wordvec_trivia_64_base.npy"), file["queries"], file[f"{metric}_gt_ids"]


SOURCES: dict[str, tuple[str, Callable[[Path], Parts]]] = {
    "mnist_784_l2": ("l2", lambda folder: _npz(folder, "mnist_784_l2")),
    "sift_bsds_128_l2": ("l2", lambda folder: _npz(folder, "sift_bsds_128_l2")),
    "cve_minilm_384": ("cosine", _cve),
    "wordvec_trivia_64_cosine": ("cosine", lambda folder: _words(folder, "cos")),
    "wordvec_trivia_64_ip": ("ip", lambda folder: _words(folder, "ip")),
    "wordvec_trivia_64_l2": ("l2", lambda folder: _words(folder, "l2")),
}


STANDARD = ("mnist_784_l2", "sift_bsds_128_l2", "cve_minilm_384", "wordvec_trivia_64_cosine", "wordvec_trivia_64_ip")
CODED = ("cve_minilm_384", "sift_bsds_128_l2", "mnist_784_l2")  # that quantizers are compared on

TITLES = {
    "mnist_784_l2": "MNIST 784 l2",
    "sift_bsds_128_l2": "SIFT 128 l2",
    "cve_minilm_384": "CVE 384 cosine, other queries",
    "wordvec_trivia_64_cosine": "words 64 cosine",
    "wordvec_trivia_64_ip": "words 64 ip",
}


def _ann_benchmarks(path: Path) -> tuple[str, Parts]:
    import h5py

    with h5py.File(path, "r") as file:
        distance = str(file.attrs["distance"])
        parts = file["train"][:], file["test"][:], file["neighbors"][:]
    return {"euclidean": "l2", "angular": "cosine", "dot": "ip"}[distance], parts


def _synthetic(n: int, dim: int = 64, n_queries: int = 1000) -> Parts:
    """Gaussian clusters of 8 intrinsic dimensions, bent into `dim`: easy, small, the same every time."""
    rng = np.random.default_rng(0)
    centers, spread = 1.5 * rng.standard_normal((max(8, n // 500), 8)), rng.standard_normal((8, dim)) / 8**0.5
    latent = centers[rng.integers(len(centers), size=n + n_queries)] + rng.standard_normal((n + n_queries, 8))
    rows = np.tanh(latent @ spread) + 0.02 * rng.standard_normal((n + n_queries, dim))
    return rows[:n], rows[n:], None


def load(name: str, *, n_queries: int = 1000, limit: int | None = None) -> Dataset:
    """Load a data set; `limit` keeps the first rows only, and exact neighbors are then computed anew.

    `n_queries` takes the first queries of the file, all of them where it has fewer.
    """
    if name == "synthetic":
        metric, (vectors, queries, truth) = "l2", _synthetic(limit or 10_000)
    elif name in SOURCES:
        metric, read = SOURCES[name]
        vectors, queries, truth = read(data_folder())
    elif name.endswith((".hdf5", ".h5")):
        metric, (vectors, queries, truth) = _ann_benchmarks(Path(name))
        name = Path(name).stem
    else:
        raise SystemExit(f"no data set {name!r}; there are synthetic, {', '.join(SOURCES)}, or a path to an .hdf5 file")
    if limit is not None and limit < len(vectors):
        vectors, truth, name = vectors[:limit], None, f"{name}-{limit}"
    vectors, queries = (np.ascontiguousarray(part, np.float32) for part in (vectors, queries[:n_queries]))
    if metric == "cosine":
        vectors, queries = _unit(vectors), _unit(queries)
    if truth is None:
        radius = measure.exact_radius(vectors, queries, metric, K)
    else:
        neighbors = truth[: len(queries), :K].astype(np.int64)
        radius = measure.squared_or_negated(vectors, neighbors, queries, metric).max(axis=1)
    return Dataset(name, metric, vectors, queries, radius)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny))  # a zero row stays zero
