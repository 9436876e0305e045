"""Kernels: every CPU target of this machine against float64 NumPy, and integer kernels against exact sums."""

import os
import subprocess
import sys

import numpy as np
import pytest
from core_support import (
    DIMS,
    ELEMENTS,
    as_bytes,
    bfloat16_values,
    bits,
    exact_distances,
    over,
    stored,
)

from nearly import _core

N = 11  # two blocks of four rows and three single ones


def run(name, element, query, rows, size, *, integers=False, chosen=None):
    out = np.full(len(rows) if chosen is None else len(chosen), np.nan, np.float32)
    _core.distances(name, ELEMENTS.index(element), integers, as_bytes(query), rows, size, out, chosen)
    return out


def with_norms(raw, values):
    """Rows as the cosine kernel reads them: elements, padding to 4 bytes, 1 / norm; and what it multiplies them by."""
    norms = np.linalg.norm(values, axis=1)
    inverse = np.divide(1.0, norms, where=norms > 0, out=np.zeros_like(norms)).astype(np.float32)
    packed = as_bytes(raw)
    padding = np.zeros((len(raw), -packed.shape[1] % 4), np.uint8)
    return np.concatenate([packed, padding, inverse[:, None].view(np.uint8)], axis=1), inverse


@pytest.mark.parametrize("element", ELEMENTS)
@over("dim", DIMS)
def test_float_queries_match_numpy(simd_target, rng, element, dim):
    raw, x = stored(rng, element, (N, dim))
    query = rng.standard_normal(dim, dtype=np.float32) * (1 if "float" in element else 50)
    q = query.astype(np.float64)
    # Rounding errors of a sum of dim terms grow like sqrt(dim) times the sum of their sizes; 4e-7 by hand.
    tolerance = 4e-7 * dim**0.5
    for name, terms in (("l2", (x - q) ** 2), ("ip", -x * q), ("l1", np.abs(x - q))):
        got = run(name, element, query, as_bytes(raw), dim)
        limit = tolerance * np.abs(terms).sum(axis=1)
        assert (np.abs(got - terms.sum(axis=1)) <= limit).all(), name
    assert _core.simd_target() == simd_target  # we tested what we meant to test


@pytest.mark.parametrize("element", ELEMENTS)
@over("dim", DIMS)
def test_cosine_reads_the_inverse_norm_behind_the_row(simd_target, rng, element, dim):
    raw, values = stored(rng, element, (N, dim))
    raw[3], values[3] = 0, 0
    rows, inverse = with_norms(raw, values)
    query = rng.standard_normal(dim)
    unit = (query / np.linalg.norm(query)).astype(np.float32)
    got = run("cosine", element, unit, rows, dim)
    # Half the squared distance of vectors that are unit to 1e-7: an error of that size at any distance.
    np.testing.assert_allclose(got, exact_distances("cosine", unit, values), rtol=4e-7 * dim**0.5, atol=3e-7)
    assert got[3] == 1.0  # the zero vector, by definition
    own = (values[5].astype(np.float32) * inverse[5]).astype(np.float32)
    assert run("cosine", element, own, rows, dim)[5] == 0.0


@over("dim", DIMS)
def test_a_row_has_the_same_bits_alone_in_company_and_gathered(simd_target, rng, dim):
    chosen = np.array([9, 2, 2, 10, 0, 7, 4], np.uint32)
    for element in ELEMENTS:
        raw, values = stored(rng, element, (N, dim))
        query = rng.standard_normal(dim, dtype=np.float32)
        for name in ("l2", "ip", "l1", "cosine"):
            rows = with_norms(raw, values)[0] if name == "cosine" else as_bytes(raw)
            dense = run(name, element, query, rows, dim)
            alone = [run(name, element, query, rows[i : i + 1], dim)[0] for i in range(N)]
            assert bits(np.array(alone)) == bits(dense)
            assert bits(run(name, element, query, rows, dim, chosen=chosen)) == bits(dense[chosen])


@pytest.mark.parametrize("element", ELEMENTS)
def test_bytes_beyond_a_row_are_not_read_into_the_answer(simd_target, rng, element):
    for dim in (1, 7, 33, 100):
        raw, _ = stored(rng, element, (N, dim))
        rows = as_bytes(raw)
        wide = np.full((N, rows.shape[1] + 12 - rows.shape[1] % 4), 0x7B, np.uint8)
        wide[:, : rows.shape[1]] = rows
        query = rng.standard_normal(dim, dtype=np.float32)
        for name in ("l2", "ip", "l1"):
            assert bits(run(name, element, query, wide, dim)) == bits(run(name, element, query, rows, dim))


@pytest.mark.parametrize("element", ["float16", "bfloat16"])
def test_every_finite_sixteen_bit_float_is_read_exactly(simd_target, element):
    exponent = 0x7F80 if element == "bfloat16" else 0x7C00
    patterns = np.arange(1 << 16, dtype=np.uint16)
    patterns = patterns[patterns & exponent != exponent]
    values = bfloat16_values(patterns) if element == "bfloat16" else patterns.view(np.float16).astype(np.float64)
    n, dim = len(patterns), 49  # three vectors of the widest target and a tail
    rows = np.zeros((n, dim), np.uint16)
    rows[np.arange(n), np.arange(n) % dim] = patterns
    got = run("ip", element, np.ones(dim, np.float32), as_bytes(rows), dim)
    np.testing.assert_array_equal(got, -values.astype(np.float32))


@pytest.mark.parametrize("element", ["int8", "uint8"])
@over("dim", DIMS)
def test_integer_kernels_are_exact(simd_target, rng, element, dim):
    raw, _ = stored(rng, element, (N, dim))
    raw[0], raw[1] = np.iinfo(element).max, np.iinfo(element).min
    chosen = np.array([3, 3, 1, 0, 10], np.uint32)
    for query in (raw[0].copy(), raw[1].copy(), raw[7].copy(), stored(rng, element, (dim,))[0]):
        q, x = query.astype(np.int64), raw.astype(np.int64)
        for name, sums in (("l2", ((x - q) ** 2).sum(axis=1)), ("ip", -(x * q).sum(axis=1))):
            got = run(name, element, query, as_bytes(raw), dim, integers=True)
            np.testing.assert_array_equal(got, sums.astype(np.float32))  # one rounding, to nearest
            gathered = run(name, element, query, as_bytes(raw), dim, integers=True, chosen=chosen)
            assert bits(gathered) == bits(got[chosen])


@pytest.mark.parametrize("element", ["int8", "uint8"])
def test_integer_kernels_hold_the_largest_dimension(simd_target, element):
    info, dim = np.iinfo(element), 32768
    low, high = np.full((5, dim), info.min, element), np.full(dim, info.max, element)
    l2 = run("l2", element, high, as_bytes(low), dim, integers=True)
    assert l2.tolist() == [float(dim * 255**2)] * 5
    ip = run("ip", element, high, as_bytes(np.tile(high, (5, 1))), dim, integers=True)
    assert ip.tolist() == [-float(dim * info.max**2)] * 5


@over("n_bytes", DIMS)
def test_bit_kernels_are_exact(simd_target, rng, n_bytes):
    rows = rng.integers(0, 256, (N, n_bytes), dtype=np.uint8)
    rows[2], rows[4] = 0, 255
    for query in (rows[5], np.zeros(n_bytes, np.uint8)):
        hamming = run("hamming", "uint8", query, rows, n_bytes)
        np.testing.assert_array_equal(hamming, exact_distances("hamming", query, rows))
        jaccard = run("jaccard", "uint8", query, rows, n_bytes)
        np.testing.assert_array_equal(jaccard, exact_distances("jaccard", query, rows).astype(np.float32))
        chosen = np.array([6, 0, 6], np.uint32)
        assert bits(run("jaccard", "uint8", query, rows, n_bytes, chosen=chosen)) == bits(jaccard[chosen])


def dots(query, rows, n_bits):
    out = np.full(len(rows), -1, np.int32)
    _core.dots(query, rows, n_bits, out)
    return out


def codes_of(rows, n_bits):
    return rows.astype(np.int64) if n_bits == 8 else np.concatenate([rows & 15, rows >> 4], axis=1).astype(np.int64)


@pytest.mark.parametrize("n_bits", [8, 4])
@over("size", DIMS)
def test_code_products_are_exact(simd_target, rng, n_bits, size):
    rows = rng.integers(0, 256, (N, size), dtype=np.uint8)
    query = rng.integers(-64, 64, size * (8 // n_bits)).astype(np.int8)
    np.testing.assert_array_equal(dots(query, rows, n_bits), codes_of(rows, n_bits) @ query.astype(np.int64))


@pytest.mark.parametrize("n_bits", [8, 4])
@pytest.mark.parametrize("value", [-64, 63, 64])  # 64: what a row's own codes become as a query
def test_code_products_do_not_saturate(simd_target, n_bits, value):
    for size in (32, 64, 100, 32768):
        rows = np.full((5, size), 255, np.uint8)
        query = np.full(size * (8 // n_bits), value, np.int8)
        assert dots(query, rows, n_bits).tolist() == [int(codes_of(rows, n_bits)[0].sum()) * value] * 5


def pack_codes(codes, n_bits):
    """Rows of packed codes, dim a multiple of 64, by the layout's own words: written once more, bit by bit."""
    units = codes.reshape(len(codes), -1, 64).astype(np.uint8)
    parts, below = [], n_bits
    for width, columns in ((8, 64), (4, 32), (2, 16), (1, 8)):
        if not n_bits & width:
            continue
        below -= width
        part = (units >> below) & (2**width - 1)
        if width == 1:
            parts.append(np.packbits(part, axis=2, bitorder="little"))
            continue
        fields = part.reshape(*part.shape[:2], 8 // width, columns)
        places = (width * np.arange(8 // width, dtype=np.uint8))[:, None]
        parts.append((fields << places).sum(axis=2).astype(np.uint8))
    return np.concatenate(parts, axis=2).reshape(len(codes), -1)


@over("n_bits", range(1, 9))
def test_products_with_packed_codes_are_exact(simd_target, rng, n_bits):
    chosen = np.array([3, 3, 1, 0, 10, 9], np.uint32)
    for dim in (0, 64, 128, 192, 448, 768):
        codes = rng.integers(0, 2**n_bits, (N, dim))
        query = rng.integers(-64, 64, dim).astype(np.int8)
        rows = pack_codes(codes, n_bits)
        assert rows.shape == (N, dim * n_bits // 8)
        wide = np.concatenate([rows, np.full((N, 12), 255, np.uint8)], axis=1)  # factors behind the codes
        out, some = np.full(N, -1, np.int32), np.full(len(chosen), -1, np.int32)
        _core.packed_dots(query, wide, n_bits, out)
        np.testing.assert_array_equal(out, codes @ query.astype(np.int64))
        _core.packed_dots(query, wide, n_bits, some, chosen)
        np.testing.assert_array_equal(some, out[chosen])


@over("lead", range(1, 9))
@over("further", [0, 1, 4, 8])
def test_magnitudes_are_cut_into_packed_codes(simd_target, rng, lead, further):
    x = rng.standard_normal(192).astype(np.float32)
    x[:3] = 0, 1e30, -1e30  # code 0 below the middle, and the outermost
    top, scale = 2 ** (lead + further - 1) - 1, np.float32(0.4 * 2 ** (lead + further))
    out = np.empty(24 * (lead + further), np.uint8)
    _core.cut(np.abs(x), x.view(np.int32), scale, lead, further, out)
    k = np.minimum(np.floor(np.abs(x) * scale), top).astype(np.int64)
    codes = np.where(x > 0, k + top + 1, top - k)[None]
    expected = [pack_codes(codes >> further, lead)]
    if further:
        expected.append(pack_codes(codes & (2**further - 1), further))
    np.testing.assert_array_equal(out, np.concatenate(expected, axis=1)[0])


@over("n_bits", range(1, 9))
@over("value", [-64, 63])
def test_products_with_packed_codes_do_not_saturate(simd_target, n_bits, value):
    dim = 32768
    out = np.empty(5, np.int32)
    _core.packed_dots(np.full(dim, value, np.int8), np.full((5, dim * n_bits // 8), 255, np.uint8), n_bits, out)
    assert out.tolist() == [dim * value * (2**n_bits - 1)] * 5


def rotated(rows, signs):
    out = rows.copy()
    _core.rotate(out, signs)
    return out


def exact_rotation(rows, signs):
    """The same scheme in float64, with a Hadamard matrix."""
    n = rows.shape[1]
    power = 64
    while power * 2 <= n:
        power *= 2
    matrix = np.ones((1, 1))
    while len(matrix) < power:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    x = rows.astype(np.float64)
    flips = np.unpackbits(signs.view(np.uint8), bitorder="little").reshape(4, n)
    for round_ in range(4):
        x = x * (1 - 2.0 * flips[round_])
        window = slice(n - power, n) if round_ % 2 else slice(0, power)
        x[:, window] = x[:, window] @ matrix / power**0.5
        if power < n:
            a, b = x[:, : n // 2], x[:, n // 2 :]
            x = np.concatenate([a + b, a - b], axis=1) / 2**0.5
    return x


@over("dim", [64, 128, 192, 320, 768, 832, 960, 1536, 4096])
def test_rotation_matches_its_matrices_and_keeps_products(simd_target, rng, dim):
    signs = rng.integers(0, 2**64, dim // 16, dtype=np.uint64)
    rows = rng.standard_normal((7, dim), dtype=np.float32)
    rows[0] = np.eye(dim)[dim // 3]
    got = rotated(rows, signs)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    # A coordinate is a sum of log2(dim) roundings a round; 1e-6 of the norm, by hand.
    assert (np.abs(got - exact_rotation(rows, signs)) <= 1e-6 * norms[:, None]).all()
    np.testing.assert_allclose(np.linalg.norm(got.astype(np.float64), axis=1), norms, rtol=1e-5)
    products = got.astype(np.float64) @ got.T
    assert (np.abs(products - rows.astype(np.float64) @ rows.T) <= 1e-5 * norms[:, None] * norms).all()
    assert np.abs(got[0]).max() < 8 / dim**0.5  # a single coordinate spreads over all


def test_rotation_has_the_same_bits_on_every_target(rng):
    before, found = _core.simd_target(), set()
    for dim in (64, 192, 768):
        signs = np.random.default_rng(dim).integers(0, 2**64, dim // 16, dtype=np.uint64)
        rows = np.random.default_rng(1).standard_normal((5, dim), dtype=np.float32)
        for target in _core.simd_targets():
            assert _core.use_simd_target(target)
            found.add((dim, rotated(rows, signs).tobytes()))
    assert _core.use_simd_target(before)
    assert len(found) == 3


def test_rotate_refuses_other_shapes():
    for rows, signs in (((2, 60), 4), ((2, 0), 0), ((2, 128), 4)):
        with pytest.raises(ValueError, match="rotate"):
            _core.rotate(np.zeros(rows, np.float32), np.zeros(signs, np.uint64))


def fastscan(tables, codes):
    """Sums for codes of shape (n, groups), n a multiple of 32; the packing is written out here once more."""
    n, groups = codes.shape
    halves = codes.reshape(n // 32, 2, 16, groups).astype(np.uint8)
    packed = np.ascontiguousarray((halves[:, 0] | halves[:, 1] << 4).transpose(0, 2, 1))
    out = np.full((n // 32, 32), 54321, np.uint16)
    _core.fastscan(tables, packed, out)
    return out.ravel()


@over("groups", [0, 2, 4, 6, 8, 10, 16, 30, 32, 34, 96, 192, 254, 256])
def test_fastscan_is_exact(simd_target, rng, groups):
    for blocks in (0, 1, 2, 5):
        tables = rng.integers(0, 256, (groups, 16), dtype=np.uint8)
        codes = rng.integers(0, 16, (32 * blocks, groups))
        expected = tables.astype(np.int64)[np.arange(groups), codes].sum(axis=1)
        np.testing.assert_array_equal(fastscan(tables, codes), expected)
    assert _core.simd_target() == simd_target


def test_fastscan_does_not_overflow(simd_target):
    tables = np.full((256, 16), 255, np.uint8)
    assert fastscan(tables, np.zeros((64, 256), int)).tolist() == [256 * 255] * 64


def test_fastscan_tells_vectors_apart(simd_target):
    tables = np.zeros((6, 16), np.uint8)
    tables[:] = np.arange(16)
    for vector in range(32):
        codes = np.zeros((32, 6), int)
        codes[vector] = [1, 2, 3, 4, 5, 15]
        assert np.flatnonzero(fastscan(tables, codes)).tolist() == [vector]
        assert fastscan(tables, codes)[vector] == 30


def test_fastscan_refuses_what_could_overflow_or_disagrees():
    for tables, packed, out in (
        ((258, 16), (1, 258, 16), (1, 32)),
        ((3, 16), (1, 3, 16), (1, 32)),
        ((4, 16), (1, 2, 16), (1, 32)),
        ((4, 16), (2, 4, 16), (1, 32)),
        ((4, 15), (1, 4, 15), (1, 32)),
    ):
        with pytest.raises(ValueError, match="fastscan"):
            _core.fastscan(np.zeros(tables, np.uint8), np.zeros(packed, np.uint8), np.zeros(out, np.uint16))


@over("size", DIMS)
def test_own_codes_are_halved(simd_target, rng, size):
    codes = np.resize(rng.permutation(256), size).astype(np.uint8)
    out = np.empty(size, np.int8)
    expected = (codes.astype(np.int64) - 127) // 2
    assert _core.halve(codes, out) == expected.sum()
    np.testing.assert_array_equal(out, expected)


@over("outputs", [16, 32, 48, 64, 80, 128, 144])
def test_projection_is_exact(simd_target, rng, outputs):
    for dim, n in ((2, 1), (4, 4), (30, 3), (64, 9), (102, 6)):
        matrix = rng.integers(-127, 128, (dim, outputs)).astype(np.int8)
        queries = rng.integers(-32767, 32768, (n, dim)).astype(np.int16)
        queries[rng.random((n, dim)) < 0.3] = 0
        queries[:, :2] = 0  # a whole pair, which is skipped
        pairs = np.ascontiguousarray(matrix.reshape(dim // 2, 2, outputs).transpose(0, 2, 1)).ravel()
        out = np.full((n, outputs), -1, np.int32)
        _core.project(queries, pairs, out)
        np.testing.assert_array_equal(out, queries.astype(np.int64) @ matrix.astype(np.int64))


def products(rows, columns, threads=1):
    out = np.full((len(rows), len(columns)), np.nan, np.float32)
    _core.products(rows, columns, out, threads)
    return out


@pytest.mark.parametrize(("n", "m", "dim"), [(1, 1, 1), (5, 3, 7), (6, 8, 16), (7, 33, 65), (100, 31, 128), (2, 70, 0)])
def test_products_match_numpy(simd_target, rng, n, m, dim):
    rows, columns = rng.standard_normal((n, dim), dtype=np.float32), rng.standard_normal((m, dim), dtype=np.float32)
    a, b = rows.astype(np.float64), columns.astype(np.float64)
    limit = 4e-7 * max(dim, 1) ** 0.5 * (np.abs(a) @ np.abs(b).T)  # as for float queries
    assert (np.abs(products(rows, columns) - a @ b.T) <= limit).all()


def test_a_product_does_not_depend_on_its_neighbors_or_on_threads(simd_target, rng):
    rows, columns = rng.standard_normal((203, 37), dtype=np.float32), rng.standard_normal((41, 37), dtype=np.float32)
    whole = products(rows, columns)
    assert whole.tobytes() == products(rows, columns, threads=3).tobytes()
    some, few = [0, 5, 6, 100, 202], [0, 3, 17, 40]
    assert products(rows[some], columns[few]).tobytes() == whole[np.ix_(some, few)].tobytes()
    assert products(rows[7:8], columns[9:10])[0, 0] == whole[7, 9]


@pytest.mark.parametrize("element", ELEMENTS)
@over("dim", DIMS)
def test_rows_are_widened_exactly(simd_target, rng, element, dim):
    raw, values = stored(rng, element, (dim,))
    for scale in (np.float32(1), np.float32(0.3)):
        out = np.full(dim, np.nan, np.float32)
        _core.widen(as_bytes(raw), ELEMENTS.index(element), scale, out)
        assert bits(out) == bits(values.astype(np.float32) * scale)


@over("scale", [1e-30, 1, 1e15])
@over("dim", DIMS)
def test_rows_are_centered_and_measured_in_double(simd_target, rng, dim, scale):
    x, center = (rng.standard_normal((2, dim)) * scale).astype(np.float32)
    expected = x - center
    assert _core.center(x, center) == pytest.approx((expected.astype(np.float64) ** 2).sum(), rel=1e-13)
    assert bits(x) == bits(expected)


@over("dim", DIMS)
def test_rows_are_rounded_to_even(simd_target, rng, dim):
    x = np.resize(np.array([0.5, 1.5, -0.5, -2.5, 2.4999, 32700, -32700, 0, 3e-39], np.float32), dim)
    out = np.full(dim, -1, np.int16)
    for scale in (np.float32(1), np.float32(0.37)):
        _core.round16(x, scale, out)
        np.testing.assert_array_equal(out, np.rint(x * scale))
    _core.round16(np.full(dim, np.nan, np.float32), np.float32(1), out)  # any number, but no crash
    _core.round16(np.full(dim, np.inf, np.float32), np.float32(-3e38), out)


def whole_products(rows, columns):
    width = _core.panel_width()
    tiles = np.full(((len(columns) + width - 1) // width, len(rows), width), -1, np.int32)
    _core.whole_products(rows, columns, tiles)
    return tiles.transpose(1, 0, 2).reshape(len(rows), -1)


@pytest.mark.parametrize(("n", "m", "dim"), [(1, 1, 2), (5, 3, 8), (6, 8, 16), (7, 33, 66), (13, 31, 128), (2, 70, 0)])
def test_products_of_whole_numbers_are_exact(simd_target, rng, n, m, dim):
    rows, columns = (rng.integers(-3000, 3001, (size, dim)).astype(np.int16) for size in (n, m))
    out = whole_products(rows, columns)
    np.testing.assert_array_equal(out[:, :m], rows.astype(np.int64) @ columns.T.astype(np.int64))
    assert not out[:, m:].any()  # padding of the last panel


@pytest.mark.parametrize(("n", "m", "dim"), [(16, 32, 128), (17, 16, 126), (40, 33, 130), (64, 130, 190), (48, 5, 514)])
def test_products_of_whole_numbers_are_exact_in_groups_of_rows(simd_target, rng, n, m, dim):
    rows, columns = (rng.integers(-3000, 3001, (size, dim)).astype(np.int16) for size in (n, m))
    out = whole_products(rows, columns)
    np.testing.assert_array_equal(out[:, :m], rows.astype(np.int64) @ columns.T.astype(np.int64))
    assert not out[:, m:].any()


@over("whole", [-32768, -32767, -257, -256, -129, -128, -1, 0, 127, 128, 255, 256, 32767])  # around where bytes are cut
def test_products_of_whole_numbers_hold_every_number(simd_target, rng, whole):
    rows, columns = np.zeros((33, 140), np.int16), np.zeros((34, 140), np.int16)
    rows[:, 139] = columns[:, 139] = whole
    rows[:, 3], columns[:, 3] = np.arange(33) - 9, rng.integers(-9, 9, 34)
    expected = rows.astype(np.int64) @ columns.T.astype(np.int64)
    np.testing.assert_array_equal(whole_products(rows, columns)[:, :34], expected)


@over("dim", [2, 510, 512, 514, 1026, 4000])  # parts of 512 are added up
def test_products_of_whole_numbers_hold_the_longest_vectors(simd_target, rng, dim):
    x = np.full((39, dim), np.rint(32700 / dim**0.5), np.int16)
    x[1] *= -1
    np.testing.assert_array_equal(whole_products(x, x[:2])[:, :2], x.astype(np.int64) @ x[:2].T.astype(np.int64))
    x[:] = 0
    x[:, -1] = 32767  # all of the length in one element
    assert (whole_products(x, x[:2])[:, :2] == 32767**2).all()


def test_products_above_their_floors_are_named(simd_target, rng):
    width = _core.panel_width()
    tile = rng.integers(-1000, 1001, (9, width)).astype(np.int32)
    row_floor, row_scale = rng.standard_normal((2, 9)).astype(np.float32)
    floor, scale = rng.standard_normal((2, width)).astype(np.float32) * 500
    row_floor[4] = np.nan  # what is not a number is not below
    floor[1], row_scale[7] = np.inf, 1  # nothing reaches it
    with np.errstate(invalid="ignore"):
        limit = row_floor[:, None].astype(float) * scale + floor * row_scale[:, None].astype(float) - 100
    assert np.nanmin(np.abs(tile - limit)) > 1e-3  # rounding decides nothing
    expected = ~(tile < limit)
    found = _core.reaching(tile, row_floor, row_scale, floor, scale, 100)
    assert [row for row, _ in found] == np.flatnonzero(expected.any(axis=1)).tolist()
    for row, columns in found:
        assert [columns >> c & 1 for c in range(width)] == expected[row].tolist()
    assert expected[4].all()
    assert not expected[7, 1]
    low = np.full(width, np.inf, np.float32)
    assert _core.reaching(tile[:1], row_floor[:1], np.ones(1, np.float32), low, scale, 100) == []


@pytest.mark.parametrize("element", ["float32", "float16", "bfloat16"])
@over("dim", [1, 3, 8, 17, 64, 100])
def test_the_first_nonfinite_row_is_found(simd_target, rng, element, dim):
    raw = stored(rng, element, (9, dim))[0]
    words = raw.view(np.uint32 if element == "float32" else np.uint16)
    largest, infinity = {
        "float32": (0x7F7FFFFF, 0x7F800000),
        "float16": (0x7BFF, 0x7C00),
        "bfloat16": (0x7F7F, 0x7F80),
    }[element]
    sign = words.dtype.type(1) << (8 * words.itemsize - 1)
    words[0] = largest
    words[1] = largest | sign
    assert _core.first_nonfinite(raw, element == "bfloat16") == -1
    for bad in (infinity, infinity | sign, infinity + 1, infinity | sign | 1):  # infinities, then NaNs
        for at in (8, 2):
            broken = raw.copy()
            broken.view(words.dtype)[at, dim // 2 if bad & 1 else dim - 1] = bad
            assert _core.first_nonfinite(broken, element == "bfloat16") == at
    assert _core.first_nonfinite(raw[:0], element == "bfloat16") == -1


def test_first_nonfinite_takes_floats_only():
    with pytest.raises(ValueError, match="float32, float16 or bfloat16"):
        _core.first_nonfinite(np.zeros((2, 2), np.float64))


def test_an_unknown_target_is_refused():
    before = _core.simd_target()
    assert not _core.use_simd_target("avx9000")
    assert _core.simd_target() == before
    assert _core.simd_targets()[-1] == "baseline"  # best first; every machine has the last


def test_the_environment_names_the_target():
    def target(name, script="import nearly; print(nearly.simd_target())"):
        environment = {**os.environ, "NEARLY_SIMD": name}
        return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)

    for name in _core.simd_targets():
        assert target(name).stdout.strip() == name
    assert target("").stdout.strip() == _core.simd_targets()[0]
    refused = target("avx9000", "import nearly")  # at once, not when something is computed
    assert refused.returncode != 0
    assert "ImportError: NEARLY_SIMD=avx9000 names no target" in refused.stderr
    assert f"choose {', '.join(_core.simd_targets())}, or unset it" in refused.stderr
