"""What a collection holds: named vector fields, the kind of its keys, typed columns. A change makes another."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from nearly import arrays, metrics
from nearly.arrays import Vectors
from nearly.arrays.words import describe
from nearly.collection.keys import KeyKind
from nearly.errors import DimensionError, InputError
from nearly.filters.columns import TYPES

__all__ = ["DEFAULT_FIELD", "RESERVED", "Embedding", "Field", "Schema", "embeddings_of"]

DEFAULT_FIELD = "vector"
RESERVED = ("id", "document")  # columns of rows that are no metadata
Embedding: TypeAlias = str | Mapping[str, str]  # a model, or that of each field
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


def embeddings_of(embedding: Any, meant: Iterable[str], fields: Iterable[str]) -> dict[str, str]:
    """Which model made the vectors of each field.

    Parameters
    ----------
    embedding : str or dict of str to str
        One model for the fields that are meant, or those of some fields.
    meant, fields : iterable of str
        What a str is said of, and all that there are.

    Examples
    --------
    >>> embeddings_of("a", ["title"], ["title", "body"]), embeddings_of({"body": "b"}, [], ["title", "body"])
    ({'title': 'a'}, {'body': 'b'})
    """
    if isinstance(embedding, str):
        return dict.fromkeys(meant, embedding)
    if not isinstance(embedding, Mapping):
        raise InputError(f"embedding is {describe(embedding)}, but a str is wanted, such as 'all-MiniLM-L6-v2', or a "
                         "dict from fields to these")  # fmt: skip
    known = list(fields)
    for name, model in embedding.items():
        if name not in known:
            raise InputError(f"embedding names {describe(name)}, but the fields are {', '.join(known)}")
        if not isinstance(model, str):
            raise InputError(f"embedding of field {name!r} is {describe(model)}, but a str is wanted")
    return dict(embedding)


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
    embeddings : mapping of str to str
        What the vectors of a field were made by, where that was said: a fingerprint that the user chooses.
    """

    fields: Mapping[str, Field]
    keys: KeyKind | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    recall: float = 0.95
    seed: int = 0
    embeddings: Mapping[str, str] = field(default_factory=dict)

    def field_named(self, name: str | None) -> str:
        """The field that a search means: the only one, or the one that is named."""
        if name is None and len(self.fields) == 1:
            return next(iter(self.fields))
        if name is None:
            raise InputError(f"this collection has the fields {', '.join(self.fields)}; pass field=")
        if name not in self.fields:
            raise InputError(f"field is {describe(name)}, but this collection has {', '.join(self.fields)}")
        return name

    def check_embedding(self, embedding: Any, what: str, *fields: str) -> None:
        """Refuse vectors of other models than those that are here; nothing is asked where None came.

        Parameters
        ----------
        embedding : str, dict of str to str, or None
            A model for each of the fields that are meant, or for those that a dict names.
        what : str
            That was made by it, for messages.
        *fields
            That are meant; all by default.
        """
        if embedding is None:
            return
        for name, model in embeddings_of(embedding, fields or self.fields, self.fields).items():
            mine = self.embeddings.get(name)
            if model == mine:
                continue
            of = "" if len(self.fields) == 1 else f" in field {name!r}"
            if mine is None:
                raise InputError(f"{what} of {model!r}, but this collection was made without embedding={of}, so nobody "
                                 "knows what made its vectors; leave it out, or make another collection")  # fmt: skip
            raise InputError(f"{what} of {model!r}, but this collection holds vectors of {mine!r}{of}; embed "
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
            "embedding": self._embedding,
        }  # fmt: skip

    @property
    def _embedding(self) -> Any:
        """Models as they are written: None, one of all fields, or those of some."""
        models = [self.embeddings.get(name) for name in self.fields]
        return models[0] if len(set(models)) == 1 else dict(self.embeddings)

    @classmethod
    def from_json(cls, made: Any) -> "Schema":
        """What `to_json` wrote; InputError where it cannot have been."""
        try:
            json.dumps(made, ensure_ascii=False).encode()  # halves of surrogate pairs are no Unicode
            fields = {name: Field(f["metric"], f["dim"], f["dtype"]) for name, f in made["fields"].items()}
            columns = dict(made["columns"])
            if not fields or made["keys"] not in (None, "int", "str"):
                raise ValueError("no fields, or keys of no kind")
            if any(not name or name in RESERVED for name in [*fields, *columns]) or fields.keys() & columns.keys():
                raise ValueError("a field or a column of no possible name")
            if any(type not in TYPES for type in columns.values()):
                raise ValueError("a column of no known type")
            embeddings = {} if made["embedding"] is None else embeddings_of(made["embedding"], fields, fields)
            recall, seed = arrays.check_fraction(made["recall"], "recall"), arrays.check_seed(made["seed"])
            return cls(fields, made["keys"], columns, recall, seed, embeddings)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise InputError(f"its configuration cannot be read ({problem})") from problem
