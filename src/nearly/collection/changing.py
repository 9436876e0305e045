"""The verbs that change a collection: what came is checked against the state, then written by the one writer."""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nearly import arrays
from nearly.arrays import Vectors
from nearly.arrays.words import listing
from nearly.collection import inputs, queries
from nearly.collection.catalogue import Manifest
from nearly.collection.found import Joiner
from nearly.collection.grouping import Plan
from nearly.collection.inputs import Incoming, Names
from nearly.collection.keys import Keys
from nearly.collection.lines import Lines
from nearly.collection.maintenance import Maintenance
from nearly.collection.preparing import (
    as_documents,
    located,
    prepared,
    prepared_cells,
    prepared_vectors,
    spread,
    vector_columns,
)
from nearly.collection.reading import rows_passing
from nearly.collection.records import Delete, Patch, Put
from nearly.collection.schema import Embedding
from nearly.collection.state import State
from nearly.collection.tail import Batch
from nearly.collection.writing import Writer
from nearly.errors import FormatError, IdError, InputError, StateError
from nearly.filters.expressions import Expression
from nearly.indexes import names as argument_names

__all__ = ["Changes"]


class Changes:
    """The verbs of `Collection` that change it."""

    _writer: Writer
    _maintenance: Maintenance
    _manifest: Manifest | None

    if TYPE_CHECKING:

        @property
        def path(self) -> str | None: ...

        @property
        def _state(self) -> State: ...

        def _parse(self, where: Any, parameters: Any) -> Expression | None: ...

    def add(
        self, rows: Any, *, ids: Any = None, metadata: Any = None, documents: Any = None, id: str = "id",
        document: str = "document", vector: Any = None, embedding: Embedding | None = None, progress: Any = None,
        **unknown: Any,
    ) -> list[Any]:  # fmt: skip
        """Add rows whose keys are new.

        Parameters
        ----------
        rows : array-like of shape (n, dim), table, path, or an iterator of these
            Vectors (a dict of them where there are several fields); or whole rows: a list of dicts, a dict of columns,
            a pandas or Polars frame, an Arrow table, the path of a file: Parquet, or JSON lines where it ends in
            ``.jsonl`` or ``.ndjson``, with an object a line. An iterator, a file or a reader of batches is taken in
            batches, each committed by itself.
        ids : array-like of int or of str, optional
            All of one kind. None continues after the largest integer ever given.
        metadata : dict of columns, list of dicts or table, optional
            Values bool, int, float, str, date, datetime, list of str, or JSON; None, NaN and NaT are null. The first
            values decide the type of a column; new columns may come at any time.
        documents : sequence of str, bytes or None, optional
        id, document : str
            Columns of a table that hold keys and documents.
        vector : str or dict of str to str, optional
            Columns that hold vectors; named as the fields by default.
        embedding : str or dict of str to str, optional
            What made the vectors, of all fields or of each; refused where it is not what `nearly.open` was told.
        progress : callable, optional
            Called with rows done, and in all (0 where nobody knows): after each batch, once for rows that come at once.

        Returns
        -------
        list
            The keys.

        Raises
        ------
        IdError
            If a key is there, or came twice; says which. Nothing of the batch is added then.
        InputError
            If anything else does not fit; nothing of the batch is added. Of JSON lines it names the line.
        """
        argument_names.refuse("add()", unknown, argument_names.known_to(Changes.add))
        return self._put(rows, ids, metadata, documents, id, document, vector, embedding, progress, fresh=True)

    def upsert(
        self, rows: Any, *, ids: Any = None, metadata: Any = None, documents: Any = None, id: str = "id",
        document: str = "document", vector: Any = None, embedding: Embedding | None = None, progress: Any = None,
        **unknown: Any,
    ) -> list[Any]:  # fmt: skip
        """Add rows, each in the place of the one with its key: vectors, metadata and document.

        Parameters
        ----------
        rows, ids, metadata, documents, id, document, vector, embedding, progress
            As for `add`; keys must be given.

        Returns
        -------
        list
            The keys.
        """
        argument_names.refuse("upsert()", unknown, argument_names.known_to(Changes.upsert))
        return self._put(rows, ids, metadata, documents, id, document, vector, embedding, progress, fresh=False)

    def _put(
        self, rows: Any, ids: Any, metadata: Any, documents: Any, id: str, document: str, vector: Any, embedding: Any,
        progress: Any, *, fresh: bool,
    ) -> list[Any]:  # fmt: skip
        schema = self._changing().schema
        arrays.check_callback(progress, "progress")
        schema.check_embedding(embedding, "the vectors are")
        names = Names(id, document, vector_columns(schema, vector))
        if not inputs.is_stream(rows):
            done = self._put_batch(inputs.incoming(rows, ids, metadata, documents, names), fresh)
            self._maintenance.wake()
            if progress is not None:
                progress(len(done), len(done))
            return done
        if ids is not None or metadata is not None or documents is not None:
            raise InputError("ids=, metadata= and documents= go with rows that come at once; put them into the batches")
        total = len(rows) if hasattr(rows, "__len__") and not isinstance(rows, str) else 0
        done = []
        try:
            for batch in inputs.batches(rows):
                done += self._put_part(batch, names, fresh)
                self._maintenance.make_room()
                if progress is not None:
                    progress(len(done), total)
        finally:
            self._maintenance.wake()  # graphs once for all of it
        return done

    def _put_part(self, batch: Any, names: Names, fresh: bool) -> list[Any]:
        """Put rows that came in parts; an error in JSON lines names the line."""

        def check(rows: Lines) -> None:
            came = inputs.incoming(rows, None, None, None, names)
            self._planned(self._state, came, prepared_vectors(came, self._state.schema), fresh)

        try:
            return self._put_batch(inputs.incoming(batch, None, None, None, names), fresh)
        except InputError as problem:
            if not isinstance(batch, Lines):
                raise
            raise batch.at_fault(check, problem) from None

    def _put_batch(self, came: Incoming, fresh: bool) -> list[Any]:
        vectors = prepared_vectors(came, self._state.schema)

        def plan(state: State) -> Plan:
            state, batch = self._planned(state, came, vectors, fresh)
            return state, [Put(batch.keys, batch)] if len(batch) else [], batch.keys.tolist()

        n = len(next(iter(vectors.values())))
        if self._writer.limits.tail_is_full(n, sum(v.array.nbytes for v in vectors.values())):
            with self._writer.changing():
                self._writer.check_process()
                state, batch = self._planned(self._writer.state, came, vectors, fresh)
                self._maintenance.put_segment(state, batch)
            keys = batch.keys.tolist()
        else:
            keys = self._writer.submit(plan)
        return keys

    def _planned(
        self, state: State, came: Incoming, vectors: Mapping[str, Vectors], fresh: bool
    ) -> tuple[State, Batch]:  # fmt: skip
        """The rows to write, checked against the state, and the state with what its schema learns of them."""
        if came.ids is None and not fresh:
            raise InputError("upsert needs ids=: which rows to replace")
        state, batch = prepared(state, came, vectors)
        taken = np.flatnonzero(state.known(batch.keys)) if fresh else np.zeros(0, np.int64)
        if len(taken):
            shown = listing(batch.keys.take(taken).tolist())
            if came.ids is None:
                raise FormatError(f"{self.path!r} is damaged: its next keys, such as {shown}, are there already")
            raise IdError(f"{len(taken)} of the ids are taken: {shown}; pass others, or use upsert to replace")
        return state, batch

    def update(
        self, ids: Any = None, *, where: Any = None, parameters: Any = None, metadata: Any = None, vectors: Any = None,
        documents: Any = None, embedding: Embedding | None = None,
    ) -> int:  # fmt: skip
        """Change some columns of rows, their documents or their vectors; everything else stays.

        Parameters
        ----------
        ids : key or array-like of keys, optional
        where : str, dict or expression, optional
            The rows to change instead of ids, as in `search`.
        parameters
            Of a ``where`` in SQL.
        metadata : dict of columns, optional
            A value for each row, or one for all; None makes null.
        vectors : array-like of shape (n, dim), or dict of these, optional
        documents : sequence of str, bytes or None, optional
        embedding : str or dict of str to str, optional
            As for `add`; a str is said of the fields whose vectors are given.

        Returns
        -------
        int
            Rows changed.

        Raises
        ------
        IdError
            If a key is not there; nothing is changed.

        Notes
        -----
        Metadata alone is written as a patch: vectors are not touched.
        """
        given = list(vectors) if isinstance(vectors, Mapping) else []
        self._changing().schema.check_embedding(embedding, "the vectors are", *given)
        if (ids is None) == (where is None):
            raise InputError("update takes ids or where=, one of them")
        if metadata is None and vectors is None and documents is None:
            raise InputError("update changes nothing: pass metadata=, vectors= or documents=")
        ids = inputs.listed(ids)  # once: a write may be planned twice
        if isinstance(ids, Set):
            raise IdError("ids is a set, which has no order; pass a list, in the order of what they are given")
        expression, changes = self._parse(where, parameters), inputs.metadata_columns(metadata)

        def plan(state: State) -> Plan:
            keys = located(state, ids, "update")[0] if expression is None else self._matching(state, expression)
            n = len(keys)
            columns = {name: spread(value, n) for name, value in changes.items()}
            schema, cells = prepared_cells(state.schema, columns, n)
            for name in columns.keys() - cells.keys():  # all null: of columns that are there
                if name in schema.columns:
                    cells |= prepared_cells(schema, {name: [None] * n}, n)[1]
            state = state if schema is state.schema else replace(state, schema=schema)
            if not n:
                return state, [], 0
            if vectors is None and documents is None:
                return state, [Patch(keys, cells)] if cells else [], n
            batch = self._rewritten(state, keys, vectors, documents)
            return state, [Put(keys, batch), *([Patch(keys, cells)] if cells else [])], n

        changed: int = self._writer.submit(plan)
        self._maintenance.wake()
        return changed

    def _rewritten(self, state: State, keys: Keys, vectors: Any, documents: Any) -> Batch:
        """Rows as they are, with other vectors or documents."""
        which, rows = state.locate(keys)
        parts = (*state.segments, state.fresh)
        at = rows | (which << 32)
        joiner = Joiner(parts, list(state.schema.columns), state.schema.keys != "str")
        made = {}
        given = (
            vectors
            if isinstance(vectors, Mapping)
            else {}
            if vectors is None
            else {state.schema.field_named(None): vectors}
        )
        if unknown := given.keys() - state.schema.fields.keys():
            raise InputError(
                f"vectors names {listing(sorted(unknown))}, but the fields are {', '.join(state.schema.fields)}"
            )
        for name, field in state.schema.fields.items():
            if name in given:
                made[name] = field.check(given[name], "vectors", len(keys))
            else:
                made[name] = field.check(np.stack(joiner.vectors(at, name)), name)
        _, cells = prepared_cells(state.schema, {n: list(c) for n, c in joiner.metadata(at).items()}, len(keys))
        kept = as_documents(documents, len(keys)) if documents is not None else joiner.documents(at).tolist()
        return Batch(keys, made, cells, kept)

    def delete(self, ids: Any = None, *, where: Any = None, parameters: Any = None) -> int:
        """Delete rows.

        Parameters
        ----------
        ids : key or array-like of keys, optional
        where : str, dict or expression, optional
            As in `search`.
        parameters
            Of a ``where`` in SQL.

        Returns
        -------
        int
            Rows deleted.

        Raises
        ------
        IdError
            If a key is not there; nothing is deleted.
        """
        self._changing()
        if (ids is None) == (where is None):
            raise InputError("delete takes ids or where=, one of them")
        ids = inputs.listed(ids)
        expression = self._parse(where, parameters)

        def plan(state: State) -> Plan:
            keys = located(state, ids, "delete")[0] if expression is None else self._matching(state, expression)
            return state, [Delete(keys)] if len(keys) else [], len(keys)

        deleted: int = self._writer.submit(plan)
        self._maintenance.wake()
        return deleted

    def _changing(self) -> State:
        state = self._state
        self._writer.check_process()
        if self._manifest is not None:
            raise StateError('this collection is open with mode="r"; open it with mode="a" to change it')
        return state

    @staticmethod
    def _matching(state: State, where: Expression) -> Keys:
        """The keys of all rows that pass."""
        queries.check_columns(where, state)
        listed: list[Any] = []
        for part in state.parts:
            listed += part.keys_of(rows_passing(part, where, state.schema))
        return Keys(np.array(listed, np.int64) if state.schema.keys != "str" else listed)
