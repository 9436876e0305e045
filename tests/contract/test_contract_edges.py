"""Edges: few vectors, equal vectors, zero vectors, one dimension and many, every element type, islands."""

import numpy as np
import pytest
from contract_support import GRAPHS, KINDS, SIMPLE, each, points

import nearly
from nearly import evaluate

COSINE = [c for c in SIMPLE if c.metric == "cosine"]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_k_may_exceed_the_number_of_vectors(case, n):
    vectors = points(case.metric, n)
    index = case.make(vectors)
    asked = points(case.metric, 9)
    for k in (1, 3, 2000):
        hits = index.search(asked, k=k)
        assert hits.ids.shape == (9, k)
        assert hits.counts.tolist() == [min(k, n)] * 9
        assert (hits.ids[:, n:] == -1).all()
        assert np.isinf(hits.distances[:, n:]).all()
        assert all(sorted(row[:n]) == list(range(n)) for row in hits.ids.tolist() if k >= n)
        single = index.search(asked[0], k=k)
        assert single.ids.tolist() == hits.ids[0, : min(k, n)].tolist()
        assert single.counts == len(single) == min(k, n)
    assert index.search(asked[:0], k=3).ids.shape == (0, 3)


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_equal_vectors_all_come_back_by_id(case):
    vectors = np.repeat(points(case.metric, 1) + points(case.metric, 1) % 2, 500, axis=0)
    index = case.make(vectors)
    for k in (1, 10, 500, 501):
        hits = index.search(vectors[:2], k=k)
        assert hits.ids[0, :500].tolist() == list(range(min(k, 500)))
        assert len(set(hits.distances[0, :500].tolist())) == 1
    index.remove(np.arange(0, 500, 2))
    assert index.search(vectors[0], k=4).ids.tolist() == [1, 3, 5, 7]
    index.add(vectors[:1], ids=[0])
    assert index.search(vectors[0], k=4).ids.tolist() == [0, 1, 3, 5]
    assert index.range_search(vectors[0], 1e9).counts == 251
    index.verify()


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_million_equal_vectors_are_one(case):
    vectors = np.broadcast_to(np.array([1, 2, 3, 4], np.uint8), (1_000_000, 4))
    index = case.make(vectors)
    assert len(index) == 1_000_000
    hits = index.search(np.zeros((3, 4), np.float32), k=100)
    assert hits.ids.tolist() == [list(range(100))] * 3
    assert hits.stats.n_distances <= 3 * 2
    assert index.search(np.zeros(4, np.float32), k=3, where=[999_999, 5]).ids.tolist() == [5, 999_999]
    index.remove(np.arange(10))
    assert index.search(np.zeros(4, np.float32), k=2).ids.tolist() == [10, 11]
    assert index.n_bytes < 50e6


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_few_distinct_vectors_many_times(case):
    vectors = np.random.default_rng(0).integers(0, 3, (2000, 3)).astype(np.float32)
    index = case.make(vectors)
    hits = index.search(vectors[:50], k=20)
    truth = evaluate.exact(vectors, vectors[:50], 20, metric="l2")
    np.testing.assert_allclose(hits.distances, truth[1], atol=1e-6)
    assert hits.ids.tolist() == truth[0].tolist()  # ties by id, as the oracle


@pytest.mark.parametrize("case", COSINE, ids=str)
def test_zero_vectors_have_similarity_zero(case):
    vectors = points("cosine", 400)
    vectors[[3, 50, 399]] = 0
    index = case.make(vectors)
    hits = index.search(np.concatenate([vectors[:60], -vectors[:1]]), k=400, exact=True)
    truth = evaluate.exact(vectors, np.concatenate([vectors[:60], -vectors[:1]]), 400, metric="cosine")[1]
    np.testing.assert_allclose(hits.distances, truth, atol=1e-5)
    for row, ids in enumerate(hits.ids.tolist()):
        assert all(hits.distances[row, ids.index(i)] == 1.0 for i in (3, 50, 399))
    assert index.search(np.zeros(24, np.float32), k=5).distances.tolist() == [1.0] * 5
    zero = index.search(np.zeros(24, np.float32), k=5, exact=True)
    assert zero.ids.tolist() == [0, 1, 2, 3, 4]
    assert zero.distances.tolist() == [1.0] * 5
    np.testing.assert_array_equal(index.get([3, 50]), np.zeros((2, 24)))
    assert case.make(np.zeros((300, 4), np.float32)).search(np.ones(4, np.float32), k=3).ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize("case", each([c for c in SIMPLE if c.metric != "jaccard"]), ids=str)
def test_one_dimension(case):
    if case.metric == "hamming":
        vectors = np.arange(256, dtype=np.uint8)[:, None]
    else:
        vectors = np.arange(1, 501, dtype=np.float32)[:, None]
    index = case.make(vectors)
    asked = vectors[::7]
    truth = evaluate.exact(vectors, asked, 3, metric=case.metric)[1]
    np.testing.assert_allclose(index.search(asked, k=3, exact=True).distances, truth, atol=1e-5)
    assert (index.search(asked, k=3).distances <= truth[:, -1:] + 1e-5).mean() >= 0.92
    assert index.dim == 1


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_many_dimensions(case):
    vectors, asked = points(case.metric, 40, 4096), points(case.metric, 5, 4096, seed=9)
    hits = case.make(vectors).search(asked, k=5, exact=True)
    truth = evaluate.exact(vectors, asked, 5, metric=case.metric)[1]
    np.testing.assert_allclose(hits.distances, truth, rtol=1e-4, atol=1e-3 if case.metric == "ip" else 1e-5)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_too_many_dimensions_are_refused(case):
    assert case.make(np.ones((2, 32768), np.float32)).dim == 32768
    with pytest.raises(nearly.InputError, match="32768"):
        case.make(np.ones((2, 32769), np.float32))
    with pytest.raises(nearly.InputError, match="shape"):
        case.make(np.ones((2, 0), np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.uint8])
@pytest.mark.parametrize("case", each([c for c in SIMPLE if c.metric in ("l2", "ip", "cosine", "l1")]), ids=str)
def test_element_types(case, dtype):
    values = np.random.default_rng(2).integers(0, 100, (200, 12))  # so few that nothing is calibrated
    vectors = values.astype(dtype)
    index = case.make(vectors)
    asked = vectors[:20].astype(np.float32) + 0.25
    truth = evaluate.exact(vectors.astype(np.float32), asked, 10, metric=case.metric)[1]
    np.testing.assert_allclose(index.search(asked, k=10, exact=True).distances, truth, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(index.get([0, 199]), vectors[[0, 199]].astype(np.float32), rtol=1e-6)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_bad_vectors_are_refused_by_row(case):
    for bad in (np.nan, np.inf, -np.inf):
        vectors = points("l2", 50)
        vectors[31, 2] = bad
        with pytest.raises(nearly.InputError, match="row 31"):
            case.make(vectors)
        with pytest.raises(nearly.InputError, match="row 31"):
            case.make(vectors.astype(np.float16))
    for wrong in ("words", None, 3.0, [[1.0, 2.0], [3.0]], np.zeros((2, 2, 2)), [["a"]], np.zeros(3, complex)):
        with pytest.raises(nearly.InputError, match="vectors"):
            case.make(wrong)
    for ids in ([1, 1, 2], [-1, 2, 3], [1, 2], [1.5, 2, 3], "abc", [2**63, 1, 2]):
        with pytest.raises(nearly.InputError, match="ids"):
            case.make(points("l2", 3), ids=ids)
    with pytest.raises(nearly.InputError, match="metric"):
        type(case.make(points("l2", 3)))(points("l2", 3), metric="euclid")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, marks=[pytest.mark.soak] if c.metric == "cosine" else [])
        for c in SIMPLE
        if c.kind != "flat" and c.metric in ("l2", "cosine")
    ],
    ids=str,
)
def test_islands_are_all_reached(case):
    """Clusters so far apart that no list would lead from one to another by itself."""
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((6, 16)) * 1000
    vectors = np.concatenate([c + rng.standard_normal((100, 16)) for c in centers]).astype(np.float32)
    index = case.make(vectors, **({"order": "given"} if case.kind in GRAPHS else {}))
    index.verify()  # a walk from the entry points reaches every node
    hits = index.search(vectors, k=1, recall=0.99)
    assert (hits.distances == 0).mean() >= 0.98
    far = (centers[0] * -3 + rng.standard_normal((120, 16))).astype(np.float32)
    index.add(far)
    index.verify()
    asked = far + rng.standard_normal(far.shape).astype(np.float32) * 0.1
    found, truth = index.search(asked, k=10), index.search(asked, k=10, exact=True)
    assert (found.ids >= 600).all()
    assert (truth.ids >= 600).all()
    assert (found.distances <= truth.distances[:, 9:]).mean() >= 0.94
    index.remove(np.arange(0, 300))
    index.verify()
    assert (index.search(vectors[300:], k=1, recall=0.99).distances == 0).mean() >= 0.99


@pytest.mark.parametrize("case", [c for c in KINDS if c.kind in GRAPHS], ids=str)
@pytest.mark.parametrize("order", ["random", "given", "lid_descending", "lid_ascending", "numbers"])
def test_orders_of_insertion(case, order):
    vectors = points("l2", 500)
    chosen = np.random.default_rng(4).permutation(500) if order == "numbers" else order
    index = case.make(vectors, order=chosen)
    assert (index.search(vectors, k=1, effort=30).distances == 0).mean() >= 0.99
    for wrong in ("backwards", np.arange(499), np.arange(1, 501), np.zeros(500, int)):
        with pytest.raises(nearly.InputError, match="order"):
            case.make(vectors, order=wrong)
