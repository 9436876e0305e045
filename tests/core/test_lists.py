"""Exact scans: single queries, batches by blocks, filters, radii, against brute force in float64."""

import itertools

import numpy as np
import pytest
from core_support import (
    ELEMENTS,
    METRICS,
    PROMPT,
    Answer,
    Interrupt,
    as_bytes,
    exact_distances,
    make_plain,
    make_rows,
    over,
    pack,
    scan,
    stored,
)

from nearly import _core

FLOAT_METRICS = METRICS[:4]
BATCH = 27  # not a whole panel


def data(rng, metric, element, n, dim):
    """Rows, what they mean, and queries."""
    if metric in ("hamming", "jaccard"):
        rows = rng.integers(0, 256, (n, dim), dtype=np.uint8)
        return rows, rows, rng.integers(0, 256, (BATCH, dim), dtype=np.uint8)
    raw, values = stored(rng, element, (n, dim))
    spread = 1 if "float" in element else 40
    return raw, values, rng.standard_normal((BATCH, dim), dtype=np.float32) * spread


def nearest(metric, values, queries, k, allowed=None):
    """Ids and distances by brute force: ascending by (distance, id)."""
    ids, distances = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
    allowed = np.arange(len(values)) if allowed is None else np.flatnonzero(allowed)
    for q, query in enumerate(queries):
        d = exact_distances(metric, query, values[allowed])
        order = np.argsort(d, kind="stable")[:k]
        ids[q, : len(order)], distances[q, : len(order)] = allowed[order], d[order]
    return ids, distances


CASES = [(metric, "float32") for metric in FLOAT_METRICS] + [
    ("hamming", "uint8"),
    ("jaccard", "uint8"),
    ("l2", "float16"),
    ("cosine", "uint8"),
    ("ip", "int8"),
    ("l2", "bfloat16"),
]


@pytest.mark.parametrize(("metric", "element"), CASES)
def test_a_scan_finds_what_brute_force_finds(simd_target, rng, metric, element):
    raw, values, queries = data(rng, metric, element, 400, 31)
    ids, distances = nearest(metric, values, queries, 12)
    answer = scan(make_plain(raw, metric, element), make_rows(400), 400, queries, 12, metric, blocks=True)
    np.testing.assert_allclose(answer.distances, distances, rtol=3e-6, atol=2e-5 if metric == "ip" else 1e-6)
    # Within 1e-6 of each other, float32 may swap two neighbors; distances above say that nothing else happened.
    assert (answer.ids == ids).mean() > 0.98 if metric in FLOAT_METRICS else (answer.ids == ids).all()
    assert answer.counts.tolist() == [12] * BATCH


@over("threads", [1, 2, 5])
@over("blocks", [False, True])
@pytest.mark.parametrize(("metric", "element"), CASES)
def test_a_batch_answers_like_its_queries_one_by_one(simd_target, rng, metric, element, blocks, threads):
    raw, _, queries = data(rng, metric, element, 700, 23)
    plain, rows = make_plain(raw, metric, element), make_rows(700)
    batch = scan(plain, rows, 700, queries, 10, metric, threads=threads, blocks=blocks)
    for q in range(BATCH):
        single = scan(plain, rows, 700, queries[q : q + 1], 10, metric)
        assert Answer(*(part[q : q + 1] for part in batch[:3])).same(single)
    backwards = scan(plain, rows, 700, queries[::-1], 10, metric, threads=threads)
    assert backwards.ids[::-1].tolist() == batch.ids.tolist()


def one_by_one(plain, rows, n, queries, k, metric, mask=None):
    parts = [scan(plain, rows, n, queries[q : q + 1], k, metric, mask=mask) for q in range(len(queries))]
    return [np.concatenate([part[i] for part in parts]) for i in range(3)]


def assert_batch_is_single(raw, queries, k, metric, element="float32", mask=None):
    n = len(raw)
    plain, rows = make_plain(raw, metric, element), make_rows(n)
    alone = one_by_one(plain, rows, n, queries, k, metric, mask)
    for blocks in (False, True):
        batch = scan(plain, rows, n, queries, k, metric, mask=mask, blocks=blocks)
        for got, expected in zip(batch[:3], alone, strict=True):
            np.testing.assert_array_equal(got, expected)
    return batch


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize(
    "shape",
    [
        lambda x: x + 1000,  # all vectors are near each other, seen from the origin
        lambda x: x * 1e-3,
        lambda x: x * 1e15,
        lambda x: x * 1e-22,  # squares underflow
        lambda x: np.rint(x),  # many ties
        lambda x: np.sign(x) * np.abs(x) ** 20,  # every magnitude
        lambda x: x * 10.0 ** np.arange(-8, 8)[np.arange(len(x)) % 16, None],
    ],
    ids=["offset", "small", "large", "tiny", "ties", "mixed", "scales"],
)
def test_blocks_leave_out_no_neighbor(simd_target, rng, metric, shape):
    x = shape(rng.standard_normal((500, 6))).astype(np.float32)
    queries = shape(rng.standard_normal((BATCH, 6))).astype(np.float32)
    queries[:5] = x[:5]
    for k in (1, 10):
        assert_batch_is_single(x, queries, k, metric)


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@over("dim", [1, 2, 3, 15, 33, 100, 511, 514, 1000])
def test_blocks_leave_out_no_neighbor_in_any_dimension(simd_target, rng, metric, dim):
    x = rng.standard_normal((130, dim)).astype(np.float32)
    x[60:90] = x[:30] * np.float32(1 + 2e-7)  # a bit apart, or none
    x[90:] += 40 * rng.standard_normal(dim).astype(np.float32)  # a second cluster: neither is near the center
    queries = np.concatenate([x[::6] + np.float32(1e-3), rng.standard_normal((5, dim)).astype(np.float32)])
    for k in (1, 10, 40):  # 40: more than are kept in order
        assert_batch_is_single(x, queries, k, metric)


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("element", ["float16", "bfloat16", "int8", "uint8"])
def test_blocks_leave_out_no_neighbor_of_any_element(simd_target, rng, metric, element):
    raw, values = stored(rng, element, (400, 24))
    raw[200:300] = raw[:100]  # 100 copies
    queries = values[::16].astype(np.float32)
    for k in (1, 30):
        assert_batch_is_single(raw, queries, k, metric, element)
        assert_batch_is_single(raw, queries + np.float32(0.25), k, metric, element)


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("seed", range(20))
def test_blocks_leave_out_no_neighbor_of_hostile_data(simd_target, metric, seed):
    # Scales of rows, columns and queries, offsets, copies and zeros by chance, over what floats can hold.
    rng = np.random.default_rng(seed)
    n, dim = int(rng.integers(10, 400)), int(rng.integers(1, 40))
    spread = rng.choice([0, 1, 4, 9])
    scale = 10.0 ** rng.integers(-18, 15)
    x = rng.standard_normal((n, dim)) * 10.0 ** rng.uniform(-spread, spread, (n, 1))
    x = x * 10.0 ** rng.uniform(-1, 1, dim) + rng.choice([0, 1e-3, 1, 1e4]) * rng.standard_normal(dim)
    x[rng.random(n) < 0.2] = x[0]
    x[rng.random((n, dim)) < rng.choice([0, 0.5, 0.95])] = 0
    x = (x * scale).astype(np.float32)
    queries = (rng.standard_normal((BATCH, dim)) * scale * 10.0 ** rng.integers(-6, 4)).astype(np.float32)
    queries[::3] = x[rng.integers(0, n, len(queries[::3]))]
    queries[1] = 0
    for k in (1, 7, n):
        assert_batch_is_single(x, queries, k, metric)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dim", [2, 3, 8])
def test_blocks_keep_what_only_the_scorer_tells_apart(simd_target, rng, metric, dim):
    # Products differ by less than a vector loses when it is rounded to whole numbers.
    query = np.eye(1, dim)
    across = rng.standard_normal((600, dim)) * 3
    across[:, 0] = 0
    value = 1 + 1e-6 * rng.permutation(600)[:, None]  # the product itself, or the distance
    if metric == "l2":
        across[:, 0] = np.abs(rng.standard_normal(600)) * 3  # on one side of the query
        x = query + across / np.linalg.norm(across, axis=1, keepdims=True) * value
    else:
        x = query * value + across
    queries = np.repeat(query, BATCH, axis=0).astype(np.float32)
    for k in (1, 10):
        assert_batch_is_single(x.astype(np.float32), queries, k, metric)


def test_one_row_far_away_costs_little(simd_target, rng):
    # It would drag a mean along, from which all other rows look alike.
    x = rng.standard_normal((6000, 16), dtype=np.float32)
    x[0] = 3e13
    queries = rng.standard_normal((BATCH, 16), dtype=np.float32)
    batch = assert_batch_is_single(x, queries, 5, "l2")
    assert batch.work[0] == BATCH * len(x)  # no query was left to the scorer


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("element", ["float32", "float16", "bfloat16"])
def test_garbage_in_stored_vectors_breaks_nothing(simd_target, rng, metric, element):
    # Files are trusted for the numbers in their vectors: infinities and what is no number come by.
    size = np.dtype("float32" if element == "float32" else "uint16").itemsize
    clean, _ = stored(rng, element, (300, 12))
    for share in (1.0, 0.01):
        raw = clean.copy()
        garbage = rng.integers(0, 256, (*raw.shape, size), dtype=np.uint8)
        garbage[rng.random(raw.shape) < 0.3] = 255  # not a number
        hit = rng.random(raw.shape) < share
        raw.view(np.uint8).reshape(*raw.shape, size)[hit] = garbage[hit]
        queries = rng.standard_normal((BATCH, 12), dtype=np.float32)
        answer = scan(make_plain(raw, metric, element), make_rows(300), 300, queries, 20, metric, blocks=True)
        assert ((answer.ids >= 0) & (answer.ids < 300)).all()
        assert not np.isnan(answer.distances).any()


def test_blocks_know_that_the_zero_vector_has_no_direction(simd_target, rng):
    # Far from all else: its distance is 1 by definition, not the 0.5 of its coordinates.
    x = rng.standard_normal((300, 40), dtype=np.float32)
    x[7] = 0
    queries = rng.standard_normal((BATCH, 40), dtype=np.float32)
    queries[3] = 0
    batch = assert_batch_is_single(x, queries, 1, "cosine")
    assert 7 not in batch.ids[:3]
    assert batch.ids[3].tolist() == [0]  # everything is at distance 1: the smallest id wins
    assert_batch_is_single(x, queries, 20, "cosine")


def test_ties_go_to_the_smaller_id(simd_target):
    side = np.arange(5.0, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 3)
    queries = np.full((9, 3), 2.0, np.float32)
    plain = make_plain(grid)
    ids = np.random.default_rng(5).permutation(1000)[:125]
    for metric in ("l2", "l1"):
        d = exact_distances(metric, queries[0], grid)
        expected = ids[np.lexsort((ids, d))]
        for n_queries, blocks in ((1, False), (9, False), (9, True)):
            made, rows = make_plain(grid, metric), make_rows(125, ids=ids)
            answer = scan(made, rows, 125, queries[:n_queries], 40, metric, blocks=blocks)
            assert answer.ids.tolist() == [expected[:40].tolist()] * n_queries
            np.testing.assert_array_equal(answer.distances[0], np.sort(d)[:40].astype(np.float32))
    assert plain.n_rows == 125


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
@over("share", [0.0, 0.01, 0.3, 1.0])
def test_a_filter_leaves_only_what_passes(simd_target, rng, metric, share):
    x = rng.standard_normal((300, 8), dtype=np.float32)
    queries = rng.standard_normal((BATCH, 8), dtype=np.float32)
    mask = rng.random(300) < share
    ids, _ = nearest(metric, x, queries, 15, mask)
    batch = assert_batch_is_single(x, queries, 15, metric, mask=mask)
    assert batch.ids.tolist() == ids.tolist()
    assert batch.counts.tolist() == [min(15, mask.sum())] * BATCH
    assert np.isinf(batch.distances[batch.ids == -1]).all()


def test_a_filter_acts_on_rows_of_a_node(rng):
    vectors = np.array([[0.0], [3.0]], np.float32)
    rows = make_rows(6, ids=[10, 11, 12, 13, 14, 15], nodes=[0, 1, 0, 1, 0, 1], n_nodes=2)
    mask = np.array([False, True, True, False, True, True])
    for n_queries, blocks in ((1, False), (8, False), (8, True)):
        queries = np.zeros((n_queries, 1), np.float32)
        answer = scan(make_plain(vectors), rows, 2, queries, 5, mask=mask, blocks=blocks)
        assert answer.ids.tolist() == [[12, 14, 11, 15, -1]] * n_queries
        assert answer.distances.tolist() == [[0.0, 0.0, 3.0, 3.0, np.inf]] * n_queries


def test_rows_newer_than_the_filter_do_not_pass():
    # A writer may hang a row on a node while a filtered search runs: the filter knows nothing of it.
    rows = make_rows(200, nodes=np.arange(200) % 2, n_nodes=2)
    mask = np.ones(64, bool)
    answer = scan(
        make_plain(np.array([[0.0], [1.0]], np.float32)), rows, 2, np.zeros((1, 1), np.float32), 200, mask=mask
    )
    assert answer.counts.tolist() == [64]
    assert answer.ids.max() == 63


@pytest.mark.parametrize("n_queries", [1, BATCH])
def test_only_the_nodes_that_are_listed_are_compared(simd_target, rng, n_queries):
    x = rng.standard_normal((300, 8), dtype=np.float32)
    queries = rng.standard_normal((n_queries, 8), dtype=np.float32)
    only = rng.permutation(300)[:40].astype(np.uint32)
    allowed = np.isin(np.arange(300), only)
    answer = scan(make_plain(x), make_rows(300), 300, queries, 50, only=only, blocks=n_queries > 1)
    ids, _ = nearest("l2", x, queries, 50, allowed)
    assert answer.ids.tolist() == ids.tolist()
    assert answer.counts.tolist() == [40] * n_queries
    none = scan(make_plain(x), make_rows(300), 300, queries, 3, only=np.zeros(0, np.uint32))
    assert none.counts.tolist() == [0] * n_queries


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_blocks_of_listed_nodes_leave_out_no_neighbor(simd_target, rng, metric, offset):
    x = (rng.standard_normal((900, 20)) + offset).astype(np.float32)
    x[::7] = x[3]
    queries = (rng.standard_normal((BATCH, 20)) + offset).astype(np.float32)
    mask = rng.random(900) < 0.5
    only = np.sort(rng.permutation(900)[:130]).astype(np.uint32)
    plain, rows = make_plain(x, metric), make_rows(900)
    for k, blocks in itertools.product((1, 10, 100), (False, True)):
        batch = scan(plain, rows, 900, queries, k, metric, mask=mask, only=only, blocks=blocks)
        for q in range(BATCH):
            single = scan(plain, rows, 900, queries[q : q + 1], k, metric, mask=mask, only=only)
            assert Answer(*(part[q : q + 1] for part in batch[:3])).same(single)


@pytest.mark.parametrize("n_queries", [1, BATCH])
def test_more_may_be_asked_for_than_there_is(rng, n_queries):
    x = rng.standard_normal((5, 3), dtype=np.float32)
    queries = rng.standard_normal((n_queries, 3), dtype=np.float32)
    answer = scan(make_plain(x), make_rows(5), 5, queries, 9)
    assert answer.counts.tolist() == [5] * n_queries
    assert (answer.ids[:, 5:] == -1).all()
    assert np.isinf(answer.distances[:, 5:]).all()
    assert np.sort(answer.ids[:, :5]).tolist() == [[0, 1, 2, 3, 4]] * n_queries


@over("n_queries", [0, 1, BATCH])
@over("k", [0, 1, 4])
@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_nothing_is_a_number_too(n_queries, k, metric):
    queries = np.ones((n_queries, 3), np.float32)
    empty = scan(make_plain(np.ones((6, 3), np.float32), metric), make_rows(6), 0, queries, k, metric)
    assert (empty.ids == -1).all()
    assert empty.counts.tolist() == [0] * n_queries
    some = scan(make_plain(np.eye(3, dtype=np.float32), metric), make_rows(3), 3, queries, k, metric)
    assert some.ids.tolist() == [[0, 1, 2, -1][:k]] * n_queries
    assert some.counts.tolist() == [min(k, 3)] * n_queries


def test_nodes_whose_rows_are_gone_are_not_found(rng):
    x = rng.standard_normal((50, 4), dtype=np.float32)
    rows = make_rows(50)
    gone = np.arange(0, 50, 2, dtype=np.uint32)
    rows.unlink(gone, gone)
    for n_queries in (1, 9):
        answer = scan(make_plain(x), rows, 50, x[:n_queries], 50)
        assert answer.counts.tolist() == [25] * n_queries
        assert (answer.ids[:, :25] % 2 == 1).all()


def test_near_copies_cost_no_more_than_their_number(rng):
    # Far from the origin every row may be the nearest, as far as products in float32 can tell.
    x = (rng.standard_normal((30_000, 8)) * 0.01 + 5000).astype(np.float32)
    queries = x[: 2 * BATCH]
    plain, rows = make_plain(x), make_rows(len(x))
    batch = scan(plain, rows, len(x), queries, 5)
    assert batch.ids[:, 0].tolist() == list(range(2 * BATCH))


# ---------------------------------------------------------------- radii


def within(plain, rows, n, queries, radius, metric="l2", mask=None, threads=1):
    raw = as_bytes(queries)
    words = None if mask is None else pack(mask)
    return _core.scan_radius(plain, rows, n, raw.shape[1], raw, METRICS.index(metric), radius, words, threads)


@pytest.mark.parametrize("metric", METRICS)
def test_a_radius_finds_all_that_is_within(simd_target, rng, metric):
    raw, values, queries = data(rng, metric, "float32", 300, 9)
    radius = float(np.quantile(exact_distances(metric, queries[0], values), 0.2))
    mask = rng.random(300) < 0.7
    plain, rows = make_plain(raw, metric), make_rows(300)
    ids, distances, offsets = within(plain, rows, 300, queries, radius, metric, mask, threads=2)
    assert offsets[0] == 0
    assert offsets[-1] == len(ids) == len(distances)
    for q, query in enumerate(queries):
        d = exact_distances(metric, query, values)
        part = slice(offsets[q], offsets[q + 1])
        surely, at_most = (set(np.flatnonzero(mask & (d < radius + slip)).tolist()) for slip in (-1e-5, 1e-5))
        assert surely <= set(ids[part].tolist()) <= at_most
        np.testing.assert_allclose(distances[part], d[ids[part]], rtol=3e-6, atol=2e-6)
        assert (np.diff(distances[part]) >= 0).all()


def test_a_radius_is_inclusive_and_in_the_unit_that_people_see(simd_target):
    x = np.array([[0.0], [3.0], [4.0], [4.0000005], [-4.0]], np.float32)
    plain, rows = make_plain(x), make_rows(5)
    ids, distances, offsets = within(plain, rows, 5, np.zeros((2, 1), np.float32), 4.0)
    assert ids.tolist() == [0, 1, 2, 4] * 2
    assert distances.tolist() == [0.0, 3.0, 4.0, 4.0] * 2
    assert offsets.tolist() == [0, 4, 8]
    assert within(plain, rows, 5, np.zeros((1, 1), np.float32), -0.5)[0].tolist() == []
    assert within(plain, rows, 5, np.zeros((1, 1), np.float32), 0.0)[0].tolist() == [0]
    assert within(plain, rows, 5, np.zeros((0, 1), np.float32), 1.0)[2].tolist() == [0]
    products = within(make_plain(x, "ip"), rows, 5, np.ones((1, 1), np.float32), -4.0, "ip")
    assert products[0].tolist() == [3, 2]


def test_a_radius_finds_every_row_of_a_node():
    rows = make_rows(4000, ids=np.arange(4000) * 2, nodes=np.arange(4000) % 2, n_nodes=2)
    ids, distances, _ = within(
        make_plain(np.array([[1.0], [-1.0]], np.float32)), rows, 2, np.zeros((1, 1), np.float32), 1.0
    )
    assert ids.tolist() == list(range(0, 8000, 2))
    assert set(distances.tolist()) == {1.0}


@pytest.mark.parametrize("element", ELEMENTS)
def test_a_stored_vector_is_found_first_at_distance_zero(simd_target, rng, element):
    raw, values = stored(rng, element, (200, 12))
    raw, first = np.unique(raw, axis=0, return_index=True)
    values = values[first]
    for metric in ("l2", "cosine", "l1"):
        answer = scan(
            make_plain(raw, metric, element), make_rows(len(raw)), len(raw), values.astype(np.float32), 1, metric
        )
        assert answer.ids[:, 0].tolist() == list(range(len(raw)))
        assert not answer.distances.any()


def test_sums_that_overflow_are_far_away_and_break_nothing(simd_target, rng):
    # Products of such numbers are infinite, and differences of these are not numbers.
    x = (rng.choice([-1.0, 1.0], (300, 8)) * 3e38).astype(np.float32)
    x[::3] = rng.standard_normal((100, 8))
    queries = (rng.choice([-1.0, 1.0], (BATCH, 8)) * 3e38).astype(np.float32)
    queries[::2] = rng.standard_normal(queries[::2].shape)
    for metric in ("l2", "ip", "l1", "cosine"):
        answer = assert_batch_is_single(x, queries, 200, metric)
        assert not np.isnan(answer.distances).any()
        assert ((answer.ids >= 0) & (answer.ids < 300)).all()  # far away, but there


@pytest.mark.parametrize(("metric", "n_queries"), [("l1", 40_000), ("l2", 20_000)])
def test_ctrl_c_ends_a_scan_fast(rng, metric, n_queries):
    vectors = rng.standard_normal((20_000, 64), dtype=np.float32)
    plain, rows = make_plain(vectors, metric), make_rows(20_000)
    with pytest.raises(KeyboardInterrupt), Interrupt(0.1) as interrupt:
        scan(plain, rows, 20_000, vectors[np.arange(n_queries) % 20_000], 10, metric)
    assert interrupt.late < PROMPT


def test_ctrl_c_ends_one_long_query_fast():
    n = 100_000_000  # rows of one byte: never written, so they take no memory
    vectors, ids, following, first, last = (_core.Table(stride, n, n) for stride in (1, 8, 4, 4, 4))
    vectors.array()[0] = 9
    following.array()[0] = 255  # row 0 hangs on node 0; no other node is near enough to be looked at
    plain = _core.Plain(vectors, ELEMENTS.index("uint8"), METRICS.index("l1"), 1)
    rows, query = _core.Rows(ids, following, first, last), np.full((1, 1), 9, np.float32)
    assert scan(plain, rows, 1000, query, 1, "l1").distances.tolist() == [[0.0]]
    with pytest.raises(KeyboardInterrupt), Interrupt(0.05) as interrupt:
        scan(plain, rows, n, query, 1, "l1")
    assert interrupt.late < PROMPT
    with pytest.raises(KeyboardInterrupt), Interrupt(0.05) as interrupt:
        within(plain, rows, n, query, 0.0, "l1")
    assert interrupt.late < PROMPT
