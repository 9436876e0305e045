"""RaBitQ in the core against the papers' formulas in float64, and against what the papers promise."""

import numpy as np
import pytest
from core_support import (
    METRICS,
    as_bytes,
    between,
    bits,
    bounded,
    coded,
    compared,
    make_plain,
    make_rows,
    over,
    scan,
    score,
)

from nearly import RaBitQ, _core

BITS = range(1, 9)
DIM = 256
# Mean cosine between a vector and its code, measured in NumPy on the same kind of data by trying every scale at which a
# code changes (SIGMOD 2025, section 3.2); sqrt(2 / pi) = 0.798 is the limit of 1 bit (SIGMOD 2024, section 3.1).
COSINES = {1: 0.796, 2: 0.938, 3: 0.981, 4: 0.9944, 6: 0.9996, 8: 0.99998}


def clustered(rng, n, dim=DIM):
    """Twenty clusters whose spread falls from dimension to dimension."""
    spread = np.exp(-np.arange(dim) / 40)
    made = rng.standard_normal((20, dim))[rng.integers(20, size=n)] + rng.standard_normal((n, dim))
    return (made * spread).astype(np.float32)


@pytest.mark.parametrize("n_bits", COSINES)
def test_codes_point_where_their_vectors_do(rng, n_bits):
    vectors = clustered(rng, 1000)
    fitted = RaBitQ(n_bits).fit(vectors)
    r = vectors - fitted.center
    v = fitted.decode(fitted.encode(vectors)) - fitted.center
    cosines = (r * v).sum(axis=1) / np.linalg.norm(r, axis=1) / np.linalg.norm(v, axis=1)
    assert abs(cosines.mean() - COSINES[n_bits]) < 0.003


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("n_bits", BITS)
def test_estimates_are_unbiased_and_bounds_hold_as_often_as_they_say(rng, n_bits, metric):
    vectors, queries = clustered(rng, 1000), clustered(rng, 25)
    biases, outside = [], []
    for seed in range(6):  # the promise is over rotations
        fitted = RaBitQ(n_bits).fit(vectors * np.float32(3 if metric == "ip" else 1), metric=metric, seed=seed)
        fitted = type(fitted)(**{**fitted.__dict__, "norm_bound": 0.0, "center": fitted.center[:DIM],
                                 "signs": fitted.signs[: DIM // 16]})  # fmt: skip
        scorer, _ = coded(fitted, vectors)
        errors = []
        for query in queries:
            got, width = bounded(scorer, query, np.arange(1000))
            off = got - compared(metric, query, vectors)
            size = np.linalg.norm(vectors - fitted.center, axis=1) * np.linalg.norm(query - fitted.center)
            errors.append((off / size).mean())
            outside.append((np.abs(off) > width).mean())
        biases.append(np.mean(errors))
    assert abs(np.mean(biases)) <= 3 * np.std(biases, ddof=1) / len(biases) ** 0.5
    assert 0.03 <= np.mean(outside) <= 0.07


@over("dim", [1, 24, 64, 100, 320])
@pytest.mark.parametrize("n_bits", BITS)
def test_scores_follow_from_the_stored_codes(simd_target, rng, n_bits, dim):
    vectors, query = clustered(rng, 70, dim), clustered(rng, 1, dim)[0]
    fitted = RaBitQ(n_bits).fit(vectors)
    scorer, codes = coded(fitted, vectors)
    v = fitted.decode(codes).astype(np.float64) - fitted.center  # along the code, of another length
    r = vectors.astype(np.float64) - fitted.center
    z = query.astype(np.float64) - fitted.center
    square = (r**2).sum(axis=1)
    along = (r * v).sum(axis=1)
    expected = (z @ z) + square - 2 * square / along * (v @ z)
    # Of the query's rounding to 7 or 13 bits, each of the rotated dimensions is off by half a step at most.
    size = (dim + 63) // 64 * 64
    step = 4 * np.linalg.norm(z) / (63 if n_bits < 5 else 4063)
    limit = 2 * square / along * np.linalg.norm(v, axis=1) * step * size**0.5 / 2 + 2e-5 * (z @ z + square)
    assert (np.abs(score(scorer, query, np.arange(70)) - expected) <= limit).all()


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("n_bits", BITS)
def test_codes_and_scores_are_the_same_on_every_target(rng, n_bits, metric):
    vectors, query = clustered(rng, 150, 130), clustered(rng, 1, 130)[0]
    fitted = RaBitQ(n_bits).fit(vectors, metric=metric)
    before, seen = _core.simd_target(), []
    try:
        for target in _core.simd_targets():
            _core.use_simd_target(target)
            scorer, codes = coded(fitted, fitted._form(vectors))
            scores = score(scorer, query, np.arange(150)), between(scorer, 3, np.arange(150))
            seen.append((codes.tobytes(), *map(bits, scores)))
    finally:
        _core.use_simd_target(before)
    assert all(other == seen[0] for other in seen)


@pytest.mark.parametrize("n_bits", [5, 6, 7, 8])
def test_two_stages_finish_as_one_and_leave_out_what_is_beyond(simd_target, rng, n_bits):
    vectors, query = clustered(rng, 500, 200), clustered(rng, 1, 200)[0]
    scorer, _ = coded(RaBitQ(n_bits).fit(vectors), vectors)
    rows = rng.permutation(500)
    whole, _ = bounded(scorer, query, rows)
    for share in (0.0, 0.02, 0.3, 1.0):
        bound = np.quantile(whole, share)
        got, _ = bounded(scorer, query, rows, bound)
        finished = np.array(bits(got)) == np.array(bits(whole))
        assert (got[~finished] > bound).all()
        assert (finished | (whole > bound * 0.9)).all()  # the bound is exceeded only near it
        if share == 0.02:
            assert finished.mean() < 0.2
    assert finished.mean() > 0.9


@pytest.mark.parametrize("n_bits", [5, 8])
def test_leading_bits_have_bounds_that_hold_as_often_as_they_say(rng, n_bits):
    vectors, queries = clustered(rng, 500), clustered(rng, 20)
    above = []
    for seed in range(6):
        scorer, _ = coded(RaBitQ(n_bits).fit(vectors, seed=seed), vectors)
        for query in queries:
            lowest, _ = bounded(scorer, query, np.arange(500), -np.inf)  # nothing is finished
            above.append((lowest > compared("l2", query, vectors)).mean())
    assert 0.015 <= np.mean(above) <= 0.045  # 1.9 standard deviations, one-sided: 0.029


@pytest.mark.parametrize("times", [0.0, 1.0])
def test_a_scan_misses_a_neighbor_only_where_its_bound_is_wrong(rng, times):
    vectors, queries = clustered(rng, 2000), clustered(rng, 40)
    scorer, _ = coded(RaBitQ(1).fit(vectors), vectors)
    plain, rows, k, missed = make_plain(vectors), make_rows(2000), 10, 0
    ids, distances, counts = np.empty((40, k), np.int64), np.empty((40, k), np.float32), np.empty(40, np.uint32)
    _core.scan_bounded(plain, scorer, times, rows, 2000, DIM * 4, as_bytes(queries), 0, ids, distances, counts)
    truth = scan(plain, rows, 2000, queries, k).ids
    for query, found, nearest in zip(queries, ids, truth, strict=True):
        estimates, widths = bounded(scorer, query, nearest)
        right = estimates - times * widths <= compared("l2", query, vectors[nearest])
        assert np.isin(nearest[right], found).all()
        missed += len(np.setdiff1d(nearest, found))
    assert (missed > 20) == (times == 0)  # estimates taken for bounds leave out many


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("n_bits", BITS)
def test_a_range_scores_as_its_rows_and_a_query_as_any_other(simd_target, rng, n_bits, metric):
    vectors = clustered(rng, 200, 96)
    scorer, _ = coded(RaBitQ(n_bits).fit(vectors, metric=metric), vectors)
    query = clustered(rng, 1, 96)[0]
    rows = rng.permutation(200)[:67]
    together = score(scorer, query, rows)
    assert bits(together) == [bits(score(scorer, query, [row]))[0] for row in rows]


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("n_bits", BITS)
def test_stored_to_stored(rng, n_bits, metric):
    vectors = clustered(rng, 100)
    fitted = RaBitQ(n_bits).fit(vectors * rng.uniform(0.2, 2, (100, 1)).astype(np.float32), metric=metric)
    assert fitted.compares_products == (metric == "ip")
    scorer, _ = coded(fitted, vectors)
    for row in (0, 57):
        got, true = between(scorer, row, np.arange(100)), compared(metric, vectors[row], vectors)
        others = np.arange(100) != row
        assert np.corrcoef(got[others], true[others])[0, 1] > (0.8 if n_bits == 1 else 0.95 if n_bits == 2 else 0.99)
        if metric == "l2":
            assert abs(got[row]) < 0.05 * true.mean()  # itself; the query's rounding is left
            assert (got > -0.05 * true.mean()).all()


def test_cosine_and_even_inner_products_are_ranked_by_squared_distance(rng):
    vectors, query = clustered(rng, 400), clustered(rng, 1)[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ query / np.linalg.norm(query)
    fitted = RaBitQ(7).fit(vectors, metric="cosine")
    scorer, _ = coded(fitted, unit)
    np.testing.assert_allclose(score(scorer, query, np.arange(400)), 2 - 2 * cosines, atol=0.01)
    even = unit * rng.uniform(1, 1.2, (400, 1)).astype(np.float32)
    fitted = RaBitQ(7).fit(even, metric="ip")
    assert fitted.norm_bound > 0
    scorer, _ = coded(fitted, even)
    expected = query @ query + fitted.norm_bound**2 - 2 * even @ query
    np.testing.assert_allclose(score(scorer, query, np.arange(400)), expected, rtol=0.01)


@pytest.mark.parametrize("n_bits", BITS)
def test_vectors_without_a_direction(n_bits):
    vectors = np.repeat(np.arange(3, dtype=np.float32)[:, None], 40, axis=1)  # the middle one is the mean
    vectors = np.concatenate([vectors, vectors])
    scorer, _ = coded(RaBitQ(n_bits).fit(vectors), vectors)
    query = np.full(40, 1.5, np.float32)
    got, width = bounded(scorer, query, np.arange(6))
    assert width[1] == 0
    assert got[1] == pytest.approx(10.0, rel=1e-5)  # exact: the query's distance to the center
    assert got.tolist()[:3] == got.tolist()[3:]
    assert np.isfinite(between(scorer, 1, np.arange(6))).all()


def test_the_choice_of_a_step_is_near_the_best_there_is(rng):
    def best(a, top):
        """Try every scale at which a code changes."""
        scales = (np.arange(1, top + 1)[:, None] / a).ravel() * (1 + 1e-12)
        u = np.minimum(np.floor(scales[:, None] * a), top) + 0.5
        return ((u @ a) ** 2 / (u**2).sum(axis=1)).max()

    for n_bits in (2, 3, 4, 6, 8):
        vectors = rng.standard_normal((40, 64), dtype=np.float32)
        vectors -= vectors.mean(axis=0)
        fitted = RaBitQ(n_bits).fit(vectors)
        rotated = np.empty_like(vectors)
        _core.rotate_rows(fitted.signs, vectors, rotated)
        unit = np.abs(rotated) / np.linalg.norm(rotated, axis=1, keepdims=True)
        reached = 1 - fitted.error(vectors).mean  # the share of |r|^2 that the code keeps: its squared cosine
        weights = (vectors**2).sum(axis=1) / (vectors**2).sum()
        optimum = sum(w * best(a.astype(np.float64), 2 ** (n_bits - 1) - 1) for w, a in zip(weights, unit, strict=True))
        assert (1 - reached) <= (1 - optimum) * 1.02 + 1e-6


def grids(rng, units, tops, fine):
    """Rows of a share of the scale, a top, two weights, the fine steps to 1 and their inverse."""
    made = np.ones((units, 6), np.float32)
    made[:, 0], made[:, 1] = 0.5 ** (np.arange(units) % 3), tops
    made[:, 2:4] = rng.uniform(0.1, 1, (units, 2))
    made[:, 4], made[:, 5] = fine, 1 / fine
    return made


def on_every_target(work):
    """Return what it gives on each, after seeing that all are the same."""
    before, seen = _core.simd_target(), []
    try:
        for target in _core.simd_targets():
            _core.use_simd_target(target)
            seen.append(work())
    finally:
        _core.use_simd_target(before)
    for other in seen[1:]:
        assert [bits(x) for x in other] == [bits(x) for x in seen[0]]
    return seen[0]


@pytest.mark.parametrize("units", [1, 2, 12])
@pytest.mark.parametrize(("scale", "top"), [(0.3, 1.0), (11.7, 15.0), (1e30, 2047.0)])
def test_sweep_matches_numpy_on_every_target(rng, units, scale, top):
    a = np.abs(rng.standard_normal((units, 64), dtype=np.float32))
    a[0, 3] = 0
    of = grids(rng, units, np.float32(top) - np.arange(units) % 2, 64.0)

    def work():
        out = np.full(2, np.nan, np.float32)
        _core.sweep(a.reshape(-1), scale, of, out)
        return [out]

    k = np.minimum(np.floor(a * (np.float32(scale) * of[:, :1])), of[:, 1:2]).astype(np.float64) + 0.5
    expected = (k * a).sum(axis=1) @ of[:, 2], (k * k).sum(axis=1) @ of[:, 3]
    np.testing.assert_allclose(on_every_target(work)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("units", [1, 6])
@pytest.mark.parametrize(("top", "fine"), [(0.0, 64.0), (7.0, 64.0), (2047.0, 8.0)])
def test_sweeps_of_fine_steps_match_numpy_on_every_target(rng, units, top, fine):
    a = np.abs(rng.standard_normal((units, 64), dtype=np.float32)) * np.float32(0.6 * top + 0.6)
    a[0, :2] = 0, 1e30  # as many as 15 bits hold
    of = grids(rng, units, top, fine)
    scales, inverse = np.array([0.4, 0.99, 1.01, 3.9, 1e9], np.float32), 0.7

    def work():
        out, clipped = np.empty((5, 2), np.float32), np.empty(2, np.float32)
        _core.fine_sweeps(a.reshape(-1), scales, inverse, of, out, clipped)
        return [out.reshape(-1), clipped]

    out, clipped = on_every_target(work)
    steps = np.floor(np.minimum(a * np.float32(fine) + np.float32(0.5), 32767)).astype(np.int64)
    by = np.minimum(scales[:, None, None] * (of[:, 0] * np.float32(131072 / fine))[:, None], 65535).astype(np.int64)
    k = np.minimum(((steps * by) >> 16) // 2, int(top)) + 0.5
    expected = (k * steps / fine).sum(axis=2) @ of[:, 2], (k * k).sum(axis=2) @ of[:, 3]
    np.testing.assert_allclose(out.reshape(5, 2).T, expected, rtol=1e-5)
    most = of[:, 1:2] + 0.5
    beyond = steps > np.floor(np.minimum(most * np.float32(inverse) * np.float32(fine), 32767))
    weight = of[:, 3]
    product = (beyond * steps / fine * most).sum(axis=1) @ weight
    square = np.where(beyond, most**2, 1 / 12).sum(axis=1) @ weight
    np.testing.assert_allclose(clipped, (product, square), rtol=1e-5)


def test_makers_refuse_what_does_not_fit():
    table, center, signs = _core.Table(32, 0, 4), np.zeros(64, np.float32), np.zeros(4, np.uint64)
    make = _core.RaBitQ
    make(table, 64, 1, METRICS.index("l2"), 0.0, 1.9, center, signs)
    for arguments in (
        (64, 0, 0, 0.0, 1.9, center, signs), (64, 9, 0, 0.0, 1.9, center, signs), (0, 1, 0, 0.0, 1.9, center, signs),
        (64, 4, 0, 0.0, 1.9, center, signs), (64, 1, METRICS.index("l1"), 0.0, 1.9, center, signs),
        (64, 1, METRICS.index("ip"), 2.0, 1.9, center, signs), (64, 1, 0, 0.0, 0.0, center, signs),
        (64, 1, 0, 0.0, np.nan, center, signs), (64, 1, 0, 0.0, 1.9, center[:63], signs),
        (64, 1, 0, 0.0, 1.9, center, signs[:3]), (40000, 1, 0, 0.0, 1.9, center, signs),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"RaBitQ|codes"):
            make(table, *arguments)


@pytest.mark.parametrize("n_bits", [1, 4, 8])
@pytest.mark.parametrize("largest", [3e38, 1e20, 1e-30, 1e-44])
def test_numbers_of_any_size_are_coded(rng, n_bits, largest):
    vectors = (clustered(rng, 50, 100) / 50 * largest).astype(np.float32)
    vectors[7] = np.float32(largest)  # the same in all dimensions: its rotation overflows where it can
    scorer, _ = coded(RaBitQ(n_bits).fit(vectors), vectors)
    for got in (score(scorer, vectors[3], np.arange(50)), between(scorer, 7, np.arange(50))):
        assert len(got) == 50  # whatever they are: nothing is read or written beyond its place
    if largest < 1:
        assert np.isfinite(got).all()
