"""Recall: against sets in plain Python, at the edges, and the bootstrap against its known distribution."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearly.errors import InputError
from nearly.evaluate import (
    exact,
    pair_distances,
    recall_at_k,
    recall_by_distance,
    recall_lower_bound,
    recalls_at_k,
    recalls_by_distance,
)


@st.composite
def tables(draw):
    k, n = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    found = draw(st.lists(st.lists(st.integers(-1, 8), min_size=k, max_size=k), min_size=n, max_size=n))
    row = st.lists(st.integers(0, 8), max_size=k, unique=True).map(lambda ids: ids + [-1] * (k - len(ids)))
    return found, draw(st.lists(row, min_size=n, max_size=n))


@given(tables())
def test_by_ids_agrees_with_sets(both):
    found, truth = both
    expected = [
        len(set(f) & set(t) - {-1}) / len(set(t) - {-1}) if set(t) - {-1} else 1.0
        for f, t in zip(found, truth, strict=True)
    ]
    assert recalls_at_k(found, truth).tolist() == pytest.approx(expected)
    assert recall_at_k(found, truth) == pytest.approx(sum(expected) / len(expected))


def test_first_k_columns():
    found, truth = [[1, 2, 3, 4], [9, 8, 7, 6]], [[1, 9, 2, 3, 4], [6, 7, 8, 9, 5]]
    assert recalls_at_k(found, truth, k=2).tolist() == [0.5, 0.0]
    assert recalls_at_k(found, truth, k=4).tolist() == [0.75, 1.0]


@pytest.mark.parametrize(
    ("found", "truth", "k", "message"),
    [
        ([[1, 2]], [[1]], None, "one shape"),
        ([[1]], [[1], [2]], None, "one shape"),
        ([[1]], [[1], [2]], 1, "as many rows"),
        ([[1, 2]], [[1]], 2, "at least k=2"),
        (np.empty((0, 3), np.int64), np.empty((0, 3), np.int64), None, "at least one query"),
        ([[1, 2]], [[5, 5]], None, "truth row 0 repeats"),
        ([1], [1], None, r"found\[None, :\]"),
        ([[1.5]], [[1]], None, "integer"),
        ([[-2]], [[1]], None, "found holds -2"),
        ([[1]], [[1]], 0, "k is 0"),
    ],
)
def test_bad_tables_are_refused(found, truth, k, message):
    with pytest.raises(InputError, match=message):
        recall_at_k(found, truth, k=k)


def test_by_distance_counts_ties_and_not_repeats():
    found = [[3, 8, 5], [3, 3, 8], [-1, 3, -1], [4, 6, 7]]
    near = [[1.0, 2.0, 2.0], [1.0, 1.0, 2.0], [np.nan, 1.0, np.nan], [2.0, 2.0, 2.5]]
    assert recalls_by_distance(found, near, [[1.0, 2.0, 2.0]] * 4).tolist() == pytest.approx([1, 2 / 3, 1 / 3, 2 / 3])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["l2", "ip", "l1"]))
def test_by_distance_is_never_below_by_ids(seed, metric):
    rng = np.random.default_rng(seed)
    vectors, queries = rng.integers(0, 3, (20, 3)), rng.integers(0, 3, (4, 3))
    truth, limits = exact(vectors, queries, 5, metric=metric)
    found = rng.integers(-1, 20, (4, 5))
    near = pair_distances(vectors, queries, found, metric=metric)
    assert (recalls_by_distance(found, near, limits) >= recalls_at_k(found, truth)).all()
    assert recall_by_distance(truth, limits, limits) == 1


def test_by_distance_tolerates_rounding_and_nothing_more():
    for limit in (1.0, -1.0, 1e6):
        stored = float(np.float32(limit / 3))
        assert recall_by_distance([[0]], [[limit / 3]], [[stored]]) == 1
        worse = limit / 3 + abs(limit) * 1e-5
        assert recall_by_distance([[0]], [[worse]], [[stored]]) == 0
        assert recall_by_distance([[0]], [[worse]], [[stored]], rtol=1e-4) == 1
    assert recall_by_distance([[0]], [[1e-9]], [[0.0]]) == 0


def test_by_distance_where_there_are_fewer_than_k():
    assert recalls_by_distance([[4, -1, -1]], [[1.0, 0, 0]], [[1.0, math.inf, math.inf]]).tolist() == [1.0]
    assert recalls_by_distance([[-1, -1]], [[0, 0]], [[math.inf, math.inf]]).tolist() == [1.0]
    assert recalls_by_distance([[4, 5]], [[7.0, 8.0]], [[1.0, math.inf]]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("distances", "limits", "message"),
    [
        ([[1.0]], [[1.0, 2.0]], "distances has shape"),
        ([[1.0, math.nan]], [[1.0, 2.0]], "distances row 0"),
        ([[1.0, 2.0]], [[2.0, 1.0]], "not ascending"),
        ([[1.0, 2.0]], [[1.0, math.nan]], "truth_distances row 0"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], "one shape"),
    ],
)
def test_bad_distances_are_refused(distances, limits, message):
    with pytest.raises(InputError, match=message):
        recall_by_distance([[1, 2]], distances, limits)


def test_bound_is_that_of_the_normal_distribution():
    recalls = np.repeat([1.0, 0.5], [800, 200])  # mean 0.9, standard deviation 0.2
    bound = recall_lower_bound(recalls, confidence=0.95, n_resamples=20_000, seed=1)
    assert bound == pytest.approx(0.9 - 1.645 * 0.2 / 1000**0.5, abs=5e-4)


def test_bound_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(5)
    draws = rng.binomial(10, 0.9, (400, 300)) / 10
    below = np.mean([recall_lower_bound(row, confidence=0.9, n_resamples=1000) <= 0.9 for row in draws])
    assert 0.85 < below < 0.95  # 0.9, within three standard errors of 0.015


def test_bound_falls_with_confidence_and_depends_on_the_seed_alone():
    recalls = np.random.default_rng(0).binomial(10, 0.8, 200) / 10
    bounds = [recall_lower_bound(recalls, confidence=c) for c in (0.5, 0.8, 0.95, 0.999)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] <= recalls.mean()
    assert recall_lower_bound(recalls, seed=3) == recall_lower_bound(recalls[::-1], seed=3)
    assert recall_lower_bound(recalls, seed=3, n_resamples=99) != recall_lower_bound(recalls, seed=4, n_resamples=99)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_bound_of_equal_recalls_is_that_recall(value):
    assert recall_lower_bound([value] * 7) == pytest.approx(value)
    assert recall_lower_bound([value]) == pytest.approx(value)


@pytest.mark.parametrize(
    ("recalls", "options", "message"),
    [
        ([], {}, "at least one query"),
        ([[1.0]], {}, "shape"),
        ([1.5], {}, "outside"),
        ([math.nan], {}, "outside"),
        ([1.0], {"confidence": 1.0}, "confidence"),
        ([1.0], {"confidence": 95}, "confidence"),
        ([1.0], {"n_resamples": 0}, "n_resamples"),
    ],
)
def test_bound_refuses_bad_arguments(recalls, options, message):
    with pytest.raises(InputError, match=message):
        recall_lower_bound(recalls, **options)
