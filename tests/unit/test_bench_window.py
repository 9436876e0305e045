"""The benchmark of windows: where they are placed, what their truth is, and a run end to end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_window


def test_windows_hold_the_fraction_that_is_asked_for():
    values = np.random.default_rng(0).permutation(5000)

    assert bench_window.fractions(5000)[:3] == [1 / 5000, 0.001, 0.01]
    for fraction in bench_window.fractions(5000):
        for low, high in bench_window.placed(values, fraction, 20):
            assert ((values >= low) & (values <= high)).sum() == max(1, round(fraction * 5000))


@pytest.mark.soak
def test_a_run_prints_one_line_for_each_fraction(tmp_path):
    command = [sys.executable, bench_window.__file__, "--data", "synthetic", "--limit", "800", "--queries", "20"]
    printed = subprocess.run(
        [*command, "--targets", "0.9", "--keep", str(tmp_path)], capture_output=True, text=True, check=True, timeout=240
    ).stdout
    records = [json.loads(line) for line in printed.splitlines()]

    assert [record["fraction"] for record in records] == [pytest.approx(1 / 800, rel=1e-3), 0.01, 0.1, 0.5, 1.0]
    for record in records:
        assert record["delivered"] >= 0.8, record  # few queries
        assert record["post_qps"] > 0
        assert record["ways"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "synthetic-800-random-one.nearly",
        "synthetic-800-random-tree4.nearly",
    }
