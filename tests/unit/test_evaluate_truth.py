"""The oracle's own oracle: plain Python loops over a few dozen vectors, and exact arithmetic on grids."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearly.errors import DimensionError, IdError, InputError
from nearly.evaluate import exact, exact_range, pair_distances, truth

BITS = ("hamming", "jaccard")
METRICS = ("l2", "ip", "cosine", "l1", *BITS)


def plain_distance(metric, x, y):
    """One distance as the definition says it, in Python numbers."""
    if metric in BITS:
        a, b = (int.from_bytes(bytes(v.tolist()), "big") for v in (x, y))
        either = (a | b).bit_count()
        return float((a ^ b).bit_count()) if metric == "hamming" else (a ^ b).bit_count() / either if either else 0.0
    x, y = [float(v) for v in x], [float(v) for v in y]
    dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
    if metric == "ip":
        return -dot
    if metric == "cosine":
        lengths = math.hypot(*x) * math.hypot(*y)
        return 1 - dot / lengths if lengths else 1.0
    return math.dist(x, y) if metric == "l2" else math.fsum(abs(a - b) for a, b in zip(x, y, strict=True))


def sample(rng, metric, n, dim):
    if metric in BITS:
        return rng.integers(0, 256, (n, dim), dtype=np.uint8)
    return rng.standard_normal((n, dim), dtype=np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(20240601)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that small data crosses many borders."""
    monkeypatch.setattr(truth, "_BLOCK_BYTES", 8 * 40)
    monkeypatch.setattr(truth, "_MOST_ROWS", 7)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 17])
@pytest.mark.usefixtures("small_blocks")
def test_agrees_with_plain_python(metric, dim, rng):
    vectors, queries = sample(rng, metric, 50, dim), sample(rng, metric, 9, dim)

    ids, distances = exact(vectors, queries, 50, metric=metric)

    assert ids.dtype == np.int64
    assert distances.dtype == np.float64
    for i, query in enumerate(queries):
        assert sorted(ids[i]) == list(range(50))
        plain = [plain_distance(metric, query, vectors[j]) for j in ids[i]]
        np.testing.assert_allclose(distances[i], plain, rtol=1e-12, atol=1e-14)
        assert (np.diff(distances[i]) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_smaller_k_is_a_prefix(metric, rng):
    vectors, queries = sample(rng, metric, 300, 5), sample(rng, metric, 20, 5)
    ids, distances = exact(vectors, queries, 300, metric=metric)
    for k in (1, 2, 10, 299):
        some_ids, some = exact(vectors, queries, k, metric=metric)
        np.testing.assert_array_equal(some_ids, ids[:, :k])
        np.testing.assert_array_equal(some, distances[:, :k])


@pytest.mark.parametrize("metric", METRICS)
def test_answer_does_not_depend_on_batch_or_blocks(metric, rng, monkeypatch):
    vectors, queries = sample(rng, metric, 200, 33), sample(rng, metric, 30, 33)
    ids, distances = exact(vectors, queries, 20, metric=metric)
    single = [exact(vectors, query[None], 20, metric=metric) for query in queries]
    np.testing.assert_array_equal(ids, np.concatenate([one[0] for one in single]))
    np.testing.assert_array_equal(distances, np.concatenate([one[1] for one in single]))

    monkeypatch.setattr(truth, "_MOST_ROWS", 13)
    again = exact(vectors, queries, 20, metric=metric)
    np.testing.assert_array_equal(ids, again[0])
    np.testing.assert_array_equal(distances, again[1])
    np.testing.assert_array_equal(distances, pair_distances(vectors, queries, ids, metric=metric))


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["l2", "l1", "ip", *BITS]), st.integers(1, 40))
def test_ties_go_to_the_lower_id(seed, metric, k):
    # Small whole numbers: distances are exact, and tie all the time.
    rng = np.random.default_rng(seed)
    high = 4 if metric in BITS else 3
    vectors = rng.integers(0, high, (35, 2), dtype=np.uint8)
    queries = rng.integers(0, high, (3, 2), dtype=np.uint8)

    ids, distances = exact(vectors, queries, k, metric=metric)

    for i, query in enumerate(queries):
        plain = sorted((plain_distance(metric, query, v), j) for j, v in enumerate(vectors))[:k]
        assert ids[i, : len(plain)].tolist() == [j for _, j in plain]
        assert distances[i, : len(plain)].tolist() == [d for d, _ in plain]
        assert (ids[i, len(plain) :] == -1).all()
        assert np.isinf(distances[i, len(plain) :]).all()


def test_equal_vectors_are_at_distance_zero_far_from_the_origin(rng):
    # |q|^2 + |x|^2 - 2qx is off by thousands here.
    vectors = (1e9 + rng.standard_normal((500, 64))).astype(np.float64)
    ids, distances = exact(vectors, vectors[:50], 3, metric="l2")
    assert ids[:, 0].tolist() == list(range(50))
    assert (distances[:, 0] == 0).all()
    nearest = ((vectors[:50, None] - vectors) ** 2).sum(-1) ** 0.5
    np.testing.assert_allclose(distances, np.sort(nearest, axis=1)[:, :3], rtol=1e-12)


def test_cosine_knows_directions_only(rng):
    vectors = rng.standard_normal((20, 8))
    scaled = vectors * rng.uniform(0.001, 1000, (20, 1))
    ids, distances = exact(scaled, vectors, 1, metric="cosine")
    assert ids[:, 0].tolist() == list(range(20))
    assert (distances == 0).all()
    np.testing.assert_allclose(exact(-scaled[:1], vectors[:1], 1, metric="cosine")[1], 2, rtol=1e-14)


def test_cosine_of_near_directions_does_not_cancel():
    angle = 1e-9
    (distance,) = exact([[math.cos(angle), math.sin(angle)]], [[1.0, 0.0]], 1, metric="cosine")[1][0]
    assert distance == pytest.approx(angle**2 / 2, rel=1e-6)


@pytest.mark.parametrize("tiny", [1e-200, 5e-324])
def test_cosine_of_tiny_vectors(tiny):
    assert exact([[tiny, 0.0], [0.0, tiny]], [[1.0, 0.0]], 2, metric="cosine")[1].tolist() == [[0.0, 1.0]]


def test_zero_vectors():
    zero, some = [[0.0, 0.0]], [[3.0, 4.0]]
    assert exact(zero, zero, 1, metric="cosine")[1].item() == 1
    assert exact(zero, some, 1, metric="cosine")[1].item() == 1
    assert exact(some, zero, 1, metric="cosine")[1].item() == 1
    product = exact(zero, some, 1, metric="ip")[1].item()
    assert (product, math.copysign(1, product)) == (0, 1)  # not -0.0


def test_jaccard_of_empty_sets_is_zero():
    empty, full = np.zeros((1, 2), np.uint8), np.full((1, 2), 255, np.uint8)
    assert exact(empty, empty, 1, metric="jaccard")[1].item() == 0
    assert exact(full, empty, 1, metric="jaccard")[1].item() == 1


@pytest.mark.parametrize("metric", METRICS)
def test_no_vectors_and_no_queries(metric):
    dtype = np.uint8 if metric in BITS else np.float32
    ids, distances = exact(np.empty((0, 4), dtype), np.ones((2, 4), dtype), 3, metric=metric)
    assert ids.tolist() == [[-1] * 3] * 2
    assert np.isinf(distances).all()
    assert exact(np.ones((2, 4), dtype), np.empty((0, 4), dtype), 3, metric=metric)[0].shape == (0, 3)
    offsets, found, _ = exact_range(np.empty((0, 4), dtype), np.ones((2, 4), dtype), 9, metric=metric)
    assert (offsets.tolist(), found.tolist()) == ([0, 0, 0], [])


def test_many_equal_rows():
    ids, distances = exact(np.ones((50_000, 3), np.float32), np.ones((2, 3)), 4, metric="l2")
    assert ids.tolist() == [[0, 1, 2, 3]] * 2
    assert (distances == 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_, ">f4"])
def test_dtypes(dtype, rng):
    vectors = rng.integers(0, 2, (30, 6)).astype(dtype)
    ids, distances = exact(vectors, vectors[:5], 4, metric="l2")
    expected = exact(vectors.astype(np.float64), vectors[:5].astype(np.float64), 4, metric="l2")
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_bfloat16(rng):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    vectors = rng.standard_normal((30, 6)).astype(ml_dtypes.bfloat16)
    ids, _ = exact(vectors, vectors, 1, metric="l2")
    assert ids[:, 0].tolist() == list(range(30))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.usefixtures("small_blocks")
def test_range_is_the_prefix_of_all_up_to_the_radius(metric, rng):
    vectors, queries = sample(rng, metric, 60, 3), sample(rng, metric, 8, 3)
    ids, distances = exact(vectors, queries, 60, metric=metric)
    for radius in [distances[0, 0], distances[3, 17], distances[7, 59], -1e9, 1e9, np.inf]:
        offsets, found, near = exact_range(vectors, queries, radius, metric=metric)
        assert offsets.dtype == found.dtype == np.int64
        for i in range(8):
            n = int((distances[i] <= radius).sum())  # the boundary is inside
            assert offsets[i + 1] - offsets[i] == n
            assert found[offsets[i] : offsets[i + 1]].tolist() == ids[i, :n].tolist()
            assert near[offsets[i] : offsets[i + 1]].tolist() == distances[i, :n].tolist()


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_callable_metric_on_words():
    words = ["cat", "cart", "dog", "cut", "carts"]

    def metric(item, items):
        return [edit_distance(item, other) for other in items]

    ids, distances = exact(words, ["cat", "dogs"], 3, metric=metric)
    assert ids.tolist() == [[0, 1, 3], [2, 0, 1]]
    assert distances.tolist() == [[0, 1, 1], [1, 4, 4]]
    offsets, found, _ = exact_range(words, ["cat"], 1, metric=metric)
    assert (offsets.tolist(), found.tolist()) == ([0, 3], [0, 1, 3])
    assert pair_distances(words, ["cat"], [[4, -1]], metric=metric).tolist() == [[2, np.inf]]


def test_callable_metric_agrees_with_the_named_one(rng):
    vectors, queries = rng.standard_normal((40, 5)), rng.standard_normal((6, 5))

    def metric(item, items):
        return np.sqrt(((items - item) ** 2).sum(axis=1))

    named, called = (exact(vectors, queries, 7, metric=m) for m in ("l2", metric))
    np.testing.assert_array_equal(named[0], called[0])
    np.testing.assert_array_equal(named[1], called[1])
    np.testing.assert_array_equal(named[1], pair_distances(vectors, queries, named[0], metric=metric))


@pytest.mark.parametrize("answer", [[1.0], [[1.0], [2.0]], [1.0, np.nan], [np.inf, 1.0]])
def test_callable_metric_must_give_one_finite_number_per_item(answer):
    with pytest.raises(InputError, match="metric returned"):
        exact([[1.0], [2.0]], [[1.0]], 1, metric=lambda item, items: answer)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("name", ["vectors", "queries"])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1"])
def test_unusable_values_are_named_by_row(bad, name, metric):
    arrays = {"vectors": np.ones((40, 3)), "queries": np.ones((9, 3))}
    arrays[name][5, 1] = bad
    with pytest.raises(InputError, match=f"{name} row 5"):
        exact(arrays["vectors"], arrays["queries"], 2, metric=metric)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_must_be_a_positive_whole_number(k):
    with pytest.raises(InputError, match="k is"):
        exact([[1.0]], [[1.0]], k, metric="l2")


@pytest.mark.parametrize(
    ("vectors", "queries", "metric", "message"),
    [
        ([1.0, 2.0], [[1.0]], "l2", "vectors has shape"),
        ([[1.0]], [1.0], "l2", r"queries\[None, :\]"),
        ([[1.0], [1.0, 2.0]], [[1.0]], "l2", "vectors"),
        ([["a"]], [[1.0]], "l2", "vectors has dtype"),
        ([[1j]], [[1.0]], "l2", "vectors has dtype"),
        (np.empty((3, 0)), np.empty((3, 0)), "l2", "at least one column"),
        ([[1.0]], [[1.0]], "hamming", "numpy.packbits"),
        ([[1.0]], [[1.0]], "euclid", "l2, ip, cosine"),
        ([[1.0]], [[1.0]], None, "l2, ip, cosine"),
    ],
)
def test_bad_arguments_say_what_is_wanted(vectors, queries, metric, message):
    with pytest.raises(InputError, match=message):
        exact(vectors, queries, 1, metric=metric)


def test_columns_must_agree():
    with pytest.raises(DimensionError, match="queries has 3 columns"):
        exact(np.ones((2, 4)), np.ones((2, 3)), 1, metric="l2")


def test_pair_distances_checks_ids():
    with pytest.raises(IdError, match="holds 3"):
        pair_distances(np.ones((3, 2)), np.ones((1, 2)), [[0, 3]], metric="l2")
    with pytest.raises(InputError, match="-2"):
        pair_distances(np.ones((3, 2)), np.ones((1, 2)), [[-2]], metric="l2")
    with pytest.raises(InputError, match="one row per query"):
        pair_distances(np.ones((3, 2)), np.ones((2, 2)), [[0]], metric="l2")
    with pytest.raises(InputError, match="integer"):
        pair_distances(np.ones((3, 2)), np.ones((1, 2)), [[0.0]], metric="l2")


def test_radius_must_be_a_number():
    with pytest.raises(InputError, match="radius"):
        exact_range([[1.0]], [[1.0]], math.nan, metric="l2")


def test_memory_stays_bounded(rng, monkeypatch):
    monkeypatch.setattr(truth, "_BLOCK_BYTES", 2 << 20)
    vectors = rng.standard_normal((10_000, 16), dtype=np.float32)
    tracemalloc.start()
    try:
        exact(vectors, vectors[:500], 5, metric="l2")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20  # all distances at once are 40 MB
