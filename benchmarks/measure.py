"""Measures shared by the benchmarks: recall by distance, time, memory, pinning, the recall/speed frontier."""

import bisect
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

TARGETS = (0.90, 0.95, 0.99)
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
Point = tuple[float, float]  # recall, queries per second
Item = TypeVar("Item")


# ---------------------------------------------------------------- recall


def squared_or_negated(
    vectors: NDArray[np.float32], ids: NDArray[np.int64], queries: NDArray[np.float32], metric: str
) -> NDArray[np.float64]:
    """Return float64 distances from query i to rows ``ids[i]``: squared for l2, -<q, x> for ip and (unit) cosine."""
    rows, points = vectors[ids].astype(np.float64), queries[:, None, :].astype(np.float64)
    distances = (rows - points) ** 2 if metric == "l2" else -rows * points
    return np.asarray(distances.sum(axis=2))


def exact_radius(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], metric: str, k: int
) -> NDArray[np.float64]:
    """Return the distance of every query to its k-th nearest row, in the unit of `squared_or_negated`.

    A float32 matrix product picks k + 50 candidates per query and float64 decides among them: the product's
    rounding is far smaller than the spread of 50 neighbors.
    """
    norms, shortlist = np.einsum("ij,ij->i", vectors, vectors), min(len(vectors), k + 50)
    radius = np.empty(len(queries))
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256]
        coarse = -(block @ vectors.T) if metric != "l2" else norms - 2 * (block @ vectors.T)
        ids = np.argpartition(coarse, shortlist - 1, axis=1)[:, :shortlist]
        exact = squared_or_negated(vectors, ids, block, metric)
        radius[start : start + 256] = np.partition(exact, k - 1, axis=1)[:, k - 1]
    return radius


def recalls_by_distance(
    ids: NDArray[Any],
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    metric: str,
    radius: NDArray[np.float64],
    k: int,
) -> NDArray[np.float64]:
    """Return recall@k of each query: a row counts if it is no farther than the true k-th, so ties do not hurt.

    An id that is repeated counts once, one out of range not at all. ANN-Benchmarks scores the same way:
    Aumüller et al. (2020), https://doi.org/10.1016/j.is.2019.02.006. The tolerance of 1e-6 is float32 rounding.
    """
    ids = np.sort(np.asarray(ids)[:, :k].astype(np.int64), axis=1)
    counts = (ids >= 0) & (ids < len(vectors))
    counts[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    distances = squared_or_negated(vectors, np.where(counts, ids, 0), queries[: len(ids)], metric)
    near = distances <= (radius[: len(ids)] + 1e-6 * np.abs(radius[: len(ids)]))[:, None]
    return np.asarray((near & counts).sum(axis=1) / k)


# ---------------------------------------------------------------- the frontier


def frontier(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats in both recall and speed, recall rising."""
    best: list[Point] = []
    for recall, qps in sorted(points, reverse=True):
        if not best or qps > best[-1][1]:
            best.append((recall, qps))
    return best[::-1]


def qps_at(points: Iterable[Point], target: float) -> float | None:
    """Return the speed at a recall: log(QPS) against log(1 - recall), straight between two points of the frontier.

    None where the target was not reached. Nothing is extrapolated: where even the cheapest effort is above
    the target, its speed stands.
    """
    best = frontier(points)
    after = bisect.bisect_left([recall for recall, _ in best], target)
    if after == len(best):
        return None
    if after == 0:
        return best[0][1]
    (low, fast), (high, slow) = best[after - 1], best[after]
    miss_low, miss_high, miss = (math.log(1 - min(recall, 0.9999)) for recall in (low, high, target))
    share = (miss - miss_low) / (miss_high - miss_low) if miss_high != miss_low else 0.0
    return math.exp(math.log(fast) + share * (math.log(slow) - math.log(fast)))


def around_targets(points: Sequence[Point], targets: Iterable[float] = TARGETS) -> list[int]:
    """Return the positions of the points next to each reachable target: the only ones worth repeating."""
    best, wanted = frontier(points), set()
    for target in targets:
        after = bisect.bisect_left([recall for recall, _ in best], target)
        if after < len(best):
            wanted.update(best[max(0, after - 1) : after + 1])
    return [position for position, point in enumerate(points) if point in wanted]


# ---------------------------------------------------------------- rounds


def turns(names: Sequence[Item], n_rounds: int) -> Iterator[list[Item]]:
    """Yield the order of each round: A B C, then C B A, so that a drift of the machine's speed hurts all alike."""
    for number in range(n_rounds):
        yield list(names) if number % 2 == 0 else list(names)[::-1]


def quartiles(values: Iterable[float], prefix: str = "") -> dict[str, float]:
    """Return the median and the quartiles around it, as fields of a record: `ratio`, `q25`, `q75`."""
    low, middle, high = np.percentile(list(values), [25, 50, 75]).tolist()
    return {f"{prefix}ratio": middle, f"{prefix}q25": low, f"{prefix}q75": high}


def line(record: dict[str, Any]) -> str:
    """Return a record as one line of JSON; six digits are more than any measurement here has."""
    return json.dumps(_rounded(record))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


# ---------------------------------------------------------------- time, memory, machine


class Timing(NamedTuple):
    """What one call took, and what it returned."""

    seconds: float
    cpu_seconds: float  # of the whole process: less hurt by neighbors on a busy machine
    result: Any


def timed(work: Callable[[], Any]) -> Timing:
    """Run `work` once."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, result)


def pin(cpus: Iterable[int]) -> None:
    """Keep every thread of this process on these CPUs; threads made later inherit it. Linux only, else nothing."""
    if not Path("/proc/self/task").exists():
        return
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), set(cpus))
        except ProcessLookupError:  # the thread ended since we listed it
            continue


def memory_bytes(field: str = "VmRSS") -> int:
    """Return resident memory (VmRSS) or its peak since `reset_peak` (VmHWM); 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def reset_peak() -> None:
    """Start VmHWM anew from the present. Where the kernel refuses, the peak includes loading the data."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine to judge a figure."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cpus": len(CPUS),
        "simd": [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq", "amx_int8") if flag in flags],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
