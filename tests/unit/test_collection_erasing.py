"""The proof that erased rows are gone: what it finds wherever it lies, what it passes over, and what it remembers."""

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly.collection.traces import Traces, pieces_of

DIM = 24
N = 60
TEXT = 'A letter to "nobody" \u00fcber alles, which is to be forgotten; '
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "collection_v1"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "docs"


def filled(folder, rng, flush=True, **options):
    """Rows with int keys: nothing is found by the texts of keys."""
    docs = nearly.open(folder, background=False, **options)
    vectors = rng.standard_normal((N, DIM), dtype=np.float32)
    docs.add(
        vectors,
        metadata={
            "mail": [f"{rng.bytes(8).hex()}@example.org" for _ in range(N)],
            "tags": [[rng.bytes(8).hex(), "x"] for _ in range(N)],
            "more": [{"name": [rng.bytes(8).hex()]} for _ in range(N)],
        },
        documents=[rng.bytes(40) if i % 2 else TEXT + rng.bytes(3000 if i == 8 else 20).hex() for i in range(N)],
    )
    if flush:
        docs.flush()
    return docs, vectors


def forms(row):
    """What a file may still hold of a row."""
    document = row.document
    yield "vector", row.vector.tobytes()
    yield "half a vector", row.vector.tobytes()[: DIM * 2]
    yield "mail", row.metadata["mail"].encode()
    yield "tag", row.metadata["tags"][0].encode()
    yield "json", json.dumps(row.metadata["more"], separators=(",", ":")).encode()
    if isinstance(document, str):
        yield "document", document.encode()
        yield "document in the log", json.dumps(document).encode()
        yield "a page of it", document.encode()[3000 : 3000 + 2048 + 15 + 1]
    else:
        yield "bytes", document
        yield "bytes in the log", base64.b64encode(document)


def problem(docs, key):
    """What verify says of an erased key; one file and one row."""
    try:
        docs.verify(erased=key, sample=0)
    except nearly.FormatError as found:
        (one,) = set(str(found).split("; "))
        return one
    return None


def plant(path, octets, at=0):
    path.write_bytes(b"\x01" * (at + 5) + octets + b"\x02" * 100)
    return path


@pytest.mark.parametrize("flush", [True, False], ids=["in a segment", "in the log"])
@pytest.mark.parametrize("key", [7, 8], ids=["bytes", "text"])
def test_whatever_is_left_is_found_in_any_file(folder, rng, flush, key):
    docs, _ = filled(folder, rng, flush)
    row = docs.get(key, include=["metadata", "document", "vector"])
    others = docs.get([0, 1], include=["metadata", "document", "vector"])
    docs.erase(key)
    proof = docs.verify(erased=key, sample=0)
    assert proof.erased == 1
    assert proof.pieces > 10 + proof.shared
    for what, octets in forms(row):
        planted = plant(folder / "segments" / "left.bin", octets)
        assert problem(docs, key) == f"left.bin still holds a piece of what the row {key} held", what
        planted.unlink()
    for other in others:  # what is there may be there
        for _, octets in forms(other):
            planted = plant(folder / "left.bin", octets)
            assert problem(docs, key) is None
            planted.unlink()
    docs.close()


def test_what_is_left_in_sqlite_is_found(folder, rng):
    docs, vectors = filled(folder, rng)
    docs.erase(7)
    docs.close()
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as sql, sql:
        sql.execute("CREATE TABLE strange (it BLOB)")
        sql.execute("INSERT INTO strange VALUES (?)", (b"\x00" * 5000 + vectors[7].tobytes() + b"\x00" * 5000,))
    with nearly.open(folder) as docs, pytest.raises(nearly.FormatError, match=r"catalogue.sqlite still holds a piece"):
        docs.verify(erased=7)
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as sql, sql:
        sql.execute("PRAGMA secure_delete = OFF")
        sql.execute("DROP TABLE strange")
    with nearly.open(folder) as docs, pytest.raises(nearly.FormatError, match=r"catalogue.sqlite still holds a piece"):
        docs.verify(erased=7)  # the page is free, but not empty
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as sql:
        sql.execute("VACUUM")
    with nearly.open(folder) as docs:
        assert docs.verify(erased=7).erased == 1
        assert docs.verify(erased=7) == docs.verify(erased=[7])


def test_a_file_of_a_segment_that_was_merged_is_found(folder, rng):
    docs, _ = filled(folder, rng)
    (rows,) = (folder / "segments").glob("*.rows.nearly")
    (index,) = (folder / "segments").glob("*.index0.nearly")
    for file in (rows, index):
        shutil.copy(file, folder)
    docs.erase([7, 9])
    with pytest.raises(nearly.FormatError, match=rf"{rows.name} still holds a piece.*the row 7"):
        docs.verify(erased=[7, 9])
    (folder / rows.name).unlink()
    with pytest.raises(nearly.FormatError, match=rf"{index.name} still holds a piece.*the row 9"):
        docs.verify(erased=[7, 9])
    (folder / index.name).unlink()
    assert docs.verify(erased=[7, 9]).erased == 2
    with nearly.open(folder, mode="r") as reader:
        assert reader.verify(erased=[7, 9]).erased == 2
    docs.close()


@pytest.mark.parametrize("other", ["alive", "in the log", "deleted", "updated later"])
def test_what_other_rows_hold_as_well_does_not_fail_the_proof(folder, rng, other):
    docs, vectors = filled(folder, rng)
    row = docs.get(8, include=["metadata", "document", "vector"])
    docs.add(rng.random((20, DIM)), ids=range(200, 220), metadata={"mail": [None] * 20}, documents=[None] * 20)
    docs.upsert(vectors[8:9], ids=[200], metadata={"mail": [row.metadata["mail"]]}, documents=[row.document])
    if other != "in the log":
        docs.flush()
    if other == "deleted":
        docs.delete(200)
    docs.erase(8)
    if other == "updated later":
        docs.update(200, metadata={"mail": row.metadata["mail"] + " and more"})
    found = docs.verify(erased=8)
    assert 8 <= found.shared < found.pieces  # tags and JSON are its own
    planted = plant(folder / "left.bin", vectors[8].tobytes())  # may be of the other row
    assert problem(docs, 8) is None
    plant(folder / "left.bin", row.metadata["tags"][0].encode())
    assert "left.bin" in problem(docs, 8)
    planted.unlink()
    docs.erase(200)
    assert docs.verify(erased=[8, 200]).erased == 2
    docs.close()


def test_keys_that_begin_alike_are_told_apart(folder):
    docs = nearly.open(folder, background=False)
    docs.add(np.eye(3), ids=["document 1", "document 12", "\u00fcber alles \u00fcber"])
    docs.erase(["document 1", "\u00fcber alles \u00fcber"])
    assert docs.verify(erased="document 1").shared == 1
    docs.erase("document 12")
    found = docs.verify(erased=["document 1", "document 12", "\u00fcber alles \u00fcber"])
    assert (found.erased, found.shared) == (3, 0)
    plant(folder / "left.bin", json.dumps("\u00fcber alles \u00fcber").encode())
    with pytest.raises(nearly.FormatError, match=r"left.bin still holds the erased key"):
        docs.verify(erased="\u00fcber alles \u00fcber")
    docs.close()


def test_what_is_remembered_holds_nothing_of_the_rows(folder, rng):
    docs, _ = filled(folder, rng)
    row = docs.get(7, include=["metadata", "document", "vector"])
    docs.erase(7)
    docs.close()
    left = (folder / "catalogue.sqlite").read_bytes()
    for octets in (octets for what, octets in forms(row) if what != "json"):
        assert not any(octets[at : at + 6] in left for at in range(len(octets) - 6))
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as sql:
        rows = sql.execute("SELECT erased, piece, sum FROM traces").fetchall()
        assert {(len(erased), len(piece), 0 <= at < 2**32) for erased, piece, at in rows} == {(16, 16, True)}


def test_every_version_of_a_row_is_looked_for(folder, rng):
    docs, vectors = filled(folder, rng)
    docs.upsert(vectors[:1] * 2, ids=[7], documents=["the second version of it, which was in a segment"])
    docs._maintenance.flush_tail()
    docs.upsert(vectors[:1] * 3, ids=[7], documents=["the third version of it, which was in the log"])
    docs.update(7, metadata={"mail": "a fourth version of it"})
    docs.delete(7)
    docs.erase(7)
    docs.verify(erased=7)
    for octets in (vectors[7].tobytes(), (vectors[0] * 2).tobytes(), (vectors[0] * 3).tobytes(), b"the second version",
                   b"the third version of", b"a fourth version of"):  # fmt: skip
        planted = plant(folder / "left.bin", octets)
        with pytest.raises(nearly.FormatError, match=r"left.bin"):
            docs.verify(erased=7)
        planted.unlink()
    docs.close()


def test_damaged_traces_are_refused(folder, rng):
    docs, _ = filled(folder, rng)
    docs.erase(7)
    docs.close()
    with closing(sqlite3.connect(folder / "catalogue.sqlite")) as sql, sql:
        sql.execute("UPDATE traces SET sum = sum + 1 WHERE piece = (SELECT max(piece) FROM traces)")
    with nearly.open(folder, mode="r") as docs, pytest.raises(nearly.FormatError, match="row of traces"):
        docs.verify(erased=7)


def test_collections_of_before_record_traces_from_now_on(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "docs")
    with nearly.open(tmp_path / "docs", background=False) as docs:
        docs.add(np.arange(4.0)[None] + 0.3, ids=["key 99"], documents=["what nobody may read again"])
        docs.erase("key 99")
        assert docs.verify(erased="key 99").pieces > 4
        with docs._writer.catalogue.transaction() as sql:  # as an early version left it
            sql.execute("DROP TABLE traces")
            sql.execute("DELETE FROM configuration WHERE name = 'traces'")
        found = docs.verify(erased="key 99")
        assert (found.erased, found.pieces) == (1, 0)


def test_pieces_are_found_wherever_they_begin(rng):
    noise = rng.bytes((1 << 18) + 100)
    key, piece = b"k" * 16, rng.bytes(16)
    looking = Traces(key, Traces(key).of([piece]))
    assert not looking.find(noise)
    for at in [0, 1, 7, 8, 9, *range((1 << 18) - 17, (1 << 18) + 9), len(noise) - 1, len(noise)]:
        assert looking.find(noise[:at] + piece + noise[at:]) == {hash for _, hash in Traces(key).of([piece])}
    for n in range(17):
        assert bool(looking.find(piece[:n])) == (n == 16)
    assert not Traces(b"other key 012345", Traces(key).of([piece])).find(piece)


@pytest.mark.parametrize("n", [16, 17, 100, 2048, 5000, 100_000])
def test_no_two_kibibytes_are_without_a_piece(rng, n):
    octets = rng.bytes(n)
    starts = [octets.index(piece) for piece in pieces_of(octets)]
    assert (starts[0], starts[-1]) == (0, n - 16)
    assert max(np.diff([*starts, n - 16])) <= 2048


def test_json_is_looked_for_as_the_text_that_it_is(tmp_path, rng):
    docs = nearly.open(tmp_path / "docs", background=False)
    texts = ["alpha-one", "beta-two"]
    docs.add(rng.random((3, 8), np.float32), metadata=[{"j": {"t": texts}}, {"j": texts}, {"j": ["short", "words"]}])
    docs.flush()
    docs.erase([0])
    assert docs.verify(erased=[0]).shared
    docs.erase([2])
    assert docs.verify(erased=[2]).pieces > 4  # of its text too, although none of its words is long enough
    (tmp_path / "docs" / "left").write_bytes(b'["short","words"]')
    with pytest.raises(nearly.FormatError, match="left still holds"):
        docs.verify(erased=[2])
