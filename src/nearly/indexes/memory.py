"""What an index takes: bytes of what is built and of the building, and the graphs among which a limit chooses."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nearly import _core
from nearly.arrays import Vectors
from nearly.indexes.store import ELEMENTS
from nearly.indexes.travel import LINE, usual_quantizer
from nearly.metrics import Metric
from nearly.quantizers import FittedCodes, Plain, Quantizer, Reduced, Scalar
from nearly.quantizers.base import SAMPLE

__all__ = ["CODED", "DEGREE", "Shape", "flat_bytes", "graphs", "peak_bytes", "sample_of"]

DEGREE = 32
CODED = ("l2", "cosine", "ip")
_ROW_BYTES = 24  # id, links of the chain and node of one vector
_HASH_BYTES = 16  # by which equal vectors are found, of one vector
_EDGE_BYTES = 28  # of a batch, while its edges are sorted
_MOST_CODES = 512  # bytes of the longest codes that are chosen without being asked for
# Measured with benchmarks/bench_memory.py: truth and trials of a calibration, and what libraries take when first used.
_CALIBRATION_BYTES, _CALIBRATION_QUERIES = 22_000_000, 3_000


@dataclass(frozen=True)
class Shape:
    """A graph that could be built: what its lists and its codes take of one vector.

    Attributes
    ----------
    degree : int
    code_bytes : int
        0 for none.
    quantizer : Quantizer or None
        What makes such codes; None leaves the choice to the index.
    code : str
        The codes in words.
    """

    degree: int
    code_bytes: int
    quantizer: Quantizer | None
    code: str

    def bytes(self, n: int) -> int:
        """Bytes of lists and codes of n vectors."""
        return n * (4 * self.degree + self.code_bytes)


def flat_bytes(n: int, dim: int, kind: str, metric: Metric) -> int:
    """Bytes of n distinct vectors and their rows: of `Flat`, and of what every graph ranks by."""
    element = ELEMENTS.index("uint8" if kind == "bits" else kind)
    return n * (int(_core.Plain.row_bytes(element, metric.number, dim)) + _ROW_BYTES)


def peak_bytes(n: int, dim: int, metric: Metric, index_bytes: int, shape: Shape | None, n_queries: int = 0) -> int:
    """Bytes that building takes at most, the index included and the input not."""
    peak = index_bytes + n * _HASH_BYTES + 1_000_000
    if shape is None:
        return peak
    copies = 4 if metric.name == "ip" else 2  # of a sample; under ip they are lengthened
    fitting = min(n, SAMPLE) * 4 * (copies * dim + 3 * shape.code_bytes)
    queries = max(_CALIBRATION_QUERIES, n_queries)
    calibrating = _CALIBRATION_BYTES + queries * 4 * 3 * dim + n_queries * 12_000
    inserting = max(64, n // 50) * shape.degree * _EDGE_BYTES
    return peak + inserting + max(fitting, calibrating)  # what the one gave back serves the other


def sample_of(vectors: Vectors) -> Vectors:
    """Some vectors from all over, of which the size of codes follows."""
    return Vectors(np.ascontiguousarray(vectors.array[:: max(1, len(vectors) // SAMPLE)]), vectors.kind)


def graphs(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Iterator[Shape]:
    """Graphs from the usual one to the smallest, each smaller than those before.

    Codes give way first, as far as one cache line, then the degree; without codes a walk reads the vectors themselves.
    """
    if metric.name not in CODED:
        yield from (Shape(degree, 0, None, "no codes") for degree in (DEGREE, 24, 16))
        return
    usual = _usual(metric, dim, sample, recall)
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
    if few.code_bytes > 32:
        yield Shape(24, 0, Plain(), "no codes")
    yield Shape(16, 0, Plain(), "no codes")


def _usual(metric: Metric, dim: int, sample: Vectors | None, recall: float) -> Shape:
    if sample is None or not len(sample):  # as many components as may be needed
        return Shape(
            DEGREE, min(int(_core.Codes.row_bytes(dim, 8, False, False)), _MOST_CODES), None, "the usual codes"
        )
    quantizer = usual_quantizer(metric.name, sample, recall)
    rows = sample.as_float32()
    fitted = quantizer.fit(rows, metric=metric.name)
    if isinstance(quantizer, Reduced) and isinstance(
        fitted, FittedCodes
    ):  # so that more vectors do not ask for more components
        quantizer = Reduced(dims=fitted.dims, energy=quantizer.energy)
    return Shape(DEGREE, fitted.row_bytes, quantizer, fitted.name)
