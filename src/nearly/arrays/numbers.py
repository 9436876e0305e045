"""Plain arguments: whole and real numbers, and choices among a few words."""

import math
import operator
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from nearly.arrays.words import describe
from nearly.errors import InputError

__all__ = [
    "Text",
    "check_callback",
    "check_choice",
    "check_flag",
    "check_fraction",
    "check_int",
    "check_k",
    "check_positive",
    "check_real",
    "check_seed",
]

Text = TypeVar("Text", bound=str)
_LARGEST_SEED = 2**64 - 1


def check_int(value: object, name: str, *, low: int, high: int | None = None) -> int:
    """Return an integer argument as int, or raise `InputError`: no booleans, no floats, ``low <= value <= high``.

    Examples
    --------
    >>> check_int(np.uint8(3), "degree", low=1)
    3
    """
    wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = isinstance(value, float | np.floating) and math.isfinite(value) and value == int(value)
        advice = f"; pass {name}={int(value)}" if whole else ""  # type: ignore[call-overload]
        raise InputError(f"{name} is {describe(value)}, but {wanted} is wanted{advice}") from None
    if number < low or (high is not None and number > high):
        raise InputError(f"{name} is {number}, but {wanted} is wanted")
    return number


def check_k(k: object, name: str = "k") -> int:
    """Return the number of neighbors asked for as int, or raise `InputError` unless it is an integer in [1, 2**31)."""
    return check_int(k, name, low=1, high=2**31 - 1)


def check_flag(value: object, name: str) -> bool:
    """Return a yes or no as bool, or raise `InputError` for anything else: "no" and None would pass for one of them.

    Examples
    --------
    >>> check_flag(np.True_, "exact")
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {describe(value)}, but True or False is wanted")
    return bool(value)


def check_callback(value: object, name: str) -> None:
    """Raise `InputError` unless it is callable, None or False: better before a long build than after its first part."""
    if value is not None and value is not False and not callable(value):
        raise InputError(f"{name} is {describe(value)}, but a function is wanted; pass progress(done, total), or None")


def check_seed(seed: object, name: str = "seed") -> int:
    """Return a seed as int, or raise `InputError` unless it is an integer in [0, 2**64): same seed, same bytes."""
    return check_int(seed, name, low=0, high=_LARGEST_SEED)


def check_real(value: object, name: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a real argument as float, or raise `InputError`: finite, no booleans, ``low <= value <= high``.

    Examples
    --------
    >>> check_real(np.float32(0.5), "radius", low=0)
    0.5
    """
    wanted = "a finite number"
    if low > -math.inf or high < math.inf:
        wanted += f" from {low:g}" + (f" to {high:g}" if high < math.inf else " on")
    number = math.nan
    if not isinstance(value, bool | np.bool_ | str | bytes) and getattr(value, "ndim", 0) == 0:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name} is {describe(value)}, but {wanted} is wanted") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise InputError(f"{name} is {describe(value)}, but {wanted} is wanted")
    return number


def check_positive(value: object, name: str) -> float:
    """Return a real argument as float, or raise `InputError` unless it is finite and > 0."""
    number = check_real(value, name)
    if number <= 0:
        raise InputError(f"{name} is {describe(value)}, but a number above 0 is wanted")
    return number


def check_fraction(value: object, name: str) -> float:
    """Return a share such as a recall target as float, or raise `InputError` unless it is in (0, 1]."""
    number = check_real(value, name)
    if not 0 < number <= 1:
        percent = f"; for {number:g} % pass {number / 100:g}" if 1 < number <= 100 else ""
        raise InputError(f"{name} is {describe(value)}, but a number above 0 and up to 1 is wanted{percent}")
    return number


def check_choice(value: object, choices: Iterable[Text], name: str) -> Text:
    """Return one of a few words, or raise `InputError` that lists them and suggests the nearest.

    Examples
    --------
    >>> check_choice("given", ("random", "given"), "order")
    'given'
    """
    words = list(choices)
    if isinstance(value, str):
        for word in words:
            if word == value:
                return word
        import difflib  # late: only mistakes need it

        near = difflib.get_close_matches(value.lower(), words, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    else:
        hint = ""
    raise InputError(f"{name} is {describe(value)}, but one of {', '.join(map(repr, words))} is wanted{hint}")
