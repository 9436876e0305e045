"""HNSW over anything by a Python function: answers, changes, errors of the function, files."""

import pickle

import numpy as np
import pytest

import nearly

WORDS = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "lmnrst"]


def letters(word, words):
    """Return in how many places words differ."""
    return [sum(a != b for a, b in zip(word, other, strict=True)) for other in words]


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

    numbers = np.random.default_rng(0).permutation(2000).tolist()
    index = nearly.HNSW(numbers, metric=counted, M=6, ef_construction=40)
    calls.clear()
    found = [index.search(x + 0.25, k=5, effort=10).distances.tolist() for x in range(50, 1950, 100)]
    assert sum(calls) < 19 * 1000
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


def test_saved_without_the_function_and_the_items(tmp_path):
    index = nearly.HNSW(WORDS, metric=letters, M=4, seed=5)
    index.remove([7, 8])
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", metric=letters, items=WORDS, verify=True)
    for word in ("bet", "gus"):
        assert pairs(loaded.search(word, k=5)) == pairs(index.search(word, k=5))
        assert pairs(loaded.search(word, k=5, exact=True)) == pairs(index.search(word, k=5, exact=True))
    assert 7 not in loaded
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.add(["bit"]).tolist() == [len(WORDS)]
    with pytest.raises(nearly.InputError, match="callable"):
        nearly.load(tmp_path / "a")
    with pytest.raises(nearly.InputError, match="items"):
        nearly.load(tmp_path / "a", metric=letters)
    with pytest.raises(nearly.InputError, match=f"{len(WORDS)}"):
        nearly.load(tmp_path / "a", metric=letters, items=WORDS[:-1])


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
