"""Plans of SAQ: what a dynamic programme chooses, against all that could be chosen; and what they give on real data."""

import itertools

import numpy as np
import pytest

import nearly
from nearly import _core, evaluate
from nearly.quantizers.saq import ERRORS, _plan, plan_segments


def error_of(plan, blocks):
    cuts = np.cumsum([0, *(length for length, _ in plan)])
    parts = [sum(blocks[first:last]) for first, last in itertools.pairwise(cuts)]
    return sum(part * ERRORS[bits] for part, (_, bits) in zip(parts, plan, strict=True))


def all_plans(n, budget, segments):
    """Every way to cut n blocks and to give bits within the budget; only the last segment may have none."""
    for cuts in itertools.product([False, True], repeat=n - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [n]
        lengths = [last - first for first, last in itertools.pairwise([0, *ends])]
        for bits in itertools.product(range(7), repeat=len(lengths)):
            used = sum(length * b for length, b in zip(lengths, bits, strict=True))
            if used <= budget and all(bits[:-1]) and sum(b > 0 for b in bits) <= segments:
                yield list(zip(lengths, bits, strict=True))


@pytest.mark.parametrize("budget", [1, 2, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_no_plan_within_the_budget_loses_less(rng, n, budget):
    for segments in (1, 2, n):
        blocks = np.sort(rng.exponential(size=n))[::-1] * 3.0 ** -np.arange(n)
        chosen = plan_segments(blocks.tolist(), budget, segments=segments, worth=0.0)
        best = min(error_of(plan, blocks) for plan in all_plans(n, min(budget, 6 * n), segments))
        assert sum(length for length, _ in chosen) == n
        assert sum(length * bits for length, bits in chosen) <= budget
        if max(bits for _, bits in chosen) <= 6:  # as far as all plans go
            assert error_of(chosen, blocks) == pytest.approx(best)


def test_plans_keep_to_budgets_and_fall(rng):
    for _ in range(50):
        n = int(rng.integers(1, 33))
        budget = int(rng.integers(1, 8 * n + 1))
        blocks = np.sort(rng.exponential(size=n) ** 2)[::-1].tolist()
        plan = plan_segments(blocks, budget)
        bits = [b for _, b in plan]
        assert sum(length * b for length, b in plan) <= budget
        assert bits == sorted(bits, reverse=True)
        assert sum(b > 0 for b in bits) <= 8
        finest = plan_segments(blocks, budget, worth=0.0)
        assert error_of(plan, blocks) <= 1.0101 * error_of(finest, blocks)


def test_even_and_empty_spectra_need_one_segment():
    assert plan_segments([1.0] * 8, 24) == [(8, 3)]
    assert plan_segments([0.0] * 3, 6)[0][1] >= 1
    assert plan_segments([5.0], 40) == [(1, 12)]  # no more bits than codes have


@pytest.mark.parametrize(("dim", "bits"), [(64, 1), (100, 0.5), (384, 0.2), (384, 2.5), (1000, 0.75)])
def test_rows_are_no_longer_than_their_budget(rng, dim, bits):
    vectors = (rng.standard_normal((300, dim)) * 0.99 ** np.arange(dim)).astype(np.float32)
    fitted = nearly.SAQ(bits).fit(vectors)
    padded = -(-dim // 64) * 64
    assert (fitted.lengths * fitted.bits.astype(int)).sum() <= bits * padded + 1e-9
    assert fitted.row_bytes <= -(-(24 + bits * padded / 8) // 32) * 32 + 32 * (dim % 64 > 0)
    assert fitted.error(vectors).mean < 1


@pytest.mark.parametrize("dim", [65, 2048, 3000, 32768])
def test_plans_of_many_dimensions_are_made_of_wider_blocks(dim):
    variances = 0.999 ** np.arange(dim)
    for bits in (1.0, 1.5, 4.0):
        lengths, numbers = _plan(variances, bits, dim)
        assert (np.array(lengths) * numbers).sum() <= bits * (-(-dim // 64) * 64)
        assert all(length % 64 == 0 for length in lengths[:-1])
        assert sum(lengths) <= dim


def test_budgets_below_a_bit_for_one_unit_are_refused_with_what_would_do(rng):
    vectors = rng.standard_normal((50, 256), dtype=np.float32)
    with pytest.raises(nearly.InputError, match=r"at least 0\.25"):
        nearly.SAQ(0.2).fit(vectors)
    assert nearly.SAQ(0.25).fit(vectors).bits.tolist() == [1]


@pytest.mark.parametrize("bits", [2, pytest.param(4, marks=pytest.mark.soak)])
def test_embeddings_lose_less_than_half_of_what_rabitq_loses(data_folder, bits):
    base = np.load(data_folder / "cve_minilm_384_base.npy").astype(np.float32)
    sample, others = base[::7], base[3::23]
    by_segments, alike = (kind(bits).fit(sample, metric="cosine") for kind in (nearly.SAQ, nearly.RaBitQ))
    assert by_segments.row_bytes == alike.row_bytes
    assert by_segments.error(others).mean < 0.45 * alike.error(others).mean  # measured: 0.38


def test_scores_alone_rank_better_than_those_of_rabitq(rng):
    axes = np.linalg.qr(rng.standard_normal((256, 256)))[0] * 0.98 ** np.arange(256)[:, None]
    made = (rng.standard_normal((3030, 256)) @ axes).astype(np.float32)
    vectors, queries = made[:3000], made[3000:]
    truth = np.argsort(((queries[:, None] - vectors[None]) ** 2).sum(axis=2), axis=1)[:, :10]
    found = {}
    for spec in (nearly.RaBitQ(1), nearly.SAQ(1)):
        fitted = spec.fit(vectors)
        table = _core.Table(fitted.row_bytes, 3000, 3000)
        scorer = fitted.scorer(table)
        scorer.encode(0, vectors)
        scores = np.empty((30, 3000), np.float32)
        for query, row in zip(queries, scores, strict=True):
            scorer.score(1024, query.view(np.uint8), np.arange(3000, dtype=np.uint32), row)
        found[spec] = evaluate.recall_at_k(np.argsort(scores, axis=1)[:, :10], truth)
    assert found[nearly.SAQ(1)] > found[nearly.RaBitQ(1)] + 0.1
