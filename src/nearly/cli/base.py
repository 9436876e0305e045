"""The application, and the options that its commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import nearly
from nearly import arrays, metrics
from nearly.cli.inputs import parse_size

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 failed (unusable data, a damaged or missing file), 2 wrong usage.",
)


class Kind(StrEnum):
    """Values of --index."""

    auto = "auto"
    vamana = "vamana"
    hnsw = "hnsw"
    ivf = "ivf"
    flat = "flat"


def _known_metric(name: str | None) -> str | None:
    try:
        return name and metrics.get(name).name
    except nearly.InputError as problem:
        raise typer.BadParameter(str(problem)) from problem


def _known_recall(recall: Any) -> Any:
    try:
        for one in recall if isinstance(recall, list | tuple) else [] if recall is None else [recall]:
            arrays.check_fraction(one, "recall")
    except nearly.InputError as problem:
        raise typer.BadParameter(str(problem)) from problem
    return recall


def _known_size(text: str | None) -> str | None:
    if text is not None:
        parse_size(text)
    return text


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Folder = Annotated[Path, typer.Argument(help="The folder of a collection.")]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys of rows.")]
Where = Annotated[
    str | None, typer.Option(metavar="SQL", help="Only rows that match: \"year >= 2020 AND lang = 'en'\".")
]
VectorColumn = Annotated[str | None, typer.Option("--vector", help="The column of a table that holds vectors.")]
IdColumn = Annotated[str | None, typer.Option("--id", help="The column of a table that holds keys.")]
DocumentColumn = Annotated[str | None, typer.Option("--document", help="The column of a table that holds documents.")]
ColumnType = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME=TYPE", help="A column's type, where values do not say it; may be repeated."),
]
Like = Annotated[str | None, typer.Option(metavar="KEY", help="Rows like the one with this key (collections).")]
FieldName = Annotated[str | None, typer.Option("--field", help="Which vectors, where rows have several (collections).")]
Include = Annotated[list[str] | None, typer.Option(help="A column to show; may be repeated (collections).")]
IndexFile = Annotated[Path, typer.Argument(help="An index that build or index.save wrote, or a collection.")]
MeasureCosts = Annotated[
    bool,
    typer.Option("--measure", help="Measure this machine (ten seconds, best while nothing else runs) and keep it."),
]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Default: all cores.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Same seed, same bytes. Default: 0.")]
Neighbors = Annotated[int, typer.Option("-k", min=1, help="Neighbors wanted.")]
Name = Annotated[str | None, typer.Option(help="Which array, where the file holds several (HDF5, npz, Parquet).")]
TruthName = Annotated[str | None, typer.Option(help="Which array of the --truth file.")]
Metric = Annotated[
    str | None,
    typer.Option(callback=_known_metric, help=f"{', '.join(metrics.METRICS)}. Default: what the file says, else l2."),
]
KindOption = Annotated[Kind, typer.Option("--index", help="auto chooses, and says why.")]
File = Annotated[
    Path, typer.Argument(help="Vectors: npy, npz, fvecs, bvecs, fbin, u8bin, i8bin, hdf5, parquet; rows: also jsonl.")
]
Out = Annotated[Path, typer.Argument(help="The index, or the folder of a collection, to write.")]
BuildRecall = Annotated[
    float | None,
    typer.Option("--recall", callback=_known_recall, help="What searches deliver on average. Default: 0.95."),
]
Recall = Annotated[
    float | None,
    typer.Option(callback=_known_recall, help="Share of the true neighbors to find. Default: as built."),
]
Recalls = Annotated[
    list[float] | None,
    typer.Option("--recall", callback=_known_recall, help="May be repeated. Default: 0.8, 0.9, 0.95, 0.99."),
]
Effort = Annotated[int | None, typer.Option(min=1, help="Candidates to keep, instead of a recall.")]
Exact = Annotated[bool, typer.Option("--exact", help="Compare with every vector.")]
MemoryLimit = Annotated[
    str | None,
    typer.Option(metavar="SIZE", callback=_known_size, help="What building may take beyond the input: 500MB, 2GiB."),
]
Typical = Annotated[Path | None, typer.Option("--queries", help="Queries like those to come, for calibration.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT even where it is no index.")]
QueryFile = Annotated[Path | None, typer.Option("--queries", help="A file of queries.")]
TypedVector = Annotated[
    list[str] | None, typer.Option(metavar='"1,2,3"', help="A query; may be repeated. For a collection also a file.")
]
Verify = Annotated[bool, typer.Option("--verify", help="Check every byte against its checksum.")]
Queries = Annotated[Path, typer.Argument(help="A file of queries.")]
MaybeQueries = Annotated[Path | None, typer.Argument(help="Default: 500 made from the stored vectors.")]
TruthFile = Annotated[
    Path | None, typer.Option(help="Ids of the true neighbors, a row per query. Default: exact search.")
]
Data = Annotated[Path | None, typer.Option(help="Your own vectors, in any file that build reads.")]
DataQueries = Annotated[
    Path | None, typer.Option("--queries", help="Queries for --data. Default: those in the file, or rows held out.")
]
Ask = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A question in words; may be repeated. Not with --data."),
]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder for the page and the index.")]
Limit = Annotated[int | None, typer.Option(min=1, hidden=True)]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Vector search that is as accurate as you ask."""
    if version:
        print(f"nearly {nearly.__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
