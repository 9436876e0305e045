"""Items of any kind instead of vectors: where they are, what the core asks their metric, and how files hold them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, storage
from nearly.errors import FormatError, InputError, StateError
from nearly.indexes.store import Store, new_table
from nearly.indexes.writing import Writing
from nearly.metrics import CallableMetric

__all__ = ["FREE", "ItemStore", "Items", "OutsideMetric", "Source", "as_items", "packed", "unpacked"]

FREE = type("Free", (), {"__repr__": lambda self: "FREE"})()  # in the place of an item that was removed
_STORABLE = "biuf"  # kinds of elements that files hold


class Items(list[Any]):
    """Items on their way into an index, where others have vectors."""

    dim = 0  # they have no columns


def as_items(items: Any, name: str = "items") -> Items:
    """A sequence of items as a list of its own."""
    try:
        return Items(items)
    except TypeError:
        raise InputError(f"{name} is {type(items).__name__}; pass a sequence of items") from None


class Source:
    """Items by node, queries, and their metric: what the core's scorer calls. Knows no index: no circle of references.

    A query has eight bytes: the number that `asking` gave it, or -1 - node for the item of a node.
    """

    def __init__(self, metric: CallableMetric) -> None:
        self.metric = metric
        self.items: list[Any] = []
        self.inside = threading.local()
        self._queries: dict[int, Any] = {}
        self._numbers = count()

    def __call__(self, stored: bool, which: int, rows: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Distances from a query, or from a stored item, to stored items."""
        item = self.items[which] if stored else self._queries[which] if which >= 0 else self.items[-1 - which]
        self.inside.metric = True
        try:
            return np.ascontiguousarray(self.metric(item, [self.items[r] for r in rows.tolist()]), np.float32)
        finally:
            self.inside.metric = False

    @contextmanager
    def asking(self, items: Sequence[Any]) -> Iterator[NDArray[np.uint8]]:
        """Queries as the core takes them, of shape (n, 8), while they are being asked."""
        numbers = [next(self._numbers) for _ in items]
        self._queries.update(zip(numbers, items, strict=True))
        try:
            yield np.array(numbers, np.int64).reshape(-1, 1).view(np.uint8)
        finally:
            for number in numbers:
                del self._queries[number]


class OutsideMetric(Writing):
    """The writer's lock, which a metric may not take: it would wait for the very search that asks it."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source

    def __enter__(self) -> None:
        if getattr(self._source.inside, "metric", False):
            raise StateError("a metric may not change or save the index that asks it for distances")
        super().__enter__()


class ItemStore(Store):
    """Rows and ids as in every store; a node is one item, which lies in a Python list."""

    @classmethod
    def over(cls, source: Source) -> "ItemStore":
        """A store without rows, for the items of a source."""
        metric: Any = source.metric
        return cls(metric, "items", 1, None, _core.Callable(source, 0), *(new_table(s, 0) for s in _STRIDES))

    @classmethod
    def borrowed(cls, source: Source, file: storage.File, n_rows: int, n_nodes: int) -> "ItemStore":
        """The store that a file holds; the contents of its tables are for the caller to check."""
        counts = {"ids": n_rows, "next_rows": n_rows, "first_rows": n_nodes, "last_rows": n_nodes, "nodes": n_rows}
        tables = (
            _core.Table.borrow(storage.require(file, name, np.uint8, (n, stride)))
            for (name, n), stride in zip(counts.items(), _STRIDES, strict=True)
        )
        metric: Any = source.metric
        return cls(metric, "items", 1, None, _core.Callable(source, n_nodes), *tables)

    def emptied(self) -> "ItemStore":
        return type(self)(self.metric, self.kind, 1, None, self.scorer, *(new_table(s, 0) for s in _STRIDES))

    @property
    def query_bytes(self) -> int:
        return 8

    def tables(self) -> dict[str, Any]:
        return {name: table for name, table in super().tables().items() if name != "vectors"}

    def as_queries(self, nodes: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        return (-1 - nodes.astype(np.int64)).reshape(-1, 1).view(np.uint8)

    def _grown(self, n_nodes: int) -> None:
        self.scorer.set_rows(max(n_nodes, self.scorer.n_rows))

    def _scorer_over(self, vectors: Any, kind: str) -> Any:
        return self.scorer


_STRIDES = (8, 4, 4, 4, 4)  # ids, next_rows, first_rows, last_rows, nodes


def packed(items: list[Any]) -> tuple[dict[str, NDArray[Any]], str]:
    """Arrays that hold these items, and how; ("given") where they are no numbers, strings or arrays of numbers.

    FREE ones come back as copies of another item.
    """
    filler = next((item for item in items if item is not FREE), FREE)
    if filler is FREE:
        return {}, "none"
    items = [filler if item is FREE else item for item in items]
    kinds = {type(item) for item in items}
    try:
        if kinds == {str}:
            texts = [item.encode() for item in items]
            ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
            return {"item_text": np.frombuffer(b"".join(texts), np.uint8), "item_ends": ends}, "strings"
        if kinds == {int}:
            return {"items": np.array(items, np.int64)}, "numbers"
        if kinds <= {int, float} and all(float(item) == item or item != item for item in items):
            return {"items": np.array(items, np.float64)}, "numbers"
        if all(issubclass(kind, np.ndarray | np.generic) for kind in kinds):
            alike = {(item.dtype, item.shape) for item in items}
            if len(alike) == 1 and items[0].dtype.kind in _STORABLE:
                together = np.stack(items)
                return {"items": together}, "arrays"
    except (UnicodeEncodeError, OverflowError):  # halves of surrogates, integers beyond 64 bits
        pass
    return {}, "given"


def unpacked(file: storage.File, n: int) -> list[Any] | None:
    """The items of a file, one for each of n nodes; None where they are to be given."""
    form = storage.config_str(file, ("items", "form"), allowed=("none", "strings", "numbers", "arrays", "given"))
    if form == "given":
        return None
    if form == "none":
        return [FREE] * n
    if form == "strings":
        text = storage.require(file, "item_text", np.uint8, (None,)).tobytes()
        ends = storage.require(file, "item_ends", np.int64, (n,))
        if (np.diff(ends, prepend=0) < 0).any() or (n and ends[-1] != len(text)):
            raise FormatError(f"{file.path} is damaged: its strings do not fit together")
        try:
            return [text[a:b].decode() for a, b in zip([0, *ends.tolist()], ends.tolist(), strict=False)]
        except UnicodeDecodeError as problem:
            raise FormatError(f"{file.path} is damaged: {problem}") from problem
    array = file.arrays.get("items")
    if array is None or array.ndim < 1 or len(array) != n or (form == "numbers" and array.ndim != 1):
        raise FormatError(f"{file.path} is damaged: it does not hold an item for each of its {n} nodes")
    return array.tolist() if form == "numbers" else list(array)
