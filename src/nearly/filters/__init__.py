"""Which rows are allowed: conditions on metadata in SQL, as a dict or in Python, and the bits that they give.

Three spellings, one meaning: `parse` turns each into a checked `Expression`, `evaluate` turns that into a bool a row.
"""

from nearly.filters.allowed import Filter
from nearly.filters.columns import Column, Dictionary
from nearly.filters.evaluating import bits_if_any, evaluate, evaluate_bits, select
from nearly.filters.expressions import Expression
from nearly.filters.fields import F
from nearly.filters.parsing import parse

__all__ = [
    "Column",
    "Dictionary",
    "Expression",
    "F",
    "Filter",
    "bits_if_any",
    "evaluate",
    "evaluate_bits",
    "parse",
    "select",
]
