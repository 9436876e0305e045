"""Metrics: kernel values to distances to scores, callables, and names people try."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearly.errors import InputError
from nearly.metrics import METRICS, CallableMetric, Metric, get

RNG = np.random.default_rng(3)
QUERY, ROWS = RNG.standard_normal(24), RNG.standard_normal((30, 24))
BITS, BIT_ROWS = RNG.integers(0, 2, 64), RNG.integers(0, 2, (30, 64))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# Distances straight from their definitions in float64. The kernels return the same, but l2 squared.
DISTANCE = {
    "l2": lambda q, x: np.linalg.norm(q - x, axis=1),
    "ip": lambda q, x: -(x @ q),
    "cosine": lambda q, x: 1 - x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q),
    "hamming": lambda q, x: (q != x).sum(1),
    "jaccard": lambda q, x: 1 - (q & x).sum(1) / (q | x).sum(1),
    "l1": lambda q, x: np.abs(q - x).sum(1),
}
SCORE = {
    "ip": lambda q, x: x @ q,
    "cosine": lambda q, x: unit(x) @ unit(q),
    "jaccard": lambda q, x: 1 - DISTANCE["jaccard"](q, x),
}


def test_the_table_has_the_six_metrics():
    assert list(METRICS) == ["l2", "ip", "cosine", "hamming", "jaccard", "l1"]
    assert {name for name, metric in METRICS.items() if metric.input == "bits"} == {"hamming", "jaccard"}
    assert sorted(metric.number for metric in METRICS.values()) == list(range(6))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_distances_and_scores_follow_their_formulas(metric):
    q, x = (BITS, BIT_ROWS) if metric.input == "bits" else (QUERY, ROWS)
    values = DISTANCE[metric.kernel](q, x) ** (2 if metric.kernel == "l2" else 1)
    distances = metric.distance_from_kernel(values)
    scores = metric.score_from_distance(distances)
    assert distances.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(distances, DISTANCE[metric.name](q, x), rtol=1e-6, atol=1e-6)  # float32, a few roundings
    expected = SCORE.get(metric.name, lambda q, x: -DISTANCE[metric.name](q, x))(q, x)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_no_neighbor_stays_infinitely_far(metric):
    distances = metric.distance_from_kernel([[np.inf]])
    assert distances.tolist() == [[np.inf]]
    assert metric.score_from_distance(distances).tolist() == [[-np.inf]]


def test_rounding_below_zero_is_no_distance():
    assert METRICS["l2"].distance_from_kernel([-1e-6]).tolist() == [0.0]
    assert METRICS["cosine"].distance_from_kernel([-1e-7]).tolist() == [0.0]
    assert METRICS["ip"].distance_from_kernel([-5.0]).tolist() == [-5.0]


def test_the_score_of_distance_zero_is_plain_zero():
    assert not np.signbit(METRICS["l2"].score_from_distance([0.0])).any()
    assert not np.signbit(CallableMetric(len).score_from_distance([0.0])).any()


@given(st.lists(st.floats(0, 2, width=32), min_size=2))
def test_nearer_never_scores_lower(values):
    values = np.sort(np.array(values, np.float32))
    for metric in METRICS.values():
        distances = metric.distance_from_kernel(values)
        assert (np.diff(distances) >= 0).all()
        assert (np.diff(metric.score_from_distance(distances)) <= 0).all()


def test_kernels_are_those_of_the_core():
    core = pytest.importorskip("nearly._core", reason="the core is not built")
    for metric in METRICS.values():
        bits = metric.input == "bits"
        q, x = (BITS, BIT_ROWS) if bits else (QUERY.astype(np.float32), ROWS.astype(np.float32))
        query = np.packbits(q) if bits else q
        rows = np.packbits(x, axis=1) if bits else x
        if metric.name == "cosine":  # its rows end in their inverse norms
            rows = np.column_stack([x, 1 / np.linalg.norm(x, axis=1)]).astype(np.float32)
            query = unit(q).astype(np.float32)
        out = np.empty(len(rows), np.float32)
        core.distances(
            metric.kernel, 4 if bits else 0, False, query.view(np.uint8), rows.view(np.uint8), len(query), out
        )
        expected = DISTANCE[metric.name](q, x)
        np.testing.assert_allclose(metric.distance_from_kernel(out), expected, rtol=1e-5, atol=1e-5)


def test_metrics_pickle_and_print():
    for metric in METRICS.values():
        assert pickle.loads(pickle.dumps(metric)) == metric
        assert str(metric) == metric.name


def test_get_returns_the_row_or_wraps_the_function():
    assert get("l2") is METRICS["l2"] is get(METRICS["l2"])
    wrapped = get(absolute)
    assert isinstance(wrapped, CallableMetric)
    assert (wrapped.name, wrapped.input, wrapped.kernel, str(wrapped)) == ("absolute", "any", "callable", "absolute")
    assert wrapped.formula == "absolute(item, items)"
    assert get(wrapped) is wrapped


TRIED = {
    "l2": ["L2", "euclidean", "Euclidean", "sqeuclidean", "l2_squared", "l2-sq", "euclidian"],
    "ip": ["IP", "dot", "dot_product", "inner product", "inner_product", "mips", "innerprod"],
    "cosine": ["cos", "Cosine", "angular", "cosine_similarity", "cosin"],
    "l1": ["manhattan", "cityblock", "L1"],
    "hamming": ["Hamming", "bit_hamming", "haming"],
    "jaccard": ["tanimoto", "Jaccard"],
}


@pytest.mark.parametrize(("name", "word"), [(name, word) for name, words in TRIED.items() for word in words])
def test_names_of_other_libraries_are_answered_with_ours(name, word):
    with pytest.raises(InputError, match=f"metric is {word!r}.*did you mean {name!r}"):
        get(word)


@pytest.mark.parametrize("metric", ["", "chebyshev", None, 2, Metric, ["l2"]])
def test_other_things_are_no_metric(metric):
    with pytest.raises(InputError, match=r"'l2', 'ip', 'cosine'.*is wanted$"):
        get(metric)


def absolute(item, items):
    return [abs(item - other) for other in items]


@pytest.mark.parametrize(
    "convert", [list, tuple, np.array, lambda x: np.array(x, np.float16), lambda x: np.array(x, int)]
)
def test_a_callable_may_return_any_numbers(convert):
    metric = get(lambda item, items: convert(absolute(item, items)))
    result = metric(3, [1, 3, 7])
    assert result.dtype == np.float32
    assert result.tolist() == [2.0, 0.0, 4.0]
    assert metric.distance_from_kernel(result).tolist() == [2.0, 0.0, 4.0]
    assert metric.score_from_distance(result).tolist() == [-2.0, 0.0, -4.0]


def test_a_callable_may_be_asked_about_nothing():
    assert get(absolute)(3, []).shape == (0,)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 2.0], r"shape \(3,\), but it returned shape \(2,\)"),
        (1.0, r"returned shape \(\); it gets one item and a sequence of items, not a pair"),
        (np.zeros((3, 1)), r"returned shape \(3, 1\)"),
        ([0.0, np.nan, 1.0], "returned nan for item 1"),
        ([0.0, 1.0, np.inf], "returned inf for item 2"),
        ([1e39, 1.0, 1.0], "range of float32, but it returned 1e.39 for item 0"),
        (None, "returned NoneType of dtype object"),
        (["a", "b", "c"], "returned list of dtype <U1"),
        ([1j, 2, 3], "dtype complex128"),
        ([[1], [1, 2], [3]], "is no array"),
    ],
)
def test_what_a_callable_returns_is_checked(returned, message):
    def mine(item, items):
        return returned

    with pytest.raises(InputError, match=f"metric mine.item, items. must return one finite number per item.*{message}"):
        get(mine)("q", "abc")


def test_what_a_callable_raises_is_raised():
    def fails(item, items):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        get(fails)(1, [2])


def test_a_callable_object_has_a_name():
    class Edit:
        def __call__(self, item, items):
            return [0.0] * len(items)

    assert get(Edit()).name == "Edit"
    with pytest.raises(InputError, match="a function"):
        CallableMetric("l2")
