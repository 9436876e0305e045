"""How values that came are described in errors."""

from collections.abc import Collection
from typing import Any

import numpy as np

__all__ = ["describe", "listing"]

_SHOWN = 5  # offenders an error lists
_LONG = 80  # characters of each


def listing(values: Collection[Any]) -> str:
    shown = ", ".join(_short(str(v)) for v in list(values)[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown} and {len(values) - _SHOWN} more"


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if value is None or isinstance(value, str | bytes | int | float | complex | np.generic):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
