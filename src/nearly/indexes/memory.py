"""What an index takes: bytes of what is built and of the building, and what a limit chooses among."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import Vectors
from nearly.indexes.guide import guide_bytes
from nearly.indexes.ivf import usual_codes, usual_lists
from nearly.indexes.lists import BLOCK as IN_HAND
from nearly.indexes.lists import HELD, PER_LIST
from nearly.indexes.store import row_bytes
from nearly.indexes.travel import LINE, usual_quantizer
from nearly.kmeans import PER_CENTER
from nearly.metrics import Metric
from nearly.quantizers import SAQ, Fitted, FittedCodes, Plain, Product, Quantizer, RaBitQ, Reduced, Scalar
from nearly.quantizers.base import SAMPLE, in_form
from nearly.quantizers.listed import BLOCK
from nearly.runtime import get_threads

__all__ = [
    "CODED",
    "DEGREE",
    "HASH_BYTES",
    "Shape",
    "candidates",
    "flat_bytes",
    "peak_bytes",
    "sample_of",
    "usual_graph",
]

DEGREE = 32
CODED = ("l2", "cosine", "ip")
_ROW_BYTES = 24  # id, links of the chain and node of one vector
HASH_BYTES = 24  # by which equal vectors are found, of one vector
_EDGE_BYTES = 28  # of a batch, while its edges are sorted
_MOST_CODES = 512  # bytes of the longest codes that are chosen without being asked for
# Measured with benchmarks/bench_memory.py: truth and trials of a calibration, and what libraries take when first used.
_CALIBRATION_BYTES, _CALIBRATION_QUERIES = 22_000_000, 3_000
_LISTED_BYTES = 33_000_000  # which lists hold the 1,000 nearest of each query, and how far these are
_SECOND_BYTES, _THREAD_BYTES = 20_000_000, 8_000_000  # of a second thread, and each further one, that build lists
_SHORT_VECTOR = 4 * LINE  # bytes of a vector up to which a graph without codes is quicker than lists of them
# Codes that stand alone, the fastest first, and the recall up to which they are taken: docs/quantizers.md.
_ALONE: tuple[tuple[RaBitQ | SAQ, float], ...] = ((RaBitQ(bits=8), 0.99), (SAQ(bits=6), 0.97), (SAQ(bits=4), 0.92))
_BESIDE = 32  # bytes that codes of SAQ may be longer than those of RaBitQ
_PROBES = 200  # vectors by which codes are tried
_ENOUGH = 0.85  # share of the nearest that codes tell (see `_told`), by hand, below which they are left out
_SHORT = 56  # dimensions up to which half a line holds 4 bits of each


@dataclass(frozen=True)
class Shape:
    """A graph, or inverted lists, that could be built: what lists and codes take of one vector.

    Attributes
    ----------
    degree : int
        Of a graph; 0 for inverted lists.
    code_bytes : int
        0 for none.
    quantizer : Quantizer or None
        What makes such codes; None leaves the choice to the index.
    code : str
        The codes in words.
    refine : str or None
        Where the vectors are; None: nowhere.
    n_lists, center_bytes : int
        How many inverted lists, and what each takes beside what is in it.
    """

    degree: int
    code_bytes: int
    quantizer: Quantizer | None
    code: str
    refine: str | None = "memory"
    n_lists: int = 0
    center_bytes: int = 0

    @property
    def name(self) -> str:
        """What it is, for people."""
        made = f"degree {self.degree}" if self.degree else f"{self.n_lists} inverted lists"
        where = {"disk": ", vectors on disk", None: " alone, without the vectors"}.get(self.refine, "")
        return f"{made} and {self.code}{where}"

    def bytes(self, n: int) -> int:
        """Bytes of lists and codes of n vectors."""
        return n * (4 * (self.degree or 1) + self.code_bytes) + self.n_lists * self.center_bytes


def flat_bytes(n: int, dim: int, kind: str, metric: Metric, refine: str | None = "memory") -> int:
    """Bytes of memory of n distinct vectors and their rows: of `Flat`, and of what every graph ranks by."""
    return n * ((row_bytes(metric, kind, dim) if refine == "memory" else 0) + _ROW_BYTES)


def peak_bytes(
    n: int, dim: int, metric: Metric, index_bytes: int, shape: Shape | None, n_queries: int = 0, threads: int = 0
) -> int:
    """Bytes that building takes at most, the index included and the input not; 0 threads are as many as usual."""
    peak = index_bytes + n * HASH_BYTES + 1_000_000
    if shape is None:
        return peak
    copies = 4 if metric.name == "ip" or shape.n_lists else 2  # of a sample; under ip they are lengthened
    fitting = min(n, SAMPLE) * 4 * (copies * dim + 3 * shape.code_bytes)
    clustering = 0
    if shape.n_lists:  # a sample, what its first division looks at, and blocks of all vectors
        others = (threads or get_threads()) - 1
        peak += _SECOND_BYTES + _THREAD_BYTES * (others - 1) if others else 0
        sampled = min(n, shape.n_lists * PER_LIST)
        divided = min(sampled, PER_CENTER * round(shape.n_lists**0.5))
        clustering = min(HELD, sampled * 4 * dim) + (divided + 4 * min(n, IN_HAND)) * 4 * dim + _CALIBRATION_BYTES
        fitting += _CALIBRATION_BYTES
    queries = max(_CALIBRATION_QUERIES, n_queries)
    of_query = 12 * dim + 8 * shape.n_lists  # how far its lists are
    fixed = _CALIBRATION_BYTES + _LISTED_BYTES * (shape.n_lists > 0)
    calibrating = fixed + queries * of_query + n_queries * 12_000
    inserting = max(64, n // 50) * shape.degree * _EDGE_BYTES
    return peak + inserting + max(fitting, clustering, calibrating)  # what the one gave back serves the other


def sample_of(vectors: Vectors) -> Vectors:
    """Some vectors from all over, of which the size of codes follows."""
    return Vectors(np.ascontiguousarray(vectors.array[:: max(1, len(vectors) // SAMPLE)]), vectors.kind)


def candidates(
    metric: Metric, dim: int, kind: str, n: int, sample: Vectors | None, recall: float, disk: bool
) -> Iterator[Shape | None]:
    """What a limit chooses among, the first that fits; None stands for `Flat`.

    From fast to slow as docs/memory.md has measured it, what needs no file before what does: graphs by shorter codes,
    by lower degrees, lists, vectors on disk under each of these, a scan, and codes alone where no file is allowed.
    """
    if metric.name not in CODED:
        yield from (Shape(degree, 0, None, "no codes") for degree in (DEGREE, 24, 16))
        yield None  # without codes every comparison would read the disk
        return
    coded = []
    for shape in _graphs(metric, dim, sample, recall):
        coded.append(shape)
        yield shape
    bare = [Shape(degree, 0, Plain(), "no codes") for degree in (24, 16)]
    quantizer = usual_codes(dim)
    if isinstance(quantizer, Product) and quantizer.m is not None:
        code_bytes = int(_core.Listed.block_bytes(dim, dim, quantizer.m)) // BLOCK
    else:
        code_bytes = int(_core.Codes.row_bytes(dim, 8, False, False))
    padding = int((BLOCK - 1) / 2 * (code_bytes + 4))  # of the last block of a list
    n_lists = usual_lists(n)
    center = 5 * dim + 128 + guide_bytes(n_lists, dim, metric)
    listed = Shape(0, code_bytes, None, "product codes" if dim >= 8 else "8-bit codes", n_lists=n_lists,
                   center_bytes=center + padding)  # fmt: skip
    yield from (*bare, listed) if row_bytes(metric, kind, dim) <= _SHORT_VECTOR else (listed, *bare)
    if disk:
        yield from (replace(shape, refine="disk") for shape in (*coded, listed))
    yield None
    if not disk:
        for alone, most in _ALONE:
            if recall <= most:
                shape, _ = _by(alone, metric, dim, sample)
                yield replace(shape, degree=0, refine=None, n_lists=n_lists, center_bytes=center)


def usual_graph(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Shape:
    """The graph that is built where memory does not matter."""
    return _usual(metric, dim, sample, recall) if metric.name in CODED else Shape(DEGREE, 0, None, "no codes")


def _graphs(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Iterator[Shape]:
    """Graphs that have codes, of which those that tell too little in a sample are left out: they would only scan."""
    usual = _usual(metric, dim, sample, recall)
    yield usual
    few = usual
    one = Reduced(dims=min(dim, LINE - 5))
    for quantizer in (Scalar(bits=4),) if dim <= _SHORT else (RaBitQ(bits=2), one, SAQ(bits=1)):
        shape, fitted = _by(quantizer, metric, dim, sample)
        if shape.code_bytes < few.code_bytes and (fitted is None or _told(fitted, sample) >= _ENOUGH):
            few = shape
            yield shape
    for degree in (24, 16):
        yield replace(few, degree=degree)


def _by(quantizer: Quantizer, metric: Metric, dim: int, sample: Vectors | None) -> tuple[Shape, Fitted | None]:
    """The graph by such codes, and these where there are vectors to fit them to."""
    if sample is not None and len(sample):
        fitted = quantizer.fit(sample.as_float32(), metric=metric.name)
        return Shape(DEGREE, fitted.row_bytes, quantizer, fitted.name), fitted
    return Shape(DEGREE, _most_bytes(quantizer, metric, dim), quantizer, _called(quantizer)), None


def _most_bytes(quantizer: Quantizer, metric: Metric, dim: int) -> int:
    """Bytes of such a code at most, whatever it is fitted to."""
    dim += metric.name == "ip"  # by which vectors may be lengthened
    match quantizer:
        case RaBitQ(bits=bits):
            return int(_core.RaBitQ.row_bytes(dim, bits))
        case SAQ(bits=bits):
            return int(_core.RaBitQ.row_bytes(dim, math.ceil(bits))) + _BESIDE
        case Scalar(bits=bits):
            return int(_core.Codes.row_bytes(dim, bits, False, False))
    return LINE


def _called(quantizer: Quantizer) -> str:
    return f"codes of {type(quantizer).__name__}({getattr(quantizer, 'bits', None) or getattr(quantizer, 'dims', '')})"


def _usual(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Shape:
    if sample is None or not len(sample):  # as many components as may be needed
        most = min(int(_core.Codes.row_bytes(dim, 8, False, False)), _MOST_CODES)
        return Shape(DEGREE, most, None, "the usual codes")
    quantizer = usual_quantizer(metric.name, sample, recall)
    fitted = quantizer.fit(sample.as_float32(), metric=metric.name)
    if isinstance(quantizer, Reduced) and isinstance(fitted, FittedCodes):
        quantizer = Reduced(dims=fitted.dims, energy=quantizer.energy)  # more vectors do not ask for more components
    return Shape(DEGREE, fitted.row_bytes, quantizer, fitted.name)


def _told(fitted: Fitted, sample: Vectors | None) -> float:
    """Share of the 10 nearest in a sample that are among the first 15 by codes; 1 where there are too few to tell.

    Usual codes: 0.988 on CVE, 0.991 on MNIST, 0.993 on words, 0.972 on SIFT. Shorter ones on CVE: RaBitQ(2) 0.936 (1.07
    times as fast as the usual ones), SAQ(1) 0.893 (0.66 times), 59 components 0.707 (every query was scanned).
    """
    if sample is None or len(sample) <= _PROBES:
        return 1.0
    rows, product = in_form(sample.as_float32(), fitted.metric), fitted.metric == "ip"
    probes = np.ascontiguousarray(rows[:_PROBES])
    exact, coded = (np.empty((_PROBES, len(rows)), np.float32) for _ in range(2))
    for first in range(0, len(rows), 1024):
        block = rows[first : first + 1024]
        decoded, at = fitted.decode(fitted.encode(block)), slice(first, first + len(block))
        exact[:, at], coded[:, at] = _from(probes, block, product), _from(probes, decoded, product)
        if not product:
            with np.errstate(over="ignore", invalid="ignore"):
                coded[:, at] += ((block - decoded) ** 2).sum(axis=1)  # codes know how much they leave out
    own = np.arange(_PROBES)
    exact[own, own] = coded[own, own] = np.inf
    near = exact <= np.partition(exact, 9, axis=1)[:, 9:10]
    seen = coded <= np.partition(coded, 14, axis=1)[:, 14:15]
    return float((near & seen).sum() / max(1, near.sum()))  # 0 where distances overflow: nothing is told


def _from(probes: NDArray[np.float32], rows: NDArray[np.float32], product: bool) -> NDArray[np.float32]:
    """Squared distances, less what is the same for all rows, or products, less for those that are nearer."""
    made = np.empty((len(probes), len(rows)), np.float32)
    _core.products(probes, np.ascontiguousarray(rows), made)
    with np.errstate(over="ignore", invalid="ignore"):
        return -made if product else (rows**2).sum(axis=1) - 2 * made
