"""What quantizers lose: a run end to end, and the table that is made of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_quantizers
import tables


@pytest.fixture(scope="module")
def records():
    command = [sys.executable, bench_quantizers.__file__, "--data", "synthetic", "--limit", "900", "--queries", "20"]
    command += ["--rounds", "1", "--bits", "2", "4"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return [json.loads(line) for line in printed.splitlines()]


def test_every_quantizer_is_one_line_with_what_it_loses_costs_and_finds(records):
    ours = {record["quantizer"]: record for record in records if "quantizer" in record}
    assert {"SAQ(2)", "RaBitQ(2)", "Product(16)", "SAQ(4)", "Scalar(4)", "Product(32)"} <= set(ours)
    for record in ours.values():
        assert 0 < record["error"] < 0.2
        assert record["error_quantiles"] == sorted(record["error_quantiles"])
        assert record["encode_microseconds"] > 0
        assert 0.5 < record["recall_10"] <= record["recall_20"] <= record["recall_100"] <= 1
        assert ("scan_recall" in record) == record["quantizer"].startswith(("SAQ", "RaBitQ"))
    assert ours["SAQ(4)"]["error"] < ours["SAQ(2)"]["error"]
    assert ours["SAQ(4)"]["scan_recall"] >= 0.95


def test_the_table_shows_the_newest_line_of_each(records):
    newer = [{**records[0], "error": 0.1234}]
    text = tables.quantizers(records + newer)
    assert text.count("`SAQ(2)`") == 1
    assert "0.1234" in text
    assert text.startswith("### ")
    assert tables.quantizers([]) == ""
