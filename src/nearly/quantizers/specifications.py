"""Specifications of quantizers and transforms as JSON values: what a loaded index needs to fit codes anew."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from nearly.errors import FormatError
from nearly.transforms import TRANSFORMS

__all__ = ["describe", "specified"]


def describe(spec: Any, kinds: Mapping[str, type[Any]]) -> dict[str, Any] | None:
    """Return the name and the fields of a specification; None of one that is not in the tables.

    Examples
    --------
    >>> from nearly.quantizers import QUANTIZERS, Reduced, Scalar
    >>> described = describe(Reduced(dims=12, code=Scalar(4)), QUANTIZERS)
    >>> described["specification"], described["dims"], described["code"]["bits"]
    ('reduced', 12, 4)
    >>> specified(described, QUANTIZERS)
    Reduced(dims=12, code=Scalar(bits=4, scale='global'), energy=0.9)
    """
    name = next((name for name, kind in {**kinds, **TRANSFORMS}.items() if type(spec) is kind), None)
    if name is None:
        return None
    made: dict[str, Any] = {"specification": name}
    for part in fields(spec):
        value = getattr(spec, part.name)
        many = isinstance(value, tuple)
        parts = [describe(one, kinds) if is_dataclass(one) else one for one in (value if many else [value])]
        if any(one is None and of is not None for one, of in zip(parts, value if many else [value], strict=True)):
            return None
        made[part.name] = parts if many else parts[0]
    return made


def specified(config: Any, kinds: Mapping[str, type[Any]]) -> Any:
    """Return the specification that `describe` described; FormatError if it is none."""
    every = {**kinds, **TRANSFORMS}
    try:
        kind = every[config["specification"]]
        values = {
            name: specified(value, kinds) if isinstance(value, Mapping)
            else tuple(specified(one, kinds) for one in value) if isinstance(value, list) else value
            for name, value in config.items() if name != "specification"
        }  # fmt: skip
        many = [value for value in values.values() if isinstance(value, tuple)]
        return kind(*many[0]) if many else kind(**values)  # a chain takes its parts one by one
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        raise FormatError(f"the quantizer's specification in this file is damaged: {problem}") from problem
