"""The one door for what users pass in: arrays, ids, masks and plain numbers are checked and normalized here."""

from nearly.arrays.ids import as_ids, as_mask_or_ids, next_ids
from nearly.arrays.numbers import (
    check_callback,
    check_choice,
    check_flag,
    check_fraction,
    check_int,
    check_k,
    check_positive,
    check_real,
    check_seed,
)
from nearly.arrays.vectors import Kind, Vectors, as_queries, as_vectors, check_finite

__all__ = [
    "Kind",
    "Vectors",
    "as_ids",
    "as_mask_or_ids",
    "as_queries",
    "as_vectors",
    "check_callback",
    "check_choice",
    "check_finite",
    "check_flag",
    "check_fraction",
    "check_int",
    "check_k",
    "check_positive",
    "check_real",
    "check_seed",
    "next_ids",
]
