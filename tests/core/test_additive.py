"""Product, residual and sign codes in the core: distances are those to decoded vectors, however rows are met."""

import itertools

import numpy as np
import pytest
from core_support import METRICS, between, bits, make_rows, scan, score

from nearly import Binary, Product, Residual, _core

SPECS = [Product(5), Product(11), Product(7, bits=4), Product(24, bits=4), Product(5, rotation="opq"),
         Residual(3), Residual(7, bits=4, beam=2), Residual(18, bits=4, beam=1)]  # fmt: skip
FORMS = ["l2", "cosine", "ip"]


def data(rng, n, dim=24):
    return (rng.standard_normal((n, 6)) @ rng.standard_normal((6, dim)) + 0.3).astype(np.float32)


def coded(fitted, vectors):
    """A scorer over the codes of vectors in the metric's form, and the codes."""
    table = _core.Table(fitted.row_bytes, len(vectors), len(vectors))
    scorer = fitted.scorer(table)
    scorer.encode(0, np.ascontiguousarray(vectors))
    return scorer, np.array(table.array())


def uneven(rng, vectors):
    """Vectors whose norms are too uneven to be lengthened to one."""
    return vectors * rng.uniform(0.1, 3, (len(vectors), 1)).astype(np.float32)


@pytest.mark.parametrize("metric", FORMS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_distance_is_that_to_the_decoded_vector(simd_target, rng, spec, metric):
    vectors, query = uneven(rng, data(rng, 300)), data(rng, 1)[0]
    fitted = spec.fit(vectors, metric=metric)
    scorer, codes = coded(fitted, fitted._form(vectors))
    decoded = fitted.decode(codes).astype(np.float64)
    q = query.astype(np.float64) / (np.linalg.norm(query) if metric == "cosine" else 1)
    expected = -(decoded @ q) if metric == "ip" else ((decoded - q) ** 2).sum(axis=1)
    size = (q @ q) + (decoded**2).sum(axis=1).max()
    got = score(scorer, query, np.arange(300))
    if fitted.state()[1].get("code", fitted.state()[1])["bits"] == 8:
        np.testing.assert_allclose(got, expected, atol=1e-5 * size)
        return
    # A table's bytes are off by half a step each; the step is a 255th of the largest range of a codebook.
    inner = fitted
    products = np.einsum("bwd,bd->bw", inner.codewords, _parts(inner, q if metric == "ip" else q - inner.center))
    sums = -products if metric == "ip" else -2 * products
    if metric != "ip" and not inner.residual:
        sums = sums + (inner.codewords.astype(np.float64) ** 2).sum(axis=2)
    step = (sums.max(axis=1) - sums.min(axis=1)).max() / 255
    assert np.abs(got - expected).max() <= len(inner.codewords) * step / 2 + 1e-5 * size
    assert np.corrcoef(got, expected)[0, 1] > 0.995


def _parts(fitted, q):
    """The coordinates of each codebook, padded as its codewords are."""
    books, _, width = fitted.codewords.shape
    if fitted.residual:
        return np.tile(q, (books, 1))
    cuts = [b * len(q) // books for b in range(books + 1)]
    return np.stack([np.pad(q[a:b], (0, width - (b - a))) for a, b in itertools.pairwise(cuts)])


@pytest.mark.parametrize(
    "spec",
    [*SPECS, pytest.param(Product(600, bits=4), marks=pytest.mark.soak), Binary(), Binary("itq"), Binary(None)],
    ids=str,
)
def test_blocks_ranges_and_single_rows_score_alike(simd_target, rng, spec):
    dim = 601 if spec == Product(600, bits=4) else 24  # more groups than one block of lookups has
    vectors = uneven(rng, data(rng, 200, dim))
    fitted = spec.fit(vectors, metric="ip")
    scorer, _ = coded(fitted, vectors)
    query = data(rng, 1, dim)[0]
    rows = rng.permutation(200)[:75]
    singly = [bits(score(scorer, query, [row]))[0] for row in range(200)]
    for n in (2, 3, 4, 5, 31, 32, 33, 75):
        assert bits(score(scorer, query, rows[:n])) == [singly[row] for row in rows[:n]]
    found = scan(scorer, make_rows(200), 200, query[None], 200, metric="ip")
    assert bits(found.distances[0]) == [singly[row] for row in found.ids[0]]
    assert sorted(found.ids[0].tolist()) == list(range(200))


@pytest.mark.parametrize("spec", SPECS[:4] + SPECS[5:], ids=str)
def test_lookups_are_whole_numbers_that_every_target_adds_up_alike(rng, spec):
    """A fixed table: codewords and queries on a grid, whose products are exact."""
    books, residual = spec.levels if isinstance(spec, Residual) else spec.m, isinstance(spec, Residual)
    fitted = spec.fit(data(rng, 50))
    words = np.rint(fitted.codewords * 4).astype(np.float32)
    made = type(fitted)(**{**fitted.__dict__, "codewords": words, "center": np.zeros(24, np.float32)})
    codes = rng.integers(0, 256, (90, fitted.row_bytes), dtype=np.uint8)
    if residual:
        codes = made.encode(np.rint(data(rng, 90) * 4).astype(np.float32))
    query = np.rint(data(rng, 1)[0] * 4).astype(np.float32)
    before, seen = _core.simd_target(), []
    try:
        for target in _core.simd_targets():
            _core.use_simd_target(target)
            seen.append(bits(score(made.scorer(_core.Table.borrow(codes)), query, np.arange(90))))
    finally:
        _core.use_simd_target(before)
    assert len(words) == books
    assert all(other == seen[0] for other in seen)


@pytest.mark.parametrize("metric", FORMS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_stored_to_stored(rng, spec, metric):
    vectors = uneven(rng, data(rng, 200))
    fitted = spec.fit(vectors, metric=metric)
    scorer, codes = coded(fitted, fitted._form(vectors))
    decoded = fitted.decode(codes).astype(np.float64)
    for row in (0, 117):
        true = -(decoded @ decoded[row]) if metric == "ip" else ((decoded - decoded[row]) ** 2).sum(axis=1)
        assert np.corrcoef(between(scorer, row, np.arange(200)), true)[0, 1] > 0.99
        if metric != "ip":
            assert abs(between(scorer, row, [row])[0]) < 0.02 * true.mean()


def test_a_wider_beam_loses_less_and_one_takes_the_nearest_of_each_level(rng):
    vectors = rng.standard_normal((800, 16), dtype=np.float32)
    left = [Residual(6, bits=4, beam=beam).fit(vectors).error(vectors).mean for beam in (1, 2, 8)]
    assert left[0] > left[1] > left[2]
    fitted = Residual(4, bits=4, beam=1).fit(vectors)
    residual = vectors.astype(np.float64) - fitted.center
    for book in fitted.codewords.astype(np.float64):
        nearest = ((residual[:, None] - book) ** 2).sum(axis=2).argmin(axis=1)
        residual -= book[nearest]
    decoded = fitted.decode(fitted.encode(vectors))
    agrees = np.isclose(decoded, vectors - residual, atol=1e-4).all(axis=1)
    assert agrees.mean() > 0.99  # ties to rounding


@pytest.mark.parametrize("dim", [3, 64, 70, 200])
def test_sign_codes_count_bits_that_differ(simd_target, rng, dim):
    vectors, query = data(rng, 90, dim), data(rng, 1, dim)[0]
    fitted = Binary(None).fit(vectors)
    scorer, codes = coded(fitted, vectors)
    assert codes.shape == (90, (dim + 63) // 64 * 8)
    signs, own = vectors > fitted.center, query > fitted.center
    assert score(scorer, query, np.arange(90)).tolist() == (signs != own).sum(axis=1).tolist()
    assert between(scorer, 5, np.arange(90)).tolist() == (signs != signs[5]).sum(axis=1).tolist()
    np.testing.assert_array_equal(fitted.decode(codes) > fitted.center, signs)


def test_makers_refuse_what_does_not_fit():
    table, center, words = _core.Table(4, 0, 4), np.zeros(8, np.float32), np.zeros((4, 256, 2), np.float32)
    good = (8, METRICS.index("l2"), 0.0, 8, False, 1, center, words)
    _core.Additive(table, *good)
    for place, wrong in (
        (0, 0), (0, 9), (0, 40000), (1, METRICS.index("l1")), (3, 4), (3, 7), (4, True), (5, 0), (5, 257),
        (6, center[:7]), (7, words[:3]), (7, words[:, :255].copy()), (7, words[:, :, :1].copy()), (7, words[:0]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"Additive|codes"):
            _core.Additive(table, *good[:place], wrong, *good[place + 1 :])
    bits8 = _core.Table(8, 0, 4)
    _core.Binary(bits8, 8, METRICS.index("l2"), 0.0, center, center)
    for arguments in ((9, 0, 0.0, center, center), (8, 0, 0.0, center[:7], center), (8, 0, 0.0, center, center[:7]),
                      (8, METRICS.index("l1"), 0.0, center, center)):  # fmt: skip
        with pytest.raises(ValueError, match=r"Binary|codes"):
            _core.Binary(bits8, *arguments)
    with pytest.raises(ValueError, match="Binary"):
        _core.Binary(table, 8, 0, 0.0, center, center)
