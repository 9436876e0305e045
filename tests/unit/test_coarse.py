"""Lists whose centers have fewer dimensions than vectors: what is found, what is kept, and what is refused."""

import numpy as np
import pytest

import nearly
from nearly import evaluate, storage
from nearly.errors import FormatError, InputError
from nearly.indexes import lists
from nearly.transforms.base import fit_rows

DIM = 24
METRICS = ["l2", "cosine", "ip"]
TRANSFORMS = [nearly.Matryoshka(8), nearly.Pca(8), nearly.Chain(nearly.Matryoshka(20), nearly.Pca(6))]
QUANTIZERS = [None, nearly.RaBitQ(4), nearly.Plain()]


def embeddings(n, *, seed=0):
    """Return clouds whose leading coordinates tell most, as those of Matryoshka embeddings do."""
    rng = np.random.default_rng(seed)
    scale = 0.85 ** np.arange(DIM)
    centers = np.random.default_rng(9).standard_normal((40, DIM)) * scale * 3
    return (centers[rng.integers(40, size=n)] + rng.standard_normal((n, DIM)) * scale).astype(np.float32)


VECTORS, QUERIES = embeddings(3000), embeddings(150, seed=5)


def made(**options):
    return nearly.IVF(VECTORS, **{"lists": 60, "seed": 1, "coarse": nearly.Pca(8), **options})


@pytest.fixture(scope="module")
def index():
    return made()


def arrays_of(index, path):
    index.save(path)
    return {name: np.array(a) for name, a in storage.read(path).arrays.items()}


def test_lists_of_full_width_are_those_without_a_transform():
    index = made(coarse=None, calibrate=False)
    nodes = np.arange(3000, dtype=np.uint32)
    whole = fit_rows(nearly.Matryoshka(DIM), VECTORS, metric="l2", seed=0)
    plain, labels = lists.cluster(index._store, nodes, 60, seed=1, threads=1)
    coarse, same = lists.cluster(index._store, nodes, 60, coarse=whole, with_means=True, seed=1, threads=1)
    assert (plain.rows == coarse.rows).all()
    assert (labels == same).all()
    assert coarse.means.shape == plain.rows.shape


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
@pytest.mark.parametrize("coarse", TRANSFORMS, ids=str)
def test_the_contract_holds_and_files_and_threads_change_nothing(metric, quantizer, coarse, tmp_path):
    index = made(metric=metric, quantizer=quantizer, coarse=coarse, threads=1)
    assert index._lists.centers.rows.shape == (60, 6 if isinstance(coarse, nearly.Chain) else 8)
    assert f"60 lists by {index._lists.centers.rows.shape[1]} of 24 dimensions" in repr(index)
    _, truth = evaluate.exact(VECTORS, QUERIES, 10, metric=metric)
    hits = index.search(QUERIES, k=10)
    assert (hits.distances <= truth[:, -1:] + 1e-5 * np.abs(truth[:, -1:])).mean() >= 0.93
    assert hits.stats.n_hops < 60 * len(QUERIES)
    same = made(metric=metric, quantizer=quantizer, coarse=coarse, threads=3)
    ours, theirs = arrays_of(index, tmp_path / "a"), arrays_of(same, tmp_path / "b")
    assert {name: a.tobytes() for name, a in ours.items()} == {name: a.tobytes() for name, a in theirs.items()}
    loaded = nearly.load(tmp_path / "a", verify=True)
    again = loaded.search(QUERIES, k=10)
    assert (again.ids == hits.ids).all()
    assert (again.distances == hits.distances).all()
    assert repr(loaded) == repr(index)


@pytest.mark.parametrize("metric", METRICS)
def test_all_lists_give_the_exact_answer_without_codes(metric):
    index = made(metric=metric, quantizer=nearly.Plain(), calibrate=False)
    exact = index.search(QUERIES, k=10, exact=True)
    assert (index.search(QUERIES, k=10, effort=60).ids == exact.ids).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_vector_is_in_the_list_of_the_nearest_center_of_its_image(metric):
    index = made(metric=metric, calibrate=False)
    centers = index._lists.centers
    images = centers.coarse.apply(VECTORS).astype(np.float64)
    distances = ((images[:, None] - centers.rows) ** 2).sum(2)
    assert (index._lists.labels(3000) == distances.argmin(1)).mean() > 0.999


def test_residuals_are_to_the_means_of_lists_which_leaves_less_than_their_centers_do(index):
    centers, labels = index._lists.centers, index._lists.labels(3000)
    for label in range(60):
        np.testing.assert_allclose(centers.means[label], VECTORS[labels == label].mean(0), rtol=1e-4, atol=1e-5)
    to_means = ((VECTORS - centers.means[labels]) ** 2).sum()
    assert to_means < 0.9 * ((VECTORS - centers.coarse.restore(centers.rows)[labels]) ** 2).sum()
    assert made(quantizer=nearly.RaBitQ(4), calibrate=False)._lists.centers.means is None  # no residuals


def test_codes_lose_little_beside_those_of_lists_in_full_width(index):
    full = made(coarse=None)
    assert abs(index.curve.kept[0] - full.curve.kept[0]) < 0.03
    assert index._codes.fitted.row_bytes == full._codes.fitted.row_bytes


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
def test_changes_are_found_and_what_is_removed_is_not(quantizer, tmp_path):
    index = made(quantizer=quantizer)
    fresh = embeddings(400, seed=8)
    ids = index.add(fresh)
    index.remove(np.arange(0, 900))
    index.upsert(embeddings(1, seed=11) + 40, ids=[1000])
    index.consolidate()
    assert index._lists.centers.coarse is not None
    hits = index.search(fresh[:100], k=1)
    assert (hits.ids[:, 0] == ids[:100]).mean() > 0.97
    assert not np.isin(index.search(VECTORS[:100], k=5).ids, np.arange(900)).any()
    assert index.search(embeddings(1, seed=11)[0] + 40, k=1).ids[0] == 1000
    index.verify()
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a")
    loaded.add(fresh[:50] + 0.01)
    loaded.verify()
    assert len(loaded) == len(index) + 50


def test_lists_made_anew_have_a_transform_fitted_anew(tmp_path):
    index = nearly.IVF(VECTORS[:500], coarse=nearly.Pca(8), seed=1)
    index.save(tmp_path / "a")
    index = nearly.load(tmp_path / "a")
    before = index._lists.centers.coarse
    index.add(VECTORS[500:] + 5)
    assert index._clustered == 3000
    assert np.abs(index._lists.centers.coarse.center - before.center).max() > 1


@pytest.mark.parametrize("spill", ["soar", "closure"])
def test_second_lists_are_of_the_images_too(spill, tmp_path):
    index = made(spill=spill)
    assert len(np.unique(index._lists.places(3000), axis=1)) == 3000
    assert (index._lists.places(3000)[:, 0] != index._lists.places(3000)[:, 1]).any()
    hits = index.search(QUERIES, k=10)
    assert all(len(set(row)) == 10 for row in hits.ids.tolist())
    index.save(tmp_path / "a")
    assert (nearly.load(tmp_path / "a").search(QUERIES, k=10).ids == hits.ids).all()


@pytest.mark.parametrize("refine", ["disk", "float16", None])
def test_full_vectors_may_be_elsewhere(refine, tmp_path):
    index = made(refine=refine, recall=0.9, quantizer=nearly.SAQ(8) if refine is None else None)
    _, truth = evaluate.exact(VECTORS, QUERIES, 10, metric="l2")
    hits = index.search(QUERIES, k=10)
    assert (np.sort(((VECTORS[hits.ids] - QUERIES[:, None]) ** 2).sum(2)) ** 0.5 <= truth[:, -1:] * 1.001).mean() > 0.87
    assert "by 8 of 24 dimensions" in repr(index)
    index.save(tmp_path / "a")
    assert (nearly.load(tmp_path / "a").search(QUERIES, k=10).ids == hits.ids).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["random", "half", "far"])
def test_filters_keep_the_recall(kind, metric):
    index, rng, shares = made(metric=metric), np.random.default_rng(3), []
    for query in QUERIES[:40]:
        far = evaluate.exact(VECTORS, query[None], 3000, metric=metric)[0][0]
        chosen = {"random": rng.permutation(3000)[:600], "half": VECTORS[:, 1] > 0, "far": far[1500:]}[kind]
        mask = np.zeros(3000, bool)
        mask[chosen] = True
        exact = index.search(query, k=10, exact=True, where=mask).distances[-1]
        hits = index.search(query, k=10, where=mask)
        assert mask[hits.ids].all()
        shares.append((hits.distances <= exact + 1e-5).mean())
    assert np.mean(shares) >= 0.92


def test_an_empty_index_waits_for_vectors(tmp_path):
    index = nearly.IVF(np.zeros((0, DIM), np.float32), coarse=nearly.Pca(8), seed=1, lists=60)
    index.save(tmp_path / "a")
    index = nearly.load(tmp_path / "a")
    index.add(VECTORS)
    assert index._lists.centers.rows.shape == (60, 8)
    assert index.search(VECTORS[:50], k=1).ids[:, 0].tolist() == list(range(50))
    index.remove(index.ids)
    index.add(VECTORS[:100])
    assert index._lists.centers.rows.shape[1] == 8


def test_a_width_that_added_vectors_do_not_have_changes_nothing():
    index = nearly.IVF(np.zeros((0, DIM), np.float32), coarse=nearly.Pca(DIM + 1))
    with pytest.raises(InputError, match="dims is 25"):
        index.add(VECTORS)
    assert len(index) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coarse": nearly.Matryoshka(25)}, "dims is 25, but the vectors have 24"),
        ({"coarse": nearly.Pca(25)}, "dims is 25, but the vectors have 24"),
        ({"coarse": nearly.Matryoshka(24)}, r"keeps all 24 dimensions .* leave coarse= out"),
        ({"coarse": nearly.Rotation("orthogonal")}, r"keeps all 24 dimensions .* nearly\.Pca"),
        ({"coarse": nearly.Pca(8, whiten=True), "metric": "ip"}, "whitening changes inner products"),
        ({"coarse": nearly.Pca(8), "metric": "l1"}, "coarse= is for l2, cosine, ip, not l1"),
        ({"coarse": nearly.Pca}, r"coarse is .* pass nearly\.Matryoshka"),
        ({"coarse": 64}, r"coarse is 64; pass nearly\.Matryoshka\(dims\)"),
        ({"coarse": nearly.RaBitQ(4)}, r"coarse is RaBitQ"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        made(**options)


def test_bits_are_refused():
    with pytest.raises(InputError, match="coarse= is for l2, cosine, ip, not hamming"):
        nearly.IVF(np.zeros((9, 4), np.uint8), metric="hamming", coarse=nearly.Pca(2))


def test_damaged_files_are_refused(index, tmp_path):
    index.save(tmp_path / "a")
    file = storage.read(tmp_path / "a")
    whole = {name: np.array(a) for name, a in file.arrays.items()}
    short = {**whole, "centers": whole["centers"][:, :7].copy()}
    lacking = {name: a for name, a in whole.items() if name != "means"}
    infinite = {**whole, "means": np.full_like(whole["means"], np.inf)}
    rotated, steps = fit_rows(nearly.Rotation("orthogonal"), VECTORS, metric="l2", seed=0).state()
    wider = {**whole, **{f"coarse_{name}": a for name, a in rotated.items()}, "centers": np.zeros((60, 24), np.float32)}
    config = file.config
    cases = [(parts, config) for parts in (short, lacking, infinite)] + [
        (wider, {**config, "coarse": steps}),
        (whole, {key: value for key, value in config.items() if key != "coarse"}),
        (whole, {**config, "coarse": 3}),
        (whole, {**config, "coarse": {**config["coarse"], "metric": "ip"}}),
        (whole, {**config, "coarse": {**config["coarse"], "dim": 23}}),
        (whole, {**config, "coarse": {**config["coarse"], "steps": []}}),
        (whole, {**config, "ivf": {key: value for key, value in config["ivf"].items() if key != "coarse"}}),
        *((whole, {**config, "ivf": {**config["ivf"], "coarse": spec}}) for spec in (
            None, 5, [], {}, {"specification": "plain"}, {"specification": "pca", "dims": -1},
            {"specification": "chain", "transforms": [{"specification": "pca", "dims": "x"}]},
        )),
    ]  # fmt: skip
    for parts, changed in cases:
        storage.write(tmp_path / "b", parts, changed, kind=file.kind)
        with pytest.raises(FormatError):
            nearly.load(tmp_path / "b")
