"""Scorers: stored vectors and scalar codes against float64 NumPy."""

import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from core_support import (
    DIMS,
    ELEMENTS,
    METRICS,
    PROMPT,
    Interrupt,
    as_bytes,
    between,
    bits,
    exact_distances,
    make_plain,
    score,
    stored,
)
from numpy.typing import NDArray

from nearly import Reduced, Scalar, _core

FLOAT_METRICS = METRICS[:4]
ALL = np.arange(9, dtype=np.uint32)


def compared(metric, distances):
    """From what people see to the unit of comparison."""
    return distances**2 if metric == "l2" else distances


# ---------------------------------------------------------------- plain


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("metric", FLOAT_METRICS)
def test_stored_vectors_are_scored_as_numpy_scores_them(simd_target, rng, metric, element):
    for dim in (1, 9, 64, 100):
        raw, values = stored(rng, element, (9, dim))
        plain = make_plain(raw, metric, element)
        query = rng.standard_normal(dim, dtype=np.float32)
        # As for the kernels: sqrt(dim) roundings of the terms, or of numbers about 1 under cosine.
        size = np.abs(values * query).sum(axis=1) if metric == "ip" else 1.0
        limit = {"rtol": 4e-7 * dim**0.5, "atol": (4e-7 * dim**0.5 * size).max() if metric == "ip" else 4e-7}
        expected = compared(metric, exact_distances(metric, query, values))
        np.testing.assert_allclose(score(plain, query, ALL), expected, **limit)


@pytest.mark.parametrize("element", ELEMENTS)
def test_decode_gives_back_what_was_filled(rng, element):
    raw, values = stored(rng, element, (700, 21))
    rows = np.array([3, 699, 3, 0], np.uint32)
    for metric in ("l2", "ip", "l1"):
        out = np.full((4, 21), np.nan, np.float32)
        make_plain(raw, metric, element).decode(rows, out, 2)
        np.testing.assert_array_equal(out, values[rows])
    out = np.full((4, 21), np.nan, np.float32)
    make_plain(raw, "cosine", element).decode(rows, out)
    np.testing.assert_allclose(out, values[rows] / np.linalg.norm(values[rows], axis=1, keepdims=True), rtol=3e-7)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("metric", ["l2", "cosine", "l1"])
def test_a_vector_is_at_distance_zero_to_itself(simd_target, rng, metric, element):
    for dim in (1, 3, 17, 100):
        raw, values = stored(rng, element, (9, dim))
        raw[raw == 0], values[values == 0] = 1, 1  # cosine: the zero vector is another matter
        plain = make_plain(raw, metric, element)
        for row in range(9):
            query = stored_query(raw, values, element)[row]
            assert score(plain, query, [row]).tolist() == [0.0]
            assert between(plain, row, [row]).tolist() == [0.0]


def stored_query(raw, values, element):
    return raw if element == "float32" else values.astype(np.float32)


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("metric", FLOAT_METRICS)
def test_a_stored_row_asks_as_its_vector_does(simd_target, rng, metric, element):
    raw, values = stored(rng, element, (9, 37))
    plain = make_plain(raw, metric, element)
    query = stored_query(raw, values, element)
    for row in (0, 8):
        assert bits(between(plain, row, ALL)) == bits(score(plain, query[row], ALL))


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_zero_vector_has_no_direction(simd_target, rng, element):
    raw, values = stored(rng, element, (9, 20))
    raw[4] = values[4] = 0
    plain = make_plain(raw, "cosine", element)
    assert score(plain, np.zeros(20, np.float32), ALL).tolist() == [1.0] * 9
    assert between(plain, 4, ALL).tolist() == [1.0] * 9
    assert score(plain, np.ones(20, np.float32), [4]).tolist() == [1.0]
    out = np.full((1, 20), np.nan, np.float32)
    plain.decode(np.array([4], np.uint32), out)
    assert not out.any()


@pytest.mark.parametrize("element", ["int8", "uint8"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_whole_numbers_are_compared_exactly(simd_target, rng, metric, element):
    info = np.iinfo(element)
    for dim in (5, 64, 1001):  # at 1001 the sums pass 2^24, where float32 sums are not exact
        raw, values = stored(rng, element, (9, dim))
        query = rng.integers(info.min, info.max + 1, dim).astype(np.float32)
        query[:2] = info.min, info.max
        exact = ((values - query) ** 2).sum(axis=1) if metric == "l2" else -(values * query).sum(axis=1)
        np.testing.assert_array_equal(score(make_plain(raw, metric), query, ALL), exact.astype(np.float32))


@pytest.mark.parametrize("element", ["int8", "uint8"])
@pytest.mark.parametrize("bad", [0.5, -129.0, 256.0, 1e6, -3e9, 1e-30, 127.00001, 8388609.0, 16777216.0])
def test_other_queries_are_not_squeezed_into_bytes(simd_target, rng, element, bad):
    raw, values = stored(rng, element, (9, 33))
    for at in (0, 16, 32):
        query = np.full(33, 3.0, np.float32)
        query[at] = bad
        for metric in ("l2", "ip"):
            terms = (values - query) ** 2 if metric == "l2" else -(values * query)
            got = score(make_plain(raw, metric), query, ALL)
            assert (np.abs(got - terms.sum(axis=1)) <= 3e-6 * np.abs(terms).sum(axis=1)).all()


@pytest.mark.parametrize("metric", ["hamming", "jaccard"])
def test_bits_are_compared_exactly(simd_target, rng, metric):
    for n_bytes in (1, 8, 13, 96):
        rows = rng.integers(0, 256, (9, n_bytes), dtype=np.uint8)
        rows[1] = 0
        plain = make_plain(rows, metric)
        for query in (rows[3], np.zeros(n_bytes, np.uint8)):
            np.testing.assert_array_equal(
                score(plain, query, ALL), exact_distances(metric, query, rows).astype(np.float32)
            )
        assert bits(between(plain, 3, ALL)) == bits(score(plain, rows[3], ALL))


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("metric", FLOAT_METRICS)
def test_rows_are_large_enough_and_not_much_larger(metric, element):
    for dim in DIMS:
        needed = dim * (4 if element == "float32" else 2 if "16" in element else 1) + 7 * (metric == "cosine")
        assert needed - 3 <= _core.Plain.row_bytes(ELEMENTS.index(element), METRICS.index(metric), dim) <= needed + 63


def test_filling_from_several_threads_fills_the_same(rng):
    vectors = rng.standard_normal((5000, 12), dtype=np.float32)
    one, two = make_plain(vectors, "cosine"), make_plain(vectors, "cosine")
    two.fill(0, as_bytes(vectors), 2)
    assert one.n_bytes == two.n_bytes
    assert score(one, vectors[0], np.arange(5000)).tobytes() == score(two, vectors[0], np.arange(5000)).tobytes()


# ---------------------------------------------------------------- codes


class Made(NamedTuple):
    """Codes, their table, and what they are made of."""

    codes: Any
    table: Any
    center: NDArray[np.float32]
    step: NDArray[np.float32]
    n_bits: int

    @property
    def half(self) -> float:
        return 127.5 if self.n_bits == 8 else 7.5

    def decoded(self) -> NDArray[np.float64]:
        out = np.full((self.codes.n_rows, len(self.center)), np.nan, np.float32)
        self.codes.decode(0, out)
        return out.astype(np.float64)


EMPTY = np.zeros(0, np.float32)


def make_codes(vectors, n_bits=8, scale="global", metric="l2", norm_bound=0.0):
    """Codes of vectors; the range of every dimension is that of the data, or the largest one."""
    n, dim = vectors.shape
    form = vectors
    if metric == "ip":
        rest = np.sqrt(np.maximum(0, norm_bound**2 - (vectors.astype(np.float64) ** 2).sum(axis=1)))
        form = np.concatenate([vectors, rest[:, None]], axis=1)
    low, high = form.min(axis=0), form.max(axis=0)
    center = ((low + high) / 2).astype(np.float32)
    step = ((high - low) / (2**n_bits - 1) * (1 + 1e-6)).astype(np.float32)
    if scale == "global":
        step[:] = step.max()
    table = _core.Table(_core.Codes.row_bytes(len(center), n_bits, scale == "vector"), n, n)
    codes = _core.Codes(table, dim, len(center), n_bits, scale == "vector", METRICS.index(metric), norm_bound, center,
                        step, np.zeros(0, np.int8), EMPTY, EMPTY, EMPTY)  # fmt: skip
    codes.encode(0, np.ascontiguousarray(vectors))
    return Made(codes, table, center, step, n_bits)


SCALES = ["global", "dimension", "vector"]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_a_decoded_vector_is_off_by_half_a_step_at_most(rng, n_bits, scale):
    for dim in (1, 2, 5, 16, 31, 64, 100):
        vectors = (rng.standard_normal((50, dim)) * rng.uniform(0.1, 10, dim) + 3).astype(np.float32)
        made = make_codes(vectors, n_bits, scale)
        step = np.ptp(vectors - made.center, axis=1)[:, None] / (2**n_bits - 1) if scale == "vector" else made.step
        error = np.abs(made.decoded() - vectors)
        assert (error <= 0.5 * step * (1 + 1e-4) + 1e-6 * np.abs(vectors).max()).all()
        assert made.codes.n_bytes == made.table.n_bytes


@pytest.mark.parametrize("n_bits", [8, 4])
def test_values_beyond_the_range_get_its_ends(n_bits):
    inside = np.array([[-1.0, -1.0], [1.0, 1.0]], np.float32)
    made = make_codes(inside, n_bits)
    made.codes.encode(0, np.array([[-50.0, 0.1], [1e30, -7.0]], np.float32))
    np.testing.assert_allclose(made.decoded(), [[-1, 0.1], [1, -1]], atol=made.step[0] / 2)


def quantized_query_bound(made, z, u, scale):
    """How far a score may be from |z - u|^2: the query's numbers are rounded to 63 steps a side."""
    if scale == "vector":
        return np.abs(z).max() / 63 * np.abs(u).sum(axis=1)
    codes = np.divide(u, made.step, where=made.step > 0, out=np.zeros_like(u))
    return np.abs(z * made.step).max() / 63 * np.abs(codes).sum(axis=1)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_scores_are_distances_to_decoded_vectors(simd_target, rng, n_bits, scale):
    for dim in (1, 3, 16, 33, 64, 200):
        vectors = (rng.standard_normal((40, dim)) * rng.uniform(0.1, 3, dim)).astype(np.float32)
        made = make_codes(vectors, n_bits, scale)
        decoded, rows = made.decoded(), np.arange(40)
        for _ in range(3):
            query = rng.standard_normal(dim, dtype=np.float32)
            z, u = query - made.center.astype(np.float64), decoded - made.center
            exact = ((z - u) ** 2).sum(axis=1)
            error = np.abs(score(made.codes, query, rows) - exact)
            rounding = 1e-6 * ((z**2).sum() + (u**2).sum(axis=1))
            assert (error <= quantized_query_bound(made, z, u, scale) + rounding).all()


@pytest.mark.parametrize("n_bits", [8, 4])
def test_the_error_of_scores_has_no_bias(rng, n_bits):
    vectors = rng.standard_normal((300, 128), dtype=np.float32)
    made = make_codes(vectors, n_bits)
    decoded, error = made.decoded(), []
    for query in rng.standard_normal((50, 128), dtype=np.float32):
        error.append(score(made.codes, query, np.arange(300)) - ((query - decoded) ** 2).sum(axis=1))
    assert np.abs(np.mean(error)) < 0.1 * np.std(error)
    assert np.std(error) < 0.01 * 256  # a hundredth of a typical squared distance


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_stored_to_stored_is_symmetric_and_near_the_truth(simd_target, rng, n_bits, scale):
    for dim in (1, 7, 64, 150):
        vectors = (rng.standard_normal((30, dim)) * 2 + 1).astype(np.float32)
        made = make_codes(vectors, n_bits, scale)
        u = made.decoded() - made.center
        exact = ((u[:, None] - u[None]) ** 2).sum(axis=2)
        got = np.stack([between(made.codes, row, np.arange(30)) for row in range(30)])
        rounding = 1e-6 * dim * np.abs(u).max() ** 2  # of float32 terms that cancel
        if scale != "vector" and (made.step == made.step[0]).all():
            # The row's own codes ask: exactly with 4 bits, halved to fit 7 bits with 8.
            limit = (made.step[0] * np.abs(u).sum(axis=1) if n_bits == 8 else np.zeros(30))[None].repeat(30, axis=0)
        else:
            limit = np.stack([quantized_query_bound(made, z, u, scale) for z in u])
        assert (np.abs(got - exact) <= limit + rounding).all()
        assert (np.abs(got - got.T) <= limit + limit.T + 2 * rounding).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_the_header_holds_the_energy_of_the_decoded_vector(rng, n_bits, scale):
    vectors = rng.standard_normal((20, 33), dtype=np.float32)
    made = make_codes(vectors, n_bits, scale)
    floats = made.table.array().view(np.float32)
    energy = floats[:, -3] if scale == "vector" else floats[:, -1]
    np.testing.assert_allclose(energy, ((made.decoded() - made.center) ** 2).sum(axis=1), rtol=1e-5)
    assert made.table.stride % 32 == 0
    assert made.table.array().ctypes.data % 64 == 0


def test_inner_products_become_distances_of_lengthened_vectors(simd_target, rng):
    vectors = rng.standard_normal((60, 24), dtype=np.float32)
    vectors[7] = 0
    bound = float(np.linalg.norm(vectors, axis=1).max())
    made = make_codes(vectors, 8, "global", "ip", bound)
    query = rng.standard_normal(24, dtype=np.float32)
    decoded = made.decoded()
    np.testing.assert_allclose((decoded**2).sum(axis=1), bound**2, rtol=0.02)  # all of one length
    z, u = np.append(query, 0) - made.center, decoded - made.center
    got = score(made.codes, query, np.arange(60))
    error = np.abs(got - ((z - u) ** 2).sum(axis=1))
    assert (error <= quantized_query_bound(made, z, u, "global") + 1e-4).all()
    # |q|^2 + bound^2 - 2 <q, x>: the order of inner products.
    assert np.corrcoef(got, vectors @ query)[0, 1] < -0.999


def test_cosine_codes_do_not_see_the_length_of_a_query(simd_target, rng):
    vectors = rng.standard_normal((50, 40))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    made = make_codes(unit, 8, "global", "cosine")
    query = rng.standard_normal(40, dtype=np.float32)
    got = score(made.codes, query, np.arange(50))
    assert bits(score(made.codes, query * 8, np.arange(50))) == bits(got)
    np.testing.assert_allclose(got, 2 * exact_distances("cosine", query, unit), atol=0.02)
    assert np.isfinite(score(made.codes, np.zeros(40, np.float32), np.arange(50))).all()


POWERS = [-140, -126, -110, -80, -64, 0, 55, 64, 100, 124]  # of two: they change no digit until numbers get subnormal


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_cosine_codes_hold_for_queries_of_any_length(simd_target, rng, n_bits, power):
    vectors = rng.standard_normal((50, 40))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    made = make_codes(unit, n_bits, "global", "cosine")
    query = rng.standard_normal(40, dtype=np.float32)
    got = score(made.codes, np.ldexp(query, power), np.arange(50))
    alike = np.zeros(40, np.float32) if power == -140 else query  # shorter than 3e-39: no direction
    np.testing.assert_allclose(got, score(made.codes, alike, np.arange(50)), rtol=1e-5)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_numbers_of_any_size_have_distances(simd_target, rng, metric, power):
    vectors = np.ldexp(rng.standard_normal((40, 24), dtype=np.float32), power)
    queries = np.ldexp(rng.standard_normal((5, 24), dtype=np.float32), power)
    plain, coded = make_plain(vectors, metric), []
    bound = float(np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1).max()))
    for scale in SCALES if power < 60 else ():  # beyond that squares are no numbers
        form = vectors
        if metric == "cosine":
            form = np.zeros_like(vectors)
            plain.decode(np.arange(40, dtype=np.uint32), form)
        coded.append(make_codes(form, 8, scale, metric, bound if metric == "ip" else 0.0).codes)
    for query in queries:
        exact = exact_distances(metric, query, vectors)
        got = score(plain, query, np.arange(40))
        if power < 60 or metric == "cosine":
            assert np.isfinite(got).all()
        if metric == "cosine":
            np.testing.assert_allclose(got, np.ones(40) if power == -140 else exact, atol=1e-5)
        for codes in coded:
            assert np.isfinite(score(codes, query, np.arange(40))).all()
            assert np.isfinite(between(codes, 3, np.arange(40))).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_codes_without_a_projection_are_equal_on_every_target(rng, n_bits, scale):
    vectors = rng.standard_normal((30, 77), dtype=np.float32)
    query = rng.standard_normal(77, dtype=np.float32)
    before, seen = _core.simd_target(), set()
    for target in _core.simd_targets():
        assert _core.use_simd_target(target)
        made = make_codes(vectors, n_bits, scale)
        answers = score(made.codes, query, np.arange(30)), between(made.codes, 4, np.arange(30))
        seen.add((made.table.array().tobytes(), *(a.tobytes() for a in answers)))
    assert _core.use_simd_target(before)
    assert len(seen) == 1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
def test_data_without_spread_is_coded_exactly(n_bits, scale):
    vectors = np.full((5, 9), 2.5, np.float32)
    made = make_codes(vectors, n_bits, scale)
    assert (made.decoded() == 2.5).all()
    np.testing.assert_allclose(score(made.codes, np.zeros(9, np.float32), np.arange(5)), 9 * 2.5**2, rtol=1e-6)
    assert score(made.codes, vectors[0], np.arange(5)).tolist() == [0.0] * 5


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("element", ["float32", "float16", "uint8"])
def test_codes_filled_from_a_store_are_those_of_its_vectors(rng, metric, element):
    raw, values = stored(rng, element, (500, 19))
    form = np.full((500, 19), np.nan, np.float32)
    store = make_plain(raw, metric, element)
    store.decode(np.arange(500, dtype=np.uint32), form)
    bound = float(np.linalg.norm(values, axis=1).max()) if metric == "ip" else 0.0
    expected = make_codes(form, 8, "dimension", metric, bound)
    for threads in (1, 2):
        made = make_codes(form, 8, "dimension", metric, bound)
        made.table.fill(0, 500, 77)
        made.codes.fill(store, 0, 200, threads)
        made.codes.fill(store, 200, 500, threads)
        assert made.table.array().tobytes() == expected.table.array().tobytes()


# ---------------------------------------------------------------- a projection before the codes


def projected_codes(vectors, dims, metric="l2", norm_bound=0.0):
    """Codes of the leading principal directions, and the projection as float64 (rows, offset)."""
    form = vectors.astype(np.float64)
    if metric == "ip":
        form = np.concatenate([form, np.sqrt(np.maximum(0, norm_bound**2 - (form**2).sum(axis=1)))[:, None]], axis=1)
    mean = form.mean(axis=0).astype(np.float32)
    axes = np.linalg.svd(form - mean, full_matrices=False)[2][:dims]
    factor = (np.abs(axes).max(axis=1) / 127).astype(np.float32)
    whole = np.rint(axes / factor[:, None]).astype(np.int8)
    used = whole * factor[:, None].astype(np.float64)
    offset = (used @ mean).astype(np.float32)
    inputs, outputs = (form.shape[1] + 1) // 2 * 2, (dims + 15) // 16 * 16
    matrix = np.zeros((inputs // 2, outputs, 2), np.int8)
    for p in range(dims):
        for j in range(form.shape[1]):
            matrix[j // 2, p, j % 2] = whole[p, j]
    z = form @ used.T - offset
    center = ((z.min(axis=0) + z.max(axis=0)) / 2).astype(np.float32)
    step = np.full(dims, np.ptp(z, axis=0).max() / 255 * (1 + 1e-6), np.float32)
    table = _core.Table(_core.Codes.row_bytes(dims, 8, False), len(vectors), len(vectors))
    codes = _core.Codes(table, vectors.shape[1], dims, 8, False, METRICS.index(metric), norm_bound, center, step,
                        matrix.ravel(), factor, offset, mean)  # fmt: skip
    codes.encode(0, vectors)
    left_out = np.maximum(0, ((form - mean) ** 2).sum(axis=1) - (z**2).sum(axis=1))
    return Made(codes, table, center, step, 8), used, offset, z, left_out


def correlated(rng, n, dim):
    return (rng.standard_normal((n, dim)) * 0.85 ** np.arange(dim) @ rng.standard_normal((dim, dim)) + 1).astype(
        np.float32
    )


@pytest.mark.parametrize(("dim", "dims", "metric"), [(20, 6, "l2"), (33, 16, "l2"), (48, 17, "ip"), (7, 1, "l2")])
def test_projected_codes(simd_target, rng, dim, dims, metric):
    vectors = correlated(rng, 80, dim)
    bound = float(np.linalg.norm(vectors, axis=1).max()) if metric == "ip" else 0.0
    made, used, offset, z_rows, left_out = projected_codes(vectors, dims, metric, bound)
    largest = np.abs(vectors).max()
    assert (np.abs(made.decoded() - z_rows) <= made.step / 2 * (1 + 1e-3) + 1e-5 * largest).all()
    energy = made.table.array().view(np.float32)[:, -1]
    u = made.decoded() - made.center
    np.testing.assert_allclose(energy, (u**2).sum(axis=1) + left_out, rtol=1e-4, atol=1e-4 * largest**2)
    query = correlated(rng, 1, dim)[0]
    inputs = np.append(query, 0) if metric == "ip" else query
    z = used @ inputs - offset - made.center
    exact = ((z - u) ** 2).sum(axis=1) + left_out
    # The query's projection works on whole numbers too: 15 bits a coordinate.
    slip = np.linalg.norm(np.abs(used).sum(axis=1) * np.abs(query).max() / 32767 / 2 + 1e-5 * np.abs(offset))
    limit = quantized_query_bound(made, z, u, "global") + 2 * np.sqrt(exact) * slip + slip**2 + 1e-5 * exact.max()
    assert (np.abs(score(made.codes, query, np.arange(80)) - exact) <= limit).all()


def test_what_a_projection_left_out_counts_once_for_either_row(simd_target, rng):
    vectors = correlated(rng, 40, 30)
    made, _, _, z, left_out = projected_codes(vectors, 8)
    exact = ((z[5] - z) ** 2).sum(axis=1) + left_out + left_out[5]
    got = between(made.codes, 5, np.arange(40))
    assert (np.abs(got - exact) <= 0.05 * exact.mean()).all()
    assert np.corrcoef(got, exact)[0, 1] > 0.999


# ---------------------------------------------------------------- principal axes


def principal_axes(covariance, n_axes, rounds=8, seed=0, threads=0):
    d = len(covariance)
    axes, variances = np.full((n_axes, d), np.nan), np.full(n_axes, np.nan)
    _core.principal_axes(np.ascontiguousarray(covariance, np.float32), n_axes, rounds, seed, axes, variances, threads)
    return axes, variances


def spectrum(rng, values):
    """A symmetric matrix with these eigenvalues."""
    turn = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return ((turn * values) @ turn.T).astype(np.float32)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1.0, 65),
        np.repeat([9.0, 4.0, 1.0], 21),  # as many directions as there are are as good
        np.r_[np.full(50, 1.0), np.full(20, 1e-6)],
        0.7 ** np.arange(90.0),  # far below rounding at the end
        np.r_[1.0, np.zeros(40)],
        np.zeros(17),
        np.array([1e35, 1e30, 1.0]),
        np.array([3e-42, 1e-42, 2e-43]),
        np.array([5.0]),
        np.array([2.0, -3.0]),  # no covariance, but symmetric
    ],
    ids=["distinct", "few", "two levels", "falling", "one", "none", "huge", "tiny", "single", "negative"],
)
def test_all_axes_are_the_eigenvectors(rng, values):
    matrix = spectrum(rng, values)
    exact = (matrix.astype(np.float64) + matrix.T) / 2  # float rounds each half for itself
    n, top = len(values), np.abs(exact).max()
    axes, variances = principal_axes(matrix, n)
    np.testing.assert_allclose(axes @ axes.T, np.eye(n), atol=1e-13)
    np.testing.assert_allclose(variances, np.linalg.eigvalsh(exact)[::-1], rtol=0, atol=1e-13 * top)
    np.testing.assert_allclose(axes @ exact, variances[:, None] * axes, rtol=0, atol=1e-13 * max(top, 1e-300))


def test_axes_of_a_matrix_that_is_diagonal_already(rng):
    values = rng.permutation(np.arange(1.0, 41))
    axes, variances = principal_axes(np.diag(values), 40)
    assert variances.tolist() == np.arange(40.0, 0, -1).tolist()
    assert (axes.argmax(axis=1) == np.argsort(-values)).all()
    assert (axes.max(axis=1) == 1).all()


@pytest.mark.parametrize(("d", "n_axes"), [(300, 20), (300, 200), (37, 37)])
def test_axes_do_not_depend_on_threads(rng, d, n_axes):
    covariance = np.cov(rng.standard_normal((2 * d, d)) * np.linspace(3, 0.1, d), rowvar=False)
    first, *others = [principal_axes(covariance, n_axes, threads=threads) for threads in (1, 2, 5)]
    for other in others:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(first, other, strict=True))


def test_axes_of_what_is_no_number_end(rng):
    covariance = np.cov(rng.standard_normal((300, 200)), rowvar=False).astype(np.float32)
    for n_axes in (10, 200):
        covariance[3, 5] = covariance[5, 3] = np.inf
        principal_axes(covariance, n_axes)


@pytest.mark.timing
def test_all_axes_of_hundreds_of_dimensions_take_about_a_second(rng):
    covariance = np.cov(rng.standard_normal((900, 784)), rowvar=False)
    began = time.process_time()
    principal_axes(covariance, 784, threads=1)
    assert time.process_time() - began < 3  # 0.4 s on a machine that is idle; Jacobi's rotations took 12


@pytest.mark.parametrize(("d", "n_axes"), [(1, 1), (2, 2), (5, 2), (40, 40), (60, 12), (200, 30)])
def test_principal_axes_hold_the_energy_of_the_true_ones(simd_target, rng, d, n_axes):
    x = rng.standard_normal((3 * d + 5, d)) * 0.93 ** np.arange(d)
    covariance = np.cov(x @ np.linalg.qr(rng.standard_normal((d, d)))[0], rowvar=False).reshape(d, d)
    axes, variances = principal_axes(covariance, n_axes)
    np.testing.assert_allclose(axes @ axes.T, np.eye(n_axes), atol=1e-9)
    truth = np.linalg.eigvalsh(covariance)[::-1][:n_axes]
    energy = np.einsum("ij,jk,ik->i", axes, covariance, axes)
    assert energy.sum() >= truth.sum() * (1 - 1e-3)
    np.testing.assert_allclose(variances, energy, rtol=1e-4, atol=1e-5 * truth[0])
    assert (np.diff(variances) <= 1e-12).all()
    if n_axes == d:  # nothing is left out, so each axis is an eigenvector
        np.testing.assert_allclose(variances, truth, rtol=1e-3, atol=1e-5 * truth[0])


def test_principal_axes_have_a_sign_and_repeat(rng):
    covariance = np.cov(rng.standard_normal((100, 30)) * np.linspace(3, 0.1, 30), rowvar=False)
    first, again = principal_axes(covariance, 7, seed=3), principal_axes(covariance, 7, seed=3)
    assert first[0].tobytes() == again[0].tobytes()
    largest = np.abs(first[0]).argmax(axis=1)
    assert (first[0][np.arange(7), largest] > 0).all()


def test_principal_axes_of_no_spread_are_still_orthonormal():
    for covariance in (np.zeros((12, 12)), np.ones((12, 12)), np.diag([5.0] + [0.0] * 11)):
        axes, variances = principal_axes(covariance, 9)
        np.testing.assert_allclose(axes @ axes.T, np.eye(9), atol=1e-6)
        assert np.isfinite(variances).all()


def test_ctrl_c_ends_principal_axes_fast(rng):
    covariance = np.cov(rng.standard_normal((900, 800)), rowvar=False)
    for n_axes, threads in ((800, 1), (800, 2), (150, 1)):
        with pytest.raises(KeyboardInterrupt), Interrupt(0.1) as interrupt:
            principal_axes(covariance, n_axes, rounds=20, threads=threads)
        assert interrupt.late < PROMPT * threads


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n_bits", [8, 4])
@pytest.mark.parametrize("projected", [False, True])
def test_products_of_uneven_norms_are_compared_as_they_are(simd_target, rng, n_bits, scale, projected):
    for dim in (5, 16, 64, 90):
        vectors = (rng.standard_normal((60, dim)) * rng.uniform(0.1, 9, (60, 1)) + 0.5).astype(np.float32)
        code = Scalar(bits=n_bits, scale=scale)
        fitted = (Reduced(dims=dim, code=code) if projected else code).fit(vectors, metric="ip")
        assert fitted.norm_bound == 0
        table = _core.Table(fitted.row_bytes, 60, 60)
        codes = fitted.scorer(table)
        codes.encode(0, vectors)
        decoded = fitted.decode(np.array(table.array())).astype(np.float64)
        query = rng.standard_normal(dim, dtype=np.float32)
        step = np.abs(decoded).max() / 63  # of the rounded query, by far the largest error
        slack = (
            0.02 * np.abs(decoded @ query).max() if projected else 0
        )  # rows of the rounded projection are nearly orthonormal
        limit = step * np.abs(query).max() * dim * 2 + slack + 1e-4
        assert (np.abs(score(codes, query, np.arange(60)) + decoded @ query) <= limit).all()

        among = np.stack([between(codes, row, np.arange(60)) for row in range(60)])
        exact = decoded @ decoded.T
        assert np.corrcoef(among.ravel(), -exact.ravel())[0, 1] > (0.999 if n_bits == 8 else 0.99)
        np.testing.assert_allclose(among, among.T, atol=0.05 * np.abs(exact).max())


# ---------------------------------------------------------------- rotations


@pytest.mark.parametrize("dim", [1, 7, 63, 64, 65, 128, 192, 300, 768, 960, 1537])
def test_a_rotation_keeps_norms_and_products_and_is_undone(simd_target, rng, dim):
    size = (dim + 63) // 64 * 64
    signs = np.empty(size // 16, np.uint64)
    _core.draw_rotation(dim, 5, signs)
    rows = rng.standard_normal((9, dim), dtype=np.float32)
    rotated, back = np.full((9, size), np.nan, np.float32), np.full((9, dim), np.nan, np.float32)
    _core.rotate_rows(signs, rows, rotated)
    exact = rows.astype(np.float64) @ rows.T
    np.testing.assert_allclose(rotated.astype(np.float64) @ rotated.T, exact, rtol=0, atol=1e-5 * exact.max())
    _core.rotate_rows(signs, rotated, back, inverse=True)
    np.testing.assert_allclose(back, rows, rtol=0, atol=1e-5)


def test_rotations_are_drawn_by_their_seed():
    first, again, other = (np.empty(12, np.uint64) for _ in range(3))
    for signs, seed in ((first, 1), (again, 1), (other, 2)):
        _core.draw_rotation(130, seed, signs)
    assert first.tolist() == again.tolist()
    assert len({*first.tolist(), *other.tolist()}) == 24
