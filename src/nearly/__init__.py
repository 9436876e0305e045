"""nearly: vector search that is as accurate as you ask."""

from nearly.errors import DimensionError, FormatError, IdError, InputError, NearlyError, StateError
from nearly.hits import Hits, RangeHits
from nearly.indexes import HNSW, Estimate, Flat, Vamana, build, estimate, load
from nearly.quantizers import Plain, RaBitQ, Reduced, Scalar
from nearly.runtime import get_threads, set_threads, show_versions, simd_target, simd_targets, use_simd_target

__all__ = [
    "HNSW",
    "DimensionError",
    "Estimate",
    "Flat",
    "FormatError",
    "Hits",
    "IdError",
    "InputError",
    "NearlyError",
    "Plain",
    "RaBitQ",
    "RangeHits",
    "Reduced",
    "Scalar",
    "StateError",
    "Vamana",
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
