"""What lists by fewer dimensions save: a run end to end on a small set."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_coarse
import datasets


@pytest.mark.soak
def test_a_record_says_what_each_width_cost(rng):
    basis = rng.standard_normal((16, 64), np.float32)
    vectors, queries = (rng.standard_normal((n, 16), np.float32) @ basis for n in (3000, 80))
    data = datasets.Dataset("small", "l2", vectors, queries, np.zeros(80))
    records = list(bench_coarse.compared(data, 1))
    assert len(records) == 3 * 9
    for record in records:
        assert record["recall"] >= record["asked"] - 0.05
        assert record["build_seconds"] > 0
        assert record["codes"] > 0
    assert {record["ratio"] for record in records if record["coarse"] == "none"} == {1.0}
