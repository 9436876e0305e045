"""Inverted lists of the core: what is in the lists that are read is found, and nothing that does not fit gets in."""

import numpy as np
import pytest
from core_support import METRICS, as_bytes, empty_answer, exact_distances, make_plain, make_rows, make_table, pack

from nearly import _core

NONE = 0xFFFFFFFF
K = 5


class Made:
    """Lists of rows by their nearest of some centers, with room at the end of each chunk."""

    def __init__(self, vectors, centers, labels, *, metric="l2", codes=None, room=3, more=None):
        self.metric, self.vectors, self.labels = metric, vectors, labels
        n, n_lists = len(vectors), len(centers)
        sizes = np.bincount(labels, minlength=n_lists)
        self.chunks, self.members = make_table(16, n_lists + 4), make_table(4, n + n_lists * room + 40)
        first = 0
        for label, size in enumerate(sizes):
            self.chunk(label)[:] = first, size, size + room, NONE
            self.slots[first : first + size] = np.flatnonzero(labels == label)
            first += size + room
        self.free = first
        self.store, self.rows = make_plain(vectors, metric), make_rows(n)
        self.core = _core.Inverted(self.chunks, self.members, n_lists, make_plain(centers, metric),
                                   codes or self.store, self.store, self.rows, copies=more is not None)  # fmt: skip
        for node, label in () if more is None else more:  # nodes that are in a second list
            at = self.chunk(label)
            self.slots[at[0] + at[1]] = node
            at[1] += 1

    @property
    def slots(self):
        return self.members.array().view(np.uint32)[:, 0]

    def chunk(self, i):
        return self.chunks.array().view(np.uint32)[i]

    def search(
        self, queries, *, k=K, width=1000, reach=np.inf, depth=50, all_held=False, filter=None, threads=1, **more
    ):
        answer = empty_answer(len(queries), k)
        work = self.core.search(
            queries.shape[1] * queries.itemsize, as_bytes(queries), METRICS.index(self.metric), width, reach, depth,
            all_held, answer.ids, answer.distances, answer.counts, filter, threads, **more,
        )  # fmt: skip
        return answer, work

    def gaps(self, queries, nearest=None):
        out = np.empty((len(queries), self.core_lists), np.float32)
        nearest = np.empty(len(queries), np.float32) if nearest is None else nearest
        self.core.gaps(queries.shape[1] * 4, as_bytes(queries), METRICS.index(self.metric), out, nearest, 1)
        return out

    def passing(self, mask):
        counts = np.empty(self.core_lists, np.uint32)
        assert self.core.passing(pack(mask), counts)
        return counts

    @property
    def core_lists(self):
        return int(self.labels.max()) + 1


def made(rng, *, metric="l2", n=300, dim=8, n_lists=7, **more):
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    centers = vectors[:n_lists].copy()
    labels = ((vectors[:, None] - centers) ** 2).sum(2).argmin(1)
    return Made(vectors, centers, labels, metric=metric, **more), centers


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip", "l1"])
def test_all_lists_together_give_what_brute_force_gives(simd_target, rng, metric):
    lists, _ = made(rng, metric=metric)
    queries = rng.standard_normal((9, 8), dtype=np.float32)
    answer, work = lists.search(queries)
    for q, query in enumerate(queries):
        order = np.argsort(exact_distances(metric, query, lists.vectors), kind="stable")[:K]
        assert answer.ids[q].tolist() == order.tolist()
    assert work == (9 * (300 + 7), 9 * 7, 0)


def test_a_reach_and_a_width_choose_the_nearest_lists(rng):
    lists, centers = made(rng)
    queries = rng.standard_normal((20, 8), dtype=np.float32)
    distances = np.sqrt(((queries[:, None].astype(np.float64) - centers) ** 2).sum(2))
    gaps = distances - distances.min(1, keepdims=True)
    np.testing.assert_allclose(lists.gaps(queries), gaps, atol=2e-5)  # a square loses half of the digits near 0
    for reach, width in ((0.0, 100), (0.6, 100), (np.inf, 3), (0.6, 2)):
        answer, _ = lists.search(queries, k=1, reach=reach, width=width)
        for q in range(len(queries)):
            inside = np.argsort(distances[q])[: min(width, (gaps[q] <= reach).sum())]
            allowed = np.flatnonzero(np.isin(lists.labels, inside))
            near = allowed[((lists.vectors[allowed] - queries[q]) ** 2).sum(1).argmin()]
            assert answer.ids[q, 0] == near


def test_the_gaps_of_products_do_not_grow_with_the_query(rng):
    lists, _ = made(rng, metric="ip")
    queries = rng.standard_normal((5, 8), dtype=np.float32)
    np.testing.assert_allclose(lists.gaps(queries * 100), lists.gaps(queries), rtol=1e-4, atol=1e-5)
    assert np.isfinite(lists.gaps(queries * 0)).all()


def test_further_lists_are_read_until_k_pass(rng):
    lists, _ = made(rng, n=120, n_lists=9)
    queries = rng.standard_normal((4, 8), dtype=np.float32)
    answer, work = lists.search(queries, k=100, width=1)
    assert (answer.counts == 100).all()
    assert work[1] > 4 * 3
    few = np.zeros(120, bool)
    few[[3, 70, 111]] = True
    answer, _ = lists.search(queries, width=1, filter=pack(few))
    assert (answer.counts == 3).all()
    assert [sorted(row[:3]) for row in answer.ids.tolist()] == [[3, 70, 111]] * 4


def test_lists_in_which_nothing_passes_are_as_if_they_were_not_there(rng):
    lists, centers = made(rng, n_lists=9)
    queries = rng.standard_normal((20, 8), dtype=np.float32)
    mask = np.isin(lists.labels, [2, 5, 7]) & (rng.random(300) < 0.7)
    holds = lists.passing(mask)
    assert holds.tolist() == np.bincount(lists.labels[mask], minlength=9).tolist()
    assert lists.passing(np.zeros(300, bool)).tolist() == [0] * 9
    distances = ((queries[:, None].astype(np.float64) - centers[[2, 5, 7]]) ** 2).sum(2)
    answer, work = lists.search(queries, k=1, width=1, filter=pack(mask), holds=holds)
    assert work[1] == 20
    for q, query in enumerate(queries):
        allowed = np.flatnonzero(mask & (lists.labels == [2, 5, 7][distances[q].argmin()]))
        assert answer.ids[q, 0] == allowed[((lists.vectors[allowed] - query) ** 2).sum(1).argmin()]
    answer, work = lists.search(queries, k=1, reach=0.0, filter=pack(mask), holds=holds)
    assert work[1] == 20  # the reach is from the nearest of them
    answer, work = lists.search(queries, k=300, filter=pack(mask), holds=holds)
    assert (answer.counts == mask.sum()).all()
    assert work[1] == 60
    none = np.zeros(300, bool)
    answer, work = lists.search(queries, filter=pack(none), holds=lists.passing(none))
    assert not answer.counts.any()
    assert work[1] == 0


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip", "l1"])
def test_lists_are_read_as_far_beyond_the_kth_that_passes(rng, metric):
    lists, _ = made(rng, metric=metric, n=400, n_lists=40)
    queries = rng.standard_normal((15, 8), dtype=np.float32)
    mask = rng.random(400) < 0.3
    nearest, holds = np.empty(15, np.float32), lists.passing(mask)
    gaps = lists.gaps(queries, nearest)
    for beyond in (-0.5, 0.0, 0.4):
        answer, work = lists.search(queries, reach=0.0, filter=pack(mask), holds=holds, beyond=beyond)
        least = 0
        for q, query in enumerate(queries):
            allowed = np.flatnonzero(mask)
            distances = np.sort(exact_distances(metric, query, lists.vectors[allowed]))
            kth = distances[K - 1]
            if metric in ("cosine", "ip"):
                kth = np.sqrt(2 * kth) if metric == "cosine" else kth / np.linalg.norm(query)
            inside = np.flatnonzero((gaps[q] + nearest[q] <= kth + beyond - 1e-4) & (holds > 0))
            least += len(inside)
            found = allowed[np.isin(lists.labels[allowed], inside)]
            best = np.sort(exact_distances(metric, query, lists.vectors[found]))[:K]
            assert (answer.distances[q, : len(best)] <= best + 1e-4).all()
        assert least <= work[1] < 15 * (holds > 0).sum()


def test_what_is_no_farther_by_its_code_is_ranked_and_too_much_of_it_is_not(rng):
    vectors = rng.standard_normal((600, 8), dtype=np.float32)
    labels = ((vectors[:, None] - vectors[:6]) ** 2).sum(2).argmin(1)
    order = np.argsort(labels, kind="stable")
    slots = np.arange(600) + 3 * labels[order]
    by_slot = np.zeros((700, 8), np.float32)
    by_slot[slots] = vectors[order] + rng.standard_normal((600, 8), dtype=np.float32) * 0.3
    lists = Made(vectors, vectors[:6], labels, codes=make_plain(by_slot, "l2"))
    queries = rng.standard_normal((20, 8), dtype=np.float32)
    mask = rng.random(600) < 0.5
    some = {"filter": pack(mask), "holds": lists.passing(mask), "beyond": np.inf}
    truth, _ = lists.search(queries, filter=pack(mask), depth=600)
    ranked = []
    for spread in (0.0, 0.3, 3.0):
        answer, work = lists.search(queries, depth=5, spread=spread, **some)
        ranked.append(work[2])
        if spread == 3.0:
            assert answer.ids.tolist() == truth.ids.tolist()
    assert ranked == sorted(set(ranked))
    answer, _ = lists.search(queries, depth=5, spread=3.0, most=20, **some)
    assert not answer.counts.any()


@pytest.mark.parametrize("coded", [False, True])
def test_a_node_in_two_lists_is_found_once(rng, coded):
    vectors = rng.standard_normal((300, 8), dtype=np.float32)
    labels = ((vectors[:, None] - vectors[:7]) ** 2).sum(2).argmin(1)
    more = [(node, (labels[node] + 1) % 7) for node in range(0, 300, 2)]
    codes = None
    if coded:  # of each slot: that of a second list is another one
        by_slot, at = np.zeros((700, 8), np.float32), np.zeros(7, int)
        first = np.cumsum([0, *(np.bincount(labels, minlength=7) + 200)])[:7]
        for node, label in [*((n, labels[n]) for n in range(300)), *more]:
            noise = rng.standard_normal(8) * 0.05
            by_slot_row = first[label] + at[label]
            if by_slot_row >= len(by_slot):
                by_slot = np.vstack([by_slot, np.zeros((by_slot_row, 8), np.float32)])
            by_slot[by_slot_row] = vectors[node] + noise
            at[label] += 1
        codes = make_plain(np.vstack([by_slot, np.zeros((2000 - len(by_slot), 8), np.float32)]), "l2")
    lists = Made(vectors, vectors[:7], labels, codes=codes, room=200, more=more)
    queries = rng.standard_normal((20, 8), dtype=np.float32)
    answer, work = lists.search(queries, depth=60)
    assert work[0] == 20 * (450 + 7)
    for q, query in enumerate(queries):
        order = np.argsort(((vectors - query) ** 2).sum(1), kind="stable")[:K]
        assert answer.ids[q].tolist() == order.tolist()
    everything, _ = lists.search(queries, k=400, depth=400)
    assert (everything.counts == 300).all()
    assert lists.core.check(7, 300) == 450
    lists.slots[lists.chunk(0)[0]] = lists.slots[lists.chunk(0)[0] + 1]
    with pytest.raises(ValueError, match="twice"):
        lists.core.check(7, 300)


def test_estimates_are_what_codes_say_in_the_unit_of_the_reach(rng):
    lists, _ = made(rng)
    queries = rng.standard_normal((4, 8), dtype=np.float32)
    slots = np.array([[0, 1, 5]] * 4, np.uint32)
    out = np.empty((4, 3), np.float32)
    lists.core.estimates(32, as_bytes(queries), 0, slots, np.zeros_like(slots), out, 1)
    np.testing.assert_allclose(out, np.sqrt(((queries[:, None] - lists.vectors[slots]) ** 2).sum(2)), rtol=1e-5)
    with pytest.raises(ValueError, match="no such slot"):
        lists.core.estimates(32, as_bytes(queries), 0, slots + 10**6, slots, out, 1)


def test_rows_that_replace_others_are_not_seen_beside_them(rng):
    lists, _ = made(rng)
    query, free, seventh = lists.vectors[7:8].copy(), np.array([299], np.uint32), np.array([7], np.uint32)
    lists.rows.unlink(free, free)
    lists.rows.prepare(free, np.array([900]), seventh, seventh, seventh)
    assert lists.search(query, k=2)[0].ids[0, 0] == 7
    assert 900 not in lists.search(query, k=9)[0].ids
    lists.rows.exchange()
    assert lists.search(query, k=2)[0].ids[0, 0] == 900
    assert 7 not in lists.search(query, k=9)[0].ids
    lists.rows.settle()


def test_ties_are_broken_by_id_in_whichever_lists_they_are(rng):
    vectors = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [2, 2]], np.float32)
    lists = Made(vectors, vectors[[3, 2, 1, 0]], np.array([3, 2, 1, 0, 0]))
    answer, _ = lists.search(np.zeros((1, 2), np.float32), k=3)
    assert answer.ids.tolist() == [[0, 1, 2]]


def test_the_answer_does_not_depend_on_the_number_of_threads(rng):
    lists, _ = made(rng, n=2000, n_lists=40)
    queries = rng.standard_normal((50, 8), dtype=np.float32)
    one, work = lists.search(queries, reach=0.5)
    four, same_work = lists.search(queries, reach=0.5, threads=4)
    assert one.same(four)
    assert work == same_work


def test_what_is_appended_is_found_once_it_is_published(rng):
    lists, _ = made(rng)
    label = int(lists.labels[10])
    lists.chunk(label)[1] -= 1  # the last of a list is not there yet
    last = int(np.flatnonzero(lists.labels == label)[-1])
    answer, _ = lists.search(lists.vectors[last : last + 1], k=1)
    assert answer.ids[0, 0] != last
    lists.chunk(7)[:] = lists.free, 0, 4, NONE
    lists.slots[lists.free] = last
    u32 = lambda *values: np.array(values, np.uint32)  # noqa: E731
    lists.core.extend(u32(7), u32(1))
    answer, _ = lists.search(lists.vectors[last : last + 1], k=1)
    assert answer.ids[0, 0] != last  # no list leads there yet
    lists.core.chain(u32(label), u32(7))
    answer, _ = lists.search(lists.vectors[last : last + 1], k=1)
    assert answer.ids[0, 0] == last
    assert lists.core.check(8, 300) == 300
    for chunks, counts in ((u32(7), u32(5)), (u32(99), u32(0)), (u32(7, 8), u32(1))):
        with pytest.raises(ValueError, match=r"extend|chunk"):
            lists.core.extend(chunks, counts)
    for chunks, nexts in ((u32(label), u32(8)), (u32(7), u32(0)), (u32(8), u32(8)), (u32(0), u32(99))):
        with pytest.raises(ValueError, match=r"chain|chunk"):
            lists.core.chain(chunks, nexts)
    lists.slots[lists.free + 1] = 300
    with pytest.raises(ValueError, match="node"):
        lists.core.extend(u32(7), u32(2))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda m: m.chunk(2).__setitem__(0, 2**32 - 1), "place"),
        (lambda m: m.chunk(2).__setitem__(1, 10_000), "place"),
        (lambda m: m.chunk(2).__setitem__(3, 2), "chunks"),
        (lambda m: m.chunk(2).__setitem__(3, 7000), "chunks"),
        (lambda m: m.chunk(2).__setitem__(0, m.chunk(1)[0]), "share|twice"),
        (lambda m: m.slots.__setitem__(int(m.chunk(2)[0]), 300), "node"),
        (lambda m: m.slots.__setitem__(int(m.chunk(2)[0]), m.slots[int(m.chunk(1)[0])]), "twice"),
    ],
)
def test_damage_is_found(rng, damage, says):
    lists, _ = made(rng)
    assert lists.core.check(7, 300) == 300
    damage(lists)
    with pytest.raises(ValueError, match=says):
        lists.core.check(7, 300)


def test_a_chunk_that_no_list_leads_to_is_damage(rng):
    lists, _ = made(rng)
    lists.chunk(7)[:] = lists.free, 0, 1, NONE
    with pytest.raises(ValueError, match="no list"):
        lists.core.check(8, 300)
    with pytest.raises(ValueError, match="exist"):
        lists.core.check(12, 300)


def test_refuses_what_does_not_fit_together(rng):
    lists, centers = made(rng)
    queries = np.zeros((2, 8), np.float32)
    for wrong in ({"k": 0}, {"width": 0}, {"reach": -1.0}, {"reach": np.nan}):
        with pytest.raises(ValueError, match="search"):
            lists.search(queries, **wrong)
    with pytest.raises(ValueError, match="queries"):
        lists.search(np.zeros((2, 9), np.float32))
    parts = [lists.chunks, lists.members, 7, make_plain(centers), lists.store, lists.store, lists.rows]
    for i, other in ((0, make_table(8, 20)), (1, make_table(8, 20)), (2, 0), (2, 8), (2, 50),
                     (3, make_plain(np.zeros((7, 9), np.float32))), (3, None)):  # fmt: skip
        with pytest.raises(ValueError, match="Inverted"):
            _core.Inverted(*parts[:i], other, *parts[i + 1 :])


def test_who_comes_late_for_retired_lists_is_told(rng):
    lists, _ = made(rng)
    lists.core.retire()
    lists.core.wait_for_readers()
    assert lists.search(np.zeros((2, 8), np.float32))[1] is None
