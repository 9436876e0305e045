"""The rules of the benchmarks: recall by distance, the frontier, speed at a recall."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import datasets
import measure


def recall(ids, vectors, queries, *, k, metric="l2"):
    radius = measure.exact_radius(vectors, queries, metric, k)
    return measure.recalls_by_distance(np.array(ids), vectors, queries, metric, radius, k).mean()


LINE = np.array([[0], [1], [-1], [2], [9]], np.float32)
ORIGIN = np.zeros((1, 1), np.float32)


def test_a_tie_at_rank_k_counts_whichever_row_came():
    assert recall([[0, 1]], LINE, ORIGIN, k=2) == 1.0
    assert recall([[0, 2]], LINE, ORIGIN, k=2) == 1.0
    assert recall([[0, 3]], LINE, ORIGIN, k=2) == 0.5


@pytest.mark.parametrize("bad", [-1, 5, np.iinfo(np.int64).max])
def test_repeated_and_impossible_ids_count_nothing(bad):
    assert recall([[0, 0, 1]], LINE, ORIGIN, k=3) == pytest.approx(2 / 3)
    assert recall([[0, bad, 1]], LINE, ORIGIN, k=3) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_exact_radius_is_the_float64_distance_of_the_kth_row(rng, metric):
    vectors, queries = rng.standard_normal((500, 12), np.float32), rng.standard_normal((300, 12), np.float32)
    wide, points = vectors.astype(np.float64), queries.astype(np.float64)
    every = ((points[:, None] - wide) ** 2).sum(2) if metric == "l2" else -points @ wide.T

    radius = measure.exact_radius(vectors, queries, metric, 7)

    np.testing.assert_allclose(radius, np.sort(every, axis=1)[:, 6], rtol=1e-12)  # the order of float64 sums
    ids = np.argsort(every, axis=1)[:, :7]
    assert recall(ids, vectors, queries, k=7, metric=metric) == 1.0


def test_frontier_drops_what_is_beaten_in_both():
    points = [(0.90, 100.0), (0.95, 50.0), (0.92, 40.0), (0.99, 60.0)]
    assert measure.frontier(points) == [(0.90, 100.0), (0.99, 60.0)]


def test_speed_at_a_recall_is_a_straight_line_between_logarithms():
    points = [(0.9, 1000.0), (0.99, 10.0)]
    halfway = 1 - 10**-1.5  # between 1 - 0.1 and 1 - 0.01
    assert measure.qps_at(points, halfway) == pytest.approx(100)
    assert measure.qps_at(points, 0.9) == 1000
    assert measure.qps_at(points, 0.99) == pytest.approx(10)


def test_nothing_is_extrapolated():
    points = [(0.93, 500.0), (0.97, 100.0)]
    assert measure.qps_at(points, 0.90) == 500
    assert measure.qps_at(points, 0.99) is None
    assert measure.qps_at([], 0.5) is None


def test_a_perfect_recall_does_not_break_the_logarithm():
    assert 10 < measure.qps_at([(0.9, 100.0), (1.0, 10.0)], 0.99) < 100


def test_only_the_points_around_the_targets_are_repeated():
    points = [(0.5, 9.0), (0.89, 8.0), (0.91, 7.0), (0.93, 6.0), (0.96, 5.0)]
    assert measure.around_targets(points, [0.90, 0.95, 0.99]) == [1, 2, 3, 4]


def test_synthetic_data_is_the_same_every_time():
    first, second = (datasets.load("synthetic", limit=600, n_queries=50) for _ in range(2))
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.radius, second.radius)


def test_cosine_sets_are_normalized_and_scored_as_cosine(tmp_path, monkeypatch, rng):
    base, queries = rng.standard_normal((300, 8)).astype(np.float16), rng.standard_normal((40, 8)).astype(np.float16)
    base[0] = 0  # a zero row stays what it is
    for part, array in {"base": base, "queries": queries, "gt_ids": np.zeros((40, 100), np.int32)}.items():
        np.save(tmp_path / f"cve_minilm_384_{part}.npy", array)
    monkeypatch.setenv("NEARLY_DATA", str(tmp_path))

    data = datasets.load("cve_minilm_384", limit=200)

    np.testing.assert_allclose(np.linalg.norm(data.vectors[1:], axis=1), 1, rtol=1e-6)  # float32 rounding
    assert not data.vectors[0].any()
    cosines = data.queries.astype(np.float64) @ data.vectors.astype(np.float64).T
    np.testing.assert_allclose(-data.radius, np.sort(cosines, axis=1)[:, -10], rtol=1e-12)
    assert data.recall(np.argsort(-cosines, axis=1)[:, :10]) == 1.0


def test_truth_of_the_file_gives_the_radius(tmp_path, monkeypatch):
    base, queries = np.arange(40, dtype=np.uint8)[:, None], np.zeros((3, 1), np.uint8)
    truth = np.tile(np.arange(30, dtype=np.int32), (3, 1))
    np.savez(tmp_path / "mnist_784_l2.npz", base=base, queries=queries, gt_ids=truth)
    monkeypatch.setenv("NEARLY_DATA", str(tmp_path))

    data = datasets.load("mnist_784_l2")

    assert data.radius.tolist() == [81.0] * 3
    assert data.recall(truth[:, :10]) == 1.0


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(SystemExit, match="sift_bsds_128_l2"):
        datasets.load("sift")


def test_rounds_turn_around():
    assert list(measure.turns(["a", "b", "c"], 3)) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_quartiles_are_named_as_records_name_them():
    assert measure.quartiles([4, 1, 3, 2, 5], "cpu_") == {"cpu_ratio": 3.0, "cpu_q25": 2.0, "cpu_q75": 4.0}
