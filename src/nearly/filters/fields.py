"""Python's spelling of a filter: ``F.year >= 2020``."""

from typing import Any

from nearly.arrays.words import describe
from nearly.errors import InputError
from nearly.filters.expressions import Field

__all__ = ["F"]


class Fields:
    """Columns by name: ``F.year`` or ``F["a name with spaces"]``.

    Comparisons (``== != < <= > >=``), `between`, `is_in`, `is_null`, `is_not_null`, `contains`, `starts_with`,
    `ends_with` and `like` make conditions; ``&``, ``|`` and ``~`` join them.

    Examples
    --------
    >>> from nearly.filters import F
    >>> (F.year >= 2020) & F["main language"].is_in(["en", "fr"])
    (F.year >= 2020) & F['main language'].is_in(['en', 'fr'])
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Field:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # what copying, pickling and the like look for
        return Field(name)

    def __getitem__(self, name: str) -> Field:
        if not isinstance(name, str):
            raise InputError(f"F[...] takes the name of a column, but {describe(name)} came; pass a str")
        return Field(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"F.{name} names a column; it cannot be assigned to")

    def __repr__(self) -> str:
        return "F"


F = Fields()
