"""HNSW over anything by a Python function: answers, changes, errors of the function, files."""

import pickle
import threading

import numpy as np
import pytest

import nearly
from nearly import storage

WORDS = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "lmnrst"]


def letters(word, words):
    """Return in how many of their three places words differ."""
    a, b, c = word
    return [(a != x) + (b != y) + (c != z) for x, y, z in words]


def truth(word, k, held=None):
    """Return the nearest by ids, found by comparing with all."""
    held = dict(enumerate(WORDS)) if held is None else held
    return sorted((letters(word, [other])[0], i) for i, other in held.items())[:k]


def pairs(hits):
    return list(zip(hits.distances.tolist(), hits.ids.tolist(), strict=True))


def test_exact_search_compares_with_all():
    index = nearly.HNSW(WORDS, metric=letters, M=4)
    for word in ("bet", "zzz", "hut"):
        hits = index.search(word, k=7, exact=True)
        assert pairs(hits) == truth(word, 7)
        assert hits.expected_recall == 1.0
        assert hits.single


def test_walks_find_most_and_compare_with_few():
    calls = []

    def counted(item, items):
        calls.append(len(items))
        return [abs(item - other) for other in items]

    numbers = np.random.default_rng(0).permutation(1000).tolist()
    index = nearly.HNSW(numbers, metric=counted, M=6, ef_construction=40, calibrate=False)
    calls.clear()
    found = [index.search(x + 0.25, k=5, effort=10).distances.tolist() for x in range(25, 975, 50)]
    assert sum(calls) < 19 * 500
    wanted = [0.25, 0.75, 1.25, 1.75, 2.25]
    assert np.mean([len(set(wanted) & set(row)) for row in found]) >= 4.5


def test_filters_hold():
    index = nearly.HNSW(WORDS, metric=letters, ids=np.arange(len(WORDS)) * 2)
    hits = index.search("bat", k=5, where=[0, 4, 8, 100, 7])
    assert sorted(hits.ids.tolist()) == [0, 4, 8, 100]
    assert index.search("bat", k=5, where=[1, 3]).ids.tolist() == []
    most = index.search("bat", k=10, where=np.arange(0, 400, 2))
    assert (most.ids < 400).all()
    assert len(most) == 10


def test_changes():
    index = nearly.HNSW(WORDS[:100], metric=letters, M=4)
    held = dict(enumerate(WORDS[:100]))
    index.remove([3, 50])
    del held[3], held[50]
    assert index.add(WORDS[100:150]).tolist() == list(range(100, 150))
    held |= dict(enumerate(WORDS[100:150], 100))
    assert index.add(["bet", "bet"], ids=[900, 3]).tolist() == [900, 3]
    held |= {900: "bet", 3: "bet"}
    assert len(index) == len(held)
    assert 3 in index
    assert 50 not in index
    assert index.get(900) == "bet"
    assert index.add([]).tolist() == []
    for word in ("bet", "dan"):
        assert pairs(index.search(word, k=12, exact=True)) == truth(word, 12, held)
    with pytest.raises(nearly.IdError, match="taken"):
        index.add(["abc"], ids=[900])
    with pytest.raises(nearly.IdError):
        index.remove([1, 50])
    with pytest.raises(nearly.IdError):
        index.get(50)
    assert len(index) == len(held)


def test_an_error_of_the_metric_is_raised_and_changes_nothing():
    broken = [False]

    def fragile(item, items):
        if broken[0]:
            raise ZeroDivisionError("the metric broke")
        return [abs(item - other) for other in items]

    index = nearly.HNSW(list(range(300)), metric=fragile, M=4)
    broken[0] = True
    for options in ({}, {"exact": True}):
        with pytest.raises(ZeroDivisionError):
            index.search(5, **options)
    with pytest.raises(ZeroDivisionError):
        index.add([1000, 1001, 1002])
    with pytest.raises(ZeroDivisionError):
        nearly.HNSW([1, 2, 3], metric=fragile)
    broken[0] = False
    assert len(index) == 300
    assert 300 not in index
    assert -1 not in index
    assert index.search(1000, k=2).ids.tolist() == [299, 298]
    assert index.search(1000, k=2, exact=True).ids.tolist() == [299, 298]
    assert index.add([1000]).tolist() == [300]
    assert index.search(1000, k=2).ids.tolist() == [300, 299]
    assert index.get(300) == 1000
    assert len(index) == 301


@pytest.mark.parametrize("answer", [[1.0], "far", None, [[1.0, 2.0]], [float("nan")] * 400])
def test_wrong_answers_of_the_metric_are_errors(answer):
    with pytest.raises((nearly.InputError, ValueError, TypeError)):
        nearly.HNSW(list(range(400)), metric=lambda item, items: answer)


def gap(x, others):
    """Return how far numbers, or the sums of arrays, lie from one."""
    return np.abs(np.asarray(others).reshape(len(others), -1).sum(axis=1) - np.sum(x))


def steps(x, others):
    return [abs(x - other) for other in others]


@pytest.mark.parametrize(
    ("items", "metric", "query"),
    [
        (WORDS, letters, "bet"),
        (["", "é", "日本", "nul\0"] * 70, lambda x, others: [abs(len(x) - len(other)) for other in others], "ab"),
        (list(range(0, 3000, 7)), steps, 1000),
        ([1.5, 2, 10**9] * 100, steps, 3.25),
        (np.arange(900, dtype=np.float32).reshape(300, 3), gap, np.ones(3)),
        (np.arange(300, dtype=np.int16), steps, 12),
        ([np.ones((2, 2), bool)] * 3, gap, np.ones((2, 2))),
        ([], steps, 3),
    ],
    ids=["words", "any text", "integers", "numbers", "rows", "scalars", "matrices", "none"],
)
def test_numbers_and_strings_are_saved_without_the_function(tmp_path, items, metric, query):
    index = nearly.HNSW(items, metric=metric, M=4, ef_construction=10, seed=5, calibrate=False)
    if len(items) > 9:
        index.remove([7, 8])
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", metric=metric, verify=True)
    assert isinstance(loaded, nearly.HNSW)
    assert loaded.plan == index.plan
    for options in ({"effort": 20}, {"exact": True}):
        assert pairs(loaded.search(query, k=5, **options)) == pairs(index.search(query, k=5, **options))
    for id in index.ids[:20].tolist():
        assert np.array_equal(loaded.get(id), index.get(id))
        assert type(loaded.get(id)) is type(index.get(id)) or type(index.get(id)) is int
    assert 7 not in loaded
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.add([query]).tolist() == [len(items)]
    assert loaded.search(query, k=1, effort=20).distances.tolist() == [0.0]
    loaded.verify()
    with pytest.raises(nearly.InputError, match="metric=f"):
        nearly.load(tmp_path / "a")
    with pytest.raises(nearly.InputError, match="holds them"):
        nearly.load(tmp_path / "a", metric=metric, items=items)


@pytest.mark.parametrize("items", [[{1}, {2, 3}], [True, False], ["\ud800", "a"], [2**70, 1], [1, "a"], [(1,), (2,)]])
def test_other_items_are_given_again(tmp_path, items):
    def lengths(item, others):
        return [abs(len(repr(item)) - len(repr(other))) for other in others]

    index = nearly.HNSW([*items, *items], metric=lengths, ids=[9, 5, 3, 4])
    index.remove([5])
    index.save(tmp_path / "a")
    with pytest.raises(nearly.InputError, match="items="):
        nearly.load(tmp_path / "a", metric=lengths)
    with pytest.raises(nearly.InputError, match="holds 3"):
        nearly.load(tmp_path / "a", metric=lengths, items=items)
    loaded = nearly.load(tmp_path / "a", metric=lengths, items=[index.get(id) for id in (3, 4, 9)], verify=True)
    assert loaded.get([9, 3, 4]) == [items[0], items[0], items[1]]
    assert pairs(loaded.search(items[0])) == pairs(index.search(items[0]))


def test_damaged_items_are_refused(tmp_path):
    index = nearly.HNSW(["abc", "d"], metric=lambda x, others: [0.0] * len(others))
    index.save(tmp_path / "a")
    file = storage.read(tmp_path / "a")
    parts, config = dict(file.arrays), dict(file.config)
    for changes in (
        {"item_ends": np.array([3, 2], np.int64)},
        {"item_ends": np.array([5, 4], np.int64)},
        {"item_text": np.full(4, 255, np.uint8)},
        {"item_text": np.zeros(9, np.uint8)},
        {"item_ends": np.array([4], np.int64)},
    ):
        storage.write(tmp_path / "b", {**parts, **changes}, config, kind=file.kind)
        with pytest.raises(nearly.FormatError):
            nearly.load(tmp_path / "b", metric=letters)
    for form in ("numbers", "arrays", "pickles"):
        storage.write(tmp_path / "b", parts, {**config, "items": {"form": form}}, kind=file.kind)
        with pytest.raises(nearly.FormatError):
            nearly.load(tmp_path / "b", metric=letters)


@pytest.mark.soak
def test_it_keeps_the_recall_contract(tmp_path):
    rng = np.random.default_rng(0)
    points = (rng.standard_normal((300, 2)) @ [1, 1j]).tolist()

    def far(x, others):
        return np.abs(np.array(others) - x)

    index = nearly.HNSW(points, metric=far, M=4, ef_construction=20, recall=0.9)
    assert index.curve is not None
    queries = (rng.standard_normal((40, 2)) @ [1, 1j]).tolist()
    exact = [set(index.search(q, exact=True).ids.tolist()) for q in queries]

    def delivered(index, **how):
        return np.mean(
            [len(set(index.search(q, **how).ids.tolist()) & t) / 10 for q, t in zip(queries, exact, strict=True)]
        )

    hits = index.search(queries[0])
    assert "recall 0.9" in hits.plan
    assert hits.expected_recall >= 0.9
    assert hits.stats.n_distances < 300
    assert delivered(index) >= 0.89
    assert delivered(index, recall=0.99) >= 0.98
    assert index.search(queries[0], recall=1.0).ids.tolist() == index.search(queries[0], exact=True).ids.tolist()
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", metric=far, items=points)
    assert loaded.search(queries[0]).plan == hits.plan
    before = index.curve.mean
    index.calibrate((rng.standard_normal((30, 2)) @ [1, 1j]).tolist())
    assert "passed to calibrate" in index.search(queries[0]).plan
    index.calibrate()
    assert "held out" in index.search(queries[0]).plan
    assert np.abs(index.curve.mean.mean() - before.mean()) < 0.1
    own = nearly.HNSW(points, metric=far, M=4, queries=queries)
    assert "passed when it was built" in own.search(queries[0]).plan
    none = nearly.HNSW(points[:270], metric=far, calibrate=False)
    with pytest.raises(nearly.StateError, match="effort="):
        none.search(queries[0])
    assert len(none.search(queries[0], effort=20)) == 10
    with pytest.raises(nearly.InputError, match="20"):
        nearly.HNSW(points, metric=far, queries=queries[:3])


@pytest.mark.soak
def test_recall_is_measured_again_at_twice_the_size():
    index = nearly.HNSW(list(range(260)), metric=gap, M=4, ef_construction=10)
    first = index.curve
    assert first is not None
    index.add(list(range(260, 300)))
    assert index.curve is first
    index.add(list(range(300, 530)))
    assert index.curve is not first
    small = nearly.HNSW([], metric=gap, M=4, ef_construction=10)
    small.add(list(range(260)))
    assert small.curve is not None


def test_masks_radii_and_several_ids():
    index = nearly.HNSW(WORDS[:100], metric=letters, M=4)
    mask = np.zeros(100, bool)
    mask[[3, 4, 50]] = True
    assert sorted(index.search("bet", where=mask).ids.tolist()) == [3, 4, 50]
    with pytest.raises(nearly.InputError, match="mask"):
        index.search("bet", where=mask[:50])
    with pytest.raises(nearly.InputError, match="given its ids"):
        nearly.HNSW(WORDS[:9], metric=letters, ids=range(9)).search("bet", where=mask[:9])
    assert index.get([1, 2, 1]) == [WORDS[1], WORDS[2], WORDS[1]]
    assert index.get(1) == WORDS[1]
    assert index.get([]) == []
    for where in (None, mask, [3, 4, 5]):
        held = {i: WORDS[i] for i in (range(100) if where is None else [3, 4, 50] if where is mask else where)}
        found = index.range_search("bet", 1, where=where)
        assert pairs(found) == [pair for pair in truth("bet", 100, held) if pair[0] <= 1]
    assert index.ids.tolist() == list(range(100))


def test_upsert_replaces():
    index = nearly.HNSW(WORDS[:100], metric=letters, M=4)
    assert index.upsert(["bet", "gus"], ids=[7, 500]).tolist() == [7, 500]
    assert index.get([7, 500]) == ["bet", "gus"]
    assert len(index) == 101
    held = {**dict(enumerate(WORDS[:100])), 7: "bet", 500: "gus"}
    for word in ("bet", "gus", WORDS[7]):
        assert pairs(index.search(word, k=12, exact=True)) == truth(word, 12, held)
        assert index.search(word, k=1, effort=30).distances[0] == truth(word, 1, held)[0][0]
    for round in range(10):  # places are used again, and what was there is forgotten
        index.upsert([f"{a}{round}x" for a in "abcdefghij"], ids=np.arange(10))
    assert index.get(4) == "e9x"
    assert len(index) == 101
    assert len(index._source.items) < 180
    index.verify()


def test_progress_and_orders():
    seen = []
    for order in ("random", "given", "lid_descending", np.arange(200)[::-1]):
        index = nearly.HNSW(
            WORDS[:200], metric=letters, M=4, order=order, progress=lambda done, total: seen.append((done, total))
        )
        assert seen[-1] == (200, 200)
        assert index.search(WORDS[3], k=1, effort=40).distances[0] == 0
    seen.clear()
    index.add(WORDS[200:], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(WORDS) - 200, len(WORDS) - 200)

    def broken(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        index.add(["abc"], progress=broken)
    assert len(index) == len(WORDS)
    with pytest.raises(nearly.InputError):
        nearly.HNSW(WORDS, metric=letters, order="lid_sideways")


def test_a_metric_may_not_change_the_index_that_asks_it():
    index = None

    def meddling(x, others):
        if index is not None:
            index.remove([0])
        return [abs(x - other) for other in others]

    index = nearly.HNSW(list(range(50)), metric=meddling)
    with pytest.raises(nearly.StateError, match="may not change"):
        index.search(3)
    assert len(index) == 50


def test_a_broken_addition_leaves_lists_and_entries():
    broken = [0]

    def fragile(x, others):
        broken[0] -= 1
        if broken[0] == 0:
            raise ZeroDivisionError("the metric broke")
        return [abs(x - other) for other in others]

    index = nearly.HNSW(list(range(0, 1200, 4)), metric=fragile, M=2, ef_construction=8)
    before, entries = [table.array().tobytes() for table in index._lists], index._graph.entries
    for when in range(1, 400, 31):
        broken[0] = when
        with pytest.raises(ZeroDivisionError):
            index.add(list(range(1, 800, 2)))
        broken[0] = 0
        assert len(index) == 300
        now = [table.array().tobytes() for table in index._lists]
        assert all(lists.startswith(held) for lists, held in zip(now, before, strict=False))
        assert index._graph.entries == entries
    assert index.add([7.5]).tolist() == [300]
    assert index.search(7.5, k=1, effort=10).ids.tolist() == [300]
    index.verify()


def test_readers_beside_a_writer():
    """Numbers come, go and are replaced by others of the same id; no reader meets what never was."""
    index = nearly.HNSW(list(range(0, 3000, 10)), metric=steps, M=6, ef_construction=30, calibrate=False)
    lasting = set(range(0, 300, 3))
    stop, problems, walks = threading.Event(), [], []

    def read(seed):
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                asked = int(rng.choice(100)) * 3
                item = asked * 10
                hits = index.search(item, k=3, effort=40, exact=bool(seed % 2))
                if seed % 2:
                    assert hits.ids[0] == asked
                    assert hits.distances[0] == 0
                else:
                    walks.append(hits.ids[0] == asked)
                for id, distance in pairs(hits):
                    assert distance in range(3001) or id < 0
                assert index.get(asked) == item
                assert asked in index.range_search(item, 5).ids.tolist()
                assert index.search(item, k=5, effort=20, where=[asked]).ids.tolist() == [asked]
        except BaseException as problem:
            problems.append(problem)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    others = np.array(sorted(set(range(300)) - lasting))
    rng = np.random.default_rng(5)
    try:
        for turn in range(12):
            some = rng.permutation(others)[:40]
            known = np.array([id in index for id in some.tolist()])
            index.remove(some[known][:20])
            index.upsert([int(x) * 10 + 1 + turn % 3 for x in some[20:]], ids=some[20:])
            index.add([3000 + turn])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert problems == []
    assert np.mean(walks) > 0.99  # while lists are repaired a node may be out of reach for a moment
    index.verify()


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        nearly.HNSW(WORDS, metric=letters, seed=2).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_none_and_one():
    empty = nearly.HNSW([], metric=letters)
    assert len(empty) == 0
    assert empty.search("abc", k=3).ids.tolist() == []
    assert empty.add(["abd"]).tolist() == [0]
    assert empty.search("abc", k=3).ids.tolist() == [0]


def test_what_it_is_and_is_not():
    index = nearly.HNSW(WORDS, metric=letters)
    assert "letters" in repr(index)
    assert "Python function" in index.plan
    with pytest.raises(TypeError, match="save"):
        pickle.dumps(index)
    for call in (
        lambda: nearly.HNSW(5, metric=letters),
        lambda: nearly.HNSW(WORDS, metric=letters, M=1),
        lambda: nearly.HNSW(WORDS, metric=letters, ids=[1]),
        lambda: nearly.Vamana(WORDS, metric=letters),
        lambda: nearly.Flat(WORDS, metric=letters),
        lambda: nearly.build(WORDS, metric=letters),
        lambda: index.search("abc", k=0),
        lambda: index.search("abc", effort=0),
        lambda: index.search("abc", where=[-1]),
    ):
        with pytest.raises(nearly.InputError):
            call()
    for call, hint in (
        (lambda: index.search("abc", ef=5), "use effort="),
        (lambda: index.search("abc", top_k=5), "use k="),
        (lambda: index.search("abc", threads=2), "one thread"),
        (lambda: index.range_search("abc", 1, recall=0.9), "exact"),
        (lambda: nearly.HNSW(WORDS, metric=letters, efConstruction=9), "use ef_construction="),
        (lambda: nearly.HNSW(WORDS, metric=letters, quantizer=nearly.Plain()), "quantizer"),
    ):
        with pytest.raises(TypeError, match=hint):
            call()
    assert not hasattr(index, "dim")


def test_a_metric_in_python_is_not_asked_for_many_at_a_time():
    index = nearly.HNSW(list(range(0, 100, 10)), metric=lambda x, others: [abs(x - y) for y in others])
    with pytest.raises(nearly.InputError, match="one query at a time"):
        index.search_many([42, 55], k=2, recall=0.9)
