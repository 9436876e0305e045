"""The peer benchmark end to end, with the peer that is always there, and the report on made-up records."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import measure
import peers
import report
import tables
from worker import PeerError, Worker

SCRIPT = Path(peers.__file__).with_name("bench_peers.py")


def run(*arguments):
    command = [sys.executable, str(SCRIPT), "--data", "synthetic", "--limit", "1500", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.soak
def test_a_sweep_writes_records_a_table_and_is_not_repeated(tmp_path):
    out = tmp_path / "result.jsonl"

    printed = run("--peer", "exact", "--queries", "60", "--out", str(out))

    (record,) = report.read(out)
    (point,) = record["points"]
    assert record["peer"] == "exact"
    assert record["data"] == {"name": "synthetic", "n": 1500, "dim": 64, "metric": "l2", "n_queries": 60, "k": 10}
    assert [point[f"recall_{mode}"] for mode in tables.MODES] == [1.0, 1.0, 1.0]
    assert all(point[f"qps_{mode}"] > 0 for mode in tables.MODES)
    assert 4 * 64 * 1500 <= record["index_bytes"] < 5 * 64 * 1500
    table = out.with_suffix(".md").read_text()
    assert table in printed
    assert f"| exact | {tables.number(point['qps_batch'])} |" in table

    run("--peer", "exact", "--queries", "60", "--out", str(out))
    assert len(report.read(out)) == 1


def test_a_peer_that_is_not_installed_is_skipped_and_named(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['voyager'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    out = tmp_path / "result.jsonl"

    run("--peer", "voyager", "exact", "--queries", "20", "--modes", "batch", "--out", str(out))

    assert "voyager (skipped: voyager is not installed)" in out.with_suffix(".md").read_text()


@pytest.mark.soak
def test_finalists_take_turns_and_report_quartiles(tmp_path):
    out = tmp_path / "result.jsonl"
    run("--finalists", "exact", "exact", "--rounds", "4", "--queries", "40", "--modes", "batch", "--out", str(out))

    records = [record for record in report.read(out) if record["bench"] == "finalists"]

    assert [record["recall"] for record in records] == [0.90, 0.95, 0.99]
    for record in records:
        assert (record["a"], record["b"], record["rounds"]) == ("exact", "exact (again)", 4)
        assert record["q25"] <= record["ratio"] <= record["q75"]
        assert 0.02 < record["ratio"] < 50  # one and the same peer, on a machine that may be busy


@pytest.mark.soak
def test_finalists_report_builds_curves_and_what_asking_for_a_recall_delivers(tmp_path):
    out = tmp_path / "result.jsonl"
    names = ["nearly-recall", "exact", "voyager"]
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['voyager'] = None\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        printed = run("--finalists", *names, "--rounds", "2", "--queries", "80", "--modes", "batch", "all",
                      "--out", str(out))  # fmt: skip

    by_kind = {kind: [r for r in report.read(out) if r["bench"] == kind] for kind in ("builds", "asked", "curve")}
    ours, exact, missing = by_kind["builds"]
    assert ours["build_seconds"] > 0
    assert ours["index_bytes"] > exact["input_bytes"] == 1500 * 64 * 4
    share = (ours["peak_bytes"] + ours["input_bytes"]) / (ours["index_bytes"] + ours["input_bytes"])
    assert ours["peak_over_input_and_index"] == pytest.approx(share, rel=1e-5)
    assert "voyager" in missing["error"]
    assert [(r["mode"], r["asked"]) for r in by_kind["asked"]] == [(m, t) for m in ("batch", "all")
                                                                   for t in measure.TARGETS]  # fmt: skip
    for record in by_kind["asked"]:
        assert record["recall"] >= record["asked"] - 0.02  # 80 easy queries
        assert record["ratio"] > 0
    assert [(r["mode"], r["peer"]) for r in by_kind["curve"]] == [
        (mode, peer) for mode in ("batch", "all") for peer in names[:2]
    ]
    for record in by_kind["curve"]:
        assert record["points"] == sorted(record["points"])
    assert "Not measured: voyager (" in printed


@pytest.fixture
def exact_worker(tmp_path, rng):
    np.save(tmp_path / "vectors.npy", rng.standard_normal((100, 4), np.float32))
    np.save(tmp_path / "queries.npy", rng.standard_normal((5, 4), np.float32))
    worker = Worker(tmp_path, "exact", "l2", core=measure.CPUS[0])
    yield worker
    worker.close()


def test_an_error_in_a_peer_is_told_and_the_worker_lives_on(exact_worker):
    with pytest.raises(PeerError, match="AttributeError"):
        exact_worker.search("batch", [], 5)
    assert exact_worker.ask("build", threads=1)["efforts"] == [[[]]]
    exact_worker.search("batch", [], 5, keep=True)
    assert exact_worker.ids().shape == (5, 10)


def test_a_worker_that_takes_too_long_is_ended(exact_worker):
    with pytest.raises(PeerError, match="build took more than 0 s"):
        exact_worker.ask("build", threads=1, timeout=0)
    assert exact_worker.process.poll() is not None


def test_names_select_a_library_or_one_configuration():
    assert peers.names_for("l2", ["hnswlib", "svs-f16"]) == ["svs-f16", "hnswlib-16", "hnswlib-32"]
    assert "rabitqlib-symqg0-l2" in peers.names_for("cosine", ["rabitqlib"])
    assert "rabitqlib-symqg0-l2" not in peers.names_for("ip")  # only unit vectors have this form
    with pytest.raises(SystemExit, match="no peer hnsw"):
        peers.names_for("l2", ["hnsw"])


def sweep(name, qps, **more):
    points = [
        {"recall": recall, "load": 0.5, **{f"qps_{mode}": speed for mode in tables.MODES}}
        for recall, speed in zip((0.90, 0.95, 0.99), qps, strict=True)
    ]
    facts = {"data": {"name": "toy", "n": 9, "dim": 2, "metric": "l2", "n_queries": 3, "k": 10}}
    facts["machine"] = {"cpu": "abacus", "cpus": 1, "simd": [], "system": "desk", "python": "3"}
    sizes = {"build_seconds": 1.0, "peak_bytes": 2**20, "index_bytes": None}
    return {"bench": "peers", "peer": name, "points": points, **sizes, **facts, **more}


def test_finalists_are_our_best_and_the_peers_that_win_a_column():
    records = [
        sweep("nearly-vamana", (9, 8, 7)),
        sweep("nearly-hnsw", (9, 7, 6)),
        sweep("fast", (9, 8, 1)),
        sweep("careful", (5, 4, 3)),
        sweep("slow", (3, 2, 1)),
    ]
    assert report.choose_finalists(records) == ["nearly-vamana", "fast", "careful"]


def test_the_newest_sweep_of_a_name_counts():
    table = report.markdown([sweep("fast", (1, 1, 1)), sweep("fast", (3000, 2000, 1000))])
    assert table.count("| fast |") == 1
    assert "| fast | 3,000 | 2,000 | 1,000 |" in table


def test_records_survive_the_file(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps(sweep(name, (3, 2, 1))) for name in "ab"))
    assert [record["peer"] for record in tables.sweeps(report.read(path))] == ["a", "b"]
    assert report.read(tmp_path / "nothing.jsonl") == []
