"""Quantizers: what a stored vector costs and what one comparison with it costs.

A specification such as ``Scalar(bits=8)`` is immutable; ``fit`` returns the fitted quantizer. Indexes do that.
"""

from nearly.quantizers.codes import FittedCodes, Quantizer
from nearly.quantizers.plain import Plain
from nearly.quantizers.reduced import Reduced
from nearly.quantizers.scalar import Scalar

__all__ = ["QUANTIZERS", "FittedCodes", "Plain", "Quantizer", "Reduced", "Scalar"]

QUANTIZERS: dict[str, type[Quantizer]] = {"plain": Plain, "scalar": Scalar, "reduced": Reduced}
