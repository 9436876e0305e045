"""Filters: what does not pass is never returned, and k are returned when k pass, however few that are."""

import numpy as np
import pytest
from contract_support import KINDS, LARGE, SIMPLE, built, each, points, queries, same

import nearly
from nearly import evaluate

SHARES = [9, 700, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 60, LARGE))]


def options_of(case):
    """Return an effort so small that many queries have to be answered in another way, and the recall target."""
    return ({},) if case.kind == "flat" else ({}, {"effort": 10}, {"exact": True})


@pytest.mark.parametrize("passing", SHARES)
@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_only_what_passes_is_found_and_enough_of_it(case, passing):
    index, asked = built(case, LARGE), queries(case.metric, 8)
    allowed = np.sort(np.random.default_rng(passing).permutation(LARGE)[:passing])
    mask = np.zeros(LARGE, bool)
    mask[allowed] = True
    for options in options_of(case):
        hits = index.search(asked, k=10, where=mask, **options)
        assert (hits.counts == min(10, passing)).all()
        assert np.isin(hits.ids[hits.ids >= 0], allowed).all()
        same(index.search(asked, k=10, where=allowed, **options), hits)
        same(index.search(asked, k=10, where=mask, threads=1, **options), hits)
        for i in (0, 5):
            same(index.search(asked[i], k=10, where=mask, **options), hits[i])
    truth = evaluate.exact(points(case.metric, LARGE)[allowed], asked, 10, metric=case.metric)[1]
    np.testing.assert_allclose(hits.distances, truth, rtol=1e-5, atol=2e-5)  # exact=True came last


@pytest.mark.parametrize("case", each([c for c in SIMPLE if c.kind != "flat"]), ids=str)
@pytest.mark.parametrize("passing", [300, 900, 1300])
def test_recall_holds_among_what_passes(case, passing):
    index, asked = built(case, LARGE), queries(case.metric, 100)
    mask = np.random.default_rng(passing).permutation(LARGE) < passing
    truth = index.search(asked, k=10, where=mask, exact=True).distances[:, -1:]
    for target in (0.9, 0.95):
        found = index.search(asked, k=10, where=mask, recall=target)
        assert (found.distances <= truth).mean() >= target - 0.03
        assert f"{passing}" in found.plan or "exact scan" in found.plan


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_a_filter_that_passes_all_changes_nothing(case):
    index, asked = built(case, LARGE), queries(case.metric)
    for options in options_of(case)[1:]:
        same(index.search(asked, where=np.ones(LARGE, bool), **options), index.search(asked, **options))
    found, plain = index.search(asked, where=np.ones(LARGE, bool)), index.search(asked)
    assert (found.distances <= plain.distances).all()  # the same, or exact where a scan costs less


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_each_query_may_have_a_filter_of_its_own(case):
    index, asked = built(case, LARGE), queries(case.metric, 8)
    masks = np.random.default_rng(3).random((8, LARGE)) < np.array([0, 0.001, 0.01, 0.1, 0.5, 0.5, 0.9, 1])[:, None]
    of_a_kind = np.flatnonzero(masks[3])
    mixed = [masks[1], None, of_a_kind, of_a_kind, {7, 3}, [], masks[1], tuple(range(500))]
    for options in options_of(case):
        for filters in (masks, list(masks), mixed, tuple(mixed)):
            hits = index.search(asked, k=10, where=filters, **options)
            assert hits.ids.shape == (8, 10)
            for i, one in enumerate(filters):
                same(index.search(asked[i], k=10, where=one, **options), hits[i])
        work = [index.search(asked[i], k=10, where=one, **options).stats for i, one in enumerate(mixed)]
        found = index.search(asked, k=10, where=mixed, **options)
        assert found.stats.n_distances == sum(one.n_distances for one in work)
        assert found.expected_recall is not None
    alone = index.search(asked[0], k=10, where=[masks[4]])
    assert alone.single
    same(alone, index.search(asked[0], k=10, where=masks[4]))


@pytest.mark.parametrize("case", each(KINDS), ids=str)
def test_filters_for_each_query_are_refused_by_their_place(case):
    index, asked = built(case, LARGE), queries(case.metric, 3)
    mask = np.ones(LARGE, bool)
    with pytest.raises(nearly.InputError, match="where holds 2 filters, but there are 3 queries"):
        index.search(asked, where=[mask, mask])
    with pytest.raises(nearly.InputError, match="3 queries"):
        index.search(asked, where=np.ones((4, LARGE), bool))
    with pytest.raises(nearly.InputError, match="shape") as refused:
        index.search(asked, where=[mask, None, mask[:-1]])
    assert refused.value.__notes__ == ["that was where[2]"]
    broken = asked.copy()
    broken[2, 0] = np.nan
    with pytest.raises(nearly.InputError, match="row 2"):
        index.search(broken, where=[mask, None, mask])
    for none in ([], np.zeros((0, LARGE), bool)):
        assert index.search(asked[:0], where=none).ids.shape == (0, 10)
    ids_alone = [np.array(i) for i in range(9)]  # one filter, not nine
    same(index.search(asked, where=ids_alone), index.search(asked, where=np.arange(9)))
    with pytest.raises(nearly.InputError, match="k") as refused:
        index.search(asked, 0, where=[mask] * 3)
    assert not hasattr(refused.value, "__notes__")


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_a_filter_that_passes_nothing_finds_nothing(case):
    index, asked = built(case), queries(case.metric, 3)
    for nothing in (np.zeros(600, bool), [], np.array([], np.int64), [10**9], [2**62]):
        assert index.search(asked, where=nothing).counts.tolist() == [0, 0, 0]
        assert len(index.search(asked[0], where=nothing)) == 0
        assert index.range_search(asked, 1e6, where=nothing).counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_ids_of_a_filter_may_repeat_and_be_unknown(case):
    index, asked = built(case), queries(case.metric, 3)
    hits = index.search(asked, k=5, where=[7, 7, 7, 3, 10**6, 599])
    assert sorted(hits.ids[0, :3].tolist()) == [3, 7, 599]
    assert hits.counts.tolist() == [3, 3, 3]


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_filters_speak_of_ids_not_of_rows(case):
    vectors = points("l2", 500)
    ids = np.random.default_rng(0).permutation(5000)[:500]
    index = case.make(vectors, ids=ids)
    hits = index.search(vectors[:20], k=4, where=ids[:20])
    assert hits.ids[:, 0].tolist() == ids[:20].tolist()
    assert np.isin(hits.ids, ids[:20]).all()
    with pytest.raises(nearly.InputError, match="ids"):
        index.search(vectors[0], where=np.ones(500, bool))
    with pytest.raises(nearly.InputError, match="ids"):
        index.range_search(vectors[0], 1.0, where=np.ones(500, bool))


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_filters_hold_among_equal_vectors(case):
    vectors = np.repeat(points("l2", 60), 10, axis=0)
    index = case.make(vectors)
    hits = index.search(vectors[::10], k=10, where=np.arange(600) % 10 == 3)
    assert hits.ids[:, 0].tolist() == list(range(3, 600, 10))
    assert (hits.ids % 10 == 3).all()


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_filters_hold_after_changes(case):
    vectors = points("l2", 800)
    index = case.make(vectors[:600])
    index.remove(np.arange(0, 600, 3))
    index.add(vectors[600:])
    mask = np.zeros(800, bool)
    mask[::2] = True
    alive = np.array([i for i in range(800) if i >= 600 or i % 3])
    for options in options_of(case):
        hits = index.search(vectors[:40], k=10, where=mask, **options)
        assert (hits.ids % 2 == 0).all()
        assert np.isin(hits.ids, alive).all()
    _, truth = evaluate.exact(vectors[alive[alive % 2 == 0]], vectors[:40], 10, metric="l2")
    np.testing.assert_allclose(hits.distances, truth, rtol=1e-5, atol=1e-5)
    with pytest.raises(nearly.InputError, match="800"):
        index.search(vectors[0], where=mask[:600])


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_refuses_what_is_no_filter(case):
    index, query = built(case), queries("l2")[0]
    for wrong in ("year > 2000", [0.5, 1.5], np.ones((600, 1), bool), np.ones(599, bool), np.ones(601, bool), [-1], 5.0,
                  {"a": 1}, np.zeros(600), lambda row: True):  # fmt: skip
        with pytest.raises(nearly.InputError, match="where"):
            index.search(query, where=wrong)
        with pytest.raises(nearly.InputError, match="where"):
            index.range_search(query, 1.0, where=wrong)
