"""The benchmark of collections, end to end on a small scale."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_durable.py"


@pytest.mark.soak
def test_every_part_is_measured(tmp_path):
    command = [sys.executable, BENCHMARK, "--data", "synthetic", "--limit", "600", "--rows", "2000", "--seconds", "0.2"]
    done = subprocess.run([*command, "--folder", tmp_path], capture_output=True, text=True, check=True, timeout=120)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["part"] for record in records] == ["bulk", "search", "rows", *["upserts"] * 3, "open"]
    assert records[0]["share_of_index_speed"] > 0
    assert records[1]["read_microseconds"] > records[1]["index_microseconds"] / 2
    assert records[3]["share"] > 0
    assert list(tmp_path.iterdir()) == []
