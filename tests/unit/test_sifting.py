"""Filtered search of graphs: the planner's ways, what they deliver, and what they tell."""

import numpy as np
import pytest

import nearly
from nearly.errors import FormatError
from nearly.filters import Filter
from nearly.indexes import sifting
from nearly.indexes.ready import made_ready
from nearly.tuning import costs

N, DIM, K = 6000, 24, 10


def test_costs_rise_with_what_is_compared():
    for price in (costs.compared, costs.scanned, costs.exactly):
        assert price(64) < price(65)
    assert costs.exactly(0) == costs.compared(0) > costs.exactly(4096)


@pytest.fixture(scope="module")
def made():
    """An index in loose clusters with repeated vectors, queries, and the cluster of each vector."""
    rng = np.random.default_rng(2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(costs, "scanned", lambda *_: 500.0)  # as if there were many more: walks are worth it
        patched.setattr(costs, "exactly", lambda *_: 500.0)
        centers = rng.standard_normal((30, DIM)) * 1.2
        cluster = rng.integers(30, size=N)
        vectors = (centers[cluster] + rng.standard_normal((N, DIM))).astype(np.float32)
        vectors[:60], cluster[:60] = vectors[60:120], cluster[60:120]  # so that nodes are no rows
        queries = (centers[rng.integers(30, size=200)] + rng.standard_normal((200, DIM))).astype(np.float32)
        yield nearly.Vamana(vectors, degree=24, beam=60, seed=1), queries, cluster


def alone(index, queries, mask, few, target=0.95):
    """One way without the others: 0 walks all, 2 always hops over."""
    way = sifting.Way(sifting.made(index, K, target, few), 1 << 31, "as asked")
    return index._sift(index._queries(queries)[0], K, False, target, way, index._filter(mask), 1)


def recall(index, queries, mask, hits):
    truth = index.search(queries, K, where=mask, exact=True)
    assert mask[hits.ids[hits.ids >= 0]].all()
    return float((hits.distances <= truth.distances[:, -1:]).mean())


FILTERS = {
    "random half": lambda rng, cluster: rng.random(N) < 0.5,
    "random fifth": lambda rng, cluster: rng.random(N) < 0.2,
    "random tenth": lambda rng, cluster: rng.random(N) < 0.1,
    "random twentieth": lambda rng, cluster: rng.random(N) < 0.05,
    "some clusters": lambda rng, cluster: cluster < 6,
    "all but some clusters": lambda rng, cluster: cluster >= 6,
    "half of some clusters": lambda rng, cluster: (cluster < 8) & (rng.random(N) < 0.5),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_every_way_keeps_its_recall_however_the_filter_goes_with_the_query(made, name, target):
    index, queries, cluster = made
    mask = FILTERS[name](np.random.default_rng(3), cluster)
    for few in (0.0, 0.16, 2.0):
        assert recall(index, queries, mask, alone(index, queries, mask, few, target)) >= target - 0.01
    assert recall(index, queries, mask, index.search(queries, K, where=mask, recall=target)) >= target - 0.01
    by_codes = index._scan_by_codes(index._queries(queries)[0], K, False, index._filter(mask), 1, "")
    assert recall(index, queries, mask, by_codes) >= 0.99


@pytest.mark.parametrize("farthest", [False, True])
def test_filters_of_a_query_that_are_nearest_to_it_or_farthest(made, farthest):
    index, queries, _ = made
    vectors = index.get(np.arange(N))
    for share in (0.99, 0.5, 0.2):
        found = []
        for query in queries[:25]:
            order = np.argsort(((vectors - query) ** 2).sum(axis=1))[:: -1 if farthest else 1]
            mask = np.zeros(N, bool)
            mask[order[: int(share * N)]] = True
            found.append(recall(index, query[None], mask, index.search(query[None], K, where=mask, recall=0.95)))
        assert np.mean(found) >= 0.94


def test_less_is_compared_than_by_a_scan(made):
    index, queries, _ = made
    mask = np.random.default_rng(4).random(N) < 0.3
    hits = index.search(queries, K, where=mask, recall=0.9)
    assert "a walk takes about" in hits.plan
    assert f"{mask.sum()} of {N} vectors pass (" in hits.plan
    assert hits.stats.n_distances < 0.8 * mask.sum() * len(queries)


def test_where_a_look_at_the_query_costs_much_of_a_scan_none_is_taken(made, monkeypatch):
    index = made[0]
    comparison = sifting.prices(index)[0]
    for price in ("scanned", "exactly"):
        monkeypatch.setattr(costs, price, lambda *_: 30.0 * comparison)
    monkeypatch.setattr(costs, "prepared", lambda n_bytes, dim: 0.0)
    looks = sifting.chosen(index, K, 0.95, 60, 0.5)  # a scan takes as long as 6 looks of 300 comparisons
    monkeypatch.setattr(costs, "prepared", lambda n_bytes, dim: 60 * comparison)
    scans = sifting.chosen(index, K, 0.95, 60, 0.5)  # 5
    assert (looks.sieve is not None, looks.most) == (True, 1800)
    assert scans.sieve is None


def test_hopping_over_compares_less_where_few_pass(made):
    index, queries, _ = made
    mask = np.random.default_rng(5).random(N) < 0.05
    walk, hop = (alone(index, queries, mask, few) for few in (0.0, 2.0))
    assert hop.stats.n_distances < 0.7 * walk.stats.n_distances
    assert "queries hopped over" in hop.plan
    assert "hopped" not in walk.plan


def test_one_query_and_a_batch_agree_whatever_the_threads_and_the_filter(made):
    index, queries, _ = made
    for share in (0.5, 0.1, 0.05, 0.01, 0.001):
        mask = np.random.default_rng(6).random(N) < share
        hits = index.search(queries[:20], K, where=mask, threads=2)
        same = Filter.from_mask(mask)
        assert index.search(queries[:20], K, where=mask, threads=1).ids.tolist() == hits.ids.tolist()
        for i, query in enumerate(queries[:20]):
            for where in (mask, same, same, np.flatnonzero(mask)):
                one = index.search(query, K, where=where)
                assert one.ids.tolist() == hits[i].ids.tolist()
                assert one.distances.tolist() == hits[i].distances.tolist()
                assert one.expected_recall is not None


def test_a_walk_that_takes_too_long_is_a_scan(made):
    index, queries, cluster = made
    mask = cluster == 3
    way = sifting.Way(sifting.made(index, K, 0.95, 0.0), 400, "as asked")
    hits = index._sift(index._queries(queries)[0], K, False, 0.95, way, index._filter(mask), 1)
    assert "came back short and were scanned" in hits.plan
    assert (hits.counts == K).all()
    assert recall(index, queries, mask, hits) >= 0.95
    allowed = index._filter(mask)
    one = made_ready(index, allowed, K, way.sieve.how, way, by_codes=True)
    answers = [one.ask(index, allowed, query) for query in queries[:30]]
    assert any("as a walk came back short" in each.plan for each in answers)
    assert [each.ids.tolist() for each in answers] == [each.tolist() for each in hits.ids[:30]]


def test_fewer_than_k_pass_and_none(made):
    index, queries, _ = made
    few = np.zeros(N, bool)
    few[[5, 70, 4000]] = True
    for hits in (index.search(queries, K, where=few), alone(index, queries, few, 2.0), alone(index, queries, few, 0.0)):
        assert (np.sort(hits.ids[:, :3], axis=1) == [5, 70, 4000]).all()
        assert (hits.counts == 3).all()
    assert "exact scan; 3 of 6000 vectors pass" in index.search(queries[0], K, where=few).plan
    assert index.search(queries[0], K, where=Filter.from_mask(few)).ids.tolist() == hits[0].ids.tolist()
    nothing = index.search(queries, K, where=np.zeros(N, bool))
    assert nothing.counts.tolist() == [0] * len(queries)
    assert "none of 6000 vectors passes" in nothing.plan


@pytest.mark.parametrize("share", [0.004, 0.05, 0.9])
@pytest.mark.parametrize("n", [4, 30])
def test_batches_that_share_a_filter_are_answered_as_without_one_made_ready(made, share, n):
    index, queries, _ = made
    mask, asked = np.random.default_rng(n).random(N) < share, queries[:n].copy()
    long = index.search_many(asked.astype(float), K, where=mask, recall=0.9)  # neither queries nor filter are ready
    chosen = Filter.from_mask(mask)
    for threads in (None, 1, 3, 1):
        quick = index.search_many(asked, K, where=chosen, recall=0.9, threads=threads)
        assert quick.ids.tolist() == long.ids.tolist()
        assert quick.distances.tobytes() == long.distances.tobytes()
        assert (quick.plan, quick.expected_recall, quick.stats) == (long.plan, long.expected_recall, long.stats)
        wide = np.repeat(asked, 3, axis=0)[::3]  # rows that lie apart
        assert index.search_many(wide, K, where=chosen, recall=0.9).ids.tolist() == long.ids.tolist()
    asked[0, 0] = np.nan
    with pytest.raises(nearly.InputError, match="NaN"):
        index.search_many(asked, K, where=chosen, recall=0.9)
    few = Filter.from_rows([3, 5], N)
    assert (index.search_many(asked[1:], K, where=few).ids[:, 2:] == -1).all()  # fewer than k: the long way


def test_what_is_ready_is_made_anew_after_a_change(made):
    vectors = made[0].get(np.arange(3000))
    index = nearly.Vamana(vectors, degree=16, beam=40, seed=1)
    query = np.ascontiguousarray(made[1][0])
    for share in (0.02, 0.5):
        same = Filter.from_mask(np.random.default_rng(1).random(3000) < share)
        before = index.search(query, 5, where=same)
        assert index.search(query, 5, where=same).ids.tolist() == before.ids.tolist()
        index.remove(before.ids[:2])
        after = index.search(query, 5, where=same)
        assert after.ids.tolist() == index.search(query, 5, where=same.mask()).ids.tolist()
        assert not set(before.ids[:2].tolist()) & set(after.ids.tolist())
        index.consolidate()
        assert index.search(query, 5, where=same).ids.tolist() == after.ids.tolist()
        index.calibrate()
        assert len(index.search(query, 5, where=same)) == 5


def test_removed_rows_are_not_found_and_not_missed(made):
    vectors = made[0].get(np.arange(2000))
    index = nearly.HNSW(vectors, M=12, ef_construction=60, seed=1)
    index.remove(np.arange(0, 300))
    mask = np.random.default_rng(7).random(2000) < 0.4
    for effort in (10, 40):
        hits = index.search(made[1], K, where=mask, effort=effort)
        assert (hits.counts == K).all()
        assert (hits.ids >= 300).all()
        assert mask[hits.ids].all()
    assert recall(index, made[1], mask & (np.arange(2000) >= 300), index.search(made[1], K, where=mask)) >= 0.94


def test_what_filtered_walks_need_is_measured_where_they_are_worth_it_and_kept(made, tmp_path):
    index = made[0]
    needs = index._contract.needs
    assert needs.spread is not None
    assert (needs.factors > 0).any()
    assert (needs.work[needs.factors > 0] > 0).all()
    rng = np.random.default_rng(8)
    index.save(tmp_path / "a.nearly")
    loaded = nearly.load(tmp_path / "a.nearly")
    kept = loaded._contract.needs
    assert (kept.spread, kept.factors.tolist(), kept.work.tolist()) == (
        needs.spread, needs.factors.tolist(), needs.work.tolist(),
    )  # fmt: skip
    mask = rng.random(N) < 0.1
    asked = made[1], K
    assert loaded.search(*asked, where=mask).ids.tolist() == index.search(*asked, where=mask).ids.tolist()
    loaded._contract.needs = needs._replace(work=needs.work * np.nan)
    loaded.save(tmp_path / "b.nearly")
    with pytest.raises(FormatError, match="filtered searches"):
        nearly.load(tmp_path / "b.nearly")


def test_an_index_without_what_is_needed_scans_or_walks_all(made):
    index = nearly.Vamana(made[0].get(np.arange(3000)), degree=16, beam=40)
    index._contract.needs = None  # as of a file of 0.1.0
    index._contract.efforts.clear()
    for share in (0.02, 0.1, 0.5):
        mask = np.random.default_rng(9).random(3000) < share
        assert recall(index, made[1], mask, index.search(made[1], K, where=mask, recall=0.95)) >= 0.94


def test_codes_that_are_far_off_far_away_hide_nothing():
    """Under a filter that keeps out what is near, the code of a single vector may be the nearest by far."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((8000, 16), dtype=np.float32)
    index, found = nearly.Vamana(vectors, degree=16, beam=40), {1: [], 2: [], 10: []}
    for query in rng.standard_normal((40, 16), dtype=np.float32):
        distances = ((vectors - query) ** 2).sum(axis=1)
        mask = distances >= np.quantile(distances, 0.97)
        for k, shares in found.items():
            hits = index.search(query, k, where=Filter.from_mask(mask))
            shares.append((hits.distances <= np.sort(distances[mask])[k - 1] * (1 + 1e-5)).mean())
    for k, shares in found.items():
        assert np.mean(shares) >= 0.94, k


def test_a_filter_that_leaves_out_the_nearest_is_answered_by_those_behind_them(made):
    index, queries, _ = made
    for left_out, least in ((60, 0.9), (300, 1.0)):  # a few are walked past, queries whose surroundings go are scanned
        found = []
        for query in queries[:20]:
            mask = np.ones(N, bool)
            mask[index.search(query, k=left_out, exact=True).ids] = False
            hits = index.search(query[None], K, where=mask, recall=0.95)
            found.append(recall(index, query[None], mask, hits))
        assert np.mean(found) >= least - 0.01
    assert "scan" in hits.plan


def test_labels_and_wide_lists_go_together():
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((2500, 12), dtype=np.float32)
    labels = np.array(["a", "b"])[rng.integers(0, 2, 2500)].tolist()
    index = nearly.Vamana(vectors, degree=12, beam=40, labels=labels, filter_expansion=4)
    index.add(vectors[:50] + 0.01, labels=["a"] * 50)
    index.remove(np.arange(0, 400))
    index.consolidate()
    index.verify()
    queries = rng.standard_normal((60, 12), dtype=np.float32)
    for where in (nearly.F.label == "a", rng.random(2550) < 0.1):
        hits, truth = (index.search(queries, K, where=where, exact=exact) for exact in (False, True))
        assert (hits.counts == K).all()
        assert (hits.distances <= truth.distances[:, -1:]).mean() >= 0.93


def test_what_lies_together_is_told_from_what_is_drawn(made):
    index, _, cluster = made
    lies = {"drawn": np.random.default_rng(8).random(N) < 0.2, "together": cluster < np.quantile(cluster, 0.2)}
    uneven = {name: index._filter(mask).uneven(index) for name, mask in lies.items()}
    assert uneven["drawn"] <= 0.05
    assert uneven["together"] >= 0.5
    assert index._filter(np.ones(N, bool)).uneven(index) == 0
    assert index._graph.unevenness(np.zeros(N // 64 + 1, np.uint64)) == 0
    assert index._graph.unevenness(np.zeros(0, np.uint64)) == 0
    n = int(0.2 * N)
    even, together = (sifting.chosen(index, K, 0.95, n, each).nanoseconds for each in (0.0, 0.5))
    assert together > 2 * even


def test_a_scan_that_is_sooner_is_taken_at_once_where_queries_are_alike(made, monkeypatch):
    index = made[0]
    comparison = sifting.prices(index)[0]
    for price in ("scanned", "exactly"):
        monkeypatch.setattr(costs, price, lambda *_: 30.0 * comparison)
    monkeypatch.setattr(costs, "prepared", lambda n_bytes, dim: 0.0)
    assert sifting.chosen(index, K, 0.95, 60).sieve is None  # nothing is learned by a look
    assert sifting.chosen(index, K, 0.95, 60, 0.5).sieve is not None
