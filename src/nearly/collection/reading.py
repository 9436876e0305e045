"""Reading rows: which, and what of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearly.arrays.words import describe, listing
from nearly.collection import bits
from nearly.collection.found import Joiner, Rows
from nearly.collection.parts import Part
from nearly.collection.schema import Schema
from nearly.errors import InputError
from nearly.filters.expressions import Expression

__all__ = ["Wanted", "included", "rows_passing"]


def rows_passing(part: Part, where: Expression | None, schema: Schema) -> NDArray[np.int64]:
    """The rows of a part that are alive and match."""
    return bits.rows_of(part.passing(where, schema.columns).bits)


def included(schema: Schema, include: Any) -> tuple[str, ...]:
    """Columns of metadata that an answer joins."""
    if isinstance(include, str) or not isinstance(include, Sequence):
        raise InputError(f"include is {describe(include)}, but a list of columns is wanted")
    if unknown := [name for name in include if not isinstance(name, str) or name not in schema.columns]:
        shown = listing([str(name) for name in unknown])
        raise InputError(f"include names {shown}, but the columns are: {', '.join(schema.columns) or 'none'}")
    return tuple(include)


class Wanted:
    """What to read of rows.

    Parameters
    ----------
    schema : Schema
    include : sequence of str
        "metadata" (all columns), "document", "vector" (of the only field), names of columns, names of fields.
    """

    def __init__(self, schema: Schema, include: Any) -> None:
        if isinstance(include, str) or not isinstance(include, Sequence):
            raise InputError(f"include is {describe(include)}, but a list is wanted, such as ['metadata', 'vector']")
        self.integer_keys = schema.keys != "str"
        self.document, self.field = "document" in include, None
        names: list[str] = list(schema.columns) if "metadata" in include else []
        for name in include:
            if not isinstance(name, str):
                raise InputError(f"include holds {describe(name)}, but names are str")
            if name in ("metadata", "document"):
                continue
            if name == "vector" or name in schema.fields:
                self.field = schema.field_named(None if name not in schema.fields else name)
            elif name in schema.columns:
                names += [] if name in names else [name]
            else:
                raise InputError(
                    f"include names {name!r}; choose among 'metadata', 'document', 'vector', the columns "
                    f"({', '.join(schema.columns) or 'none'}) and the fields ({', '.join(schema.fields)})"
                )
        self.names = names

    def read(self, parts: Sequence[Part], at: Any) -> Rows:
        """Rows of locators."""
        joiner = Joiner(parts, self.names, self.integer_keys)
        return Rows(
            joiner.keys(at), joiner.metadata(at), joiner.documents(at) if self.document else None,
            None if self.field is None else joiner.vectors(at, self.field),
        )  # fmt: skip
