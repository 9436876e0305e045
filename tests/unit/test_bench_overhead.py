"""The overhead benchmark: what is subtracted from what, and each part end to end on a small scale."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_overhead


def test_the_loop_is_taken_off_single_calls_and_a_batch_off_overhead(monkeypatch):
    clock = 0.0

    def takes(*seconds):
        left = iter(seconds)

        def work():
            nonlocal clock
            clock += next(left)

        return work

    monkeypatch.setattr(time, "thread_time", lambda: clock)
    passes = {"loop": takes(1, 1, 1), "single": takes(9, 8, 6), "single_read": takes(9, 9, 9), "batch": takes(9, 2, 3)}

    costs = bench_overhead.costs(passes, 10**6, 2)  # a second per million queries is a microsecond each

    expected = {"single": 5, "batch": 2, "overhead": 3, "answer": 3}
    assert costs == pytest.approx({f"{name}_microseconds": value for name, value in expected.items()})


def test_times_are_medians_and_least_in_milliseconds():
    runs = [{"seconds": s, "cpu_seconds": 1.0} for s in (0.5, 0.1, 0.2)]
    found = bench_overhead.milliseconds(runs, "seconds", "cpu_seconds")
    assert (found["milliseconds"], found["least_milliseconds"], found["cpu_milliseconds"]) == (200, 100, 1000)


def run(part, *arguments):
    command = [sys.executable, bench_overhead.__file__, "--part", part, "--rounds", "1", *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.soak
def test_calls_of_every_kind_are_measured():
    records = run("call")
    assert [record["call"] for record in records] == ["Vamana, effort=", "Vamana, recall=", "HNSW, effort=", "Flat"]
    for record in records:
        assert record["batch_microseconds"] > 0
        assert record["single_microseconds"] > 0
        assert ("alone_microseconds" in record) == (record["call"] != "Vamana, recall=")


@pytest.mark.soak
def test_import_loads_no_library_that_it_does_not_need():
    (record,) = run("import")
    assert record["loaded"] == []
    assert record["milliseconds"] > 0 < record["numpy_milliseconds"]


@pytest.mark.soak
def test_a_saved_index_is_loaded_with_the_file_cached_and_not():
    records = run("load", "--limit", "1000")
    assert [record["cache"] for record in records] == ["warm", "cold"]
    for record in records:
        assert record["data"]["n"] == 1000
        assert record["file_bytes"] > 1000 * 64
        assert record["milliseconds"] > 0 < record["first_search_milliseconds"]
