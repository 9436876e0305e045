"""nearly: vector search that is as accurate as you ask."""

from typing import TYPE_CHECKING, Any

from nearly.errors import DimensionError, FormatError, IdError, InputError, NearlyError, StateError
from nearly.hits import Hits, RangeHits
from nearly.indexes import HNSW, IVF, Estimate, Flat, Vamana, Window, build, estimate, load
from nearly.quantizers import Binary, Plain, Product, RaBitQ, Reduced, Residual, Scalar, Transformed
from nearly.runtime import get_threads, set_threads, show_versions, simd_target, simd_targets, use_simd_target
from nearly.transforms import Chain, Matryoshka, Pca, Rotation

__all__ = [
    "HNSW",
    "IVF",
    "Binary",
    "Chain",
    "DimensionError",
    "Estimate",
    "Flat",
    "FormatError",
    "Hits",
    "IdError",
    "InputError",
    "Matryoshka",
    "NearlyError",
    "Pca",
    "Plain",
    "Product",
    "RaBitQ",
    "RangeHits",
    "Reduced",
    "Residual",
    "Rotation",
    "Scalar",
    "StateError",
    "Transformed",
    "Vamana",
    "Window",
    "build",
    "estimate",
    "get_threads",
    "load",
    "set_threads",
    "show_versions",
    "simd_target",
    "simd_targets",
    "use_simd_target",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from nearly import evaluate as evaluate
else:

    def __getattr__(name: str) -> Any:
        """`nearly.evaluate` is imported when it is first asked for."""
        if name == "evaluate":
            from importlib import import_module

            return import_module("nearly.evaluate")
        raise AttributeError(f"module 'nearly' has no attribute {name!r}")
