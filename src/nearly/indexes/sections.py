"""Indexes within the file of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from numpy.typing import NDArray

from nearly import storage
from nearly.errors import FormatError

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """A part of a file that reads like one: its own configuration, and the arrays whose names begin alike."""

    path: str
    config: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    bfloat16: frozenset[str] = frozenset()

    @classmethod
    def of(cls, file: storage.File, prefix: str, config: Any) -> storage.File:
        """The part of a file under a prefix."""
        if not isinstance(config, dict):
            raise FormatError(f"{file.path} is damaged: {prefix} has no configuration")
        arrays = {name.removeprefix(prefix): a for name, a in file.arrays.items() if name.startswith(prefix)}
        return cast(storage.File, cls(file.path, config, arrays))
