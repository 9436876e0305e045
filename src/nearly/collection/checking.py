"""Is everything there: verify, repair, snapshot, statistics. What should be gone is in erasing.py."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearly import metrics
from nearly.arrays.words import listing
from nearly.collection import bits, erasing
from nearly.collection.catalogue import NAME, Catalogue
from nearly.collection.keys import Key
from nearly.collection.maintenance import Maintenance
from nearly.collection.parts import Part
from nearly.collection.queries import Question, search
from nearly.collection.state import State, stored
from nearly.collection.volumes import Folder, files_in, names_of, sync_folder
from nearly.collection.writing import Writer
from nearly.errors import FormatError, InputError, NearlyError
from nearly.indexes import Index, build

__all__ = ["Stats", "Verification", "repair", "snapshot", "stats", "verify"]


_VECTORS = ("vectors", "ids", "nodes", "first_rows", "last_rows", "next_rows")  # of which the rest can be made


@dataclass(frozen=True)
class Stats:
    """Sizes of a collection.

    Attributes
    ----------
    rows, fresh : int
        Rows that are there, and those of them that no segment holds yet.
    segments : tuple of int
        Rows of each.
    deleted : float
        Share of rows in segments that are deleted and take space until a merge.
    disk_bytes : int
        Of all files.
    memory_bytes : int
        Of indexes and rows, most of it mapped files, of which the system keeps in memory what is used.
    expected_recall : float or None
        Of a search at the target of the collection; None where nothing is known.
    problem : str or None
        What the background thread could not do.
    promised, read : float or None
        The share of rows in segments that a search could not skip, on the mean: as `partition_for` foretold, and of all
        searches since the collection was opened. Once the second is half as much again, learn from newer searches.

    Examples
    --------
    >>> import nearly
    >>> nearly.open().stats().rows
    0
    """

    rows: int
    fresh: int
    segments: tuple[int, ...]
    deleted: float
    disk_bytes: int
    memory_bytes: int
    expected_recall: float | None
    problem: str | None = None
    promised: float | None = None
    read: float | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify` looked at.

    Attributes
    ----------
    rows, segments, files, n_bytes : int
        Checked.
    recall : float or None
        Share of true neighbors found on the sample; None where nothing is approximate.
    erased : int
        Keys of which nothing is left.
    pieces : int
        Of their vectors and texts, that were looked for in every file; 0 where an early version erased them.
    shared : int
        Pieces among these, and keys, that other rows have as well, so that their rows alone are proof.

    Examples
    --------
    >>> Verification(3, 1, 2, 4096).recall is None
    True
    """

    rows: int
    segments: int
    files: int
    n_bytes: int
    recall: float | None = None
    erased: int = 0
    pieces: int = 0
    shared: int = 0


def stats(state: State, path: Path | None, problem: BaseException | None) -> Stats:
    """Sizes of a state."""
    total = sum(part.n for part in state.segments)
    alive = sum(part.n_alive for part in state.segments)
    memory = state.tail.n_bytes
    for part in state.segments:
        memory += stored(part).rows.n_bytes + sum(stored(part).index(name).n_bytes for name in state.schema.fields)
    recall: float | None = 1.0
    if state.parts and len(state):
        name = next(iter(state.schema.fields))
        field_ = state.schema.fields[name]
        probe = np.zeros((1, field_.dim or 1), np.uint8 if field_.bits else np.float32)
        recall = search(replace(state, layout=None), probe, 10, Question(name, None, {}, (), {})).expected_recall
    return Stats(
        len(state), state.fresh.n_alive, tuple(part.n_alive for part in state.segments),
        1 - alive / total if total else 0.0, sum(size for _, size in files_in(path)), memory, recall,
        None if problem is None else repr(problem),
        *((None, None) if state.layout is None else (state.layout.promised, state.layout.meter.share)),
    )  # fmt: skip


# -- verify ----------------------------------------------------------------------------------------------------------


def verify(state: State, writer: Writer, path: Path | None, erased: Any, sample: int) -> Verification:
    """Check a state and its files; FormatError with everything that was found."""
    problems: list[str] = []
    n_files = n_bytes = 0
    if writer.catalogue is not None:
        with writer.mutex:
            _note(problems, writer.catalogue.check)
    seen: set[Key] = set()
    for part in state.segments:
        found = _part_problems(state, part)
        problems += found
        if not found:
            keys = part.keys_of(part.rows())
            twice = [key for key in keys if key in seen]
            seen.update(keys)
            if twice:
                problems.append(f"the keys {listing(twice)} are alive in two segments")
        if isinstance(writer.volume, Folder):
            n_files += len(names_of(stored(part).files))
            n_bytes += _bytes_of(stored(part).files)
    fresh = state.fresh.keys_of(state.fresh.rows())
    if twice := [key for key in fresh if key in seen] or (["?"] if len(set(fresh)) < len(fresh) else []):
        problems.append(f"the keys {listing(twice)} are alive twice")
    recall = None
    if not problems:
        recall = _sampled_recall(state, sample, problems)
    gone = None if erased is None else erasing.look_for(state, writer, path, erased)
    problems += gone.problems if gone is not None else []
    if problems:
        raise FormatError("; ".join(problems))
    about = () if gone is None else (gone.keys, gone.pieces, gone.shared)
    return Verification(len(state), len(state.segments), n_files, n_bytes, recall, *about)


def _note(problems: list[str], step: Any) -> None:
    try:
        step()
    except NearlyError as problem:
        problems.append(str(problem))


def _part_problems(state: State, part: Part) -> list[str]:
    problems: list[str] = []
    source = stored(part)
    for opened in source.opened:
        _note(problems, opened.verify)
    _note(problems, source.rows.check)
    for name in state.schema.fields:

        def check(name: str = name) -> None:
            index: Any = source.index(name)
            index.verify()
            if len(index) != source.n:
                raise FormatError(f"segment {source.name} has {source.n} rows and {len(index)} vectors of {name!r}")
            balls, metric = source.rows.balls.get(name), metrics.named(state.schema.fields[name].metric)
            if balls is not None and not balls.hold(metric, part.vectors(name, np.arange(part.n)).as_float32()):
                raise FormatError(f"segment {source.name} has vectors of {name!r} outside of their balls")

        _note(problems, check)
    if bits.count(part.alive) != part.n_alive:
        problems.append(f"segment {source.name} counts {part.n_alive} living rows, but has {bits.count(part.alive)}")
    return problems


def _bytes_of(files: Any) -> int:
    return int(files["rows"]["bytes"]) + sum(int(each["bytes"]) for each in files["fields"].values())


def _sampled_recall(state: State, sample: int, problems: list[str]) -> float | None:
    """Recall of stored vectors as queries, which find themselves too easily: the other neighbors are compared."""
    if not sample or not len(state):
        return None
    worst: float | None = None
    state = replace(state, layout=None)  # these are no searches of anybody
    rng = np.random.default_rng(state.schema.seed)
    for name in state.schema.fields:
        large = [part for part in state.segments if type(stored(part).index(name)).__name__ != "Flat" and part.n_alive]
        for part in large:
            rows = rng.choice(part.rows(), min(sample, part.n_alive), replace=False)
            probes = part.vectors(name, np.sort(rows))
            queries = probes.array if probes.kind == "bits" else probes.as_float32()
            asked = Question(name, None, {}, (), {})
            found = search(state, queries, 11, asked)
            exact = search(state, queries, 11, Question(name, None, {"exact": True}, (), {}))
            limit = exact.distances[:, -1:] * (1 + 1e-6) + 1e-6 * np.sign(exact.distances[:, -1:])
            recall = float((found.distances <= np.maximum(limit, exact.distances[:, -1:])).mean())
            worst = recall if worst is None else min(worst, recall)
            if recall < state.schema.recall - 0.1:
                problems.append(
                    f"segment {stored(part).name} finds {recall:.3f} of the neighbors of {len(rows)} stored vectors, "
                    f"but {state.schema.recall:g} is its target; call compact()"
                )
    return worst


# -- repair ----------------------------------------------------------------------------------------------------------


def repair(writer: Writer, maintenance: Maintenance, path: Path | None) -> list[str]:
    """Build anew what can be, set aside what cannot."""
    done: list[str] = []
    with writer.changing():
        for part in writer.state.segments:
            problems = _part_problems(writer.state, part)
            if not problems:
                continue
            name = stored(part).name
            if _rebuilt(writer, maintenance, part):
                done.append(f"segment {name} was built anew from its vectors ({'; '.join(problems)})")
                continue
            kept = tuple(each for each in writer.state.segments if each is not part)
            aside = _set_aside(writer, part, path)
            writer.commit_segments(replace(writer.state, segments=kept))
            done.append(
                f"segment {name} is lost with {part.n_alive} rows; its files are in {aside} ({'; '.join(problems)})"
            )
    return done


def _rebuilt(writer: Writer, maintenance: Maintenance, part: Part) -> bool:
    """Whether rows and vectors are whole, so that the rest could be made of them."""
    source, schema = stored(part), writer.state.schema
    indexes: dict[str, Index] = {}
    try:
        source.rows.check()
        for opened in source.opened:
            opened.verify(only=None if opened.kind == "rows" else _VECTORS)
        for name, each in schema.fields.items():
            vectors = part.vectors(name, np.arange(part.n))
            indexes[name] = build(vectors, metric=each.metric, recall=schema.recall, seed=schema.seed)
    except NearlyError:
        return False
    maintenance.exchange_indexes(part, indexes)
    return True


def _set_aside(writer: Writer, part: Part, path: Path | None) -> str:
    if path is None:
        return "memory"
    import shutil  # late here and below: it brings compressors

    aside = path / "lost"
    aside.mkdir(exist_ok=True)
    for name in names_of(stored(part).files):
        with suppress(OSError):
            shutil.copyfile(path / "segments" / name, aside / name)
    return str(aside)


# -- snapshot --------------------------------------------------------------------------------------------------------


def snapshot(writer: Writer, path: Path, target: Path) -> None:
    """Copy what was committed last; the new folder gets its name when all is in it and synced."""
    import shutil

    if target.exists():
        raise FileExistsError(f"{str(target)!r} is there already; a snapshot goes into a new folder")
    if target.is_relative_to(path):
        raise InputError(f"{str(target)!r} is inside the collection; pass another place")
    partial = target.with_name(f".{target.name}.partial")
    assert writer.catalogue is not None
    try:
        with writer.changing():
            while not _copied(writer.catalogue, path, partial):  # another process merged its segments meanwhile
                pass
        (partial / "lock").touch()
        for folder in (partial / "segments", partial):
            sync_folder(folder)
        os.rename(partial, target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _copied(catalogue: Catalogue, path: Path, partial: Path) -> bool:
    """Copy the catalogue, then the files that the copy names; False where the writer removed one before that."""
    import shutil

    shutil.rmtree(partial, ignore_errors=True)
    (partial / "segments").mkdir(parents=True)
    named = [names_of(files) for files in catalogue.copy(partial / NAME)]
    try:
        for name in sorted(set().union(*named)):
            _copy(path / "segments" / name, partial / "segments" / name)
    except FileNotFoundError:
        if catalogue.writable or [names_of(entry.files) for entry in catalogue.read().entries] == named:
            raise
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    """A copy that shares nothing: what is erased here must not live on there by a shared file, nor the reverse."""
    import shutil

    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
