"""k-means against NumPy in float64, its promises of bytes, and what it does without enough rows."""

import os
import subprocess
import sys

import numpy as np
import pytest

from nearly import _core
from nearly.errors import InputError
from nearly.kmeans import assign, balanced, kmeans, refine


def squares(rows, centers):
    return ((rows[:, None].astype(np.float64) - centers.astype(np.float64)) ** 2).sum(axis=2)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 8, 16, 33, 100, 300])
@pytest.mark.parametrize("k", [1, 7, 16, 31, 256])
def test_the_nearest_center_is_found(simd_target, rng, dim, k):
    rows = rng.standard_normal((101, dim), dtype=np.float32)
    centers = rng.standard_normal((k, dim), dtype=np.float32)
    labels, distances = np.empty(101, np.uint32), np.empty(101, np.float32)
    _core.nearest_centers(rows, centers, labels, distances, 1)
    assert _core.simd_target() == simd_target
    exact = squares(rows, centers)
    np.testing.assert_allclose(distances, exact.min(axis=1), rtol=1e-4, atol=1e-5 * dim)
    np.testing.assert_allclose(exact[np.arange(101), labels], exact.min(axis=1), rtol=1e-4, atol=1e-5 * dim)


def test_of_equal_centers_the_first_is_taken(simd_target, rng):
    centers = np.tile(rng.standard_normal((5, 6), dtype=np.float32), (9, 1))
    rows = np.repeat(centers[:5], 3, axis=0)
    assert assign(rows, centers).tolist() == np.repeat(np.arange(5), 3).tolist()


def test_each_center_is_the_mean_of_its_rows(rng):
    rows = rng.standard_normal((3000, 5), dtype=np.float32) + 1000
    centers = kmeans(rows, 12, seed=3, iterations=200)
    labels = assign(rows, centers)
    means = np.stack([rows[labels == c].astype(np.float64).mean(axis=0) for c in range(12)])
    np.testing.assert_allclose(centers, means, atol=2e-3)  # half an ulp of 1000 is 3e-5


def test_more_rounds_and_centers_leave_less(rng):
    rows = rng.standard_normal((4000, 8), dtype=np.float32)
    left = [squares(rows, kmeans(rows, k, iterations=i)).min(axis=1).mean() for k, i in ((8, 0), (8, 10), (64, 10))]
    assert left[0] > left[1] > left[2]
    centers = kmeans(rows, 16, iterations=1)
    after = refine(rows, centers, iterations=4)
    assert squares(rows, after).min(axis=1).mean() < squares(rows, centers).min(axis=1).mean()


def test_planted_clusters_are_found_where_there_are_centers_to_spare(rng):
    planted = rng.standard_normal((20, 16), dtype=np.float32) * 20
    rows = np.repeat(planted, 50, axis=0) + rng.standard_normal((1000, 16), dtype=np.float32)
    spread = [squares(rows, kmeans(rows, 150, seed=seed)).min(axis=1).mean() for seed in range(5)]
    assert max(spread) < 17


def test_centers_without_rows_begin_anew(rng):
    rows = rng.standard_normal((500, 3), dtype=np.float32)
    centers = np.concatenate([np.zeros((1, 3)), np.full((7, 3), 1e4)]).astype(np.float32)
    labels = assign(rows, refine(rows, centers, iterations=10))
    assert len(set(labels.tolist())) == 8


def test_fewer_rows_than_centers():
    rows = np.eye(3, dtype=np.float32)
    centers = kmeans(rows, 8, seed=1)
    assert centers.shape == (8, 3)
    assert np.isfinite(centers).all()
    np.testing.assert_allclose(squares(rows, centers).min(axis=1), 0, atol=1e-12)
    same = kmeans(np.ones((50, 2), np.float32), 4)
    np.testing.assert_array_equal(same, np.ones((4, 2)))
    for wrong in (lambda: kmeans(rows, 0), lambda: kmeans(rows[:0], 2)):
        with pytest.raises(InputError):
            wrong()


SCRIPT = """
import hashlib, numpy as np
from nearly.kmeans import assign, kmeans
rows = np.random.default_rng(0).standard_normal((3000, 70), dtype=np.float32)
centers = kmeans(rows, 50, seed=5, iterations=6, threads={threads})
print(hashlib.sha256(centers.tobytes() + assign(rows, centers, threads={threads}).tobytes()).hexdigest())
"""


def test_the_same_bytes_for_any_threads_and_blas():
    made = set()
    for threads in (1, 2, 3):
        env = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "NEARLY_SIMD": "baseline"}
        command = [sys.executable, "-c", SCRIPT.format(threads=threads)]
        made.add(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
    assert len(made) == 1
    rows = np.random.default_rng(0).standard_normal((3000, 70), dtype=np.float32)
    assert kmeans(rows, 50, seed=5, threads=1).tobytes() != kmeans(rows, 50, seed=6, threads=1).tobytes()


def test_balanced_centers_are_about_as_near_as_those_of_all_rounds_and_no_cluster_is_large(rng):
    centers = rng.standard_normal((40, 12)) * 2
    rows = (centers[rng.integers(40, size=6000)] + rng.standard_normal((6000, 12))).astype(np.float32)
    made, plain = balanced(rows, 90, seed=3), kmeans(rows, 90, seed=3)
    assert made.shape == (90, 12)
    assert squares(rows, made).min(axis=1).mean() < 1.05 * squares(rows, plain).min(axis=1).mean()
    sizes = np.bincount(assign(rows, made), minlength=90)
    assert sizes.max() < 3 * sizes.mean()
    assert made.tobytes() == balanced(rows, 90, seed=3, threads=3).tobytes()
    assert made.tobytes() != balanced(rows, 90, seed=4).tobytes()


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 9), (5, 9), (50, 2), (300, 100)])
def test_balanced_gives_as_many_centers_as_asked_for(rng, n, k):
    rows = rng.standard_normal((n, 3), dtype=np.float32)
    made = balanced(rows, k)
    assert made.shape == (k, 3)
    assert np.isfinite(made).all()
    with pytest.raises(InputError):
        balanced(rows, 0)
