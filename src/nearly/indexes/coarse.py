"""Where vectors are clustered: where they are, or after a transform, in fewer dimensions (AdANNS, arXiv 2305.19435)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.errors import InputError
from nearly.indexes.guide import Guide
from nearly.indexes.store import Store, as_bytes
from nearly.metrics import Metric
from nearly.quantizers import Scalar
from nearly.quantizers.base import CODED, SAMPLE
from nearly.quantizers.specifications import describe
from nearly.transforms import FittedTransform, Transform
from nearly.transforms.base import fit_rows

__all__ = ["Centers", "check_coarse", "fit_coarse", "in_space", "scorer_of"]

_ADVICE = "pass nearly.Matryoshka(dims) for embeddings trained for it, or nearly.Pca(dims), or leave coarse= out"


class Centers(NamedTuple):
    """Centers of lists, and what of a vector is compared with them.

    Attributes
    ----------
    rows : ndarray of shape (n_lists, dims)
        float32, or packed bits.
    coarse : FittedTransform or None
        What vectors go through before; None compares them as they are.
    means : ndarray of shape (n_lists, dim), float32, or None
        Where codes are of residuals and centers have fewer dimensions than vectors: the mean of each list's vectors.
    guide : Guide or None
        Finds those near to a query where they are many.
    """

    rows: NDArray[Any]
    coarse: FittedTransform | None = None
    means: NDArray[np.float32] | None = None
    guide: Guide | None = None

    def queries(self, rows: NDArray[np.float32], metric: Metric, threads: int) -> NDArray[np.float32]:
        """Queries where centers are."""
        if metric.name == "cosine":
            lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
            shortest = 1 / float(np.finfo(np.float32).max)  # what is shorter is the zero vector, as in the core
            rows = rows * np.where(lengths > shortest, 1 / np.maximum(lengths, shortest), 0).astype(np.float32)[:, None]
        if self.coarse is None:
            return rows
        out = np.empty((len(rows), self.coarse.dims), np.float32)
        self.coarse.map.apply(np.ascontiguousarray(rows), metric.name != "ip", out, threads)
        return out

    @property
    def origins(self) -> NDArray[np.float32]:
        """What residuals are taken from."""
        return self.rows if self.means is None else self.means


def check_coarse(coarse: Any, metric: Metric) -> Transform:
    """Return the specification of a transform by which vectors can be clustered."""
    if isinstance(coarse, type) or describe(coarse, {}) is None:
        raise InputError(f"coarse is {coarse!r}; {_ADVICE}")
    if metric.name not in CODED:
        raise InputError(f"coarse= is for {', '.join(CODED)}, not {metric.name}; leave it out")
    made: Transform = coarse
    return made


def fit_coarse(coarse: Transform, store: Store, nodes: NDArray[np.uint32], seed: int, threads: int) -> FittedTransform:
    """The transform fitted to some of these nodes."""
    drawn = np.sort(np.random.default_rng(seed).permutation(nodes)[:SAMPLE])
    fitted = fit_rows(coarse, in_space(store, drawn, threads), metric=store.metric.name, seed=seed, threads=threads)
    if not fitted.leaves_out:
        raise InputError(
            f"coarse is {coarse!r}, which keeps all {store.dim} dimensions and so saves nothing; {_ADVICE}"
        )
    return fitted


def in_space(
    store: Store, nodes: NDArray[np.uint32], threads: int = 0, coarse: FittedTransform | None = None
) -> NDArray[np.float32]:
    """Vectors of nodes where they are clustered: of unit length under cosine; bits become numbers 0 and 1."""
    if store.metric.input == "bits":
        return np.unpackbits(store.raw(nodes).array, axis=1).astype(np.float32)
    rows = store.in_form(nodes, threads)
    return rows if coarse is None else coarse.images(rows, threads)


def scorer_of(metric: Metric, dim: int, centers: Centers) -> Any:
    """The core's scorer over centers: by bytes where codes can stand for the metric, which order lists well enough."""
    rows, coarse = centers.rows, centers.coarse
    if metric.name in CODED:
        compared = metric.name if coarse is None else "ip" if metric.name == "ip" else "l2"
        fitted = Scalar(bits=8).fit_floats(rows, metric=compared, norm_bound=0.0, seed=0)
        table = _core.Table(fitted.row_bytes, len(rows), len(rows))
        scorer = fitted.scorer(table)
        scorer.encode(0, rows)
        if coarse is None:
            return scorer
        return _core.Mapped(coarse.map, dim, metric.number, 0.0, False, coarse.center, scorer)
    element = 4 if metric.input == "bits" else 0
    table = _core.Table(_core.Plain.row_bytes(element, metric.number, dim), len(rows), len(rows))
    plain = _core.Plain(table, element, metric.number, dim)
    plain.fill(0, as_bytes(rows))
    return plain
