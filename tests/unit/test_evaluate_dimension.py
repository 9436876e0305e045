"""Intrinsic dimension: data of known dimension, invariances, and data that has none."""

import math

import numpy as np
import pytest

from nearly.errors import InputError
from nearly.evaluate import (
    ESTIMATORS,
    intrinsic_dimension,
    lid,
    local_radii,
    mean_lid,
    mle_dimension,
    two_nn,
)


def gaussian(dim, *, n=20_000, columns=128, seed=0):
    """Gaussian points of a linear subspace of dimension ``dim``."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((columns, dim)))[0]
    return rng.standard_normal((n, dim)) @ basis.T


@pytest.fixture(scope="module")
def radii():
    return {dim: local_radii(gaussian(dim, columns=32), k=100, sample=150) for dim in (2, 4, 8, 16, 32)}


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_lid_of_a_subspace(dim, radii):
    assert mean_lid(radii[dim]) == pytest.approx(dim, rel=0.15)


@pytest.mark.parametrize("dim", [16, 32])
def test_lid_underestimates_many_dimensions(dim, radii):
    assert dim / 2 < mean_lid(radii[dim]) < dim


def test_all_estimators_rise_with_the_dimension(radii):
    for estimate in ESTIMATORS.values():
        values = [estimate(radii[dim]) for dim in sorted(radii)]
        assert values == sorted(values)
        assert values[0] == pytest.approx(2, rel=0.15)


def test_lid_of_exact_radii():
    # Radii r_i = (i / k)^(1/d) are those of a uniform ball: the mean of -ln is (1/d) * ln(k^k / k!) / k.
    k, dim = 100, 5
    uniform = (np.arange(1, k + 1) / k) ** (1 / dim)
    expected = dim / (math.log(k) - math.lgamma(k + 1) / k)
    assert lid(uniform[None]).item() == pytest.approx(expected, rel=1e-12)
    assert mle_dimension(uniform[None]) == pytest.approx(expected * (k - 1) / k, rel=1e-12)


def test_squared_distances_give_exactly_half(radii):
    np.testing.assert_allclose(lid(radii[8] ** 2), lid(radii[8]) / 2, rtol=1e-12)
    assert mle_dimension(radii[8] ** 2) == pytest.approx(mle_dimension(radii[8]) / 2, rel=1e-12)
    assert two_nn(radii[8] ** 2) == pytest.approx(two_nn(radii[8]) / 2, rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_scaling_rotation_and_zero_padding_change_nothing(estimator):
    vectors = gaussian(3, n=800, columns=12)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0]

    def estimate(changed):
        return intrinsic_dimension(changed, estimator=estimator, k=20, sample=None)

    expected = estimate(vectors)
    assert expected == pytest.approx(3, rel=0.2)
    for changed in (vectors * 1000, vectors / 7, vectors @ rotation, np.pad(vectors, ((0, 0), (0, 20)))):
        assert estimate(changed) == pytest.approx(expected, rel=1e-6)


def test_cosine_uses_the_chord():
    # Directions of a 4-dimensional subspace are a sphere of dimension 3; 1 - cos alone would give half.
    assert intrinsic_dimension(gaussian(4), metric="cosine", sample=200) == pytest.approx(3, rel=0.15)


def test_other_metrics():
    vectors = gaussian(2, n=2000, columns=8)
    assert intrinsic_dimension(vectors, metric="l1", k=30) == pytest.approx(2, rel=0.2)
    bits = np.packbits(vectors @ np.random.default_rng(2).standard_normal((8, 256)) > 0, axis=1)
    assert 0 < intrinsic_dimension(bits, metric="hamming", k=30) < 256


def test_duplicates_do_not_count():
    vectors = gaussian(2, n=500, columns=4)
    many = np.concatenate([vectors, vectors[:300], vectors[:300]])
    for estimator in ESTIMATORS:
        once, thrice = (intrinsic_dimension(v, estimator=estimator, k=20, sample=None) for v in (vectors, many))
        assert thrice == pytest.approx(once, rel=1e-9)
    assert local_radii(many, k=5, sample=None).shape == (500, 5)
    assert (local_radii(many, k=5, sample=None) > 0).all()
    assert local_radii([[0.0], [-0.0], [1.0]], k=5).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("vectors", [np.empty((0, 3)), np.ones((1, 3)), np.eye(3)[:2], np.ones((50, 3))])
def test_too_few_distinct_vectors_have_no_dimension(estimator, vectors):
    assert intrinsic_dimension(vectors, estimator=estimator) == 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_radii_have_the_largest_dimension(estimator):
    assert intrinsic_dimension(np.eye(30), estimator=estimator) == 30
    assert ESTIMATORS[estimator](np.ones((5, 4)), cap=7) == 7
    assert ESTIMATORS[estimator](np.ones((5, 4))) == math.inf
    rounded = 1 + np.array([[0, 1, 2, 3]] * 5) * np.finfo(float).eps  # equal but for rounding
    assert ESTIMATORS[estimator](rounded, cap=7) == 7


def test_lid_drops_zeros_and_missing_neighbors():
    full = lid([[1.0, 2.0, 4.0]]).item()
    assert lid([[0.0, 0.0, 1.0, 2.0, 4.0, math.inf]]).item() == pytest.approx(full)
    assert lid([[4.0, 0.0, 1.0, 2.0]]).item() == pytest.approx(full)  # in any order
    assert lid([[0.0, 0.0], [0.0, 1.0], [math.inf, 1.0]]).tolist() == [0, 0, 0]
    assert lid(np.empty((2, 0))).tolist() == [0, 0]
    assert lid(np.empty((0, 5))).tolist() == []
    assert mean_lid(np.empty((0, 5))) == mle_dimension(np.empty((0, 5))) == two_nn(np.empty((0, 5))) == 0
    assert two_nn([[1.0]] * 9) == two_nn([[1.0, 2.0]]) == 0


def test_sample_is_seeded():
    vectors = gaussian(3, n=400, columns=6)
    first, again, other = (local_radii(vectors, k=4, sample=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == other.shape == (50, 4)
    assert (first != other).any()


def test_zero_vectors_have_no_direction():
    vectors = np.concatenate([np.zeros((3, 4)), gaussian(2, n=200, columns=4)])
    assert local_radii(vectors, k=5, metric="cosine", sample=None).shape == (200, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lid([1.0, 2.0]), "shape"),
        (lambda: lid([[-1.0]]), "negative"),
        (lambda: lid([[math.nan]]), "NaN"),
        (lambda: two_nn(np.eye(3) - 0.5), r"local_radii\(vectors\); intrinsic_dimension"),
        (lambda: mean_lid(np.zeros(3)), r"intrinsic_dimension\(vectors"),
        (lambda: lid([[1.0]], cap=0), "cap"),
        (lambda: two_nn([[1.0, 2.0]], discard=1), "discard"),
        (lambda: local_radii(np.eye(3), metric="ip"), "ip"),
        (lambda: local_radii(np.eye(3), k=0), "k is 0"),
        (lambda: local_radii(np.eye(3), sample=0), "sample is 0"),
        (lambda: intrinsic_dimension(np.eye(3), estimator="pca"), "lid, mle, two_nn"),
    ],
)
def test_bad_arguments_say_what_is_wanted(call, message):
    with pytest.raises(InputError, match=message):
        call()
