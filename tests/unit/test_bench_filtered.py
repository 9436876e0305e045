"""The benchmark of filters: a run end to end on a small set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_filtered.py"


@pytest.mark.soak
def test_a_run_prints_one_line_for_each_filter_share_and_target():
    command = [sys.executable, str(SCRIPT), "--data", "synthetic", "--limit", "3000", "--queries", "40", "--each", "5"]
    printed = subprocess.run(
        [*command, "--targets", "0.9"], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    assert [record["filter"] for record in records] == ["random", "half"] * 6 + ["nearest"] * 3
    for record in records:
        assert record["delivered"] >= 0.8, record  # few queries
        assert 0 <= record["n_scanned"] <= record["n_queries"]
    assert any(record["n_lists"] > 0 for record in records)
    assert records[-5]["n_scanned"] == 40  # a hundredth of 3,000 rows
