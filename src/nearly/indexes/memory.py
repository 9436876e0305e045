"""What an index takes: bytes of what is built and of the building, and what a limit chooses among."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import Vectors
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
_SHORT_VECTOR = 4 * LINE  # bytes of a vector up to which a graph without codes is quicker than lists of them
# Codes that stand alone, the fastest first, and the recall up to which they are taken: docs/quantizers.md.
_ALONE: tuple[tuple[RaBitQ | SAQ, float], ...] = ((RaBitQ(bits=8), 0.99), (SAQ(bits=6), 0.97), (SAQ(bits=4), 0.92))
_BESIDE = 32  # bytes that codes of SAQ may be longer than those of RaBitQ
_PROBES, _SEEN, _TOLD = 200, 15, 0.98  # of the 10 nearest, that are among the first 15 by codes: see `_tells`


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


def peak_bytes(n: int, dim: int, metric: Metric, index_bytes: int, shape: Shape | None, n_queries: int = 0) -> int:
    """Bytes that building takes at most, the index included and the input not."""
    peak = index_bytes + n * HASH_BYTES + 1_000_000
    if shape is None:
        return peak
    copies = 4 if metric.name == "ip" or shape.n_lists else 2  # of a sample; under ip they are lengthened
    fitting = min(n, SAMPLE) * 4 * (copies * dim + 3 * shape.code_bytes)
    clustering = 0
    if shape.n_lists:  # a sample, what its first division looks at, and blocks of all vectors
        sampled = min(n, shape.n_lists * PER_LIST)
        divided = min(sampled, PER_CENTER * round(shape.n_lists**0.5))
        clustering = min(HELD, sampled * 4 * dim) + (divided + 4 * min(n, IN_HAND)) * 4 * dim + _CALIBRATION_BYTES
        fitting += _CALIBRATION_BYTES
    queries = max(_CALIBRATION_QUERIES, n_queries)
    of_query = 12 * dim + 8 * shape.n_lists  # how far its lists are
    calibrating = _CALIBRATION_BYTES + queries * of_query + n_queries * 12_000
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
    coded = list(_graphs(metric, dim, sample, recall))
    bare = [Shape(degree, 0, Plain(), "no codes") for degree in (24, 16)]
    quantizer = usual_codes(dim)
    if isinstance(quantizer, Product) and quantizer.m is not None:
        code_bytes = int(_core.Listed.block_bytes(dim, dim, quantizer.m)) // BLOCK
    else:
        code_bytes = int(_core.Codes.row_bytes(dim, 8, False, False))
    padding = int((BLOCK - 1) / 2 * (code_bytes + 4))  # of the last block of a list
    listed = Shape(0, code_bytes, None, "product codes" if dim >= 8 else "8-bit codes", n_lists=usual_lists(n),
                   center_bytes=5 * dim + 128 + padding)  # fmt: skip
    yield from coded
    yield from (*bare, listed) if row_bytes(metric, kind, dim) <= _SHORT_VECTOR else (listed, *bare)
    if disk:
        yield from (replace(shape, refine="disk") for shape in (*coded, listed))
    yield None
    if not disk:
        for alone, most in _ALONE:
            if recall <= most:
                size, name = _coded(alone, metric, dim, sample)
                yield replace(listed, code_bytes=size, quantizer=alone, code=name, refine=None,
                              center_bytes=5 * dim + 128)  # fmt: skip


def usual_graph(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Shape:
    """The graph that is built where memory does not matter."""
    return _usual(metric, dim, sample, recall)[0] if metric.name in CODED else Shape(DEGREE, 0, None, "no codes")


def _graphs(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Iterator[Shape]:
    """Graphs that have codes."""
    usual, fitted = _usual(metric, dim, sample, recall)
    if fitted is not None and sample is not None and metric.name != "ip" and not _tells(fitted, sample):
        yield _by(RaBitQ(bits=4), metric, dim, sample)
    yield usual
    few = usual
    if usual.code_bytes > LINE:
        few = Shape(DEGREE, LINE, Reduced(dims=min(dim, 59)), "8-bit codes of one cache line")
    elif dim <= 56 and usual.code_bytes > 32:
        few = Shape(DEGREE, 32, Scalar(bits=4), "4-bit codes")
    if few is not usual:
        yield few
    for degree in (24, 16):
        yield Shape(degree, few.code_bytes, few.quantizer, few.code)


def _by(quantizer: RaBitQ | SAQ, metric: Metric, dim: int, sample: Vectors | None) -> Shape:
    """The graph by such codes."""
    size, name = _coded(quantizer, metric, dim, sample)
    return Shape(DEGREE, size, quantizer, name)


def _coded(quantizer: RaBitQ | SAQ, metric: Metric, dim: int, sample: Vectors | None) -> tuple[int, str]:
    """Bytes of codes, and what they are; without vectors that they are fitted to, at most."""
    if isinstance(quantizer, SAQ) and sample is not None and len(sample):
        fitted = quantizer.fit(sample.as_float32(), metric=metric.name)
        return fitted.row_bytes, fitted.name
    bits = math.ceil(quantizer.bits)
    size = int(_core.RaBitQ.row_bytes(dim + (metric.name == "ip"), bits))
    return size + _BESIDE * isinstance(quantizer, SAQ), f"{bits}-bit {type(quantizer).__name__} codes"


def _usual(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> tuple[Shape, Fitted | None]:
    if sample is None or not len(sample):  # as many components as may be needed
        most = min(int(_core.Codes.row_bytes(dim, 8, False, False)), _MOST_CODES)
        return Shape(DEGREE, most, None, "the usual codes"), None
    quantizer = usual_quantizer(metric.name, sample, recall)
    fitted = quantizer.fit(sample.as_float32(), metric=metric.name)
    if isinstance(quantizer, Reduced) and isinstance(fitted, FittedCodes):
        quantizer = Reduced(dims=fitted.dims, energy=quantizer.energy)  # more vectors do not ask for more components
    return Shape(DEGREE, fitted.row_bytes, quantizer, fitted.name), fitted


def _tells(fitted: Fitted, sample: Vectors) -> bool:
    """Whether codes of leading components tell what is near: of a sample, the 10 nearest are in the first 15 by codes.

    On CVE, MNIST and words 0.988, 0.991 and 0.993 of them are, and graphs are about as fast by such codes as by any; on
    SIFT 0.972, and 4-bit codes of all dimensions are 1.4 times as fast (docs/quantizers.md). 0.98 is by hand.
    """
    rows = in_form(sample.as_float32(), fitted.metric)
    if getattr(fitted, "dims", fitted.dim) == fitted.dim or len(rows) <= _PROBES:
        return True
    probes = np.ascontiguousarray(rows[:_PROBES])
    exact, coded = (np.empty((_PROBES, len(rows)), np.float32) for _ in range(2))
    for first in range(0, len(rows), 1024):
        block = rows[first : first + 1024]
        decoded = fitted.decode(fitted.encode(block))
        left_out = ((block - decoded) ** 2).sum(axis=1)  # codes know how much that is
        at = slice(first, first + len(block))
        exact[:, at], coded[:, at] = _from(probes, block), _from(probes, decoded) + left_out
    own = np.arange(_PROBES)
    exact[own, own] = coded[own, own] = np.inf
    near = exact <= np.partition(exact, 9, axis=1)[:, 9:10]
    first_by_code = coded <= np.partition(coded, _SEEN - 1, axis=1)[:, _SEEN - 1 : _SEEN]
    return bool((near & first_by_code).sum() >= _TOLD * near.sum())


def _from(probes: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances, less what is the same for all rows."""
    products = np.empty((len(probes), len(rows)), np.float32)
    _core.products(probes, np.ascontiguousarray(rows), products)
    made: NDArray[np.float32] = (rows**2).sum(axis=1) - 2 * products
    return made
