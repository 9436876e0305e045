"""JSON lines: what export writes comes back equal, and whatever is wrong with a file is said of its line."""

import datetime as dt

import numpy as np
import pytest

import nearly
from nearly.collection import Field, lines

N = 40
TYPES = {"year": "int", "on": "bool", "score": "float", "lang": "str", "day": "date", "at": "datetime",
         "tags": "list[str]", "more": "json"}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, name="rows.jsonl"):
    with open(name, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    return name


def rows_of(docs):
    return {row.id: (row.metadata, row.document, np.asarray(row.vector).tolist())
            for row in docs.get(include=["metadata", "document", "vector"])}  # fmt: skip


def fill(docs, rng, key=str):
    def some(values):
        return [None if i % 7 == 3 else values[i % len(values)] for i in range(N)]

    docs.add(
        rng.standard_normal((N, 5), dtype=np.float32),
        ids=[key(i) for i in range(N)],
        metadata={
            "year": some([1999, -(2**63), 2**63 - 1]),
            "on": some([True, False]),
            "score": some([0.1, 3.0, -0.0, 1e300]),
            "lang": some(["de", "日本", "", "2020-01-01", '"\\\u2028']),
            "day": some([dt.date(1, 1, 1), dt.date(2020, 2, 29)]),
            "at": some([dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(2020, 1, 1)]),
            "tags": some([["a"], [], ["b", "ü"]]),
            "more": some([{"a": [1, 2.5, None]}, [1, "x"], "text", 7, False, {"$binary": {"base64": "AA=="}}]),
        },
        documents=some(["text", b"", b"\xff\x00", "", b"text"]),
    )


@pytest.mark.parametrize("key", [str, int], ids=["str", "int"])
def test_what_export_writes_comes_back_equal(run, run_json, rng, key):
    with nearly.open("docs", columns=TYPES) as docs:
        fill(docs, rng, key)
        before = rows_of(docs)
    assert run_json("export", "docs", "out.jsonl")["columns"] == TYPES
    status, out, err = run("export", "docs", "out.jsonl", "--force")
    assert (status, f"{N} rows" in out) == (0, True)
    types = ("--column", "day=date", "--column", "at=datetime", "--column", "more=json")
    assert err.strip().endswith(" ".join(types))
    run_json("build", "out.jsonl", "again", *types)
    with nearly.open("again") as docs:
        assert docs.columns == TYPES
        assert rows_of(docs) == before
        docs.delete(list(before)[:9])
    assert run("add", "again", "out.jsonl")[0] == 1  # keys that are there
    run_json("add", "again", "out.jsonl", "--upsert")
    with nearly.open("again", mode="r") as docs:
        assert rows_of(docs) == before


def test_several_fields_come_back(run_json, rng):
    fields = {"title": Field(metric="cosine"), "body": Field(dtype="float16"), "bits": Field(metric="hamming")}
    given = {"title": rng.standard_normal((9, 3), dtype=np.float32), "body": rng.standard_normal((9, 4)),
             "bits": rng.integers(0, 256, (9, 2), dtype=np.uint8)}  # fmt: skip
    with nearly.open("docs", fields=fields) as docs:
        docs.add(given)
    run_json("export", "docs", "out.jsonl")
    with nearly.open("docs", mode="r") as docs, nearly.open(fields=fields) as again:
        again.add("out.jsonl")
        for name in fields:
            mine, theirs = (np.stack([row.vector for row in each.get(include=[name])]) for each in (again, docs))
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)  # cosine keeps directions and norms
            assert mine.dtype == theirs.dtype


def test_bytes_are_shown_as_export_writes_them(run_json):
    with nearly.open("docs") as docs:
        docs.add(np.eye(2), documents=[b"\xff", "text"])
    found = run_json("get", "docs")["rows"]
    assert [row["document"] for row in found] == [{"$binary": {"base64": "/w==", "subType": "00"}}, "text"]


def test_columns_are_named_as_for_tables(run_json):
    write('\ufeff{"key": "a", "emb": [1, 0], "text": "one", "year": 1}\r\n\n'
          '{"text": null, "emb": [0, 1.5], "key": "b"}')  # fmt: skip
    made = run_json("build", "rows.jsonl", "docs", "--vector", "emb", "--id", "key", "--document", "text")
    assert (made["rows"], made["columns"]) == (2, {"year": "int"})
    write('{"emb": [2, 2], "key": "c", "tag": ["x"]}\n', "more.NDJSON")
    run_json("add", "docs", "more.NDJSON", "--vector", "emb", "--id", "key")
    with nearly.open("docs", mode="r") as docs:
        rows = docs.get(["a", "b", "c"], include=["metadata", "document", "vector"])
        assert [row.document for row in rows] == ["one", None, None]
        assert [row.metadata["year"] for row in rows] == [1, None, None]
        assert [row.vector.tolist() for row in rows] == [[1, 0], [0, 1.5], [2, 2]]


def test_lines_are_taken_in_batches(monkeypatch):
    monkeypatch.setattr(lines, "_ROWS", 10)
    write("".join(f'{{"id": {i}, "vector": [{i}, 0]}}\n' for i in range(25)))
    docs, told = nearly.open(), []
    assert docs.add("rows.jsonl", progress=lambda *done: told.append(done)) == list(range(25))
    assert told == [(10, 0), (20, 0), (25, 0)]
    monkeypatch.setattr(lines, "_OCTETS", 100)
    docs.upsert("rows.jsonl", progress=lambda *done: told.append(done))
    assert told[3:7] == [(4, 0), (8, 0), (12, 0), (16, 0)]
    write("\n \n")
    assert docs.add("rows.jsonl") == []


GOOD = '{"id": "a", "vector": [1, 2], "x": 1}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", "is a list, but an object"),
        ("7", "is 7"),
        ("{", "is no JSON"),
        ('{"id": "b"} {', "is no JSON: Extra data"),
        (b'{"id": "\xff"}', "is no UTF-8"),
        ('{"id": "b", "vector": [NaN, 1]}', "NaN is no value of JSON; write null"),
        ('{"id": "b", "vector": [1, 1], "x": -Infinity}', "-Infinity is no value of JSON"),
        ('{"id": "b", "vector": [1, 1e999]}', "must be finite"),
        ('{"id": "b", "vector": [1, null]}', "numbers are wanted"),
        ('{"id": "b", "vector": [1, 2, 3]}', "ragged"),
        ('{"id": "b", "vector": [[1, 2]]}', "pass rows of"),
        ('{"id": "b", "vector": {"a": 1}}', "vector"),
        ('{"id": "b", "vector": "text"}', "vector"),
        ('{"id": "b"}', "row 1 has no vector"),
        ('{"vector": [1, 1]}', r"ids\[1\] is None"),
        ('{"id": 3, "vector": [1, 1]}', r"ids\[1\] is 3"),
        ('{"id": "a", "vector": [1, 1]}', "came more than once"),
        ('{"id": "old", "vector": [1, 1]}', "old"),
        ('{"id": "\\ud800", "vector": [1, 1]}', "not valid Unicode"),
        ('{"id": "b", "vector": [1, 1], "x": "one"}', "'x'"),
        ('{"id": "b", "vector": [1, 1], "x": 1, "x": 2}', "two values for 'x'"),
        ('{"id": "b", "vector": [1, 1], "\\ud800": 2}', "not valid Unicode"),
        ('{"id": "b", "vector": [1, 1], "document": 7}', r"documents\[1\] is 7"),
        ('{"id": "b", "vector": [1, 1], "document": {"$binary": {"base64": "?"}}}', r"documents\[1\]"),
        ('{"id": "b", "vector": [1, 1], "x": ' + "[" * 100_000, "nested too deep"),
        ('{"id": "b", "vector": [1, 1], "x": ' + "7" * 5000 + "}", "no JSON"),
        ('{"id": "b", "vector": [1, 1], "x": ' + "7" * 50 + "}", "'x'"),
        ('{"id": "b", "vector": [1, 1]}' + " " * 3000, "longer than"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_wrong_is_said_of_its_line(monkeypatch, line, message):
    if "longer" in message:
        monkeypatch.setattr(lines, "_LONGEST", 2000)
    tail = b'\n{"id": "z", "vector": [1, 2], "x": 1}\n' * 3  # of which each would be refused too
    write(GOOD.encode() + b"\n" + (line if isinstance(line, bytes) else line.encode()) + tail)
    with nearly.open() as docs:
        docs.add([[0, 0]], ids=["old"])
        with pytest.raises(nearly.InputError, match=f"line 3 of rows.jsonl.*{message}"):
            docs.add("rows.jsonl")
        assert len(docs) == 1


def test_a_wrong_line_late_says_what_was_taken(monkeypatch):
    monkeypatch.setattr(lines, "_ROWS", 4)
    write("".join(f'{{"id": {i}, "vector": [{i}, 0]}}\n' for i in (0, 1, 2, 3, 4, 5, 1, 6)))
    docs = nearly.open()
    with pytest.raises(nearly.IdError, match=r"line 7 of .*taken: 1.*lines before 5 were taken"):
        docs.add("rows.jsonl")
    assert len(docs) == 4


def test_the_command_line_says_the_line_and_leaves_nothing(run, tmp_path):
    write(GOOD + '{"id": "b", "vector": [1]}\n')
    status, out, err = run("build", "rows.jsonl", "docs")
    assert (status, out) == (1, "")
    assert "line 2 of rows.jsonl: vectors is ragged" in err
    assert not (tmp_path / "docs").exists()
    for wrong in ("x", "x=number"):
        status, _, err = run("build", "rows.jsonl", "docs", "--column", wrong)
        assert (status, f"--column {wrong}" in err) == (2, True)
    assert run("build", "rows.jsonl", "docs", "--index", "flat")[0] == 2


def test_other_files_are_named():
    write(GOOD, "rows.json")
    with pytest.raises(nearly.InputError, match=r"end in \.jsonl or \.ndjson"):
        nearly.open().add("rows.json")
    with pytest.raises(FileNotFoundError, match="no file"):
        nearly.open().add("nothing.jsonl")
