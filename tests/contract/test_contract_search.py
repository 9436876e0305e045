"""What every index promises of a search: exactness on demand, the recall asked for, one answer for one query."""

import pickle

import numpy as np
import pytest
from contract_support import CASES, DIM, KINDS, L2, LARGE, SIMPLE, N, built, each, points, queries, same

import nearly
from nearly import evaluate
from nearly.indexes import INDEXES
from nearly.metrics import METRICS

# Sums of 24 products in float32: an ulp is 6e-8 of values below 100.
CLOSE = {"rtol": 1e-5, "atol": 2e-5}
MEASURED = [c for c in CASES if c.kind in ("vamana", "ivf") or (c in SIMPLE and c.kind != "flat")]


@pytest.mark.parametrize("case", each([c for c in CASES if c.metric != "ip" or c in SIMPLE]), ids=str)
def test_finds_a_stored_vector_first(case):
    vectors = points(case.metric)
    if case.metric == "ip":  # of vectors of one length, a vector has its largest product with itself
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        index = case.make(vectors)
    else:
        index = built(case)
    hits = index.search(vectors[:50], k=1, exact=True)
    assert hits.ids[:, 0].tolist() == list(range(50))
    if case.metric != "ip":
        assert (hits.distances == 0).all()
    found = index.search(vectors, k=1, recall=0.99).ids[:, 0] == np.arange(N)
    assert found.mean() >= 0.99


@pytest.mark.parametrize("case", each(CASES), ids=str)
def test_exact_search_agrees_with_the_oracle(case):
    vectors, asked = points(case.metric), queries(case.metric)
    hits = built(case).search(asked, k=10, exact=True)
    ids, distances = evaluate.exact(vectors, asked, 10, metric=case.metric)
    np.testing.assert_allclose(hits.distances, distances, **CLOSE)
    assert (hits.ids == ids).mean() > 0.99  # ties to rounding may change places
    assert hits.expected_recall == 1.0
    reported = evaluate.pair_distances(vectors, asked, hits.ids, metric=case.metric)
    np.testing.assert_allclose(hits.distances, reported, **CLOSE)


@pytest.mark.parametrize("case", each(CASES), ids=str)
def test_distances_are_those_of_the_vectors_and_ascend(case):
    vectors, asked = points(case.metric), queries(case.metric)
    hits = built(case).search(asked, k=10)
    assert hits.ids.dtype == np.int64
    assert hits.distances.dtype == np.float32
    assert (np.diff(hits.distances, axis=1) >= 0).all()
    assert all(len(set(row)) == 10 for row in hits.ids.tolist())
    reported = evaluate.pair_distances(vectors, asked, hits.ids, metric=case.metric)
    np.testing.assert_allclose(hits.distances, reported, **CLOSE)
    np.testing.assert_array_equal(hits.scores, METRICS[case.metric].score_from_distance(hits.distances))


@pytest.mark.parametrize("case", each(CASES), ids=str)
def test_a_batch_answers_as_single_queries_do_for_any_number_of_threads(case):
    asked, index = queries(case.metric, 16), built(case)
    options = {} if case.kind == "flat" else {"effort": 20}
    for more in ({}, options, {"exact": True}):
        batch = index.search(asked, k=7, **more)
        for i, query in enumerate(asked):
            same(index.search(query, k=7, **more), batch[i])
        for threads in (1, 5):
            same(index.search(asked, k=7, threads=threads, **more), batch)
        same(index.search(asked[::-1], k=7, **more), type(batch)(batch.ids[::-1], batch.distances[::-1], False, None))


@pytest.mark.parametrize("case", each(CASES), ids=str)
def test_many_together_are_answered_at_least_as_well_as_each_alone(case):
    asked, index = queries(case.metric, 24), built(case)
    exact = index.search(asked, k=7, exact=True)
    for threads in (1, 3):
        same(index.search_many(asked, k=7, exact=True, threads=threads), exact)
    together = index.search_many(asked, k=7)
    assert together.ids.shape == (24, 7)
    found = [hits.distances <= truth.distances[-1] for hits, truth in zip(together, exact, strict=True)]
    alone = [
        index.search(query, k=7).distances <= truth.distances[-1] for query, truth in zip(asked, exact, strict=True)
    ]
    assert np.mean(found) >= np.mean(alone) - 0.02
    assert index.search_many(asked[0], k=7).single


@pytest.mark.parametrize("own", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize("case", each(MEASURED), ids=str)
def test_delivers_the_recall_that_was_asked_for(case, own):
    n = LARGE if case in SIMPLE else N  # what others build already
    vectors, asked = points(case.metric, n), queries(case.metric, 200)
    index = built(case, n, own)
    _, truth = evaluate.exact(vectors, asked, 10, metric=case.metric)
    for target in (0.8, 0.9, 0.95):
        hits = index.search(asked, k=10, recall=target)
        bound = truth[:, -1:] + CLOSE["atol"]
        assert (hits.distances <= bound).mean() >= target - 0.03
        assert hits.expected_recall >= target
        assert f"recall {target:g}" in hits.plan or "exact" in hits.plan


@pytest.mark.parametrize("case", each([c for c in SIMPLE if c.kind != "flat"]), ids=str)
def test_more_effort_finds_no_less_on_average(case):
    asked, index = queries(case.metric), built(case)
    truth = index.search(asked, k=10, exact=True).distances[:, -1:]
    shares = [(index.search(asked, k=10, effort=effort).distances <= truth).mean() for effort in (10, 40, N)]
    assert shares[0] - 0.02 <= shares[1] <= shares[2] + 0.02
    assert shares[2] >= 0.99
    work = [index.search(asked, k=10, effort=effort).stats.n_distances for effort in (10, 40, N)]
    assert work == sorted(work)


@pytest.mark.parametrize("case", each([c for c in SIMPLE if c.kind == "flat" or c.metric == "l2"]), ids=str)
def test_range_search_agrees_with_the_oracle(case):
    vectors, asked = points(case.metric), queries(case.metric, 10)
    index = built(case)
    for rank in (1, 40):
        near, far = np.sort(index.search(asked, k=rank + 1, exact=True).distances, axis=1)[:, -2:].T
        # Between two distances, so that rounding does not decide; where they are equal, at them: the radius is inside.
        for i, radius in enumerate(((near + far) / 2).tolist()):
            found = index.range_search(asked[i], radius)
            _, ids, distances = evaluate.exact_range(vectors, asked[i : i + 1], radius, metric=case.metric)
            if far[i] - near[i] > 1e-4 or case.metric == "hamming":
                assert sorted(found.ids.tolist()) == sorted(ids.tolist())
                np.testing.assert_allclose(np.sort(found.distances), np.sort(distances), **CLOSE)
    batch = index.range_search(asked, radius)
    assert len(batch) == len(asked)
    for i, query in enumerate(asked):
        same(batch[i], index.range_search(query, radius))


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_the_radius_is_inclusive(case):
    index = case.make(np.array([[0, 0], [3, 4], [6, 8], [0, 5]], np.float32))
    assert index.range_search(np.zeros(2, np.float32), 5.0).ids.tolist() == [0, 1, 3]
    assert index.range_search(np.zeros(2, np.float32), 4.99).ids.tolist() == [0]
    assert index.range_search(np.zeros(2, np.float32), 10.0, where=[2, 3]).ids.tolist() == [3, 2]
    assert index.range_search(np.ones(2, np.float32), -1.0).ids.tolist() == []


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_refuses_queries_that_cannot_be_answered(case):
    index = built(case)
    good = queries("l2")[0]
    index.search(good)  # from here on the quick door for single rows is open, too
    for bad in (np.nan, np.inf, -np.inf):
        query = good.copy()
        query[3] = bad
        for asked in (query, query[None], np.stack([good, query]), query.astype(np.float64)):
            with pytest.raises(nearly.InputError, match="finite"):
                index.search(asked)
            with pytest.raises(nearly.InputError, match="finite"):
                index.range_search(asked, 1.0)
    index.search(good * 1e30)  # far away, its square beyond float32, but a number
    for shape in (DIM - 1, DIM + 1, (2, DIM + 1)):
        with pytest.raises(nearly.DimensionError, match=f"{DIM}"):
            index.search(np.zeros(shape, np.float32))
    with pytest.raises(nearly.InputError):
        index.search(np.zeros((2, 2, DIM), np.float32))
    for k in (0, -1, 2.5, "3", None, True):
        with pytest.raises((nearly.InputError, TypeError), match="k"):
            index.search(good, k=k)
    for threads in (0, -1, 1.5):
        with pytest.raises(nearly.InputError, match="threads"):
            index.search(good, threads=threads)
    for radius in (np.nan, "far", None):
        with pytest.raises(nearly.InputError, match="radius"):
            index.range_search(good, radius)
    for recall in (-0.1, 1.5, np.nan, "high"):
        with pytest.raises(nearly.InputError, match="recall"):
            index.search(good, recall=recall)


@pytest.mark.parametrize("case", each([c for c in CASES if c.metric == "ip"]), ids=str)
def test_products_with_zero_are_a_plain_zero(case):
    index = case.make(np.concatenate([points("ip")[:199], np.zeros((1, DIM), np.float32)]))
    found = index.search(np.stack([queries("ip")[0]] * 9), k=200, exact=True)
    at = found.ids == 199
    assert (found.distances[at] == 0).all()
    assert not np.signbit(found.distances[at]).any()
    assert not np.signbit(index.search(np.zeros(DIM, np.float32), k=5, exact=True).distances).any()


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_names_that_others_use_are_answered_with_ours(case):
    index, query = built(case), queries("l2")[0]
    for wrong, right in (("top_k", "k="), ("topk", "k="), ("n_neighbors", "k="), ("ef", "effort="),
                         ("ef_search", "effort="), ("filter", "where=")):  # fmt: skip
        with pytest.raises(TypeError, match=right):
            index.search(query, **{wrong: 5})
    with pytest.raises(TypeError, match="'colour'"):
        index.search(query, colour=5)
    for wrong, right in (
        ("recall", "is exact"),
        ("mask", "where="),
        ("eps", "use radius="),
        ("n_jobs", "threads="),
    ):
        with pytest.raises(TypeError, match=right):
            index.range_search(query, 1.0, **{wrong: 0.5})


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"space": "l2"}, "use metric="), ({"num_threads": 1}, "use threads="), ({"max_elements": 9}, "by itself"),
        ({"ef": 9}, r"search\(\) takes effort="), ({"nlist": 9}, "nearly.build"), ({"colour": 1}, "'colour'$"),
    ],
)  # fmt: skip
def test_constructors_know_the_names_that_others_use(kind, wrong, right):
    for make in (INDEXES[kind], nearly.build):
        with pytest.raises(TypeError, match=right):
            make(queries("l2"), **wrong)


def test_names_of_graphs_that_others_use_are_answered_with_ours():
    for make, right in ((nearly.HNSW, {"m": "M", "efConstruction": "ef_construction", "max_degree": "M"}),
                        (nearly.Vamana, {"R": "degree", "L": "beam", "ef_construction": "beam"})):  # fmt: skip
        for wrong, ours in right.items():
            with pytest.raises(TypeError, match=f"; use {ours}=$"):
                make(queries("l2"), **{wrong: 5})


@pytest.mark.parametrize("kind", INDEXES)
def test_all_indexes_have_one_surface(kind):
    rng = np.random.default_rng(0)
    index = INDEXES[kind](rng.standard_normal((400, 8), dtype=np.float32))
    asked = rng.standard_normal((50, 8), dtype=np.float32)
    for options in ({"effort": 30}, {"exact": False}, {"exact": True}, {"recall": 0.9}):
        assert index.search(asked, k=3, **options).ids.shape == (50, 3)
    for wrong in ({"effort": 0}, {"effort": 2.5}, {"recall": 2}, {"effort": 30, "recall": 0.9}):
        with pytest.raises(nearly.InputError, match=next(iter(wrong))):
            index.search(asked, **wrong)
    index.calibrate()
    index.calibrate(asked, threads=1)
    with pytest.raises(nearly.InputError, match=r"queries holds 19, .*fewer than 20 .*a few hundred is right"):
        index.calibrate(asked[:19])
    with pytest.raises(nearly.DimensionError):
        index.calibrate(asked[:, :5])
    with pytest.raises(nearly.InputError, match="threads"):
        index.calibrate(threads=0)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_pickling_says_save(case):
    with pytest.raises(TypeError, match="save"):
        pickle.dumps(built(case))


@pytest.mark.parametrize("case", L2, ids=str)
def test_says_what_it_is(case):
    index = built(case)
    assert f"{N} vectors" in repr(index)
    assert "l2" in repr(index)
    assert index.plan in repr(index)
    assert index.dim == DIM
    assert index.metric == "l2"
    assert index.n_bytes >= points("l2").nbytes
    assert len(index) == N


@pytest.mark.parametrize("case", [c for c in KINDS if c.kind != "flat"], ids=str)
def test_an_index_that_was_not_calibrated_asks_for_an_effort(case):
    index = case.make(points("l2"), calibrate=False)
    query = queries("l2")[0]
    with pytest.raises(nearly.StateError, match="effort="):
        index.search(query)
    hits = index.search(query, effort=30)
    assert hits.expected_recall is None
    with pytest.raises(nearly.InputError, match="exclude"):
        index.search(query, effort=30, recall=0.9)
    index.calibrate()
    assert index.search(query).expected_recall >= 0.95
    assert index.curve.n_queries > 0


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", [nearly.Vamana, nearly.HNSW])
def test_stored_vectors_are_found_but_for_one_in_a_thousand(kind, metric):
    vectors = points(metric, 5000)
    index = kind(vectors, metric=metric, seed=0, **({"beam": 64} if kind is nearly.Vamana else {"ef_construction": 64}))
    hits = index.search(vectors, k=1, recall=0.99)
    assert "exact scan" not in hits.plan
    assert (hits.distances[:, 0] == 0).mean() >= 0.999


def test_a_target_beyond_the_graph_is_answered_exactly_and_said_to_be():
    vectors, asked = points("l2", 1000, dim=64), points("l2", 40, dim=64, seed=9)
    index = nearly.Vamana(vectors, degree=4, beam=8, quantizer=nearly.Binary(), seed=0)
    hits, exact = index.search(asked, recall=0.999), index.search(asked, exact=True)
    assert "recall 0.999 is beyond the graph, which reached" in hits.plan
    assert hits.expected_recall == 1.0
    same(hits, exact)


@pytest.mark.parametrize("case", [c for c in KINDS if c.kind != "flat"], ids=str)
def test_a_curve_that_much_has_changed_since_is_said_to_be_old(case):
    index = case.make(points("l2", 2000))
    assert "changes since" not in index.search(queries("l2")).plan
    index.remove(np.arange(0, 300))
    assert "changes since" not in index.search(queries("l2")).plan
    index.remove(np.arange(300, 600))
    assert "600 changes since" in index.search(queries("l2")).plan
    index.calibrate()
    assert "changes since" not in index.search(queries("l2")).plan
