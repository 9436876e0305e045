"""The benchmark of filters: a run end to end on a small set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_filtered.py"


@pytest.mark.soak
def test_a_run_prints_one_line_for_each_filter_and_target(tmp_path):
    command = [sys.executable, str(SCRIPT), "--data", "synthetic", "--limit", "3000", "--queries", "40"]
    printed = subprocess.run(
        [*command, "--targets", "0.9", "0.95"], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    assert {record["filter"] for record in records} == {"random", "near", "far", "ball"}
    for record in records:
        assert record["planner"]["delivered"] >= 0.8, record  # few queries
        assert record["scan"]["delivered"] == 1
        assert record["over_best"] > 0
        assert record["best"] in ("scan", "codes", "walk", "hop")
    (tmp_path / "lines").write_text(printed)
    shown = subprocess.run(
        [sys.executable, str(SCRIPT), "--table", str(tmp_path / "lines")], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(shown) == 2 + len(records) // 2
