"""Searches among what passes a filter, through _core: what is found, in how much work, whatever walks beside."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from core_support import METRICS, NONE, as_bytes, build, coded, empty_answer, make_plain, make_rows, over, pack, scan

import nearly
from nearly import _core

N, DIM, K = 1500, 16, 10


def sifting(few, *, ranks=(10, 100), reaches=(0.4, 0.2), hops=(0.7, 0.7), works=0.0, lists=(30, 100)):
    """One level; `few` of 0 walks all, of 2 always hops over."""
    return _core.Sifting(
        np.array(ranks, np.uint32), np.array([reaches], np.float32), np.array([lists], np.float32),
        np.array([0.1, 0.0], np.float32), np.array([hops], np.float32), np.full((1, 2), works, np.float32), few,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((N, DIM), dtype=np.float32)
    graph = build(vectors, degree=20, beam=60)
    graph.graph.connect(40)
    return graph, vectors, rng.standard_normal((40, DIM), dtype=np.float32)


def some_of(mask):
    return np.flatnonzero(mask)[:: max(1, mask.sum() // 16)][:16].astype(np.uint32)


def search(made, mask, few, *, queries=None, most=1 << 31, **more):
    graph, _, asked = made
    share = max(1, mask.sum()) / N
    options = {
        "sifting": sifting(few), "nodes": pack(mask), "seeds": some_of(mask), "share": share, "most_work": most,
        "probe": 8, "bounds": np.zeros(0, np.float32), "widths": np.array([N], np.uint32), "anchor": 10,
        "reaches": np.array([0.4], np.float32), "stretch": 1 / share, "depth": 40, **more,
    }  # fmt: skip
    return graph.search(asked if queries is None else queries, K, N, mask=mask, **options)


@pytest.mark.parametrize("few", [0.0, 0.15, 2.0])
@pytest.mark.parametrize("share", [0.03, 0.2, 0.7])
def test_a_walk_finds_what_a_scan_of_what_passes_finds(simd_target, rng, made, few, share):
    mask = rng.random(N) < share
    got = search(made, mask, few)
    truth = scan(make_plain(made[1]), make_rows(N), N, made[2], K, mask=mask)

    assert mask[got.ids[got.ids >= 0]].all()
    assert (np.diff(got.distances, axis=1) >= 0).all()
    full = got.counts == K  # a walk that was cut short answers nothing
    assert full.mean() >= 0.9
    assert (got.distances <= truth.distances[:, -1:])[full].mean() >= (0.8 if share < 0.1 else 0.95)


def test_answers_do_not_depend_on_company_threads_or_target(simd_target, rng, made):
    mask = rng.random(N) < 0.15
    for few in (0.0, 2.0):
        got = search(made, mask, few)
        for other in (search(made, mask, few, threads=3), search(made, mask, few)):
            assert other.ids.tolist() == got.ids.tolist()
            assert other.work == got.work
        alone = [search(made, mask, few, queries=made[2][i : i + 1]).ids[0].tolist() for i in range(10)]
        assert alone == got.ids[:10].tolist()
        _core.use_simd_target("baseline")
        assert search(made, mask, few).work[:2] == got.work[:2]


def test_hopping_over_compares_less_where_few_pass(rng, made):
    mask = rng.random(N) < 0.1
    walked, hopped = search(made, mask, 0.0), search(made, mask, 2.0)
    assert hopped.work[0] < 0.7 * walked.work[0]
    assert walked.work[3] == 0
    assert hopped.work[3] == len(made[2])


@pytest.mark.parametrize("few", [0.0, 2.0])
def test_a_walk_gives_up_within_its_work(made, few):
    mask = np.zeros(N, bool)
    mask[-30:] = True
    for most in (100, 300, 1000):
        got = search(made, mask, few, queries=made[2][:1], most=most)
        spent = got.work[0] + 3 * got.work[1]
        assert spent <= 1.5 * most + 4 * 20 * 21 + 400  # the last turn, and the probe, are not broken off
        assert got.counts[0] in (0, K)


def test_a_walk_gives_up_at_once_where_that_is_foretold(rng, made):
    mask = rng.random(N) < 0.1
    long, short = (sifting(2.0, works=works) for works in (1e6, 0.0))
    given_up = search(made, mask, 2.0, sifting=long, most=100_000)
    assert given_up.work[4] == len(made[2])
    assert given_up.counts.tolist() == [0] * len(made[2])
    assert search(made, mask, 2.0, sifting=short, most=100_000).work[4] == 0
    far = sifting(0.0, lists=(1e6, 1e6))
    assert search(made, mask, 0.0, sifting=far, most=100_000).work[4] == len(made[2])
    for works, gives_up in ((127_000, False), (128_500, True)):  # 1.275 scans beside what was done, at most 1,000 here
        found = search(made, mask, 2.0, sifting=sifting(2.0, works=works), most=100_000)
        assert found.work[4] == gives_up * len(made[2])


def test_a_filter_against_the_query_is_not_hopped_over(made):
    vectors, query = made[1], made[2][:1]
    mask = np.argsort(np.argsort(((vectors - query) ** 2).sum(axis=1))) >= N - 700  # the farther half
    got = search(made, mask, 2.0, queries=query)
    assert got.work[3] == 0
    assert got.counts[0] in (0, K)


@pytest.mark.parametrize("left_out", [100, 600])
def test_a_walk_gives_up_where_it_sees_that_most_of_what_is_near_does_not_pass(made, left_out):
    vectors, query = made[1], made[2][:1]
    mask = np.argsort(np.argsort(((vectors - query) ** 2).sum(axis=1))) >= left_out
    got = search(made, mask, 0.0, queries=query)
    assert (got.work[4], got.counts[0]) == (1, 0)
    assert got.work[1] <= 2 * 100  # lists of what is nearer than what passes, not of all within reach of that


def test_a_node_may_be_left_out_of_a_filtered_walk(rng, made):
    mask = rng.random(N) < 0.3
    apart = np.flatnonzero(mask)[:20].astype(np.uint32)
    for few in (0.0, 2.0):
        got = search(made, mask, few, queries=made[1][apart], without=apart)
        assert not (got.ids == apart[:, None]).any()
        assert search(made, mask, few, queries=made[1][apart]).ids[:, 0].tolist() == apart.tolist()


def test_one_query_by_the_short_way_is_answered_alike(rng, made):
    graph, _, asked = made
    mask = rng.random(N) < 0.3
    bounds, widths, reaches = np.zeros(0, np.float32), np.array([N], np.uint32), np.array([0.4], np.float32)
    plan = _core.Plan(DIM, K, 0, N, 40, 8, bounds, widths, reaches, 10)
    share = mask.sum() / N
    for few in (0.0, 2.0):
        found = search(made, mask, few, most=100_000)
        for i, query in enumerate(asked[:10]):
            short = graph.graph.sift_one(
                plan, sifting(few), pack(mask), pack(mask), some_of(mask), share, 100_000, K, query
            )
            assert np.frombuffer(short, np.int64, K).tolist() == found.ids[i].tolist()
    assert graph.graph.sift_one(
        plan, sifting(0.0), pack(mask), pack(mask), some_of(mask), share, 10, K, asked[0]
    ) is None  # fmt: skip


# ---------------------------------------------------------------- scans


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_a_scan_by_codes_finds_what_a_wide_spread_lets_it(simd_target, rng, share):
    vectors = rng.standard_normal((N, DIM), dtype=np.float32)
    queries, rows = rng.standard_normal((20, DIM), dtype=np.float32), make_rows(N)
    exact, coarse = make_plain(vectors), make_plain(np.round(vectors * 2) / 2)
    only = np.flatnonzero(rng.random(N) < share).astype(np.uint32)
    mask = np.isin(np.arange(N), only)
    truth = scan(exact, rows, N, queries, K, mask=mask)
    raw, wanted = as_bytes(queries), min(K, len(only))
    for spread, least in ((0.0, 0.3), (0.3, 0.99), (1e6, 1.0)):
        got = empty_answer(len(queries), K)
        work = _core.scan_coded(exact, coarse, spread, rows, N, raw.shape[1], raw, 0, *got[:3], pack(mask), only)
        assert work[0] == len(queries) * len(only)
        assert work[1] <= len(queries) * len(only)
        assert got.counts.tolist() == [wanted] * len(queries)
        assert (got.distances[:, :wanted] <= truth.distances[:, wanted - 1 : wanted]).mean() >= least
        short = _core.ChosenScan(exact, coarse, spread, rows, N, K, 0, pack(mask), pack(mask), wanted).find(queries[3])
        assert np.frombuffer(short, np.int64, wanted).tolist() == got.ids[3, :wanted].tolist()
        if spread == 1e6:
            assert got.ids.tolist() == truth.ids.tolist()
            plain = _core.ChosenScan(exact, None, 0.0, rows, N, K, 0, pack(mask), pack(mask), wanted).find(queries[3])
            assert np.frombuffer(plain, np.int64, wanted).tolist() == truth.ids[3, :wanted].tolist()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize(("dim", "code"), [(8, "scalar"), (61, "scalar"), (96, "dimension"), (40, "reduced")])
def test_a_panel_of_queries_is_answered_as_each_alone(simd_target, rng, metric, dim, code):
    n = 500
    vectors = (rng.standard_normal((n, dim)) * np.linspace(3, 0.3, dim)).astype(np.float32)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spec = nearly.Reduced(energy=0.8) if code == "reduced" else nearly.Scalar(8, "global" if dim < 90 else "dimension")
    codes = coded(spec.fit(vectors, metric=metric), vectors)[0]
    exact, rows, number = make_plain(vectors, metric), make_rows(n), METRICS.index(metric)
    assert codes.panel_width in (8, 16, 32)
    some = np.flatnonzero(rng.random(n) < 0.6).astype(np.uint32)
    everything = pack(np.ones(n, bool))
    for n_queries in (4, 9, 33, 70):
        queries = rng.standard_normal((n_queries, dim), dtype=np.float32)
        raw = as_bytes(queries)
        for only in (some, None):
            got = empty_answer(n_queries, K)
            bits = None if only is None else everything
            work = _core.scan_coded(
                exact, codes, 0.05, rows, n, raw.shape[1], raw, number, *got[:3], bits, only, threads=1 + n_queries % 7
            )
            counted = np.zeros(2, int)
            for i in range(n_queries):
                one = empty_answer(1, K)
                counted += _core.scan_coded(
                    exact, codes, 0.05, rows, n, raw.shape[1], raw[i : i + 1], number, *one[:3], bits, only
                )
                assert one.ids[0].tolist() == got.ids[i].tolist()
                assert one.distances[0].tolist() == got.distances[i].tolist()
            assert work == tuple(counted)


def test_panels_are_scored_by_the_kernels_that_they_were_packed_for(rng):
    vectors = rng.standard_normal((4000, 32), dtype=np.float32)
    codes, exact, rows = coded(nearly.Scalar(8).fit(vectors), vectors)[0], make_plain(vectors), make_rows(4000)
    raw, before = as_bytes(rng.standard_normal((256, 32), dtype=np.float32)), _core.simd_target()
    found = []

    def ask():
        got = empty_answer(256, K)
        _core.scan_coded(exact, codes, 0.3, rows, 4000, raw.shape[1], raw, 0, *got[:3], threads=1)
        return got.ids

    truth = ask()
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = [pool.submit(ask) for _ in range(20)]
            while not all(each.done() for each in asked):
                for target in _core.simd_targets():
                    _core.use_simd_target(target)
            found = [each.result() for each in asked]
    finally:
        _core.use_simd_target(before)
    assert all((ids == truth).mean() > 0.99 for ids in found)  # the vectors' own distances end in other bits


def test_a_panel_of_queries_meets_only_nodes_that_hold_rows(simd_target, rng):
    n, dim = 300, 20
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    of_rows = np.concatenate([np.arange(n), rng.integers(0, n, 200)]).astype(np.uint32)  # some hold several
    rows = make_rows(len(of_rows), nodes=of_rows, n_nodes=n)
    gone = np.flatnonzero(of_rows % 3 == 0).astype(np.uint32)
    rows.unlink(gone, of_rows[gone])
    codes, exact = coded(nearly.Scalar(8).fit(vectors), vectors)[0], make_plain(vectors)
    queries = rng.standard_normal((40, dim), dtype=np.float32)
    raw, got, truth = as_bytes(queries), empty_answer(40, K), empty_answer(40, K)
    work = _core.scan_coded(exact, codes, 1e6, rows, n, raw.shape[1], raw, 0, *got[:3], threads=1)
    _core.scan(exact, rows, n, raw.shape[1], raw, 0, *truth[:3])
    assert work == (40 * 200, 40 * 200)
    assert got.ids.tolist() == truth.ids.tolist()
    assert (of_rows[got.ids] % 3 != 0).all()


def test_a_scan_by_codes_compares_only_what_they_cannot_tell_apart(rng):
    n = 14000
    vectors = rng.standard_normal((n, 4), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[::2] *= 3
    rows, scorer, query = make_rows(n), make_plain(vectors), np.zeros((1, 4), np.float32)
    got, raw, everything = empty_answer(1, K), as_bytes(query), np.arange(n, dtype=np.uint32)
    bits = pack(np.ones(n, bool))
    work = _core.scan_coded(scorer, scorer, 0.5, rows, n, raw.shape[1], raw, 0, *got[:3], bits, everything)
    assert work == (n, n // 2)
    assert (got.ids % 2 == 1).all()


# ---------------------------------------------------------------- bits


def hanging(nodes):
    return _core.NodeRuns(_core.Table.borrow(nodes.view(np.uint8).reshape(len(nodes), 4)), len(nodes))


@over("share", [0.001, 0.02, 0.5, 1.0])
def test_nodes_of_rows_that_follow_one_another_are_had_at_once(rng, share):
    # Rows 0, 1, 2, ... hang on nodes one after another, but for some that equal earlier ones, and some that went.
    nodes, n = np.zeros(3000, np.uint32), 0
    for row in range(len(nodes)):
        nodes[row] = rng.integers(0, n) if n and rng.random() < 0.03 else n
        n += nodes[row] == n
    nodes[rng.random(3000) < 0.01] = NONE
    mask = rng.random(3000) < share
    for below in (n, n - 100, 64, 1):
        wanted = np.isin(np.arange(below), nodes[mask])
        assert hanging(nodes).nodes_of(pack(mask), below).tolist() == pack(wanted).tolist()
    short = pack(mask)[:20]  # bits of the first rows alone
    wanted = np.isin(np.arange(n), nodes[:1280][mask[:1280]])
    assert hanging(nodes).nodes_of(short, n).tolist() == pack(wanted).tolist()


def test_bits_of_rows_become_bits_and_numbers_of_nodes(rng):
    nodes = rng.integers(0, 130, 500).astype(np.uint32)
    nodes[rng.random(500) < 0.1] = NONE
    mask = rng.random(500) < 0.2
    out = hanging(nodes).nodes_of(pack(mask), 130)
    wanted = np.unique(nodes[mask & (nodes != NONE)])
    assert out.tolist() == pack(np.isin(np.arange(192), wanted)).tolist()
    for most in (1, 5, 16, 200):
        some = _core.some_nodes(out, 130, most)
        assert len(some) == min(most, len(np.unique(wanted // 64)))
        assert np.isin(some, wanted).all()
        assert (np.diff(some.astype(int)) > 0).all()
    assert _core.set_nodes(out, 130).tolist() == wanted.tolist()
    assert _core.set_nodes(out, 64).tolist() == wanted[wanted < 64].tolist()
    assert _core.set_nodes(out, 1 << 40).tolist() == wanted.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": None},
        {"seeds": None},
        {"seeds": np.array([N], np.uint32)},
        {"filter": None},
        {"reaches": None},
        {"bounds": np.zeros(1, np.float32), "widths": np.array([N, N], np.uint32), "reaches": np.ones(2, np.float32)},
    ],
)
def test_a_sieve_that_does_not_fit_is_refused(made, wrong):
    with pytest.raises(ValueError, match="search"):
        search(made, np.ones(N, bool), 0.1, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"ranks": (10, 10)}, {"ranks": (0, 10)}, {"reaches": (0.1,)}, {"lists": (1, 2, 3)}, {"hops": (1,)}]
)
def test_sifting_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="Sifting"):
        sifting(0.1, **wrong)


def test_scans_of_chosen_rows_refuse_what_is_not_there(rng):
    vectors = rng.standard_normal((20, 8), dtype=np.float32)
    scorer, rows, bits = make_plain(vectors), make_rows(20), pack(np.ones(20, bool))
    wrong = np.array([20], np.uint32)
    answer = empty_answer(1, 3)
    with pytest.raises(ValueError, match="does not exist"):
        _core.scan_coded(scorer, scorer, 0.1, rows, 20, 32, as_bytes(vectors[:1]), 0, *answer[:3], bits, wrong)
    with pytest.raises(ValueError, match="disagree"):
        _core.ChosenScan(scorer, None, -1.0, rows, 20, 3, METRICS.index("l2"), bits, bits, 3).find(vectors[0])
    with pytest.raises(ValueError, match="the nodes that it means"):
        _core.scan_coded(scorer, scorer, 0.1, rows, 20, 32, as_bytes(vectors[:1]), 0, *answer[:3], bits)
    for no_row in (vectors[0].astype(float), vectors[0][:4], "no row"):
        assert _core.ChosenScan(scorer, None, 0.0, rows, 20, 3, 0, bits, bits, 3).find(no_row) is None
