"""The recall contract of graphs: queries made from the data, what queries of other kinds get, small sets."""

import numpy as np
import pytest

import nearly
from nearly.indexes import calibration

METRICS = ("l2", "cosine", "ip", "l1", "hamming", "jaccard")


def clusters(rng, n, dim=32, inner=8):
    """Points of about 40 clusters, each with its own few directions."""
    centers = rng.standard_normal((40, dim)) * 2
    axes = rng.standard_normal((40, inner, dim)) / np.sqrt(inner)
    which = rng.integers(0, 40, n)
    return (centers[which] + np.einsum("ni,nid->nd", rng.standard_normal((n, inner)), axes[which])).astype(np.float32)


def data(metric, rng, n):
    if metric in ("hamming", "jaccard"):
        return np.packbits(clusters(rng, n, dim=64) > 0.5, axis=1)
    return clusters(rng, n)


@pytest.fixture(scope="module", params=METRICS)
def index(request):
    made = data(request.param, np.random.default_rng(3), 3000)
    return nearly.Vamana(made, metric=request.param, degree=16, beam=48, recall=0.9, seed=2)


def test_queries_made_from_stored_points_are_what_the_metric_takes(index):
    probes, again = calibration.from_stored(index), calibration.from_stored(index)
    assert probes.rows.shape == (500 * 6, index._store.query_bytes)
    assert probes.n_expected == len(probes.apart) == 500
    assert probes.rows.tobytes() == again.rows.tobytes()
    if index.metric in ("hamming", "jaccard"):
        rows = probes.rows
    else:
        rows = probes.rows.view(np.float32)
        assert np.isfinite(rows).all()
    near = index.search(rows[: probes.n_expected], k=1, exact=True).distances[:, 0]
    far = index.search(rows[probes.n_expected :], k=1, exact=True).distances[:, 0]
    if index.metric != "ip":  # where distances speak of the query's length
        assert np.median(near) <= np.median(far)  # the others are the harder ones


def test_the_build_calibrates_on_points_that_it_holds_back_and_harder_ones(index):
    curve = index.curve
    assert "held out" in curve.source
    assert curve.n_easy <= 3 <= len(curve.share)
    assert curve.n_queries > calibration.held_out(3000)
    assert np.isinf(curve.reaches).all() == (index.metric in ("hamming", "jaccard"))  # whole numbers leave gaps
    assert (index.ids == np.arange(3000)).all()  # and then holds them all


@pytest.mark.parametrize("source", ["built", "stored", pytest.param("queries", marks=pytest.mark.soak)])
def test_what_is_promised_is_delivered(index, source):
    fresh = data(index.metric, np.random.default_rng(3), 4000)[3000:]  # of the same kind
    rng = np.random.default_rng(11)
    if fresh.dtype == np.uint8:
        odd = fresh ^ np.packbits(rng.random((1000, 64)) < 0.1, axis=1)
    else:
        odd = (0.7 * fresh + 0.3 * rng.permutation(fresh)).astype(np.float32)  # of another kind
    if source == "stored":
        index.calibrate()
    elif source == "queries":
        index.calibrate(np.concatenate([fresh[::2], odd[::2]]))
    for asked in (fresh[1::2], odd[1::2]):
        truth = index.search(asked, k=10, exact=True).distances[:, 9:]
        for target in (0.8, 0.9, 0.95, 0.99):
            hits = index.search(asked, k=10, recall=target)
            delivered = (hits.distances <= truth).mean()
            assert delivered >= target - 0.025, (index.metric, target)  # 0.01, and what 500 queries leave open


@pytest.mark.soak
def test_what_an_effort_is_said_to_find_is_found_where_codes_are_ranked_by_depths_of_k():
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((24, 64), np.float32)
    vectors, asked = (rng.standard_normal((n, 24), np.float32) @ basis for n in (4000, 400))
    index = nearly.Vamana(vectors, degree=16, beam=40, quantizer=nearly.Binary(), seed=2)
    truth = index.search(asked, k=10, exact=True).distances[:, 9:]
    for effort in (112, 400):
        hits = index.search(asked, k=10, effort=effort)
        assert abs((hits.distances <= truth).mean() - hits.expected_recall) <= 0.06, effort


@pytest.mark.parametrize(
    ("n", "dim"),
    [
        pytest.param(
            n, dim, marks=[] if (n, dim) in ((300, 4), (300, 64), (500, 16), (2000, 16)) else [pytest.mark.soak]
        )
        for n in (300, 500, 1000, 2000)
        for dim in (4, 16, 64)
    ],
)
def test_small_sets_are_not_scanned_for_want_of_queries(n, dim):
    rng = np.random.default_rng(n + dim)
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    index = nearly.Vamana(vectors, seed=1)
    asked = rng.standard_normal((300, dim), dtype=np.float32)
    truth = index.search(asked, k=10, exact=True).distances[:, 9:]
    for target in (0.8, 0.9, 0.95):
        hits = index.search(asked, k=10, recall=target)
        assert "beyond the graph" not in hits.plan
        assert (hits.distances <= truth).mean() >= target - 0.03  # three standard errors of 300 queries


def test_a_calibrated_target_costs_less_than_a_higher_one(index):
    asked = data(index.metric, np.random.default_rng(3), 3500)[3000:]
    work = [index.search(asked, k=10, recall=target).stats.n_distances for target in (0.8, 0.9, 0.95)]
    assert work == sorted(work)


def test_few_neighbors_have_curves_of_their_own(index):
    asked = data(index.metric, np.random.default_rng(3), 4000)[3000:]
    for k in (1, 4, 20, 45, 130):
        truth = index.search(asked, k=k, exact=True).distances[:, k - 1 :]
        for target in (0.8, 0.95):
            delivered = (index.search(asked, k=k, recall=target).distances <= truth).mean()
            assert delivered >= target - 0.025, (index.metric, k, target)


def test_points_are_held_out_by_a_rule_in_their_number():
    numbers = [calibration.held_out(n) for n in (256, 800, 1600, 8000, 100_000)]
    assert numbers == [32, 100, 100, 500, 500]


def test_a_grown_index_keeps_its_promise():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((10, 24), dtype=np.float32)
    vectors = rng.standard_normal((4000, 10), dtype=np.float32) @ flat
    queries = rng.standard_normal((300, 10), dtype=np.float32) @ flat
    index = nearly.Vamana(vectors[:2000], recall=0.9, degree=16)
    measured = index.curve
    for n in (2900, 4000):
        index.add(vectors[len(index) : n])
        found, truth = index.search(queries), index.search(queries, exact=True)
        delivered = (found.distances <= truth.distances[:, 9:10]).mean()
        assert delivered >= 0.89, (n, delivered, found.plan)
        assert (index.curve is measured) == (n == 2900)  # measured anew when it has grown by half
