"""How fast is each kernel alone, per SIMD target, in and out of cache?   python benchmarks/bench_kernels.py --dim 128

One JSON line per kernel, place, access and target: GB/s of stored rows, and the share of what a plain read of as many
bytes reaches (the fastest NumPy reduction). `of_best` compares the targets: the default order of targets is right where
the first one has 1.0. A kernel that is well below a share of 1 in memory is bound by arithmetic even there.

Traps: targets take turns within a round, and the median is over rounds, so that a busy neighbor hurts all alike.
Time is the thread's processor time. Rows in cache are asked for again and again (256 KiB: the second cache, not the
first); rows in memory are six times a third cache of 32 MB, `--memory-mib` for larger ones. Random access (`gather`)
reads whole rows in the order of a permutation, as graphs do, but asks for no row ahead: a search that prefetches is
faster. Denormal numbers are slow, so elements are drawn, not random bytes. A call from Python costs about 1 µs: calls
have 250 KiB of work or more, except `project`, whose matrix is what it is.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import measure
import numpy as np
from numpy.typing import NDArray

from nearly import _core

ELEMENTS = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}  # bytes; in the core's order
FLOAT_KERNELS = ("l2", "ip", "cosine", "l1")
LEAST_SECONDS = 2e-3  # of one measurement: shorter ones are repeated calls

Wanted = Callable[[str, str], bool]


class Work(NamedTuple):
    """One kernel on some rows: a call, the bytes it reads, and how many rows or outputs that is."""

    name: str
    element: str
    dim: int
    access: str
    call: Callable[[], object]
    n_bytes: int
    n_rows: int
    n_flop: int = 0


def main() -> None:
    """Measure every kernel in every place and print one line per target."""
    arguments = parse()
    targets = [t for t in _core.simd_targets() if not arguments.target or t in arguments.target]
    places = {"cache": arguments.cache_kib * 1024, "memory": arguments.memory_mib * 1024 * 1024}
    reads = {place: read_speed(n_bytes) for place, n_bytes in places.items()}
    before = _core.simd_target()

    def wanted(name: str, element: str) -> bool:
        return not arguments.kernel or any(part in f"{name} {element}" for part in arguments.kernel)

    for place, n_bytes in places.items():
        for dim in arguments.dim:
            for work in works(dim, n_bytes, place, wanted):
                seconds = turns(work.call, targets, arguments.rounds)
                for target in targets:
                    facts = record(work, seconds[target], reads[place], min(seconds.values()))
                    line = {"bench": "kernels", "place": place, "target": target, **facts, "machine": measure.machine()}
                    print(json.dumps(line), flush=True)
    _core.use_simd_target(before)


def parse() -> argparse.Namespace:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, nargs="+", default=[128, 768], help="columns of a vector (multiples of 16)")
    parser.add_argument("--kernel", nargs="+", help='only those whose "name element" holds one: dots8 "l2 float16"')
    parser.add_argument("--target", nargs="+", help="only these SIMD targets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache-kib", type=int, default=256)
    parser.add_argument("--memory-mib", type=int, default=192)
    arguments = parser.parse_args()
    if any(dim < 16 or dim % 16 for dim in arguments.dim):
        parser.error("--dim: multiples of 16, so that every kernel can be compared")
    unknown = sorted(set(arguments.target or []) - set(_core.simd_targets()))
    if unknown:
        parser.error(f"--target: this machine has {', '.join(_core.simd_targets())}, not {', '.join(unknown)}")
    return arguments


def record(work: Work, seconds: float, read: float, best: float) -> dict[str, Any]:
    """Return what was measured, how fast it was, and how that compares."""
    speed = work.n_bytes / seconds / 1e9
    facts = {
        "kernel": work.name,
        "element": work.element,
        "dim": work.dim,
        "access": work.access,
        "n_rows": work.n_rows,
        "nanoseconds_per_row": round(seconds / work.n_rows * 1e9, 2),
        "gigabytes_per_second": round(speed, 2),
        "read_gigabytes_per_second": round(read, 2),
        "share_of_read": round(speed / read, 3),
        "of_best": round(best / seconds, 3),
    }
    return facts if not work.n_flop else {**facts, "gigaflops": round(work.n_flop / seconds / 1e9, 1)}


# ---------------------------------------------------------------- time


def seconds_of(call: Callable[[], object], n_calls: int) -> float:
    """Return processor seconds of one call, as a mean of a few in a row."""
    start = time.thread_time()
    for _ in range(n_calls):
        call()
    return (time.thread_time() - start) / n_calls


def calls_for(call: Callable[[], object]) -> int:
    """Return how many calls take long enough to be timed; the first, which pages memory in, is thrown away."""
    call()
    return max(1, int(LEAST_SECONDS / max(1e-9, seconds_of(call, 1))))


def turns(call: Callable[[], object], targets: list[str], rounds: int) -> dict[str, float]:
    """Return median seconds per target; targets take turns in every round."""
    samples: dict[str, list[float]] = {target: [] for target in targets}
    n_calls = {}
    for target in targets:
        _core.use_simd_target(target)
        n_calls[target] = calls_for(call)
    for round_ in range(rounds):
        for target in targets if round_ % 2 == 0 else targets[::-1]:
            _core.use_simd_target(target)
            samples[target].append(seconds_of(call, n_calls[target]))
    return {target: statistics.median(taken) for target, taken in samples.items()}


def read_speed(n_bytes: int) -> float:
    """Return GB/s of a plain read: the fastest of three reductions, which do hardly more than load."""
    words = np.ones(n_bytes // 8, np.int64)
    readers: list[Callable[[], object]] = [
        partial(np.bitwise_or.reduce, words),
        partial(np.add.reduce, words),
        partial(np.maximum.reduce, words.view(np.float32)),
    ]
    times = [min(seconds_of(read, calls_for(read)) for _ in range(5)) for read in readers]
    return n_bytes / min(times) / 1e9


# ---------------------------------------------------------------- work


def rows_of(element: str, n_columns: int, n_bytes: int) -> NDArray[Any]:
    """Return about n_bytes of rows: a small block of drawn numbers, over and over."""
    rng = np.random.default_rng(0)
    n = max(4, n_bytes // (n_columns * ELEMENTS[element]))
    block = (min(n, 64), n_columns)
    if element == "bfloat16":
        drawn: NDArray[Any] = (rng.standard_normal(block, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    elif "int" in element:
        drawn = rng.integers(0, 127, block).astype(element)
    else:
        drawn = rng.standard_normal(block).astype(element)
    return np.resize(drawn, (n, n_columns))


def works(dim: int, n_bytes: int, place: str, wanted: Wanted) -> Iterator[Work]:
    """Yield every kernel that is wanted, on rows of a place."""
    for element in ELEMENTS:
        kernels = [(name, False) for name in FLOAT_KERNELS]
        if "int" in element:
            kernels += [("l2", True), ("ip", True)]
        if element == "uint8":
            kernels += [("hamming", False), ("jaccard", False)]
        for name, integers in kernels:
            if wanted(f"{name} of integers" if integers else name, element):
                yield from distances(name, element, integers, dim, n_bytes)
    for bits in (8, 4):
        if wanted(f"dots{bits}", "uint8"):
            rows = rows_of("uint8", dim * bits // 8, n_bytes)
            call = partial(_core.dots, np.ones(dim, np.int8), rows, bits, np.empty(len(rows), np.int32))
            yield Work(f"dots{bits}", "uint8", dim, "dense", call, rows.nbytes, len(rows))
    for bits in range(1, 9):
        if dim % 64 == 0 and wanted(f"packed_dots{bits}", "uint8"):
            rows = rows_of("uint8", dim * bits // 8, n_bytes)
            call = partial(_core.packed_dots, np.ones(dim, np.int8), rows, bits, np.empty(len(rows), np.int32))
            yield Work(f"packed_dots{bits}", "uint8", dim, "dense", call, rows.nbytes, len(rows))
    if dim % 64 == 0 and place == "cache" and wanted("rotate", "float32"):
        rows = rows_of("float32", dim, n_bytes)
        call = partial(_core.rotate, rows, np.random.default_rng(0).integers(0, 2**64, dim // 16, np.uint64))
        yield Work("rotate", "float32", dim, "dense", call, rows.nbytes, len(rows))
    if wanted("fastscan", "uint8"):
        yield lookups(dim, n_bytes)
    for element in ("float32", "float16"):
        if wanted("first_nonfinite", element):
            rows = rows_of(element, dim, n_bytes)
            call = partial(_core.first_nonfinite, rows)
            yield Work("first_nonfinite", element, dim, "dense", call, rows.nbytes, len(rows))
    if place == "cache":
        yield from dense_products(dim, wanted)


def distances(name: str, element: str, integers: bool, dim: int, n_bytes: int) -> Iterator[Work]:
    """Yield a distance kernel along the rows and in random order."""
    bits = name in ("hamming", "jaccard")
    size = dim // 8 if bits else dim
    rows = rows_of(element, size, n_bytes).view(np.uint8)
    if name == "cosine":
        rows = np.concatenate([rows, np.ones((len(rows), 1), np.float32).view(np.uint8)], axis=1)
    query = np.ones(size, np.uint8 if bits or integers else np.float32).view(np.uint8)
    out, order = np.empty(len(rows), np.float32), np.random.default_rng(1).permutation(len(rows)).astype(np.uint32)
    label, number = f"{name} of integers" if integers else name, list(ELEMENTS).index(element)
    for access, chosen in (("dense", None), ("gather", order)):
        call = partial(_core.distances, name, number, integers, query, rows, size, out, chosen)
        yield Work(label, element, dim, access, call, rows.nbytes, len(rows))


def lookups(dim: int, n_bytes: int) -> Work:
    """Return 4-bit lookups in sign codes of so many dimensions: a table for every four, blocks of 32 vectors."""
    groups = dim // 4
    packed = rows_of("uint8", groups * 16, n_bytes).reshape(-1, groups, 16)
    out = np.empty((len(packed), 32), np.uint16)
    call = partial(_core.fastscan, np.ones((groups, 16), np.uint8), packed, out)
    return Work("fastscan", "uint8", dim, "dense", call, packed.nbytes, 32 * len(packed))


def dense_products(dim: int, wanted: Wanted) -> Iterator[Work]:
    """Yield the kernels of projections and batches, whose operands stay in cache: arithmetic alone."""
    if wanted("project", "int8"):
        matrix = np.ones(dim * dim, np.int8)
        call = partial(_core.project, np.ones(dim, np.int16), matrix, np.empty(dim, np.int32))
        yield Work("project", "int8", dim, "dense", call, matrix.nbytes, 1, 2 * dim * dim)
    if wanted("products", "float32"):
        rows, columns = rows_of("float32", dim, 192 * dim * 4), rows_of("float32", dim, 64 * dim * 4)
        call = partial(_core.products, rows, columns, np.empty((len(rows), len(columns)), np.float32), 1)
        n_flop = 2 * len(rows) * len(columns) * dim
        yield Work("products", "float32", dim, "dense", call, rows.nbytes, len(rows), n_flop)


if __name__ == "__main__":
    main()
