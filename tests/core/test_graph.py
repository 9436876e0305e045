"""Graphs: building, searching, repairing, through _core; what a graph promises whatever its scorer."""

import numpy as np
import pytest
from core_support import (
    NONE,
    PROMPT,
    Answer,
    Function,
    Interrupt,
    as_bytes,
    build,
    empty_answer,
    exact_distances,
    make_graph,
    make_plain,
    make_rows,
    make_table,
    pack,
    scan,
)

from nearly import _core


def clustered(rng, n, dim, n_clusters=12):
    centers = rng.standard_normal((n_clusters, dim)) * 3
    return (centers[rng.integers(0, n_clusters, n)] + rng.standard_normal((n, dim))).astype(np.float32)


def assert_well_formed(made, n, degree):
    lists = made.lists[:n]
    assert lists.shape[1] == degree
    for node, row in enumerate(lists.tolist()):
        named = [v for v in row if v != NONE]
        assert row[: len(named)] == named, "a hole in a list"
        assert len(set(named)) == len(named), "a neighbor twice"
        assert node not in named, "a node names itself"
        assert all(v < n for v in named)
    _core.check_lists(made.table, n, n, True)


# ---------------------------------------------------------------- building


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip", "l1"])
def test_a_graph_finds_what_a_scan_finds(simd_target, rng, metric):
    vectors, queries = clustered(rng, 1200, 16), clustered(rng, 40, 16)
    # Inner products leave few edges after pruning: full lists find the rest.
    made = build(vectors, metric=metric, degree=20, beam=60, fill=metric == "ip")
    made.graph.connect(40)
    truth = scan(made.scorer, made.rows, 1200, queries, 10, metric)
    got = made.search(queries, 10, width=100)
    hits = [len(set(a) & set(b)) for a, b in zip(got.ids.tolist(), truth.ids.tolist(), strict=True)]
    assert np.mean(hits) >= (9.5 if metric == "ip" else 9.8)
    expected = np.stack([exact_distances(metric, q, vectors[i]) for q, i in zip(queries, got.ids, strict=True)])
    np.testing.assert_allclose(got.distances, expected, rtol=1e-5, atol=1e-5)
    assert (np.diff(got.distances, axis=1) >= 0).all()


@pytest.mark.parametrize(("metric", "n_bytes"), [("hamming", 8), ("jaccard", 5)])
def test_a_graph_of_bits(simd_target, rng, metric, n_bytes):
    vectors = np.unique(rng.integers(0, 256, (500, n_bytes), dtype=np.uint8), axis=0)
    made = build(vectors, metric=metric, degree=16)
    made.graph.connect(40)
    got = made.search(vectors, 1, width=80)
    assert np.mean(got.distances == 0) >= 0.95


def test_a_search_does_without_a_node(simd_target, rng):
    vectors = clustered(rng, 600, 12)
    made = build(vectors, degree=16)
    made.graph.connect(40)
    everyone = np.arange(600, dtype=np.uint32)  # entries, too
    apart = made.search(vectors, 10, width=80, without=everyone)
    assert not (apart.ids == everyone[:, None]).any()
    truth = scan(made.scorer, made.rows, 600, vectors, 11, "l2").ids
    others = [[i for i in row if i != node][:10] for node, row in enumerate(truth.tolist())]
    hits = [len(set(a) & set(b)) for a, b in zip(apart.ids.tolist(), others, strict=True)]
    assert np.mean(hits) >= 9.8
    none = np.full(600, NONE, np.uint32)
    assert made.search(vectors, 10, without=none).same(made.search(vectors, 10))
    assert made.search(vectors, 10, without=none).work == made.search(vectors, 10).work


def test_a_list_that_names_the_node_to_do_without_names_one_of_its_neighbors_instead(rng):
    """On a chain 0 - 1 - 2 - 3 nobody would come past the node that is left out."""
    made = make_graph(make_plain(np.arange(4, dtype=np.float32)[:, None]), 4, degree=2)
    made.insert(np.arange(4))
    made.table.array().view(np.uint32)[:] = [[1, NONE], [0, 2], [3, 1], [2, NONE]]
    made.graph.entries = [0]
    query, without = np.array([[1.0]], np.float32), np.array([1], np.uint32)
    assert made.search(query, 4).ids.tolist() == [[1, 0, 2, 3]]
    # 0 names 1 first, so it names the first of 1's neighbors, itself: nothing new. As second it leads on to 2.
    assert made.search(query, 4, without=without).ids.tolist() == [[0, -1, -1, -1]]
    made.table.array().view(np.uint32)[0] = [0, 1]
    assert made.search(query, 4, without=without).ids.tolist() == [[0, 2, 3, -1]]


@pytest.mark.parametrize("degree", [1, 2, 5, 16])
def test_lists_are_well_formed(rng, degree):
    vectors = clustered(rng, 400, 6)
    for fill in (False, True):
        made = build(vectors, degree=degree, fill=fill)
        assert_well_formed(made, 400, degree)
        if fill and degree == 5:
            assert (made.lists != NONE).mean() > 0.9


def test_new_nodes_start_with_no_more_edges_than_asked_for(rng):
    vectors = clustered(rng, 300, 6)
    made = build(vectors[:299], degree=16)
    lone = make_graph(make_plain(vectors), 300, degree=16)
    lone.insert(np.arange(299), new_degree=16)
    assert lone.lists[:299].tobytes() == made.lists.tobytes()
    lone.insert([299], new_degree=3)
    assert (lone.lists[299] != NONE).sum() <= 3


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_the_same_lists_whatever_the_threads(rng, metric):
    vectors = clustered(rng, 700, 12)
    one = build(vectors, metric=metric, threads=1)
    for threads in (2, 4, 2):
        assert build(vectors, metric=metric, threads=threads).lists.tobytes() == one.lists.tobytes()


def test_the_same_lists_when_added_in_parts_by_any_number_of_threads(rng):
    vectors = clustered(rng, 600, 8)

    def grown(threads):
        made = make_graph(make_plain(vectors), 600)
        for part in np.array_split(np.random.default_rng(1).permutation(600), 5):
            made.insert(part, threads=threads)
        return made.lists.tobytes()

    assert grown(1) == grown(2) == grown(4)


def test_integer_data_give_the_same_graph_on_every_target(rng):
    vectors = np.unique(rng.integers(0, 256, (500, 20), dtype=np.uint8), axis=0)
    before, lists = _core.simd_target(), set()
    for target in _core.simd_targets():
        assert _core.use_simd_target(target)
        lists.add(build(vectors).lists.tobytes())
    assert _core.use_simd_target(before)
    assert len(lists) == 1


def test_a_second_pass_keeps_the_graph_whole(rng):
    vectors = clustered(rng, 500, 8)
    made = build(vectors, alpha=1.0)
    made.insert(np.arange(500), keep_old=True)
    assert_well_formed(made, 500, 12)
    got = made.search(vectors, 1)
    assert (got.ids[:, 0] == np.arange(500)).mean() > 0.99


def test_progress_is_reported_and_may_end_a_build(rng):
    vectors, seen = clustered(rng, 500, 6), []
    made = make_graph(make_plain(vectors), 500)
    made.insert(np.arange(500), progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 500

    def stop(done):
        if done > 100:
            raise RuntimeError("enough")

    again = make_graph(make_plain(vectors), 500)
    with pytest.raises(RuntimeError, match="enough"):
        again.insert(np.arange(500), progress=stop)
    assert 100 < again.graph.n_nodes < 500
    assert (again.search(vectors[:50], 1).distances == 0).mean() > 0.9
    again.insert(np.arange(again.graph.n_nodes, 500))
    assert again.graph.n_nodes == 500


# ---------------------------------------------------------------- searching


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("n_queries", [0, 1, 9])
def test_hardly_any_nodes(n, n_queries):
    made = build(np.eye(4, dtype=np.float32)[:n] if n else np.zeros((0, 4), np.float32))
    queries = np.tile(np.array([[1.0, 0.5, 0, 0]], np.float32), (n_queries, 1))
    for k in (0, 1, 5):
        got = made.search(queries, k, width=5)
        assert got.ids.tolist() == [[0, 1, 2, -1, -1][: min(k, n)] + [-1] * (k - min(k, n))] * n_queries
        assert got.counts.tolist() == [min(k, n)] * n_queries
    assert made.graph.n_nodes == n
    made.graph.connect(5)
    assert made.graph.count_unreachable() == 0


def test_an_answer_does_not_depend_on_its_company(simd_target, rng):
    vectors, queries = clustered(rng, 900, 12), clustered(rng, 101, 12)
    made = build(vectors)
    batch = made.search(queries, 8, width=30)
    shuffled = rng.permutation(101)
    for threads in (1, 2, 4):
        other = made.search(queries[shuffled], 8, width=30, threads=threads)
        assert other.same(Answer(batch.ids[shuffled], batch.distances[shuffled], batch.counts[shuffled]))
        assert other.work == batch.work
    for q in (0, 50, 100):
        alone = made.search(queries[q : q + 1], 8, width=30)
        assert alone.same(Answer(batch.ids[q : q + 1], batch.distances[q : q + 1], batch.counts[q : q + 1]))


def test_one_query_by_the_short_door_is_answered_alike(rng):
    vectors, queries = clustered(rng, 500, 12), clustered(rng, 20, 12)
    made = build(vectors)
    batch = made.search(queries, 7, width=30)
    plan = _core.Plan(12, 7, 0, 30, 7)
    for other in (
        queries[0] * np.float32(np.nan),
        queries[0].astype(np.float64),
        queries[:1],
        queries[0, :11],
        "abc",
        5,
    ):
        assert made.graph.search_one(plan, other, 500) is None
    for q, query in enumerate(queries):
        answer = made.graph.search_one(plan, query, 500)
        assert np.frombuffer(answer, np.int64, 7).tolist() == batch.ids[q].tolist()
        assert np.frombuffer(answer, np.float32, 7, 7 * 8 + 24).tolist() == batch.distances[q].tolist()
    wide = _core.Plan(12, 600, 0, 600, 600)
    answer = made.graph.search_one(wide, queries[0], 450)  # so many are to be found at least
    n = (len(answer) - 24) // 12
    assert 450 <= n <= 500
    all_ids, all_distances = np.frombuffer(answer, np.int64, n), np.frombuffer(answer, np.float32, n, 8 * n + 24)
    assert len(np.unique(all_ids)) == n
    assert all_ids[:7].tolist() == batch.ids[0].tolist()
    assert (np.diff(all_distances) >= 0).all()
    assert made.graph.search_one(wide, queries[0], n + 1) is None


def test_a_wider_search_does_more_and_finds_more(rng):
    vectors, queries = (
        rng.standard_normal((3000, 24), dtype=np.float32),
        rng.standard_normal((50, 24), dtype=np.float32),
    )
    made = build(vectors, degree=16)
    truth = scan(made.scorer, made.rows, 3000, queries, 10)
    recalls, works = [], []
    for width in (10, 40, 160):
        got = made.search(queries, 10, width=width)
        recalls.append(
            np.mean([len(set(a) & set(b)) for a, b in zip(got.ids.tolist(), truth.ids.tolist(), strict=True)])
        )
        works.append(got.work[0])
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1] > 9
    assert works == sorted(works)
    assert works[0] < works[-1] / 3


def test_every_row_of_a_node_is_answered_and_filters_act_on_rows(rng):
    vectors = clustered(rng, 60, 4)
    n_rows = 3000
    nodes = rng.integers(0, 60, n_rows)
    rows = make_rows(n_rows, ids=np.arange(n_rows), nodes=nodes, n_nodes=60)
    made = make_graph(make_plain(vectors), 60, rows=rows)
    made.insert(np.arange(60))
    got = made.search(vectors[:5], 40, width=60)
    truth = scan(made.scorer, rows, 60, vectors[:5], 40)
    assert got.same(truth)
    mask = rng.random(n_rows) < 0.1
    filtered = made.search(vectors[:5], 40, width=60, mask=mask)
    assert filtered.same(scan(made.scorer, rows, 60, vectors[:5], 40, mask=mask))


def test_travel_by_codes_is_ranked_by_the_store(rng):
    vectors = clustered(rng, 800, 16)
    store = make_plain(vectors)
    half = (np.ptp(vectors, axis=0).max() / 255).astype(np.float32)
    table = _core.Table(_core.Codes.row_bytes(16, 8, False), 800, 800)
    center = ((vectors.min(axis=0) + vectors.max(axis=0)) / 2).astype(np.float32)
    none = np.zeros(0, np.float32)
    codes = _core.Codes(
        table, 16, 16, 8, False, 0, 0.0, center, np.full(16, half), np.zeros(0, np.int8), none, none, none
    )
    codes.fill(store, 0, 800)
    made = make_graph(codes, 800, degree=16, store=store)
    made.insert(np.arange(800))
    got = made.search(vectors[:100], 10, width=60, depth=30)
    truth = scan(store, made.rows, 800, vectors[:100], 10)
    assert (got.ids == truth.ids).mean() > 0.98
    assert not got.distances[:, 0].any()  # exact: a stored vector is at 0, whatever its code
    assert got.work[2] == 100 * 30
    narrow = made.search(vectors[:100], 10, width=10, depth=30)  # twice k are kept for the ranking, no more
    assert narrow.work[2] == 100 * 20
    assert (narrow.ids == truth.ids).mean() > (made.search(vectors[:100], 10, width=10).ids == truth.ids).mean()


def levels(widths, reaches=None, bounds=(), probe=6, anchor=10):
    """Return the settings of a search whose effort follows from its first hops."""
    reaches = [np.inf] * len(widths) if reaches is None else reaches
    return {"probe": probe, "anchor": anchor, "bounds": np.array(bounds, np.float32),
            "widths": np.array(widths, np.uint32), "reaches": np.array(reaches, np.float32)}  # fmt: skip


@pytest.mark.parametrize(("widths", "reaches"), [([10, 40, 160], None), ([160] * 3, [0.0, 0.3, 1.0])])
def test_the_effort_follows_from_the_first_hops(rng, widths, reaches):
    vectors, queries = clustered(rng, 2000, 8), clustered(rng, 60, 8)
    made, settings = build(vectors), levels(widths, reaches, [1.0, 4.0])
    hardness = np.full(60, np.nan, np.float32)
    got = made.search(queries, 10, hardness=hardness, **settings)
    assert (hardness >= 0).all()
    level = np.searchsorted(settings["bounds"], hardness)
    assert len(set(level.tolist())) > 1, "the data must show more than one level"
    again = np.full(60, np.nan, np.float32)
    other = made.search(queries[::-1], 10, hardness=again, threads=2, **settings)
    assert again[::-1].tolist() == hardness.tolist()
    assert other.ids[::-1].tolist() == got.ids.tolist()
    if reaches is not None:  # each query is answered as by the reach of its level alone
        for at in set(level.tolist()):
            alone = made.search(queries[level == at], 10, **levels([160], reaches[at : at + 1]))
            assert alone.ids.tolist() == got.ids[level == at].tolist()


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_a_reach_ends_a_walk_where_the_next_candidate_is_too_far(simd_target, rng, metric):
    vectors, queries = clustered(rng, 3000, 16), clustered(rng, 40, 16)
    made = build(vectors, metric=metric, degree=16, beam=60, fill=metric == "ip")
    truth = scan(made.scorer, made.rows, 3000, queries, 10, metric)
    works, recalls = [], []
    for reach in (-0.5, 0.0, 0.1, 0.5, 2.0, np.inf):
        got = made.search(queries, 10, width=200, **levels([200], [reach]))
        works.append(got.work[0])
        recalls.append(
            np.mean([len(set(a) & set(b)) for a, b in zip(got.ids.tolist(), truth.ids.tolist(), strict=True)])
        )
    assert works[:-1] == sorted(works[:-1])
    assert works[0] < works[-1] / 2
    assert recalls[0] < recalls[-1]
    assert recalls[-2] >= recalls[-1] - 0.2
    fixed = made.search(queries, 10, width=200)  # an infinite reach is none
    assert (got.ids.tolist(), got.work) == (fixed.ids.tolist(), fixed.work)


def test_hardness_does_not_depend_on_earlier_queries(rng):
    # A search that ends before the probe has a hardness too: the best distance that it saw.
    vectors = np.array([[0.0], [1.0], [5.0]], np.float32)
    made = build(vectors)
    queries = np.array([[0.5], [9.0], [5.0], [100.0]], np.float32)
    hardness = np.full(4, np.nan, np.float32)
    made.search(queries, 1, hardness=hardness, **levels([10], probe=50))
    assert hardness.tolist() == [0.25, 16.0, 0.0, 95.0**2]


def test_a_search_below_layers_starts_from_the_entries_too():
    # Node 0 is the entry; the descent leads from it to 1, and 3, the nearest, hangs on 0 alone.
    plain = make_plain(np.array([[100], [10], [5], [0]], np.float32))
    ground, upper, slots = make_table(8, 4), make_table(8, 2), make_table(4, 4)
    ground.array().view(np.uint32)[:] = [[3, 1], [2, NONE], [1, NONE], [NONE, NONE]]
    upper.array().view(np.uint32)[:, 0] = [1, 0]
    slots.array().view(np.uint32)[:2, 0] = [0, 1]
    graph = _core.Graph([ground, upper], [slots], [0], plain, plain, make_rows(4), 4)
    assert graph.count_unreachable() == 0
    answer = Answer(np.empty((1, 4), np.int64), np.empty((1, 4), np.float32), np.empty(1, np.uint32))
    graph.search(4, as_bytes(np.array([[-1]], np.float32)), 0, 10, 4, *answer[:3])
    assert answer.ids.tolist() == [[3, 2, 1, 0]]


# ---------------------------------------------------------------- keeping whole


def test_connect_makes_every_node_reachable(rng):
    # Clusters far apart, and lists too short to hold bridges.
    vectors = np.concatenate([clustered(rng, 150, 4, 1) + 1000 * i for i in range(6)])
    made = build(vectors, degree=4, beam=10)
    made.graph.connect(20)
    assert made.graph.count_unreachable() == 0
    assert made.reachable() == set(range(len(vectors)))
    assert_well_formed(made, len(vectors), 4)


def test_count_unreachable_counts(rng):
    vectors = clustered(rng, 50, 4, 1)
    made = build(vectors)
    made.graph.connect(20)
    assert made.graph.count_unreachable() == 0
    lists = made.lists
    lists[lists == 7] = lists[7, 0]  # nobody names node 7 any more
    lost = set(range(50)) - made.reachable()
    assert 7 in lost
    assert made.graph.count_unreachable() == len(lost)
    made.graph.entries = [*made.graph.entries, 7]
    assert made.graph.count_unreachable() == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_consolidation_leaves_no_dead_names(rng, threads):
    vectors = clustered(rng, 600, 8)
    made = build(vectors)
    dead = np.zeros(600, np.uint8)
    dead[rng.permutation(600)[:250]] = 1
    gone = np.flatnonzero(dead).astype(np.uint32)
    made.rows.unlink(gone, gone)
    made.graph.consolidate(dead, 40, 12, 1.2, threads)
    made.graph.connect(40)
    alive = np.flatnonzero(dead == 0)
    assert not set(gone.tolist()) & set(made.lists[alive].ravel().tolist())
    assert not set(gone.tolist()) & set(made.graph.entries)
    assert made.reachable() == set(alive.tolist())
    assert_well_formed(made, 600, 12)
    got = made.search(vectors[alive], 1)
    assert (got.ids[:, 0] == alive).mean() > 0.99
    again = build(vectors)
    again.graph.consolidate(dead, 40, 12, 1.2, 3 - threads)
    assert again.lists[alive].tobytes() != build(vectors).lists[alive].tobytes()


def pruned(node, candidates, vectors, limit, alpha):
    """The rule of Vamana in NumPy (DiskANN, section 2.4), by squared distances: the nearest that none kept covers."""
    between = ((vectors[candidates, None] - vectors[candidates]) ** 2).sum(axis=-1)
    own = ((vectors[candidates] - vectors[node]) ** 2).sum(axis=-1)
    order, kept = np.lexsort((candidates, own)), []
    for a in (1.0, alpha):
        for i in order:
            nearer = [j for j in kept if (own[j], candidates[j]) < (own[i], candidates[i])]
            if i not in kept and len(kept) < limit and all(own[i] <= np.float32(a) * between[i, j] for j in nearer):
                kept.append(i)
    return {int(candidates[i]) for i in kept}


def test_a_list_that_loses_names_takes_from_the_lists_of_the_lost(rng):
    vectors = np.rint(clustered(rng, 400, 6) * 20).astype(np.float32)  # whole: distances are exact
    made = build(vectors, degree=8)
    before, dead = made.lists.copy(), rng.random(400) < 0.3
    made.graph.consolidate(dead.astype(np.uint8), 40, 8, 1.2)
    n_pruned = 0
    for node in np.flatnonzero(~dead).tolist():
        named, now = set(before[node].tolist()) - {NONE}, set(made.lists[node].tolist()) - {NONE}
        lost = [v for v in named if dead[v]]
        if not lost:
            assert now == named
            continue
        offered = named.union(*(before[v].tolist() for v in lost)) - {NONE, node}
        offered = np.array(sorted(v for v in offered if not dead[v]))
        if len(offered) <= 8:
            assert now == set(offered.tolist())
        else:
            assert now == pruned(node, offered, vectors, 8, 1.2)
            n_pruned += 1
    assert n_pruned > 100


def test_consolidation_does_not_depend_on_threads(rng):
    vectors = clustered(rng, 400, 8)
    dead = (rng.random(400) < 0.3).astype(np.uint8)
    lists = []
    for threads in (1, 2, 4):
        made = build(vectors)
        made.graph.consolidate(dead, 40, 12, 1.2, threads)
        lists.append(made.lists.tobytes())
    assert lists[0] == lists[1] == lists[2]


def test_everything_may_die(rng):
    vectors = clustered(rng, 30, 4)
    made = build(vectors)
    every = np.arange(30, dtype=np.uint32)
    made.rows.unlink(every, every)
    made.graph.consolidate(np.ones(30, np.uint8), 20, 12, 1.2, 1)
    assert made.graph.entries == []
    assert made.search(vectors[:3], 2).counts.tolist() == [0, 0, 0]
    made.rows.link(every, np.arange(30, 60), every)  # the places are free again
    made.lists[:] = NONE
    made.insert(every)
    made.graph.connect(20)
    assert made.search(vectors, 1).ids[:, 0].tolist() == list(range(30, 60))


def test_freed_nodes_take_new_vectors(rng):
    vectors = clustered(rng, 300, 6)
    made = build(vectors)
    dead = np.zeros(300, np.uint8)
    dead[50:100] = 1
    gone = np.arange(50, 100, dtype=np.uint32)
    made.rows.unlink(gone, gone)
    made.graph.consolidate(dead, 40, 12, 1.2, 1)
    made.graph.wait_for_readers()
    made.lists[gone] = NONE
    fresh = clustered(rng, 50, 6)
    made.scorer.fill(50, as_bytes(fresh))
    made.rows.link(gone, np.arange(1000, 1050), gone)
    made.insert(gone)
    made.graph.connect(40)
    assert made.graph.count_unreachable() == 0
    assert made.search(fresh, 1).ids[:, 0].tolist() == list(range(1000, 1050))
    assert_well_formed(made, 300, 12)


# ---------------------------------------------------------------- a Python function as the metric


def build_function(items, **more):
    function = Function(items)
    made = make_graph(_core.Callable(function, len(items)), len(items), degree=6, metric="l1")
    made.insert(np.arange(len(items)), **more)
    made.graph.connect(20)
    return made, function


def ask(made, function, queries, k=3, **more):
    function.queries = queries
    return made.search(np.arange(len(queries), dtype=np.int64)[:, None], k, width=20, **more)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_function_is_a_metric(rng, threads):
    items = rng.permutation(1000)[:200]
    made, function = build_function(items, threads=threads)
    queries = items[:40] + 0.25
    got = ask(made, function, queries, threads=threads)
    expected = np.sort(np.abs(items[None] - queries[:, None]), axis=1)[:, :3]
    assert (got.distances == expected).mean() > 0.97
    assert made.lists.tobytes() == build_function(items)[0].lists.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failing_metric_ends_a_search_and_leaves_the_index_as_it_was(rng, threads):
    items = rng.permutation(1000)[:200]
    made, function = build_function(items)
    queries = items[:30] + 0.25
    before = ask(made, function, queries)
    for fail_at in (1, 2, 5, 40, 90):
        function.calls, function.fail_at = 0, fail_at
        with pytest.raises(ZeroDivisionError, match="the metric failed"):
            ask(made, function, queries, threads=threads)
        function.fail_at = -1
        assert ask(made, function, queries).same(before)


def test_a_failed_search_does_not_disturb_a_build_on_the_same_thread(rng):
    items = rng.permutation(1000)[:200]
    expected = build_function(items)[0].lists.tobytes()
    made, function = build_function(items)
    for fail_at in (3, 20, 60):
        function.calls, function.fail_at = 0, fail_at
        with pytest.raises(ZeroDivisionError):
            ask(made, function, items[:30] + 0.25)
        assert build_function(items)[0].lists.tobytes() == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failing_metric_ends_a_build_and_leaves_a_searchable_graph(rng, threads):
    items = rng.permutation(2000)[:300]
    for fail_at in (1, 10, 300, 1500):
        function = Function(items)
        made = make_graph(_core.Callable(function, 300), 300, degree=6, metric="l1")
        function.fail_at = fail_at
        with pytest.raises(ZeroDivisionError):
            made.insert(np.arange(300), threads=threads)
        function.fail_at = -1
        done = made.graph.n_nodes
        assert done < 300
        if done:
            made.graph.connect(20)
            assert made.graph.count_unreachable() == 0
            found = ask(made, function, items[:done].astype(float), k=1)
            assert (found.distances == 0).mean() > 0.95
        dead = (np.arange(done) % 3 == 0).astype(np.uint8)
        made.graph.consolidate(dead, 20, 6, 1.2, threads)  # lists may name nodes that were never finished
        kept = made.lists[:done][dead == 0]
        assert (dead[kept[kept != NONE]] == 0).all()  # those names are gone as well, or this index is out of range
        made.insert(np.arange(done, 300), threads=threads)
        made.graph.connect(20)
        assert made.graph.n_nodes == 300


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda rows: np.zeros(len(rows) + 1, np.float32), ValueError),
        (lambda rows: np.zeros((len(rows), 1), np.float32), Exception),
        (lambda rows: None, Exception),
        (lambda rows: np.full(len(rows), np.nan, np.float32), ValueError),
    ],
    ids=["too many", "wrong shape", "nothing", "not numbers"],
)
def test_a_metric_that_answers_nonsense_is_an_error(answer, error):
    scorer = _core.Callable(lambda stored, which, rows: answer(rows), 40)
    made = make_graph(scorer, 40, degree=6, metric="l1")
    with pytest.raises(error):
        made.insert(np.arange(40))


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_build_fast_and_leaves_a_searchable_graph(rng, threads):
    vectors = rng.standard_normal((20_000, 32), dtype=np.float32)
    made = make_graph(make_plain(vectors), 20_000, degree=24)
    with pytest.raises(KeyboardInterrupt), Interrupt(0.15) as interrupt:
        made.insert(np.arange(20_000), beam=200, threads=threads)
    assert interrupt.late < PROMPT * threads
    done = made.graph.n_nodes
    assert 100 < done < 20_000
    got = made.search(vectors[: done // 4], 1, width=100)
    assert (got.distances == 0).mean() > 0.95


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_search_fast(rng, threads):
    vectors = rng.standard_normal((2000, 16), dtype=np.float32)
    made = build(vectors, beam=20)
    queries = np.repeat(vectors, 50, axis=0)
    with pytest.raises(KeyboardInterrupt), Interrupt(0.1) as interrupt:
        made.search(queries, 10, width=400, threads=threads)
    assert interrupt.late < PROMPT * threads
    assert (made.search(vectors[:200], 1).distances == 0).mean() > 0.9


def test_ctrl_c_ends_connecting_fast_and_leaves_what_the_next_call_completes(rng):
    n = 30_000
    plain = make_plain(rng.standard_normal((n, 24), dtype=np.float32))
    lists, rows = make_table(4 * 8, n), make_rows(n)
    graph = _core.Graph([lists], [], [0], plain, plain, rows, n)
    with pytest.raises(KeyboardInterrupt), Interrupt(0.1) as interrupt:
        graph.connect(100)
    assert interrupt.late < PROMPT
    lost = graph.count_unreachable()
    assert 0 < lost < n - 100
    _core.check_lists(lists, n, n, True)
    small = _core.Graph([make_table(4 * 8, 500)], [], [0], plain, plain, rows, 500)
    small.connect(20)
    assert small.count_unreachable() == 0


# ---------------------------------------------------------------- labels


def with_labels(made, sets, n_labels):
    """Tell a graph which labels each node has; returns the table of entries."""
    distinct = sorted({tuple(sorted(labels)) for labels in sets if labels})
    number = {labels: i + 1 for i, labels in enumerate(distinct)} | {(): 0}
    members = np.array([label for labels in distinct for label in labels], np.uint16)
    ends = np.cumsum([0, *map(len, distinct)]).astype(np.uint32)
    of_node, end_table, member_table, entries = (
        make_table(stride, n) for stride, n in ((4, len(sets)), (4, len(ends)), (2, len(members)), (32, n_labels))
    )
    of_node.array().view(np.uint32)[:, 0] = [number[tuple(sorted(labels))] for labels in sets]
    end_table.array().view(np.uint32)[:, 0] = ends
    member_table.array().view(np.uint16)[:, 0] = members
    made.graph.set_labels(of_node, end_table, member_table, entries)
    return entries


def some_labels(rng, n):
    """None, one or two of three labels, half, a fifth and a twentieth of the nodes."""
    return [{label for label, share in enumerate((0.5, 0.2, 0.05)) if rng.random() < share} for _ in range(n)]


def search_among(made, mask, starts, queries, k, width):
    ids, distances, counts = empty_answer(len(queries), k)[:3]
    made.graph.search(
        queries.shape[1] * 4, as_bytes(queries), 0, width, k, ids, distances, counts, pack(mask),
        among=pack(mask), starts=np.asarray(starts, np.uint32),
    )  # fmt: skip
    return ids


@pytest.mark.parametrize("threads", [1, 3])
def test_walks_among_a_label_reach_all_that_has_it(rng, threads):
    n = 2000
    vectors, queries, sets = clustered(rng, n, 12), clustered(rng, 50, 12), some_labels(rng, n)
    made = make_graph(make_plain(vectors), n, degree=20)
    entries = with_labels(made, sets, 3)
    made.insert(np.arange(n), threads=threads, beam=60)
    made.graph.connect(60)
    assert made.graph.connect_labels(60) == 0
    assert_well_formed(made, n, 20)
    lists = made.lists[:n].tolist()
    for label in range(3):
        mask = np.array([label in labels for labels in sets])
        starts = [e for e in entries.array().view(np.uint32)[label].tolist() if e != NONE]
        assert starts[:3] == np.flatnonzero(mask)[:3].tolist()  # the first that were inserted
        seen, pending = set(starts), list(starts)
        while pending:
            fresh = {v for v in lists[pending.pop()] if v != NONE and mask[v]} - seen
            seen |= fresh
            pending += fresh
        assert seen == set(np.flatnonzero(mask).tolist())
        ids = search_among(made, mask, starts, queries, 5, 80)
        assert mask[ids].all()
        true = scan(made.scorer, made.rows, n, queries, 5, "l2", mask=mask).ids
        assert np.mean([len(set(a) & set(b)) for a, b in zip(ids.tolist(), true.tolist(), strict=True)]) >= 4.8


def test_lists_made_for_labels_do_not_depend_on_threads_and_no_labels_change_nothing(rng):
    vectors, sets = clustered(rng, 900, 8), some_labels(rng, 900)
    lists = []
    for labels, threads in ((sets, 1), (sets, 3), ([set()] * 900, 1), (None, 1)):
        made = make_graph(make_plain(vectors), 900, degree=12)
        if labels is not None:
            with_labels(made, labels, 3)
        made.insert(np.arange(900), threads=threads)
        lists.append(np.array(made.lists[:900]))
    assert (lists[0] == lists[1]).all()
    assert (lists[2] == lists[3]).all()
    assert (lists[0] != lists[3]).any()


def test_a_neighbor_hides_no_other_with_a_label_that_it_lacks(rng):
    # On a line: 1 is nearer to 2 than 0 is, and hides it from 0, unless 2 shares a label with 0 which 1 has not.
    vectors = np.array([[0.0], [1.0], [1.5], [40.0]], np.float32)
    for sets, near in (([{0}, {0}, {0}, set()], [1]), ([{0}, {1}, {0}, set()], [1, 2]), ([{0}, {0}, {1}, set()], [1]),
                       ([set(), {0}, {1}, set()], [1]), ([{0, 1}, {0}, {0, 1}, set()], [1, 2])):  # fmt: skip
        made = make_graph(make_plain(vectors), 4, degree=3)
        with_labels(made, sets, 2)
        made.insert(np.array([1, 2, 3, 0]), alpha=1.0)
        assert [v for v in made.lists[0].tolist() if v in (1, 2)] == near, sets


def test_damaged_labels_are_refused(rng):
    made = make_graph(make_plain(rng.standard_normal((10, 4), dtype=np.float32)), 10, degree=4)

    def tables(of_node=(0,) * 10, ends=(0, 1), members=(0,), n_labels=1, entry=NONE, stride=2):
        made_of = [make_table(4, len(of_node)), make_table(4, len(ends)), make_table(stride, len(members))]
        for table, values, dtype in zip(made_of, (of_node, ends, members), ("u4", "u4", f"u{stride}"), strict=True):
            table.array().view(dtype)[:, 0] = values
        entries = make_table(32, n_labels)
        entries.array().view(np.uint32)[:, 0] = entry
        return *made_of, entries

    made.graph.set_labels(*tables())
    for wrong in ({"of_node": (2,) * 10}, {"ends": (1, 1)}, {"ends": (0, 2)}, {"ends": (0, 2, 1), "members": (0,)},
                  {"members": (1,)}, {"ends": (0, 2), "members": (0, 0), "n_labels": 1}, {"entry": 10}, {"stride": 4},
                  {"ends": ()}):  # fmt: skip
        with pytest.raises(ValueError, match="set_labels"):
            made.graph.set_labels(*tables(**wrong))
    made.graph.set_labels(*tables(of_node=(0,) * 9))
    with pytest.raises(ValueError, match="labels of some nodes"):
        made.insert(np.arange(10))
    with pytest.raises(ValueError, match="starts of its own"):
        made.graph.search(
            16, as_bytes(np.zeros((1, 4), np.float32)), 0, 4, 1, *empty_answer(1, 1)[:3], among=pack(np.ones(10, bool))
        )
