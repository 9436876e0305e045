"""The order in which nodes are inserted."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core, arrays
from nearly.errors import InputError

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex

__all__ = ["insertion_order"]

_NAMES = ("random", "given", "lid_descending", "lid_ascending")
_SAMPLE = 10_000  # points whose dimensionality is estimated; others take the value of the nearest one
_NEIGHBORS = 101  # of each, itself included


def insertion_order(index: "GraphIndex", order: Any, n: int) -> NDArray[np.uint32]:
    """Return the order of insertion of n nodes: a name or the user's own."""
    if isinstance(order, str):
        arrays.check_choice(order, _NAMES, "order")
        if order == "given":
            return np.arange(n, dtype=np.uint32)
        if order.startswith("lid"):
            return _by_dimensionality(index, n, descending=order.endswith("descending"))
        return np.random.default_rng(index._seed).permutation(n).astype(np.uint32)
    rows = arrays.as_ids(order, n=n, name="order")
    if n and int(rows.max()) >= n:
        raise InputError(f"order must hold each of 0..{n - 1} once")
    return rows.astype(np.uint32)


def _by_dimensionality(index: "GraphIndex", n: int, *, descending: bool) -> NDArray[np.uint32]:
    """Nodes by local intrinsic dimensionality (Elliott & Clark, ICTIR 2024; estimator of Amsaleg et al., KDD 2015)."""
    store, k = index._store, min(_NEIGHBORS, index._n_nodes)
    picked = np.sort(np.random.default_rng(index._seed).permutation(n)[:_SAMPLE]).astype(np.uint32)
    distances = np.empty((len(picked), k), np.float32)
    found = np.empty((len(picked), k), np.int64)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, store.as_queries(picked),
               store.metric.number, found, distances, np.empty(len(picked), np.uint32), None, None,
               index._threads(None))  # fmt: skip
    radii = distances[:, 1:].astype(np.float64)
    if store.metric.name == "cosine":
        radii = np.sqrt(2 * np.maximum(radii, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(radii > 0, np.log(radii / radii[:, -1:]), 0.0)
        lid = -1.0 / np.minimum(logs.sum(1) / np.maximum(1, (radii > 0).sum(1)), -1e-12)
    value = np.empty(n)
    value[picked] = np.minimum(np.nan_to_num(lid), store.dim)
    rest = np.setdiff1d(np.arange(n, dtype=np.uint32), picked)
    if len(rest):
        value[rest] = value[picked[_nearest(index, rest, picked)]]
    return np.argsort(-value if descending else value, kind="stable").astype(np.uint32)


def _nearest(index: "GraphIndex", rest: NDArray[np.uint32], picked: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Position in ``picked`` of the node nearest to each of ``rest``."""
    store = index._store
    found = np.empty((len(rest), 1), np.int64)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, store.as_queries(rest),
               store.metric.number, found, np.empty((len(rest), 1), np.float32), np.empty(len(rest), np.uint32),
               index._rows_of(picked), picked, index._threads(None))  # fmt: skip
    nodes = store.column("nodes")[index._id_map().known(found[:, 0], "order")]
    return np.searchsorted(picked, nodes)
