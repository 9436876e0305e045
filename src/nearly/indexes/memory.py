"""What an index takes: bytes of what is built and of the building, and what a limit chooses among."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nearly import _core
from nearly.arrays import Vectors
from nearly.indexes.ivf import usual_codes, usual_lists
from nearly.indexes.lists import PER_LIST
from nearly.indexes.store import row_bytes
from nearly.indexes.travel import LINE, usual_quantizer
from nearly.metrics import Metric
from nearly.quantizers import FittedCodes, Plain, Product, Quantizer, Reduced, Scalar
from nearly.quantizers.base import SAMPLE
from nearly.quantizers.listed import BLOCK

__all__ = ["CODED", "DEGREE", "HASH_BYTES", "Shape", "flat_bytes", "graphs", "on_disk", "peak_bytes", "sample_of"]

DEGREE = 32
CODED = ("l2", "cosine", "ip")
_ROW_BYTES = 24  # id, links of the chain and node of one vector
HASH_BYTES = 24  # by which equal vectors are found, of one vector
_EDGE_BYTES = 28  # of a batch, while its edges are sorted
_MOST_CODES = 512  # bytes of the longest codes that are chosen without being asked for
# Measured with benchmarks/bench_memory.py: truth and trials of a calibration, and what libraries take when first used.
_CALIBRATION_BYTES, _CALIBRATION_QUERIES = 22_000_000, 3_000


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
    refine : str
        Where the vectors are.
    n_lists, center_bytes : int
        How many inverted lists, and what each takes beside what is in it.
    """

    degree: int
    code_bytes: int
    quantizer: Quantizer | None
    code: str
    refine: str = "memory"
    n_lists: int = 0
    center_bytes: int = 0

    @property
    def name(self) -> str:
        """What it is, for people."""
        made = f"degree {self.degree}" if self.degree else f"{self.n_lists} inverted lists"
        return f"{made} and {self.code}" + (", vectors on disk" if self.refine == "disk" else "")

    def bytes(self, n: int) -> int:
        """Bytes of lists and codes of n vectors."""
        return n * (4 * (self.degree or 1) + self.code_bytes) + self.n_lists * self.center_bytes


def flat_bytes(n: int, dim: int, kind: str, metric: Metric, refine: str = "memory") -> int:
    """Bytes of memory of n distinct vectors and their rows: of `Flat`, and of what every graph ranks by."""
    return n * ((0 if refine == "disk" else row_bytes(metric, kind, dim)) + _ROW_BYTES)


def peak_bytes(n: int, dim: int, metric: Metric, index_bytes: int, shape: Shape | None, n_queries: int = 0) -> int:
    """Bytes that building takes at most, the index included and the input not."""
    peak = index_bytes + n * HASH_BYTES + 1_000_000
    if shape is None:
        return peak
    copies = 4 if metric.name == "ip" or shape.n_lists else 2  # of a sample; under ip they are lengthened
    clustering = 0
    if shape.n_lists:  # a sample, its rows about their mean, and those of a part
        clustering = _CALIBRATION_BYTES + min(n, shape.n_lists * PER_LIST) * 4 * 3 * dim
    fitting = min(n, SAMPLE) * 4 * (copies * dim + 3 * shape.code_bytes)
    queries = max(_CALIBRATION_QUERIES, n_queries)
    of_query = 12 * dim + 20 * shape.n_lists  # how far its lists are, and their ranks, sorted twice
    calibrating = _CALIBRATION_BYTES + queries * of_query + n_queries * 12_000
    inserting = max(64, n // 50) * shape.degree * _EDGE_BYTES
    return peak + inserting + max(fitting, clustering, calibrating)  # what the one gave back serves the other


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


def on_disk(metric: Metric, dim: int, n: int, graphs: "list[Shape]") -> Iterator[Shape]:
    """What leaves its vectors on disk: those of some graphs that have codes, then inverted lists, the smallest."""
    if metric.name not in CODED:
        return  # without codes every comparison would read the disk
    yield from (replace(shape, refine="disk") for shape in graphs if shape.code_bytes)
    quantizer, n_lists = usual_codes(dim), usual_lists(n)
    if isinstance(quantizer, Product) and quantizer.m is not None:
        code_bytes = int(_core.Listed.block_bytes(dim, dim, quantizer.m)) // BLOCK
    else:
        code_bytes = int(_core.Codes.row_bytes(dim, 8, False, False))
    padding = (BLOCK - 1) / 2 * (code_bytes + 4)  # of the last block of a list
    yield Shape(0, code_bytes, None, "product codes" if dim >= 8 else "8-bit codes", "disk", n_lists,
                5 * dim + 128 + int(padding))  # fmt: skip


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
