"""Measure what the ways of a filtered search cost on this machine."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError, StateError
from nearly.filters import Filter
from nearly.hits import Hits
from nearly.indexes import sifting
from nearly.indexes.needs import Needs
from nearly.indexes.ready import made_ready
from nearly.indexes.vamana import Vamana
from nearly.quantizers import Scalar
from nearly.tuning import costs
from nearly.tuning.costs import Costs

__all__ = ["measure_costs"]

_N, _LATENT, _K = 40_000, 12, 10
_DIMS = 56, 376  # of codes in one cache line, and in six
_SETS = 24  # of chosen rows, so that those of one are not in the caches when they are met again
_TIMES = 5


def measure_costs(*, save: bool = True, threads: int | None = None) -> Costs:
    """Measure what the ways of a filtered search cost on this machine: ten seconds, best while nothing else runs.

    Filtered searches of graphs compare what a walk, a scan by codes and a scan by vectors would take. They know that
    from one machine; with costs of your own they choose better where yours is of another kind. No index holds them, so
    that builds stay the same bytes; plans, and with them answers within the recall that was asked for, may change.

    Parameters
    ----------
    save : bool, default True
        Keep them in the user's cache folder, for this kind of machine, where all processes find them from now on.
        The variable ``NEARLY_COSTS`` may name another file, which must then be there, or be ``written`` for those of
        the code.
    threads : int, optional
        To build with what is measured on; measured is one.

    Returns
    -------
    Costs
        Also used by this process from now on, for filters that it meets for the first time.

    Examples
    --------
    >>> import nearly
    >>> costs = nearly.measure_costs(save=False)  # doctest: +SKIP
    >>> costs.scanned  # doctest: +SKIP
    (0.8, 3.3)
    """
    path = costs.costs_file() if save else None
    if path is not None and costs.written_only():
        raise InputError(
            "NEARLY_COSTS says written, so that costs that are kept would not be used; unset it, or pass save=False"
        )
    found: Costs | None = None
    costs.use(costs.WRITTEN)  # whatever a variable names
    try:
        short, long = (_measured(dim, threads) for dim in _DIMS)
        lines = {name: _line(short[name], long[name]) for name in ("compared", "scanned", "exactly", "again", "panel")}
        found = Costs(**lines, prepared=(short["prepared"][1] + long["prepared"][1]) / 2)
    finally:
        costs.use(found)
    if path is not None:
        try:
            costs.save(found, path)
        except OSError as problem:
            raise StateError(
                f"costs were measured, and this process uses them, but {path} cannot be written ({problem.strerror}); "
                "name another file by NEARLY_COSTS, or pass save=False"
            ) from problem
    return found


Point = tuple[float, float]  # size, and nanoseconds


def _line(short: Point, long: Point) -> tuple[float, float]:
    """The line through two sizes; neither part of it is negative."""
    slope = max(0.0, (long[1] - short[1]) / (long[0] - short[0]))
    begins = max(0.0, short[1] - slope * short[0])
    return round(begins, 2), round(slope, 3) or 0.001


def _measured(dim: int, threads: int | None) -> dict[str, Point]:
    """What one comparison of each kind takes at one size of codes and vectors."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((_LATENT, dim))
    points = (rng.standard_normal((_N + 64, _LATENT)) @ axes).astype(np.float32)
    index = Vamana(points[:_N], quantizer=Scalar(bits=8), seed=0, threads=threads)
    queries = np.ascontiguousarray(points[_N:])
    stride, code = index._store.vectors.stride, index._travel.codes.stride
    by_codes = (_scan(index, queries, 4000, by_codes=True) - _scan(index, queries, 1000, by_codes=True)) / 3000
    exactly = (_scan(index, queries, 600, by_codes=False) - _scan(index, queries, 100, by_codes=False)) / 500
    preparing = _scan(index, queries, 1, by_codes=True) - _scan(index, queries, 1, by_codes=False)
    width = index._travel.scorer.panel_width
    panels = -(-len(queries) // width) if width else 1
    wide = (_batch(index, queries, 3000, by_codes=True) - _batch(index, queries, 1000, by_codes=True)) / 2000
    few = queries[:8]
    again = (_batch(index, few, 120, by_codes=False, sets=1) - _batch(index, few, 20, by_codes=False, sets=1)) / 800
    return {
        "compared": (costs._lines(code), _walked(index, queries)),
        "scanned": (costs._lines(code), by_codes),
        "exactly": (costs._lines(stride), exactly),
        "again": (costs._lines(stride), again),
        "panel": (code / 4, wide / panels if width else by_codes * len(queries)),
        "prepared": (code * dim, max(0.001, preparing / (code * dim))),
    }


def _least(run: Callable[[], Any]) -> float:
    """The least time of a few, in nanoseconds."""
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - began)
    return float(min(times))


def _sets(n: int, sets: int = _SETS) -> list[Filter]:
    rng = np.random.default_rng(n)
    return [Filter.from_rows(np.sort(rng.choice(_N, n, replace=False)), _N) for _ in range(sets)] * (_SETS // sets)


def _scan(index: Vamana, queries: NDArray[np.float32], n: int, *, by_codes: bool) -> float:
    """A query that is compared with n chosen rows."""
    scans = [_chosen(index, each, by_codes=by_codes) for each in _sets(n)]
    return _least(lambda: [scan.find(query) for scan, query in zip(scans, queries, strict=False)]) / _SETS


def _batch(index: Vamana, queries: NDArray[np.float32], n: int, *, by_codes: bool, sets: int = _SETS) -> float:
    """Several queries that are compared with n chosen rows at once."""
    scans = [_chosen(index, each, by_codes=by_codes) for each in _sets(n, sets)]
    ids = np.empty((len(queries), _K), np.int64)
    distances = np.empty(ids.shape, np.float32)
    return _least(lambda: [scan.find_many(queries, ids, distances, 1) for scan in scans]) / _SETS


def _chosen(index: Vamana, chosen: Filter, *, by_codes: bool) -> Any:
    store, allowed, spread = index._store, index._filter(chosen), cast(Needs, index._contract.needs).spread or 0.1
    return _core.ChosenScan(
        store.scorer, index._travel.scorer if by_codes else None, spread if by_codes else 0.0, store.rows,
        index._n_nodes, _K, store.metric.number, allowed.bits, allowed.nodes(index).bits, allowed.n,
    )  # fmt: skip


def _walked(index: Vamana, queries: NDArray[np.float32]) -> float:
    """A comparison of walks that hop over what does not pass."""
    sieve = sifting.made(index, _K, 0.95, 2.0)
    way = sifting.Way(sieve, 1 << 30, "to be measured")
    rng = np.random.default_rng(1)
    asked = []
    for query in queries[:_SETS]:
        allowed = index._filter(Filter.from_mask(rng.random(_N) < 0.1))
        one = made_ready(index, allowed, _K, sieve.how, way, by_codes=True)
        asked.append(partial(one.ask, index, allowed, query))
    stats = [cast(Hits, ask()).stats for ask in asked]
    work = sum(each.n_distances + costs.LIST * each.n_hops for each in stats if each is not None)
    return _least(lambda: [ask() for ask in asked]) / work
