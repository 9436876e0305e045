"""What quantizers share: a specification's interface, and what it becomes when it is fitted to vectors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core
from nearly.arrays import as_vectors, check_finite, check_seed
from nearly.errors import FormatError, InputError
from nearly.transforms.base import METRICS as CODED  # what codes can stand for
from nearly.transforms.base import SAMPLE, unit_rows

__all__ = ["CODED", "SAMPLE", "CodeError", "Fitted", "Quantizer"]

Floats = NDArray[np.float32]

_EVEN = 1.5  # largest norm by median norm up to which inner product behaves like l2; by hand


class Quantizer(Protocol):
    """The specification of a quantizer: immutable, comparable, cheap."""

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> "Fitted":
        """Return the quantizer fitted to vectors."""
        ...

    def fit_floats(
        self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0
    ) -> "Fitted | None":
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


class Fitted(ABC):
    """A quantizer fitted to vectors: immutable. Kinds are frozen dataclasses of arrays and JSON values.

    Attributes
    ----------
    kind : str
        Its name in files and in `FITTED`.
    dim : int
        Columns of a vector.
    metric : str
        l2, cosine or ip.
    norm_bound : float
        Under ip: the norm that vectors are lengthened to by a coordinate before they are coded, so that their l2 order
        is the order by inner product; 0 where norms are too uneven for that, and products are compared as they are.
    """

    kind: ClassVar[str]
    dim: int
    metric: str
    norm_bound: float

    @property
    def epsilon_of_bounds(self) -> float | None:
        """Half-width of the bounds around estimates in standard deviations; None where there are no bounds."""
        return None

    @property
    @abstractmethod
    def row_bytes(self) -> int:
        """Bytes of one code, factors and padding included."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the codes are, for people: "8-bit codes of 24 dimensions"."""

    @abstractmethod
    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private): a `_core.Coded`."""

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        """Make a quantizer of what `state` gave; everything is checked.

        Raises
        ------
        FormatError
            If something is missing, of the wrong type, or does not fit together.
        """
        try:
            made = cls._of_state(arrays, config)
            if made.metric not in CODED:
                raise ValueError(f"metric {made.metric!r}")
            floats = (part for part in vars(made).values() if isinstance(part, np.ndarray) and part.dtype == np.float32)
            if not all(np.isfinite(part).all() for part in floats) or not 0 <= made.norm_bound < np.inf:
                raise ValueError("a number is not finite")
            made.scorer(_core.Table(made.row_bytes, 0, 1))  # the core checks shapes
        except (KeyError, TypeError, ValueError, OverflowError) as problem:
            raise FormatError(f"the quantizer in this file is damaged: {problem}") from problem
        return made

    @classmethod
    @abstractmethod
    def _of_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        """The quantizer of a state, with whatever `from_state` does not check for all kinds; ValueError if it fails."""

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `nearly.quantizers.from_state` makes this quantizer again."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # kinds are dataclasses
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        return arrays, {"kind": self.kind, **{name: value for name, value in values.items() if name not in arrays}}

    @property
    def compares_products(self) -> bool:
        """Whether codes are compared by inner product, not by squared distance."""
        return self.metric == "ip" and self.norm_bound == 0

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
            Codes and their factors.

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
        """Return the vectors that codes stand for: under cosine of about unit length.

        Parameters
        ----------
        codes : ndarray of shape (n, row_bytes), uint8
            What `encode` gave.

        Returns
        -------
        ndarray of shape (n, dim), float32
        """
        codes = np.ascontiguousarray(codes)
        if codes.ndim != 2 or codes.dtype != np.uint8 or codes.shape[1] != self.row_bytes:
            raise InputError(
                f"codes has shape {codes.shape} and dtype {codes.dtype}; pass what encode gave: "
                f"uint8 of shape (n, {self.row_bytes})"
            )
        if not len(codes):
            return np.zeros((0, self.dim), np.float32)
        scorer = self.scorer(_core.Table.borrow(codes))
        coded = np.empty((len(codes), scorer.dims), np.float32)
        scorer.decode(0, coded)
        return self._restored(coded)

    def _restored(self, coded: Floats) -> Floats:
        """Vectors in the space where they are coded as vectors of ``dim`` columns."""
        return np.ascontiguousarray(coded[:, : self.dim])

    def error(self, vectors: Any) -> CodeError:
        """Measure what coding costs on vectors: see `CodeError`.

        What a projection leaves out counts as error.
        """
        rows = self._form(vectors)
        if not len(rows):
            raise InputError("error needs at least one vector to measure on")
        inputs, decoded = rows.astype(np.float64), self.decode(self.encode(vectors)).astype(np.float64)
        squares = ((inputs - decoded) ** 2).sum(1)
        spread = max(float(((inputs - inputs.mean(0)) ** 2).sum(1).mean()), np.finfo(np.float32).tiny)
        shares = squares / spread
        return CodeError(float(shares.mean()), {q: float(np.quantile(shares, q)) for q in (0.5, 0.9, 0.99)}, len(rows))


def in_form(rows: Floats, metric: str) -> Floats:
    """Rows in the metric's form: unit length under cosine (zero rows stay zero)."""
    return unit_rows(rows) if metric == "cosine" else rows


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


def fit(quantizer: Quantizer, vectors: Any, metric: str, seed: int) -> Fitted:
    """What the public ``fit`` of quantizers does."""
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
    if metric not in CODED:
        raise InputError(f"codes are for {', '.join(CODED)}, not {metric!r}; use quantizer=nearly.Plain()")
    return metric
