"""Residual codes in the slots of lists: estimates against NumPy in float64, and scans that find the least of them."""

import numpy as np
import pytest
from core_support import METRICS, as_bytes, empty_answer, make_plain, make_rows, make_table

from nearly import _core

NONE = 0xFFFFFFFF
UNIT = 32
NOTHING = np.zeros(0, np.int8), np.zeros(0, np.float32)


class Made:
    """Lists whose nodes are coded by random codewords, without a projection; list 1 is empty."""

    def __init__(self, rng, metric, *, dim=11, books=5, sizes=(70, 0, 33, 32, 1), chosen_by=None):
        n = sum(sizes)
        self.dim, self.books, self.metric, self.sizes = dim, books, metric, np.array(sizes)
        self.centers = rng.standard_normal((len(sizes), dim), dtype=np.float32) * 2
        self.labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint32)
        self.vectors = self.centers[self.labels] + rng.standard_normal((n, dim), dtype=np.float32)
        self.mean = rng.standard_normal(dim).astype(np.float32) if metric == "l2" else np.zeros(dim, np.float32)
        self.words = rng.standard_normal((books, 16, -(-dim // books)), dtype=np.float32)
        self.cuts = [b * dim // books for b in range(books + 1)]
        for b in range(books):
            self.words[b, :, self.cuts[b + 1] - self.cuts[b] :] = 0
        room = -(-self.sizes // UNIT) * UNIT
        self.first = np.cumsum(room) - room
        self.slots = np.concatenate([self.first[i] + np.arange(s) for i, s in enumerate(sizes)]).astype(np.uint32)
        self.blocks = make_table(_core.Listed.block_bytes(dim, dim, books), int(room.sum()) // UNIT)
        self.store, self.rows = make_plain(self.vectors, metric), make_rows(n)
        centers, number = _core.Table.borrow(as_bytes(self.centers)), METRICS.index(metric)
        self.core = _core.Listed(centers, self.blocks, number, *NOTHING, self.mean, self.words)
        self.core.fill(self.store, self.slots, np.arange(n, dtype=np.uint32), self.labels, 2)
        chunks, members = make_table(16, len(sizes)), make_table(4, int(room.sum()))
        table = np.stack([self.first, self.sizes, room, np.full(len(sizes), NONE)], 1)
        chunks.array().view(np.uint32)[:] = table
        members.array().view(np.uint32)[self.slots, 0] = np.arange(n)
        chosen = None if chosen_by is None else make_plain(chosen_by, metric)
        self.lists = _core.Inverted(chunks, members, len(sizes), chosen, self.store, self.store, self.rows, self.core)

    def coded(self):
        """What is added up for each vector: its codewords, scale and number, in float64."""
        residuals = self.vectors.astype(np.float64) - self.centers[self.labels]
        words = np.zeros_like(residuals)
        for b, (a, e) in enumerate(zip(self.cuts[:-1], self.cuts[1:], strict=True)):
            of = self.words[b, :, : e - a].astype(np.float64)
            words[:, a:e] = of[((residuals[:, None, a:e] - of) ** 2).sum(2).argmin(1)]
        along, square = (residuals * words).sum(1), (residuals**2).sum(1)
        scale = np.where(along > 0, square / along, 0)
        return words, scale, square

    def expected(self, query):
        """Estimates of the distances, up to a number for all of them under ip."""
        words, scale, square = self.coded()
        center = self.centers[self.labels].astype(np.float64)
        if self.metric == "ip":
            return -center @ query - scale * (words @ query)
        return ((query - center) ** 2).sum(1) + square - 2 * scale * ((query - center) * words).sum(1)

    def score(self, query):
        out = np.empty(len(self.vectors), np.float32)
        self.core.score(query, self.slots, self.labels, out)
        return out


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("dim", "books"), [(11, 5), (8, 8), (40, 20), (70, 33)])
def test_estimates_are_those_of_the_formula(simd_target, rng, metric, dim, books):
    made = Made(rng, metric, dim=dim, books=books)
    for query in rng.standard_normal((5, dim)).astype(np.float32):
        got, expected = made.score(query).astype(np.float64), made.expected(query)
        if metric == "ip":
            got, expected = got - got.mean(), expected - expected.mean()
        # Tables are bytes and centers are compared as bytes: by hand, a few hundredths of the spread.
        assert np.abs(got - expected).max() < 0.08 * expected.std() + 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("depth", [3, 40, 136])
@pytest.mark.parametrize("chosen_by", [None, np.zeros((5, 11), np.float32)])
def test_a_scan_finds_the_least_estimates(simd_target, rng, metric, depth, chosen_by):
    made = Made(rng, metric, chosen_by=chosen_by)
    for query in rng.standard_normal((6, made.dim)).astype(np.float32):
        answer = empty_answer(1, depth)
        work = made.lists.search(made.dim * 4, as_bytes(query[None]), METRICS.index(metric), 5, np.inf, depth, True,
                                 answer.ids, answer.distances, answer.counts, None, 1)  # fmt: skip
        assert sorted(answer.ids[0]) == sorted(np.argsort(made.score(query), kind="stable")[:depth])
        assert work == (5 + 136, 5, depth)


def test_lists_are_chosen_by_other_centers_where_there_are_some(rng):
    # The last list is the nearest by these, whatever blocks know of it.
    other = np.arange(5, 0, -1, dtype=np.float32)[:, None] * np.ones(11, np.float32) * 100
    made, answer = Made(rng, "l2", chosen_by=other), empty_answer(1, 1)
    query = made.vectors[:1]
    made.lists.search(44, as_bytes(query), 0, 1, np.inf, 40, True, answer.ids, answer.distances, answer.counts, None, 1)
    assert answer.ids[0] == 135
    gaps, nearest = np.empty((1, 5), np.float32), np.empty(1, np.float32)
    made.lists.gaps(44, as_bytes(query), 0, gaps, nearest, 1)
    expected = np.sqrt(((query - other).astype(np.float64) ** 2).sum(1))
    np.testing.assert_allclose(gaps[0], expected - expected[4], rtol=1e-3)


def test_targets_agree_bit_for_bit(rng):
    made, found = Made(rng, "l2", dim=40, books=20), []
    query = rng.standard_normal(40).astype(np.float32)
    for target in _core.simd_targets():
        before = _core.simd_target()
        _core.use_simd_target(target)
        found.append(made.score(query).tobytes())
        _core.use_simd_target(before)
    assert len(set(found)) == 1


def test_a_slot_that_is_written_leaves_its_neighbors_alone(rng):
    made = Made(rng, "l2")
    before = made.score(made.vectors[0])
    made.core.fill(made.store, made.slots[[20]], np.array([3], np.uint32), made.labels[[20]], 1)
    after = made.score(made.vectors[0])
    assert np.flatnonzero(before != after).tolist() == [20]
    assert after[20] == before[3]


def test_what_does_not_fit_is_refused(rng):
    made = Made(rng, "l2")
    nodes = np.arange(2, dtype=np.uint32)
    for slots, lists in (([1, 0], [0, 0]), ([0, 10_000], [0, 0]), ([0, 1], [0, 5])):
        with pytest.raises(ValueError, match="Listed"):
            made.core.fill(made.store, np.array(slots, np.uint32), nodes, np.array(lists, np.uint32), 1)
    for books, dims in ((257, 300), (0, 8), (9, 8)):
        with pytest.raises(ValueError, match="Listed"):
            _core.Listed.block_bytes(300, dims, books)
