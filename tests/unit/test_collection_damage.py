"""A catalogue that does not agree with itself or with the files it names is refused by name when it is opened."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly.collection.catalogue import FORMAT_VERSION, NAME

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / f"collection_v{FORMAT_VERSION}"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "docs")
    return tmp_path / "docs"


def edit(folder, table, column, change, where="1", *, sealed=False):
    """Give the first value of a column another one; of JSON, a function changes what it means.

    Checksums of rows are taken away, unless they shall tell.
    """
    with closing(sqlite3.connect(folder / NAME, isolation_level=None)) as database:
        key = {"configuration": "name", "segments": "place", "patches": "row", "log": "sequence"}[table]
        at, value = database.execute(f"SELECT {key}, {column} FROM {table} WHERE {where} ORDER BY {key}").fetchone()
        if callable(change):
            value = json.loads(value)
            change(value)
            value = json.dumps(value)
        else:
            value = change
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, at))
        if (
            not sealed
            and database.execute(f"SELECT 1 FROM pragma_table_info('{table}') WHERE name = 'checksum'").fetchone()
        ):
            database.execute(f"UPDATE {table} SET checksum = NULL WHERE {key} = ?", (at,))


def schema(change):
    return "configuration", "value", change, "name = 'schema'"


def renamed(old, new, *path):
    def change(value):
        for step in path:
            value = value[step]
        value[new] = value.pop(old)

    return change


def put(name, value, *path):
    def change(made):
        for step in path:
            made = made[step]
        made[name] = value

    return change


PUT, UPDATE = "kind = 'put'", "kind = 'update'"
FAULTS = {
    "a field that no segment has": schema(renamed("vector", "other", "fields")),
    "another metric": schema(put("metric", "l2", "fields", "vector")),
    "another dimension": schema(put("dim", 5, "fields", "vector")),
    "another element type": schema(put("dtype", "float16", "fields", "vector")),
    "another kind of keys": schema(put("keys", "int")),
    "keys of no kind beside rows": schema(put("keys", None)),
    "a column that is not declared": schema(renamed("year", "years", "columns")),
    "a column of another type": schema(put("year", "str", "columns")),
    "a column with a reserved name": schema(put("id", "int", "columns")),
    "a recall that is none": schema(put("recall", 1.5)),
    "a seed that is none": schema(put("seed", -1)),
    "half a surrogate pair": schema(put("embedding", "\ud800")),
    "a sequence beyond 64 bits": ("configuration", "value", str(2**70), "name = 'sequence'"),
    "fields of a segment": ("segments", "files", renamed("vector", "vectos", "fields")),
    "a file twice": ("segments", "files", None),
    "another number of rows": ("segments", "rows", 13),
    "a patch of a row that is not": ("patches", "row", 12),
    "a patch of a segment that is not": ("patches", "segment", "00000009"),
    "a patch of another type": ("patches", "changes", put("year", "1999")),
    "a patch of no column": ("patches", "changes", put("years", 1999)),
    "an update of nothing": ("log", "body", put("columns", {}), UPDATE),
    "keys of a record": ("log", "body", put("keys", [8]), UPDATE),
    "keys of a record twice": ("log", "body", put("keys", ["a", "a"]), UPDATE),
    "a value of another type in a record": ("log", "body", put("columns", {"at": [3]}), UPDATE),
    "too many values in a record": ("log", "body", put("columns", {"year": [3, 4]}), UPDATE),
    "a document that is none": ("log", "body", put("documents", [5]), PUT),
    "vectors of another dimension": ("log", "body", put("fields", {"vector": ["float32", 2]}), PUT),
    "vectors of a negative dimension": ("log", "body", put("fields", {"vector": ["float32", -1]}), PUT),
    "vectors that are no numbers": ("log", "vectors", b"\xff" * 16, PUT),
    "vectors of another element type": ("log", "body", put("fields", {"vector": ["bits", 16]}), PUT),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_catalogue_that_contradicts_itself_is_refused_by_name(folder, fault):
    table, column, change, *where = FAULTS[fault]
    if fault == "a file twice":
        with closing(sqlite3.connect(folder / NAME)) as database:
            change = database.execute("SELECT files FROM segments WHERE rows = 1").fetchone()[0]
            database.execute("UPDATE segments SET rows = 1, alive = NULL")
            database.execute("DELETE FROM patches")
            database.commit()
    edit(folder, table, column, change, *where)
    for mode in "ar":
        with pytest.raises(nearly.FormatError, match=NAME):
            nearly.open(folder, mode=mode)


def test_automatic_keys_that_are_there_already_are_refused(tmp_path):
    with nearly.open(tmp_path / "docs") as docs:
        docs.add(np.eye(3))
        docs.flush()
    edit(tmp_path / "docs", "configuration", "value", "1", "name = 'next_id'")
    with nearly.open(tmp_path / "docs") as docs:
        with pytest.raises(nearly.FormatError, match="next keys, such as 1"):
            docs.add(np.eye(3))
        assert len(docs) == 3
        docs.add(np.eye(3), ids=[7, 8, 9])


def test_a_segment_that_a_catalogue_lost_while_it_was_open_is_named(tmp_path):
    docs = nearly.open(tmp_path / "docs", background=False)
    docs.add(np.eye(3))
    docs.flush()
    docs._writer.catalogue.connection.execute("DELETE FROM segments")
    docs.add(np.eye(3))
    with pytest.raises(nearly.FormatError, match=r"segment .* is not found in it any more"):
        docs.flush()


POSSIBLE = {  # values that may be: only a checksum knows that they are not what was written
    "a key in the log": ("log", "body", put("keys", ["late"]), PUT),
    "a vector in the log": ("log", "vectors", bytes(16), PUT),
    "a value that was updated": ("patches", "changes", put("year", 1999)),
    "who is alive": ("segments", "alive", None),
    "what a segment knows": ("segments", "applied", 9),
    "the next key": ("configuration", "value", "5", "name = 'next_id'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", POSSIBLE)
def test_what_was_not_written_is_refused(folder, fault):
    table, column, change, *where = POSSIBLE[fault]
    nearly.open(folder, background=False).close()  # of an early version: it gets its checksums now
    edit(folder, table, column, change, *where, sealed=True)
    for mode in "ar":
        with pytest.raises(nearly.FormatError, match=f"a row of {table} is not what was written"):
            nearly.open(folder, mode=mode)


def test_checksums_follow_every_change(tmp_path):
    docs = nearly.open(tmp_path / "docs", background=False)
    docs.add(np.eye(3), ids=["a", "b", "c"], metadata={"year": [1, 2, 3]})
    docs.flush()
    docs.update("a", metadata={"year": 5})
    docs.delete("b")
    docs._maintenance.flush_tail()
    docs.update("a", metadata={"year": 6})
    docs.close()
    with closing(sqlite3.connect(tmp_path / "docs" / NAME)) as database:
        for table in ("configuration", "segments", "patches", "log"):
            counted = database.execute(f"SELECT count(*), count(checksum) FROM {table}").fetchone()
            assert counted[0] == counted[1] > 0, table
    with nearly.open(tmp_path / "docs") as docs:
        assert docs.get("a").metadata == {"year": 6}
        assert docs.get().ids.tolist() == ["a", "c"]


BROKEN = {
    "a key in the log": "record 5 of the log is lost: it is not what was written",
    "a value that was updated": "1 updates of metadata are lost, of rows 5",
    "who is alive": "segment 00000001 is lost with up to 12 rows: its row in the catalogue",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_damage_keeps_shut_is_opened_without_what_is_damaged(folder, fault):
    with nearly.open(folder, background=False) as docs:
        before = {row.id: row.metadata for row in docs.get()}
    table, column, change, *where = POSSIBLE[fault]
    edit(folder, table, column, change, *where, sealed=True)
    (told,) = nearly.collection.mend(folder)
    assert told.startswith(BROKEN[fault])
    assert (folder / "lost" / NAME).exists()
    with nearly.open(folder, background=False) as docs:
        docs.verify()
        after = {row.id: row.metadata for row in docs.get()}
        assert after.keys() <= before.keys()
        assert sum(before[key] != after.get(key) for key in before) >= 1
        docs.compact()
    assert nearly.collection.mend(folder) == []


@pytest.mark.parametrize("how", ["missing", "short", "header"])
def test_segments_without_their_files_are_set_aside(folder, how):
    file = min((folder / "segments").glob("*.rows.nearly"), key=lambda path: path.name)
    octets = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    else:
        octets[20] ^= 1
        file.write_bytes(octets if how == "header" else octets[:-100])
    with pytest.raises(nearly.FormatError):
        nearly.open(folder)
    (told,) = nearly.collection.mend(folder)
    assert "is lost with up to" in told
    assert len(list((folder / "lost").glob("*.nearly"))) == 1 + (how != "missing")
    with nearly.open(folder, background=False) as docs:
        docs.verify()
        assert 0 < len(docs) < 10
        with pytest.raises(nearly.StateError, match="open for writing"):
            nearly.collection.mend(folder)


def test_what_nothing_is_known_of_is_not_mended(folder, tmp_path):
    nearly.open(folder).close()
    edit(folder, "configuration", "value", "5", "name = 'next_id'", sealed=True)
    with pytest.raises(nearly.FormatError, match="cannot be mended: 'next_id'"):
        nearly.collection.mend(folder)
    (folder / NAME).write_bytes(b"nothing" * 1000)
    with pytest.raises(nearly.FormatError):
        nearly.collection.mend(folder)
    with pytest.raises(FileNotFoundError):
        nearly.collection.mend(tmp_path / "nowhere")
