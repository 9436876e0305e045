"""The benchmark of indexes by quantizers: a run end to end, which of ours stands beside a peer, tables and chart."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_codes
import codes
import peers
from bench_codes import compared

DATA = {"name": "synthetic", "n": 100, "dim": 8, "metric": "l2", "n_queries": 10, "k": 10}
FACTS = {"data": DATA, "machine": {"cpu": "a CPU", "cpus": 2, "simd": [], "python": "3", "system": "Linux"}}


def test_a_small_run_writes_sizes_curves_and_ratios():
    names = ["nearly-flat-plain", "nearly-ivf-default-disk"]
    command = [sys.executable, bench_codes.__file__, "--data", "synthetic", "--limit", "900", "--queries", "20"]
    ran = [*command, "--rounds", "1", "--names", *names, "--against", "exact"]
    lines = subprocess.run(ran, check=True, capture_output=True, text=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    built = {r["peer"]: r for r in records if r["bench"] == "codes-build"}
    assert list(built) == [*names, "exact"]
    assert built["exact"]["bytes"] >= 64 * 4 > built["exact"]["rank_bytes"] == 0
    assert built[names[0]]["rank_bytes"] == 0  # the vectors are what is compared
    assert built[names[1]]["rank_bytes"] >= 64 * 4
    assert built[names[1]]["bytes"] < built[names[0]]["bytes"]
    assert [r["peer"] for r in records if r["bench"] == "codes-curve"] == list(built)
    assert "IVF(refine=" in codes.guide(records)
    assert ElementTree.fromstring(codes.draw(records)).tag.endswith("svg")


def test_every_pair_is_spelled_as_it_is_made():
    for name in peers.PAIRS:
        spelled = codes.Entry(name, 1, 0, [], 0).spelled
        assert spelled.strip("`").split("(")[0] in ("Flat", "IVF", "Vamana")
    assert codes.Entry("nearly-ivf-saq6-alone", 1, 0, [], 0).spelled == "`IVF(quantizer=SAQ(6), refine=None)`"
    assert codes.Entry("nearly-vamana-default", 1, 0, [], 0).spelled == "`Vamana()`"


def test_beside_a_peer_stands_the_fastest_that_takes_no_more_memory():
    class Data:
        vectors = range(100)

    sizes = {"nearly-ivf-default": 50, "nearly-vamana-default": 90, "peer": 60}
    records = [
        {"bench": "builds", "peer": name, "index_bytes": 100 * size, "rank_bytes": 0} for name, size in sizes.items()
    ]
    for name, ratio in (("nearly-ivf-default", 1.5), ("nearly-vamana-default", 4.0)):
        records.append({"bench": "finalists", "mode": "batch", "recall": 0.95, "a": name, "b": "peer", "ratio": ratio})
    found = [r for r in compared(iter(records), Data()) if r["bench"] == "codes"]
    assert [(r["a"], r["ratio"]) for r in found] == [("nearly-ivf-default", 1.5)]


def test_speeds_are_medians_over_groups_and_a_recall_out_of_reach_is_a_dash():
    build = {"bench": "codes-build", "bytes": 100.0, "rank_bytes": 40.0, "build_seconds": 1.0, **FACTS}
    records = [{**build, "peer": "nearly-ivf-default"}, {**build, "peer": "peer", "bytes": 120.0, "rank_bytes": 0.0}]
    for name, qps in (("nearly-ivf-default", 1000.0), ("nearly-ivf-default", 3000.0), ("peer", 500.0)):
        points = [[0.96, qps]]
        records.append({"bench": "codes-curve", "mode": "batch", "peer": name, "points": points, **FACTS})
    text = codes.guide(records)
    assert "| `IVF()` | 60 | 40 | 100 | 2,000 | 2,000 | – | 1 |" in text
    assert "| peer, 120 bytes | 4.00 `IVF()` | 4.00 `IVF()` | – |" in text
