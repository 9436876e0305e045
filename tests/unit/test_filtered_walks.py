"""Walks through graphs under filters: the reach counts from what passes."""

import numpy as np
import pytest

import nearly


@pytest.fixture(scope="module")
def walked():
    rng = np.random.default_rng(5)
    axes = rng.standard_normal((8, 24))
    vectors, asked = ((rng.standard_normal((n, 8)) @ axes).astype(np.float32) for n in (6000, 150))
    return nearly.Vamana(vectors, degree=24, beam=64, seed=0), vectors, asked


def _recall_under(index, asked, where, target):
    truth = index.search(asked, k=10, where=where, exact=True).distances[:, 9:]
    hits = index.search(asked, k=10, where=where, recall=target)
    assert np.isin(hits.ids, where).all()
    return (hits.distances <= truth + 1e-5).mean(), hits


@pytest.mark.parametrize("share", [0.8, 0.5, 0.35])
@pytest.mark.parametrize("kind", ["random", "with", "against"])
def test_a_walk_under_a_filter_keeps_the_recall_whatever_the_filter_follows(walked, share, kind):
    index, vectors, asked = walked
    n = int(share * len(vectors))
    if kind == "random":
        order = np.random.default_rng(1).permutation(len(vectors))
    else:  # what lies towards the queries' side, or away from it
        order = np.argsort((vectors @ asked[0]) * (1 if kind == "against" else -1))
        asked = asked[(asked @ asked[0] > 0)]
    for target in (0.9, 0.95):
        recall, hits = _recall_under(index, asked, np.sort(order[:n]), target)
        assert "pass" in hits.plan
        assert recall >= target - 0.02
        if kind != "against":
            assert hits.stats.n_distances < len(asked) * n / 2  # no scan in disguise


def test_a_filter_that_leaves_out_the_nearest_is_answered_by_those_behind_them(walked):
    index, _, asked = walked
    found = []
    for query in asked[:25]:
        nearest = index.search(query, k=60, exact=True).ids
        where = np.setdiff1d(np.arange(len(index)), nearest)
        found.append(_recall_under(index, query[None], where, 0.95)[0])
    assert np.mean(found) >= 0.9


def test_queries_whose_neighborhood_hardly_passes_are_scanned(walked):
    index, _, asked = walked
    for query in asked[:10]:
        nearest = index.search(query, k=300, exact=True).ids
        where = np.setdiff1d(np.arange(len(index)), nearest)
        recall, hits = _recall_under(index, query[None], where, 0.9)
        assert recall == 1.0
        assert "scan" in hits.plan
