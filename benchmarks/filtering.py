"""One adapter per library whose index takes a filter, and the process that searches one: FILTERING.

A filter comes as a bool a row (`selector`), made beforehand or within the timed call, or, for ours, as conditions.
usearch, scann, svs, ngt, voyager, kannolo, pynndescent and rabitqlib take none by their Python packages. Where one
takes filters in several forms, each is a way, tried at the effort that was chosen, and the quickest stands.
"""

import json
import sys
from pathlib import Path
from typing import Any

import databases
import keeper
import measure
import numpy as np
import peers
import predicates
import records
import worker
from numpy.typing import NDArray
from peers import EFFORTS, PEERS, PROBES, Effort, Floats, Ids, Peer
from predicates import Table
from records import Columns, Conditions
from worker import K, keep_ids, use_threads

Mask = NDArray[np.bool_]
WIDE = (*EFFORTS, 1800, 2560, 3600, 5120, 7200, 10240, 14400, 20480)  # graphs need that where few rows pass
ALL_PROBES = (*PROBES, 800, 1024, 1448, 2048)
TARGET = 0.95


class Filtering(Peer):
    """A peer that takes filters. Efforts have one number more than those of a peer: the way."""

    ways: tuple[str, ...] = ("",)
    batches = True  # whether a batch under one filter is worth measuring

    def know(self, columns: Columns) -> None:
        """Take the columns that predicates are on."""
        self.table = Table(columns)

    def efforts(self) -> list[list[Effort]]:
        return [[(*effort, 0) for effort in series] for series in self.sweeps()]

    def sweeps(self) -> list[list[Effort]]:
        """Return sweeps of the effort, each rising."""
        return [[(effort,) for effort in WIDE]]

    def load(self, folder: Path, vectors: Floats) -> None:
        """Read what `save` wrote; here nothing, as nothing is built."""
        self.build(vectors, 1)

    def tune(self, effort: Effort, threads: int) -> None:
        super().tune(effort[:-1], threads)
        self.way = self.ways[int(effort[-1])]

    def selector(self, mask: Mask) -> Any:
        """Return a filter as the library takes it, with what else goes into a call."""
        raise NotImplementedError(type(self).__name__)

    def selector_of(self, conditions: Conditions) -> Any:
        """Return the filter of a predicate: evaluated by NumPy, as the library has no columns."""
        return self.selector(self.table.mask(conditions))

    def batch_of(self, queries: Floats, k: int, selector: Any) -> Ids:
        """Return the ids of k neighbors of each query, of the rows that pass."""
        raise NotImplementedError(type(self).__name__)

    def one_of(self, query: Floats, k: int, selector: Any) -> Ids:
        """Return the same of one query."""
        return self.batch_of(query[None], k, selector)[0]


class Nearly(Filtering, peers.Nearly):
    """Ours, asked for the target; a predicate is evaluated by `nearly.filters`."""

    asks = True

    def sweeps(self) -> list[list[Effort]]:
        return [[()]]

    def tune(self, effort: Effort, threads: int) -> None:
        how: dict[str, Any] = {"exact": True} if self.exact else {"recall": TARGET}
        self.how = {**how, "threads": threads}

    def load(self, folder: Path, vectors: Floats) -> None:
        import nearly

        self.index = nearly.load(folder / "index.nearly")

    def know(self, columns: Columns) -> None:
        from nearly.filters import Column, Filter, select

        self.filter, self.select = Filter, select
        self.columns = {name: Column.from_values(name, values) for name, values in columns.items()}
        self.n = len(next(iter(columns.values())))

    def selector(self, mask: Mask) -> Any:
        return self.filter.from_mask(mask)

    def selector_of(self, conditions: Conditions) -> Any:
        return self.select(spelled(conditions), self.columns, self.n)

    def batch_of(self, queries: Floats, k: int, selector: Any) -> Ids:
        return self.index.search_many(queries, k, where=selector, **self.how).ids

    def one_of(self, query: Floats, k: int, selector: Any) -> Ids:
        return self.index.search(query, k, where=selector, **self.how).ids


class Exact(Filtering, peers.Exact):
    """NumPy: the rows that pass gathered, or the products of all and the others left out."""

    ways = ("gathered", "masked")
    batches = False

    def sweeps(self) -> list[list[Effort]]:
        return [[()]]

    def selector(self, mask: Mask) -> Any:
        return np.flatnonzero(mask) if self.way == "gathered" else ~mask

    def one_of(self, query: Floats, k: int, selector: Any) -> Ids:
        gathered = self.way == "gathered"
        norms = self.norms if self.metric == "l2" else np.float32(0) * self.norms[:1]
        if gathered:
            found = (norms[selector] if self.metric == "l2" else 0) - 2 * (self.vectors[selector] @ query)
            best = np.argpartition(found, k - 1)[:k]
            return selector[best]
        found = norms - 2 * (self.vectors @ query)
        found[selector] = np.inf
        return np.argpartition(found, k - 1)[:k]


class Hnswlib(Filtering, peers.Hnswlib):
    """A Python function is called for each candidate, so it is slow by nature: the quickest there are."""

    ways = ("list", "set")
    batches = False

    def load(self, folder: Path, vectors: Floats) -> None:
        import hnswlib

        self.index = hnswlib.Index(space=self.metric, dim=vectors.shape[1])
        self.index.load_index(str(folder / "index"))

    def selector(self, mask: Mask) -> Any:
        return mask.tolist().__getitem__ if self.way == "list" else set(np.flatnonzero(mask).tolist()).__contains__

    def one_of(self, query: Floats, k: int, selector: Any) -> Ids:
        try:
            return self.index.knn_query(query, k=k, num_threads=1, filter=selector)[0][0]
        except RuntimeError:  # it found fewer than k
            return np.full(k, -1)


class Faiss(Filtering, peers.Faiss):
    """faiss' own selectors, in the parameters of a search."""

    def __init__(self, metric: str, **config: Any) -> None:
        super().__init__(metric, **config)
        self.flat, self.graph = config["factory"] == "Flat", config["factory"].startswith("HNSW")
        self.ways = ("array", "bitmap", "batch") if self.flat else ("bitmap", "batch")

    def sweeps(self) -> list[list[Effort]]:
        if self.flat:
            return [[()]]
        if self.graph:
            return [[(effort,) for effort in WIDE]]
        probes = [probes for probes in ALL_PROBES[1:] if probes <= self._lists()]
        refines = (4, 10, 25, 60) if "RFlat" in self.config["factory"] else (1,)
        return [[(one, refine) for one in probes] for refine in refines]

    def load(self, folder: Path, vectors: Floats) -> None:
        import faiss

        self.faiss, self.index = faiss, faiss.read_index(str(folder / "index"))

    def _lists(self) -> int:
        return int(self.faiss.extract_index_ivf(self.index).nlist)

    def tune(self, effort: Effort, threads: int) -> None:
        Peer.tune(self, effort[:-1], threads)
        self.way = self.ways[int(effort[-1])]
        self.faiss.omp_set_num_threads(threads)

    def selector(self, mask: Mask) -> Any:
        faiss = self.faiss
        if self.way == "bitmap":
            chosen = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        else:
            kind = faiss.IDSelectorArray if self.way == "array" else faiss.IDSelectorBatch
            chosen = kind(np.flatnonzero(mask))
        if self.flat:
            return faiss.SearchParameters(sel=chosen)
        if self.graph:
            return faiss.SearchParametersHNSW(sel=chosen, efSearch=int(self.effort[0]))
        probes, refine = self.effort
        lists = faiss.SearchParametersIVF(sel=chosen, nprobe=int(probes))
        if "RFlat" not in self.config["factory"]:
            return lists
        return faiss.IndexRefineSearchParameters(k_factor=float(refine), base_index_params=lists)

    def batch_of(self, queries: Floats, k: int, selector: Any) -> Ids:
        return self.index.search(queries, k, params=selector)[1]


def spelled(conditions: Conditions) -> dict[str, Any]:
    """Return a predicate as a dict of ours."""
    where: dict[str, dict[str, Any]] = {}
    for condition in conditions:
        sign = {"=": "$eq", ">=": "$gte", "<=": "$lte"}[condition.sign]
        where.setdefault(condition.column, {})[sign] = condition.value
    return where


FILTERING: dict[str, tuple[type[Filtering], dict[str, Any]]] = {
    "nearly-vamana": (Nearly, PEERS["nearly-recall"][1]),
    "nearly-ivf": (Nearly, PEERS["nearly-ivf"][1]),
    "nearly-flat": (Nearly, PEERS["nearly-flat"][1]),
    "faiss-hnsw": (Faiss, {"factory": "HNSW32"}),
    "faiss-hnsw-sq8": (Faiss, {"factory": "HNSW32_SQ8"}),
    "faiss-ivf": (Faiss, {"factory": "IVF{lists},Flat", "cosine_as": "l2"}),
    "faiss-ivf-sq8": (Faiss, {"factory": "IVF{lists},SQ8", "cosine_as": "l2"}),
    "faiss-ivf-pq": (Faiss, PEERS["faiss-ivf-pq"][1]),
    "faiss-ivf-rabitq": (Faiss, PEERS["faiss-ivf-rabitq"][1]),
    "faiss-flat": (Faiss, {"factory": "Flat"}),
    "hnswlib": (Hnswlib, {"m": 16}),
    "numpy": (Exact, {}),
}
DATABASES = [name for name in databases.DATABASES if name != "exact"]
NAMES = [*FILTERING, *DATABASES]


# ---------------------------------------------------------------- processes


class IndexSession:
    """What the process of an index can be asked for.

    A mode of searching is a table, a way of asking, a share and a number of filters.
    """

    def __init__(self, folder: Path, name: str, metric: str, core: int) -> None:
        kind, config = FILTERING[name]
        self.folder, self.core, self.index = folder, core, kind(metric, **config)
        self.vectors, self.queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
        self.filters = records.read_filters(folder)

    def build(self, path: str, threads: int) -> dict[str, Any]:
        """Build on so many threads and save, or load what was saved; take in the columns."""
        folder, saved = Path(path), (Path(path) / "saved").exists()
        use_threads(threads, self.core)
        index, vectors = self.index, self.vectors
        took = measure.timed(lambda: index.load(folder, vectors) if saved else index.build(vectors, threads))
        if not saved:
            index.save(folder)
            (folder / "saved").touch()
        columns = records.read_rows(self.folder).columns
        index.know(columns)
        self.masks = Table(columns)
        about = {"efforts": index.efforts(), "ways": index.ways, "batches": index.batches}
        spent = {} if saved else {"seconds": took.seconds, "cpu_seconds": took.cpu_seconds}
        return {**spent, "asks": index.asks, **about}

    def search(self, mode: str, effort: list[float], n_queries: int, keep: bool) -> dict[str, Any]:
        """Make one pass over the first queries; query i has filter i modulo their number."""
        use_threads(1, self.core)
        table, way, share, n_filters = mode.split("/")
        index, queries = self.index, self.queries[:n_queries]
        index.tune(tuple(effort), 1)
        filters = [self.filters[predicates.named(share, i)] for i in range(int(n_filters))]
        numbers = [i % len(filters) for i in range(n_queries)]
        if table == "raw":
            pairs = [(query, filters[i]) for query, i in zip(queries, numbers, strict=True)]
            took = measure.timed(lambda: [index.one_of(query, K, index.selector_of(f)) for query, f in pairs])
        else:
            ready = [index.selector(self.masks.mask(conditions)) for conditions in filters]
            if way == "single":
                asked = [(query, ready[i]) for query, i in zip(queries, numbers, strict=True)]
                took = measure.timed(lambda: [index.one_of(query, K, selector) for query, selector in asked])
            else:
                parts = [(queries[i :: len(ready)], ready[i]) for i in range(min(len(ready), n_queries))]
                took = measure.timed(lambda: [index.batch_of(part, K, selector) for part, selector in parts])
        if keep:
            keep_ids(self.folder, took.result if way == "single" else _shuffled(took.result, n_queries))
        return {"seconds": took.seconds, "cpu_seconds": took.cpu_seconds}


def _shuffled(parts: list[Any], n_queries: int) -> list[Any]:
    """Return the answers of batches in the order of queries."""
    return [parts[i % len(parts)][i // len(parts)] for i in range(n_queries)]


class Dicts(databases.Nearly):
    """Ours, asked by dicts: a text in SQL, new each time, would cost DuckDB's parser a millisecond or two."""

    def where(self, conditions: Conditions) -> Any:
        return spelled(conditions)


class DatabaseSession(keeper.Session):
    """What the process of a database can be asked for: a new predicate for each query, in its own spelling."""

    def __init__(self, folder: Path, name: str, metric: str, core: int) -> None:
        super().__init__(folder, name, metric, core)
        if name == "nearly":
            self.database = Dicts(metric)
        self.database.filtered = tuple(json.loads((folder / "columns.json").read_text()))

    def search(self, mode: str, effort: list[float], n_queries: int, keep: bool) -> dict[str, Any]:
        use_threads(1, self.core)
        _, _, share, n_filters = mode.split("/")
        database = self.database
        database.tune(tuple(effort))
        filters = [self.filters[predicates.named(share, i % int(n_filters))] for i in range(n_queries)]
        pairs = list(zip(self.queries[:n_queries], filters, strict=True))
        took = measure.timed(lambda: [database.one(query, K, database.where(f)) for query, f in pairs])
        if keep:
            keep_ids(self.folder, took.result)
        return {"seconds": took.seconds, "cpu_seconds": took.cpu_seconds}


if __name__ == "__main__":
    sys.modules.pop("datasets", None)  # see keeper.py
    del sys.path[0]
    worker.serve(IndexSession if sys.argv[2] in FILTERING else DatabaseSession)
