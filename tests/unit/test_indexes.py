"""What single kinds of index do beyond the contract of all: golden work, damaged files, the fuzzer."""

import sys
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import _core
from nearly.indexes.store import NONE, Store, holds, narrow

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))
import fuzz_indexes


def grid(side: int, dim: int) -> np.ndarray:
    """Return all points of a grid: distances between them are exact on every target."""
    return np.stack(np.meshgrid(*[np.arange(side, dtype=np.float32)] * dim), axis=-1).reshape(-1, dim)


GOLDEN = {
    "vamana": lambda points: nearly.Vamana(points, degree=8, seed=1, calibrate=False, quantizer=nearly.Plain()),
    "vamana_codes": lambda points: nearly.Vamana(points, degree=8, seed=1, calibrate=False, quantizer=nearly.Scalar()),
    "hnsw": lambda points: nearly.HNSW(points, M=4, seed=1, calibrate=False, quantizer=nearly.Plain()),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_search_on_a_grid_does_the_same_work(kind, golden, simd_target):
    index = GOLDEN[kind](grid(7, 3))
    asked = np.array([[-1, -1, -1], [3, 3, 3], [6.25, 0, 9]], np.float32)
    hits = index.search(asked, k=10, effort=20)
    index.remove(np.arange(0, 343, 2))
    index.consolidate()
    index.add(grid(3, 3) + 7)
    later = index.search(asked, k=10, effort=20)
    golden(
        f"{kind}_grid_7x3",
        {
            "ids": hits.ids,
            "distances": hits.stats.n_distances,
            "hops": hits.stats.n_hops,
            "later_ids": later.ids,
            "later_distances": later.stats.n_distances,
            "later_hops": later.stats.n_hops,
        },
    )


def test_damaged_indexes_are_refused_or_can_be_used(tmp_path):
    counts = fuzz_indexes.run(tmp_path, seed=0, mutations=100)
    assert {("change_words", "refused"), ("change_words", "used"), ("edit_resealed", "refused")} <= counts.keys()


@pytest.mark.soak
def test_a_thousand_changes_leave_no_trace_of_what_is_gone():
    rng = np.random.default_rng(0)
    index = nearly.Vamana(rng.standard_normal((2000, 16), dtype=np.float32))
    for _ in range(100):
        index.remove(rng.choice(index.ids, 200, replace=False))
        index.add(rng.standard_normal((200, 16), dtype=np.float32))
    index.verify()
    assert len(index) == 2000
    stored = index.get(index.ids)
    assert (index.search(stored, k=1, recall=0.99).distances == 0).mean() >= 0.99


def test_an_upper_layer_that_names_a_node_it_does_not_hold_is_refused(tmp_path):
    from nearly import storage

    index = nearly.HNSW(np.random.default_rng(0).standard_normal((300, 6), dtype=np.float32), M=3)
    index.save(tmp_path / "a")
    with storage.read(tmp_path / "a") as file:
        parts = {name: array.copy() for name, array in file.arrays.items()}
        config = dict(file.config)
    absent = int(np.flatnonzero(parts["slots_1"].view(np.uint32).reshape(-1) == 0xFFFFFFFF)[0])
    parts["lists_1"].view(np.uint32)[0, 0] = absent
    storage.write(tmp_path / "b", parts, config, kind="hnsw")
    with pytest.raises(nearly.FormatError, match="layer"):
        nearly.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[0, 255], [7, 8]], "uint8"),
        ([[0, 256], [7, 8]], "float16"),
        ([[-1, 2], [7, 8]], "float16"),
        ([[0.5, 0.25]], "float16"),
        ([[0.1, 0.2]], "float32"),
        ([[1e6, 1]], "float32"),
        ([[-0.0, 1]], "uint8"),
        ([[1e-30, 1]], "float32"),
    ],
)
def test_floats_are_narrowed_where_nothing_is_lost(values, kind):
    from nearly.arrays import as_vectors

    vectors = as_vectors(np.array(values, np.float32))
    assert narrow(vectors) == kind
    assert holds(kind, vectors)
    index = nearly.Flat(vectors.array)
    np.testing.assert_array_equal(index.get(np.arange(len(values))), vectors.array)
    assert isinstance(index._store, Store)


@pytest.mark.parametrize("seed", range(8))
def test_searches_never_start_from_a_node_that_waits_for_its_insertion(seed):
    # Seed 7 puts two nodes into the highest layer and holds the first of them out for calibration.
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((600, 8), dtype=np.float32), rng.standard_normal((100, 8), dtype=np.float32)
    index = nearly.HNSW(vectors, M=8, seed=seed)
    truth, found = index.search(queries, exact=True).ids, index.search(queries, effort=50).ids
    assert np.mean([np.isin(a, b).mean() for a, b in zip(found, truth, strict=True)]) > 0.97


def test_progress_is_told():
    seen = []
    nearly.Vamana(grid(8, 3), progress=lambda done, total: seen.append((done, total)), threads=1)
    assert seen[-1] == (512, 512)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_error_in_progress_ends_the_build():
    with pytest.raises(ZeroDivisionError):
        nearly.Vamana(grid(8, 3), progress=lambda done, total: 1 // 0)


def test_arguments_of_graphs_are_checked():
    points = grid(3, 2)
    for options in (
        {"degree": 1}, {"degree": 513}, {"beam": 0}, {"alpha": 0.9}, {"seed": -1}, {"recall": 1.5}, {"threads": 0},
        {"quantizer": "int8"}, {"degree": 8.5}, {"queries": np.zeros((2, 5))}, {"metric": "l3"},
    ):  # fmt: skip
        with pytest.raises(nearly.InputError, match=next(iter(options)) if "metric" not in options else "l3"):
            nearly.Vamana(points, **options)
    for options in ({"M": 1}, {"M": 257}, {"ef_construction": 0}):
        with pytest.raises(nearly.InputError, match=next(iter(options))):
            nearly.HNSW(points, **options)
    with pytest.raises(nearly.InputError, match="l1"):
        nearly.Vamana(points, metric="l1", quantizer=nearly.Scalar())
    with pytest.raises(nearly.InputError, match=r"pass an instance, nearly.Scalar\(\)"):
        nearly.Vamana(points, quantizer=nearly.Scalar)


def test_what_differs_from_the_defaults_is_said():
    points = grid(3, 2)
    assert "degree 32, 8-bit" in nearly.Vamana(points, calibrate=False).plan
    assert "degree 32, beam 9, alpha 1.1, " in repr(nearly.Vamana(points, beam=9, alpha=1.1, calibrate=False))


def test_a_short_beam_is_honored():
    vectors = np.random.default_rng(0).standard_normal((300, 6), dtype=np.float32)
    few, more = (nearly.HNSW(vectors, ef_construction=beam, calibrate=False) for beam in (3, 16))
    assert "ef_construction=3," in few.plan
    filled = [(index._lists[0].array().view(np.uint32) != NONE).sum() for index in (few, more)]
    assert filled[0] < 0.8 * filled[1]
    few.verify()  # a poorer graph, but a whole one


@pytest.mark.parametrize(
    ("kind", "options"), [(nearly.HNSW, {"M": 2, "ef_construction": 8}), (nearly.Vamana, {"degree": 4, "beam": 8})]
)
def test_a_vector_that_comes_back_to_its_node_can_be_reached(kind, options):
    """While it was gone, lists may have given up its node for others."""
    for seed in range(60):  # of these 4 could not with HNSW, 1 with Vamana
        rng = np.random.default_rng(seed)
        vectors = rng.integers(-2, 3, (50, 3)).astype(np.float32)
        index = kind(vectors[:30], calibrate=False, quantizer=nearly.Plain(), **options)
        gone = rng.permutation(30)[:4]
        index.remove(gone)
        index.add(vectors[30:])
        index.add(vectors[gone])
        index.verify()


@pytest.mark.parametrize("kind", [nearly.Vamana, pytest.param(nearly.HNSW, marks=pytest.mark.soak)])
def test_all_that_an_index_becomes_has_the_same_readers(kind):
    rng = np.random.default_rng(0)
    index = kind(rng.integers(0, 9, (300, 6)).astype(np.float32), calibrate=False)
    store, graph = index._store, index._graph
    index.add(rng.integers(0, 9, (5, 6)).astype(np.float32))
    assert index._graph is graph or kind is nearly.HNSW  # nothing was replaced but, by chance, an upper layer
    index.add(rng.standard_normal((10_000, 6), dtype=np.float32))  # no whole numbers, and more than there is room for
    assert index._store is not store
    assert index._graph is not graph
    index.remove(np.arange(300))
    index.consolidate()
    # Who still has the old ones, and begins when places may be used again, is told to ask for the new ones.
    query, metric = np.zeros((1, 24), np.uint8), 0
    answer = np.empty((1, 3), np.int64), np.empty((1, 3), np.float32), np.empty(1, np.uint32)
    for rows, retired in ((store.rows, True), (index._store.rows, False)):
        assert (_core.scan(store.scorer, rows, 10, 24, query, metric, *answer) is None) == retired
    for searched, retired in ((graph, True), (index._graph, False)):
        assert (searched.search(24, query, metric, 10, 3, *answer) is None) == retired


@pytest.mark.parametrize("added", [np.full((9, 6), 0.5), np.arange(60_000).reshape(-1, 6) % 255], ids=["kind", "room"])
def test_whoever_reads_a_store_that_was_replaced_meets_nothing_that_came_later(added):
    # It would be met without its vector, or without its id: those are in the other store's tables.
    rng = np.random.default_rng(0)
    index = nearly.Vamana(rng.integers(0, 9, (300, 6)).astype(np.float32), calibrate=False)
    index.remove(np.arange(40))
    index.consolidate()
    store = index._store
    names = ("ids", "next_rows", "first_rows", "last_rows", "nodes")
    before = [store.column(name).tolist() for name in names]
    index.add(added.astype(np.float32))  # the places of those that went are taken first
    assert index._store is not store
    assert [store.column(name)[: len(was)].tolist() for name, was in zip(names, before, strict=True)] == before


def test_nodes_to_link_again_that_have_gone_since_are_not_linked():
    rng = np.random.default_rng(0)
    near = rng.standard_normal((500, 8), dtype=np.float32)
    index = nearly.Vamana(near, degree=8, quantizer=nearly.Scalar(bits=4), calibrate=False)
    gone = index.add(near[:30] + 100)  # too few to prove that the codes do not hold for them
    index.remove(gone)
    index.consolidate()
    free = np.array(index._spare_nodes)
    assert len(free) == 30
    index.add(near[:10] + 100)
    named = index._lists[0].array().view(np.uint32)
    assert not np.isin(named, index._spare_nodes).any()
    assert (index._lists[0].array()[index._spare_nodes] == 255).all()


# ---------------------------------------------------------------- Flat by codes


def hard_points(rng, metric, n=4000):
    """Vectors whose norms and directions cluster, and queries that are none of them."""
    centers = rng.standard_normal((8, 70))[rng.integers(8, size=n + 60)]
    made = rng.standard_normal((n + 60, 70)) * 0.95 ** np.arange(70) + centers
    made = made * (rng.uniform(0.3, 2, (n + 60, 1)) if metric == "ip" else 1)
    return made[:n].astype(np.float32), made[n:].astype(np.float32)


@pytest.mark.parametrize("quantizer", [nearly.RaBitQ(1), nearly.RaBitQ(6), nearly.SAQ(1.5), nearly.SAQ(5)], ids=str)
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_flat_by_codes_delivers_the_recall_that_its_bounds_promise(rng, metric, quantizer):
    vectors, queries = hard_points(rng, metric)
    index = nearly.Flat(vectors, metric=metric, quantizer=quantizer)
    truth = nearly.Flat(vectors, metric=metric).search(queries, k=10).distances
    ranked = []
    for recall in (0.8, 0.95, 0.999):
        hits = index.search(queries, k=10, recall=recall)
        assert (hits.distances <= truth[:, 9:]).mean() >= recall
        assert hits.expected_recall == recall
        assert hits.stats.n_distances == 60 * 4000
        ranked.append(hits.stats.n_reranked)
        one_by_one = [index.search(query, k=10, recall=recall) for query in queries]
        assert [h.ids.tolist() for h in one_by_one] == hits.ids.tolist()
        assert np.concatenate([h.distances for h in one_by_one]).tobytes() == hits.distances.tobytes()
    assert ranked == sorted(ranked)
    assert ranked[-1] < 60 * 4000 * (0.8 if quantizer.bits < 2 else 0.3)
    for hits in (index.search(queries, k=10, exact=True), index.search(queries, k=10, recall=1.0)):
        assert hits.distances.tobytes() == truth.tobytes()


@pytest.mark.parametrize("epsilon", [1.9, 3.0])
def test_flat_by_codes_makes_bounds_as_wide_as_the_recall_asks_for(rng, epsilon, monkeypatch):
    """In standard deviations of an estimate, whatever the width that its codes have bounds of."""
    vectors, queries = hard_points(rng, "l2", 300)
    index, seen, scan = nearly.Flat(vectors, quantizer=nearly.RaBitQ(4, epsilon=epsilon)), [], _core.scan_bounded
    monkeypatch.setattr(_core, "scan_bounded", lambda *given: seen.append(given[2] * epsilon) or scan(*given))
    for recall in (0.3, 0.95, 0.999):
        index.search(queries, recall=recall)
    assert seen == pytest.approx([0.0, 1.645, 3.090], abs=1e-3)  # one-sided quantiles of the normal distribution


@pytest.mark.parametrize("quantizer", [nearly.RaBitQ(5), nearly.SAQ(5)], ids=str)
def test_flat_by_codes_follows_every_change(rng, tmp_path, quantizer):
    vectors, queries = hard_points(rng, "l2", 900)
    index = nearly.Flat(vectors[:300], quantizer=quantizer, recall=0.999)
    index.add(vectors[300:])
    index.remove(np.arange(0, 900, 3))
    index.save(tmp_path / "a")
    index = nearly.load(tmp_path / "a", verify=True)
    assert type(quantizer).__name__ in index.plan
    assert "0.999" in index.plan
    index.add(vectors[:50], ids=np.arange(2000, 2050))
    kept = np.setdiff1d(np.arange(900), np.arange(0, 900, 3))
    for left in (kept, kept[::4]):  # the second time more than half is gone: what is left moves
        index.remove(np.setdiff1d(index.ids, [*left, *range(2000, 2050)]))
        hits = index.search(queries, k=5)
        stored = np.concatenate([vectors[left], vectors[:50]])
        true = np.sort(np.linalg.norm(stored[None] - queries[:, None], axis=2), axis=1)[:, :5]
        assert (hits.distances <= true[:, 4:] * (1 + 1e-5)).mean() > 0.98
        assert hits.stats.n_reranked > 0
    few = index.search(queries, k=5, where=[2001, 2002])
    assert set(few.ids.ravel().tolist()) == {2001, 2002, -1}
    index.remove(index.ids)
    assert index.search(queries, k=5).counts.tolist() == [0] * 60
    index.add(vectors)
    assert (index.search(vectors[:40], k=1).distances == 0).all()


def test_flat_refuses_codes_without_bounds():
    points = np.eye(8, dtype=np.float32)
    for quantizer in (nearly.Scalar(), nearly.Reduced(), "int8", nearly.RaBitQ):
        with pytest.raises(nearly.InputError, match="RaBitQ"):
            nearly.Flat(points, quantizer=quantizer)
    with pytest.raises(nearly.InputError, match="l1"):
        nearly.Flat(points, metric="l1", quantizer=nearly.RaBitQ())
    assert nearly.Flat(points, quantizer=nearly.Plain()).plan == nearly.Flat(points).plan


def test_an_id_that_moves_while_it_is_looked_for_is_looked_for_again():
    index, tries = nearly.Flat(np.eye(3, dtype=np.float32)), []

    def read():
        tries.append(index._reuse)
        if len(tries) < 3:
            index._reuse += 1  # a writer begins to exchange rows, and has done so
            raise nearly.IdError("not here")
        return "found"

    assert index._steadily(read) == "found"
    with pytest.raises(nearly.IdError):
        index.get([7])
