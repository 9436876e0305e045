"""SAQ in the core against its formulas in float64, and against what the paper and RaBitQ's theory promise."""

import dataclasses
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from core_support import METRICS, between, bits, bounded, coded, compared, score

from nearly import SAQ, RaBitQ, _core
from nearly.quantizers.saq import ERRORS, FittedSAQ

DIM = 256
# Squared error by that of one step for all vectors, measured: less, as each vector has its own, to which codes adjust.
LESS = {0.5: 0.965, 1: 0.945, 2: 0.846, 2.5: 0.873, 4: 0.818, 6: 0.776, 8: 0.765}


def falling(rng, n, dim=DIM, fall=40.0):
    """Normal vectors about a mean, whose spread falls from axis to axis: exp(-j / fall)."""
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0] * np.exp(-np.arange(dim) / fall)[:, None]
    return (rng.standard_normal((n, dim)) @ axes + 0.3).astype(np.float32)


@cache
def fitted_to(fall):
    """Codes of 8 bits fitted to 700 vectors of 320 dimensions, those, and a query."""
    rng = np.random.default_rng(20240229)
    vectors, query = falling(rng, 700, 320, fall), falling(rng, 1, 320, fall)[0]
    return SAQ(8).fit(vectors), vectors, query


def with_plan(fitted, plan, seed=0):
    """The same axes cut otherwise: a list of (length, bits)."""
    axes, rng = fitted.axes, np.random.default_rng(seed)
    lengths = [length for length, _ in plan]
    words = sum(-(-length // 64) * 4 for length in lengths)
    return dataclasses.replace(
        fitted, lengths=np.array(lengths, np.uint32), bits=np.array([b for _, b in plan], np.uint8),
        axes=np.ascontiguousarray(axes[: sum(lengths)]), variances=np.linspace(1, 0.5, len(plan), dtype=np.float32),
        signs=rng.integers(0, 2**63, words, dtype=np.uint64),
    )  # fmt: skip


def cosines(fitted, vectors):
    """Of what is coded of each vector with its code."""
    components = (vectors.astype(np.float64) - fitted.center) @ fitted.axes.T.astype(np.float64)
    scorer, _ = coded(fitted, vectors)
    made = np.empty(components.shape, np.float32)
    scorer.decode(0, made)
    return (components * made).sum(axis=1) / np.linalg.norm(components, axis=1) / np.linalg.norm(made, axis=1)


@pytest.mark.parametrize("budget", [1, 2, 4, 8])
def test_adjusting_never_widens_the_angle_and_some_rounds_narrow_it(rng, budget):
    vectors = falling(rng, 500)
    fitted = SAQ(budget).fit(vectors)
    by_round = [cosines(dataclasses.replace(fitted, rounds=rounds), vectors) for rounds in range(7)]
    for before, after in pairwise(by_round):
        assert (after >= before - 1e-6).all()
    if budget < 8:  # the finest steps have nothing to adjust
        assert (1 - by_round[-1]).mean() < (1 - by_round[0]).mean() * (1 - 1e-4)
    if budget == 2:
        assert (by_round[-1] > by_round[0] + 1e-7).mean() > 0.1


@pytest.mark.parametrize("n_bits", [2, 4, 8])
def test_one_segment_codes_as_well_as_the_sweep_of_rabitq(rng, n_bits):
    vectors = rng.standard_normal((1500, 128), dtype=np.float32)
    swept = RaBitQ(n_bits).fit(vectors)
    fitted = with_plan(SAQ(n_bits).fit(vectors), [(128, n_bits)])
    assert fitted.row_bytes <= swept.row_bytes
    assert fitted.error(vectors).mean < 1.06 * swept.error(vectors).mean  # the note's bound: 6 %


@pytest.mark.parametrize("budget", [1, 2, 4])
def test_segments_lose_less_than_one_where_the_spectrum_falls_and_the_same_where_it_does_not(rng, budget):
    vectors = falling(rng, 3000)
    fitted = SAQ(budget).fit(vectors)
    whole = with_plan(fitted, [(DIM, budget)]) if len(fitted.axes) == DIM else None
    # The paper's CAQ: one segment, all dimensions alike. RaBitQ's codes lose as much (the test above).
    alike = (whole or RaBitQ(budget).fit(vectors)).error(vectors).mean
    assert fitted.error(vectors).mean < 0.35 * alike
    even = rng.standard_normal((3000, DIM), dtype=np.float32)
    assert SAQ(budget).fit(even).error(even).mean < 1.05 * RaBitQ(budget).fit(even).error(even).mean


@pytest.mark.parametrize("budget", LESS)
def test_errors_are_those_that_the_plan_expects(rng, budget):
    vectors = falling(rng, 2000)
    fitted = SAQ(budget).fit(vectors)
    components = (vectors.astype(np.float64) - fitted.center) ** 2
    coded_share = ((vectors - fitted.center) @ fitted.axes.T).astype(np.float64) ** 2
    cuts = np.cumsum([0, *fitted.lengths])
    expected = components.sum() - coded_share.sum()
    for first, last, n_bits in zip(cuts, cuts[1:], fitted.bits, strict=False):
        expected += coded_share[:, first:last].sum() * ERRORS[n_bits]
    assert fitted.error(vectors).mean / (expected / components.sum()) == pytest.approx(LESS[budget], abs=0.02)


@pytest.mark.parametrize(("budget", "metric"), [(1, "l2"), (2, "ip"), (4, "l2"), (6, "ip")])
def test_estimates_are_unbiased_and_bounds_hold_as_often_as_they_say(rng, budget, metric):
    vectors, queries = falling(rng, 600), falling(rng, 25)
    biases, outside = [], []
    for seed in range(5):  # the promise is over rotations
        fitted = SAQ(budget).fit_floats(vectors, metric=metric, norm_bound=0.0, seed=seed)
        assert fitted.compares_products == (metric == "ip")
        scorer, _ = coded(fitted, vectors)
        residuals = vectors - fitted.center
        left_out = residuals - residuals @ fitted.axes.T @ fitted.axes.astype(np.float64)
        lengths, errors = np.linalg.norm(residuals, axis=1), []
        for query in queries:
            got, width = bounded(scorer, query, np.arange(600))
            off = got - compared(metric, query, vectors)
            outside.append((np.abs(off) > width).mean())
            # What is not coded counts as a product of 0; its bound is the product of lengths.
            z = (query - fitted.center).astype(np.float64)
            missing = (2 if metric == "l2" else 1) * (left_out @ z)
            errors.append(((off - missing) / lengths / np.linalg.norm(z)).mean())
        biases.append(np.mean(errors))
    assert abs(np.mean(biases)) <= 3 * np.std(biases, ddof=1) / len(biases) ** 0.5 + 2e-4
    assert np.mean(outside) <= 0.07
    if len(fitted.axes) == DIM:  # nothing is left out, so that bounds are no wider than they must be
        assert np.mean(outside) >= 0.02


PLANS = {
    "one": [(64, 3)], "short": [(40, 5)], "two": [(64, 7), (64, 2)], "odd": [(128, 4), (64, 1), (13, 3)],
    "fine": [(64, 12), (128, 9), (64, 5)], "head": [(192, 6), (64, 4), (64, 1)],
}  # fmt: skip


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_scores_follow_from_the_stored_codes(simd_target, plan):
    fitted, vectors, query = fitted_to(200)
    fitted, vectors = with_plan(fitted, plan), vectors[:90]
    scorer, _ = coded(fitted, vectors)
    made = np.empty((90, len(fitted.axes)), np.float32)
    scorer.decode(0, made)
    axes = fitted.axes.astype(np.float64)
    z, r = axes @ (query.astype(np.float64) - fitted.center), vectors.astype(np.float64) - fitted.center
    gains = np.concatenate([np.full(length, 1 / (1 - ERRORS[n_bits])) for length, n_bits in plan])
    q = query.astype(np.float64) - fitted.center
    expected = q @ q + (r**2).sum(axis=1) - 2 * (made * gains) @ z
    # Each rotated dimension of the query is off by half a step of 7 or 13 bits of its segment at most.
    cuts, limit = np.cumsum([0, *fitted.lengths]), 3e-4 * (q @ q + (r**2).sum(axis=1))
    for first, last, (length, n_bits) in zip(cuts, cuts[1:], plan, strict=False):
        step = 4 * np.linalg.norm(z[first:last]) / (63 if n_bits < 5 else 4063)
        size = (length + 63) // 64 * 64
        limit += 2 * np.linalg.norm(made[:, first:last], axis=1) * gains[first] * step * size**0.5 / 2
    assert (np.abs(score(scorer, query, np.arange(90)) - expected) <= limit).all()


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("budget", [1, 4, 8])
def test_codes_and_scores_are_the_same_on_every_target(rng, budget, metric):
    vectors, query = falling(rng, 150, 130), falling(rng, 1, 130)[0]
    fitted = SAQ(budget).fit(vectors, metric=metric)
    before, seen = _core.simd_target(), []
    try:
        for target in _core.simd_targets():
            _core.use_simd_target(target)
            scorer, codes = coded(fitted, fitted._form(vectors))
            seen.append((codes, score(scorer, query, np.arange(150)), between(scorer, 3, np.arange(150))))
    finally:
        _core.use_simd_target(before)
    for codes, scores, stored in seen:  # squares of residuals may differ in their last bit
        assert (codes != seen[0][0]).mean() < 1e-3
        np.testing.assert_allclose(scores, seen[0][1], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(stored, seen[0][2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_three_stages_finish_as_one_and_leave_out_what_is_beyond(simd_target, rng, plan):
    fitted, vectors, query = fitted_to(80)
    scorer, _ = coded(with_plan(fitted, plan), vectors)
    rows = rng.permutation(700)
    whole, width = bounded(scorer, query, rows)
    for share in (0.0, 0.02, 0.3, 1.0):
        bound = np.quantile(whole, share)
        got, _ = bounded(scorer, query, rows, bound)
        finished = np.array(bits(got)) == np.array(bits(whole))
        assert (got[~finished] > bound).all()
        assert (finished | (whole > bound - 2 * width)).all()  # the bound is exceeded only near it
        if share == 0.02 and sum(length for length, _ in plan) >= 128:  # what is left out bounds nothing
            assert finished.mean() < 0.7
    assert finished.mean() > 0.99


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("budget", [1, 2.5, 6])
def test_a_range_scores_as_its_rows_and_a_query_as_any_other(simd_target, rng, budget, metric):
    vectors = falling(rng, 200, 200)
    scorer, _ = coded(SAQ(budget).fit(vectors, metric=metric), vectors)
    query = falling(rng, 1, 200)[0]
    rows = rng.permutation(200)[:67]
    together = score(scorer, query, rows)
    assert bits(together) == [bits(score(scorer, query, [row]))[0] for row in rows]


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("budget", [1, 2, 6])
def test_stored_to_stored(rng, budget, metric):
    vectors = falling(rng, 200) * rng.uniform(0.2, 2, (200, 1)).astype(np.float32)
    fitted = SAQ(budget).fit(vectors, metric=metric)
    assert fitted.compares_products == (metric == "ip")
    scorer, _ = coded(fitted, vectors)
    for row in (0, 57):
        got, true = between(scorer, row, np.arange(200)), compared(metric, vectors[row], vectors)
        others = np.arange(200) != row
        assert np.corrcoef(got[others], true[others])[0, 1] > 0.97
        if metric == "l2":
            assert abs(got[row]) < 0.3 * np.median(true)
            assert got[row] < np.quantile(got, 0.02)


def test_cosine_and_even_inner_products_are_ranked_by_squared_distance(rng):
    vectors, query = falling(rng, 400), falling(rng, 1)[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ query / np.linalg.norm(query)
    scorer, _ = coded(SAQ(7).fit(vectors, metric="cosine"), unit)
    np.testing.assert_allclose(score(scorer, query, np.arange(400)), 2 - 2 * cosine, atol=0.01)
    even = SAQ(7).fit(unit * 3, metric="ip")
    assert even.norm_bound == pytest.approx(3)
    scorer, _ = coded(even, (unit * 3).astype(np.float32))
    assert np.corrcoef(score(scorer, query, np.arange(400)), -cosine)[0, 1] > 0.9999


@pytest.mark.parametrize("budget", [1, 4, 8])
@pytest.mark.parametrize("largest", [3e38, 1e20, 1e-30, 1e-44])
def test_numbers_of_any_size_are_coded(rng, budget, largest):
    vectors = (falling(rng, 50, 200) / 50 * largest).astype(np.float32)
    vectors[7] = np.float32(largest)
    fitted = SAQ(budget).fit(vectors)
    scorer, _ = coded(fitted, vectors)
    for got in (score(scorer, vectors[3], np.arange(50)), between(scorer, 7, np.arange(50))):
        assert len(got) == 50  # whatever they are: nothing is read or written beyond its place
    if largest < 1:
        assert np.isfinite(got).all()


def test_makers_refuse_what_does_not_fit():
    fitted = SAQ(4).fit(np.random.default_rng(0).standard_normal((300, 150), dtype=np.float32))
    table = _core.Table(fitted.row_bytes, 0, 4)
    order = ("center", "axes", "lengths", "bits", "variances", "signs")
    good = [getattr(fitted, name) for name in order]
    _core.Saq(table, 150, METRICS.index("l2"), 0.0, 1.9, 6, *good)
    one = fitted.axes[:1]
    for numbers, changed in (
        ((150, METRICS.index("l1"), 0.0, 1.9, 6), {}), ((0, 0, 0.0, 1.9, 6), {}), ((150, 0, 0.0, 0.0, 6), {}),
        ((150, 0, 0.0, np.nan, 6), {}), ((150, 0, 0.0, 1.9, -1), {}), ((150, 0, 0.0, 1.9, 101), {}),
        ((149, 0, 0.0, 1.9, 6), {}), ((150, 0, 0.0, 1.9, 6), {"center": fitted.center[1:]}),
        ((150, 0, 0.0, 1.9, 6), {"axes": fitted.axes[1:]}), ((150, 0, 0.0, 1.9, 6), {"axes": one}),
        ((150, 0, 0.0, 1.9, 6), {"lengths": fitted.lengths[::-1].copy()}),
        ((150, 0, 0.0, 1.9, 6), {"lengths": fitted.lengths * np.uint32(2**26)}),
        ((150, 0, 0.0, 1.9, 6), {"bits": fitted.bits * np.uint8(0)}),
        ((150, 0, 0.0, 1.9, 6), {"bits": fitted.bits + np.uint8(9)}),
        ((150, 0, 0.0, 1.9, 6), {"bits": fitted.bits[1:]}), ((150, 0, 0.0, 1.9, 6), {"signs": fitted.signs[1:]}),
        ((150, 0, 0.0, 1.9, 6), {"variances": -fitted.variances}),
        ((150, 0, 0.0, 1.9, 6), {"variances": fitted.variances * np.float32(np.nan)}),
    ):  # fmt: skip
        arrays = [changed.get(name, array) for name, array in zip(order, good, strict=True)]
        with pytest.raises(ValueError, match=r"Saq|codes"):
            _core.Saq(table, *numbers, *arrays)
    assert isinstance(fitted, FittedSAQ)


def test_vectors_along_an_axis_are_projected_without_overflow(simd_target):
    fitted, _, _ = fitted_to(80)
    for side in (-1, 1):
        vectors = (fitted.center + side * 3 * fitted.axes).astype(np.float32)
        scorer, _ = coded(fitted, vectors)
        made = np.empty((len(vectors), len(fitted.axes)), np.float32)
        scorer.decode(0, made)
        assert (side * np.diagonal(made)[:64] > 2.5).all()  # of the axes that have bits to spare


def test_a_code_depends_on_its_vector_alone(simd_target):
    fitted, vectors, _ = fitted_to(40.0)
    together = _core.Table(fitted.row_bytes, 700, 700)
    for threads in (1, 3):
        fitted.scorer(together).encode(0, vectors, threads)
        for first, n in ((0, 1), (60, 9), (300, 33), (620, 80)):  # blocks are of 64 vectors, and groups in them of 16
            some = _core.Table(fitted.row_bytes, n, n)
            fitted.scorer(some).encode(0, vectors[first : first + n], 1)
            np.testing.assert_array_equal(some.array(), together.array()[first : first + n])
