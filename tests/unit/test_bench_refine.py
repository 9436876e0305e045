"""What vectors on disk cost: a run end to end on a small set."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_refine
import datasets


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_record_says_what_was_found_and_what_it_took(rng):
    basis = rng.standard_normal((16, 384), np.float32)
    vectors, queries = (rng.standard_normal((n, 16), np.float32) @ basis for n in (8000, 120))
    data = datasets.Dataset("small", "l2", vectors, queries, np.zeros(120))
    records = list(bench_refine.compared(data, 1))
    assert [record["asked"] for record in records] == list(bench_refine.ASKED)
    for record in records:
        assert record["recall"] >= record["asked"] - 0.03
        assert "vectors on disk" in record["plan"]
        assert record["index_bytes"] <= record["limit_bytes"] < record["memory_index_bytes"] / 4
        assert record["qps"] > 0
        assert record["cold_qps"] > 0
        assert record["resident_bytes"] >= record["index_bytes"] / 2
