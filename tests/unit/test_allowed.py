"""Filters as sets of rows, and as what where= takes."""

import numpy as np
import pytest

import nearly
from nearly.errors import InputError
from nearly.filters import Column, F, Filter, allowed, select

SIZES = [0, 1, 63, 64, 65, 1000, 4097]


@pytest.fixture(params=[1 << 14, 0], ids=["small", "large"], autouse=True)
def least_bytes(request, monkeypatch):
    """Bits are kept of few rows whatever they say; of many, rows where these are few."""
    monkeypatch.setattr(allowed, "_SMALL", request.param)


def sets(rng, n):
    for share in (0, 0.001, 0.02, 0.5, 1):
        yield rng.random(n) < share


@pytest.mark.parametrize("n", SIZES)
def test_a_filter_is_the_set_that_it_was_made_of(rng, n):
    for mask in sets(rng, n):
        rows = np.flatnonzero(mask)
        for made in (Filter.from_mask(mask), Filter.from_rows(np.concatenate([rows[::-1], rows]), n)):
            assert made.count == len(rows)
            assert made.rows().tolist() == list(made) == rows.tolist()
            assert made.mask().tolist() == np.asarray(made).tolist() == mask.tolist()
            assert [row in made for row in range(-1, n + 70)] == [
                0 <= i < n and bool(mask[i]) for i in range(-1, n + 70)
            ]
            again = Filter.from_bits(made.bits, n)
            assert again.rows().tolist() == rows.tolist()
            assert made.n_bytes <= max(n / 8 + 8, 1)
            assert (~made).mask().tolist() == (~mask).tolist()


def test_joining(rng):
    for n in (65, 1000):
        for a in sets(rng, n):
            for b in sets(rng, n):
                first, second = Filter.from_mask(a), Filter.from_mask(b)
                assert (first & second).mask().tolist() == (a & b).tolist()
                assert (first | second).mask().tolist() == (a | b).tolist()
                assert (first & second).count == (a & b).sum()


def test_few_rows_take_few_bytes():
    assert Filter.from_rows([5, 900_000], 1_000_000).n_bytes == 8
    assert Filter.from_rows(np.arange(0, 1_000_000, 2), 1_000_000).n_bytes == 125_000


def test_what_makes_no_filter():
    with pytest.raises(InputError, match=r"uint64 of shape \(2,\)"):
        Filter.from_bits(np.zeros(1, np.uint64), 100)
    with pytest.raises(InputError, match="past row 99"):
        Filter.from_bits(np.array([0, 1 << 40], np.uint64), 100)
    with pytest.raises(InputError, match="bool of one dimension"):
        Filter.from_mask([0, 1])
    for rows in ([-1], [100]):
        with pytest.raises(InputError, match=f"rows has {rows[0]}, but there are 100"):
            Filter.from_rows(rows, 100)
    with pytest.raises(InputError, match="integers in one dimension"):
        Filter.from_rows([0.5], 100)
    with pytest.raises(InputError, match="100 rows is joined with one of 99"):
        Filter.from_rows([], 100) & Filter.from_rows([], 99)
    with pytest.raises(InputError, match="joined with"):
        Filter.from_rows([], 100) | [1]


def indexes(vectors):
    yield nearly.Flat(vectors)
    yield nearly.Vamana(vectors, degree=8, beam=16)
    yield nearly.IVF(vectors, lists=5)


def test_where_takes_a_filter(rng):
    vectors = rng.standard_normal((300, 8), dtype=np.float32)
    year = Column.from_values("year", rng.integers(2000, 2020, 300))
    for index in indexes(vectors):
        for expression in (F.year >= 2010, F.year == 2003, F.year > 3000):
            allowed = select(expression, {"year": year}, 300)
            for exact in (False, True):
                found = index.search(vectors[:9], k=5, where=allowed, exact=exact)
                same = index.search(vectors[:9], k=5, where=allowed.mask(), exact=exact)
                assert found.ids.tolist() == same.ids.tolist()
                assert all(i in allowed for i in found.ids.ravel().tolist() if i >= 0)


def test_its_bits_are_used_as_they_are(rng):
    index = nearly.Flat(rng.standard_normal((300, 8), dtype=np.float32))
    allowed = Filter.from_rows(np.arange(0, 300, 3), 300)
    known = index._filter(allowed)
    assert np.shares_memory(known.bits, allowed.bits)
    assert known.n == 100
    assert index._filter(allowed) is known  # as long as nothing changes
    index.add(rng.standard_normal((1, 8), dtype=np.float32))
    assert index._filter(Filter.from_rows([300], 301)).n == 1


def test_a_filter_stays_right_when_rows_are_no_ids(rng):
    """Removed rows, and those whose place serves another id: the slow way, and the same answers."""
    vectors = rng.standard_normal((64, 8), dtype=np.float32)
    for index in indexes(vectors):
        index.search(vectors[0], where=Filter.from_mask(np.ones(64, bool)))  # rows are ids, and that is known
        index.add(vectors[:6] + 2)
        index.remove([3, 40])
        index.add(vectors[:4] + 3)
        mask = rng.random(74) < 0.5
        found = index.search(vectors, k=74, where=Filter.from_mask(mask), exact=True)
        expected = sorted(set(np.flatnonzero(mask).tolist()) - {3, 40})
        assert all(sorted(i for i in ids if i >= 0) == expected for ids in found.ids.tolist())
        with pytest.raises(InputError, match="74"):
            index.search(vectors[0], where=Filter.from_mask(mask[:64]))


def test_a_filter_means_nothing_where_ids_were_given(rng):
    index = nearly.Flat(rng.standard_normal((10, 4), dtype=np.float32), ids=np.arange(10))
    with pytest.raises(InputError, match="this index was given its ids"):
        index.search(np.zeros(4, np.float32), where=Filter.from_rows([1], 10))


def test_a_filter_does_not_change_with_the_bits_that_it_was_made_of():
    bits = np.full(4, ~np.uint64(0), np.uint64)
    made = Filter.from_bits(bits, 256)
    bits[:] = 0
    assert (made.count, len(made.rows())) == (256, 256)
