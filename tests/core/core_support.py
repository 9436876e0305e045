"""What the tests of the core share: elements with their exact values, and short ways to call _core."""

import copy
import functools
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core

# In the order of src/core/kernels/table.hpp and src/core/base/metric.hpp: the core counts them.
ELEMENTS = ("float32", "float16", "bfloat16", "int8", "uint8")
METRICS = ("l2", "cosine", "ip", "l1", "hamming", "jaccard")
# Around every lane count, and two that people use.
DIMS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 768]
NONE = 0xFFFFFFFF


def over(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for each value of an argument, as one test: to pytest a test costs more than to a kernel.

    Each value meets ``rng`` in the same state, as if it had a test of its own; what is raised names the value.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)

        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            for value in values:
                mine = {key: copy.deepcopy(kept) if key == "rng" else kept for key, kept in fixtures.items()}
                try:
                    test(**mine, **{name: value})
                except Exception as error:
                    error.add_note(f"{name}: {value!r}")
                    raise

        others = [parameter for parameter in signature.parameters.values() if parameter.name != name]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return decorate


def bits(array: NDArray[Any]) -> list[int]:
    """Floats as their bits: equal means equal to the last one, and -0.0 is not 0.0."""
    return np.ascontiguousarray(array).view(np.uint32).tolist()


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return rows as bytes, the form in which the core takes them."""
    array = np.ascontiguousarray(array)
    return array.view(np.uint8).reshape(*array.shape[:-1], array.shape[-1] * array.itemsize)


def stored(rng: np.random.Generator, element: str, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return random elements as they are stored, and their exact values."""
    if element in ("int8", "uint8"):
        info = np.iinfo(element)
        raw: NDArray[Any] = rng.integers(info.min, info.max + 1, shape).astype(element)
        return raw, raw.astype(np.float64)
    values = rng.standard_normal(shape, dtype=np.float32)
    if element == "bfloat16":  # the upper half of a float32
        raw = (values.view(np.uint32) >> 16).astype(np.uint16)
        return raw, bfloat16_values(raw)
    raw = values.astype(element)
    return raw, raw.astype(np.float64)


def bfloat16_values(raw: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Return what bfloat16 bits mean."""
    return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def exact_distances(metric: str, query: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distances people see, by their formulas, in float64; bit metrics take packed bytes."""
    if metric in ("hamming", "jaccard"):
        a, b = np.unpackbits(query.astype(np.uint8)), np.unpackbits(rows.astype(np.uint8), axis=-1)
        if metric == "hamming":
            return (a != b).sum(axis=-1).astype(np.float64)
        either = (a | b).sum(axis=-1)
        return np.where(either == 0, 0.0, (a != b).sum(axis=-1) / np.maximum(either, 1))
    q, x = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return np.sqrt(((x - q) ** 2).sum(axis=-1))
    if metric == "l1":
        return np.abs(x - q).sum(axis=-1)
    if metric == "ip":
        return -(x * q).sum(axis=-1)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(q)
    return 1.0 - np.where(norms == 0, 0.0, (x * q).sum(axis=-1) / np.where(norms == 0, 1.0, norms))


def make_plain(vectors: NDArray[Any], metric: str = "l2", element: str | None = None, capacity: int = 0) -> Any:
    """Return a filled store; bfloat16 comes as uint16 with ``element="bfloat16"``."""
    number, kind = METRICS.index(metric), ELEMENTS.index(element or vectors.dtype.name)
    n, dim = vectors.shape
    table = _core.Table(_core.Plain.row_bytes(kind, number, dim), n, max(n, capacity))
    plain = _core.Plain(table, kind, number, dim)
    plain.fill(0, as_bytes(vectors))
    return plain


def make_table(stride: int, rows: int, fill: int = 255, capacity: int = 0) -> Any:
    """Return a table that is filled with one byte: 255 makes every word "none"."""
    table = _core.Table(stride, rows, max(rows, capacity))
    table.fill(0, rows, fill)
    return table


class Columns(NamedTuple):
    """The tables of a `Rows`, and the Rows."""

    rows: Any
    ids: NDArray[np.int64]
    next: NDArray[np.uint32]
    first: NDArray[np.uint32]
    last: NDArray[np.uint32]


def make_columns(n_rows: int, n_nodes: int) -> Columns:
    """Return rows and nodes that do not hang together yet."""
    tables = [make_table(8, n_rows), make_table(4, n_rows), make_table(4, n_nodes), make_table(4, n_nodes)]
    views = [t.array().view(np.int64 if i == 0 else np.uint32)[:, 0] for i, t in enumerate(tables)]
    return Columns(_core.Rows(*tables), *views)


def make_rows(n: int, ids: Any = None, nodes: Any = None, n_nodes: int | None = None) -> Any:
    """Return rows 0..n-1 on nodes: each on its own, or as `nodes` says."""
    nodes = np.arange(n, dtype=np.uint32) if nodes is None else np.asarray(nodes, np.uint32)
    ids = np.arange(n, dtype=np.int64) if ids is None else np.asarray(ids, np.int64)
    columns = make_columns(n, n if n_nodes is None else n_nodes)
    columns.rows.link(np.arange(n, dtype=np.uint32), ids, nodes)
    return columns.rows


def score(scorer: Any, query: NDArray[Any], rows: Any) -> NDArray[np.float32]:
    """Return distances in the unit of comparison (l2 squared) from one query to stored rows."""
    rows = np.asarray(rows, np.uint32)
    out = np.full(len(rows), np.nan, np.float32)
    raw = as_bytes(query)
    scorer.score(len(raw), raw, rows, out)
    return out


def between(scorer: Any, row: int, rows: Any) -> NDArray[np.float32]:
    """Return distances in the unit of comparison from one stored row to others."""
    rows = np.asarray(rows, np.uint32)
    out = np.full(len(rows), np.nan, np.float32)
    scorer.between(row, rows, out)
    return out


def compared(metric: str, query: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return what `score` estimates, in float64: the squared distance under l2, else the negated product."""
    query, vectors = query.astype(np.float64), vectors.astype(np.float64)
    return ((vectors - query) ** 2).sum(axis=1) if metric == "l2" else -(vectors @ query)


def coded(fitted: Any, vectors: NDArray[np.float32]) -> tuple[Any, NDArray[np.uint8]]:
    """Return a scorer over the codes of vectors, and the codes."""
    table = _core.Table(fitted.row_bytes, len(vectors), len(vectors))
    scorer = fitted.scorer(table)
    scorer.encode(0, vectors)
    return scorer, np.array(table.array())


def bounded(
    scorer: Any, query: NDArray[np.float32], rows: NDArray[Any], bound: float = np.inf
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scores and the half-widths of their bounds; above ``bound`` scores are lower bounds by leading bits."""
    out, errors = np.full((2, len(rows)), np.nan, np.float32)
    scorer.bounded_scores(query, rows.astype(np.uint32), bound, out, errors)
    return out, errors


class Answer(NamedTuple):
    """Ids, distances and counts; work = (distances, hops, ranked), of which a scan has the first."""

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    counts: NDArray[np.uint32]
    work: tuple[int, int, int] = (0, 0, 0)

    def same(self, other: "Answer") -> bool:
        """Whether two answers agree to the last bit."""
        return all(a.tobytes() == b.tobytes() for a, b in zip(self[:3], other[:3], strict=True))


def empty_answer(n: int, k: int) -> Answer:
    return Answer(np.full((n, k), -7, np.int64), np.full((n, k), np.nan, np.float32), np.full(n, 77, np.uint32))


def pack(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return a filter: bit i of the words is mask[i]."""
    padded = np.zeros((len(mask) + 63) // 64 * 64, bool)
    padded[: len(mask)] = mask
    return np.packbits(padded, bitorder="little").view(np.uint64)


def scan(
    scorer: Any,
    rows: Any,
    n_nodes: int,
    queries: NDArray[Any],
    k: int,
    metric: str = "l2",
    *,
    mask: NDArray[np.bool_] | None = None,
    only: NDArray[np.uint32] | None = None,
    threads: int = 1,
    blocks: bool | None = None,
) -> Answer:
    """Compare queries of shape (n, dim) with every node, by blocks of products or not; None: where that is quicker."""
    raw, answer = as_bytes(queries), empty_answer(len(queries), k)
    words = None if mask is None else pack(mask)
    number = METRICS.index(metric)
    compared = _core.scan(scorer, rows, n_nodes, raw.shape[1], raw, number, *answer[:3], words, only, threads, blocks)
    return answer._replace(work=(compared, 0, 0))


class Graph(NamedTuple):
    """A graph and what it is made of."""

    graph: Any
    table: Any
    scorer: Any
    rows: Any
    metric: str

    @property
    def lists(self) -> NDArray[np.uint32]:
        return self.table.array().view(np.uint32)

    def insert(self, nodes: Any, *, beam: int = 40, alpha: float = 1.2, threads: int = 1, **more: Any) -> None:
        nodes = np.asarray(nodes, np.uint32)
        degree = more.pop("new_degree", self.table.stride // 4)
        self.graph.insert(nodes, self.scorer.n_rows, beam, degree, alpha, threads=threads, **more)

    def search(self, queries: NDArray[Any], k: int, width: int = 60, **more: Any) -> Answer:
        raw, answer = as_bytes(queries), empty_answer(len(queries), k)
        mask = more.pop("mask", None)
        words = None if mask is None else pack(mask)
        settings = {"depth": k, "filter": words, "threads": 1, **more}
        depth = settings.pop("depth")
        work = self.graph.search(raw.shape[1], raw, METRICS.index(self.metric), width, depth, *answer[:3], **settings)
        return answer._replace(work=work)

    def reachable(self) -> set[int]:
        """Walk the lists from the entries, in Python."""
        met, todo = set(self.graph.entries), list(self.graph.entries)
        while todo:
            for v in self.lists[todo.pop()].tolist():
                if v != NONE and v not in met:
                    met.add(v)
                    todo.append(v)
        return met


def make_graph(
    scorer: Any, n: int, *, degree: int = 12, metric: str = "l2", rows: Any = None, store: Any = None
) -> Graph:
    """Return a graph over n scored rows that holds none of them yet."""
    table = make_table(4 * degree, n)
    rows = make_rows(n) if rows is None else rows
    graph = _core.Graph([table], [], [], scorer, store or scorer, rows, 0)
    return Graph(graph, table, scorer, rows, metric)


def build(vectors: NDArray[Any], *, metric: str = "l2", degree: int = 12, threads: int = 1, **more: Any) -> Graph:
    """Return a graph of all vectors, inserted in order; more edges are not added to reach the last of them."""
    made = make_graph(make_plain(vectors, metric), len(vectors), degree=degree, metric=metric)
    made.insert(np.arange(len(vectors)), threads=threads, **more)
    return made


class Function:
    """A metric over numbers, for `_core.Callable`, that can be told to fail."""

    def __init__(self, items: Any) -> None:
        self.items: NDArray[np.float64] = np.asarray(items, float)
        self.queries: Any = ()
        self.calls, self.fail_at = 0, -1

    def __call__(self, stored: bool, which: int, rows: NDArray[np.uint32]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == self.fail_at:
            raise ZeroDivisionError("the metric failed")
        query = self.items[which] if stored else self.queries[which]
        return np.abs(self.items[rows] - query).astype(np.float32)


PROMPT = 1.0 if os.environ.get("NEARLY_SANITIZED") else 0.2  # seconds within which Ctrl-C is to be answered


class Interrupt:
    """Raises KeyboardInterrupt once this process has computed for `after` seconds; measures how fast it is answered.

    Time is processor time, so that a busy machine does not fail the test.
    """

    def __init__(self, after: float) -> None:
        self.after = after

    def __enter__(self) -> "Interrupt":
        def handler(*_: Any) -> None:
            raise KeyboardInterrupt

        self.old = signal.signal(signal.SIGPROF, handler)
        self.start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, self.after)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self.old)
        self.late = time.process_time() - self.start - self.after
