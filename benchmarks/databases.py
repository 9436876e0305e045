"""One adapter per embedded vector database, one name per configuration: DATABASES.

To add a database: subclass Database, give it a row in DATABASES. Rows of a cosine set have unit length. Each is set up
as its documentation advises for bulk loading and filters; `settings` says how, and goes into the records.
"""

import json
import operator
import sqlite3
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from records import Condition, Conditions, Rows, sql

Floats = NDArray[np.float32]
Effort = tuple[float, ...]
ASKED = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
BREADTHS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640)
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
FILTERED = ("published", "severity", "vendor", "product")  # columns that get an index where a database has them
SIGNS = {"=": operator.eq, ">=": operator.ge, "<=": operator.le}


class Database:
    """A database with one configuration. A process calls add, index and close; another open, then tune and one.

    Parameters
    ----------
    metric : {"l2", "cosine"}
    config
        Whatever the adapter wants to know.
    """

    package = ""  # the module that must be importable
    project = ""  # its name in the package index, where it is another
    settings = ""  # how it is set up
    asks = False  # whether efforts are recalls that are asked for
    filtered: tuple[str, ...] = FILTERED  # the columns that filters will be on

    def __init__(self, metric: str, **config: Any) -> None:
        self.metric, self.config = metric, config

    def add(self, folder: Path, rows: Rows) -> None:
        """Make a new database in an empty folder and add all rows."""
        raise NotImplementedError(type(self).__name__)

    def index(self, n: int, threads: int) -> None:
        """Build what makes searches of n rows quick, where adding did not."""

    def close(self) -> None:
        """Let go of the files."""

    def open(self, folder: Path) -> None:
        """Open what another process made."""
        raise NotImplementedError(type(self).__name__)

    def efforts(self) -> list[list[Effort]]:
        """Return sweeps of the search effort, each rising; one without numbers where there is nothing to choose."""
        return [[()]]

    def tune(self, effort: Effort) -> None:
        """Set the effort of the searches that follow."""
        self.effort = tuple(int(part) for part in effort)

    def where(self, conditions: Conditions) -> Any:
        """Return a filter as this database wants it; of at least one condition."""
        return sql(conditions)

    def one(self, query: Floats, k: int, where: Any) -> Any:
        """Return the keys of k neighbors of a query, of those that pass; `where` None lets all pass."""
        raise NotImplementedError(type(self).__name__)


class Nearly(Database):
    """Ours, by `recall=`: efforts are targets."""

    package = "nearly"
    settings = "add in one call, flush; recall= of each search, threads=1; filters in SQL"
    asks = True

    def add(self, folder: Path, rows: Rows) -> None:
        import nearly

        self.collection = nearly.open(folder, metric=self.metric, background=False)
        self.collection.add(rows.vectors, metadata=rows.columns, documents=rows.texts)

    def index(self, n: int, threads: int) -> None:
        self.collection.flush()

    def close(self) -> None:
        self.collection.close()

    def open(self, folder: Path) -> None:
        import nearly

        self.collection = nearly.open(folder)

    def efforts(self) -> list[list[Effort]]:
        return [[(target,) for target in ASKED]]

    def tune(self, effort: Effort) -> None:
        self.target = effort[0]

    def one(self, query: Floats, k: int, where: Any) -> Any:
        return self.collection.search(query, k, where=where, recall=self.target, threads=1).ids


class Exact(Database):
    """Plain NumPy over files: the floor, and the database that is always there."""

    package = "numpy"
    settings = "exact: a matrix-vector product over all rows, those that do not pass left out"

    def add(self, folder: Path, rows: Rows) -> None:
        np.save(folder / "vectors.npy", rows.vectors)
        for name in self.filtered:
            np.save(folder / f"{name}.npy", np.array([_filled(value) for value in rows.columns[name]]))

    def open(self, folder: Path) -> None:
        self.vectors = np.load(folder / "vectors.npy")
        self.norms = np.einsum("ij,ij->i", self.vectors, self.vectors)
        self.columns = {name: np.load(folder / f"{name}.npy") for name in self.filtered}

    def where(self, conditions: Conditions) -> Conditions:
        return conditions

    def one(self, query: Floats, k: int, where: Any) -> Any:
        found = (self.norms if self.metric == "l2" else 0) - 2 * (self.vectors @ query)
        for condition in where or ():
            found[~SIGNS[condition.sign](self.columns[condition.column], condition.value)] = np.inf
        best = np.argpartition(found, k - 1)[:k]
        return best[found[best] < np.inf]


class Lance(Database):
    """lancedb: an index of vectors, one of each column that is filtered by; filters come before the search."""

    package = "lancedb"

    def __init__(self, metric: str, *, kind: str) -> None:
        super().__init__(metric, kind=kind)
        self.settings = {
            "pq": "IVF_PQ, min(sqrt(n), n / 256) partitions, dim / 4 sub-vectors of 8 bits; nprobes x refine_factor",
            "hnsw": "IVF_HNSW_SQ, 1 partition, m 20, ef_construction 300; ef x refine_factor",
        }[kind] + "; BTREE on time, BITMAP on severity, BTREE on vendor and product; prefilter; SQL"

    def add(self, folder: Path, rows: Rows) -> None:
        import lancedb
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), rows.vectors.shape[1])
        table = pa.table({"id": np.arange(len(rows)), "vector": vectors, **rows.columns, "text": rows.texts})
        self.table = lancedb.connect(folder).create_table("rows", table)

    def index(self, n: int, threads: int) -> None:
        from lancedb.index import Bitmap, BTree, HnswSq, IvfPq

        if self.config["kind"] == "pq":
            dim = self.table.schema.field("vector").type.list_size
            parts = next(parts for parts in range(dim // 4, 0, -1) if dim % parts == 0)
            partitions = max(1, min(round(n**0.5), n // 256))  # it trains fewer where a partition has fewer rows
            config = IvfPq(distance_type=self.metric, num_partitions=partitions, num_sub_vectors=parts)
        else:
            config = HnswSq(distance_type=self.metric, num_partitions=1)
        self.table.create_index("vector", config=config)
        for name in self.filtered:
            self.table.create_index(name, config=Bitmap() if name == "severity" else BTree())
        self.table.optimize()

    def open(self, folder: Path) -> None:
        import lancedb

        self.table = lancedb.connect(folder).open_table("rows")

    def efforts(self) -> list[list[Effort]]:
        if self.config["kind"] == "pq":
            return [[(probes, refine) for probes in PROBES[1::2]] for refine in (2, 5, 20)]
        return [[(breadth, refine) for breadth in BREADTHS if breadth >= 10 * refine] for refine in (1, 4)]

    def one(self, query: Floats, k: int, where: Any) -> Any:
        effort, refine = self.effort
        search = (
            self.table.search(query)
            .distance_type(self.metric)
            .select(["id", "_distance"])
            .limit(k)
            .refine_factor(refine)
        )
        search = search.nprobes(effort) if self.config["kind"] == "pq" else search.ef(effort)
        if where is not None:
            search = search.where(where, prefilter=True)
        return search.to_arrow().column("id").to_numpy()


class Chroma(Database):
    package = "chromadb"
    settings = "hnsw, max_neighbors 16, ef_construction 200, batches as large as it takes; ef_search; filters as dicts"

    def add(self, folder: Path, rows: Rows) -> None:
        import chromadb

        self.client = chromadb.PersistentClient(path=str(folder), settings=self._quiet())
        hnsw = {"space": self.metric, "ef_construction": 200, "max_neighbors": 16}
        collection = self.client.create_collection("rows", embedding_function=None, configuration={"hnsw": hnsw})
        for start, stop in _batches(len(rows), self.client.get_max_batch_size()):
            collection.add(
                ids=[str(i) for i in range(start, stop)],
                embeddings=rows.vectors[start:stop],
                metadatas=rows.dicts(start, stop),
                documents=rows.texts[start:stop],
            )

    def open(self, folder: Path) -> None:
        import chromadb

        self.folder, self.set_to = folder, None
        self.client = chromadb.PersistentClient(path=str(folder), settings=self._quiet())
        self.collection = self.client.get_collection("rows", embedding_function=None)

    def _quiet(self) -> Any:
        from chromadb.config import Settings

        return Settings(anonymized_telemetry=False)

    def efforts(self) -> list[list[Effort]]:
        return [[(breadth,) for breadth in BREADTHS]]

    def tune(self, effort: Effort) -> None:
        """Set ef_search, which version 1.5 reads when the index is opened and at no other time."""
        from chromadb.api.shared_system_client import SharedSystemClient

        super().tune(effort)
        if self.set_to != self.effort:
            self.collection.modify(configuration={"hnsw": {"ef_search": self.effort[0], "num_threads": 1}})
            self.client.close()
            SharedSystemClient.clear_system_cache()
            self.open(self.folder)
            stored = self.collection.get(limit=1, include=["embeddings"])["embeddings"][0]
            self.one(np.asarray(stored, np.float32), 1, None)  # reads the index
            self.set_to = self.effort

    def where(self, conditions: Conditions) -> Any:
        signs = {"=": "$eq", ">=": "$gte", "<=": "$lte"}
        parts = [{c.column: {signs[c.sign]: c.value}} for c in conditions]
        return parts[0] if len(parts) == 1 else {"$and": parts}

    def one(self, query: Floats, k: int, where: Any) -> Any:
        found = self.collection.query(query_embeddings=query[None], n_results=k, where=where, include=[])
        return [int(key) for key in found["ids"][0]]


class Qdrant(Database):
    """qdrant-client's local mode: it has no index of vectors nor of payloads, and says so when asked for one."""

    package, project = "qdrant_client", "qdrant-client"
    settings = "local mode: exact scan in NumPy, filters in Python row by row; uploads of 1,000"

    def add(self, folder: Path, rows: Rows) -> None:
        from qdrant_client import models

        self.client = self._client(folder)
        distance = models.Distance.EUCLID if self.metric == "l2" else models.Distance.COSINE
        self.client.create_collection("rows", models.VectorParams(size=rows.vectors.shape[1], distance=distance))
        payload = rows.dicts(0, len(rows), text=rows.texts)
        self.client.upload_collection("rows", rows.vectors, payload=payload, ids=range(len(rows)), batch_size=1000)

    def close(self) -> None:
        self.client.close()

    def open(self, folder: Path) -> None:
        self.client = self._client(folder)

    def _client(self, folder: Path) -> Any:
        from qdrant_client import QdrantClient

        warnings.filterwarnings("ignore", message="Local mode is not recommended")
        return QdrantClient(path=str(folder))

    def where(self, conditions: Conditions) -> Any:
        from qdrant_client import models

        def field(c: Condition) -> Any:
            if c.sign == "=":
                return models.FieldCondition(key=c.column, match=models.MatchValue(value=c.value))
            bound = {"gte" if c.sign == ">=" else "lte": c.value}
            return models.FieldCondition(key=c.column, range=models.Range(**bound))

        return models.Filter(must=[field(condition) for condition in conditions])

    def one(self, query: Floats, k: int, where: Any) -> Any:
        found = self.client.query_points("rows", query, limit=k, query_filter=where, with_payload=False)
        return [point.id for point in found.points]


class Milvus(Database):
    """milvus-lite, by the engine in the process, which spares it the calls over gRPC of MilvusClient."""

    package, project = "milvus_lite", "milvus-lite"

    def __init__(self, metric: str, *, kind: str) -> None:
        super().__init__(metric, kind=kind)
        how = {"HNSW": "HNSW, M 16, efConstruction 200; ef", "IVF_FLAT": "IVF_FLAT, nlist 4 sqrt(n); nprobe"}[kind]
        self.settings = f"in the process, no gRPC; {how}; INVERTED on columns of filters; inserts of 5,000, flush"

    def add(self, folder: Path, rows: Rows) -> None:
        from milvus_lite import CollectionSchema, DataType, FieldSchema, MilvusLite

        kinds = {"text": DataType.VARCHAR, "integer": DataType.INT64, "float": DataType.FLOAT}
        columns = {**rows.columns, "text": rows.texts}
        fields = [FieldSchema("id", DataType.INT64, is_primary=True)]
        fields.append(FieldSchema("vector", DataType.FLOAT_VECTOR, dim=rows.vectors.shape[1]))
        for name, column in columns.items():
            kind = kinds[_sql_type(column)]
            length = 65535 if kind is DataType.VARCHAR else None
            fields.append(FieldSchema(name, kind, max_length=length, nullable=True))
        self.database = MilvusLite(str(folder))
        self.collection = self.database.create_collection("rows", CollectionSchema(fields))
        ids, vectors = list(range(len(rows))), rows.vectors.tolist()
        for start, stop in _batches(len(rows), 5000):
            self.collection.insert(rows.dicts(start, stop, id=ids, vector=vectors, text=rows.texts))
        self.collection.flush()

    def index(self, n: int, threads: int) -> None:
        build = {"M": 16, "efConstruction": 200} if self.config["kind"] == "HNSW" else {"nlist": round(4 * n**0.5)}
        how = {"index_type": self.config["kind"], "metric_type": self.metric.upper(), "params": build}
        self.collection.create_index("vector", how)
        for name in self.filtered:
            self.collection.create_index(name, {"index_type": "INVERTED"})
        self.collection.load()

    def close(self) -> None:
        self.database.close()

    def open(self, folder: Path) -> None:
        from milvus_lite import MilvusLite

        self.database = MilvusLite(str(folder))
        self.collection = self.database.get_collection("rows")
        self.collection.load()

    def efforts(self) -> list[list[Effort]]:
        return [[(effort,) for effort in (BREADTHS if self.config["kind"] == "HNSW" else PROBES)]]

    def where(self, conditions: Conditions) -> str:
        signs = {"=": "==", ">=": ">=", "<=": "<="}
        return " and ".join(f"{c.column} {signs[c.sign]} {json.dumps(c.value)}" for c in conditions)

    def one(self, query: Floats, k: int, where: Any) -> Any:
        how = {"ef" if self.config["kind"] == "HNSW" else "nprobe": self.effort[0]}
        found = self.collection.search([query.tolist()], k, expr=where, output_fields=["id"], search_params=how)
        return [hit["id"] for hit in found[0]]


class SqliteVec(Database):
    """sqlite-vec: every column in its virtual table; exact, or by one bit per dimension and re-ranked by the vectors.

    Its columns of attributes take no null, so a missing one is "" or -1, which no filter here lets pass.
    """

    package, project = "sqlite_vec", "sqlite-vec"

    def __init__(self, metric: str, *, bits: bool) -> None:
        super().__init__(metric, bits=bits)
        exact = "vec0 with attributes as metadata columns, text auxiliary, one transaction; "
        how = "bit vectors, then the k x factor best re-ranked by float32" if bits else "exact scan of float32"
        self.settings = exact + how

    def add(self, folder: Path, rows: Rows) -> None:
        connection = self._connect(folder)
        kinds = {name: _sql_type(column) for name, column in rows.columns.items()}
        dim = rows.vectors.shape[1]
        parts = ["id integer primary key", f"embedding float[{dim}] distance_metric={self.metric}"]
        parts += [f"signs bit[{dim}]"] if self.config["bits"] else []
        parts += [f"{name} {kind}" for name, kind in kinds.items()]
        connection.execute(f"create virtual table vectors using vec0({', '.join(parts)}, +text text)")
        names = ["id", "embedding", *(["signs"] if self.config["bits"] else []), *kinds, "text"]
        marks = ["vec_quantize_binary(?)" if name == "signs" else "?" for name in names]
        statement = f"insert into vectors ({', '.join(names)}) values ({', '.join(marks)})"
        with connection:
            connection.executemany(statement, self._tuples(rows, kinds))

    def _tuples(self, rows: Rows, kinds: dict[str, str]) -> Iterator[tuple[Any, ...]]:
        lists = [[_filled(value, kinds[name]) for value in column] for name, column in rows.columns.items()]
        for i, (vector, *values) in enumerate(zip(rows.vectors, *lists, rows.texts, strict=True)):
            yield (i, *[vector.tobytes()] * (1 + self.config["bits"]), *values)

    def _connect(self, folder: Path) -> Any:
        import sqlite_vec

        driver = sqlite3
        if not hasattr(sqlite3.Connection, "enable_load_extension"):  # left out of some builds of Python
            import pysqlite3 as driver  # type: ignore[no-redef]
        self.connection = driver.connect(folder / "rows.sqlite")
        self.connection.enable_load_extension(True)
        sqlite_vec.load(self.connection)
        return self.connection

    def close(self) -> None:
        self.connection.close()

    def open(self, folder: Path) -> None:
        self._connect(folder)

    def efforts(self) -> list[list[Effort]]:
        return (
            [[(factor,) for factor in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 400)]]
            if self.config["bits"]
            else [[()]]
        )

    def where(self, conditions: Conditions) -> Any:
        return "".join(f" and {c.column} {c.sign} ?" for c in conditions), [c.value for c in conditions]

    def one(self, query: Floats, k: int, where: Any) -> Any:
        condition, values = where or ("", [])
        vector = query.tobytes()
        if self.config["bits"]:
            distance = "vec_distance_l2" if self.metric == "l2" else "vec_distance_cosine"
            found = self.connection.execute(
                "with near as materialized (select id, embedding from vectors where signs match vec_quantize_binary(?)"
                f" and k = ?{condition}) select id from near order by {distance}(embedding, ?) limit {k}",
                (vector, k * self.effort[0], *values, vector),
            )
        else:
            statement = f"select id from vectors where embedding match ? and k = ?{condition}"
            found = self.connection.execute(statement, (vector, k, *values))
        return [key for (key,) in found]


class Zvec(Database):
    """zvec: an index of vectors, an inverted one of each column that filters are on, optimized for ranges."""

    package = "zvec"

    def __init__(self, metric: str, *, kind: str) -> None:
        super().__init__(metric, kind=kind)
        how = {"hnsw": "HNSW, m 16, ef_construction 200; ef", "ivf": "IVF, n_list 4 sqrt(n); nprobe"}[kind]
        self.settings = f"{how}; inverted indexes with range optimization; inserts of 1,000, optimize; one query thread"

    def _init(self, threads: int) -> Any:
        import zvec

        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=threads)
        return zvec

    def add(self, folder: Path, rows: Rows) -> None:
        zvec = self._init(1)
        types = {"text": zvec.DataType.STRING, "integer": zvec.DataType.INT64, "float": zvec.DataType.DOUBLE}
        inverted = zvec.InvertIndexParam(enable_range_optimization=True)
        fields = []
        for name, column in {**rows.columns, "text": rows.texts}.items():
            index = {"index_param": inverted} if name in self.filtered else {}
            fields.append(zvec.FieldSchema(name, types[_sql_type(column)], nullable=True, **index))
        metric = zvec.MetricType.L2 if self.metric == "l2" else zvec.MetricType.COSINE
        if self.config["kind"] == "hnsw":
            built = zvec.HnswIndexParam(metric_type=metric, m=16, ef_construction=200)
        else:
            built = zvec.IVFIndexParam(metric_type=metric, n_list=round(4 * len(rows) ** 0.5))
        vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, rows.vectors.shape[1], built)
        schema = zvec.CollectionSchema(name="rows", fields=fields, vectors=vector)
        self.collection = zvec.create_and_open(str(folder / "rows"), schema)
        for start, stop in _batches(len(rows), 1000):
            fields = rows.dicts(start, stop, text=rows.texts)
            vectors = rows.vectors[start:stop].tolist()
            self.collection.insert(
                [zvec.Doc(id=str(start + i), vectors={"vector": v}, fields=fields[i]) for i, v in enumerate(vectors)]
            )

    def index(self, n: int, threads: int) -> None:
        import zvec

        self.collection.optimize(zvec.OptimizeOption(concurrency=threads))
        self.collection.flush()

    def close(self) -> None:
        self.collection.close()

    def open(self, folder: Path) -> None:
        self.zvec = self._init(1)
        self.collection = self.zvec.open(str(folder / "rows"))

    def efforts(self) -> list[list[Effort]]:
        return [[(effort,) for effort in (BREADTHS if self.config["kind"] == "hnsw" else PROBES)]]

    def tune(self, effort: Effort) -> None:
        super().tune(effort)
        kind = self.zvec.HnswQueryParam if self.config["kind"] == "hnsw" else self.zvec.IVFQueryParam
        self.how = kind(self.effort[0])

    def one(self, query: Floats, k: int, where: Any) -> Any:
        asked = self.zvec.Query("vector", vector=query, param=self.how)
        return [int(doc.id) for doc in self.collection.query(asked, topk=k, filter=where, output_fields=[])]


class Duckdb(Database):
    """duckdb's own arrays: exact. Its extension vss, whose graph takes filters of late, was not to be had for 2.0."""

    package = "duckdb"
    settings = "exact: array_distance or array_cosine_distance over the rows that pass, in order of it; SQL"

    def add(self, folder: Path, rows: Rows) -> None:
        import duckdb
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), rows.vectors.shape[1])
        given = pa.table({"id": np.arange(len(rows)), "vector": vectors, **rows.columns, "text": rows.texts})
        with duckdb.connect(folder / "rows.duckdb") as connection:
            connection.register("given", given)
            connection.execute("CREATE TABLE rows AS SELECT * FROM given")

    def open(self, folder: Path) -> None:
        import duckdb

        self.connection = duckdb.connect(folder / "rows.duckdb", read_only=True, config={"threads": 1})
        kind = self.connection.execute("SELECT typeof(vector) FROM rows LIMIT 1").fetchall()[0][0]
        distance = "array_distance" if self.metric == "l2" else "array_cosine_distance"
        self.nearest = f"ORDER BY {distance}(vector, $1::{kind})"

    def one(self, query: Floats, k: int, where: Any) -> Any:
        passing = "" if where is None else f"WHERE {where} "
        found = self.connection.execute(f"SELECT id FROM rows {passing}{self.nearest} LIMIT {k}", [query])
        return found.fetchnumpy()["id"]


def _batches(n: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, n)) for start in range(0, n, size))


def _sql_type(column: list[Any]) -> str:
    kind = type(next(value for value in column if value is not None))
    return {str: "text", int: "integer", float: "float"}[kind]


def _filled(value: Any, kind: str = "text") -> Any:
    """A value, or what stands for none where a column takes no null."""
    return value if value is not None else "" if kind == "text" else -1.0 if kind == "float" else -1


DATABASES: dict[str, tuple[type[Database], dict[str, Any]]] = {
    "nearly": (Nearly, {}),
    "lancedb-ivf-pq": (Lance, {"kind": "pq"}),
    "lancedb-ivf-hnsw-sq": (Lance, {"kind": "hnsw"}),
    "chromadb": (Chroma, {}),
    "qdrant-local": (Qdrant, {}),
    "milvus-lite-hnsw": (Milvus, {"kind": "HNSW"}),
    "milvus-lite-ivf": (Milvus, {"kind": "IVF_FLAT"}),
    "sqlite-vec": (SqliteVec, {"bits": False}),
    "sqlite-vec-bits": (SqliteVec, {"bits": True}),
    "zvec-hnsw": (Zvec, {"kind": "hnsw"}),
    "zvec-ivf": (Zvec, {"kind": "ivf"}),
    "duckdb": (Duckdb, {}),
    "exact": (Exact, {}),
}


def names_for(wanted: list[str] | None = None) -> list[str]:
    """Return the names that begin with one of `wanted`; without it all but the floor."""
    names = [name for name in DATABASES if any(name == w or name.startswith(w + "-") for w in wanted or [])]
    unknown = [w for w in wanted or [] if not any(name == w or name.startswith(w + "-") for name in DATABASES)]
    if unknown:
        raise SystemExit(f"no database {', '.join(unknown)}; there are {', '.join(DATABASES)}")
    return names if wanted else [name for name in DATABASES if name != "exact"]


def version(name: str) -> str:
    """Return the installed version of the library behind a name."""
    kind = DATABASES[name][0]
    try:
        return metadata.version(kind.project or kind.package)
    except metadata.PackageNotFoundError:
        return "unknown"


def make_database(name: str, metric: str) -> Database:
    """Return the adapter of a name."""
    kind, config = DATABASES[name]
    return kind(metric, **config)
