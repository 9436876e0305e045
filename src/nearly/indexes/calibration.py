"""Calibration of graph indexes: queries made from the data, their truth, and the trials that a recall curve needs."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.indexes.store import as_bytes
from nearly.tuning import RecallCurve
from nearly.tuning import measure as measure_curve
from nearly.tuning.curve import KS, PROBE

if TYPE_CHECKING:
    from nearly.indexes.graph import GraphIndex

__all__ = ["LEAST", "held_out", "lid_order", "measure", "synthetic"]

LEAST = 256  # vectors under which a scan is quicker than any graph, so that nothing is calibrated
_NOISE = (0.5, 1.0, 1.5, 2.0)  # of the distance to the 10th neighbor
_LOSS = 0.001  # recall that a shallower re-rank may cost


def held_out(n: int) -> int:
    """How many points are searched before they are inserted: a rule in n, so that builds repeat."""
    return min(500, n // 16)


def synthetic(index: "GraphIndex", nodes: NDArray[np.uint32], threads: int) -> NDArray[np.uint8]:
    """Queries from points: themselves, then noisy copies and midpoints of pairs, which are harder."""
    store = index._store
    if store.metric.input == "bits":
        points = store.raw(nodes).array
        rng = np.random.default_rng(index._seed)
        share = _neighbor_distance(index, points, threads)
        if store.metric.name == "jaccard":
            share *= np.unpackbits(points, axis=1).mean(axis=1)  # of the bits that are set, as a share of all
        else:
            share /= store.dim * 8
        chance = np.minimum(0.5, np.resize(np.array(_NOISE), len(points)) * share)
        flips = np.packbits(rng.random((len(points), store.dim * 8)) < chance[:, None], axis=1)
        return np.ascontiguousarray(np.concatenate([points, points ^ flips]))
    points = store.raw(nodes).as_float32()
    rng = np.random.default_rng(index._seed)
    half = max(1, len(points) // 2)
    spread = _neighbor_distance(index, points, threads)
    amount = np.resize(np.array(_NOISE), half) * spread[:half] / math.sqrt(store.dim)
    noisy = points[:half] + amount[:, None] * rng.standard_normal((half, store.dim))
    form = _unit(points) if store.metric.name == "cosine" else points
    pairs = (form[:half] + form[rng.permutation(len(form))[:half]]) / 2
    return as_bytes(np.concatenate([points, noisy.astype(np.float32), pairs.astype(np.float32)]))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _neighbor_distance(index: "GraphIndex", points: NDArray[Any], threads: int) -> NDArray[np.float64]:
    """Distance of each point to its 10th neighbor as the graph finds it: Euclidean in the points' scale, l1, bits."""
    store, k = index._store, min(11, index._n_nodes)
    ids, distances = np.empty((len(points), k), np.int64), np.empty((len(points), k), np.float32)
    counts = np.empty(len(points), np.uint32)
    index._graph.search(store.query_bytes, as_bytes(points), store.metric.number, 64, 2 * k, ids, distances, counts,
                        threads=threads)  # fmt: skip
    last: NDArray[np.float64] = np.where(np.isfinite(distances), distances, 0).max(axis=1).astype(np.float64)
    if store.metric.input == "bits":
        return last
    norms: NDArray[np.float64] = np.linalg.norm(points.astype(np.float64), axis=1)
    if store.metric.name == "cosine":
        return np.asarray(np.sqrt(2 * np.maximum(last, 0)) * norms)
    return last if store.metric.name in ("l2", "l1") else 0.5 * norms


def measure(
    index: "GraphIndex", queries: NDArray[np.uint8], source: str, bits: NDArray[np.uint64] | None, threads: int,
    depths: Sequence[float],
) -> tuple[RecallCurve, float]:  # fmt: skip
    """Return the curve of an index for these queries, and how deep its re-rank must go.

    ``bits`` passes the rows that the graph holds, where it does not hold all.
    """
    store, n = index._store, len(queries)
    deepest = min(max(KS), index._n_rows)
    truth = np.empty((n, deepest), np.float32)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, queries, store.metric.number,
               np.empty((n, deepest), np.int64), truth, np.empty(n, np.uint32), bits, None, threads)  # fmt: skip
    hardness = np.zeros(n, np.float32)
    empty = np.zeros(0, np.float32)

    def hits(width: int, ks: tuple[int, ...], depth: int) -> NDArray[np.int32]:
        k = min(max(ks), deepest)
        ids, distances = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        index._graph.search(
            store.query_bytes, queries, store.metric.number, width, depth, ids, distances, np.empty(n, np.uint32), None,
            PROBE, empty, np.array([width], np.uint32), hardness, threads,
        )  # fmt: skip
        return np.stack([(distances[:, :j] <= truth[:, j - 1 : j]).sum(axis=1) for j in ks]).astype(np.int32)

    factor, k = 1.0, min(10, deepest)
    if index._travel.codes is not None:
        width = max(_WIDE, k)
        full = hits(width, (k,), width).mean()
        enough = full - _LOSS * k
        factor = next((d for d in depths if hits(width, (k,), math.ceil(k * d)).mean() >= enough), depths[-1])

    def trial(width: int, ks: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        return hits(width, ks, index._contract.depth(index, max(ks), width, factor)), hardness

    curve = measure_curve(trial, n_queries=n, n_vectors=2 * deepest, source=source, seed=index._seed)
    return curve, factor


_WIDE = 200  # a pool in which the nearest are surely found, so that only the order by codes is at fault


def lid_order(index: "GraphIndex", n: int, *, descending: bool, seed: int) -> NDArray[np.uint32]:
    """Nodes by local intrinsic dimensionality (Elliott & Clark, ICTIR 2024; estimator of Amsaleg et al., KDD 2015)."""
    store, k = index._store, min(101, index._n_nodes)
    picked = np.sort(np.random.default_rng(seed).permutation(n)[:10_000]).astype(np.uint32)
    points = store.raw(picked)
    rows = as_bytes(points.array if store.metric.input == "bits" else points.as_float32())
    distances = np.empty((len(picked), k), np.float32)
    found = np.empty((len(picked), k), np.int64)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, rows, store.metric.number, found, distances,
               np.empty(len(picked), np.uint32), None, None, 0)  # fmt: skip
    radii = distances[:, 1:].astype(np.float64)
    if store.metric.name == "cosine":
        radii = np.sqrt(2 * np.maximum(radii, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(radii > 0, np.log(radii / radii[:, -1:]), 0.0)
        lid = -1.0 / np.minimum(logs.sum(1) / np.maximum(1, (radii > 0).sum(1)), -1e-12)
    lid = np.minimum(np.nan_to_num(lid), store.dim)
    # Points that were not sampled take the value of the nearest sampled one.
    sample = _core.Table(store.vectors.stride, len(picked), len(picked))
    sample.array()[:] = store.vectors.array()[picked]
    value = np.empty(n)
    value[picked] = lid
    rest = np.setdiff1d(np.arange(n, dtype=np.uint32), picked)
    if len(rest):
        value[rest] = lid[_nearest(index, rest, picked)]
    keyed = -value if descending else value
    return np.argsort(keyed, kind="stable").astype(np.uint32)


def _nearest(index: "GraphIndex", rest: NDArray[np.uint32], picked: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Position in ``picked`` of the node nearest to each of ``rest``."""
    store = index._store
    points = store.raw(rest)
    rows = as_bytes(points.array if store.metric.input == "bits" else points.as_float32())
    bits = index._rows_of(picked)
    found = np.empty((len(rest), 1), np.int64)
    _core.scan(store.scorer, store.rows, index._n_nodes, store.query_bytes, rows, store.metric.number, found,
               np.empty((len(rest), 1), np.float32), np.empty(len(rest), np.uint32), bits, picked, 0)  # fmt: skip
    nodes = store.column("nodes")[index._id_map().known(found[:, 0], "order")]
    return np.searchsorted(picked, nodes)
