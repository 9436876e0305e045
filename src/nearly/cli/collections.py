"""The commands for collections, the folders of `nearly.open`.

`build`, `search` and `info` of app.py serve both indexes and collections, and call what stands here for the latter.
"""

import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

import nearly
from nearly.cli import output
from nearly.cli.base import (
    ColumnType,
    DocumentColumn,
    FieldName,
    Folder,
    IdColumn,
    Json,
    Keys,
    VectorColumn,
    Where,
    app,
)
from nearly.cli.inputs import parse_vectors, read_json_lines, read_queries
from nearly.errors import FormatError, InputError
from nearly.filters.columns import TYPES

__all__ = ["build", "search", "stats"]

_WIDE = 44  # characters of a value in a table for people
_EXPORTED = 4096  # rows at a time
_UNSAID = ("date", "datetime", "json")  # types that JSON lines do not say
Out = Annotated[Path, typer.Argument(help="A folder that is not there yet.")]
Table = Annotated[Path, typer.Argument(help="Rows: Parquet, or .jsonl or .ndjson with an object a line.")]


def build(
    file: Path, out: Path, *, vector: str | None, id: str | None, document: str | None, column: list[str] | None,
    metric: str | None, recall: float | None, seed: int | None, json: bool,
) -> None:  # fmt: skip
    """Make a collection of the rows of a file; the folder is gone again where that fails."""
    if out.exists():
        raise typer.BadParameter(f"{out} is there already; name a new folder, or nearly add rows to that collection")
    started = time.perf_counter()
    docs = nearly.open(out, metric=metric, recall=recall, seed=seed or 0, mode="x", columns=_types(column))
    try:
        with docs:
            docs.add(str(file), **_columns(docs, vector, id, document))
            docs.flush()
            described = _described(docs, out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    _say_what_came(described, time.perf_counter() - started, json)


@app.command()
def add(
    collection: Folder,
    file: Table,
    vector: VectorColumn = None,
    id: IdColumn = None,
    document: DocumentColumn = None,
    column: ColumnType = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace rows whose keys are there.")] = False,
    json: Json = False,
) -> None:
    """Add the rows of a file to a collection."""
    started = time.perf_counter()
    with _writing(collection, _types(column)) as docs:
        put = docs.upsert if upsert else docs.add
        put(str(file), **_columns(docs, vector, id, document))
        docs.flush()
        described = _described(docs, collection)
    _say_what_came(described, time.perf_counter() - started, json)


def _columns(docs: Any, vector: str | None, id: str | None, document: str | None) -> dict[str, Any]:
    named = {"vector": vector, "id": id, "document": document}
    if vector is not None and len(docs.fields) > 1:
        raise typer.BadParameter(f"--vector: the fields {', '.join(docs.fields)} take the columns of their names")
    return {name: column for name, column in named.items() if column is not None}


def _types(column: list[str] | None) -> dict[str, str] | None:
    """What --column NAME=TYPE says."""
    made = {}
    for text in column or ():
        name, equals, kind = text.rpartition("=")
        if not equals or kind not in TYPES:
            raise typer.BadParameter(f"--column {text}: write NAME=TYPE, with a type of {', '.join(TYPES)}")
        made[name] = kind
    return made or None


def _say_what_came(described: Mapping[str, Any], seconds: float, json: bool) -> None:
    if json:
        print(output.as_json({**described, "seconds": seconds}))
        return
    print(
        f"{described['path']}: {described['rows']:,} rows, {output.as_bytes(described['disk_bytes'])}, {seconds:.1f} s"
    )
    _print_columns(described)


# -- searching ----------------------------------------


def search(
    path: Path, *, like: str | None, vector: list[str] | None, queries: Path | None, k: int, where: str | None,
    field: str | None, include: list[str] | None, recall: float | None, exact: bool, name: str | None,
    threads: int | None, json: bool,
) -> None:  # fmt: skip
    """Print the nearest rows of a key, of vectors, or of a file of queries."""
    if sum((like is not None, bool(vector), queries is not None)) != 1:
        raise typer.BadParameter('pass one of --like KEY, --vector "1,2,3" (or a file), and --queries FILE')
    with _reading(path) as docs:
        of, key = field or next(iter(docs.fields)), None
        if like is not None:
            (key,) = _keys(docs, [like])
            rows = docs.get(key, include=(of,)).vector[None]
        else:
            rows = _queries(docs.fields[of], vector, queries, name)
        started = time.perf_counter()
        hits = docs.search(rows, k if like is None else k + 1, where=where, field=field, recall=recall, exact=exact,
                           include=include, threads=threads)  # fmt: skip
        seconds = time.perf_counter() - started
        answers = [_answer(one, k, key) for one in hits]
        about = {"plan": hits.plan, "expected_recall": hits.expected_recall, "seconds": seconds}
        metric = docs.fields[of].metric
    if json:
        print(output.as_json({"k": k, "metric": metric, "queries": answers, **about}))
        return
    names = list(answers[0]["metadata"]) if answers else []
    lines = [
        [str(query), str(rank), str(one["ids"][rank]), f"{one['distances'][rank]:.6g}", f"{one['scores'][rank]:.6g}"]
        + [_short(one["metadata"][name][rank]) for name in names]
        for query, one in enumerate(answers)
        for rank in range(len(one["ids"]))
    ]
    print(output.table(["query", "rank", "id", "distance", "score", *names], lines, indent=""))
    expected = "" if hits.expected_recall is None else f", expected recall {hits.expected_recall:.3f}"
    number = "1 query" if len(answers) == 1 else f"{len(answers):,} queries"
    output.note(f"{number} in {seconds * 1e3:.3g} ms{expected}; {hits.plan}")


def _queries(field: Any, vector: list[str] | None, queries: Path | None, name: str | None) -> Any:
    if queries is None and vector and len(vector) == 1 and Path(vector[0]).is_file():
        queries, vector = Path(vector[0]), None
    if queries is not None:
        return read_queries(queries, metric=field.metric, name=name)
    return parse_vectors(vector or [], metric=field.metric, dim=field.dim)


def _answer(hits: Any, k: int, without: Any) -> dict[str, Any]:
    """One answer as plain values, without the row that was the query."""
    kept = [i for i, key in enumerate(hits.ids.tolist()) if key != without and i < hits.counts][:k]
    columns = {name: [values[i] for i in kept] for name, values in hits.metadata.items()}
    numbers = {name: getattr(hits, name)[kept].tolist() for name in ("ids", "distances", "scores")}
    return {**numbers, "metadata": columns}


# -- reading ----------------------------------------


@app.command()
def get(
    collection: Folder,
    keys: Keys = None,
    where: Where = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Rows at most. Default: 100 where no keys are given.")
    ] = None,
    offset: Annotated[int, typer.Option(min=0, help="Rows to pass over.")] = 0,
    vectors: Annotated[bool, typer.Option("--vectors", help="Their vectors too, with --json.")] = False,
    json: Json = False,
) -> None:
    """Print rows by their keys, or those that match, or the first ones."""
    with _reading(collection) as docs:
        include = ("metadata", "document", *(docs.fields if vectors else ()))
        if keys:
            if where is not None or limit is not None or offset:
                raise typer.BadParameter("keys exclude --where, --limit and --offset")
            rows = docs.get(_keys(docs, keys), include=include)
        else:
            rows = docs.get(where=where, limit=100 if limit is None else limit, offset=offset, include=include)
        if json:
            print(output.as_json({"rows": [_as_dict(row, docs) for row in rows]}))
            return
        names = list(docs.columns)
        documents = any(row.document is not None for row in rows)
        lines = [
            [str(row.id), *(_short(row.metadata[name]) for name in names)] + [_short(row.document)] * documents
            for row in rows
        ]
    print(output.table(["id", *names, *["document"] * documents], lines, left=1, indent=""))


def _as_dict(row: Any, docs: Any) -> dict[str, Any]:
    """A row with its columns beside the key, as JSON has it."""
    made = {"id": row.id, **row.metadata}
    if row.document is not None:
        made["document"] = row.document
    if row.vector is not None:
        made |= row.vector if isinstance(row.vector, Mapping) else {next(iter(docs.fields)): row.vector}
    return made


@app.command()
def count(collection: Folder, where: Where = None, json: Json = False) -> None:
    """Say how many rows there are, or match."""
    with _reading(collection) as docs:
        n = docs.count(where)
    print(output.as_json({"count": n}) if json else n)


@app.command()
def stats(collection: Folder, json: Json = False) -> None:
    """Say how large a collection is, on the disk and in memory, and what is in it."""
    with _reading(collection) as docs:
        described = _described(docs, collection)
    if json:
        print(output.as_json(described))
        return
    print(f"{described['path']}: {described['rows']:,} rows")
    print(f"  disk      {output.as_bytes(described['disk_bytes'])}")
    print(f"  memory    {output.as_bytes(described['memory_bytes'])}, most of it mapped files")
    sizes = ", ".join(f"{n:,}" for n in described["segments"]) or "none"
    print(f"  segments  {sizes}; {described['fresh']:,} fresh rows, {described['deleted']:.1%} deleted")
    if described["expected_recall"] is not None:
        print(f"  recall    {described['expected_recall']:.3f} expected")
    _print_columns(described)
    if described["problem"]:
        print(f"  problem   {described['problem']}")


def _print_columns(described: Mapping[str, Any]) -> None:
    fields = ", ".join(f"{name} ({about})" for name, about in described["fields"].items())
    columns = ", ".join(f"{name} {kind}" for name, kind in described["columns"].items()) or "none"
    print(f"  vectors   {fields}\n  columns   {columns}")


def _described(docs: Any, path: Path) -> dict[str, Any]:
    found = docs.stats()
    names = ("rows", "fresh", "segments", "deleted", "disk_bytes", "memory_bytes", "expected_recall", "problem")
    fields = {
        name: f"{each.metric}, {'no' if each.dim is None else each.dim} dimensions"
        for name, each in docs.fields.items()
    }
    return {"path": str(path), **{n: getattr(found, n) for n in names}, "fields": fields, "columns": docs.columns}


@app.command()
def export(
    collection: Folder,
    file: Annotated[Path, typer.Argument(help="What to write: .parquet (needs pyarrow) or .jsonl.")],
    where: Where = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it is there.")] = False,
    json: Json = False,
) -> None:
    """Write the rows of a collection, vectors and documents included, into one file that any tool can read."""
    writer = {".parquet": _write_parquet, ".jsonl": _write_json}.get(file.suffix.lower())
    if writer is None:
        raise typer.BadParameter(f"{file} ends in {file.suffix!r}; write .parquet or .jsonl")
    if file.exists() and not force:
        raise typer.BadParameter(f"{file} is there already; choose another name, or --force")
    with _reading(collection) as docs:
        include = ("metadata", "document", *docs.fields)
        part = file.with_name(file.name + ".part")
        try:
            n = writer(part, docs, docs.scan(_EXPORTED, where=where, include=include))
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        columns = docs.columns
    size = file.stat().st_size
    if json:
        print(output.as_json({"path": str(file), "rows": n, "file_bytes": size, "columns": columns}))
        return
    print(f"{file}: {n:,} rows, {output.as_bytes(size)}")
    unsaid = [f"--column {shlex.quote(f'{name}={kind}')}" for name, kind in columns.items() if kind in _UNSAID]
    if unsaid and writer is _write_json:
        output.note(f"JSON does not say types; nearly build and add read them with {' '.join(unsaid)}")


def _write_parquet(path: Path, docs: Any, batches: Iterator[Any]) -> int:
    try:
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise ImportError('writing Parquet needs pyarrow: pip install "nearly[arrow]"; or write .jsonl') from problem
    writer, n = None, 0
    try:
        for rows in batches:
            table = rows.to_arrow()
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
            n += len(rows)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise InputError("no row matches, so there is nothing to write")
    return n


def _write_json(path: Path, docs: Any, batches: Iterator[Any]) -> int:
    n = 0
    with path.open("w", encoding="utf-8") as file:
        for rows in batches:
            for row in rows:
                print(output.as_json(_as_dict(row, docs)), file=file)
            n += len(rows)
    return n


# -- changing and upkeep ----------------------------------------


@app.command()
def delete(collection: Folder, keys: Keys = None, where: Where = None, json: Json = False) -> None:
    """Delete rows by their keys, or those that match."""
    if bool(keys) == (where is not None):
        raise typer.BadParameter("pass keys or --where, one of them")
    with _writing(collection) as docs:
        n = docs.delete(_keys(docs, keys)) if keys else docs.delete(where=where)
    print(output.as_json({"deleted": n}) if json else f"{n:,} rows deleted")


@app.command()
def erase(collection: Folder, keys: Keys = None, json: Json = False) -> None:
    """Delete rows so that no byte of them is left in any file."""
    if not keys:
        raise typer.BadParameter("pass the keys to erase")
    with _writing(collection) as docs:
        n = docs.erase(_keys(docs, keys))
    print(output.as_json({"erased": n}) if json else f"{n:,} rows erased")


@app.command()
def verify(
    collection: Folder,
    erased: Annotated[list[str] | None, typer.Option(metavar="KEY", help="Check that nothing of it is left.")] = None,
    json: Json = False,
) -> None:
    """Check every file of a collection, that graphs reach all rows, and recall on a sample."""
    with _reading(collection) as docs:
        found = docs.verify(erased=_keys(docs, erased) if erased else None)
    facts = {"rows": found.rows, "segments": found.segments, "files": found.files, "bytes": found.n_bytes,
             "recall": found.recall, "erased": found.erased, "pieces": found.pieces,
             "shared": found.shared}  # fmt: skip
    if json:
        print(output.as_json(facts))
        return
    recall = "" if found.recall is None else f", recall {found.recall:.3f} on a sample"
    gone = f", {found.erased:,} erased keys found nowhere" if erased else ""
    size = output.as_bytes(found.n_bytes)
    print(f"{collection}: {found.rows:,} rows in {found.files:,} files, {size}, all in order{recall}{gone}")


@app.command()
def repair(collection: Folder, json: Json = False) -> None:
    """Mend a damaged collection as far as it can be: say what was done."""
    try:
        opened, done = _writing(collection), []
    except FormatError:  # what is damaged keeps it shut
        done = nearly.collection.mend(collection)
        opened = _writing(collection)
    with opened as docs:
        done += docs.repair()
    print(output.as_json({"done": done}) if json else "\n".join(done) or "nothing is broken")


@app.command()
def compact(collection: Folder, json: Json = False) -> None:
    """Make one segment of all, without what was deleted: the smallest and quickest form."""
    with _writing(collection) as docs:
        before = docs.stats().disk_bytes
        docs.compact()
        after = docs.stats().disk_bytes
    if json:
        print(output.as_json({"disk_bytes_before": before, "disk_bytes": after}))
    else:
        print(f"{collection}: {output.as_bytes(before)} before, {output.as_bytes(after)} now")


@app.command()
def layout(
    collection: Folder,
    workload: Annotated[
        Path | None,
        typer.Option(
            help='JSON lines: a filter each (SQL in quotes, or an object), or {"query": [...], "where": ...}.'
        ),
    ] = None,
    field: FieldName = None,
    min_rows: Annotated[int | None, typer.Option(min=1, help="Rows of a segment at least.")] = None,
    max_parts: Annotated[int, typer.Option(min=2, help="Segments at most.")] = 16,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of it.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Merge segments again as if there were no layout.")] = False,
    json: Json = False,
) -> None:
    """Lay segments out for searches like those of a past workload, so that each reads less."""
    if forget == (workload is not None):
        raise typer.BadParameter("pass --workload FILE or --forget, one of them")
    searches = None if workload is None else read_json_lines(workload)
    with _reading(collection) if dry_run else _writing(collection) as docs:
        found = docs.partition_for(searches, field=field, min_rows=min_rows, max_parts=max_parts, dry_run=dry_run)
    if found is None:
        print(output.as_json({"forgotten": True}) if json else f"{collection}: no layout any more")
        return
    if json:
        print(output.as_json(vars(found)))
        return
    lines = [[f"{n:,}", what] for n, what in zip(found.rows, found.leaves, strict=True)]
    print(output.table(["rows", "segment"], lines, indent=""))
    learned = f"searches learned from read {found.train_before:.1%} of all rows before, {found.train_after:.1%} by this"
    print(f"{'laid out' if found.applied else 'not laid out'}: {found.reason}; {learned}")


@app.command()
def snapshot(collection: Folder, out: Out, json: Json = False) -> None:
    """Copy a collection as it is at this moment into another folder."""
    with _reading(collection) as docs:
        docs.snapshot(out)
        n = len(docs)
    print(output.as_json({"path": str(out), "rows": n}) if json else f"{out}: {n:,} rows")


# -- what they share ----------------------------------------


def _reading(path: Path) -> Any:
    return closing(nearly.open(_folder(path), mode="r"))


def _writing(path: Path, columns: Mapping[str, str] | None = None) -> Any:
    return closing(nearly.open(_folder(path), columns=columns))


def _folder(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"there is no collection at {str(path)!r}; nearly build makes one")
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is a file, but the folder of a collection is wanted")
    return path


def _keys(docs: Any, texts: list[str]) -> list[Any]:
    """Keys as they are typed: numbers in a collection whose keys are numbers."""
    first = next(iter(docs.scan(1, include=())), None)
    if first is None or first.ids.dtype == object:
        return list(texts)
    wrong = [text for text in texts if not text.isdecimal()]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is no key of this collection, whose keys are numbers")
    return [int(text) for text in texts]


def _short(value: Any) -> str:
    if value is None:
        return ""
    value = value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
    text = " ".join((value if isinstance(value, str) else output.as_json(value).strip('"')).split())
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"
