"""Opening a collection: a folder that is there, a new one, or none at all."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nearly import arrays
from nearly.arrays.words import describe, listing
from nearly.collection.catalogue import NAME, Catalogue
from nearly.collection.collection import Collection
from nearly.collection.loading import load
from nearly.collection.locking import LOCK, FolderLock, check_file_system
from nearly.collection.schema import DEFAULT_FIELD, RESERVED, Embedding, Field, Schema, embeddings_of
from nearly.collection.state import State
from nearly.collection.volumes import SEGMENTS, Folder, Memory, sync_folder
from nearly.collection.writing import Writer
from nearly.errors import InputError
from nearly.filters.columns import TYPES

__all__ = ["open"]


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    metric: str | None = None,
    fields: Mapping[str, Field] | None = None,
    columns: Mapping[str, str] | None = None,
    mode: str = "a",
    recall: float | None = None,
    embedding: Embedding | None = None,
    durable: bool = True,
    background: bool = True,
    seed: int | None = None,
) -> Collection:
    """Open a collection: documents, metadata and vectors that can be searched, changed, and found again tomorrow.

    Parameters
    ----------
    path : path-like, optional
        Its folder, made where there is none. None keeps the collection in memory.
    metric : str, optional
        Of the vectors, a name in `nearly.metrics.METRICS`; "l2" for a new collection.
    fields : mapping of str to Field, optional
        Several named vectors for each row, instead of one under `metric`.
    columns : mapping of str to str, optional
        Types of metadata that shall not be inferred from the first values: ``bool``, ``int``, ``float``, ``str``,
        ``date``, ``datetime``, ``list[str]`` or ``json``.
    mode : {"a", "r", "x"}, default "a"
        "a" opens or makes it, for reading and writing, which one process may do at a time; "r" reads along while
        another process writes; "x" makes a new one and refuses a folder that is there.
    recall : float, optional
        Mean share of the true nearest that searches deliver unless told otherwise; 0.95 for a new collection.
    embedding : str or dict of str to str, optional
        What made the vectors, a name and version of your choice; a dict where fields are of different models. It is
        stored, and another one is refused.
    durable : bool, default True
        A write returns when it is on the disk: it survives a power cut. With False it survives the death of the
        process, and a power cut takes at most the last writes, each of them whole.
    background : bool, default True
        Flush, build graphs and merge segments in a thread. With False only `flush` and `compact` do, and a full tail.
    seed : int, optional
        Of the indexes; 0 for a new collection.

    Returns
    -------
    Collection
        To be closed, or used in a ``with`` statement.

    Raises
    ------
    StateError
        If another process has it open for writing (named in the message), or the folder is on a network file system.
    InputError
        If it is another collection than the arguments say, or the folder holds something else.
    FormatError
        If it is damaged, or of a newer version of nearly.

    Examples
    --------
    >>> import numpy as np, nearly
    >>> docs = nearly.open(metric="cosine")
    >>> docs.add(np.eye(3), ids=["a", "b", "c"], metadata={"year": [1999, 2010, 2020]})
    ['a', 'b', 'c']
    >>> hits = docs.search([1, 0.1, 0], k=2, where="year >= 2000")
    >>> hits.ids.tolist(), hits.metadata["year"].tolist()
    (['b', 'c'], [2010, 2020])
    """
    arrays.check_choice(mode, ("a", "r", "x"), "mode")
    arrays.check_flag(durable, "durable")
    arrays.check_flag(background, "background")
    folder = None if path is None else Path(os.fsdecode(path)).absolute()
    there = folder is not None and (folder / NAME).exists()  # and says itself which fields there are
    wanted = _wanted(metric, fields, columns, recall, 0 if seed is None else arrays.check_seed(seed))
    if not there:
        wanted = _of_models(wanted, embedding)
    if folder is None:
        if mode != "a":
            raise InputError(f"mode is {mode!r}, but a collection in memory is always new; pass a path")
        return Collection(None, Writer(State.empty(wanted), None, Memory()), None, background)
    given = {"metric": metric, "fields": fields, "recall": recall, "embedding": embedding, "seed": seed}
    if mode == "r":
        return _open_to_read(folder, wanted, given)
    return _open_to_write(folder, wanted, given, mode, durable, background)


def _of_models(wanted: Schema, embedding: Any) -> Schema:
    made = {} if embedding is None else embeddings_of(embedding, wanted.fields, wanted.fields)
    return replace(wanted, embeddings=made)


def _wanted(metric: str | None, fields: Any, columns: Any, recall: float | None, seed: int) -> Schema:
    if fields is not None and metric is not None:
        raise InputError("metric= and fields= exclude each other; each Field has its own metric")
    if fields is None:
        fields = {DEFAULT_FIELD: Field(metric="l2" if metric is None else metric)}
    if not isinstance(fields, Mapping) or not fields:
        raise InputError(f"fields is {describe(fields)}, but a dict from names to nearly.collection.Field is wanted")
    for name, field in fields.items():
        if not isinstance(name, str) or not name or name in RESERVED or not isinstance(field, Field):
            raise InputError(f"fields has {name!r}: {describe(field)}; names are str (none of {', '.join(RESERVED)}), "
                             "values are Field(metric=...)")  # fmt: skip
    target = 0.95 if recall is None else arrays.check_fraction(recall, "recall")
    types = _column_types(columns or {}, fields)
    return Schema(dict(fields), columns=types, recall=target, seed=seed)


def _column_types(columns: Any, fields: Mapping[str, Field]) -> dict[str, str]:
    if not isinstance(columns, Mapping):
        raise InputError(f"columns is {describe(columns)}, but a dict from names to types is wanted")
    for name, type in columns.items():
        if not isinstance(name, str) or not name or name in RESERVED or name in fields:
            raise InputError(f"columns has the name {describe(name)}; a str is wanted, and none of the fields or of "
                             f"{', '.join(RESERVED)}")  # fmt: skip
        if type not in TYPES:
            raise InputError(f"column {name!r} has type {describe(type)}; choose one of {', '.join(TYPES)}")
    return dict(columns)


def _check_same(folder: Path, schema: Schema, wanted: Schema, given: Mapping[str, Any]) -> None:
    """Refuse to open another collection than the arguments describe."""
    if given["metric"] is not None or given["fields"] is not None:
        mine = {name: field.metric for name, field in schema.fields.items()}
        theirs = {name: field.metric for name, field in wanted.fields.items()}
        if mine != theirs:
            raise InputError(
                f"{str(folder)!r} holds fields and metrics {mine}, not {theirs}; leave metric= and fields= out"
            )
        for name, field in wanted.fields.items():
            has = schema.fields[name]
            if field.dim not in (None, has.dim or field.dim) or field.dtype not in (None, has.dtype):
                raise InputError(f"field {name!r} of {str(folder)!r} is {has}, not {field}; leave fields= out")
    for name, type in wanted.columns.items():
        if schema.columns.get(name, type) != type:
            raise InputError(f"column {name!r} of {str(folder)!r} holds {schema.columns[name]}, not {type}")
    if given["seed"] is not None and wanted.seed != schema.seed:
        raise InputError(f"{str(folder)!r} was made with seed {schema.seed}, not {wanted.seed}; leave seed= out")
    if given["recall"] is not None and wanted.recall != schema.recall:
        raise InputError(
            f"{str(folder)!r} was made for recall {schema.recall:g}, not {wanted.recall:g}; leave recall= out here, "
            "and pass it to search()"
        )
    if given["embedding"] is not None:
        for name, model in embeddings_of(given["embedding"], schema.fields, schema.fields).items():
            if model != (made_by := schema.embeddings.get(name)):
                of = "" if len(schema.fields) == 1 else f" in field {name!r}"
                raise InputError(f"{str(folder)!r} holds vectors of {made_by!r}{of}, not of {model!r}; vectors of two "
                                 "models cannot be compared: make another collection")  # fmt: skip


def _open_to_read(folder: Path, wanted: Schema, given: Mapping[str, Any]) -> Collection:
    if not (folder / NAME).exists():
        raise FileNotFoundError(f"there is no collection at {str(folder)!r}")
    check_file_system(folder)
    catalogue = Catalogue(folder / NAME, writable=False)
    try:
        volume = Folder(folder / SEGMENTS)
        state, manifest = load(catalogue, volume, {})
        _check_same(folder, state.schema, wanted, given)
        if unknown := sorted(wanted.columns.keys() - state.schema.columns.keys()):
            raise InputError(f"{str(folder)!r} has no column {listing(unknown)}; who writes declares columns")
    except BaseException:
        catalogue.close()
        raise
    return Collection(folder, Writer(state, catalogue, volume), None, False, manifest)


def _open_to_write(
    folder: Path, wanted: Schema, given: Mapping[str, Any], mode: str, durable: bool, background: bool
) -> Collection:
    made = not folder.exists()
    if not made and not folder.is_dir():
        raise InputError(
            f"{str(folder)!r} is a file; a collection is a folder (nearly.load opens the file of an index)"
        )
    if not made and mode == "x":
        raise FileExistsError(f"{str(folder)!r} is there already; pass another path, or open it with mode='a'")
    if not made and not (folder / LOCK).exists() and not (folder / NAME).exists() and any(folder.iterdir()):
        raise InputError(f"{str(folder)!r} holds other files and no collection; pass a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)
    check_file_system(folder)
    lock = FolderLock(folder / LOCK)
    catalogue = None
    try:
        (folder / SEGMENTS).mkdir(exist_ok=True)
        volume = Folder(folder / SEGMENTS)
        new = not (folder / NAME).exists()
        catalogue = Catalogue(folder / NAME, writable=True, durable=durable)
        if new or catalogue.is_blank():  # a blank one is left by a process that died while it made the collection
            catalogue.create(_of_models(wanted, given["embedding"]))
            for path in (folder / SEGMENTS, folder, folder.parent):
                sync_folder(path)
        state, _ = load(catalogue, volume, {})
        _check_same(folder, state.schema, wanted, given)
        catalogue.seal()
        writer = Writer(state, catalogue, volume)
        writer.clean()
        declared = state.schema.with_columns(wanted.columns)
        if declared is not state.schema:
            writer.submit(lambda state: (replace(state, schema=declared), [], None))
        return Collection(folder, writer, lock, background)
    except BaseException:
        if catalogue is not None:
            catalogue.connection.close()
        lock.release()
        raise
