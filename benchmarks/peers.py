"""One adapter per library, one name per build configuration: PEERS.

To add a library: subclass Peer, give it rows in PEERS. Vectors and queries are float32; those of a cosine set have
unit length. Each library is set up the way that served it best in our own trials (benchmarks/README.md).
"""

import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = Any  # an integer array of shape (n_queries, k), or (k,) for one query
Effort = tuple[float, ...]
EFFORTS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 900, 1280)
ASKED = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600)


class Peer:
    """A library with one build configuration; the worker calls build, then tune and batch or one, then save.

    Parameters
    ----------
    metric : {"l2", "ip", "cosine"}
        Of the data set.
    cosine_as : {"ip", "l2", "cosine"}
        The form in which unit vectors are built and searched.
    config
        Whatever the adapter wants to know.
    """

    package = ""  # the module that must be importable
    asks = False  # whether efforts are recalls that are asked for

    def __init__(self, metric: str, *, cosine_as: str = "ip", **config: Any) -> None:
        self.metric = cosine_as if metric == "cosine" else metric
        self.config = config
        self.index: Any = None
        self.threads = 1

    def warm(self) -> None:
        """Do once what no build should be charged for (compiling)."""

    def build(self, vectors: Floats, threads: int) -> None:
        """Build `self.index`."""
        raise NotImplementedError(type(self).__name__)

    def efforts(self) -> list[list[Effort]]:
        """Return sweeps of the search effort, each rising."""
        return [[(effort,) for effort in EFFORTS]]

    def tune(self, effort: Effort, threads: int) -> None:
        """Set the effort and the threads of the searches that follow."""
        self.effort, self.threads = effort, threads

    def batch(self, queries: Floats, k: int) -> Ids:
        """Return the ids of k neighbors of all queries, by one call."""
        raise NotImplementedError(type(self).__name__)

    def one(self, query: Floats, k: int) -> Ids:
        """Return the ids of k neighbors of one query, by the library's cheapest call for it."""
        return self.batch(query[None], k)[0]

    def save(self, folder: Path) -> None:
        """Write the index, so that its size can be read."""
        self.index.save(str(folder / "index"))

    def rank_bytes(self, folder: Path) -> int:
        """Return the bytes of the full rows, in the saved index, that only rank what codes have found."""
        return 0


class Nearly(Peer):
    """Ours. `make` gets the module, the vectors and the common arguments."""

    package = "nearly"

    def __init__(self, metric: str, *, make: Callable[..., Any], exact: bool = False, ranks: bool = True) -> None:
        super().__init__(metric, cosine_as="cosine")
        self.make, self.exact, self.ranks = make, exact, ranks

    def build(self, vectors: Floats, threads: int) -> None:
        import nearly

        self.index = self.make(nearly, vectors, metric=self.metric, threads=threads)

    def efforts(self) -> list[list[Effort]]:
        return [[()]] if self.exact else super().efforts()

    def tune(self, effort: Effort, threads: int) -> None:
        how: dict[str, Any] = {"exact": True} if self.exact else {"effort": int(effort[0])}
        self.how = {**how, "threads": threads}

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.search(queries, k, **self.how).ids

    def one(self, query: Floats, k: int) -> Ids:
        return self.batch(query, k)

    def save(self, folder: Path) -> None:
        self.index.save(folder / "index.nearly")

    def rank_bytes(self, folder: Path) -> int:
        with (folder / "index.nearly").open("rb") as file:  # safetensors: the length of the header, the header
            parts = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start, end = parts["vectors"]["data_offsets"] if self.ranks else (0, 0)
        return int(end - start)


class NearlyAsked(Nearly):
    """Ours, searched by `recall=`: efforts are targets. Calibrated on the rows, as the queries are those searched."""

    asks = True

    def build(self, vectors: Floats, threads: int) -> None:
        super().build(vectors, threads)
        self.some = vectors[0].copy()

    def efforts(self) -> list[list[Effort]]:
        targets: list[Effort] = [(target,) for target in ASKED if self._walks(target)]
        if not targets:
            raise RuntimeError("every target is answered by an exact scan")
        return [targets]

    def _walks(self, target: float) -> bool:
        """Whether the index can deliver a target; others are answered by a scan, which is no point of its curve."""
        try:
            return bool(self.index.search(self.some, 10, recall=target).stats.n_hops)
        except ValueError:  # codes that stand alone do not tell so much
            return False

    def tune(self, effort: Effort, threads: int) -> None:
        self.how = {"recall": effort[0], "threads": threads}


class NearlyScan(NearlyAsked):
    """`Flat` by codes with bounds: it scans, and is asked for recalls too."""

    def efforts(self) -> list[list[Effort]]:
        return [[(0.90,), (0.95,), (0.99,)]]


class Exact(Peer):
    """A plain matrix product: the floor, and the peer that is always there."""

    package = "numpy"

    def build(self, vectors: Floats, threads: int) -> None:
        self.vectors, self.norms = vectors, np.einsum("ij,ij->i", vectors, vectors)

    def efforts(self) -> list[list[Effort]]:
        return [[()]]

    def batch(self, queries: Floats, k: int) -> Ids:
        found = []
        for start in range(0, len(queries), 64):
            products = queries[start : start + 64] @ self.vectors.T
            found.append(np.argpartition((self.norms if self.metric == "l2" else 0) - 2 * products, k - 1)[:, :k])
        return np.concatenate(found)

    def save(self, folder: Path) -> None:
        np.save(folder / "vectors.npy", self.vectors)


class Hnswlib(Peer):
    package = "hnswlib"

    def build(self, vectors: Floats, threads: int) -> None:
        import hnswlib

        self.index = hnswlib.Index(space=self.metric, dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), M=self.config["m"], ef_construction=200)
        self.index.add_items(vectors, num_threads=threads)

    def tune(self, effort: Effort, threads: int) -> None:
        super().tune(effort, threads)
        self.index.set_ef(int(effort[0]))

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.knn_query(queries, k=k, num_threads=self.threads)[0]

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / "index"))


class Voyager(Peer):
    package = "voyager"

    def build(self, vectors: Floats, threads: int) -> None:
        import voyager

        spaces = {"l2": "Euclidean", "ip": "InnerProduct", "cosine": "Cosine"}
        space = getattr(voyager.Space, spaces[self.metric])
        self.index = voyager.Index(space, vectors.shape[1], M=16, ef_construction=200, max_elements=len(vectors))
        self.index.add_items(vectors, num_threads=threads)

    def batch(self, queries: Floats, k: int) -> Ids:
        effort = int(self.effort[0])
        return self.index.query(queries, k=k, num_threads=self.threads, query_ef=effort)[0]

    def one(self, query: Floats, k: int) -> Ids:
        return self.batch(query, k)


class Usearch(Peer):
    """i8 codes are made here with one scale: usearch's own cast divides each row by its norm, which breaks l2."""

    package = "usearch"

    def build(self, vectors: Floats, threads: int) -> None:
        from usearch.index import Index

        dtype = self.config["dtype"]
        self.scale = 127 / np.abs(vectors).max() if dtype == "i8" else None
        metric = {"l2": "l2sq", "ip": "ip", "cosine": "cos"}[self.metric]
        self.index = Index(ndim=vectors.shape[1], metric=metric, dtype=dtype, connectivity=16, expansion_add=200)
        self.index.add(np.arange(len(vectors)), self._cast(vectors), threads=threads)

    def _cast(self, rows: Floats) -> NDArray[Any]:
        return rows if self.scale is None else np.clip(np.rint(rows * self.scale), -127, 127).astype(np.int8)

    def tune(self, effort: Effort, threads: int) -> None:
        super().tune(effort, threads)
        self.index.expansion_search = int(effort[0])

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.search(self._cast(queries), k, threads=self.threads).keys

    def one(self, query: Floats, k: int) -> Ids:
        return self.batch(query, k)


class Faiss(Peer):
    """Everything through faiss's own factory strings; {lists} and {parts} are filled in by size and dimension.

    `products_from` is the batch from which exact scans multiply matrices: left alone, version 1.15.1 waits for far
    larger batches of short vectors, and took four times as long for 1,000 queries of 64 dimensions.
    """

    package = "faiss"

    def build(self, vectors: Floats, threads: int) -> None:
        import faiss

        n, dim = vectors.shape
        widest = dim // (2 if dim <= 400 else 4)  # 4-bit sub-quantizers of 2 dimensions, of 4 where rows are long
        parts = next(parts for parts in range(widest, 0, -1) if dim % parts == 0)
        lists = 2 ** round(np.log2(4 * n**0.5))
        metric = faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        factory = self.config["factory"].format(lists=lists, parts=parts, dim=dim)
        faiss.omp_set_num_threads(threads)
        if "products_from" in self.config:
            faiss.cvar.distance_compute_blas_threshold = self.config["products_from"]
        self.faiss, self.parameters = faiss, faiss.ParameterSpace()
        self.index = faiss.index_factory(dim, factory, metric)
        if factory.startswith("HNSW"):
            self.parameters.set_index_parameter(self.index, "efConstruction", 200)
        self.index.train(vectors)
        self.index.add(vectors)

    def efforts(self) -> list[list[Effort]]:
        factory = self.config["factory"]
        if factory == "Flat":
            return [[()]]
        if factory.startswith("HNSW"):
            return super().efforts()
        return [[(probes, refine) for probes in PROBES[1:]] for refine in ((4, 10, 25, 60) if self._refines else (1,))]

    @property
    def _refines(self) -> bool:
        return self.config["factory"].endswith(("RFlat", "Refine(SQfp16)"))

    def tune(self, effort: Effort, threads: int) -> None:
        self.faiss.omp_set_num_threads(threads)
        names = ["efSearch"] if len(effort) == 1 else ["nprobe", "k_factor_rf"]
        for name, value in zip(names, effort, strict=False):
            if name != "k_factor_rf" or self._refines:
                self.parameters.set_index_parameter(self.index, name, value)

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.search(queries, k)[1]

    def save(self, folder: Path) -> None:
        self.faiss.write_index(self.index, str(folder / "index"))

    def rank_bytes(self, folder: Path) -> int:
        size = 2 if "SQfp16" in self.config["factory"] else 4
        return self.index.ntotal * self.index.d * size if self._refines else 0


class Scann(Peer):
    package = "scann"

    def build(self, vectors: Floats, threads: int) -> None:
        import scann

        n, self.n_bytes = len(vectors), vectors.nbytes
        leaves = int(2 * n**0.5) if n > 5000 else 50
        builder = scann.scann_ops_pybind.builder(vectors, 10, "dot_product" if self.metric == "ip" else "squared_l2")
        builder = builder.tree(leaves, 20, training_sample_size=min(n, 100_000))
        threshold = 0.2 if self.metric == "ip" else float("nan")  # anisotropic loss is made for inner products
        builder = builder.score_ah(2, anisotropic_quantization_threshold=threshold).reorder(100)
        builder.set_n_training_threads(threads)
        self.index = builder.build()

    def efforts(self) -> list[list[Effort]]:
        return [[(leaves, reorder) for leaves in PROBES[1:14]] for reorder in (30, 80, 200)]

    def tune(self, effort: Effort, threads: int) -> None:
        leaves, reorder = (int(value) for value in effort)
        self.depth = {"pre_reorder_num_neighbors": reorder, "leaves_to_search": leaves}
        self.index.set_num_threads(threads)
        self.search_batch = self.index.search_batched if threads == 1 else self.index.search_batched_parallel

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.search_batch(queries, k, **self.depth)[0]

    def one(self, query: Floats, k: int) -> Ids:
        return self.index.search(query, k, **self.depth)[0]

    def save(self, folder: Path) -> None:
        self.index.serialize(str(folder))

    def rank_bytes(self, folder: Path) -> int:
        return self.n_bytes


class Svs(Peer):
    """LVQ and LeanVec end the process on a CPU that is not Intel's; float32 and float16 work everywhere."""

    package = "svs"

    def build(self, vectors: Floats, threads: int) -> None:
        import svs

        alpha, distance = (1.2, svs.L2) if self.metric == "l2" else (0.95, svs.MIP)
        parameters = svs.VamanaBuildParameters(graph_max_degree=32, window_size=128, alpha=alpha)
        if "codes" in self.config:
            with tempfile.TemporaryDirectory(prefix="nearly-bench-") as folder:
                svs.write_vecs(vectors, f"{folder}/rows.fvecs")
                file = svs.VectorDataLoader(f"{folder}/rows.fvecs", svs.DataType.float32)
                rows = self.config["codes"](svs, file, vectors.shape[1])
                self.index = svs.Vamana.build(parameters, rows, distance, num_threads=threads)
            return
        rows = vectors.astype(self.config["dtype"], copy=False)
        self.index = svs.Vamana.build(parameters, rows, distance, num_threads=threads)

    def tune(self, effort: Effort, threads: int) -> None:
        self.index.num_threads = threads
        self.index.search_window_size = int(effort[0])

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.search(queries, k)[0]

    def save(self, folder: Path) -> None:
        self.index.save(*(str(folder / part) for part in ("config", "graph", "vectors")))


class Ngt(Peer):
    """ONNG; the wheel has no tool that builds the quantized graphs. Its batch call takes no thread count."""

    package = "ngtpy"

    def build(self, vectors: Floats, threads: int) -> None:
        import ngtpy

        self.ngtpy = ngtpy
        self.folder = tempfile.TemporaryDirectory(prefix="nearly-bench-")
        plain, best = (str(Path(self.folder.name) / name) for name in ("anng", "onng"))
        size = {"edge_size_for_creation": 60, "edge_size_for_search": -2}
        ngtpy.create(plain, vectors.shape[1], **size, distance_type="L2" if self.metric == "l2" else "Inner Product")
        index = ngtpy.Index(plain, log_disabled=True)
        index.batch_insert(vectors, num_threads=threads)
        index.save()
        index.close()
        optimizer = ngtpy.Optimizer(num_of_outgoings=10, num_of_incomings=60, log_disabled=True)
        optimizer.set_processing_modes(
            search_parameter_optimization=False,
            prefetch_parameter_optimization=False,
            accuracy_table_generation=False,
        )
        optimizer.execute(plain, best)
        self.index = ngtpy.Index(best, read_only=True, log_disabled=True)

    def efforts(self) -> list[list[Effort]]:
        return [[(e,) for e in (-0.1, -0.05, 0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4)]]

    def tune(self, effort: Effort, threads: int) -> None:
        super().tune(effort, threads)
        self.index.set(epsilon=effort[0])

    def batch(self, queries: Floats, k: int) -> Ids:
        results = self.ngtpy.BatchResults()
        self.index.batch_search(queries, results, k, False)
        ids, starts = np.asarray(results.get_indexed_ids()), np.asarray(results.get_index())
        return np.stack([_filled(ids[start:end], k) for start, end in pairwise(starts)])

    def one(self, query: Floats, k: int) -> Ids:
        return _filled(self.index.search(query, k, self.effort[0], with_distance=False), k)

    def save(self, folder: Path) -> None:
        for path in (Path(self.folder.name) / "onng").iterdir():
            os.link(path, folder / path.name)


def _filled(ids: Any, k: int) -> Ids:
    """Return k ids, -1 where the library found fewer."""
    row = np.full(k, -1, np.int64)
    row[: min(len(ids), k)] = ids[:k]
    return row


class Kannolo(Peer):
    """Plain HNSW: its RaBitQ form was slower on every set of ours."""

    package = "kannolo"

    def build(self, vectors: Floats, threads: int) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # read once, when the library makes its pool
        import kannolo

        metric = "euclidean" if self.metric == "l2" else "dotproduct"
        shape = {"m": 16, "ef_construction": 200, "graph_type": "permuted"}
        build = kannolo.DensePlainHNSW.build_from_array
        self.index = build(vectors.ravel(), vectors.shape[1], metric=metric, **shape)

    def batch(self, queries: Floats, k: int) -> Ids:
        found = self.index.batch_search(queries.ravel(), k, int(self.effort[0]), None, self.threads)[1]
        return found.reshape(len(queries), -1)

    def one(self, query: Floats, k: int) -> Ids:
        return self.index.search(query, k, int(self.effort[0]))[1]


class Rabitqlib(Peer):
    """RaBitQ in lists and in HNSW: both begin with k-means centroids."""

    package = "rabitqlib"

    def build(self, vectors: Floats, threads: int) -> None:
        import rabitqlib

        (n, dim), bits, graph = vectors.shape, self.config["bits"], self.config["kind"] == "hnsw"
        clusters = 16 if graph else int(4 * n**0.5) if n > 5000 else 64
        kmeans = rabitqlib.RaBitQKMeans(
            dim, clusters, num_threads=threads, final_assignment=rabitqlib.FinalAssignmentMode.Exact
        )
        kmeans.train(vectors)
        if graph:
            self.index = rabitqlib.HnswIndex(dim, n, 16, 200, bits, metric=self.metric)
        else:
            self.index = rabitqlib.IvfIndex(dim, n, clusters, bits, metric=self.metric)
        assignments = np.asarray(kmeans.assignments).astype(np.uint32)
        self.index.build(vectors, kmeans.centroids, assignments, num_threads=threads)

    def efforts(self) -> list[list[Effort]]:
        return super().efforts() if self.config["kind"] == "hnsw" else [[(probes,) for probes in PROBES[1:]]]

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.search(queries, k, int(self.effort[0]), num_threads=self.threads)[0]


class Symqg(Peer):
    """SymphonyQG: a graph with RaBitQ codes beside the edges. bits=0 re-ranks by the float32 rows, 8 by codes."""

    package = "rabitqlib"

    def build(self, vectors: Floats, threads: int) -> None:
        import rabitqlib

        bits = self.config["bits"]
        self.index = rabitqlib.SymqgIndex(vectors.shape[1], 32, metric=self.metric, quantization_bits=bits)
        self.index.build(vectors, 200, num_threads=threads)

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.search_batch(queries, k, int(self.effort[0]), self.threads)[0]


class Pynndescent(Peer):
    """numba compiles at the first call, so a small index is built before the clock starts."""

    package = "pynndescent"

    def _make(self, vectors: Floats, threads: int) -> Any:
        import pynndescent

        metric = {"l2": "euclidean", "ip": "dot", "cosine": "cosine"}[self.metric]
        # one compiled form for one and many threads: numba.set_num_threads decides
        index = pynndescent.NNDescent(
            vectors, n_neighbors=30, metric=metric, n_jobs=threads, random_state=0, parallel_batch_queries=True
        )
        index.prepare()
        return index

    def warm(self) -> None:
        rows = np.random.default_rng(0).standard_normal((2000, 16), dtype=np.float32)
        self._make(rows, 1).query(rows[:5], k=5)

    def build(self, vectors: Floats, threads: int) -> None:
        self.index = self._make(vectors, threads)

    def efforts(self) -> list[list[Effort]]:
        return [[(epsilon,) for epsilon in (0, 0.03, 0.06, 0.1, 0.14, 0.18, 0.24, 0.3, 0.4)]]

    def tune(self, effort: Effort, threads: int) -> None:
        import numba

        super().tune(effort, threads)
        numba.set_num_threads(threads)

    def batch(self, queries: Floats, k: int) -> Ids:
        return self.index.query(queries, k=k, epsilon=self.effort[0])[0]

    def save(self, folder: Path) -> None:
        raise NotImplementedError("pynndescent indexes are only pickled")


def _graph(kind: str, quantizer: Callable[[Any, int], Any] = lambda nearly, dim: None, **build: Any) -> dict[str, Any]:
    """An index of ours with a fixed build. Not calibrated, as no peer has that, unless `calibrate=True`."""

    def make(nearly: Any, rows: Floats, **common: Any) -> Any:
        codes = quantizer(nearly, rows.shape[1])
        return getattr(nearly, kind)(rows, quantizer=codes, **{"calibrate": False, **build, **common})

    return {"make": make}


def _reduced(share: int) -> Callable[[Any, int], Any]:
    """int8 codes of the leading principal dimensions, 1 of `share`."""
    return lambda nearly, dim: nearly.Reduced(dim // share, nearly.Scalar(bits=8))


PEERS: dict[str, tuple[type[Peer], dict[str, Any]]] = {
    "nearly-build": (Nearly, {"make": lambda nearly, rows, **common: nearly.build(rows, **common)}),
    "nearly-recall": (NearlyAsked, _graph("Vamana", calibrate=True)),
    "nearly-recall-99": (NearlyAsked, _graph("Vamana", calibrate=True, recall=0.99)),
    "nearly-vamana": (Nearly, _graph("Vamana")),
    "nearly-vamana-99": (Nearly, _graph("Vamana", recall=0.99)),
    "nearly-vamana-scalar8": (Nearly, _graph("Vamana", lambda nearly, dim: nearly.Scalar(bits=8))),
    "nearly-vamana-reduced2": (Nearly, _graph("Vamana", _reduced(2))),
    "nearly-vamana-reduced4": (Nearly, _graph("Vamana", _reduced(4))),
    "nearly-hnsw": (Nearly, _graph("HNSW")),
    "nearly-ivf": (NearlyAsked, _graph("IVF", calibrate=True)),
    "nearly-flat": (Nearly, {"make": lambda nearly, rows, **common: nearly.Flat(rows, **common), "exact": True}),
    "rabitqlib-symqg0": (Symqg, {"bits": 0}),
    "rabitqlib-symqg8": (Symqg, {"bits": 8}),
    "rabitqlib-symqg0-l2": (Symqg, {"bits": 0, "cosine_as": "l2"}),
    "rabitqlib-symqg8-l2": (Symqg, {"bits": 8, "cosine_as": "l2"}),
    "rabitqlib-ivf4": (Rabitqlib, {"kind": "ivf", "bits": 4}),
    "rabitqlib-ivf8": (Rabitqlib, {"kind": "ivf", "bits": 8}),
    "rabitqlib-hnsw8": (Rabitqlib, {"kind": "hnsw", "bits": 8}),
    "scann": (Scann, {}),
    "svs-f16": (Svs, {"dtype": "float16"}),
    "svs-f32": (Svs, {"dtype": "float32"}),
    "svs-lvq4x8": (Svs, {"codes": lambda svs, file, dim: svs.LVQLoader(file, primary=4, residual=8)}),
    "svs-leanvec": (Svs, {"codes": lambda svs, file, dim: svs.LeanVecLoader(file, dim // 2)}),
    "faiss-ivf-pq": (Faiss, {"factory": "IVF{lists},PQ{parts}x4fs,RFlat", "cosine_as": "l2"}),
    "faiss-ivf-pq-f16": (Faiss, {"factory": "IVF{lists},PQ{parts}x4fs,Refine(SQfp16)", "cosine_as": "l2"}),
    "faiss-ivf-rabitq": (Faiss, {"factory": "IVF{lists},RaBitQfs,RFlat", "cosine_as": "l2"}),
    "faiss-ivf-rabitq8": (Faiss, {"factory": "RR{dim},IVF{lists},RaBitQ8", "cosine_as": "l2"}),
    "faiss-hnsw-sq8": (Faiss, {"factory": "HNSW32_SQ8"}),
    "faiss-hnsw": (Faiss, {"factory": "HNSW32"}),
    "faiss-flat": (Faiss, {"factory": "Flat"}),
    "faiss-flat-products": (Faiss, {"factory": "Flat", "products_from": 20}),
    "usearch-i8": (Usearch, {"dtype": "i8", "cosine_as": "cosine"}),
    "usearch-f32": (Usearch, {"dtype": "f32", "cosine_as": "cosine"}),
    "kannolo": (Kannolo, {}),
    "hnswlib-16": (Hnswlib, {"m": 16}),
    "hnswlib-32": (Hnswlib, {"m": 32}),
    "ngt-onng": (Ngt, {"cosine_as": "l2"}),
    "voyager": (Voyager, {"cosine_as": "cosine"}),
    "pynndescent": (Pynndescent, {"cosine_as": "cosine"}),
    "exact": (Exact, {}),
}


# Our quantizers: how each is spelled, and what makes it. `default` is what an index takes by itself.
CODES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "default": ("None", lambda nearly: None),
    "plain": ("Plain()", lambda nearly: nearly.Plain()),
    "scalar8": ("Scalar(8)", lambda nearly: nearly.Scalar(8)),
    "scalar4": ("Scalar(4)", lambda nearly: nearly.Scalar(4)),
    "reduced": ("Reduced()", lambda nearly: nearly.Reduced()),
    **{f"rabitq{bits}": (f"RaBitQ({bits})", lambda nearly, bits=bits: nearly.RaBitQ(bits)) for bits in (1, 2, 4, 8)},
    **{f"saq{bits}": (f"SAQ({bits})", lambda nearly, bits=bits: nearly.SAQ(bits)) for bits in (1, 2, 4, 6, 8)},
    "product": ("Product(bits=4)", lambda nearly: nearly.Product(bits=4)),
    "opq": ('Product(bits=4, rotation="opq")', lambda nearly: nearly.Product(bits=4, rotation="opq")),
    "residual": ("Residual(32, bits=4)", lambda nearly: nearly.Residual(32, bits=4)),
    "binary": ("Binary()", lambda nearly: nearly.Binary()),
}
BOUNDED = ["rabitq1", "rabitq2", "rabitq4", "rabitq8", "saq1", "saq2", "saq4", "saq8"]
EVERYWHERE = ["default", "plain", "scalar8", "scalar4", *BOUNDED, "product", "opq", "binary"]


def _pair(kind: str, code: str, refine: str | None = "memory") -> dict[str, tuple[type[Peer], dict[str, Any]]]:
    """An index with a quantizer, by its name: IVF and scans are asked for recalls, graphs are given efforts."""
    build = {"calibrate": kind == "IVF"} if kind != "Flat" else {}
    if refine is None:
        build["recall"] = 0.5  # codes alone: what they reach is measured, and more is refused

    def make(nearly: Any, rows: Floats, **common: Any) -> Any:
        return getattr(nearly, kind)(rows, quantizer=CODES[code][1](nearly), refine=refine, **build, **common)

    adapter = {"Flat": NearlyScan, "IVF": NearlyAsked, "Vamana": Nearly}[kind]
    ranks = code != "plain" and refine is not None
    config = {"make": make, "ranks": ranks, "exact": code == "plain" and kind == "Flat"}
    suffix = {"memory": "", None: "-alone"}.get(refine, f"-{refine}")
    return {f"nearly-{kind.lower()}-{code}{suffix}": (Nearly if config["exact"] else adapter, config)}


# What bench_codes compares: each index with each quantizer that makes sense in it, vectors in memory or not. A graph by
# residual codes takes hours to build, as tables for each of its rows are of all dimensions.
PAIRS: dict[str, tuple[type[Peer], dict[str, Any]]] = {
    **{name: row for code in ["plain", *BOUNDED] for name, row in _pair("Flat", code).items()},
    **{name: row for code in [*EVERYWHERE, "residual", "reduced"] for name, row in _pair("IVF", code).items()},
    **{name: row for code in EVERYWHERE for name, row in _pair("Vamana", code).items()},
    **_pair("IVF", "default", "float16"),
    **_pair("IVF", "default", "disk"),
    **_pair("IVF", "saq4", None),
    **_pair("IVF", "saq6", None),
    **_pair("IVF", "rabitq8", None),
    **_pair("Vamana", "default", "float16"),
    **_pair("Vamana", "default", "disk"),
    **_pair("Vamana", "saq1", "disk"),
}


def names_for(metric: str, wanted: list[str] | None = None) -> list[str]:
    """Return the names that begin with one of `wanted`, of those that make sense for a data set's metric."""
    names = [name for name in PEERS if not wanted or any(name == w or name.startswith(w + "-") for w in wanted)]
    unknown = [w for w in wanted or [] if not any(name == w or name.startswith(w + "-") for name in PEERS)]
    if unknown:
        raise SystemExit(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return [name for name in names if metric == "cosine" or not name.endswith("-l2")]


def version(name: str) -> str:
    """Return the installed version of the library behind a name."""
    package = (PEERS | PAIRS)[name][0].package
    try:
        return metadata.version({"faiss": "faiss-cpu", "svs": "scalable-vs", "ngtpy": "ngt"}.get(package, package))
    except metadata.PackageNotFoundError:
        return "unknown"


def make_peer(name: str, metric: str) -> Peer:
    """Return the adapter of a name."""
    kind, config = (PEERS | PAIRS)[name]
    return kind(metric, **config)
