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
        hint = "; documents are hits.documents" if unknown[0] in ("document", "documents") else ""
        raise InputError(f"include names {shown}, but the columns are: {', '.join(schema.columns) or 'none'}{hint}")
    return tuple(include)


class Wanted:
    """What to read of rows.

    Parameters
    ----------
    schema : Schema
    include : sequence of str
        "metadata" (all columns), "document", "vector" (of the only field), names of columns, names of fields; of
        several fields a row has a dict of vectors.
    """

    def __init__(self, schema: Schema, include: Any) -> None:
        if isinstance(include, str) or not isinstance(include, Sequence):
            raise InputError(f"include is {describe(include)}, but a list is wanted, such as ['metadata', 'vector']")
        self.integer_keys = schema.keys != "str"
        self.document = "document" in include
        fields: list[str] = []
        names: list[str] = list(schema.columns) if "metadata" in include else []
        for name in include:
            if not isinstance(name, str):
                raise InputError(f"include holds {describe(name)}, but names are str")
            if name in ("metadata", "document"):
                continue
            if name == "vector" or name in schema.fields:
                field = schema.field_named(None if name not in schema.fields else name)
                fields += [] if field in fields else [field]
            elif name in schema.columns:
                names += [] if name in names else [name]
            else:
                raise InputError(
                    f"include names {name!r}; choose among 'metadata', 'document', 'vector', the columns "
                    f"({', '.join(schema.columns) or 'none'}) and the fields ({', '.join(schema.fields)})"
                )
        self.names, self.fields = names, fields

    def read(self, parts: Sequence[Part], at: Any) -> Rows:
        """Rows of locators."""
        joiner = Joiner(parts, self.names, self.integer_keys)
        return Rows(
            joiner.keys(at), joiner.metadata(at), joiner.documents(at) if self.document else None,
            self._vectors(joiner, at),
        )  # fmt: skip

    def _vectors(self, joiner: Joiner, at: Any) -> list[Any] | None:
        """A vector for each row, a dict of them where several fields were named."""
        columns = [joiner.vectors(at, name) for name in self.fields]
        if len(columns) < 2:
            return columns[0] if columns else None
        return [dict(zip(self.fields, row, strict=True)) for row in zip(*columns, strict=True)]
