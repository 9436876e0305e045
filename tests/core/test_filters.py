"""Rows whose values lie in spans, and lists with an element, against NumPy on every CPU target."""

import numpy as np
import pytest
from core_support import over

from nearly import _core

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float64"]
ALL = {"int64": (np.iinfo(np.int64).min, np.iinfo(np.int64).max), "float64": (-np.inf, np.inf)}
SIZES = [0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 70_000]  # around words, and more than one block


def limits(dtype):
    if dtype == "float64":
        return -np.inf, np.inf
    info = np.iinfo("uint8" if dtype == "bool" else dtype)
    return int(info.min), int(info.max)


def column(rng, dtype, n):
    """Values of which many are equal, the extreme ones among them."""
    if dtype == "bool":
        return rng.random(n) < 0.5
    low, high = limits(dtype)
    few = rng.integers(0, 120, n).astype(dtype)
    few[rng.random(n) < 0.05] = high
    few[rng.random(n) < 0.05] = low
    return few


def spans(rng, dtype, count):
    """Ascending spans that do not touch, some of one value."""
    ends = np.sort(rng.choice(118, 2 * count, replace=False)) if count <= 59 else np.arange(2 * count)
    low, high = ends[::2], ends[1::2] - 1  # between one span and the next is at least one value
    high = np.where(rng.random(count) < 0.5, low, np.maximum(low, high))
    return low.astype("float64" if dtype == "float64" else "int64"), high.astype(
        "float64" if dtype == "float64" else "int64"
    )


def expected(values, low, high):
    inside = np.zeros(len(values), bool)
    for a, b in zip(low, high, strict=True):
        inside |= (values >= a) & (values <= b)
    return inside


def packed(mask):
    out = np.zeros((len(mask) + 63) // 64 * 64, bool)
    out[: len(mask)] = mask
    return np.packbits(out, bitorder="little").view(np.uint64)


def span_bits(values, low, high, nulls=False, valid=None, threads=0):
    out = np.full((len(values) + 63) // 64, 0xDEADBEEF, np.uint64)
    _core.Column(values, valid).test(low, high, nulls, out, threads=threads)
    return out


def opposite(dtype, low, high):
    """The spans of all other values."""
    first, last = ALL[low.dtype.name]
    step = (lambda x, way: np.nextafter(x, way * np.inf)) if low.dtype == np.float64 else (lambda x, way: x + way)
    return np.append(first, step(high, 1)).astype(low.dtype), np.append(step(low, -1), last).astype(low.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@over("count", [0, 1, 2, 3, 4, 7, 17, 40])
def test_spans_match_numpy(simd_target, rng, dtype, count):
    if dtype == "bool" and count > 1:
        return  # two values have no more spans
    for n in SIZES[:-1]:
        values = column(rng, dtype, n)
        low, high = spans(rng, dtype, count) if dtype != "bool" else (np.ones(count, np.int64),) * 2
        np.testing.assert_array_equal(span_bits(values, low, high), packed(expected(values, low, high)))


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_spans_reach_the_ends_of_a_type(simd_target, rng, dtype):
    first, last = limits(dtype)
    kind = "float64" if dtype == "float64" else "int64"
    values = column(rng, dtype, 1000)
    for low, high in [([first], [last]), ([first], [first]), ([last], [last]), ([first, 50], [49.0, last])]:
        ends = np.array(low, kind), np.array(high, kind)
        np.testing.assert_array_equal(span_bits(values, *ends), packed(expected(values, *ends)))


def test_floats_that_are_no_number_pass_nothing(simd_target):
    values = np.array([np.nan, -0.0, 0.0, np.inf, -np.inf] * 30)
    whole, zero = (np.array([-np.inf]), np.array([np.inf])), (np.array([0.0]), np.array([0.0]))
    np.testing.assert_array_equal(span_bits(values, *whole), packed(~np.isnan(values)))
    np.testing.assert_array_equal(span_bits(values, *zero), packed(values == 0))
    many = np.array([-1.0, 0.0, 5.0, 7.0, 9.0])
    np.testing.assert_array_equal(span_bits(values, many, many), packed(values == 0))


@pytest.mark.parametrize("scale", [1, 10**9, 10**15])
def test_many_values_far_apart(rng, scale):
    """More values than buckets tell apart: what shares a bucket with one is searched for."""
    values = rng.integers(-4000, 4000, 70_000) * scale
    chosen = np.unique(rng.choice(values, 900))
    near = np.concatenate([chosen, chosen + 1, values])
    np.testing.assert_array_equal(span_bits(near, chosen, chosen), packed(np.isin(near, chosen)))
    floats = near.astype(np.float64)
    ends = np.unique(chosen.astype(np.float64))
    np.testing.assert_array_equal(span_bits(floats, ends, ends), packed(np.isin(floats, ends)))
    wide = np.arange(-4000, 4000, 7) * scale
    np.testing.assert_array_equal(
        span_bits(near, wide, wide + 3 * scale), packed(np.mod(near + 4000 * scale, 7 * scale) <= 3 * scale)
    )


@pytest.mark.parametrize("dtype", DTYPES[1:])
@over("count", [1, 2, 7, 17, 40])
def test_all_but_some_values(simd_target, rng, dtype, count):
    values = column(rng, dtype, 1000)
    low, high = spans(rng, dtype, count)
    found = span_bits(values, *opposite(dtype, low, high))
    np.testing.assert_array_equal(found, packed(~expected(values, low, high)))


@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_spans_beyond_what_a_column_may_hold(rng, dtype):
    first, last = limits(dtype)
    values = column(rng, dtype, 1000)
    steps = [s for s in (first - 400, first - 9, first - 1, first, first + 2, last - 1, last, last + 1, last + 300)
             if ALL["int64"][0] <= s <= ALL["int64"][1]]  # fmt: skip
    for n in (1, 2, 3, 4):
        for _ in range(20):
            ends = np.sort(rng.choice(len(steps), 2 * n, replace=False)) if 2 * n <= len(steps) else np.arange(2)
            low, high = np.array([steps[i] for i in ends[::2]]), np.array([steps[i] for i in ends[1::2]])
            np.testing.assert_array_equal(span_bits(values, low, high), packed(expected(values, low, high)))


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("nulls", [False, True])
@over("n", SIZES)
def test_rows_without_a_value(rng, inverted, nulls, n):
    values, valid = column(rng, "int16", n), rng.random(n) < 0.8
    low, high = spans(rng, "int16", 3)
    found = span_bits(values, *(opposite("int16", low, high) if inverted else (low, high)), nulls, packed(valid))
    np.testing.assert_array_equal(found, packed(np.where(valid, expected(values, low, high) != inverted, nulls)))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.999, 1.0])
@over("n", SIZES)
def test_bits_that_are_joined(rng, share, n):
    """With runs of rows in which nothing is left to find out, whatever the column holds there."""
    before, valid = rng.random(n) < share, rng.random(n) < 0.8
    for dtype, low, high in (("uint8", [3], [50]), ("float64", [-1.0, 60.0], [20.0, np.inf])):
        values, ends = column(rng, dtype, n), (np.array(low), np.array(high))
        inside = expected(values, *ends)
        for joined, join in ((1, np.logical_and), (2, np.logical_or)):
            for nulls, known in ((False, None), (False, valid), (True, valid)):
                bits = packed(before)
                _core.Column(values, None if known is None else packed(known)).test(*ends, nulls, bits, joined)
                found = inside if known is None else np.where(known, inside, nulls)
                np.testing.assert_array_equal(bits, packed(join(before, found)))


@pytest.mark.parametrize("dtype", DTYPES[1:])
@over("count", [1, 3, 17])
def test_rows_in_order_are_settled_by_zones(simd_target, rng, dtype, count):
    """Ascending values, over several blocks: most zones are inside of a span, or of none."""
    n = 70_000
    values, before = np.sort(column(rng, dtype, n)), rng.random(n) < 0.5
    valid = rng.random(n) < 0.9
    if dtype == "float64":
        values[~valid] = np.nan  # anything, where there is no value
    ends = spans(rng, dtype, count)
    for low, high in (ends, opposite(dtype, *ends)):
        inside = expected(values, low, high)
        np.testing.assert_array_equal(span_bits(values, low, high, False, packed(valid)), packed(inside & valid))
        np.testing.assert_array_equal(span_bits(values, low, high, True, packed(valid)), packed(inside | ~valid))
        for joined, join in ((1, np.logical_and), (2, np.logical_or)):
            bits = packed(before)
            _core.Column(values, packed(valid)).test(low, high, False, bits, joined)
            np.testing.assert_array_equal(bits, packed(join(before, inside & valid)))


def test_what_is_no_number_is_in_no_zone():
    values = np.full(3000, 5.0)
    values[[0, 1500, 2999]] = np.nan
    everything = np.array([-np.inf]), np.array([np.inf])
    np.testing.assert_array_equal(span_bits(values, *everything), packed(~np.isnan(values)))


def test_bits_do_not_depend_on_threads(rng):
    values = rng.integers(0, 100, 1_000_003).astype(np.int32)
    ends = np.array([5, 50]), np.array([20, 60])
    one = span_bits(values, *ends, threads=1)
    np.testing.assert_array_equal(one, packed(expected(values, *ends)))
    for threads in (2, 5):
        np.testing.assert_array_equal(span_bits(values, *ends, threads=threads), one)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
@pytest.mark.parametrize("inverted", [False, True])
def test_lists_with_an_element(simd_target, rng, dtype, inverted):
    for rows in (1, 64, 65, 70_000):
        lengths = rng.integers(0, 4, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        elements = rng.integers(0, 9, offsets[-1]).astype(dtype)
        valid = rng.random(rows) < 0.9
        has = np.zeros(rows, bool)
        np.logical_or.at(has, np.repeat(np.arange(rows), lengths), elements == 4)
        out = np.zeros((rows + 63) // 64, np.uint64)
        _core.test_lists(elements, 4, offsets, inverted, packed(valid), out)
        np.testing.assert_array_equal(out, packed((has != inverted) & valid))


@over("words", [0, 1, 30, 31, 32, 62, 1000])
def test_count_of_bits(rng, words):
    for bits in (rng.integers(0, 2**64, words, np.uint64), np.full(words, 2**64 - 1, np.uint64)):
        assert _core.count_bits(bits) == np.unpackbits(bits.view(np.uint8)).sum()


def test_bits_that_are_set_by_number(rng):
    for n in (0, 1, 64, 70, 1000):
        mask = rng.random(n) < 0.1
        found = _core.set_nodes(packed(mask), n)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, np.flatnonzero(mask))
        bits = np.zeros((n + 63) // 64, np.uint64)
        _core.set_bits(found[::-1].copy(), bits)
        np.testing.assert_array_equal(bits, packed(mask))
    with pytest.raises(ValueError, match="beyond"):
        _core.set_bits(np.array([128], np.uint32), np.zeros(2, np.uint64))


OUT = np.zeros(2, np.uint64)


@pytest.mark.parametrize(
    ("low", "high", "valid", "out"),
    [
        ([5], [4], None, OUT),  # ends before it begins
        ([5, 5], [5, 6], None, OUT),  # touches
        ([0, 1], [0], None, OUT),
        ([0], [1], np.zeros(1, np.uint64), OUT),
        ([0], [1], None, np.zeros(3, np.uint64)),
    ],
)
def test_the_door_refuses_what_would_be_read_amiss(low, high, valid, out):
    values = np.zeros(100, np.int16)
    with pytest.raises(ValueError, match=r"test_spans|valid"):
        _core.Column(values, valid).test(np.array(low, np.int64), np.array(high, np.int64), False, out)


@pytest.mark.parametrize(
    ("values", "rest"),
    [
        (np.zeros(3, np.int64), (None, 5)),
        (np.zeros(3, np.int64), (None, 3)),
        (np.zeros(3), (None, 2)),
        (np.zeros(3, np.uint8), (None, 4)),
        (np.zeros(3, np.uint8), (None, 4, np.array([0, 2], np.int64), np.zeros(3, np.uint8))),
        (np.zeros(3, np.uint8), (None, 4, np.array([0, 3, 2, 3], np.int64), np.zeros(3, np.uint8))),
        (np.zeros(3, np.uint8), (None, 4, np.zeros(0, np.int64), np.zeros(0, np.uint8))),
        (np.zeros(3, np.int64), (None, 4, np.array([0, 3], np.int64), np.zeros(3, np.uint8))),
    ],
)
def test_columns_that_do_not_fit_their_kind_are_refused(values, rest):
    with pytest.raises(ValueError, match="Column"):
        _core.Column(values, *rest)


def test_what_is_no_way_to_join_is_refused():
    ends = np.array([0], np.int64)
    for joined in (-1, 3):
        with pytest.raises(ValueError, match="joined"):
            _core.Column(np.zeros(100, np.int16)).test(ends, ends, False, OUT, joined)
    with pytest.raises(ValueError, match="ascend"):
        _core.Column(np.zeros(100)).test(np.array([np.nan]), np.array([1.0]), False, OUT)


@pytest.mark.parametrize("offsets", [[0, 2, 1, 4], [1, 2, 3, 4], [0, 1, 2, 5], [0, -1, 2, 4]])
def test_offsets_out_of_order_are_refused(offsets):
    elements, out = np.zeros(4, np.uint8), np.zeros(1, np.uint64)
    with pytest.raises(ValueError, match="offsets"):
        _core.test_lists(elements, 0, np.array(offsets, np.int64), False, None, out)
