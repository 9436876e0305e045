"""Codes that stand alone (``refine=None``): what they reach is measured, kept as promise, and refused beyond."""

import numpy as np
import pytest

import nearly
from nearly import evaluate, storage
from nearly.errors import FormatError, IdError, InputError

DIM = 32


def points(n, seed=0):
    """Return points of falling variance in clouds."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(5).standard_normal((20, DIM)) * 2
    spread = 0.93 ** np.arange(DIM)
    return ((centers[rng.integers(20, size=n)] + rng.standard_normal((n, DIM))) * spread + 0.2).astype(np.float32)


def shares(vectors, queries, hits, metric):
    _, truth = evaluate.exact(vectors, queries, hits.ids.shape[1], metric=metric)
    some = vectors[hits.ids].astype(np.float64)
    if metric == "l2":
        distances = np.sqrt(((some - queries[:, None]) ** 2).sum(2))
    else:
        distances = -(some @ queries[:, :, None].astype(np.float64))[:, :, 0]
        if metric == "cosine":
            distances = 1 + distances / np.linalg.norm(some, axis=2) / np.linalg.norm(queries, axis=1)[:, None]
    return float((distances <= truth[:, -1:] + 1e-6).mean()), distances


@pytest.fixture(scope="module")
def index():
    return nearly.IVF(points(4000), refine=None, lists=60, recall=0.8)


@pytest.mark.parametrize(
    ("quantizer", "metric"),
    [
        pytest.param(made, metric, id=f"{name}-{metric}", marks=[] if metric in fast else [pytest.mark.soak])
        for name, made, fast in (
            ("saq", None, ("l2", "cosine", "ip")),
            ("rabitq", nearly.RaBitQ(6), ("ip",)),
            ("product", nearly.Product(16), ("cosine",)),
        )
        for metric in ("l2", "cosine", "ip")
    ],
)
def test_what_codes_reach_is_delivered_and_more_is_refused(metric, quantizer):
    vectors, queries = points(2500), points(300, seed=1)
    index = nearly.IVF(vectors, metric=metric, refine=None, quantizer=quantizer, recall=0.7)
    reached = index._contract.reached(10)
    everything = index.search(queries, effort=10_000)
    share, distances = shares(vectors, queries, everything, metric)
    assert abs(share - reached) < 0.04
    assert everything.expected_recall == pytest.approx(reached, abs=0.01)
    error = np.abs(everything.distances - distances).mean()
    assert error < 0.1 * np.abs(distances).mean()  # their unit is that of distances
    target = round(0.9 * reached, 2)
    hits = index.search(queries, recall=target)
    assert shares(vectors, queries, hits, metric)[0] >= target - 0.03
    assert hits.expected_recall >= target - 1e-6
    with pytest.raises(InputError, match=rf"beyond .* alone, which reach {reached:.3f}"):
        index.search(queries, recall=min(1.0, reached + 0.01))
    assert f"alone, which find {reached:.3f}" in index.plan


def test_no_vectors_are_kept(index):
    plain = nearly.IVF(points(4000), lists=60, calibrate=False, quantizer=nearly.Plain())
    row = index._store.fitted.row_bytes
    assert plain.n_bytes - index.n_bytes >= 4000 * (DIM * 4 - row) - 2000
    assert row == 64
    found = index.get([3, 70])
    assert found.shape == (2, DIM)
    assert 0 < np.abs(found - points(4000)[[3, 70]]).max() < 1.0
    for refused in (lambda: index.search(points(2), exact=True), lambda: index.range_search(points(2), 1.0)):
        with pytest.raises(InputError, match="codes alone"):
            refused()


def test_it_changes_and_is_saved_like_every_index(index, tmp_path):
    vectors = points(5000)
    index.save(tmp_path / "a")
    back = nearly.load(tmp_path / "a")
    queries = points(50, seed=6)
    for options in ({"effort": 5}, {"recall": 0.8}, {}):
        assert back.search(queries, **options).ids.tolist() == index.search(queries, **options).ids.tolist()
    assert back.plan == index.plan
    back.verify()
    back.add(vectors[4000:])
    assert (back.search(vectors[4000:4100], k=1, effort=60).ids[:, 0] == np.arange(4000, 4100)).mean() > 0.9
    back.remove(np.arange(4000))
    assert len(back) == 1000
    assert (back.search(queries, effort=60).ids >= 4000).all()
    back.upsert(vectors[:3], ids=[4000, 4001, 4002])
    near = back.search(vectors[:3], k=1, effort=60)
    assert near.ids[:, 0].tolist() == [4000, 4001, 4002]
    back.verify()
    back.save(tmp_path / "a")
    again = nearly.load(tmp_path / "a")
    assert again.search(queries, effort=9).ids.tolist() == back.search(queries, effort=9).ids.tolist()
    with pytest.raises(IdError):
        again.get(0)
    again.remove(again.ids)
    assert again.search(queries, effort=5).counts.tolist() == [0] * 50
    again.add(vectors[:10])
    assert len(again) == 10
    again.remove(again.ids)
    with pytest.raises(InputError, match="33 columns"):
        again.add(np.zeros((3, DIM + 1), np.float32))


def test_filters_pass_over_codes_too(index):
    mask = np.random.default_rng(0).random(4000) < 0.3
    vectors, queries = points(4000), points(100, seed=7)
    hits = index.search(queries, where=mask)
    assert mask[hits.ids].all()
    allowed = np.flatnonzero(mask)
    _, truth = evaluate.exact(vectors[allowed], queries, 10, metric="l2")
    distances = np.sqrt(((vectors[hits.ids].astype(np.float64) - queries[:, None]) ** 2).sum(2))
    assert (distances <= truth[:, -1:] + 1e-6).mean() >= 0.79


def test_few_vectors_are_scanned_by_their_codes():
    small = nearly.IVF(points(100), refine=None, recall=0.5)
    hits = small.search(points(5, seed=2), k=3)
    assert "scan of codes" in hits.plan
    assert hits.expected_recall < 1.0
    with pytest.raises(InputError, match="beyond"):
        small.search(points(5), k=3, recall=1.0)


def test_codes_are_measured_on_the_users_queries():
    queries = points(600, seed=3) * 1.5
    index = nearly.IVF(points(3000), refine=None, recall=0.6, queries=queries[::2])
    share, _ = shares(points(3000), queries[1::2], index.search(queries[1::2], effort=10_000), "l2")
    assert abs(index._contract.reached(10) - share) < 0.04


def test_what_cannot_stand_alone_is_refused():
    with pytest.raises(InputError, match="hamming"):
        nearly.IVF(np.zeros((9, 4), np.uint8), metric="hamming", refine=None)
    with pytest.raises(InputError, match="Plain"):
        nearly.IVF(points(9), refine=None, quantizer=nearly.Plain())
    with pytest.raises(InputError, match="pass some"):
        nearly.IVF(points(0), refine=None)


def test_same_arguments_give_the_same_bytes(tmp_path):
    for name, threads in (("a", 1), ("b", 2)):
        nearly.IVF(points(1200), refine=None, threads=threads, recall=0.7).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("damage", ["alone", "told", "vectors"])
def test_damaged_files_are_refused(index, tmp_path, damage):
    index.save(tmp_path / "a")
    file = storage.read(tmp_path / "a")
    parts, config = {name: np.array(a) for name, a in file.arrays.items()}, dict(file.config)
    if damage == "alone":
        del config["alone"]
    elif damage == "told":
        config["ivf"] = {**config["ivf"], "told": [[10, 1.5]]}
    else:
        parts["vectors"] = parts["vectors"][:, :-1].copy()
    storage.write(tmp_path / "b", parts, config, kind=file.kind)
    with pytest.raises(FormatError):
        nearly.load(tmp_path / "b")
