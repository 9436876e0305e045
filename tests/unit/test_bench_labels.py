"""The benchmark of labels: a run end to end on a small set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_labels.py"


@pytest.mark.soak
def test_a_run_prints_one_line_for_each_kind_way_label_and_target():
    command = [sys.executable, str(SCRIPT), "--data", "synthetic", "--limit", "5000", "--queries", "40"]
    printed = subprocess.run(
        [*command, "--labels", "20", "--targets", "0.9"], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    records = [json.loads(line) for line in printed.splitlines()]
    ways = [record["way"] for record in records if "way" in record]
    assert ways == ["within", "filtered"] * 8
    assert [record["kind"] for record in records if "seconds" in record] == ["zipf", "cells"]
    for record in records:
        assert record.get("delivered", 1) >= 0.8, record  # few queries
    assert records[1]["n_lists"] > 0  # the most common label is walked
