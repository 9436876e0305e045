"""The command line for collections: what each command prints and changes, exit codes, and errors in a line."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nearly

N, DIM = 60, 8
LANGUAGES = ("en", "de", "fr")


def rows(first, last):
    """Rows of a Parquet file: vectors, keys, metadata and documents."""
    vectors = np.random.default_rng(1).standard_normal((N * 2, DIM)).astype(np.float32)[first:last]
    at = range(first, last)
    return pa.table(
        {
            "emb": pa.array(list(vectors)),
            "key": [f"doc-{i}" for i in at],
            "year": [2000 + i % 10 for i in at],
            "lang": [LANGUAGES[i % 3] for i in at],
            "day": [dt.date(2020, 1, 1 + i % 20) for i in at],
            "text": [f"text {i}" for i in at],
        }
    )


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    """Commands run beside a.parquet and b.parquet."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(rows(0, N), "a.parquet")
    pq.write_table(rows(N - 5, N + 5), "b.parquet")


COLUMNS = ("--vector", "emb", "--id", "key", "--document", "text")


@pytest.fixture
def docs(run_json):
    """A collection of a.parquet."""
    made = run_json("build", "a.parquet", "docs", *COLUMNS, "--metric", "cosine")
    assert made["rows"] == N
    assert made["columns"] == {"year": "int", "lang": "str", "day": "date"}
    assert made["fields"] == {"vector": f"cosine, {DIM} dimensions"}
    return "docs"


def test_a_row_finds_rows_like_it_and_not_itself(run_json, docs):
    found = run_json("search", docs, "--like", "doc-3", "-k", 4)
    (answer,) = found["queries"]
    assert len(answer["ids"]) == 4
    assert "doc-3" not in answer["ids"]
    assert answer["distances"] == sorted(answer["distances"])
    with nearly.open(docs, mode="r") as opened:
        truth = opened.search(opened.get("doc-3", include=("vector",)).vector, k=5, exact=True)
    assert answer["ids"] == truth.ids.tolist()[1:]
    assert answer["metadata"]["year"] == truth.metadata["year"].tolist()[1:]


def test_filters_and_columns_to_show(run_json, run, docs):
    found = run_json("search", docs, "--like", "doc-3", "--where", "year >= 2005 and lang = 'en'", "--include", "year")
    (answer,) = found["queries"]
    assert set(answer["metadata"]) == {"year"}
    assert min(answer["metadata"]["year"]) >= 2005
    assert len(answer["ids"]) == 10
    status, out, err = run("search", docs, "--like", "doc-3", "-k", 2)
    assert status == 0
    assert out.splitlines()[0].split() == ["query", "rank", "id", "distance", "score", "year", "lang", "day"]
    assert len(out.splitlines()) == 3
    assert "1 query in" in err


def test_queries_are_typed_or_come_from_a_file(run_json, docs, tmp_path):
    vectors = np.array(rows(0, 2)["emb"].to_pylist(), np.float32)
    np.save("queries.npy", vectors)
    typed = ",".join(map(str, vectors[0].tolist()))
    for arguments in (("--queries", "queries.npy"), ("--vector", "queries.npy"), ("--vector", typed)):
        found = run_json("search", docs, *arguments, "-k", 1, "--exact")
        assert [answer["ids"] for answer in found["queries"]] == [["doc-0"], ["doc-1"]][: len(found["queries"])]
    assert len(found["queries"]) == 1


def test_rows_are_read_by_key_and_by_filter(run_json, run, docs):
    found = run_json("get", docs, "doc-7", "doc-2", "--vectors")["rows"]
    assert [row["id"] for row in found] == ["doc-7", "doc-2"]
    assert found[0]["day"] == "2020-01-08"
    assert found[0]["document"] == "text 7"
    np.testing.assert_allclose(found[0]["vector"], rows(7, 8)["emb"].to_pylist()[0], rtol=1e-5)
    found = run_json("get", docs, "--where", "lang = 'de'", "--limit", 3, "--offset", 1)["rows"]
    assert [row["id"] for row in found] == ["doc-4", "doc-7", "doc-10"]
    assert run_json("count", docs) == {"count": N}
    assert run_json("count", docs, "--where", "lang = 'de'") == {"count": N // 3}
    assert run("count", docs)[1] == f"{N}\n"
    assert "text 7" in run("get", docs, "doc-7")[1]


def test_segments_are_laid_out_for_a_workload(run_json, run, docs, tmp_path):
    filters = ["lang = 'de'", {"lang": "en"}, {"where": "lang = 'de'", "k": 3}, None] * 5
    (tmp_path / "past.jsonl").write_text("\n".join([json.dumps(each) for each in filters] + [""]))
    workload = ("--workload", "past.jsonl", "--min-rows", 10)
    tried = run_json("layout", docs, *workload, "--dry-run")
    assert not tried["applied"]
    assert len(run_json("stats", docs)["segments"]) == 1
    found = run_json("layout", docs, *workload)
    assert found == {**tried, "applied": True}
    assert found["train_after"] < 1
    assert sorted(run_json("stats", docs)["segments"]) == sorted(found["rows"])
    status, out, _ = run("layout", docs, *workload, "--dry-run")
    assert status == 0
    assert "not laid out: " in out
    assert run_json("layout", docs, "--forget") == {"forgotten": True}
    (tmp_path / "wrong.jsonl").write_text('"year > 3"\n{"lang"')
    status, _, err = run("layout", docs, "--workload", "wrong.jsonl")
    assert status == 1
    assert "line 2 of wrong.jsonl is no JSON" in err
    assert run("layout", docs)[0] == run("layout", docs, "--forget", *workload)[0] == 2


def test_adding_refuses_keys_that_are_there_unless_told_to_replace(run_json, run, docs):
    status, _, err = run("add", docs, "b.parquet", *COLUMNS)
    assert status == 1
    assert "5 of the ids are taken: doc-55" in err
    assert run_json("count", docs) == {"count": N}
    assert run_json("add", docs, "b.parquet", *COLUMNS, "--upsert")["rows"] == N + 5


def test_deleting_erasing_and_upkeep(run_json, run, docs):
    assert run_json("delete", docs, "doc-1", "doc-2") == {"deleted": 2}
    assert run_json("delete", docs, "--where", "year = 2005") == {"deleted": N // 10}
    assert run_json("erase", docs, "doc-3") == {"erased": 1}
    assert run_json("verify", docs, "--erased", "doc-3")["erased"] == 1
    assert run_json("compact", docs)["disk_bytes"] > 0
    left = N - 3 - N // 10
    assert run_json("verify", docs)["rows"] == left
    about = run_json("stats", docs)
    assert (about["rows"], about["segments"], about["deleted"]) == (left, [left], 0.0)
    assert run_json("info", docs) == about
    assert run_json("snapshot", docs, "copy") == {"path": "copy", "rows": left}
    assert run_json("count", "copy") == {"count": left}
    assert run_json("repair", docs) == {"done": []}
    for command in ("stats", "verify", "compact", "repair", "info"):
        status, out, err = run(command, docs)
        assert (status, err) == (0, "")
        assert out


def test_what_damage_keeps_shut_is_repaired(run_json, run, docs):
    assert run_json("repair", docs) == {"done": []}
    (file,) = Path(docs, "segments").glob("*.rows.nearly")
    file.unlink()
    assert run("count", docs)[0] == 1
    (told,) = run_json("repair", docs)["done"]
    assert "is lost with up to 60 rows" in told
    assert run_json("count", docs) == {"count": 0}


def test_what_is_exported_can_be_built_again(run_json, docs):
    assert run_json("export", docs, "out.parquet")["rows"] == N
    again = run_json("build", "out.parquet", "again", "--vector", "vector", "--id", "id")
    assert again["columns"] == {"year": "int", "lang": "str", "day": "date"}
    assert run_json("get", "again", "doc-9") == run_json("get", docs, "doc-9")
    assert run_json("export", docs, "out.jsonl", "--where", "lang = 'fr'")["rows"] == N // 3
    with open("out.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    assert {line["lang"] for line in lines} == {"fr"}
    assert len(lines[0]["vector"]) == DIM


def test_keys_that_are_numbers(run_json, run):
    table = rows(0, 10).drop_columns(["key"])
    pq.write_table(table, "numbers.parquet")
    run_json("build", "numbers.parquet", "numbers", "--vector", "emb", "--document", "text")
    assert run_json("get", "numbers", "3")["rows"][0]["document"] == "text 3"
    status, _, err = run("get", "numbers", "three")
    assert status == 2
    assert "'three' is no key of this collection, whose keys are numbers" in err


WRONG = [
    (("search", "docs"), 2, "pass one of --like"),
    (("search", "docs", "--like", "a", "--vector", "1,2"), 2, "pass one of --like"),
    (("search", "docs", "--like", "nobody"), 1, "nobody"),
    (("search", "docs", "--like", "doc-1", "--where", "yeer > 1"), 1, "yeer"),
    (("search", "docs", "--like", "doc-1", "--where", "year >"), 1, "the filter ends too early"),
    (("search", "docs", "--like", "doc-1", "--effort", "9"), 2, "--effort is for an index"),
    (("search", "docs", "--vector", "1,2"), 2, "has 2 numbers"),
    (("get", "docs", "doc-1", "--limit", "3"), 2, "keys exclude"),
    (("delete", "docs"), 2, "pass keys or --where"),
    (("delete", "docs", "doc-1", "nobody"), 1, "nobody"),
    (("erase", "docs"), 2, "pass the keys"),
    (("export", "docs", "out.csv"), 2, "write .parquet or .jsonl"),
    (("export", "docs", "a.parquet"), 2, "is there already"),
    (("export", "docs", "none.parquet", "--where", "year > 3000"), 1, "no row matches"),
    (("count", "nowhere"), 1, "there is no collection at 'nowhere'"),
    (("count", "a.parquet"), 2, "is a file"),
    (("info", "docs", "--verify"), 2, "nearly verify"),
    (("snapshot", "docs", "docs"), 1, "docs"),
    (("build", "a.parquet", "docs", "--id", "key"), 2, "nearly add"),
    (("build", "a.parquet", "new", "--id", "key"), 1, "no column 'vector'"),
    (("build", "a.parquet", "new", "--id", "key", "--index", "flat"), 2, "--index is for an index"),
    (("build", "nothing.parquet", "new", "--id", "key"), 1, "nothing.parquet"),
]


def test_wrong_usage(run, docs, tmp_path):
    for arguments, status, message in WRONG:
        found, out, err = run(*arguments)
        assert (found, out) == (status, ""), arguments
        assert message in err, arguments
        assert "Traceback" not in err, arguments
        assert not (tmp_path / "new").exists(), arguments
        assert not (tmp_path / "none.parquet").exists(), arguments


def test_options_of_collections_are_refused_for_an_index(run):
    nearly.Flat(np.eye(4, dtype=np.float32)).save("index.nearly")
    for option in ("--like", "--where", "--field", "--include"):
        status, _, err = run("search", "index.nearly", "--vector", "1,0,0,0", option, "x")
        assert status == 2
        assert f"{option} is for collections" in err


def test_another_writer_is_named(run, docs):
    with nearly.open(docs):
        status, _, err = run("delete", docs, "doc-1")
        assert status == 1
        assert "open for writing" in err
        assert run("count", docs)[1] == f"{N}\n"  # reading along goes on
