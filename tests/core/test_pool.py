"""Bookkeeping of graph walks: neighbors not met before, candidates within a bound, merges. Exact on every target."""

import numpy as np
import pytest
from core_support import over

from nearly import _core

NONE = 0xFFFFFFFF
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 130, 511]


def words(distances, rows):
    """Candidates as the core makes them: bits of the distance in the order of floats, then twice the row."""
    bits = np.asarray(distances, np.float32).view(np.int32).astype(np.int64)
    keys = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (keys << 32) | (np.asarray(rows, np.int64) << 1)


@over("size", SIZES)
def test_unseen_neighbors_are_found_once(simd_target, rng, size):
    seen = rng.integers(0, 2**64, 40, dtype=np.uint64, endpoint=False)
    before = np.unpackbits(seen.view(np.uint8), bitorder="little").astype(bool)
    neighbors = rng.integers(0, 40 * 64, size).astype(np.uint32)
    n_nodes = 40 * 64 - 500  # nodes beyond were added since: skipped, and no bit is set for them
    padded = np.concatenate([neighbors, np.full(3, NONE), neighbors]).astype(
        np.uint32
    )  # what follows the end is not read

    found = _core.unseen(padded, n_nodes, seen)

    expected = [v for v in dict.fromkeys(neighbors.tolist()) if v < n_nodes and not before[v]]
    assert found == expected
    before[expected] = True
    np.testing.assert_array_equal(np.unpackbits(seen.view(np.uint8), bitorder="little").astype(bool), before)


@over("size", SIZES)
@over("share", [0.02, 0.5, 1.0])
def test_only_neighbors_that_pass_are_met(simd_target, rng, size, share):
    seen, passes = rng.random(2560) < 0.3, rng.random(2560) < share
    words, bits = (np.packbits(flags, bitorder="little").view(np.uint64) for flags in (seen.copy(), passes))
    neighbors = rng.integers(0, 2560, size).astype(np.uint32)
    n_bits = 2000  # nodes beyond do not pass, whatever their bits say
    padded = np.concatenate([neighbors, np.full(9, NONE)]).astype(np.uint32)

    found = _core.unseen_passing(padded, bits, n_bits, words)

    expected = [v for v in dict.fromkeys(neighbors.tolist()) if v < n_bits and passes[v] and not seen[v]]
    assert found == expected
    seen[expected] = True
    np.testing.assert_array_equal(np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool), seen)


@over("size", SIZES)
def test_candidates_within_a_bound_keep_their_order(simd_target, rng, size):
    distances = rng.standard_normal(size).astype(np.float32)
    distances[rng.random(size) < 0.2] = 0.25
    rows = rng.integers(0, 2**31, size).astype(np.uint32)
    for bound in (0.25, -1.0, np.inf, -np.inf):
        kept = ~(distances > bound)
        assert _core.within(distances, rows, bound) == words(distances[kept], rows[kept]).tolist()


def test_words_order_as_distances_do(simd_target):
    distances = np.array([-np.inf, -3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 2.5, 3e38, np.inf], np.float32)
    made = _core.within(distances, np.arange(10, dtype=np.uint32), np.inf)
    assert made == sorted(made)


@over("n_fresh", SIZES)
@over("width", [1, 3, 10, 40, 200])
def test_a_merge_keeps_the_best_of_both(simd_target, rng, n_fresh, width):
    for n_pool in {0, 1, width // 2, width - 1, width}:
        every = np.unique(rng.integers(-(2**62), 2**62, n_pool + n_fresh + 8))
        drawn = rng.permutation(every)[: n_pool + n_fresh].tolist()
        pool, fresh = sorted(drawn[:n_pool]), drawn[n_pool:]

        merged, first = _core.merge(pool, width, fresh)

        expected = sorted(pool + fresh)[:width]
        assert merged == expected
        taken = [i for i, word in enumerate(expected) if word in set(fresh)]
        assert first == (taken[0] if taken else n_pool)


@pytest.mark.parametrize("n_bits", [8, 4])
@over("size", [4, 8, 32, 36, 64, 128, 192])
def test_code_distances_are_sums_of_their_parts(simd_target, rng, n_bits, size):
    rows = rng.integers(0, 256, (11, size), dtype=np.uint8)
    headers = rng.standard_normal(11).astype(np.float32)
    rows[:, -4:] = headers.view(np.uint8).reshape(-1, 4)
    query = rng.integers(-64, 64, (8 // n_bits, size)).astype(np.int8)
    query[:, -4:] = 0
    out = np.empty(11, np.float32)

    _core.code_distances(query.ravel(), rows, n_bits, 1.5, -0.25, out)

    codes = rows.astype(np.int64)
    products = codes @ query[0] if n_bits == 8 else (codes & 15) @ query[0] + (codes >> 4) @ query[1]
    expected = (np.float32(1.5) + headers) + np.float32(-0.25) * products.astype(np.float32)
    np.testing.assert_array_equal(out, expected)
