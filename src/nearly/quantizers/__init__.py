"""Quantizers: what a stored vector costs and what one comparison with it costs.

A specification such as ``Scalar(bits=8)`` is immutable; ``fit`` returns the fitted quantizer. Indexes do that.
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from nearly.errors import FormatError
from nearly.quantizers.additive import FittedAdditive
from nearly.quantizers.base import Fitted, Quantizer
from nearly.quantizers.binary import Binary, FittedBinary
from nearly.quantizers.codes import FittedCodes
from nearly.quantizers.plain import Plain
from nearly.quantizers.product import Product
from nearly.quantizers.rabitq import FittedRaBitQ, RaBitQ
from nearly.quantizers.reduced import Reduced
from nearly.quantizers.residual import Residual
from nearly.quantizers.saq import SAQ, FittedSAQ
from nearly.quantizers.scalar import Scalar
from nearly.quantizers.transformed import FittedTransformed, Transformed

__all__ = [
    "FITTED", "QUANTIZERS", "SAQ", "Binary", "Fitted", "FittedAdditive", "FittedBinary", "FittedCodes", "FittedRaBitQ",
    "FittedSAQ", "FittedTransformed", "Plain", "Product", "Quantizer", "RaBitQ", "Reduced", "Residual", "Scalar",
    "Transformed", "from_state",
]  # fmt: skip

QUANTIZERS: dict[str, type[Quantizer]] = {
    "plain": Plain, "scalar": Scalar, "reduced": Reduced, "rabitq": RaBitQ, "saq": SAQ, "product": Product,
    "residual": Residual, "binary": Binary, "transformed": Transformed,
}  # fmt: skip
# What they become when fitted; several may become the same kind.
FITTED: dict[str, type[Fitted]] = {
    fitted.kind: fitted
    for fitted in (FittedCodes, FittedRaBitQ, FittedSAQ, FittedAdditive, FittedBinary, FittedTransformed)
}


def from_state(arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Fitted:
    """Make a fitted quantizer of what its ``state`` gave; everything is checked.

    Raises
    ------
    FormatError
        If something is missing, of the wrong type, or does not fit together.
    """
    # Files from before there were kinds hold scalar codes.
    kind = config.get("kind", FittedCodes.kind) if isinstance(config, Mapping) else None
    if not isinstance(kind, str) or kind not in FITTED:
        raise FormatError(f"the quantizer in this file is of the kind {kind!r}, which this version does not know")
    return FITTED[kind].from_state(arrays, config)
