"""The public face: verbs over the state of a collection. What they do is in the modules beside this one."""

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from nearly import arrays, filters
from nearly.arrays.words import describe
from nearly.collection import checking, erasing, paging, partitioning, queries
from nearly.collection.catalogue import Manifest
from nearly.collection.changing import Changes
from nearly.collection.checking import Stats, Verification
from nearly.collection.found import Found, FoundInRange, Rows, locators
from nearly.collection.keys import as_keys, kind_of
from nearly.collection.loading import follow, load
from nearly.collection.locking import FolderLock
from nearly.collection.maintenance import Maintenance
from nearly.collection.many import Search, alike, in_search, search_many
from nearly.collection.partitioning import Partition
from nearly.collection.preparing import (
    located,
)
from nearly.collection.queries import Explanation, Question
from nearly.collection.reading import Wanted, included, rows_passing
from nearly.collection.schema import Embedding
from nearly.collection.state import State, stored
from nearly.collection.twins import iterator_twin, twin
from nearly.collection.volumes import Folder
from nearly.collection.writing import Writer
from nearly.errors import IdError, InputError, StateError
from nearly.filters.expressions import Expression
from nearly.indexes import names as argument_names

__all__ = ["Collection"]

_OPEN: "weakref.WeakSet[Collection]" = weakref.WeakSet()
_PARSED = 64  # filters in SQL that are remembered
_OF_MANY = ("where", "parameters", "field", "include", "recall", "exact", "threads", "embedding")


class Collection(Changes):
    """Rows with a key, vectors, metadata and a document each. Made by `nearly.open`.

    Threads may read while one writes, and never wait for it; each call sees one moment. Writes of several threads share
    commits. Every call is atomic: it is there whole, or not at all, whenever the process ends.

    Examples
    --------
    >>> import numpy as np, nearly
    >>> with nearly.open(metric="cosine") as docs:
    ...     docs.add(np.eye(3), ids=["a", "b", "c"], documents=["one", "two", "three"])
    ...     docs.delete("b")
    ...     docs.search([0, 1, 0.2], k=1).documents.tolist(), len(docs)
    ['a', 'b', 'c']
    1
    (['three'], 2)
    """

    def __init__(
        self, path: Path | None, writer: Writer, lock: FolderLock | None, background: bool,
        manifest: Manifest | None = None,
    ) -> None:  # fmt: skip
        self._path, self._writer, self._lock, self._manifest = path, writer, lock, manifest
        self._maintenance = Maintenance(writer, background)
        self._closed = False
        self._parsed: dict[str, Expression] = {}
        _OPEN.add(self)
        if manifest is None:
            self._maintenance.wake()

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """Its folder; None in memory."""
        return None if self._path is None else str(self._path)

    @property
    def mode(self) -> str:
        """ "a" for a collection that may be changed, "r" for one that is read along."""
        return "r" if self._manifest is not None else "a"

    @property
    def columns(self) -> dict[str, str]:
        """The type of each column of metadata."""
        return dict(self._state.schema.columns)

    @property
    def fields(self) -> dict[str, Any]:
        """The vector fields."""
        return dict(self._state.schema.fields)

    @property
    def _state(self) -> State:
        if self._closed:
            raise StateError("this collection was closed; open it again")
        return self._writer.state

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, key: object) -> bool:
        state = self._state
        wanted: type = str if state.schema.keys == "str" else int
        if isinstance(key, bool) or not isinstance(key, wanted | np.integer if wanted is int else wanted):
            return False
        if wanted is int and not 0 <= int(key) < 2**63:  # type: ignore[call-overload]
            return False
        try:
            return bool(state.known(as_keys([key], state.schema.keys or "int"))[0])
        except IdError:  # no key could be that: half a surrogate pair
            return False

    def __repr__(self) -> str:
        if self._closed:
            return f"Collection({self.path!r}), closed"
        state = self._state
        fields = ", ".join(f"{n}: {f.dim or '?'} dimensions, {f.metric}" for n, f in state.schema.fields.items())
        columns = ", ".join(f"{n} {t}" for n, t in state.schema.columns.items()) or "none"
        where = "in memory" if self._path is None else repr(self.path)
        return (f"Collection {where}: {len(self)} rows, {fields}\n  columns   {columns}\n"
                f"  segments  {len(state.segments)}, and {state.fresh.n_alive} fresh rows")  # fmt: skip

    def __reduce__(self) -> Any:
        raise TypeError("a Collection cannot be pickled; pass its path and call nearly.open(path, mode='r') there")

    # -- searching ---------------------------------------------------------------------------------------------------

    def search(
        self, query: Any, k: int = 10, *, where: Any = None, parameters: Any = None, field: str | None = None,
        recall: float | None = None, exact: bool = False, include: Sequence[str] | None = None,
        after: str | None = None, threads: int | None = None, embedding: Embedding | None = None, **unknown: Any,
    ) -> Found:  # fmt: skip
        """Return the k nearest rows of one query, or of each of many.

        Parameters
        ----------
        query : array-like of shape (dim,) or (n_queries, dim)
        k : int, default 10
        where : str, dict or expression, optional
            Which rows may be returned: SQL such as ``"year >= 2020 AND lang IN ('de', 'en')"``, a dict such as
            ``{"year": {"$gte": 2020}}``, or ``F.year >= 2020`` with `nearly.F`.
        parameters : mapping or sequence, optional
            Values of ``$name`` or ``?`` in SQL.
        field : str, optional
            Which vectors, where rows have several.
        recall : float, optional
            Mean share of the true nearest that the answer holds; that of the collection by default.
        exact : bool, default False
            Compare with every row.
        include : sequence of str, optional
            Columns that ``hits.metadata`` and ``to_pandas`` join; all by default.
        after : str, optional
            ``hits.cursor`` of the page before, for the next k of one query.
        threads : int, optional
        embedding : str or dict of str to str, optional
            What made the query; refused where it is not what made the vectors of the field, as `nearly.open` was told.

        Returns
        -------
        Found
            `nearly.Hits` whose ids are keys, with ``metadata`` and ``documents``. k rows wherever so many match.
        """
        argument_names.refuse("search()", unknown, {"k", *argument_names.known_to(Collection.search)})
        state = self._state
        asked = self._question(state, where, parameters, field, include, embedding, recall=recall, exact=exact,
                               threads=threads)  # fmt: skip
        if after is not None:
            return paging.next_page(
                after, query, asked, k, len(state), lambda n: queries.search(state, query, n, asked)
            )
        hits = queries.search(state, query, k, asked)
        hits._seen = paging.Seen(query, asked.field, asked.where)
        return hits

    def search_many(self, searches: Iterable[Mapping[str, Any]], **common: Any) -> list[Found]:
        """Answer several searches, each with its own filter and k, all at one moment.

        Those that share a filter and options are answered as one batch, which is quicker than one after the other, and
        may depend on what is asked beside them: see `nearly.Vamana.search_many`. Their ``stats`` are the work of all.

        Parameters
        ----------
        searches : iterable of dict
            The arguments of `search`, ``query`` among them.
        **common
            Arguments of all that do not say otherwise.

        Returns
        -------
        list of Found
        """
        state = self._state
        if not isinstance(searches, Iterable):
            raise InputError(f"searches is {describe(searches)}, but a list of dicts of arguments is wanted")
        asked, known = [], dict[Any, tuple[int, Question]]()
        for i, each in enumerate(searches):
            if not isinstance(each, Mapping):
                raise InputError(f"searches[{i}] is {describe(each)}, but a dict of arguments with 'query' is wanted")
            if "query" not in each:
                raise InputError(f"searches[{i}] has no 'query', but {', '.join(map(repr, each)) or 'nothing'}")
            options = {**common, **each}
            query, key = options.pop("query"), alike(options)
            found = known.get(key)
            if found is None:
                with in_search(i):
                    found = self._asked_of_many(state, options)
                if key is not None:
                    known[key] = found
            asked.append(Search(query, *found))
        return search_many(state, asked)

    def _asked_of_many(self, state: State, options: dict[str, Any]) -> tuple[int, Question]:
        """How many neighbors one of many searches asks for, and the rest of it."""
        k = arrays.check_k(options.pop("k", 10))
        argument_names.refuse("search_many()", options.keys() - _OF_MANY, [*_OF_MANY, "query", "k"])
        first = [options.pop(name, None) for name in ("where", "parameters", "field", "include", "embedding")]
        return k, self._question(state, *first, **options)

    def range_search(
        self, query: Any, radius: float, *, where: Any = None, parameters: Any = None, field: str | None = None,
        include: Sequence[str] | None = None, threads: int | None = None, embedding: Embedding | None = None,
    ) -> FoundInRange:  # fmt: skip
        """Return every row within a radius, in the unit of ``distances``: exact.

        Parameters
        ----------
        query : array-like of shape (dim,) or (n_queries, dim)
        radius : float
            Inclusive.
        where, parameters, field, include, threads, embedding
            As for `search`.

        Returns
        -------
        FoundInRange
        """
        state = self._state
        asked = self._question(state, where, parameters, field, include, embedding, threads=threads)
        return queries.range_search(state, query, radius, asked)

    def explain(
        self, query: Any, id: Any, k: int = 10, *, where: Any = None, parameters: Any = None, field: str | None = None,
        recall: float | None = None, embedding: Embedding | None = None,
    ) -> Explanation:  # fmt: skip
        """Say why a row is among the k nearest of a query, or why it is not.

        Parameters
        ----------
        query : array-like of shape (dim,)
        id : int or str
            The key of the row.
        k, where, parameters, field, recall, embedding
            As for `search`.

        Returns
        -------
        Explanation
        """
        state = self._state
        asked = self._question(state, where, parameters, field, None, embedding, recall=recall)
        keys = as_keys([id], state.schema.keys or kind_of([id]))
        return queries.explain(state, query, id, keys, arrays.check_k(k), asked)

    def _question(
        self, state: State, where: Any, parameters: Any, field: str | None, include: Any, embedding: Embedding | None,
        **options: Any,
    ) -> Question:  # fmt: skip
        schema, name = state.schema, state.schema.field_named(field)
        schema.check_embedding(embedding, "the query is", name)
        given = {name: value for name, value in options.items() if value is not None and value is not False}
        joined = tuple(schema.columns) if include is None else included(schema, include)
        return Question(name, self._parse(where, parameters), given, joined, schema.columns)

    def _parse(self, where: Any, parameters: Any) -> Expression | None:
        """The one place where filters are read."""
        if where is None:
            if parameters is not None:
                raise InputError("parameters came without where=")
            return None
        if not isinstance(where, str) or parameters is not None:
            return filters.parse(where, parameters)
        parsed = self._parsed.get(where)
        if parsed is None:
            parsed = filters.parse(where)
            while len(self._parsed) >= _PARSED:
                self._parsed.pop(next(iter(self._parsed)), None)
            self._parsed[where] = parsed
        return parsed

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(
        self, ids: Any = None, *, where: Any = None, parameters: Any = None, limit: int | None = None, offset: int = 0,
        include: Sequence[str] = ("metadata", "document"),
    ) -> Any:  # fmt: skip
        """Return rows by their keys, or those that match.

        Parameters
        ----------
        ids : key or array-like of keys, optional
            One key gives one `Row`.
        where, parameters
            As for `search`; all rows where neither ids nor where is given.
        limit, offset : int
            How many of the matching rows, and from which on. Order is that of writing, until segments are merged.
        include : sequence of {"metadata", "document", "vector"}
            What to read; or names of columns, or of fields for their vectors.

        Returns
        -------
        Rows or Row

        Raises
        ------
        IdError
            If a key is not there.
        """
        state, expression = self._state, self._parse(where, parameters)
        wanted = Wanted(state.schema, include)
        if ids is not None:
            if expression is not None or limit is not None or offset:
                raise InputError("get takes ids, or where=, limit= and offset=")
            single = isinstance(ids, str | int | np.integer)
            _, at = located(state, [ids] if single else ids, "get", unique=False)
            found = wanted.read((*state.segments, state.fresh) if state.fresh.n_alive else state.segments, at)
            return found[0] if single else found
        low = arrays.check_int(offset, "offset", low=0)
        high = None if limit is None else low + arrays.check_int(limit, "limit", low=0)
        return wanted.read(state.parts, self._passing(state, expression)[low:high])

    def scan(
        self, batch_size: int = 1024, *, where: Any = None, parameters: Any = None,
        include: Sequence[str] = ("metadata", "document"),
    ) -> Iterator[Rows]:  # fmt: skip
        """Yield all rows, or those that match, in batches; all of one moment, whatever is written meanwhile.

        Parameters
        ----------
        batch_size : int, default 1024
        where, parameters, include
            As for `get`.

        Yields
        ------
        Rows
            With ``to_arrow``, ``to_pandas`` and ``to_polars``.
        """
        state, expression = self._state, self._parse(where, parameters)
        size, wanted = arrays.check_int(batch_size, "batch_size", low=1), Wanted(state.schema, include)
        at = self._passing(state, expression)
        return (wanted.read(state.parts, at[first : first + size]) for first in range(0, len(at), size))

    def count(self, where: Any = None, *, parameters: Any = None) -> int:
        """Return how many rows there are, or match.

        Parameters
        ----------
        where, parameters
            As for `search`.
        """
        state, expression = self._state, self._parse(where, parameters)
        queries.check_columns(expression, state)
        return sum(part.passing(expression, state.schema.columns).n for part in state.parts)

    @staticmethod
    def _passing(state: State, where: Expression | None) -> Any:
        queries.check_columns(where, state)
        found = [locators(i, rows_passing(part, where, state.schema)) for i, part in enumerate(state.parts)]
        return np.concatenate([*found, np.zeros(0, np.int64)])

    # -- upkeep ------------------------------------------------------------------------------------------------------

    def flush(self, *, progress: Any = None) -> None:
        """Bring everything into its lasting form: fresh rows into a segment, graphs built, segments merged where due.

        Parameters
        ----------
        progress : callable, optional
            Called with vectors done, and in all, of the graph that is being built.
        """
        self._changing()
        self._maintenance.finish(progress)

    def compact(self, *, progress: Any = None) -> None:
        """Make one segment of all, without deleted rows and patches: the smallest and quickest form.

        Parameters
        ----------
        progress : callable, optional
            As for `flush`.
        """
        self._changing()
        self._maintenance.compact(progress)

    def partition_for(
        self, workload: Any, *, field: str | None = None, min_rows: int | None = None, max_parts: int = 16,
        cells: int | None = None, dry_run: bool = False, progress: Any = None,
    ) -> Partition | None:  # fmt: skip
        """Lay segments out for searches like those of a workload, so that each need only look at a part of the rows.

        Rows are divided by tests of the filters in the workload, and by where their vectors lie, and each part becomes
        a segment. A search skips segments in which nothing can pass its filter, or all is farther than what it has
        found: answers stay as good as they were. Later merges keep parts apart; rows that come later are divided once
        they are a quarter of all.

        Parameters
        ----------
        workload : iterable, or None
            Filters of past searches, in any spelling, each as often as it was asked; or searches: dicts as
            `search_many` takes them (with ``query`` or ``where``), or pairs of a query and a filter. A filter of None
            is none. Instead of all, None forgets the layout: segments are merged again as they would be without.
        field : str, optional
            Which vectors the queries are of, where rows have several.
        min_rows : int, optional
            Of a segment, and what a search of one more is taken to cost; a quarter of an even share of the rows and at
            least 5,000 by default.
        max_parts : int, default 16
            Segments at most.
        cells : int, optional
            In which vectors are told apart, where the workload has queries and the metric is l2 or cosine; up to 64 by
            default, none when 0.
        dry_run : bool, default False
            Only say what would become of it.
        progress : callable, optional
            As for `flush`.

        Returns
        -------
        Partition or None
            What was learned, and whether it was applied: a fifth of the workload is held out, and where these searches
            would not be spared at least a twentieth of their cost, and half as much as the others, all stays as it was.
            None for a workload of None.

        Raises
        ------
        InputError
            If the workload is empty, or a search in it would be refused; nothing is changed.

        Notes
        -----
        It is for searches that each need one part, as of one tenant; those without a filter are much slower afterwards,
        as each segment is searched by itself, and those in batches gain little (benchmarks/README.md).

        HQI (Mohoney et al., PACMMOD 2023, https://arxiv.org/abs/2304.01926), with the tree of Yang et al. (SIGMOD 2020,
        section 4). Cells are never skipped on suspicion, as lists of an inverted file are, but by the triangle
        inequality: that spares much where vectors lie in clusters, and little elsewhere. The catalogue keeps the tree,
        and with it constants of filters, until the layout is forgotten or another takes its place.

        Examples
        --------
        >>> import numpy as np, nearly
        >>> docs = nearly.open()
        >>> vectors = np.random.default_rng(0).random((4000, 8))
        >>> _ = docs.add(vectors, metadata={"lang": ["de", "en", "fr", "ja"] * 1000})
        >>> found = docs.partition_for([f"lang = '{lang}'" for lang in ("de", "en", "fr", "ja")] * 10, min_rows=500)
        >>> found.applied, found.rows, found.test_before, found.test_after
        (True, (1000, 1000, 1000, 1000), 1.0, 0.25)
        >>> "3 of 4 segments skipped" in docs.search(vectors[0], where="lang = 'de'").plan
        True
        """
        state = self._state if dry_run else self._changing()
        arrays.check_flag(dry_run, "dry_run")
        arrays.check_callback(progress, "progress")
        if workload is None:
            self._changing()
            self._maintenance.forget_layout()
            return None
        name, limits = state.schema.field_named(field), partitioning.Limits(min_rows, max_parts, cells)
        asked = partitioning.read_workload(state, workload, name, self._parse)
        return partitioning.partition(self._maintenance, lambda: self._state, asked, name, limits, dry_run=dry_run,
                                      progress=progress)  # fmt: skip

    def refresh(self) -> bool:
        """See what another process has written since; of use with ``mode="r"``, and in a forked child.

        Returns
        -------
        bool
            Whether anything changed.
        """
        state, catalogue = self._state, self._writer.catalogue
        if self._manifest is None or catalogue is None:
            return False
        with self._writer.mutex:
            manifest = catalogue.read()
            after = follow(state, self._manifest, manifest, catalogue)
            if after is None:
                known = {stored(part).name: stored(part) for part in state.segments}
                assert isinstance(self._writer.volume, Folder)
                after, manifest = load(catalogue, self._writer.volume, known)
            changed = after.sequence != state.sequence or manifest.sequence != self._manifest.sequence
            changed = changed or [e.name for e in manifest.entries] != [e.name for e in self._manifest.entries]
            self._writer.state, self._manifest = after, manifest
            return changed

    def stats(self) -> Stats:
        """Return sizes, segments, the share of deleted rows and the expected recall."""
        return checking.stats(self._state, self._path, self._maintenance.problem)

    def verify(self, *, erased: Any = None, sample: int = 100) -> Verification:
        """Check everything: checksums, structure, that every graph node is reached, and recall on a sample.

        Parameters
        ----------
        erased : key or array-like of keys, optional
            Keys that `erase` was called for: check that nothing of them is left. That is no row, alive or dead, and in
            no file texts of keys (from 8 bytes on) or pieces of vectors, documents and texts (of 16 bytes, by hashes
            that `erase` recorded). What other rows hold too says nothing; it is counted as ``shared``.
        sample : int, default 100
            Stored vectors that are searched for, and compared with an exact search.

        Returns
        -------
        Verification

        Raises
        ------
        FormatError
            Naming everything that does not fit.
        """
        return checking.verify(self._state, self._writer, self._path, erased, arrays.check_int(sample, "sample", low=0))

    def repair(self) -> list[str]:
        """Mend what can be mended: graphs are built anew from their vectors; segments that are lost are set aside.

        Returns
        -------
        list of str
            What was done; empty where nothing was broken.
        """
        self._changing()
        return checking.repair(self._writer, self._maintenance, self._path)

    def erase(self, ids: Any) -> int:
        """Delete rows and have every byte of them overwritten or removed now, not at some later merge.

        Parameters
        ----------
        ids : key or array-like of keys

        Returns
        -------
        int
            Rows erased. The catalogue keeps a salted hash of each key, as a record that it was erased, and of pieces of
            what its rows held, for `verify`.

        Raises
        ------
        IdError
            If there is nothing of a key, not even a deleted row.

        Notes
        -----
        Rows that were deleted before can be erased too, and an erasure that was broken off is ended by another call. It
        rewrites the segments that held the rows. Snapshots taken before, and blocks that the file system or the
        drive keep of removed files, are beyond its reach.
        """
        self._changing()
        return erasing.erase(self._writer, self._maintenance, ids)

    def snapshot(self, path: str | os.PathLike[str]) -> None:
        """Write a copy of what was committed last into a new folder; writers of this process wait, readers do not.

        Parameters
        ----------
        path : path-like
            A folder that is not there yet.
        """
        if self._path is None:
            raise StateError("a collection in memory has no files; open one with a path and add the rows there")
        self._state  # noqa: B018 - closed?
        checking.snapshot(self._writer, self._path, Path(os.fsdecode(path)).absolute())

    def close(self) -> None:
        """End writing and let go of files. What was written stays written; a second call does nothing."""
        if self._closed:
            return
        self._maintenance.stop()
        with self._writer.mutex:
            self._closed = True
            if self._writer.catalogue is not None:
                self._writer.catalogue.close()
            if self._lock is not None:
                self._lock.release()

    # -- for await ---------------------------------------------------------------------------------------------------

    asearch, asearch_many, arange_search, aexplain = twin(search), twin(search_many), twin(range_search), twin(explain)
    aget, ascan, acount = twin(get), iterator_twin(scan), twin(count)
    aadd, aupsert = twin(Changes.add), twin(Changes.upsert)
    aupdate, adelete = twin(Changes.update), twin(Changes.delete)
    aflush, acompact, apartition_for, arefresh = twin(flush), twin(compact), twin(partition_for), twin(refresh)
    astats, averify, arepair, aerase, asnapshot = twin(stats), twin(verify), twin(repair), twin(erase), twin(snapshot)
    aclose = twin(close)

    def __enter__(self) -> "Collection":
        self._state  # noqa: B018 - closed?
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _close_all() -> None:
    """At the end of Python: threads that still build are told to stop."""
    for collection in list(_OPEN):
        with contextlib.suppress(Exception):
            collection.close()


def _in_a_child() -> None:
    """After fork: the parent has the lock and the connections; the child reads on, from what it holds."""
    for collection in list(_OPEN):
        writer = collection._writer
        writer.mutex = threading.RLock()
        writer.state.tail.in_a_child()
        collection._maintenance = Maintenance(writer, False)
        if writer.catalogue is not None:
            writer.catalogue.abandon()
            if collection._manifest is None:
                collection._manifest = Manifest(writer.state.schema, -1, 0, [], [])  # older than any: all is read
        if collection._lock is not None:
            collection._lock.forget()
            collection._lock = None


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)
