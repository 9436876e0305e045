"""What quantizers share: the specification's interface, and fitted codes that the core scores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.arrays import as_vectors, check_finite, check_seed
from nearly.errors import FormatError, InputError

__all__ = ["CodeError", "FittedCodes", "Quantizer"]

Floats = NDArray[np.float32]

_EVEN = 1.5  # largest norm by median norm up to which inner product behaves like l2; by hand
SAMPLE = 10_000  # rows that a fit looks at: covariances of 1,000 dimensions are settled by far fewer


class Quantizer(Protocol):
    """The specification of a quantizer: immutable, comparable, cheap."""

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> "FittedCodes":
        """Return the quantizer fitted to vectors."""
        ...

    def fit_floats(
        self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0
    ) -> "FittedCodes | None":
        """Fit to rows in the metric's form (unit length under cosine); None when vectors are kept as they are."""
        ...


@dataclass(frozen=True)
class CodeError:
    """What coding costs, measured on a sample.

    Attributes
    ----------
    mean : float
        Mean squared error of a decoded vector, divided by the mean squared distance to the sample's mean: a share.
    quantiles : dict of float to float
        The same for single vectors, at the quantiles 0.5, 0.9 and 0.99.
    n_vectors : int
        Size of the sample.
    """

    mean: float
    quantiles: dict[float, float]
    n_vectors: int


def _empty(dtype: Any) -> NDArray[Any]:
    return np.zeros(0, dtype)


@dataclass(frozen=True, eq=False)
class FittedCodes:
    """A fitted scalar code, with an optional projection before it: immutable.

    A vector x becomes z = projection(x) - center, and z whole numbers c with z about step * (c - half the range).

    Attributes
    ----------
    dim, dims : int
        Columns of a vector; dimensions that are coded.
    bits : int
        8 or 4 per dimension.
    per_vector : bool
        Whether each vector has its own step (LVQ) instead of one shared by all.
    metric : str
        l2, cosine or ip.
    norm_bound : float
        Under ip: the norm that vectors are lengthened to by a coordinate before they are coded, so that their l2 order
        is the order by inner product; 0 where norms are too uneven for that, and products are compared as they are.
    """

    dim: int
    dims: int
    bits: int
    per_vector: bool
    metric: str
    norm_bound: float
    center: Floats
    step: Floats
    matrix: NDArray[np.int8] = field(default_factory=lambda: _empty(np.int8))
    matrix_scale: Floats = field(default_factory=lambda: _empty(np.float32))
    offset: Floats = field(default_factory=lambda: _empty(np.float32))
    mean: Floats = field(default_factory=lambda: _empty(np.float32))
    energy: float = 1.0  # share of the variance that the projection keeps

    @property
    def row_bytes(self) -> int:
        """Bytes of one code, factors and padding included."""
        product = self.metric == "ip" and self.norm_bound == 0
        return int(_core.Codes.row_bytes(self.dims, self.bits, self.per_vector, product))

    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private)."""
        return _core.Codes(
            table, self.dim, self.dims, self.bits, self.per_vector, metrics.METRICS[self.metric].number,
            self.norm_bound, self.center, self.step, self.matrix, self.matrix_scale, self.offset, self.mean,
        )  # fmt: skip

    def _form(self, vectors: Any) -> Floats:
        made = as_vectors(vectors, dim=self.dim)
        check_finite(made)
        return in_form(np.ascontiguousarray(made.as_float32()), self.metric)

    def encode(self, vectors: Any) -> NDArray[np.uint8]:
        """Return the codes of vectors.

        Parameters
        ----------
        vectors : array-like of shape (n, dim)

        Returns
        -------
        ndarray of shape (n, row_bytes), uint8
            Codes, then their factors.

        Examples
        --------
        >>> from nearly import Scalar
        >>> rng = np.random.default_rng(0)
        >>> fitted = Scalar(bits=8).fit(rng.standard_normal((500, 24), dtype=np.float32))
        >>> fitted.encode(np.zeros((3, 24), np.float32)).shape
        (3, 32)
        """
        rows = self._form(vectors)
        table = _core.Table(self.row_bytes, len(rows), len(rows))
        self.scorer(table).encode(0, rows)
        return np.array(table.array())

    def decode(self, codes: NDArray[np.uint8]) -> Floats:
        """Return the vectors that codes stand for, in the coded space: projected; under cosine of about unit length.

        Parameters
        ----------
        codes : ndarray of shape (n, row_bytes), uint8
            What `encode` gave.

        Returns
        -------
        ndarray of shape (n, dims), float32
        """
        codes = np.ascontiguousarray(codes)
        if codes.ndim != 2 or codes.dtype != np.uint8 or codes.shape[1] != self.row_bytes:
            raise InputError(
                f"codes has shape {codes.shape} and dtype {codes.dtype}; pass what encode gave: "
                f"uint8 of shape (n, {self.row_bytes})"
            )
        out = np.empty((len(codes), self.dims), np.float32)
        if len(codes):
            self.scorer(_core.Table.borrow(codes)).decode(0, out)
        return out

    def error(self, vectors: Any) -> CodeError:
        """Measure what coding costs on vectors: see `CodeError`.

        What a projection leaves out counts as error.
        """
        rows = self._form(vectors)
        if not len(rows):
            raise InputError("error needs at least one vector to measure on")
        decoded = self.decode(self.encode(vectors)).astype(np.float64)
        inputs = self._lengthened(rows).astype(np.float64)
        if len(self.matrix):
            back = self._matrix_floats().astype(np.float64)
            decoded = decoded @ back + self.mean  # the rows of the projection are orthonormal to rounding
        squares = ((inputs - decoded) ** 2).sum(1)
        spread = max(float(((inputs - inputs.mean(0)) ** 2).sum(1).mean()), np.finfo(np.float32).tiny)
        shares = squares / spread
        return CodeError(float(shares.mean()), {q: float(np.quantile(shares, q)) for q in (0.5, 0.9, 0.99)}, len(rows))

    def _lengthened(self, rows: Floats) -> Floats:
        return lengthen(rows, self.norm_bound)

    def _matrix_floats(self) -> Floats:
        inputs, outputs = self.dim + (self.norm_bound > 0), (self.dims + 15) // 16 * 16
        pairs = self.matrix.reshape(-1, outputs, 2)
        rows = pairs.transpose(1, 0, 2).reshape(outputs, -1)[: self.dims, :inputs]
        return rows * self.matrix_scale[:, None]

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `from_state` makes this quantizer again."""
        values = asdict(self)
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return arrays, {name: value for name, value in values.items() if name not in arrays}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> "FittedCodes":
        """Make a quantizer of what `state` gave; everything is checked.

        Raises
        ------
        FormatError
            If something is missing, of the wrong type, or does not fit together.
        """
        types = {"center": np.float32, "step": np.float32, "matrix": np.int8, "matrix_scale": np.float32,
                 "offset": np.float32, "mean": np.float32}  # fmt: skip
        try:
            made = cls(
                **{name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in types.items()},
                dim=int(config["dim"]), dims=int(config["dims"]), bits=int(config["bits"]),
                per_vector=bool(config["per_vector"]), metric=str(config["metric"]),
                norm_bound=float(config["norm_bound"]), energy=float(config["energy"]),
            )  # fmt: skip
            if made.metric not in ("l2", "cosine", "ip"):
                raise ValueError(f"metric {made.metric!r}")
            if not all(np.isfinite(arrays[name]).all() for name in types if name != "matrix"):
                raise ValueError("a number is not finite")
            made.scorer(_core.Table(made.row_bytes, 0, 1))  # the core checks shapes
        except (KeyError, TypeError, ValueError, OverflowError) as problem:
            raise FormatError(f"the quantizer in this file is damaged: {problem}") from problem
        return made


def in_form(rows: Floats, metric: str) -> Floats:
    """Rows in the metric's form: unit length under cosine (zero rows stay zero)."""
    if metric != "cosine":
        return rows
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    unit: Floats = rows * scale.astype(np.float32)[:, None]
    return unit


def squares(rows: Floats) -> NDArray[np.float64]:
    """Squared norms, in parts: in float64 all rows at once would take more memory than anything else in a build."""
    parts = [(rows[i : i + 1024].astype(np.float64) ** 2).sum(1) for i in range(0, len(rows), 1024)]
    return np.concatenate(parts) if parts else np.zeros(0)


def lengthen(rows: Floats, norm_bound: float) -> Floats:
    """Rows with one more coordinate, which brings all norms to the bound (Neyshabur & Srebro, ICML 2015, section 4).

    A bound of 0 leaves them as they are.
    """
    if norm_bound == 0:
        return rows
    missing = np.maximum(0.0, norm_bound**2 - squares(rows))
    return np.concatenate([rows, np.sqrt(missing).astype(np.float32)[:, None]], axis=1)


def common_norm(squared: NDArray[np.float64]) -> float:
    """The norm that vectors of these squared norms are lengthened to under ip; 0 where norms are too uneven.

    Long vectors win under ip: in l2 form they are near to nobody, and a code of one step ranks them too coarsely.
    """
    largest, middle = (float(squared.max()), float(np.median(squared))) if len(squared) else (0.0, 0.0)
    return largest**0.5 if largest <= _EVEN**2 * middle else 0.0


def fit(quantizer: Quantizer, vectors: Any, metric: str, seed: int) -> FittedCodes:
    """What the public ``fit`` of scalar quantizers does."""
    check_seed(seed)
    made = as_vectors(vectors)
    check_finite(made)
    if not len(made):
        raise InputError("vectors is empty; a quantizer is fitted to at least one vector")
    rows = in_form(np.ascontiguousarray(made.as_float32()), check_metric(metric))
    bound = common_norm((rows.astype(np.float64) ** 2).sum(1)) if metric == "ip" else 0.0
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE]
    fitted = quantizer.fit_floats(rows[chosen], metric=metric, norm_bound=bound, seed=seed)
    if fitted is None:
        raise InputError("Plain keeps vectors as they are: there is nothing to fit, encode or decode")
    return fitted


def check_metric(metric: str) -> str:
    """Return the name of a metric that codes can stand for."""
    if metric not in ("l2", "cosine", "ip"):
        raise InputError(f"scalar codes are for l2, cosine and ip, not {metric!r}; use quantizer=nearly.Plain()")
    return metric
