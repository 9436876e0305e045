"""IVF beyond what all indexes promise: its lists, how they grow and are packed, and the recall contract by reach."""

import numpy as np
import pytest

import nearly
from nearly import evaluate
from nearly.errors import FormatError
from nearly.indexes.lists import CHUNK
from nearly.indexes.store import NONE


def clouds(n, *, dim=16, seed=0, n_clouds=30):
    """Return points in clouds that overlap."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(9).standard_normal((n_clouds, dim)) * 1.5
    return (centers[rng.integers(n_clouds, size=n)] + rng.standard_normal((n, dim))).astype(np.float32)


def shares(index, queries, hits):
    truth = index.search(queries, k=hits.ids.shape[1], exact=True).distances[:, -1:]
    return float((hits.distances <= truth).mean())


@pytest.fixture(scope="module")
def index():
    return nearly.IVF(clouds(6000), lists=100, seed=1)


def test_every_vector_is_in_the_list_of_its_nearest_center(index):
    made, vectors = index._lists, clouds(6000)
    labels = made.labels(index._n_nodes)
    distances = ((vectors[:, None].astype(np.float64) - made.centers.rows) ** 2).sum(2)
    assert (labels == distances.argmin(1)).mean() > 0.999  # rounding decides between two that are as near
    assert made.sizes.tolist() == np.bincount(labels, minlength=100).tolist()
    assert made.sizes.max() < 4 * made.sizes.mean()


def test_codes_lie_as_the_lists_do():
    index = nearly.IVF(clouds(6000), lists=100, quantizer=nearly.Scalar(), calibrate=False)
    made = index._lists
    slots, owners = made.in_use()
    assert slots.tolist() == list(range(6000))
    assert (np.diff(owners.astype(int)) >= 0).all()
    expected = index._codes.fitted.encode(clouds(6000)[made.nodes(slots)])
    assert (index._codes.codes.array() == expected).all()


def test_lists_of_blocks_begin_at_multiples_of_32_and_grow_by_such(tmp_path):
    index = nearly.IVF(clouds(1000), lists=20, calibrate=False)
    index.add(clouds(700, seed=3))
    table = index._lists.table[: index._lists.n_chunks]
    assert index._lists.n_chunks > 20
    assert not (table["first"] % 32).any()
    assert not (table["capacity"] % 32).any()
    assert len(index._codes.codes.array()) * 32 >= index._lists.n_slots
    index.save(tmp_path / "a")
    back = nearly.load(tmp_path / "a")
    queries = clouds(50, seed=6)
    for other in (back, index):
        hits = other.search(queries, effort=3)
        assert hits.ids.tolist() == index.search(queries, effort=3).ids.tolist()
    back.add(clouds(30, seed=7))
    back.verify()
    assert back.search(clouds(30, seed=7), k=1, effort=20).ids[:, 0].tolist() == list(range(1700, 1730))


def test_codes_of_residuals_hold_for_vectors_from_elsewhere():
    index = nearly.IVF(clouds(2000), lists=30, calibrate=False)
    index.add(clouds(1200, seed=5) * 0.2 + 40)  # far from all centers, and close together
    queries = clouds(100, seed=6) * 0.2 + 40
    hits = index.search(queries, k=10, effort=30)
    assert shares(index, queries, hits) > 0.9


@pytest.mark.parametrize(
    ("metric", "rotation", "books"), [("l2", None, 3), ("l2", "opq", 16), ("ip", None, 16), ("cosine", "opq", 3)]
)
def test_product_codes_of_4_bits_are_of_residuals(metric, rotation, books):
    vectors, queries = clouds(1500) + 1, clouds(100, seed=4) + 1
    index = nearly.IVF(vectors, metric=metric, lists=40, quantizer=nearly.Product(books, bits=4, rotation=rotation))
    assert f"{books} x 4 bits" in index.plan
    assert "residuals" in index.plan
    assert shares(index, queries, index.search(queries, k=10, recall=0.9)) >= 0.87
    again = nearly.IVF(
        vectors,
        metric=metric,
        lists=40,
        quantizer=nearly.Product(books, bits=4, rotation=rotation),
        threads=1,
        calibrate=False,
    )
    assert again._codes.codes.array().tobytes() == index._codes.codes.array().tobytes()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "l1", "hamming"])
def test_all_lists_give_the_exact_answer_without_codes(metric):
    if metric == "hamming":
        vectors = np.random.default_rng(0).integers(0, 256, (900, 6), dtype=np.uint8)
    else:
        vectors = clouds(900)
    index = nearly.IVF(vectors, metric=metric, quantizer=nearly.Plain())
    hits, exact = index.search(vectors[:50], k=7, effort=10_000), index.search(vectors[:50], k=7, exact=True)
    assert hits.ids.tolist() == exact.ids.tolist()
    assert hits.distances.tobytes() == exact.distances.tobytes()
    assert "IVF" in hits.plan


def test_a_target_is_met_by_queries_of_another_kind_too(index):
    rng = np.random.default_rng(5)
    points = clouds(300, seed=4)
    for queries in (points, 0.7 * points + 0.3 * points[rng.permutation(300)], points * 1.2):
        for target in (0.8, 0.9, 0.95):
            hits = index.search(queries, k=10, recall=target)
            assert shares(index, queries, hits) >= target - 0.03
            assert hits.expected_recall >= target
            assert "compared for recall" in hits.plan


def test_more_recall_reads_more_lists_and_scattered_queries_read_more(index):
    points = clouds(300, seed=4)
    hits = [index.search(points, recall=r) for r in (0.7, 0.85, 0.95, 0.99)]  # near targets may differ in depth instead
    lists = [one.stats.n_hops for one in hits]
    assert lists == sorted(set(lists))
    assert [one.expected_recall for one in hits] == sorted({one.expected_recall for one in hits})
    between = (points + points[::-1]) / 2
    assert index.search(between, recall=0.9).stats.n_hops > 1.2 * index.search(points, recall=0.9).stats.n_hops


def test_calibrated_on_queries_it_says_so_and_meets_the_target(index):
    queries = (clouds(800, seed=4) + clouds(800, seed=5)) / 2
    own = nearly.IVF(clouds(6000), lists=100, seed=1, queries=queries[::2])
    assert own.curve.source == "the queries passed when it was built"
    assert own.curve.n_queries == 400
    hits = own.search(queries[1::2], k=10, recall=0.9)
    assert shares(own, queries[1::2], hits) >= 0.88
    hits = own.search(queries, effort=20)
    assert abs(hits.expected_recall - shares(own, queries, hits)) < 0.04


def test_filters_reach_farther(index):
    queries = clouds(100, seed=4)
    mask = np.random.default_rng(0).random(6000) < 0.4
    hits = index.search(queries, k=10, recall=0.9, where=mask)
    truth = index.search(queries, k=10, exact=True, where=mask).distances[:, -1:]
    assert (hits.distances <= truth).mean() >= 0.88
    assert hits.stats.n_hops > index.search(queries, k=10, recall=0.9).stats.n_hops or "exact scan" in hits.plan


@pytest.mark.parametrize(
    ("spill", "quantizer"), [("soar", None), ("soar", nearly.Plain()), ("closure", nearly.Scalar())]
)
def test_a_second_list_finds_more_in_as_many_and_nothing_twice(spill, quantizer, tmp_path):
    vectors, queries = clouds(1600), clouds(200, seed=4)
    options = {"lists": 40, "quantizer": quantizer, "seed": 1}
    index, alone = nearly.IVF(vectors, spill=spill, **options), nearly.IVF(vectors, **options)
    shared = [index.search(queries, k=10, effort=1), alone.search(queries, k=10, effort=1)]
    assert shares(alone, queries, shared[0]) > shares(alone, queries, shared[1])
    for hits in (*shared, index.search(queries, k=300, effort=40), index.search(queries, k=20, recall=0.9)):
        assert all(len(set(row)) == len(row) for row in hits.ids.tolist())
    hits = index.search(queries, k=10, recall=0.9)
    assert shares(alone, queries, hits) >= 0.88
    n_lists = alone.search(queries, k=10, recall=0.9).stats.n_hops
    assert hits.stats.n_hops < n_lists * (1.0 if spill == "soar" else 1.02)  # closure spills few of these
    held = int(index._lists.sizes.sum())
    assert held == 3200 if spill == "soar" else 1600 < held < 2600
    assert index.n_bytes >= alone.n_bytes + (held - 1600) * 4
    assert f"{held / 1600:.2f} of them a vector" in index.plan
    places = index._lists.places(1600)
    assert (places[:, 0] != places[:, 1]).sum() == held - 1600
    index.save(tmp_path / "a")
    back = nearly.load(tmp_path / "a")
    assert back.search(queries, k=10, effort=5).ids.tolist() == index.search(queries, k=10, effort=5).ids.tolist()
    back.add(clouds(500, seed=8))
    back.remove(np.arange(100))
    back.verify()
    found = back.search(clouds(500, seed=8), k=1, effort=40).ids[:, 0]
    assert found.tolist() == list(range(1600, 2100))
    back.remove(np.arange(100, 800))  # packs the lists
    back.verify()
    places = back._lists.places(back._n_nodes)[back._store.column("nodes")[800:2100]]
    assert int(back._lists.sizes.sum()) == 1300 + (places[:, 0] != places[:, 1]).sum()
    mask = np.zeros(2100, bool)
    mask[900:1200] = True
    hits = back.search(queries, k=10, effort=10, where=mask)
    assert mask[hits.ids].all()
    assert all(len(set(row)) == 10 for row in hits.ids.tolist())


def test_second_lists_are_those_that_the_papers_say():
    from nearly.indexes import lists as made_of

    vectors = clouds(1500, dim=6)
    index = nearly.IVF(vectors, lists=30, quantizer=nearly.Plain(), calibrate=False)
    nodes, middles = np.arange(1500, dtype=np.uint32), index._lists.centers
    centers = middles.rows
    labels = index._lists.labels(1500)
    squared = ((vectors[:, None].astype(np.float64) - centers) ** 2).sum(2)
    own = squared[nodes, labels]
    soar = made_of.second(index._store, nodes, middles, labels, "soar", 1)
    along = np.einsum("ikj,ij->ik", vectors[:, None].astype(np.float64) - centers, vectors - centers[labels])
    costs = squared + along**2 / own[:, None]
    costs[nodes, labels] = np.inf
    nearest = np.argsort(squared, axis=1)[:, 15:]
    np.put_along_axis(costs, nearest[:, 1:], np.inf, axis=1)  # of the 16 nearest
    assert (soar == costs.argmin(1)).mean() > 0.999
    closure = made_of.second(index._store, nodes, middles, labels, "closure", 1)
    some = closure != NONE
    assert 0.02 < some.mean() < 0.9
    assert (np.sqrt(squared[nodes[some], closure[some]]) <= 1.1001 * np.sqrt(own[some])).all()
    between = ((centers[closure[some]] - centers[labels[some]]) ** 2).sum(1)
    assert (between >= squared[nodes[some], closure[some]] * 0.9999).all()
    with pytest.raises(nearly.InputError, match="spill"):
        nearly.IVF(vectors, spill="both")


def wheres(kind, vectors, queries, share, index):
    """Return masks, and the queries that are asked under each: cells and half-spaces as far as can be from them."""
    n, rng = len(vectors), np.random.default_rng(3)
    if kind == "random":
        return [(rng.random(n) < share, queries)]
    pairs = []
    for i in range(0, len(queries), 5 if kind == "half" else 9):
        if kind == "half":
            along = vectors @ rng.standard_normal(vectors.shape[1], dtype=np.float32)
            pairs.append((along >= np.quantile(along, 1 - share), queries[i : i + 5]))
            continue
        made, some = index._lists, queries[i : i + 1]
        if kind == "shell":  # all but a ball around the query: what is nearest lies where codes tell nothing apart
            distances = ((vectors - some) ** 2).sum(1)
            pairs.append((distances >= np.quantile(distances, 1 - share), some))
            continue
        order = np.argsort(((made.centers.rows - some) ** 2).sum(1))[:: 1 if kind == "near" else -1]
        taken = order[: np.searchsorted(made.sizes[order].cumsum(), share * n) + 1]
        pairs.append((np.isin(made.labels(n), taken), some))
    return pairs


@pytest.fixture(scope="module")
def sift(data_folder):
    with np.load(data_folder / "sift_bsds_128_l2.npz", allow_pickle=False) as file:
        vectors, queries = file["base"][:12_000], file["queries"][:120]
    return nearly.IVF(vectors), vectors.astype(np.float32), queries.astype(np.float32)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("kind", ["random", "half", "near", "far", "shell"])
def test_filters_that_know_of_the_query_keep_the_recall(sift, kind, share):
    index, vectors, queries = sift
    for target in (0.9, 0.95):
        shares = []
        for mask, some in wheres(kind, vectors, queries, share, index):
            hits = index.search(some, k=10, where=mask, recall=target)
            truth = index.search(some, k=10, where=mask, exact=True).distances[:, -1:]
            shares.extend((hits.distances <= truth).mean(1))
        assert np.mean(shares) >= target - 0.01


def test_lists_in_which_nothing_passes_are_not_read(index):
    labels, queries = index._lists.labels(6000), clouds(100, seed=4)
    mask = np.isin(labels, np.arange(0, 100, 2)) & (np.random.default_rng(0).random(6000) < 0.9)
    hits = index.search(queries, k=10, recall=0.9, where=mask)
    assert f"the {len(np.unique(labels[mask]))} of 100 lists in which something passes" in hits.plan
    assert hits.stats.n_hops <= 100 * 50
    for effort in (1, 60):
        assert index.search(queries, k=1, effort=effort, where=mask).stats.n_hops == 100 * min(effort, 50)


def test_what_lists_hold_is_counted_once_for_a_filter_that_lasts(monkeypatch):
    from nearly.filters import Filter

    index, counted = nearly.IVF(clouds(2000), lists=50, calibrate=False), []
    held = index.__class__._held
    mask = np.random.default_rng(1).random(2000) < 0.6
    lasting, queries = Filter.from_mask(mask), clouds(5, seed=6)

    def noted(self, chosen):
        counted.append(held(self, chosen))
        return counted[-1]

    monkeypatch.setattr(index.__class__, "_held", noted)
    for where in (lasting, lasting, mask, mask):
        index.search(queries, effort=5, where=where)
    assert counted[0] is counted[1]
    assert counted[2] is not counted[3]
    assert all((one.counts == counted[0].counts).all() for one in counted)
    assert counted[0].counts.tolist() == np.bincount(index._lists.labels(2000)[mask], minlength=50).tolist()
    index.remove(np.flatnonzero(mask)[:40])
    index.search(queries, effort=5, where=np.flatnonzero(mask)[40:])
    assert counted[-1].counts.sum() == counted[0].counts.sum() - 40


def test_lists_grow_by_chunks_and_are_made_anew_when_twice_as_many_came():
    vectors = clouds(3000)
    index = nearly.IVF(vectors[:1000], lists=20, quantizer=nearly.Scalar(), calibrate=False)
    centers = index._lists.centers.rows.copy()
    index.add(vectors[1000:1003])
    assert index._lists.n_chunks > 20
    for first in range(1003, 1800, 61):
        index.add(vectors[first : first + 61])
        index.verify()
    assert index._lists.centers.rows.tobytes() == centers.tobytes()
    assert (index._lists.table["next"] != NONE).sum() == index._lists.n_chunks - 20
    n = len(index)
    assert index.search(vectors[:n], k=1, effort=20).ids[:, 0].tolist() == list(range(n))
    index.add(vectors[n:])
    index.verify()
    assert index._lists.n_chunks == 20
    assert index._lists.centers.rows.tobytes() != centers.tobytes()
    assert (index.search(vectors, k=1, effort=20).ids[:, 0] == np.arange(3000)).all()


def test_what_is_removed_leaves_the_lists_and_its_place_is_used_again():
    vectors = clouds(2000)
    index = nearly.IVF(vectors[:1500], lists=20, calibrate=False)
    index.remove(np.arange(0, 1500, 2))
    assert int(index._lists.sizes.sum()) == 750  # packed by itself
    index.add(vectors[1500:])
    assert index._n_nodes == 1500
    index.remove(np.arange(1, 60, 2))
    assert int(index._lists.sizes.sum()) == 1250  # few are gone: they are passed over
    hits = index.search(vectors[1:60:2], k=1, effort=20)
    assert (hits.ids[:, 0] % 2 == 1).mean() < 1
    assert not np.isin(hits.ids, np.arange(1, 60, 2)).any()
    index.consolidate()
    assert int(index._lists.sizes.sum()) == 1220
    index.verify()


def test_an_addition_that_is_cut_short_leaves_the_lists_as_they_were(monkeypatch):
    vectors = clouds(1200)
    index = nearly.IVF(vectors[:1000], lists=20, calibrate=False)
    put = type(index._codes).put

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(index._codes), "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.add(vectors[1000:1100])
    monkeypatch.setattr(type(index._codes), "put", put)
    index.verify()
    assert len(index) == 1000
    assert int(index._lists.sizes.sum()) == 1000
    index.add(vectors[1000:])
    index.verify()
    assert int(index._lists.sizes.sum()) == 1200
    assert (index.search(vectors, k=1, effort=20).distances == 0).all()


def test_the_number_of_lists_is_the_users_or_follows_from_the_vectors():
    assert len(nearly.IVF(clouds(400), lists=7, calibrate=False)._lists) == 7
    assert len(nearly.IVF(clouds(5), lists=7, calibrate=False)._lists) == 5
    assert len(nearly.IVF(clouds(80), calibrate=False)._lists) == 10
    assert "8-bit codes of 6" in nearly.IVF(clouds(50, dim=6)).plan
    assert "8 x 4 bits" in nearly.IVF(clouds(50)).plan
    assert "32 x 4 bits" in nearly.IVF(clouds(50, dim=80)).plan
    with pytest.raises(nearly.InputError, match="m is 9"):
        nearly.IVF(clouds(50, dim=8), quantizer=nearly.Product(9, bits=4))
    for wrong in (0, -1, 2.5, "many"):
        with pytest.raises(nearly.InputError, match="lists"):
            nearly.IVF(clouds(50), lists=wrong)
    with pytest.raises(nearly.InputError, match="l1"):
        nearly.IVF(clouds(50), metric="l1", quantizer=nearly.Scalar())
    with pytest.raises(nearly.DimensionError):
        nearly.IVF(clouds(50), queries=np.zeros((3, 4), np.float32))


def test_progress_is_told():
    told = []
    nearly.IVF(clouds(700), calibrate=False, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (700, 700)


@pytest.mark.parametrize("array", ["chunks", "members", "centers"])
def test_damaged_lists_are_refused(tmp_path, array):
    from nearly import storage

    index = nearly.IVF(clouds(300), lists=9, calibrate=False)
    index.add(clouds(40, seed=8))
    index.save(tmp_path / "a")
    file = storage.read(tmp_path / "a")
    for value in (2**32 - 1, 2**31, 339, 5, 0x7FC00000):
        parts = {name: np.array(a) for name, a in file.arrays.items()}
        words = parts[array].view(np.uint32).reshape(-1)
        at = {"chunks": 3 if value != 0x7FC00000 else 0, "members": 4, "centers": 2}[array]
        if words[at] == value or (array == "centers" and np.isfinite(np.uint32(value).view(np.float32))):
            continue
        words[at] = value
        storage.write(tmp_path / "b", parts, file.config, kind=file.kind)
        with pytest.raises(FormatError, match=r"damaged|finite"):
            nearly.load(tmp_path / "b")


def test_chunks_are_as_the_core_has_them():
    assert CHUNK.itemsize == 16
    assert CHUNK.names == ("first", "count", "capacity", "next")


@pytest.mark.parametrize("quantizer", [nearly.Scalar(8), nearly.Scalar(4, "vector"), nearly.RaBitQ(1)])
def test_codes_are_ranked_as_deep_as_they_need(quantizer):
    vectors = clouds(4000)
    index = nearly.IVF(vectors, quantizer=quantizer, lists=80)
    queries = clouds(200, seed=4)
    _, truth = evaluate.exact(vectors, queries, 10, metric="l2")
    hits = index.search(queries, k=10, recall=0.95)
    assert (hits.distances <= truth[:, -1:] + 1e-5).mean() >= 0.92
    assert index.curve.kept[-1] >= 0.99
    assert (np.diff(index.curve.kept) >= 0).all()


def test_filters_that_pass_what_is_far_keep_the_recall():
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((50, 48))
    cell = rng.integers(0, 50, 6000)
    vectors = (centers[cell] + rng.standard_normal((6000, 48))).astype(np.float32)
    index, found = nearly.IVF(vectors), {(cells, target): [] for cells in (5, 15, 45) for target in (0.8, 0.95)}
    for query in (centers[rng.integers(0, 50, 30)] + rng.standard_normal((30, 48))).astype(np.float32):
        farthest = np.argsort(-((centers - query) ** 2).sum(axis=1))
        distances = ((vectors - query) ** 2).sum(axis=1)
        for (cells, target), shares in found.items():
            mask = np.isin(cell, farthest[:cells])
            ids = index.search(query, 10, where=mask, recall=target).ids
            assert mask[ids].all()
            shares.append((distances[ids] <= np.sort(distances[mask])[9] * (1 + 1e-5)).mean())
    for (cells, target), shares in found.items():
        assert np.mean(shares) >= target - 0.02, cells


def test_vectors_that_are_all_there_twice_are_measured_and_saved(tmp_path):
    vectors = np.tile(np.random.default_rng(0).standard_normal((1000, 8), dtype=np.float32), (2, 1))
    for refine in ("memory", None):
        index = nearly.IVF(vectors, refine=refine, recall=0.5)
        index.save(tmp_path / "twice.nearly")
        loaded = nearly.load(tmp_path / "twice.nearly")
        assert loaded.search(vectors[:5], 2).ids.tolist() == index.search(vectors[:5], 2).ids.tolist()
