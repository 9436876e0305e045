"""`build` chooses and says why; `estimate` foretells; `load` finds the right kind."""

import numpy as np
import pytest

import nearly
from nearly import evaluate
from nearly.indexes import INDEXES


@pytest.fixture(scope="module")
def vectors():
    """Return so many vectors that a graph pays."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((6000, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def graph(vectors):
    return nearly.build(vectors, recall=0.9, seed=3)


def test_many_vectors_make_a_graph(vectors, graph):
    assert type(graph) is nearly.Vamana
    assert "chosen for 6,000 vectors: a graph" in graph.plan
    assert "recall 0.9" in graph.plan
    asked = np.random.default_rng(1).standard_normal((100, 8), dtype=np.float32)
    truth = evaluate.exact(vectors, asked, 10, metric="l2")[1]
    hits = graph.search(asked)
    assert (hits.distances <= truth[:, -1:] + 1e-5).mean() >= 0.87
    assert hits.expected_recall >= 0.9
    assert hits.stats.n_distances < 100 * 3000


def test_few_vectors_are_scanned(vectors):
    index = nearly.build(vectors[:500])
    assert type(index) is nearly.Flat
    assert "chosen for 500 vectors: comparing with so few" in index.plan
    index.add(vectors[:2])
    assert "exact scan of 502 vectors" in repr(index)
    assert "chosen for 500 vectors" in repr(index)  # what it was then
    with pytest.raises(nearly.InputError, match="queries holds 3"):
        nearly.build(vectors[:500], queries=vectors[:3])
    assert index.search(vectors[0], k=1).expected_recall == 1.0
    assert len(nearly.build(vectors[:0])) == 0


def test_recall_one_is_a_scan(vectors):
    index = nearly.build(vectors, recall=1.0)
    assert type(index) is nearly.Flat
    assert "1.0" in index.plan


def test_memory_limits(vectors):
    wanted = nearly.estimate(6000, 8)
    assert type(nearly.build(vectors, memory_limit=wanted.peak_bytes - 1)) is nearly.Flat
    assert "limit" in nearly.build(vectors, memory_limit=wanted.peak_bytes - 1).plan
    with pytest.raises(nearly.InputError, match="memory_limit is 1,000 bytes"):
        nearly.build(vectors, memory_limit=1000)
    for wrong in (0, -5, 1.5, "1 GB"):
        with pytest.raises(nearly.InputError, match="memory_limit"):
            nearly.build(vectors, memory_limit=wrong)


def test_arguments_reach_the_index(vectors, tmp_path):
    index = nearly.build(vectors[:300], metric="cosine", ids=np.arange(300) + 9)
    assert index.metric == "cosine"
    assert index.ids.tolist() == list(range(9, 309))
    bits = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.uint8)
    assert nearly.build(bits, metric="hamming").search(bits[7], k=1).ids.tolist() == [7]
    for options in ({"recall": 0}, {"recall": 1.1}, {"metric": "l5"}, {"metric": len}, {"ids": [1]}):
        with pytest.raises(nearly.InputError):
            nearly.build(vectors[:300], **options)
    with pytest.raises(nearly.InputError, match="row 2"):
        nearly.build(np.array([[1.0], [2.0], [np.nan]]))


def test_the_same_seed_gives_the_same_bytes(vectors, graph, tmp_path):
    graph.save(tmp_path / "a")
    nearly.build(vectors, recall=0.9, seed=3, threads=1).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1", "hamming"])
def test_estimates_come_near(metric):
    rng = np.random.default_rng(0)
    bits = metric == "hamming"
    vectors = rng.integers(0, 256, (6000, 40), np.uint8) if bits else rng.standard_normal((6000, 40), np.float32)
    foretold = nearly.estimate(6000, 40, metric=metric, kind="bits" if bits else "float32")
    index = nearly.Vamana(vectors, metric=metric, calibrate=False, beam=16)
    assert 0.6 * index.n_bytes < foretold.index_bytes < 1.7 * index.n_bytes
    assert foretold.peak_bytes >= foretold.index_bytes
    assert foretold.seconds > 0


def test_estimates_grow():
    rows = [nearly.estimate(n, 128) for n in (0, 10, 1000, 10_000, 1_000_000)]
    assert [e.index_bytes for e in rows] == sorted(e.index_bytes for e in rows)
    assert [e.seconds for e in rows] == sorted(e.seconds for e in rows)
    assert nearly.estimate(10_000, 256).index_bytes > rows[3].index_bytes
    assert nearly.estimate(10_000, 128, kind="uint8").index_bytes < rows[3].index_bytes
    for n, dim, options in ((-1, 3, {}), (1, 0, {}), (1, 2, {"metric": "x"}), (1, 2, {"kind": "f"})):
        with pytest.raises(nearly.InputError):
            nearly.estimate(n, dim, **options)


@pytest.mark.parametrize("kind", INDEXES)
def test_load_finds_the_kind(kind, vectors, tmp_path):
    INDEXES[kind](vectors[:300]).save(tmp_path / "a")
    assert type(nearly.load(tmp_path / "a")) is INDEXES[kind]
    assert type(nearly.load(str(tmp_path / "a"), verify=True)) is INDEXES[kind]


def test_functions_are_offered_only_where_they_are_taken(vectors):
    for call in (
        nearly.build,
        nearly.Flat,
        nearly.Vamana,
        nearly.HNSW,
        lambda _, metric: nearly.estimate(9, 9, metric=metric),
    ):
        with pytest.raises(nearly.InputError, match="'l1' is wanted; did you mean 'l2'") as wrong:
            call(vectors[:300], metric="euclidean")
        assert "function" not in str(wrong.value)
    with pytest.raises(nearly.InputError, match=r"only nearly\.HNSW takes"):
        nearly.estimate(9, 9, metric=len)


def test_load_refuses_kinds_of_the_future(tmp_path):
    from nearly import storage

    storage.write(tmp_path / "a", {}, {}, kind="crystal")
    with pytest.raises(nearly.FormatError, match="crystal"):
        nearly.load(tmp_path / "a")
    storage.write(tmp_path / "b", {}, {}, kind="vamana")
    with pytest.raises(nearly.FormatError):
        nearly.load(tmp_path / "b")
