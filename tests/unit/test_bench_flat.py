"""Exact batches beside a peer: the ratio's direction, and a run end to end with the peer that is always there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_flat


def passes(*seconds):
    return [{"seconds": s, "cpu_seconds": 2 * s} for s in seconds]


def test_a_ratio_above_one_means_that_we_are_faster_and_is_formed_within_a_round():
    found = bench_flat.summary(passes(1, 10, 1), passes(3, 20, 2))  # a slow round is slow for both
    assert (found["ratio"], found["q25"], found["q75"]) == (2.0, 2.0, 2.5)
    assert found["cpu_ratio"] == 2.0
    assert (found["seconds_a"], found["seconds_b"], found["cpu_seconds_b"]) == (1, 3, 6)
    assert found["rounds"] == 3


def run(*arguments):
    command = [sys.executable, bench_flat.__file__, "--data", "synthetic", "--limit", "900", "--queries", "70"]
    printed = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.soak
def test_every_mode_is_one_line_with_recall_beside_speed():
    records = run("--against", "exact", "--rounds", "3", "--modes", "batch", "all")

    assert [record["mode"] for record in records] == ["batch", "all"]
    for record in records:
        assert (record["a"], record["b"], record["rounds"]) == ("nearly-flat", "exact", 3)
        assert record["recall_a"] == record["recall_b"] == 1.0
        assert record["q25"] <= record["ratio"] <= record["q75"]
        assert record["data"]["n_queries"] == 70


@pytest.mark.soak
def test_a_peer_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['faiss'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    first, second = run("--against", "faiss-flat", "exact", "--rounds", "1", "--modes", "batch")

    assert (first["b"], second["b"]) == ("faiss-flat", "exact")
    assert "faiss" in first["error"]
    assert second["ratio"] > 0


@pytest.mark.parametrize(("value", "kept"), [(1 / 3, 0.333333), (12345678.9, 12345700.0), (1000, 1000), (True, True)])
def test_lines_hold_six_digits(value, kept):
    assert json.loads(bench_flat.measure.line({"a": [{"b": value}]})) == {"a": [{"b": kept}]}
