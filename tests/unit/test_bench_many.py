"""The benchmark of workloads: a run end to end on a small set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_many.py"
SMALL = ["--data", "synthetic", "--limit", "2000", "--queries", "40", "--rounds", "1", "--targets", "0.9"]


@pytest.mark.soak
def test_a_run_prints_one_line_for_each_target():
    command = [sys.executable, str(SCRIPT), *SMALL, "--filters", "8", "--parts", "3", "--min-rows", "200"]
    record = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout)
    assert record["n_filters"] == 8
    assert record["together_delivered"] >= 0.85
    assert record["one_by_one_delivered"] >= 0.85
    assert record["together_ratio"] > 0
    assert record["laid_out_together_delivered"] >= 0.85
    assert record["parts"]["train_after"] <= record["parts"]["train_before"] == 1
