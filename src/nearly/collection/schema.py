"""What a collection holds: named vector fields, the kind of its keys, typed columns. A change makes another."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nearly import arrays, metrics
from nearly.arrays import Vectors
from nearly.arrays.words import describe
from nearly.collection.keys import KeyKind
from nearly.errors import DimensionError, InputError
from nearly.filters.columns import TYPES

__all__ = ["DEFAULT_FIELD", "RESERVED", "Field", "Schema"]

DEFAULT_FIELD = "vector"
RESERVED = ("id", "document")  # columns of rows that are no metadata
ELEMENTS = ("float32", "float16", "bfloat16", "int8", "uint8")


@dataclass(frozen=True)
class Field:
    """A named vector of every row.

    Parameters
    ----------
    metric : str, default "l2"
        A name in `nearly.metrics.METRICS`.
    dim : int, optional
        Columns; the first vectors decide when None.
    dtype : {"float32", "float16"}, optional
        Vectors are rounded to this type when they come; as they are when None.

    Examples
    --------
    >>> Field(metric="cosine", dim=384)
    Field(metric='cosine', dim=384, dtype=None)
    """

    metric: str = "l2"
    dim: int | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        metrics.named(self.metric)
        if self.dim is not None:
            arrays.check_int(self.dim, "dim", low=1, high=32768)
        if self.dtype is not None:
            arrays.check_choice(self.dtype, ("float32", "float16"), "dtype")
            if self.bits:
                raise InputError(f"dtype is {self.dtype!r}, but {self.metric} compares packed bits; leave it out")

    @property
    def bits(self) -> bool:
        """Whether vectors are packed bits."""
        return metrics.named(self.metric).input == "bits"

    def check_dim(self, vectors: Vectors, name: str) -> None:
        """Refuse vectors of another dimension."""
        if self.dim is not None and self.dim != vectors.dim and len(vectors):
            raise DimensionError(name, got=vectors.dim, expected=self.dim)

    def check(self, vectors: Any, name: str, n: int | None = None) -> Vectors:
        """Vectors of this field as they are stored; InputError that says what does not fit."""
        made = arrays.as_vectors(vectors, name=name, bits=self.bits)
        arrays.check_finite(made, name)
        if n is not None and len(made) != n:
            raise InputError(f"{name} has {len(made)} rows, but there are {n}; pass one vector for each")
        self.check_dim(made, name)
        if self.dtype is None or made.kind == self.dtype:
            return made
        if made.kind not in ("float32", "float16", "bfloat16"):
            raise InputError(f"{name} holds {made.kind}, but this field stores {self.dtype}; convert them")
        rounded = arrays.as_vectors(made.as_float32().astype(self.dtype), name=name)
        arrays.check_finite(rounded, f"{name} as {self.dtype}")
        return rounded


@dataclass(frozen=True)
class Schema:
    """Everything about a collection that is not its rows.

    Attributes
    ----------
    fields : mapping of str to Field
    keys : {"int", "str"} or None
        None until the first rows come.
    columns : mapping of str to str
        The type of each column of metadata, in the order in which they came.
    recall : float
        Mean share of the true nearest that a search delivers unless told otherwise.
    seed : int
    embedding : str or None
        What the vectors were made by; a fingerprint that the user chooses.
    """

    fields: Mapping[str, Field]
    keys: KeyKind | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    recall: float = 0.95
    seed: int = 0
    embedding: str | None = None

    def field_named(self, name: str | None) -> str:
        """The field that a search means: the only one, or the one that is named."""
        if name is None and len(self.fields) == 1:
            return next(iter(self.fields))
        if name is None:
            raise InputError(f"this collection has the fields {', '.join(self.fields)}; pass field=")
        if name not in self.fields:
            raise InputError(f"field is {describe(name)}, but this collection has {', '.join(self.fields)}")
        return name

    def check_embedding(self, embedding: Any, what: str) -> None:
        """Refuse vectors of another model than those that are here; nothing is asked where None came."""
        if embedding is None or embedding == self.embedding:
            return
        if not isinstance(embedding, str):
            raise InputError(f"embedding is {describe(embedding)}, but a str is wanted, as nearly.open was told")
        if self.embedding is None:
            raise InputError(f"{what} of {embedding!r}, but this collection was made without embedding=, so nobody "
                             "knows what made its vectors; leave it out, or make another collection")  # fmt: skip
        raise InputError(f"{what} of {embedding!r}, but this collection holds vectors of {self.embedding!r}; embed "
                         "all by the same model")  # fmt: skip

    def with_columns(self, types: Mapping[str, str]) -> "Schema":
        """This schema with columns that came for the first time."""
        new = {name: type for name, type in types.items() if name not in self.columns}
        return replace(self, columns={**self.columns, **new}) if new else self

    def with_dims(self, dims: Mapping[str, int], keys: KeyKind) -> "Schema":
        """This schema once the first rows have decided what it left open."""
        if self.keys == keys and all(self.fields[name].dim == dim for name, dim in dims.items()):
            return self
        fields = {name: replace(each, dim=each.dim or dims.get(name)) for name, each in self.fields.items()}
        return replace(self, fields=fields, keys=keys)

    def to_json(self) -> dict[str, Any]:
        return {
            "fields": {n: {"metric": f.metric, "dim": f.dim, "dtype": f.dtype} for n, f in self.fields.items()},
            "keys": self.keys, "columns": dict(self.columns), "recall": self.recall, "seed": self.seed,
            "embedding": self.embedding,
        }  # fmt: skip

    @classmethod
    def from_json(cls, made: Any) -> "Schema":
        """What `to_json` wrote; InputError where it cannot have been."""
        try:
            json.dumps(made, ensure_ascii=False).encode()  # halves of surrogate pairs are no Unicode
            fields = {name: Field(f["metric"], f["dim"], f["dtype"]) for name, f in made["fields"].items()}
            columns, embedding = dict(made["columns"]), made["embedding"]
            if not fields or made["keys"] not in (None, "int", "str"):
                raise ValueError("no fields, or keys of no kind")
            if any(not name or name in RESERVED for name in [*fields, *columns]) or fields.keys() & columns.keys():
                raise ValueError("a field or a column of no possible name")
            if any(type not in TYPES for type in columns.values()):
                raise ValueError("a column of no known type")
            if not (embedding is None or isinstance(embedding, str)):
                raise ValueError("an embedding without a name")
            recall, seed = arrays.check_fraction(made["recall"], "recall"), arrays.check_seed(made["seed"])
            return cls(fields, made["keys"], columns, recall, seed, embedding)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise InputError(f"its configuration cannot be read ({problem})") from problem
