"""The closest rotation against NumPy's singular values."""

import numpy as np
import pytest

from nearly.transforms.procrustes import closest_rotation, random_rotation


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 130])
def test_a_rotation_is_found_again(rng, dim):
    rows = rng.standard_normal((5000, dim), dtype=np.float32)
    true = random_rotation(dim, 7)
    np.testing.assert_allclose(true @ true.T, np.eye(dim), atol=2e-5)
    images = rows @ true.T
    found = closest_rotation(rows, images, np.eye(dim, dtype=np.float32))
    # The pull towards the identity is a hundredth.
    assert ((rows @ found.T - images) ** 2).mean() < 0.005 * (images**2).mean()
    np.testing.assert_allclose(found @ found.T, np.eye(dim), atol=2e-5)
    assert np.abs(closest_rotation(rows, images, found) - true).max() < 0.02


def test_it_is_the_best_there_is(rng):
    rows = rng.standard_normal((3000, 12), dtype=np.float32)
    images = (np.tanh(rows @ rng.standard_normal((12, 12))) + 0.3 * rng.standard_normal((3000, 12))).astype(np.float32)
    u, _, vt = np.linalg.svd(images.T.astype(np.float64) @ rows)
    least = ((rows @ (u @ vt).T - images) ** 2).sum()
    found = random_rotation(12, 0)
    before = np.inf
    for _ in range(30):  # each turn pulls less, as the rotation before is nearer
        found = closest_rotation(rows, images, found)
        now = ((rows @ found.T - images) ** 2).sum()
        assert now <= before * (1 + 1e-6)
        before = now
    assert now <= least * (1 + 1e-4)


def test_directions_without_spread_stay(rng):
    rows = np.zeros((100, 6), np.float32)
    turned = random_rotation(6, 1)
    np.testing.assert_array_equal(closest_rotation(rows, rows, turned), turned)
    rows[:, :2] = rng.standard_normal((100, 2))
    found = closest_rotation(rows, rows, np.eye(6, dtype=np.float32))
    np.testing.assert_allclose(found, np.eye(6), atol=1e-4)
