"""A collection as a folder: opening, locks, readers in other processes, forks, damage, copies, space and erasure."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import storage
from nearly.collection import locking
from nearly.collection.writing import Limits

DIM = 8


@pytest.fixture
def folder(tmp_path_factory):
    """A place for a collection, in memory where the system has that: a disk would be waited for."""
    if not Path("/dev/shm").is_dir():
        return tmp_path_factory.mktemp("docs") / "docs"
    path = Path("/dev/shm") / f"nearly-test-{os.getpid()}-{os.urandom(4).hex()}"
    path.mkdir()
    yield path / "docs"
    shutil.rmtree(path)


def filled(folder, rng, n=200, dim=DIM):
    docs = nearly.open(folder, metric="cosine", background=False, embedding="model 1")
    docs._writer.limits = Limits(tail_rows=50, draft_rows=100)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    docs.add(
        vectors, ids=[f"key {i:05d}" for i in range(n)], metadata={"year": [2000 + i % 20 for i in range(n)]},
        documents=[f"document number {i}" for i in range(n)],
    )  # fmt: skip
    return docs, vectors


def elsewhere(code, *arguments):
    """Run Python in another process; returns what it printed."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- opening ---------------------------------------------------------------------------------------------------------


def test_everything_is_there_tomorrow(folder, rng):
    docs, vectors = filled(folder, rng)
    docs.upsert(vectors[:2] + 1, ids=["key 00001", "new"], metadata={"year": [7, 8]})
    docs.update("key 00005", metadata={"year": [9]})
    docs.delete("key 00003")
    before = [tuple(row[:3]) for row in docs.get()]
    docs.close()
    with nearly.open(folder) as again:
        assert [tuple(row[:3]) for row in again.get()] == before
        assert again.search(vectors[9], 1).ids.tolist() == ["key 00009"]
    with pytest.raises(nearly.StateError, match="was closed"):
        docs.search(vectors[0])
    assert sorted(path.name for path in folder.iterdir()) == ["catalogue.sqlite", "lock", "segments"]


def test_other_settings_are_refused(folder, rng):
    filled(folder, rng)[0].close()
    for options, message in [
        ({"metric": "l2"}, "holds fields and metrics"),
        ({"recall": 0.5}, "was made for recall 0.95"),
        ({"embedding": "model 2"}, "vectors of 'model 1', not of 'model 2'"),
        ({"mode": "w"}, "mode"),
    ]:
        with pytest.raises(nearly.InputError, match=message):
            nearly.open(folder, **options)
    with pytest.raises(FileExistsError):
        nearly.open(folder, mode="x")
    nearly.open(folder, metric="cosine", embedding="model 1", recall=0.95).close()


def test_vectors_of_another_model_are_refused(folder, rng):
    docs, vectors = filled(folder, rng)
    one = vectors[:1]
    calls = {
        "search": lambda model: docs.search(one[0], 1, embedding=model),
        "search_many": lambda model: docs.search_many([{"query": one[0], "embedding": model}]),
        "search_many, all": lambda model: docs.search_many([{"query": one[0]}], embedding=model),
        "range_search": lambda model: docs.range_search(one[0], 0.1, embedding=model),
        "explain": lambda model: docs.explain(one[0], "key 00000", embedding=model),
        "add": lambda model: docs.add(one, ids=["new"], embedding=model),
        "upsert": lambda model: docs.upsert(one, ids=["key 00000"], embedding=model),
        "update": lambda model: docs.update("key 00000", vectors=one, embedding=model),
    }
    for call in calls.values():
        with pytest.raises(nearly.InputError, match="of 'model 2', but this collection holds vectors of 'model 1'"):
            call("model 2")
        with pytest.raises(nearly.InputError, match="embedding is 5"):
            call(5)
    assert len(docs) == 200
    for call in calls.values():
        call("model 1")
    assert len(docs) == 201
    docs.close()
    with pytest.raises(nearly.InputError, match="made without embedding="):
        nearly.open().add(one, embedding="model 1")


def test_each_field_has_a_model_of_its_own(folder):
    fields = {"title": nearly.Field("cosine"), "body": nearly.Field()}
    models = {"title": "model a", "body": "model b"}
    rows = {"title": [[1, 2]], "body": [[3, 4]]}
    docs = nearly.open(folder, fields=fields, embedding=models, background=False)
    docs.add(rows, ids=["a"], embedding=models)
    docs.add(rows, ids=["b"], embedding={"body": "model b"})
    assert docs.search([1, 2], 2, field="title", embedding="model a").ids.tolist() == ["a", "b"]
    docs.search([1, 2], 1, field="body", embedding=models)
    docs.search_many([{"query": [1, 2], "field": "body"}], embedding="model b")
    docs.update("a", vectors={"body": [[5, 6]]}, embedding="model b")
    refused = [
        lambda: docs.add(rows, ids=["c"], embedding="model a"),
        lambda: docs.upsert(rows, ids=["a"], embedding={"title": "model a", "body": "model a"}),
        lambda: docs.update("a", vectors={"body": [[7, 8]]}, embedding="model a"),
        lambda: docs.search([1, 2], field="body", embedding="model a"),
        lambda: docs.range_search([1, 2], 1.0, field="body", embedding={"title": "model a", "body": "model a"}),
        lambda: docs.explain([1, 2], "a", field="body", embedding="model a"),
        lambda: docs.search_many([{"query": [1, 2], "field": "body", "embedding": "model a"}]),
    ]
    for call in refused:
        with pytest.raises(nearly.InputError, match=r"of 'model a', but .* holds vectors of 'model b' in field 'body'"):
            call()
    for wrong, message in [({"bodi": "x"}, "names 'bodi', but the fields are title, body"),
                           ({"body": 5}, "of field 'body' is 5"), (["x"], "embedding is a list")]:  # fmt: skip
        with pytest.raises(nearly.InputError, match=message):
            docs.search([1, 2], field="body", embedding=wrong)
    assert docs.get("a", include=["body"]).vector.tolist() == [5, 6]
    docs.close()
    for given in (models, {"body": "model b"}, None):
        nearly.open(folder, embedding=given).close()
    for given in ("model a", {"body": "model a"}):
        with pytest.raises(nearly.InputError, match="of 'model b' in field 'body', not of 'model a'"):
            nearly.open(folder, embedding=given)
    with pytest.raises(nearly.InputError, match="names 'vector'"):
        nearly.open(folder, embedding={"vector": "model a"}, mode="r")


def test_one_model_is_of_all_fields_and_written_as_it_was(tmp_path):
    fields = {"title": nearly.Field(), "body": nearly.Field()}
    for i, (given, written) in enumerate([("m", "m"), ({"title": "m", "body": "m"}, "m"), (None, None),
                                          ({"body": "m"}, {"body": "m"})]):  # fmt: skip
        docs = nearly.open(tmp_path / str(i), fields=fields, embedding=given)
        assert docs._state.schema.to_json()["embedding"] == written
        docs.close()
        nearly.open(tmp_path / str(i), embedding=given).close()
    with pytest.raises(nearly.InputError, match="without embedding= in field 'title'"):
        nearly.open(tmp_path / "3").add({"title": [[1]], "body": [[1]]}, embedding="m")
    with pytest.raises(nearly.InputError, match="embedding names 'titel'"):
        nearly.open(tmp_path / "new", fields=fields, embedding={"titel": "m"})
    assert not (tmp_path / "new").exists()


def test_no_argument_is_ignored(folder, rng):
    filled(folder, rng)[0].close()
    wrong = [
        ({"seed": 4}, "was made with seed 0, not 4"),
        ({"fields": {"vector": nearly.Field("cosine", dim=5)}}, "dim=8"),
        ({"fields": {"vector": nearly.Field("cosine", dtype="float16")}}, "dtype=None"),
        ({"columns": {"other": "int"}, "mode": "r"}, "no column other"),
    ]
    for arguments, message in wrong:
        with pytest.raises(nearly.InputError, match=message):
            nearly.open(folder, **arguments)
    nearly.open(folder, seed=0, fields={"vector": nearly.Field("cosine", dim=8)}).close()


def test_what_is_no_collection_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(nearly.InputError, match="is a file"):
        nearly.open(tmp_path / "file")
    with pytest.raises(nearly.InputError, match="holds other files"):
        nearly.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="no collection"):
        nearly.open(tmp_path / "missing", mode="r")
    other = tmp_path / "other"
    other.mkdir()
    (other / "lock").touch()
    with sqlite3.connect(other / "catalogue.sqlite") as foreign:
        foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    with pytest.raises(nearly.FormatError, match="no catalogue of nearly"):
        nearly.open(other)
    (other / "catalogue.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(nearly.FormatError, match="no catalogue, or damaged"):
        nearly.open(other)


def test_a_newer_format_is_refused(folder, rng):
    filled(folder, rng)[0].close()
    with sqlite3.connect(folder / "catalogue.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(nearly.FormatError, match="format version 99"):
        nearly.open(folder)


def test_files_are_open_formats(folder, rng):
    docs, _ = filled(folder, rng)
    docs.add(np.ones((1, DIM)), ids=["last"], metadata={"year": [1]})
    with sqlite3.connect(f"file:{folder}/catalogue.sqlite?mode=ro", uri=True) as database:
        ((kind, body),) = database.execute("SELECT kind, body FROM log").fetchall()
        assert (kind, json.loads(body)["columns"]) == ("put", {"year": [1]})
    database.close()
    from safetensors.numpy import load_file

    (rows,) = (load_file(path) for path in (folder / "segments").glob("*.rows.nearly"))
    assert rows["column0.values"].tolist()[:3] == [2000, 2001, 2002]
    assert rows["document_octets"].tobytes().startswith(b"document number 0document number 1")
    docs.close()


# -- one writer, many readers ----------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is(folder, rng):
    docs, _ = filled(folder, rng)
    with pytest.raises(nearly.StateError, match="open for writing in this process already"):
        nearly.open(folder)
    code = "import nearly, sys\ntry: nearly.open(sys.argv[1])\nexcept nearly.StateError as e: print(e)"
    assert f"open for writing in process {os.getpid()} on" in elsewhere(code, folder)
    docs.close()
    assert elsewhere(code, folder) == ""


def test_a_dead_writers_lock_is_free(folder):
    code = "import nearly, sys, os\nd = nearly.open(sys.argv[1]); d.add([[1, 2]], ids=['a'])\n"
    process = subprocess.run([sys.executable, "-c", code + "os.kill(os.getpid(), 9)", folder])
    assert process.returncode == -9
    with nearly.open(folder) as docs:
        assert docs.get("a").id == "a"


def test_readers_follow_a_writer(folder, rng):
    docs, vectors = filled(folder, rng)
    reader = nearly.open(folder, mode="r")
    assert reader.mode == "r"
    assert len(reader) == 200
    docs.add(vectors[:1], ids=["new"])
    assert not reader.search(vectors[0], 2, where="year IS NULL")
    assert reader.refresh()
    assert reader.get("new").id == "new"
    assert not reader.refresh()
    docs.compact()  # removes the files that the reader has open
    assert reader.search(vectors[5], 1).ids.tolist() == ["key 00005"]
    assert reader.refresh()
    assert len(reader) == 201
    docs.delete("new")
    docs.close()
    assert reader.refresh()
    assert len(reader) == 200
    for change in (lambda: reader.add(vectors[:1]), lambda: reader.delete("new"), reader.flush, reader.compact):
        with pytest.raises(nearly.StateError, match='mode="r"'):
            change()
    reader.close()


FOLLOWER = """
import nearly, sys, time
docs = nearly.open(sys.argv[1], mode="r")
last, until = -1, time.monotonic() + 60
while time.monotonic() < until:
    docs.refresh()
    rows = docs.get(include=["metadata"]).metadata.get("year", [])
    years = [int(y) for y in rows]
    assert all(years.count(y) == 3 for y in set(years)), years
    newest = max(years, default=-1)
    assert newest >= last, (newest, last)
    last = newest
    if last == 29:
        print("seen all")
        break
"""


def test_two_processes_follow_a_writer_that_merges(folder):
    docs = nearly.open(folder, background=False)
    docs._writer.limits = Limits(tail_rows=8, draft_rows=20)
    readers = [subprocess.Popen([sys.executable, "-c", FOLLOWER, folder], stdout=-1, text=True) for _ in range(2)]
    for year in range(30):
        docs.upsert(np.full((3, 2), year), ids=[f"{year % 17} {i}" for i in range(3)], metadata={"year": [year] * 3})
        if year % 7 == 0:
            docs.flush()
    assert [reader.communicate()[0].strip() for reader in readers] == ["seen all"] * 2
    docs.close()


def test_a_forked_child_reads_and_may_not_write(folder, rng):
    docs, vectors = filled(folder, rng)
    reading, writing = os.pipe()
    go, going = os.pipe()
    child = os.fork()
    if child == 0:
        told = []
        try:
            told.append(docs.search(vectors[3], 1).ids.tolist() == ["key 00003"])
            os.read(go, 1)
            docs.refresh()
            told.append("added after" in docs)
            docs.add(vectors[:1], ids=["new"])
        except nearly.StateError as problem:
            told.append(f"forked from process {os.getppid()}" in str(problem))
        finally:
            os.write(writing, repr(told).encode())
            os._exit(0)
    docs.add(vectors[:1], ids=["added after"])
    os.write(going, b".")
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"[True, True, True]"
    docs.add(vectors[:1], ids=["new"])
    code = "import nearly, sys\ntry: nearly.open(sys.argv[1])\nexcept nearly.StateError: print('locked')"
    assert elsewhere(code, folder) == "locked"
    docs.close()


def test_a_child_of_multiprocessing_opens_its_own(folder, rng):
    filled(folder, rng)[0].close()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(count_rows, (str(folder),)) == 200


def count_rows(folder):
    with nearly.open(folder, mode="r") as docs:
        return len(docs)


def test_network_file_systems_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "_file_system", lambda path: "nfs4")
    with pytest.raises(nearly.StateError, match="network file system"):
        nearly.open(tmp_path / "docs")


# -- space -----------------------------------------------------------------------------------------------------------


def test_deleted_rows_give_their_space_back(folder, rng):
    docs, vectors = filled(folder, rng, n=3000, dim=64)
    docs.flush()
    before = docs.stats()
    docs.delete([f"key {i:05d}" for i in range(0, 3000, 2)])
    assert docs.stats().deleted == 0.5
    docs.compact()
    after = docs.stats()
    assert after.deleted == 0
    assert after.disk_bytes < 0.55 * before.disk_bytes
    octets = b"".join(path.read_bytes() for path in (folder / "segments").iterdir())
    assert vectors[1].tobytes() in octets
    assert vectors[2].tobytes() not in octets
    assert b"document number 1224" not in octets
    docs.close()


def test_what_is_left_after_compaction_is_what_a_fresh_build_finds(folder, rng):
    n = 10_400
    vectors = rng.standard_normal((n, 8), dtype=np.float32)
    docs = nearly.open(folder, background=False)
    docs.add(vectors)
    docs.delete(np.arange(0, n, 2))
    docs.compact()
    fresh = nearly.build(vectors[1::2], recall=0.95)
    queries = rng.standard_normal((50, 8), dtype=np.float32)
    hits, same = docs.search(queries, 10), fresh.search(queries, 10)
    assert "Vamana" in hits.plan
    np.testing.assert_array_equal(hits.ids, 2 * same.ids + 1)
    np.testing.assert_array_equal(hits.distances, same.distances)
    docs.close()


def test_the_catalogue_is_opened_as_safely_as_it_can_be(folder, rng):
    docs, _ = filled(folder, rng, n=3)
    lazy = nearly.open(folder.with_name("lazy"), durable=False)
    reader = nearly.open(folder, mode="r")

    def said(collection, name):
        return collection._writer.catalogue.connection.execute(f"PRAGMA {name}").fetchone()[0]

    names = ("journal_mode", "wal_autocheckpoint", "synchronous", "secure_delete")
    assert [said(docs, name) for name in names] == ["wal", 0, 2, 1]
    assert [said(lazy, name) for name in names] == ["wal", 0, 1, 1]
    assert said(reader, "query_only") == 1
    for each in (docs, lazy, reader):
        each.close()


def test_segments_and_write_amplification_are_bounded(folder, rng):
    docs, written = nearly.open(folder, background=False, durable=False), 0
    docs._writer.limits = Limits(tail_rows=16, draft_rows=10**6)
    store = docs._writer.volume.store

    def counted(rows, indexes, **how):
        nonlocal written
        written += rows[1]["n"]
        return store(rows, indexes, **how)

    docs._writer.volume.store = counted
    for i in range(120):
        docs.add(rng.random((10, 2), dtype=np.float32))
        docs.flush() if i % 4 == 3 else None
    assert len(docs) == 1200
    sizes = np.log(1200 / 16) / np.log(4) + 1
    assert len(docs._state.segments) <= 3 * sizes + 1
    assert written <= 1200 * (sizes + 1)
    docs.close()


def test_segments_that_are_being_written_survive_the_commits_of_others(folder, rng):
    """A merge in the background writes files that nothing names yet, while writers commit and clean up."""
    docs = nearly.open(folder, durable=False)
    docs._writer.limits = Limits(tail_rows=16, draft_rows=60)
    for i in range(150):
        docs.add(rng.random((6 if i % 9 else 70, 2), dtype=np.float32))
        if i % 10 == 9:
            docs.delete([5 * i, 5 * i + 1])
    n = len(docs)
    docs.close()
    with nearly.open(folder) as again:
        assert len(again) == n
        again.verify()


def test_patches_are_merged_without_touching_vectors(folder, rng):
    docs, _ = filled(folder, rng, n=2000)
    docs.flush()
    (index,) = (folder / "segments").glob("*.index0.nearly")
    docs.update([f"key {i:05d}" for i in range(1500)], metadata={"year": 1})
    docs.flush()
    assert not docs._state.segments[0].patches
    assert list((folder / "segments").glob("*.index0.nearly")) == [index]
    assert docs.count("year = 1") == 1500
    docs.close()
    with nearly.open(folder) as again:
        assert again.count("year = 1") == 1500


# -- erasure, copies, damage -----------------------------------------------------------------------------------------


def everything(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("flushed", [True, False])
def test_erased_rows_leave_no_byte(folder, rng, flushed):
    docs, vectors = filled(folder, rng, n=40 if not flushed else 300)
    docs.update("key 00007", metadata={"note": ["a secret note"]})
    docs.upsert(vectors[7:8] * 2, ids=["key 00007"], metadata={"note": ["another secret"]}, documents=["private"])
    if flushed:
        docs.flush()
    assert docs.erase(["key 00007"]) == 1
    docs._writer.catalogue.checkpoint()
    left = everything(folder)
    for trace in (b"key 00007", b"secret", b"private", b"document number 7d", vectors[7].tobytes()):
        assert trace not in left
    assert (vectors[7] * 2).tobytes() not in left
    assert docs.verify(erased=["key 00007"]).erased == 1
    with pytest.raises(nearly.IdError, match="never erased"):
        docs.verify(erased=["key 00008"])
    docs.add(vectors[:1], ids=["key 00007"])
    with pytest.raises(nearly.FormatError, match="there again"):
        docs.verify(erased="key 00007")
    docs.close()


def test_rows_that_were_deleted_before_are_erased_too(folder, rng):
    docs, _ = filled(folder, rng, n=300)
    docs.flush()
    docs.delete(["key 00007", "key 00008"])
    assert b"document number 7d" in everything(folder)
    docs.erase(iter(["key 00007"]))
    assert b"document number 7d" not in everything(folder)
    assert docs.verify(erased=["key 00007"]).erased == 1
    with pytest.raises(nearly.IdError, match="erase: 1 of 2 ids are not in this collection: never"):
        docs.erase(["key 00009", "never"])
    assert "key 00009" in docs
    docs.close()


def test_an_erasure_that_was_broken_off_is_ended_by_another(folder, rng, monkeypatch):
    docs, _ = filled(folder, rng, n=300)
    docs.flush()

    def full(*parts):
        raise OSError(28, "No space left on device")

    merge = docs._maintenance.merge
    monkeypatch.setattr(docs._maintenance, "merge", full)
    with pytest.raises(OSError, match="No space"):
        docs.erase("key 00007")
    with pytest.raises(nearly.FormatError, match="still holds key 00007"):
        docs.verify(erased="key 00007")
    monkeypatch.setattr(docs._maintenance, "merge", merge)
    docs.erase("key 00007")
    docs.verify(erased="key 00007")
    assert b"document number 7d" not in everything(folder)
    docs.erase("key 00007")  # nothing is left to do
    docs.close()


def test_a_snapshot_is_a_collection_of_its_own(folder, rng):
    docs, vectors = filled(folder, rng)
    docs.add(vectors[:1], ids=["fresh"])
    docs.snapshot(folder.with_name("copy"))
    docs.delete("fresh")
    docs.compact()
    with nearly.open(folder.with_name("copy")) as copy:
        assert len(copy) == 201
        assert copy.get("fresh").id == "fresh"
        copy.verify()
        copy.add(vectors[:1], ids=["other"])
    with pytest.raises(FileExistsError):
        docs.snapshot(folder.with_name("copy"))
    with pytest.raises(nearly.InputError, match="inside"):
        docs.snapshot(folder / "inside")
    docs.close()


def test_a_reader_copies_what_a_writer_merges_meanwhile(folder, rng, monkeypatch):
    docs, _ = filled(folder, rng)
    docs.flush()
    reader = nearly.open(folder, mode="r")
    copy = reader._writer.catalogue.copy

    def copied_before_a_merge(path):
        monkeypatch.setattr(reader._writer.catalogue, "copy", copy)
        files = copy(path)
        docs.delete("key 00003")
        docs.compact()
        return files

    monkeypatch.setattr(reader._writer.catalogue, "copy", copied_before_a_merge)
    reader.snapshot(folder.with_name("copy"))
    with nearly.open(folder.with_name("copy")) as made:
        made.verify()
        assert len(made) == 199
    reader.close()
    docs.close()


def damage(path, name):
    """Change one byte in the middle of an array of a file."""
    array = storage.read(path).arrays[name]
    octets = bytearray(path.read_bytes())
    at = octets.find(array.tobytes()) + array.nbytes // 2
    octets[at] ^= 0xFF
    path.write_bytes(octets)


def test_damage_is_found_and_what_can_be_is_mended(folder, rng):
    docs, vectors = filled(folder, rng, n=5200)
    docs.flush()
    docs.close()
    (path,) = (folder / "segments").glob("*.index0.nearly")
    damage(path, "codes")
    docs = nearly.open(folder, background=False)
    with pytest.raises(nearly.FormatError, match="checksum of array 'codes'"):
        docs.verify()
    (told,) = docs.repair()
    assert "built anew from its vectors" in told
    docs.verify()
    assert docs.search(vectors[4], 1).ids.tolist() == ["key 00004"]
    assert docs.repair() == []
    docs.close()


def test_what_is_lost_is_set_aside(folder, rng):
    docs, vectors = filled(folder, rng, n=100)
    docs.add(vectors[:1], ids=["fresh"])
    docs.close()
    (path,) = (folder / "segments").glob("*.rows.nearly")
    damage(path, "document_octets")
    docs = nearly.open(folder, background=False)
    (told,) = docs.repair()
    assert "is lost with 100 rows" in told
    assert docs.get().ids.tolist() == ["fresh"]
    assert len(list((folder / "lost").iterdir())) == 2
    docs.verify()
    docs.close()


def test_a_missing_or_exchanged_file_is_named(folder, rng):
    filled(folder, rng)[0].close()
    (path,) = (folder / "segments").glob("*.rows.nearly")
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(nearly.FormatError, match="is missing"):
        nearly.open(folder)
    path.write_bytes(kept)
    storage.write(path, dict(storage.read(path).arrays), storage.read(path).config | {"other": 1}, kind="rows")
    with pytest.raises(nearly.FormatError, match="not the file that the catalogue names"):
        nearly.open(folder)


def test_a_full_disk_loses_the_write_and_nothing_else(folder, rng, monkeypatch):
    docs, vectors = filled(folder, rng)
    append = docs._writer.catalogue.append

    def full(records, schema):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(docs._writer.catalogue, "append", full)
    with pytest.raises(OSError, match="No space"):
        docs.add(vectors[:1], ids=["lost"], metadata={"color": ["red"]})
    monkeypatch.setattr(docs._writer.catalogue, "append", append)
    assert "lost" not in docs
    assert "color" not in docs.columns
    docs.add(vectors[:2], ids=["lost", "kept"], metadata={"color": [1, 2]})
    docs.delete("lost")
    docs._writer.limits = Limits(tail_rows=1)  # each write is followed by a flush

    def full_segments(*arguments, **more):
        raise nearly.StateError("disk I/O error")

    write_segments = docs._writer.catalogue.write_segments
    monkeypatch.setattr(docs._writer.catalogue, "write_segments", full_segments)
    docs.update("kept", metadata={"year": 7})  # is in the log, whatever becomes of the flush
    assert "disk I/O error" in docs.stats().problem
    with pytest.raises(nearly.StateError):
        docs.flush()
    monkeypatch.setattr(docs._writer.catalogue, "write_segments", write_segments)
    docs.flush()
    assert docs.get("kept").metadata["year"] == 7
    assert docs.stats().problem is None
    assert docs.search(vectors[1], 1, where="color = 2").ids.tolist() == ["kept"]
    docs.close()
    with nearly.open(folder) as again:
        assert "lost" not in again
        assert len(again) == 201


def test_a_folder_that_was_removed_or_exchanged_acknowledges_nothing(folder, rng):
    docs, vectors = filled(folder, rng)
    reader = nearly.open(folder, mode="r")
    shutil.move(folder, folder.parent / "moved")
    for exchanged in (False, True):
        if exchanged:
            nearly.open(folder, metric="cosine").close()
        for step in (lambda: docs.add(vectors[:1], ids=["new"]), lambda: docs.delete("key 00001"), reader.refresh):
            with pytest.raises(nearly.StateError, match="removed, moved or replaced"):
                step()
    assert docs.search(vectors[3], 1).ids.tolist() == ["key 00003"]
    assert len(docs) == len(reader) == 200
    reader.close()
    docs.close()
    with nearly.open(folder.parent / "moved") as docs:
        assert len(docs) == 200


def test_a_writer_whose_lock_is_gone_does_not_write_beside_another(folder, rng):
    docs, vectors = filled(folder, rng)
    (folder / "lock").unlink()
    with nearly.open(folder) as other:
        other.add(vectors[:1], ids=["theirs"])
        with pytest.raises(nearly.StateError, match="lock beside it was removed"):
            docs.add(vectors[:1], ids=["ours"])
        assert "ours" not in docs
        other.delete("theirs")
    docs.close()
    with nearly.open(folder) as docs:
        assert len(docs) == 200
        docs.verify()


def test_a_catalogue_that_others_write_into_is_not_written(folder, rng):
    docs, vectors = filled(folder, rng)
    with sqlite3.connect(folder / "catalogue.sqlite") as database:
        database.execute("INSERT INTO erased VALUES (x'00', x'00', '2020-01-01')")
    database.close()
    with pytest.raises(nearly.StateError, match="another process has written"):
        docs.add(vectors[:1], ids=["new"])
    assert len(docs) == 200
    docs.close()
    with nearly.open(folder) as docs:
        docs.add(vectors[:1], ids=["new"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no other user to be without fork")
def test_a_folder_that_may_only_be_read_is_read(folder, rng):
    filled(folder, rng)[0].close()
    code = (
        "import os, sys, nearly\n"
        "nearly.open(sys.argv[1], mode='r').get('key 00007')\n"  # Python's own files may be root's
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "docs = nearly.open(sys.argv[1], mode='r')\n"
        "print(len(docs), docs.refresh(), docs.get('key 00007').metadata['year'])"
    )
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.parent.chmod(0o755)
    assert elsewhere(code, folder) == "200 False 2007"
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_the_log_is_made_longer_by_many_commits_and_read_to_its_end(folder, rng):
    docs = nearly.open(folder, background=False)
    log, sizes = folder / "catalogue.sqlite-wal", []
    for i in range(200):  # of 12 KiB and more each
        docs.add(rng.standard_normal((1, 1024), np.float32), ids=[f"key {i}"])
        sizes.append(log.stat().st_size)
    assert len(set(sizes[1:])) < 10
    assert sizes[-1] > 2 << 20
    shutil.copytree(folder, folder.with_name("killed"))  # as a dead process would have left it
    with nearly.open(folder.with_name("killed")) as other:
        assert sorted(other.get(include=[]).ids) == sorted(f"key {i}" for i in range(200))
        other.verify()
    docs.close()
    assert not log.exists()
    with nearly.open(folder) as docs:
        assert len(docs) == 200


def test_what_the_caller_does_with_an_array_afterwards_changes_no_row(folder):
    docs = nearly.open(folder, background=False)
    buffer = np.empty((1, 4), np.float32)
    for i in range(5):
        buffer[:] = i
        docs.add(buffer, ids=[f"key {i}"])
    buffer[:] = 9
    docs.update("key 4", vectors=buffer)
    buffer[:] = np.nan
    wanted = [0, 1, 2, 3, 9]
    for step in (lambda: docs, docs.flush, docs.close):
        step()
        with nearly.open(folder, mode="r") as other:
            for each in (other, *([docs] if step != docs.close else [])):
                rows = each.get([f"key {i}" for i in range(5)], include=["vector"])
                assert [row.vector.tolist() for row in rows] == [[i] * 4 for i in wanted]
                assert each.search(np.full(4, 9), 1).ids.tolist() == ["key 4"]


def test_a_writer_touches_no_log_that_took_the_place_of_its_own(folder, rng):
    docs = nearly.open(folder, background=False)
    docs.add(rng.random((1, 4)))
    shutil.move(folder, folder.with_name("moved"))
    other = nearly.open(folder, background=False)
    for _ in range(3):
        other.add(rng.random((1, 4)))
    log = folder / "catalogue.sqlite-wal"
    before, docs._writer.catalogue._log_size = log.read_bytes(), 0  # as if its own log had been shorter
    with pytest.raises(nearly.StateError):
        docs.add(rng.random((1, 4)))
    assert log.read_bytes() == before
    other.close()
