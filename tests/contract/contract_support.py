"""What the contract tests share: every kind of index with every quantizer under every metric, built once."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import nearly
from nearly.indexes import INDEXES
from nearly.metrics import METRICS
from nearly.quantizers import QUANTIZERS

N, DIM, SEED = 600, 24, 3
LARGE = 1500  # vectors of an index whose walks and lists leave most of them out
# The settings of a quantizer that differ in what they store; one that is not listed is tested as it is by default.
VARIANTS: dict[str, list[Any]] = {
    "scalar": [nearly.Scalar(bits, scale) for bits in (8, 4) for scale in ("global", "dimension", "vector")],
    "reduced": [nearly.Reduced(), nearly.Reduced(dims=12), nearly.Reduced(dims=16, code=nearly.Scalar(4, "vector"))],
    "rabitq": [nearly.RaBitQ(bits) for bits in (1, 4, 7)],
    "saq": [nearly.SAQ(bits) for bits in (2, 7.5)],
    "product": [nearly.Product(), nearly.Product(bits=4), nearly.Product(m=5, rotation="opq")],
    "residual": [nearly.Residual(3), nearly.Residual(9, bits=4, beam=2)],
    "binary": [nearly.Binary(rotation) for rotation in ("random", "itq", None)],
    "transformed": [
        nearly.Transformed(nearly.Pca(16), nearly.Scalar()),
        nearly.Transformed(nearly.Chain(nearly.Matryoshka(20), nearly.Rotation()), nearly.RaBitQ(4)),
    ],
}
CODED = ("l2", "cosine", "ip")


class Case(NamedTuple):
    """A row of INDEXES with one of its settings."""

    kind: str
    quantizer: Any
    metric: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.quantizer}-{self.metric}".replace(" ", "").replace("'", "")

    def make(self, vectors: Any, **options: Any) -> Any:
        """Return an index of this kind."""
        if self.quantizer is not None:
            options = {"quantizer": self.quantizer, "seed": 1, **options}
        return INDEXES[self.kind](vectors, metric=self.metric, **options)


def _cases() -> list[Case]:
    """Every index with every quantizer and metric; of a quantizer's further settings one metric each, in turn.

    HNSW walks by the codes of Vamana, so each setting meets one metric there too.
    """
    made = []
    for turn, kind in enumerate(INDEXES):
        if kind == "flat":
            made += [Case(kind, None, metric) for metric in METRICS]
        for name, quantizer in QUANTIZERS.items():
            if kind == "flat" and not getattr(quantizer, "bounded", False):
                continue
            first, *others = VARIANTS.get(name) or [quantizer()]
            if kind == "hnsw" and name not in ("plain", "scalar"):
                others = [first, *others]
            else:
                made += [Case(kind, first, metric) for metric in METRICS if name == "plain" or metric in CODED]
            made += [Case(kind, spec, CODED[(turn + i) % 3]) for i, spec in enumerate(others)]
    return made


CASES = _cases()
# One setting of each kind and metric, for what does not depend on the quantizer.
SIMPLE = [c for c in CASES if c.quantizer in (None, nearly.Plain(), nearly.Scalar())]
# In the fast tests codes meet a graph and lists, under a metric each, and further settings a graph; the soak has all.
_FIRST = [settings[0] for settings in VARIANTS.values()]


def _rare(case: Case) -> bool:
    if case.kind == "hnsw" and case.metric not in ("l2", "ip"):  # the walks of Vamana
        return True
    if case.quantizer == nearly.Plain() and case.metric in ("cosine", "ip"):  # met by 8-bit codes
        return case.kind != "flat"
    if case in SIMPLE or case.metric not in CODED or case.kind == "flat":
        return False
    if case.quantizer in _FIRST:
        turn = _FIRST.index(case.quantizer) + (case.kind == "ivf")
        return case.kind == "hnsw" or case.metric != CODED[turn % 3]
    return case.kind != "vamana"


RARE = [c for c in CASES if _rare(c)]


def each(cases: Any) -> list[Any]:
    """Return cases as parameters, the rare ones marked for the soak."""
    return [pytest.param(c, marks=pytest.mark.soak) if c in RARE else c for c in cases]


L2 = [c for c in SIMPLE if c.metric == "l2"]
KINDS = [c for c in L2 if c.quantizer in (None, nearly.Scalar())]
GRAPHS = ("vamana", "hnsw")  # what has an order of insertion


def points(metric: str, n: int = N, dim: int = DIM, seed: int = SEED) -> NDArray[Any]:
    """Return vectors that a metric takes: floats in loose clusters, or packed bits."""
    rng = np.random.default_rng(seed)
    if METRICS[metric].input == "bits":
        return rng.integers(0, 256, (n, dim), dtype=np.uint8)
    centers = np.random.default_rng(0).standard_normal((20, dim), dtype=np.float32)
    return centers[rng.integers(20, size=n)] + rng.standard_normal((n, dim), dtype=np.float32)


@cache
def built(case: Case, n: int = N, own: bool = False) -> Any:
    """Return an index over ``points``; tests that change an index make their own.

    It is calibrated by a hundred queries unless it is a large one, or to make its ``own``, which takes longer.
    """
    return case.make(points(case.metric, n), **({} if own or n == LARGE else few_queries(case)))


def few_queries(case: Case) -> dict[str, Any]:
    """Return the option that spares an index the queries of its own."""
    return {} if case.kind == "flat" else {"queries": points(case.metric, 100, seed=SEED + 2)}


def queries(metric: str, n: int = 40) -> NDArray[Any]:
    """Return points like those stored, but others."""
    return points(metric, n, seed=SEED + 1)


def same(a: Any, b: Any) -> None:
    """Two answers are equal bit for bit."""
    assert a.ids.tolist() == b.ids.tolist()
    assert a.distances.tobytes() == b.distances.tobytes()
