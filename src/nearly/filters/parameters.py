"""Constants of a filter in SQL: numbers as they are written, and parameters."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.expressions import Literal, Scalar, as_literal, did_you_mean

__all__ = ["Parameters", "number"]

_LISTS = (list, tuple, set, frozenset, np.ndarray)


class Parameters:
    """Values of ``$name``, or of ``$1`` and ``?``, and which of them nothing has asked for yet."""

    __slots__ = ("_unused", "_values")

    def __init__(self, given: Mapping[str, Any] | Sequence[Any] | None) -> None:
        if given is None:
            self._values: dict[str, Any] = {}
        elif isinstance(given, Mapping):
            self._values = {str(name): value for name, value in given.items()}
        elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
            self._values = {str(i): value for i, value in enumerate(given, 1)}
        else:
            raise InputError(f"parameters is {describe(given)}, but a dict for $name, or a list for ?, is wanted")
        self._unused = set(self._values)

    def literal(self, name: str) -> Literal:
        """Return one constant."""
        value = self._value(name)
        if isinstance(value, _LISTS):
            raise InputError(f"parameter {name!r} is {describe(value)}; a list goes with IN: x IN $list")
        return as_literal(value, lambda: f"parameter {name!r}")

    def listed(self, name: str) -> tuple[Scalar, ...] | None:
        """Return the constants of a list; None where it is none."""
        value = self._value(name)
        if not isinstance(value, _LISTS):
            return None
        return tuple(as_literal(each, lambda: f"parameter {name!r}").value for each in value)

    def require_all_used(self) -> None:
        """Raise `InputError` if one was never asked for."""
        if self._unused:
            raise InputError(f"parameter {sorted(self._unused)[0]!r} is nowhere in the filter; leave it out")

    def _value(self, name: str) -> Any:
        if name not in self._values:
            hint = f"; {did_you_mean(name, self._values)}" if self._values else ""
            raise InputError(f"the filter has a parameter {name!r}, but parameters= has no value for it{hint}")
        self._unused.discard(name)
        return self._values[name]


def number(text: str) -> int | float:
    """Return a number as Python has it; whole ones that a float would round stay whole.

    Examples
    --------
    >>> number("1e3"), number("9007199254740993.0")
    (1000.0, 9007199254740993)
    """
    nearest = float(text)
    if abs(nearest) < 2**53:
        return nearest
    if abs(nearest) == float("inf"):
        raise InputError(f"the filter has the number {text}, which is too large")
    exact = Decimal(text)
    whole = 2**53 < abs(exact) < 10**40 and exact == exact.to_integral_value()
    return int(exact) if whole else nearest
