"""nearly: vector search that is as accurate as you ask."""

from typing import TYPE_CHECKING, Any

from nearly.errors import DimensionError, FormatError, IdError, InputError, NearlyError, StateError
from nearly.hits import Hits, RangeHits
from nearly.indexes import HNSW, IVF, Estimate, Flat, Vamana, Window, build, estimate, load
from nearly.quantizers import SAQ, Binary, Plain, Product, RaBitQ, Reduced, Residual, Scalar, Transformed
from nearly.runtime import get_threads, set_threads, show_versions, simd_target, simd_targets, use_simd_target
from nearly.transforms import Chain, Matryoshka, Pca, Rotation

__all__ = [
    "HNSW",
    "IVF",
    "SAQ",
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
    "measure_costs",
    "set_threads",
    "show_versions",
    "simd_target",
    "simd_targets",
    "use_simd_target",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from nearly import collection as collection
    from nearly import evaluate as evaluate
    from nearly.collection import Collection as Collection
    from nearly.collection import Field as Field
    from nearly.collection import open as open
    from nearly.filters import F as F
    from nearly.indexes.pricing import measure_costs as measure_costs
else:
    _LATE = {"collection": "", "evaluate": "", "Collection": "collection", "Field": "collection", "open": "collection",
             "F": "filters", "measure_costs": "indexes.pricing"}  # fmt: skip

    def __getattr__(name: str) -> Any:
        """Rooms that are imported when they are first asked for, and what they give."""
        if name not in _LATE:
            raise AttributeError(f"module 'nearly' has no attribute {name!r}")
        from importlib import import_module

        room = import_module(f"nearly.{_LATE[name] or name}")
        return getattr(room, name) if _LATE[name] else room

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATE})
