"""Any codes after any transform: a transform and a quantizer make a quantizer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nearly import _core, metrics
from nearly.errors import InputError
from nearly.quantizers.base import Fitted, Floats, Quantizer, check_metric, fit, lengthen
from nearly.quantizers.plain import Plain
from nearly.quantizers.rabitq import RaBitQ
from nearly.quantizers.reduced import Reduced
from nearly.quantizers.saq import SAQ
from nearly.transforms import FittedTransform, Pca, Transform
from nearly.transforms.base import fit_rows

__all__ = ["FittedTransformed", "Transformed"]


@dataclass(frozen=True)
class Transformed:
    """Codes of transformed vectors.

    The transform is fitted with the codes, saved with them and applied to queries. Distances and inner products stay
    those of the vectors as they came, as far as the transform keeps them: what it leaves out of a vector is coded as
    one more coordinate, its length, and centering is undone for inner products.

    Parameters
    ----------
    transform : Transform, default Pca()
        What vectors go through: `Pca`, `Rotation`, `Matryoshka`, or a `Chain` of them.
    code : Quantizer, default RaBitQ()
        How their images are coded: anything but `Plain`, `Reduced` and `SAQ` (whose projections are transforms
        themselves) and another ``Transformed`` (take a `Chain`).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((2000, 10), dtype=np.float32) @ rng.standard_normal((10, 200), dtype=np.float32)
    >>> fitted = Transformed(Pca(10), RaBitQ(bits=6)).fit(vectors)
    >>> fitted.row_bytes, fitted.error(vectors).mean < 0.001, fitted.name
    (96, True, '6-bit RaBitQ codes of 11 dimensions after Pca')
    """

    transform: Transform = field(default_factory=Pca)
    code: Quantizer = field(default_factory=RaBitQ)

    def __post_init__(self) -> None:
        if isinstance(self.transform, type) or not hasattr(self.transform, "steps"):
            raise InputError(f"transform is {self.transform!r}; pass for example nearly.Pca(64)")
        if isinstance(self.code, type) or not hasattr(self.code, "fit_floats"):
            raise InputError(f"code is {self.code!r}; pass for example nearly.RaBitQ(bits=4)")
        if isinstance(self.code, Plain | Reduced | SAQ | Transformed):
            instead = {Plain: "a code such as nearly.Scalar()", Reduced: "nearly.Pca in the transform, and code.code",
                       SAQ: "SAQ as it is, or a code such as nearly.RaBitQ()",
                       Transformed: "one nearly.Transformed of a nearly.Chain"}[type(self.code)]  # fmt: skip
            raise InputError(f"{type(self.code).__name__} cannot follow a transform; use {instead}")
        if getattr(self.code, "rotation", None) is not None:
            raise InputError(
                f"{self.code!r} has a rotation of its own, which cannot follow a transform; pass rotation=None, and a "
                "rotation as the last part of a nearly.Chain if one is wanted"
            )

    def fit(self, vectors: Any, *, metric: str = "l2", seed: int = 0) -> Fitted:
        """Fit to vectors of shape (n, dim) under l2, cosine or ip; the same seed gives the same quantizer."""
        return fit(self, vectors, metric, seed)

    def fit_floats(
        self, sample: Floats, *, metric: str, norm_bound: float, seed: int, threads: int = 0
    ) -> "FittedTransformed":
        """Fit to rows in the metric's form."""
        check_metric(metric)
        if self.transform.by_coordinate:
            norm_bound = 0.0  # the coordinate that rows are lengthened by is none of theirs
        rows = np.ascontiguousarray(lengthen(sample, norm_bound))
        product = metric == "ip" and norm_bound == 0
        compared = "ip" if product else "cosine" if metric == "cosine" else "l2"
        transform = fit_rows(self.transform, rows, metric=compared, seed=seed, threads=threads)
        return code_images(
            transform, self.code, rows, dim=sample.shape[1], metric=metric, norm_bound=norm_bound,
            label=type(self.transform).__name__, seed=seed, threads=threads,
        )  # fmt: skip


def code_images(
    transform: FittedTransform, code: Quantizer, rows: Floats, *, dim: int, metric: str, norm_bound: float, label: str,
    seed: int, threads: int,
) -> "FittedTransformed":  # fmt: skip
    """Fit codes to the images of rows, which were lengthened where ``norm_bound`` says so, and join both."""
    images = transform.images(rows, threads)
    if _remembers_rest(transform):
        images = np.concatenate([images, _rest(transform, rows, images)], axis=1)
    compared = "ip" if metric == "ip" and norm_bound == 0 else "l2"
    fitted = code.fit_floats(images, metric=compared, norm_bound=0.0, seed=seed + 1, threads=threads)
    assert fitted is not None
    return FittedTransformed(
        dim=dim, metric=metric, norm_bound=norm_bound, transform=transform, code=fitted, label=label
    )


@dataclass(frozen=True, eq=False)
class FittedTransformed(Fitted):
    """A fitted transform and what was fitted to its images: see `Transformed`.

    Attributes
    ----------
    transform : FittedTransform
        Of vectors in the metric's form.
    code : Fitted
        Of their images, by squared distance or inner product.
    label : str
        The transform's name, for people.
    """

    kind: ClassVar[str] = "transformed"

    dim: int
    metric: str
    norm_bound: float
    transform: FittedTransform
    code: Fitted
    label: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one code, factors and padding included."""
        return self.code.row_bytes

    @property
    def name(self) -> str:
        """What the codes are, for people."""
        return f"{self.code.name} after {self.label}"

    @cached_property
    def _center(self) -> Floats:
        return np.ascontiguousarray(self.transform.center)

    def scorer(self, table: Any) -> Any:
        """Return the core's scorer over a table of codes (private)."""
        return _core.Mapped(
            self.transform.map, self.dim, metrics.METRICS[self.metric].number, self.norm_bound,
            _remembers_rest(self.transform), self._center, self.code.scorer(table),
        )  # fmt: skip

    def _restored(self, coded: Floats) -> Floats:
        images = self.code._restored(coded)[:, : self.transform.dims]
        return super()._restored(self.transform.restore(images))

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and JSON values from which `nearly.quantizers.from_state` makes this quantizer again."""
        transform, steps = self.transform.state()
        code, values = self.code.state()
        arrays = {f"transform_{name}": a for name, a in transform.items()} | {
            f"code_{name}": a for name, a in code.items()
        }
        config = {"kind": self.kind, "dim": self.dim, "metric": self.metric, "norm_bound": self.norm_bound,
                  "label": self.label, "transform": steps, "code": values}  # fmt: skip
        return arrays, config

    @classmethod
    def _of_state(cls, arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Self:
        from nearly.quantizers import from_state  # knows all kinds, this one too

        if not isinstance(config["code"], Mapping) or config["code"].get("kind") in (cls.kind, "saq"):
            raise ValueError("a transform of transformed codes")
        made = cls(
            transform=FittedTransform.from_state(_named(arrays, "transform_"), config["transform"]),
            code=from_state(_named(arrays, "code_"), config["code"]), dim=int(config["dim"]),
            metric=str(config["metric"]), norm_bound=float(config["norm_bound"]), label=str(config["label"]),
        )  # fmt: skip
        if made.code.compares_products != made.compares_products or made.code.norm_bound != 0:
            raise ValueError("codes that compare otherwise")
        return made


def _remembers_rest(transform: FittedTransform) -> bool:
    """Whether the length of what a transform leaves out is coded: where distances are kept but for that."""
    return transform.orthonormal and transform.leaves_out and transform.metric != "ip"


def _rest(transform: FittedTransform, rows: Floats, images: Floats) -> Floats:
    """The length of what is left out of each row, as a column."""
    whole = ((rows - transform.center).astype(np.float64) ** 2).sum(axis=1)
    lengths: Floats = np.sqrt(np.maximum(0.0, whole - (images.astype(np.float64) ** 2).sum(axis=1))).astype(np.float32)
    return lengths[:, None]


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
