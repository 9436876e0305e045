"""The demonstration: real data, a recall asked for, delivered; the speed beside exact search; a page of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearly import evaluate, get_threads, simd_target
from nearly.cli.corpus import Paragraph, paragraphs, source
from nearly.cli.inputs import make_index, read_queries, read_vectors
from nearly.cli.measure import Measured, Truth, efforts, exact, measure, measured_table, targets
from nearly.cli.output import as_bytes
from nearly.cli.page import page
from nearly.cli.words import Words, count
from nearly.errors import InputError, StateError

__all__ = ["QUESTIONS", "Answer", "Asked", "Report", "Settings", "run"]

Array = NDArray[Any]

QUESTIONS = (
    "copy a directory tree",
    "quote a string for the shell",
    "context manager that ignores exceptions",
    "solve a system of linear equations",
    "square root",
    "run a command and capture its output",
    "convert bytes to hexadecimal",
    "temporary file deleted when closed",
)
_DIM = 192
_LONGEST = 1200  # characters of a paragraph that are read
_K = 10
_SHOWN = 4
_MOST_QUERIES = 1000
_LEAST_VECTORS = 100
_CHECKED = 20  # queries whose truth NumPy computes too


class Answer(NamedTuple):
    """One hit as a person reads it: how near, what, and its text."""

    near: float
    name: str
    text: str


class Asked(NamedTuple):
    """A question and what came."""

    question: str
    answers: list[Answer]


@dataclass(frozen=True)
class Settings:
    """What the command line said."""

    out: Path
    data: Path | None = None
    name: str | None = None
    metric: str | None = None
    queries: Path | None = None
    ask: tuple[str, ...] = ()
    index: str = "auto"
    seed: int = 0
    threads: int | None = None
    limit: int | None = None


@dataclass
class Report:
    """What was found, for the page and for ``--json``.

    ``rows`` are the recall targets and exact search, ``sweep`` the searches of fixed effort; ``seconds`` says what each
    step took.
    """

    source: str
    n_vectors: int
    dim: int
    metric: str
    index: str
    plan: str
    n_queries: int
    queries: str
    truth: str
    k: int
    threads: int
    simd: str
    near: str
    rows: list[Measured]
    sweep: list[Measured]
    asked: list[Asked]
    index_path: str
    page_path: str
    index_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        asked = [{"question": one.question, "answers": [hit._asdict() for hit in one.answers]} for one in self.asked]
        rows = {name: [row.as_dict() for row in getattr(self, name)] for name in ("rows", "sweep")}
        return {**vars(self), "asked": asked, **rows}


@dataclass(frozen=True)
class _Material:
    """Vectors with what a person needs to judge a search among them."""

    source: str
    vectors: Array
    queries: Array | None  # None: some vectors are held out
    metric: str
    texts: list[Paragraph] | None
    embed: Callable[[str], Array] | None


class _Clock:
    """Seconds of each step, said as it ends."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.say = say

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        said: list[str] = []
        started = time.perf_counter()
        yield said.append
        self.seconds[name] = time.perf_counter() - started
        self.say(f"  {name:<8} {' '.join(said)}, {self.seconds[name]:.1f} s")


def run(settings: Settings, say: Callable[[str], None]) -> Report:
    """Run the demonstration, write its page and its index, and return what was found.

    Parameters
    ----------
    settings : Settings
    say : callable
        Called with every line of text for a person.
    """
    clock = _Clock(say)
    material = _documentation(settings, clock) if settings.data is None else _from_file(settings, clock)
    vectors, held = material.vectors, np.zeros(0, np.int64)
    if material.queries is None:
        n_held = min(_MOST_QUERIES, len(vectors) // 10)
        held = np.sort(np.random.default_rng(settings.seed).permutation(len(vectors))[:n_held])
    kept = np.setdiff1d(np.arange(len(vectors)), held)
    queries = vectors[held] if material.queries is None else material.queries[:_MOST_QUERIES]
    with clock.step("build") as done:
        base = vectors[kept] if len(held) else vectors
        ids = kept if len(held) else None  # an id is a row of the file, also where rows were held out
        index = make_index(
            base, settings.index, metric=material.metric, seed=settings.seed, threads=settings.threads, ids=ids
        )
        done(f"{index.plan}, {as_bytes(index.n_bytes)}")
    with clock.step("measure") as done:
        truth = _checked(index, vectors, queries, kept, settings.threads)
        asked = targets() if type(index).__name__ != "Flat" else {}
        steps = efforts(index, queries, _K, truth, threads=settings.threads)
        ways = {**steps, **asked, **exact(index)}
        measured = measure(index, queries, _K, truth, ways, threads=settings.threads, single={*asked, "exact"})
        done(f"{len(queries):,} queries ({_origin(settings, len(held) > 0)})")
    rows, sweep = measured[len(steps) :], measured[: len(steps)]
    answered = [] if material.texts else list(_nearest_rows(index, queries, held))
    if len(held):
        index.add(vectors[held], ids=held, threads=settings.threads)
    if material.texts and material.embed:
        answered = [Asked(question, _found(index, material.embed(question), material.texts))
                    for question in (*settings.ask, *QUESTIONS)]  # fmt: skip

    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "index.nearly"
    index.save(path)
    report = Report(
        source=material.source, n_vectors=len(index), dim=index.dim, metric=index.metric, index=type(index).__name__,
        plan=index.plan, n_queries=len(queries), queries=_origin(settings, len(held) > 0), truth=truth.source, k=_K,
        threads=settings.threads or get_threads(), simd=simd_target(),
        near="score" if material.texts else "distance", rows=rows, sweep=sweep, asked=answered, index_path=str(path),
        page_path=str(settings.out / "report.html"), index_bytes=path.stat().st_size, seconds=clock.seconds,
    )  # fmt: skip
    Path(report.page_path).write_text(page(report), encoding="utf-8")
    for line in _lines(report):
        say(line)
    return report


def _documentation(settings: Settings, clock: _Clock) -> _Material:
    with clock.step("read") as done:
        texts = paragraphs(settings.limit)
        if len(texts) < _LEAST_VECTORS:
            raise InputError(f"{source()} has only {len(texts)} paragraphs here; pass vectors of your own: --data FILE")
        done(f"{source()}: {len(texts):,} paragraphs")
    with clock.step("embed") as done:
        words = Words([_counts(text) for text in texts], dim=_DIM, seed=settings.seed)
        done(f"into {_DIM} dimensions: hashed words and letter groups, random projection, principal components")
    return _Material(source(), words.vectors, None, "cosine", texts, words.embed)


def _counts(paragraph: Paragraph) -> dict[str, float]:
    """The last part of the name counts double, and so does a summary."""
    owner, _, name = paragraph.name.rpartition(".")
    return count((name, 2.0), (owner, 1.0), (paragraph.text[:_LONGEST], 2.0 if paragraph.first else 1.0))


def _from_file(settings: Settings, clock: _Clock) -> _Material:
    assert settings.data is not None
    with clock.step("read") as done:
        vectors, queries, metric = read_vectors(settings.data, name=settings.name, metric=settings.metric)
        if settings.queries is not None:
            queries = read_queries(settings.queries, metric=metric)
        vectors = vectors[: settings.limit]
        if len(vectors) < _LEAST_VECTORS:
            raise InputError(
                f"{settings.data.name} holds {len(vectors)} vectors, but at least {_LEAST_VECTORS} are wanted"
            )
        done(f"{settings.data.name}: {len(vectors):,} vectors of dimension {vectors.shape[1]}, {metric}")
    return _Material(settings.data.name, vectors, queries, metric, None, None)


def _origin(settings: Settings, held: bool) -> str:
    if held:
        return f"{'paragraphs' if settings.data is None else 'rows'} held out of the index"
    return settings.queries.name if settings.queries is not None else "the test set of the file"


def _checked(index: Any, vectors: Array, queries: Array, kept: NDArray[np.int64], threads: int | None) -> Truth:
    """Exact neighbors by the engine, some of them by NumPy too."""
    truth = Truth.by_search(index, queries, _K, threads=threads)
    few = queries[:_CHECKED]
    base = vectors[kept] if len(kept) < len(vectors) else vectors
    ids, distances = evaluate.exact(base, few, _K, metric=index.metric)
    found = Truth(np.where(ids < 0, -1, kept[ids]), distances, "")
    if found.recalls(index.search(few, _K, **exact(index)["exact"])).min() < 1:
        raise StateError("exact search and NumPy found different neighbors; report this with nearly.show_versions()")
    return Truth(truth.ids, truth.distances, f"exact search, that of {len(few)} queries checked by NumPy in float64")


def _found(index: Any, query: Array, texts: Sequence[Paragraph]) -> list[Answer]:
    """The nearest paragraphs, one for each name."""
    hits = index.search(query, 5 * _SHOWN)
    best: dict[str, Answer] = {}
    for hit, score in zip(hits, hits.scores, strict=True):
        paragraph = texts[hit.id]
        best.setdefault(paragraph.name, Answer(float(score), paragraph.name, paragraph.text))
    return list(best.values())[:_SHOWN]


def _nearest_rows(index: Any, queries: Array, held: NDArray[np.int64]) -> Iterator[Asked]:
    for i, hits in enumerate(index.search(queries[:5], _SHOWN)):
        question = f"row {held[i]} of the file" if len(held) else f"query {i}"
        yield Asked(question, [Answer(float(hit.distance), f"row {hit.id}", "") for hit in hits])


def _lines(report: Report) -> Iterator[str]:
    words = report.near == "score"
    yield f"\nAsked, and found ({'cosine, name, paragraph' if words else f'{report.metric} distance, row'})"
    for one in report.asked:
        yield f"  {one.question}"
        width = max((len(answer.name) for answer in one.answers), default=0)
        for answer in one.answers:
            near = f"{answer.near:.3f}" if words else f"{answer.near:8.5g}"
            yield f"    {near}  {answer.name:<{width}}  {answer.text}"[:120].rstrip()
    yield f"\nRecall asked and delivered: {report.n_queries:,} queries ({report.queries}), k = {report.k}"
    yield f"  truth: {report.truth}"
    yield measured_table(report.rows)
    yield f"\nPage   {report.page_path}\nIndex  {report.index_path}, {as_bytes(report.index_bytes)}"
    yield f"Go on  nearly info {report.index_path}\n       nearly bench {report.index_path}"
    yield "       nearly demo --data YOUR_VECTORS.npy"
