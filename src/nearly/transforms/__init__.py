"""Transforms: what becomes of vectors before they are coded.

A specification such as ``Pca(64)`` is immutable; ``fit`` returns the fitted transform. `Transformed` joins one and a
quantizer to a quantizer.
"""

from nearly.transforms.base import FittedTransform, Transform
from nearly.transforms.chain import Chain
from nearly.transforms.matryoshka import Matryoshka
from nearly.transforms.pca import Pca
from nearly.transforms.rotation import Rotation

__all__ = ["TRANSFORMS", "Chain", "FittedTransform", "Matryoshka", "Pca", "Rotation", "Transform"]

TRANSFORMS: dict[str, type[Transform]] = {"pca": Pca, "rotation": Rotation, "matryoshka": Matryoshka, "chain": Chain}
