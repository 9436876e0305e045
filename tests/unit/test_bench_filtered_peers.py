"""The benchmark of filtered searches beside peers: its predicates, its truth, its rounds and tables."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_filtered_peers
import filtering
import predicates
import records
import report
import tables
from datasets import Dataset, K
from records import Condition

SCRIPT = Path(bench_filtered_peers.__file__)
ALLOWED = [Condition("vendor", "=", "b"), Condition("published", ">=", 10), Condition("published", "<=", 70)]


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    vendors = [None if number == 3 else "abcdef"[number] for number in rng.integers(0, 6, 2000)]
    scores = [None if score < 1 else score for score in rng.uniform(0, 10, 2000).round(1).tolist()]
    return {"published": rng.permutation(2000).tolist(), "vendor": vendors, "cvss_v2": scores}


@pytest.mark.soak
def test_a_run_writes_speeds_and_ratios_and_uses_what_it_kept(tmp_path):
    out = tmp_path / "result.jsonl"
    command = [sys.executable, str(SCRIPT), "--data", "synthetic", "--limit", "1000", "--quick", "--queries", "24"]
    command += ["--peer", "nearly", "numpy", "--shares", "10 %", "--rounds", "2", "--pass-seconds", "0.02"]
    command += ["--folder", str(tmp_path / "kept"), "--keep", "--out", str(out)]
    for turn in range(2):
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("was there" in printed) == (turn == 1)
    found: dict = {}
    for record in report.read(out):
        assert "error" not in record, record
        found.setdefault(record["bench"], []).append(record)
    assert {r["peer"] for r in found["filtered-peers-build"]} == {
        "nearly", "nearly-vamana", "nearly-ivf", "nearly-flat", "numpy",
    }  # fmt: skip
    speeds = {(r["table"], r["way"], r["peer"]): r for r in found["filtered-peers"]}
    assert ("raw", "single", "nearly") in speeds
    assert ("ready", "single", "nearly") not in speeds  # a database takes no ready-made filter
    assert ("ready", "batch", "nearly-vamana") in speeds
    for record in speeds.values():
        assert record["recall"] >= 0.9, record
        assert record["qps"] > 0
    assert all(r["b"] == "numpy" for r in found["filtered-peers-ratio"])
    assert "| nearly / the best index |" in printed


def test_predicates_let_the_wanted_share_pass_and_are_not_the_same(columns):
    kinds = {"10 %": [("vendor", "published"), (None, "published")], "1 %": [("cvss_v2", "published")]}
    chosen = predicates.make(columns, kinds, 20)
    table = predicates.Table(columns)
    for share, wanted in (("10 %", 200), ("1 %", 20)):
        assert [int(table.mask(one).sum()) for one in chosen[share]] == [wanted] * 20
    assert len(set(chosen["1 %"])) == 20
    assert {one[0].column for one in chosen["10 %"]} == {"vendor", "published"}
    fewest = predicates.make(columns, {"0.1 %": [(None, "published")]}, 1)["0.1 %"][0]
    assert table.mask(fewest).sum() == K


def test_masks_agree_with_conditions_row_by_row(columns):
    table = predicates.Table(columns)
    for condition in (*ALLOWED, Condition("cvss_v2", ">=", 5.0), Condition("cvss_v2", "<=", 5.0)):
        assert np.array_equal(table.mask((condition,)), condition.passes(columns[condition.column]))


def test_truth_is_that_of_the_rows_that_pass_the_filter_of_each_query(columns):
    rng = np.random.default_rng(1)
    vectors, queries = rng.standard_normal((2000, 8), np.float32), rng.standard_normal((7, 8), np.float32)
    data = Dataset("some", "l2", vectors, queries, np.zeros(7))
    table = predicates.Table(columns)
    filters = predicates.make(columns, {"1 %": [("vendor", "published")]}, 3)["1 %"]
    truth = predicates.truth(data, table, filters)
    ids = []
    for i, query in enumerate(queries):
        rows = np.flatnonzero(table.mask(filters[i % 3]))
        distances = ((vectors[rows].astype(np.float64) - query) ** 2).sum(axis=1)
        assert truth.radius[i] == pytest.approx(np.sort(distances)[K - 1])
        ids.append(rows[np.argsort(distances)[:K]])
    assert truth.recall(np.array(ids)) == 1.0
    assert truth.recall(np.array(ids)[:4]) == 1.0
    worse = np.array(ids)
    worse[:, 0] = np.flatnonzero(~table.mask(filters[0]) & ~table.mask(filters[1]) & ~table.mask(filters[2]))[0]
    assert truth.recall(worse) == pytest.approx(0.9)
    assert not truth.allowed(worse)[:, 0].any()
    worse[:, 1] = -1
    assert truth.recall(worse) == pytest.approx(0.8)


@pytest.mark.parametrize("name", filtering.FILTERING)
def test_adapters_find_what_passes_in_every_form_of_a_filter(name, columns):
    kind, config = filtering.FILTERING[name]
    pytest.importorskip(kind.package)
    rng = np.random.default_rng(2)
    vectors, queries = rng.standard_normal((2000, 8), np.float32), rng.standard_normal((12, 8), np.float32)
    table, kinds = predicates.Table(columns), {"10 %": [("vendor", "published")]}
    filters = predicates.make(columns, kinds, 1)["10 %"]
    truth = predicates.truth(Dataset("some", "l2", vectors, queries, np.zeros(12)), table, filters)
    index = kind("l2", **config)
    index.build(vectors, 1)
    index.know(columns)
    best = index.efforts()[-1][-1]
    for way in range(len(index.ways)):
        index.tune((*best[:-1], way), 1)
        for selector in (index.selector(table.mask(filters[0])), index.selector_of(filters[0])):
            found = [np.stack([index.one_of(query, K, selector) for query in queries])]
            found += [index.batch_of(queries, K, selector)] if index.batches else []
            for ids in found:
                assert truth.allowed(ids).all()
                assert truth.recall(ids) >= 0.9


def test_a_predicate_is_spelled_as_a_dict_of_ours():
    assert filtering.spelled(tuple(ALLOWED)) == {"vendor": {"$eq": "b"}, "published": {"$gte": 10, "$lte": 70}}
    assert records.sql(tuple(ALLOWED)) == "vendor = 'b' AND published >= 10 AND published <= 70"


def test_the_table_names_the_best_peer_and_who_does_not_reach_the_recall():
    about = {"table": "raw", "way": "single", "filter": "1 %", "data": {"name": "sift_bsds_128_l2/image"}}
    one = {"bench": "filtered-peers", **about, "recall": 0.97, "qps": 1234.0}
    found = [
        {**one, "peer": "nearly"},
        {**one, "peer": "numpy", "qps": 3.0},
        {"bench": "filtered-peers", **about, "peer": "faiss", "best_recall": 0.5},
    ]
    found += [{**found[1], "peer": name} for name in ("other", "lancedb")]
    for b, kind, ratio in (("numpy", "index", 400.0), ("other", "index", 2.0), ("lancedb", "database", 9.0)):
        pair = {"kind": kind, "ratio": ratio, "q25": ratio, "q75": ratio}
        found.append({"bench": "filtered-peers-ratio", **about, "a": "nearly", "b": b, **pair})
    text = tables.filtered_peers(json.loads(json.dumps(found)))
    assert "SIFT 128 l2 by image" in text
    assert "| nearly | 1,234 (0.970) |" in text
    assert "| other | 3.0 (0.970) |" in text
    assert "| faiss | – (0.500) |" in text
    assert "| nearly / the best index | **2.00** 2.00–2.00 (other) |" in text
    assert "| nearly / the best database | **9.00** 9.00–9.00 (lancedb) |" in text
