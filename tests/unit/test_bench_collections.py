"""The benchmark of collections end to end, with the database that is always there; its filters, truth and tables."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import databases
import measure
import records
import report
import tables
from datasets import Dataset
from records import Condition, Rows

SCRIPT = Path(databases.__file__).with_name("bench_collections.py")
COLUMNS = {
    "published": [5, 1, 9, 3, 7, 2, 8, 4, 6, 0],
    "severity": ["low", "high", "high", None, "high", "low", "high", "low", "high", None],
    "vendor": ["a", "b", "b", None, "c", "c", "c", "d", "d", "d"],
    "product": ["p", "q", "q", "q", None, None, "r", "r", "s'", "s'"],
}


@pytest.mark.soak
def test_databases_take_turns_and_one_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['chromadb'] = None\n")
    out = tmp_path / "result.jsonl"
    command = [sys.executable, str(SCRIPT), "--data", "synthetic", "--limit", "400", "--peer", "chromadb", "exact"]
    command += ["--filters", "none", "1 %", "--queries", "20", "--rounds", "2", "--pass-seconds", "0.01"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    printed = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=True).stdout

    by_kind: dict = {}
    for record in report.read(out):
        by_kind.setdefault(record["bench"], []).append(record)
    missing, filled = by_kind["ingest"]
    assert "chromadb is not installed" in missing["error"]
    assert filled["rows_per_second"] > 0
    assert filled["disk_bytes"] > 400 * 64 * 4
    assert filled["open_seconds"] > 0
    all_rows, few = by_kind["collections-curve"]
    assert (all_rows["filter"], all_rows["passing"], all_rows["where"]) == ("none", 400, "")
    assert few["where"].startswith("vendor = ")
    assert 1 <= few["passing"] < 10
    for record in (all_rows, few):
        ((recall, qps),) = record["points"]
        assert recall == 1.0
        assert qps > 0
        assert (record["lacking"], record["wrong"]) == (0, 0)
    assert "Not measured: chromadb (" in printed


def test_filters_let_the_shares_pass_that_they_are_named_after():
    rng = np.random.default_rng(0)
    columns = {"published": rng.permutation(4000).tolist(), "severity": rng.choice(["low", "high"], 4000).tolist()}
    sized = np.repeat(np.arange(89), np.arange(89))  # name i has i rows
    names = [f"name {i}" for i in sized] + [None] * (4000 - len(sized))
    columns |= {"vendor": names, "product": names}
    passing = {}
    for name, conditions in records.choose_filters(columns).items():
        rows = np.ones(4000, bool)
        for condition in conditions:
            rows &= condition.passes(columns[condition.column])
        passing[name] = int(rows.sum())
    assert passing == {"none": 4000, "50 %": 2000, "10 %": 400, "1 %": 40, "0.1 %": 4}


def test_what_has_no_value_passes_nothing_and_quotes_are_doubled():
    assert Condition("severity", "=", "high").passes(COLUMNS["severity"]).tolist() == [
        value == "high" for value in COLUMNS["severity"]
    ]
    assert Condition("score", ">=", 3).passes([3, None, 2]).tolist() == [True, False, False]
    conditions = (Condition("product", "=", "s'"), Condition("published", ">=", 4))
    assert records.sql(conditions) == "product = 's''' AND published >= 4"


@pytest.fixture
def line():
    """Ten rows on a line at 0 to 9, two queries at its ends, of which the rows 2 to 4 pass."""
    vectors = np.arange(10, dtype=np.float32)[:, None]
    data = Dataset("line", "l2", vectors, np.array([[0.0], [9.0]], np.float32), np.zeros(2))
    filters = {"some": (Condition("place", ">=", 2), Condition("kind", "=", "x"))}
    columns = {"place": list(range(10)), "kind": ["x"] * 5 + [None] * 5}
    return records.Records(data, columns, ["" for _ in range(10)], filters)


def test_recall_is_of_the_rows_that_pass_however_few(line):
    passing = line.passing("some")
    assert passing.k == 3
    assert passing.rows.tolist() == [place in (2, 3, 4) for place in range(10)]
    assert passing.recall(np.array([[4, 3, 2, -1], [2, 3, 4, -1]])) == 1.0
    assert passing.recall(np.array([[2, 0, 1, -1], [4, 9, 8, 3]])) == pytest.approx((1 / 3 + 1 / 3) / 2)


def test_answers_that_are_missing_or_wrong_are_counted(line):
    passing = line.passing("some")
    assert passing.faults(np.array([[2, 3, 4, -1], [4, 3, 2, -1]])) == {"lacking": 0.0, "wrong": 0.0}
    found = passing.faults(np.array([[2, -1, -1, -1], [4, 9, 8, -1]]))
    assert found["lacking"] == pytest.approx(2 / 6)
    assert found["wrong"] == pytest.approx(2 / 4)


def test_a_keeper_reads_what_the_driver_wrote(line, tmp_path):
    line.write(tmp_path)
    np.save(tmp_path / "vectors.npy", line.data.vectors)
    rows = records.read_rows(tmp_path)
    assert records.read_filters(tmp_path) == line.filters
    assert rows.columns == line.columns
    assert rows.dicts(4, 6, text=rows.texts) == [
        {"place": 4, "kind": "x", "text": ""}, {"place": 5, "text": ""}
    ]  # fmt: skip


def test_the_floor_finds_the_nearest_of_those_that_pass(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((10, 4)).astype(np.float32)
    database = databases.Exact("l2")
    database.add(tmp_path, Rows(vectors, COLUMNS, ["" for _ in vectors]))
    database.open(tmp_path)
    where = database.where((Condition("severity", "=", "high"), Condition("published", ">=", 2)))
    assert sorted(database.one(vectors[2], 10, where).tolist()) == [2, 4, 6, 8]
    assert database.one(vectors[2], 1, where).tolist() == [2]


def test_every_database_says_how_it_is_set_up_and_has_rising_efforts():
    for name in databases.DATABASES:
        database = databases.make_database(name, "cosine")
        assert database.settings
        for series in database.efforts():
            assert series == sorted(series)


def test_filters_are_spelled_as_each_database_wants_them():
    conditions = (Condition("severity", "=", "high"), Condition("published", ">=", 4))

    def spelled(name):
        return databases.make_database(name, "l2").where(conditions)

    assert spelled("chromadb") == {"$and": [{"severity": {"$eq": "high"}}, {"published": {"$gte": 4}}]}
    assert spelled("milvus-lite-hnsw") == 'severity == "high" and published >= 4'
    assert spelled("sqlite-vec") == (" and severity = ? and published >= ?", ["high", 4])
    assert spelled("nearly") == spelled("lancedb-ivf-pq") == "severity = 'high' AND published >= 4"
    assert databases.Chroma("l2").where(conditions[:1]) == {"severity": {"$eq": "high"}}


def test_names_select_a_database_or_one_configuration():
    assert databases.names_for(["lancedb", "milvus-lite-ivf"]) == [
        "lancedb-ivf-pq", "lancedb-ivf-hnsw-sq", "milvus-lite-ivf"
    ]  # fmt: skip
    assert "exact" not in databases.names_for()
    with pytest.raises(SystemExit, match="no database lance;"):
        databases.names_for(["lance"])


FACTS = {
    "data": {"name": "toy", "n": 1000, "dim": 2, "metric": "l2", "n_queries": 3, "k": 10},
    "machine": {"cpu": "abacus", "cpus": 1, "simd": [], "system": "desk", "python": "3"},
}


def curve(peer, name, *points, passing=10, **more):
    return {"bench": "collections-curve", "filter": name, "peer": peer, "passing": passing, "points": points,
            **FACTS, **more}  # fmt: skip


def test_the_table_shows_speed_and_ratio_at_a_recall_under_each_filter():
    pair = {"bench": "collections", "filter": "none", "recall": 0.95, "a": "nearly", "b": "peer", **FACTS}
    found = [
        curve("nearly", "none", (0.95, 3000), (0.99, 2000), passing=1000),
        curve("peer", "none", (0.90, 900), (0.95, 600), passing=1000),
        curve("nearly", "1 %", (1.0, 5000), load=3.4),
        curve("peer", "1 %", error="the process ended"),
        {**pair, "ratio": 5.0, "q25": 4.9, "q75": 5.1},
        {**pair, "ratio": 9.0, "q25": 9, "q75": 9, "recall": 0.90},
    ]
    lines = tables.collections_middle(found).splitlines()
    assert lines[0].endswith("toy, 1,000 rows: single queries a second at recall@10 0.95, and nearly / it")
    assert lines[2] == "| rows that pass | none (1,000 rows) | 1 % (10 rows) |"
    assert lines[4:6] == ["| nearly | 3,000 | 5,000 |", "| peer | 600; **5.00** 4.90–5.10 | – |"]
    assert lines[-1] == "Load of the machine meanwhile: 3 to 3."
    assert tables.collections(found).count("###") == len(measure.TARGETS)


def test_the_table_of_filling_names_settings_and_failures():
    times = dict.fromkeys(
        [f"{what}_seconds" for what in ("add", "index", "cpu", "import", "open", "first_search")], 0.5
    )
    sizes = {"input_bytes": 2**20, "disk_bytes": 2**21, "peak_bytes": 2**22, "resident_bytes": 2**20}
    about = {"bench": "ingest", "version": "1.2", "settings": "as it comes", "rows_per_second": 1234.5, **FACTS}
    text = tables.ingest([{**about, **times, **sizes, "peer": "a"}, {**about, "peer": "b", "error": "no room"}])
    assert "| toy | a | 1,234 | 0.5 | 0.5 | 0.5 | 2 | 2.00 | 4 | 500.0 | 500.0 | 500.0 | 1 |" in text
    assert "- a 1.2: as it comes." in text
    assert "Not measured: b (no room)." in text


def test_records_are_one_line_each_on_the_terminal():
    filled = {"bench": "ingest", "peer": "a", "rows_per_second": 10.0, "disk_bytes": 2**20, "open_seconds": 0.01}
    assert " ".join(report.one_line(filled).split()) == "a 10 rows/s, 1 MiB, opened in 10 ms"
    assert " ".join(report.one_line(curve("a", "1 %", (1.0, 3))).split()) == "a filter 1 % 1 efforts took turns"
    assert json.loads(measure.line(filled)) == filled
