"""Indexes: which stored vectors a query is compared with."""

from nearly.indexes.allowed import Allowed
from nearly.indexes.base import Index
from nearly.indexes.choose import INDEXES, Estimate, build, estimate, load, restore
from nearly.indexes.flat import Flat
from nearly.indexes.hnsw import HNSW
from nearly.indexes.ivf import IVF
from nearly.indexes.vamana import Vamana
from nearly.indexes.window import Window

__all__ = ["HNSW", "INDEXES", "IVF", "Allowed", "Estimate", "Flat", "Index", "Vamana", "Window", "build", "estimate",
           "load", "restore"]  # fmt: skip
