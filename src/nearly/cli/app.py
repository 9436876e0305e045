"""The commands for indexes. What they do is in the modules beside this one; here is what they are called."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import typer

import nearly
from nearly import metrics
from nearly.cli import collections, output
from nearly.cli.answers import Parts
from nearly.cli.base import (
    Ask,
    BuildRecall,
    ColumnType,
    Data,
    DataQueries,
    DocumentColumn,
    Effort,
    Exact,
    FieldName,
    File,
    Force,
    IdColumn,
    Include,
    IndexFile,
    Json,
    Kind,
    KindOption,
    Like,
    Limit,
    MaybeQueries,
    MeasureCosts,
    MemoryLimit,
    Metric,
    Name,
    Neighbors,
    Out,
    OutFolder,
    Queries,
    QueryFile,
    Recall,
    Recalls,
    Seed,
    Threads,
    TruthFile,
    TruthName,
    TypedVector,
    Typical,
    VectorColumn,
    Verify,
    Where,
    app,
)
from nearly.cli.inputs import (
    check_kind,
    check_output,
    make_index,
    parse_size,
    parse_vectors,
    read_queries,
    read_truth,
    read_vectors,
)
from nearly.cli.measure import TARGETS, Measured, Truth, efforts, exact, measure, measured_table, probes, targets
from nearly.collection import lines
from nearly.tuning import RecallCurve, costs

__all__ = ["app"]


@app.command()
def build(
    file: File,
    out: Out,
    metric: Metric = None,
    recall: BuildRecall = None,
    index: KindOption = Kind.auto,
    queries: Typical = None,
    memory_limit: MemoryLimit = None,
    name: Name = None,
    seed: Seed = None,
    threads: Threads = None,
    force: Force = False,
    vector: VectorColumn = None,
    id: IdColumn = None,
    document: DocumentColumn = None,
    column: ColumnType = None,
    json: Json = False,
) -> None:
    """Build an index of the vectors in FILE and write it to OUT.

    With --vector or --id the rows of FILE, Parquet or JSON lines, become a collection in the folder OUT.
    """
    rows = any(given is not None for given in (vector, id, document, column))
    if rows or file.suffix.lower() in lines.SUFFIXES:
        unused = {"--index": index is not Kind.auto, "--queries": queries, "--memory-limit": memory_limit,
                  "--name": name, "--threads": threads, "--force": force}  # fmt: skip
        for option, given in unused.items():
            if given:
                raise typer.BadParameter(f"{option} is for an index; a collection (--vector, --id) chooses its own")
        return collections.build(file, out, vector=vector, id=id, document=document, column=column,
                                 metric=metric, recall=recall, seed=seed, json=json)  # fmt: skip
    limit = None if memory_limit is None else parse_size(memory_limit)
    check_kind(index.value, memory_limit=limit, recall=recall, queries=queries, seed=seed)
    check_output(out, force=force)
    vectors, _, found = read_vectors(file, name=name, metric=metric)
    typical = None if queries is None else read_queries(queries, metric=found)
    started = time.perf_counter()
    made = make_index(vectors, index.value, metric=found, recall=recall, queries=typical, memory_limit=limit, seed=seed,
                      threads=threads)  # fmt: skip
    seconds = time.perf_counter() - started
    made.save(out)
    if json:
        print(output.as_json({**_described(made, out), "build_seconds": seconds}))
    else:
        size = output.as_bytes(out.stat().st_size)
        print(f"{out}: {len(made):,} vectors of dimension {made.dim}, {made.metric}, {size}, built in {seconds:.1f} s")
        if file.suffix.lower() == ".parquet":
            output.note("an index holds vectors only; with --vector and --id all columns are kept, in a collection")
        print(f"  {made.plan}")


@app.command()
def search(
    index: IndexFile,
    queries: QueryFile = None,
    vector: TypedVector = None,
    k: Neighbors = 10,
    recall: Recall = None,
    effort: Effort = None,
    exact: Exact = False,
    name: Name = None,
    threads: Threads = None,
    like: Like = None,
    where: Where = None,
    field: FieldName = None,
    include: Include = None,
    json: Json = False,
) -> None:
    """Print the nearest neighbors of queries, one line each; in a collection also of a row that is there."""
    if index.is_dir():
        if effort is not None:
            raise typer.BadParameter("--effort is for an index; a collection takes --recall")
        return collections.search(
            index, like=like, vector=vector, queries=queries, k=k, where=where, field=field, include=include,
            recall=recall, exact=exact, name=name, threads=threads, json=json,
        )  # fmt: skip
    for option, given in (("--like", like), ("--where", where), ("--field", field), ("--include", include)):
        if given is not None:
            raise typer.BadParameter(f"{option} is for collections, and {index} is none; nearly build --id makes one")
    if (queries is None) == (not vector):
        raise typer.BadParameter('pass either --queries FILE or --vector "1,2,3"')
    if sum((recall is not None, effort is not None, exact)) > 1:
        raise typer.BadParameter("--recall, --effort and --exact exclude one another; pass one")
    if name is not None and queries is None:
        raise typer.BadParameter("--name is for --queries FILE")
    opened: Any = nearly.load(index)
    if queries is None:
        rows = parse_vectors(vector or [], metric=opened.metric, dim=opened.dim if len(opened) else None)
    else:
        rows = read_queries(queries, metric=opened.metric, name=name)
    parts = Parts(opened, rows, k, {"threads": threads, **_settings(opened, recall, effort, exact)})
    if json:
        print(f'{{"k": {k}, "metric": {output.as_json(opened.metric)}, "queries": [', end="")
        for first, hits in parts:
            answers = ({"ids": one.ids, "distances": one.distances, "scores": one.scores} for one in hits)
            print(", " * (first > 0) + ", ".join(map(output.as_json, answers)), end="", flush=True)
        about = {"plan": parts.plan, "expected_recall": parts.expected_recall, "seconds": parts.seconds}
        print(f"], {output.as_json(about)[1:]}")
        return
    lines = (
        (
            [str(first + i), str(rank), str(hit.id), f"{hit.distance:.6g}", f"{score:.6g}"]
            for i, one in enumerate(hits)
            for rank, (hit, score) in enumerate(zip(one, one.scores, strict=True))
        )
        for first, hits in parts
    )
    for text in output.table_in_parts(["query", "rank", "id", "distance", "score"], lines, indent=""):
        print(text, flush=True)
    expected = "" if parts.expected_recall is None else f", expected recall {parts.expected_recall:.3f}"
    number = "1 query" if len(rows) == 1 else f"{len(rows):,} queries"
    output.note(f"{number} in {parts.seconds * 1e3:.3g} ms{expected}; {parts.plan}")


def _settings(index: Any, recall: float | None, effort: int | None, exact: bool) -> dict[str, Any]:
    if isinstance(index, nearly.Flat) and effort is not None:
        raise typer.BadParameter("--effort has no meaning for a Flat index, which is always exact")
    chosen = {"recall": recall, "effort": effort, "exact": exact or None}
    return {name: value for name, value in chosen.items() if value is not None}


@app.command()
def info(index: IndexFile, verify: Verify = False, json: Json = False) -> None:
    """Say what an index is, and what effort each recall takes; or what a collection holds."""
    if index.is_dir():
        if verify:
            raise typer.BadParameter("--verify is for an index; nearly verify checks a collection")
        return collections.stats(index, json)
    opened: Any = nearly.load(index, verify=verify)
    about = {**_described(opened, index), "verified": verify, "recall_targets": _efforts_of(opened)}
    if json:
        print(output.as_json(about))
        return
    print(f"{index}: {type(opened).__name__}, {len(opened):,} vectors of dimension {opened.dim}, {opened.metric}")
    print(f"  file    {output.as_bytes(about['file_bytes'])}{', every checksum is right' if verify else ''}")
    print(f"  plan    {opened.plan}")
    rows = [
        [
            f"{row['recall']:g}",
            *((row["effort"], f"{row['expected']:.3f}") if row["met"] else ("exact scan", "1.000")),
        ]
        for row in about["recall_targets"]
    ]
    if rows:
        print(f"  effort for 10 neighbors, calibrated on {opened.curve.n_queries} queries ({opened.curve.source}):")
        print(output.table(["recall", "effort", "expected"], rows, indent="    "))


@app.command(name="costs")
def costs_(measure: MeasureCosts = False, threads: Threads = None, json: Json = False) -> None:
    """Say by what costs filtered searches are planned on this machine, or measure its own and keep them."""
    found = nearly.measure_costs(threads=threads) if measure else costs.current()
    numbers = dataclasses.asdict(found)
    source = str(costs.costs_file()) if measure else "written in the code" if found == costs.WRITTEN else "measured"
    if json:
        print(output.as_json({"source": source, **numbers}))
        return
    print(f"nanoseconds of one comparison, to begin with and for each cache line ({source}):")
    rows = [
        [name, *map("{:g}".format, value if isinstance(value, tuple) else (value,))] for name, value in numbers.items()
    ]
    print(output.table(["what", "begins", "each"], [row + [""] * (3 - len(row)) for row in rows], indent="  "))


def _described(index: Any, path: Path) -> dict[str, Any]:
    about = {"path": str(path), "index": type(index).__name__, "vectors": len(index), "dim": index.dim}
    sizes = {"file_bytes": path.stat().st_size, "index_bytes": index.n_bytes}
    return {**about, "metric": index.metric, **sizes, "plan": index.plan}


def _efforts_of(index: Any) -> list[dict[str, Any]]:
    curve = getattr(index, "curve", None)
    if curve is None:
        return []
    rows: list[dict[str, Any]] = []
    for target in TARGETS:
        if isinstance(curve, RecallCurve):
            choice = curve.choose(10, target)
            about = {"met": choice.met, "effort": choice.effort, "expected": choice.expected}
            reaches = [None if math.isinf(reach) else round(float(reach), 4) for reach in choice.reaches]
            about |= {"widths": choice.widths.tolist(), "reaches": reaches}
        else:  # of lists
            probe = index._contract.probe(index, 10, target, None)
            about = {"met": not probe.scan, "effort": f"reach {100 * probe.reach:.3g} %"}
            about |= {"expected": probe.context.expected_recall, "reaches": [round(float(probe.reach), 4)]}
        rows.append({"recall": target, "k": 10, **about})
    return rows


@app.command()
def evaluate(
    index: IndexFile,
    queries: Queries,
    truth: TruthFile = None,
    k: Neighbors = 10,
    recall: Recalls = None,
    name: Name = None,
    truth_name: TruthName = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure the recall that an index delivers for QUERIES, beside what was asked."""
    if truth_name is not None and truth is None:
        raise typer.BadParameter("--truth-name is for --truth FILE")
    opened: Any = nearly.load(index)
    rows = read_queries(queries, metric=opened.metric, name=name)
    if truth is None:
        known = Truth.by_search(opened, rows, k, threads=threads)
    else:
        known = Truth.by_ids(opened, rows, k, read_truth(truth, metric=opened.metric, name=truth_name), truth.name)
    if recall and isinstance(opened, nearly.Flat):
        raise typer.BadParameter("--recall has no meaning for a Flat index, which is always exact")
    asked = {} if isinstance(opened, nearly.Flat) else targets(recall or TARGETS)
    measured = measure(opened, rows, k, known, {**asked, **exact(opened)}, threads=threads)
    _print_measured(opened, measured, len(rows), k, known, json)


@app.command()
def bench(
    index: IndexFile,
    queries: MaybeQueries = None,
    k: Neighbors = 10,
    name: Name = None,
    threads: Threads = None,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Measure speed against recall of an index at rising effort, beside exact search.

    Other libraries are measured beside this one in one run by benchmarks/ of the source: make bench Q=peers.
    """
    if name is not None and queries is None:
        raise typer.BadParameter("--name is for QUERIES")
    if seed is not None and queries is not None:
        raise typer.BadParameter("--seed is for queries that are made; leave it out")
    opened: Any = nearly.load(index)
    bits = metrics.METRICS[opened.metric].input == "bits"
    how = "with one bit in fifty flipped" if bits else "moved half as far as their 10th neighbor is away"
    made = f"made: stored vectors {how}" if queries is None else ""
    if queries is None:
        rows = probes(opened, 500, seed=seed or 0)
    else:
        rows = read_queries(queries, metric=opened.metric, name=name)
    known = Truth.by_search(opened, rows, k, threads=threads)
    ways = {**efforts(opened, rows, k, known, threads=threads), **exact(opened)}
    _print_measured(opened, measure(opened, rows, k, known, ways, threads=threads), len(rows), k, known, json, made)
    if not json:
        print("  beside other libraries: make bench Q=peers, in the source of nearly")


def _print_measured(
    index: Any, rows: list[Measured], n_queries: int, k: int, truth: Truth, json: bool, made: str = ""
) -> None:
    if json:
        about = {"index": type(index).__name__, "vectors": len(index), "metric": index.metric, "k": k}
        asked = {"queries": n_queries, "queries_made": bool(made), "truth": truth.source}
        measured = {"threads": nearly.get_threads(), "rows": [row.as_dict() for row in rows]}
        print(output.as_json({**about, **asked, **measured}))
        return
    queries = f"{n_queries:,} queries{f' ({made})' if made else ''}"
    print(f"{type(index).__name__}: {len(index):,} vectors of dimension {index.dim}, {index.metric}")
    print(f"  {queries}, k = {k}; truth: {truth.source}")
    print(measured_table(rows))


@app.command()
def demo(
    data: Data = None,
    ask: Ask = None,
    out: OutFolder = Path("nearly-demo"),
    metric: Metric = None,
    queries: DataQueries = None,
    name: Name = None,
    index: KindOption = Kind.auto,
    seed: Seed = None,
    threads: Threads = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Index real data, ask for recall, see it delivered: the documentation inside this Python, or --data FILE.

    Nothing is downloaded. Writes nearly-demo/report.html and nearly-demo/index.nearly, or where --out says.
    """
    if data is None:
        for option, value in (("--metric", metric), ("--queries", queries), ("--name", name)):
            if value is not None:
                raise typer.BadParameter(f"{option} is for --data FILE")
    elif ask:
        raise typer.BadParameter("--ask is for the documentation, which has words; leave --data out")
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is a file; name a folder")
    from nearly.cli.demo import Settings, run  # late: it reads and measures, and the others need nothing of it

    settings = Settings(
        out=out,
        data=data,
        name=name,
        metric=metric,
        queries=queries,
        ask=tuple(ask or ()),
        index=index.value,
        seed=seed or 0,
        threads=threads,
        limit=limit,
    )
    report = run(settings, (lambda line: None) if json else print)
    if json:
        print(output.as_json(report.as_dict()))
