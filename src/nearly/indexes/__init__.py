"""Indexes: which stored vectors a query is compared with."""

from nearly.indexes.base import Index
from nearly.indexes.flat import Flat
from nearly.indexes.vamana import Vamana

__all__ = ["INDEXES", "Flat", "Index", "Vamana"]

INDEXES: dict[str, type[Index]] = {"flat": Flat, "vamana": Vamana}
