"""Transforms: what they keep, how chains fold, codes after them, their state, and states that were tampered with."""

import dataclasses

import numpy as np
import pytest

import nearly
from nearly import Chain, Matryoshka, Pca, RaBitQ, Rotation, Scalar, Transformed, _core
from nearly.quantizers import from_state
from nearly.transforms import TRANSFORMS, FittedTransform

METRICS = ["l2", "cosine", "ip"]
WHOLE = [Pca(), Rotation(), Rotation("orthogonal"), Chain(Pca(), Rotation()), Chain(Rotation("orthogonal"), Pca())]
PARTIAL = [Pca(12), Matryoshka(20), Chain(Matryoshka(30), Pca(12), Rotation("orthogonal")), Chain(Pca(12), Rotation())]
WHITE = [Pca(12, whiten=True), Chain(Pca(12, whiten=True), Rotation())]


@pytest.fixture
def vectors(rng):
    """Return vectors whose spread falls from coordinate to coordinate, about a mean that is not 0."""
    return ((rng.standard_normal((800, 40)) * 0.9 ** np.arange(40)) @ near_identity(rng) + 0.5).astype(np.float32)


def near_identity(rng):
    return np.linalg.qr(np.eye(40) + 0.1 * rng.standard_normal((40, 40)))[0]


def in_form(vectors, metric):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors


def test_the_table_names_all():
    assert {"pca": Pca, "rotation": Rotation, "matryoshka": Matryoshka, "chain": Chain} == TRANSFORMS


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("transform", WHOLE, ids=str)
def test_whole_maps_keep_distances_and_are_undone(transform, metric, vectors):
    fitted = transform.fit(vectors, metric=metric, seed=2)
    images, form = fitted.apply(vectors), in_form(vectors, metric)
    assert fitted.orthonormal
    assert not fitted.leaves_out
    assert images.shape == (800, fitted.dims)
    expected = ((form[:50, None] - form[None, :50]) ** 2).sum(2)
    np.testing.assert_allclose(((images[:50, None] - images[None, :50]) ** 2).sum(2), expected, atol=1e-3)
    np.testing.assert_allclose(fitted.restore(images), form, atol=1e-4)


@pytest.mark.parametrize("transform", [*WHOLE, *PARTIAL, *WHITE], ids=str)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_states_bring_transforms_back_and_seeds_repeat(transform, metric, vectors):
    fitted, again = (transform.fit(vectors, metric=metric, seed=5) for _ in range(2))
    arrays, config = fitted.state()
    assert {n: a.tobytes() for n, a in arrays.items()} == {n: a.tobytes() for n, a in again.state()[0].items()}
    loaded = FittedTransform.from_state(arrays, config)
    assert loaded.apply(vectors).tobytes() == fitted.apply(vectors).tobytes()
    assert fitted.apply(vectors[7:8]).tobytes() == fitted.apply(vectors)[7:8].tobytes()  # an image is its vector's own


def test_pca_is_that_of_numpy(vectors):
    fitted = Pca(5).fit(vectors)
    centered = vectors - vectors.mean(0)
    _, singular, axes = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    images = fitted.apply(vectors)
    np.testing.assert_allclose(np.abs(images), np.abs(centered @ axes[:5].T), atol=0.02 * np.abs(images).max())
    np.testing.assert_allclose(fitted.center, vectors.mean(0), atol=1e-5)
    white = Pca(5, whiten=True).fit(vectors).apply(vectors)
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(5), atol=0.02)
    np.testing.assert_allclose((images**2).sum(0), singular[:5] ** 2, rtol=1e-3)


def test_matryoshka_renormalizes_under_cosine_only(vectors):
    np.testing.assert_array_equal(Matryoshka(7).fit(vectors).apply(vectors), vectors[:, :7])
    np.testing.assert_array_equal(Matryoshka(7).fit(vectors, metric="ip").apply(vectors), vectors[:, :7])
    images = Matryoshka(7).fit(vectors, metric="cosine").apply(vectors)
    np.testing.assert_allclose(images, in_form(vectors[:, :7], "cosine"), atol=1e-6)
    assert not Matryoshka(2).fit(vectors, metric="cosine").apply(np.eye(40, dtype=np.float32)[3:4]).any()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(
    ("chain", "kinds"),
    [
        (Chain(Pca(12), Rotation()), ["affine"]),
        (Chain(Pca(30), Matryoshka(8)), ["affine"]),
        (Chain(Matryoshka(30), Matryoshka(9)), ["leading"]),
        (Chain(Pca(30), Rotation("orthogonal"), Rotation()), ["affine"]),
        (Chain(Rotation("orthogonal"), Pca(7)), ["affine"]),
        (Chain(Matryoshka(30), Rotation()), ["leading", "rotation"]),
    ],
    ids=str,
)
def test_chains_fold_into_one_matrix(chain, kinds, metric, vectors):
    fitted, images = chain.fit(vectors, metric=metric, seed=3), vectors
    assert [part.kind for part in fitted.parts] == kinds
    one_by_one = []
    for transform in chain.transforms:
        one_by_one.append(transform.fit(images, metric=metric, seed=3))
        images = one_by_one[-1].apply(images)
    np.testing.assert_allclose(fitted.apply(vectors), images, atol=2e-3)
    back = images
    for part in reversed(one_by_one):
        back = part.restore(back)
    np.testing.assert_allclose(fitted.restore(images), back, atol=2e-3)


def scored(fitted, vectors, query):
    table = _core.Table(fitted.row_bytes, len(vectors), len(vectors))
    scorer = fitted.scorer(table)
    scorer.encode(0, np.ascontiguousarray(vectors))
    out = np.empty(len(vectors), np.float32)
    rows = np.arange(len(vectors), dtype=np.uint32)
    scorer.score(query.nbytes, query.view(np.uint8), rows, out)
    among = np.empty(len(vectors), np.float32)
    scorer.between(7, rows, among)
    return out, among


@pytest.mark.parametrize("code", [Scalar(), Scalar(8, "vector"), RaBitQ(8)], ids=str)
@pytest.mark.parametrize("transform", [*WHOLE, *PARTIAL], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_codes_after_a_transform_tell_the_distances_of_vectors(transform, code, metric, vectors, rng):
    uneven = rng.uniform(0.2, 3, (800, 1)).astype(np.float32)  # products are compared as they are then
    vectors = vectors * uneven if metric == "ip" else vectors
    fitted = Transformed(transform, code).fit(vectors, metric=metric)
    form = in_form(vectors, metric)
    out, among = scored(fitted, form, vectors[3])
    whole = not fitted.transform.leaves_out
    for got, query in ((out, form[3]), (among, form[7])):
        true = -form @ query if metric == "ip" else ((form - query) ** 2).sum(1)
        if whole:
            np.testing.assert_allclose(got, true, atol=0.03 * np.abs(true).max())
        elif not (transform.by_coordinate and metric != "l2"):  # coordinates left out are none of the distance then
            assert np.corrcoef(got, true)[0, 1] > 0.9
            far = np.abs(true) > np.quantile(np.abs(true), 0.5)  # what a vector leaves out counts once for both
            assert abs((got - true)[far].mean()) < 0.5 * np.abs(true).mean()
    restored, left = fitted.decode(fitted.encode(vectors)), fitted.transform.restore(fitted.transform.apply(vectors))
    if fitted.norm_bound == 0:
        np.testing.assert_allclose(restored, left, atol=0.03 * np.abs(vectors).max())


def test_products_after_centering_are_corrected(vectors, rng):
    vectors = (vectors + 5) * rng.uniform(0.2, 3, (800, 1)).astype(np.float32)  # the mean is most of a vector
    fitted = Transformed(Pca(39), RaBitQ(8)).fit(vectors, metric="ip")
    out, among = scored(fitted, vectors, vectors[3])
    for got, row in ((out, 3), (among, 7)):
        true = -vectors.astype(np.float64) @ vectors[row]
        np.testing.assert_allclose(got, true, atol=0.01 * np.abs(true).max())


@pytest.mark.parametrize("metric", METRICS)
def test_hostile_states_are_refused(metric, vectors):
    spec = Transformed(Chain(Matryoshka(30), Pca(12), Rotation()), Scalar())
    arrays, config = spec.fit(vectors, metric=metric).state()
    assert (
        from_state(arrays, config).encode(vectors).tobytes()
        == spec.fit(vectors, metric=metric).encode(vectors).tobytes()
    )
    for name in arrays:
        if name.startswith("code_matrix") or name.startswith("code_mean") or name.startswith("code_offset"):
            continue  # empty here
        for wrong in (arrays[name][:-1], np.full(arrays[name].shape, np.nan), np.array("x")):
            with pytest.raises(nearly.FormatError):
                from_state({**arrays, name: wrong}, config)
        with pytest.raises(nearly.FormatError):
            from_state({n: a for n, a in arrays.items() if n != name}, config)
    steps = config["transform"]["steps"]
    for changed in (
        {"dim": 41}, {"metric": "l1"}, {"norm_bound": -1}, {"norm_bound": "x"}, {"code": {}}, {"code": None},
        {"code": config}, {"transform": None}, {"transform": {**config["transform"], "dim": 0}},
        {"transform": {**config["transform"], "metric": "l1"}},
        {"transform": {**config["transform"], "steps": steps[1:]}},
        {"transform": {**config["transform"], "steps": [*steps, {"kind": "leading", "n": 65}]}},
        {"transform": {**config["transform"], "steps": [{"kind": "twist"}]}},
        {"transform": {**config["transform"], "steps": [5]}}, {"transform": {**config["transform"], "steps": "x"}},
        {"transform": {**config["transform"], "steps": [{"kind": "leading", "n": 0}, *steps]}},
        {"transform": {**config["transform"], "steps": [{"kind": "unit"}] * 65}},
    ):  # fmt: skip
        with pytest.raises(nearly.FormatError):
            from_state(arrays, {**config, **changed})


def test_specifications_are_values():
    assert repr(Chain(Pca(3), Rotation())) == "Chain(Pca(dims=3, whiten=False), Rotation(kind='hadamard'))"
    assert Chain(Pca(3)) == Chain(Pca(3)) != Chain(Pca(4))
    assert len({Pca(), Pca(3), Rotation(), Matryoshka(3), Chain(Pca()), Transformed(), Transformed(Pca(3))}) == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        Pca().dims = 3


@pytest.mark.parametrize(
    "make",
    [
        lambda x: Pca(0), lambda x: Pca(whiten=1), lambda x: Pca(41).fit(x),
        lambda x: Pca(whiten=True).fit(x, metric="ip"),
        lambda x: Rotation("spin"), lambda x: Matryoshka(0), lambda x: Matryoshka(41).fit(x), lambda x: Chain(),
        lambda x: Chain(Scalar()), lambda x: Chain(Pca), lambda x: Pca().fit(x[:0]),
        lambda x: Pca().fit(x, metric="l1"),
        lambda x: Pca().fit(x).apply(x[:, :3]), lambda x: Transformed("pca"), lambda x: Transformed(Pca(), Pca()),
        lambda x: Transformed(Pca(), nearly.Plain()), lambda x: Transformed(Pca(), nearly.Reduced()),
        lambda x: Transformed(Pca(), Transformed()), lambda x: Transformed(Pca(), RaBitQ), lambda x: Transformed(Pca),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, vectors):
    with pytest.raises(nearly.InputError):
        make(vectors)


def test_axes_of_vectors_that_differ_in_one_direction_are_numbers():
    vectors = np.zeros((50, 200), np.float32)
    vectors[7] = 1  # each step of the decomposition leaves less of a matrix of rank one, until its squares underflow
    fitted = Pca().fit(vectors)
    assert np.isfinite(fitted.apply(vectors)).all()
    np.testing.assert_allclose(fitted.restore(fitted.apply(vectors)), vectors, atol=1e-4)
