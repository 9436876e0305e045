"""Changes: add, upsert, remove and get speak of ids; an error changes nothing; readers may go on reading."""

import threading

import numpy as np
import pytest
from contract_support import KINDS, L2, SIMPLE, Case, built, each, few_queries, points, queries, same

import nearly
from nearly import evaluate


def state_of(index, tmp_path):
    """Return all that there is of an index, as bytes."""
    index.save(tmp_path / "state")
    return (tmp_path / "state").read_bytes()


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_what_is_added_is_found_and_what_is_removed_is_not(case):
    vectors = points(case.metric, 480)
    # Under one metric, changes of this size calibrate anew.
    index = case.make(vectors[:220], **({} if case in L2 else few_queries(case)))
    assert index.add(vectors[220:400]).tolist() == list(range(220, 400))
    index.remove(np.arange(0, 400, 5))
    index.remove(399)
    assert index.add(vectors[400:401]).tolist() == [400]
    assert index.upsert(vectors[401:403], ids=[1, 900]).tolist() == [1, 900]
    assert index.add(vectors[403:]).tolist() == list(range(901, 978))
    held = {i: vectors[i] for i in range(401) if (i % 5 or i == 400) and i != 399}
    held |= {1: vectors[401], 900: vectors[402]} | {901 + i: vectors[403 + i] for i in range(77)}
    assert index.ids.tolist() == sorted(held)
    assert len(index) == len(held)
    np.testing.assert_allclose(index.get(sorted(held)), [held[i] for i in sorted(held)], rtol=1e-6)
    asked = queries(case.metric, 20)
    hits = index.search(asked, k=10, exact=True)
    truth = evaluate.exact(np.array([held[i] for i in sorted(held)]), asked, 10, metric=case.metric)[1]
    np.testing.assert_allclose(hits.distances, truth, rtol=1e-5, atol=2e-5)
    found = index.search(asked, k=10)
    assert np.isin(found.ids, index.ids).all()
    assert (found.distances <= truth[:, -1:] + 2e-5).mean() >= 0.9
    index.verify()


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_ids_are_the_users_and_are_never_given_twice(case):
    index = case.make(points("l2", 5), ids=[4, 0, 70, 8, 2])
    assert index.ids.tolist() == [0, 2, 4, 8, 70]
    assert index.add(points("l2", 2)).tolist() == [71, 72]
    index.remove([72, 71, 70])
    assert index.add(points("l2", 1)).tolist() == [73]
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(points("l2", 1)[0]).ids.tolist() == []
    assert index.add(points("l2", 2)).tolist() == [74, 75]
    assert index.add(points("l2", 2), ids=[0, 70]).tolist() == [0, 70]  # a user may use an id again
    assert index.search(points("l2", 2)[0], k=1).distances.tolist() == [0.0]
    assert index.add(points("l2", 0)).tolist() == []


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_membership(case):
    index = case.make(points("l2", 20), ids=np.arange(20) * 2)
    for present in (0, 38, np.int64(4), np.uint8(6)):
        assert present in index
    for absent in (1, 40, -1, 2**63, -(2**70), 4.0, "4", None, True, np.array([4])):
        assert absent not in index


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_get_gives_back_what_was_put_in(case):
    vectors = points(case.metric)
    index = built(case)
    one = index.get(7)
    assert one.shape == (vectors.shape[1],)
    np.testing.assert_allclose(one, vectors[7], rtol=1e-6)
    several = index.get([9, 7, 7])
    np.testing.assert_allclose(several, vectors[[9, 7, 7]], rtol=1e-6)
    assert index.get([]).shape == (0, vectors.shape[1])
    assert index.get(np.array([3])).shape == (1, vectors.shape[1])
    for unknown in (600, [0, 600, 601], -1, 2**62):
        with pytest.raises(nearly.IdError):
            index.get(unknown)
    with pytest.raises(KeyError, match="600, 601"):
        index.get([0, 600, 601])


@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_an_error_changes_nothing(case, tmp_path):
    vectors = points(case.metric, 220)
    index = case.make(vectors[:200], ids=np.arange(200) * 3)
    index.remove([0, 3])
    before = state_of(index, tmp_path)
    new = vectors[200:203]
    wide = np.concatenate([new, new], axis=1)
    calls = [
        (nearly.IdError, "9", lambda: index.add(new, ids=[9, 1, 2])),
        (nearly.IdError, "", lambda: index.add(new, ids=[1, 2, 1])),
        (nearly.IdError, "", lambda: index.add(new, ids=[1, 2, -5])),
        (nearly.InputError, "", lambda: index.add(new, ids=[1, 2])),
        (nearly.InputError, "", lambda: index.add(new, ids=[1.5, 2, 4])),
        (nearly.DimensionError, "", lambda: index.add(wide)),
        (nearly.InputError, "threads", lambda: index.add(new, threads=0)),
        (nearly.IdError, "1", lambda: index.remove([6, 1])),
        (nearly.IdError, "", lambda: index.remove([6, 6])),
        (nearly.IdError, "0", lambda: index.remove(0)),
        (nearly.IdError, "", lambda: index.remove([-1])),
        (nearly.IdError, "", lambda: index.upsert(new, ids=[6, 6, 9])),
        (nearly.InputError, "", lambda: index.upsert(new, ids=[6])),
        (nearly.InputError, "ids", lambda: index.upsert(new, ids=None)),
        (nearly.DimensionError, "", lambda: index.upsert(wide, ids=[6, 9, 12])),
        (nearly.InputError, "threads", lambda: index.upsert(new, ids=[6, 9, 12], threads=0)),
        (nearly.InputError, "", lambda: index.add("three vectors")),
        (nearly.InputError, "", lambda: index.add(None)),
    ]
    if new.dtype == np.float32:
        bad = new.copy()
        bad[1, 2] = np.nan
        calls += [
            (nearly.InputError, "row 1", lambda: index.add(bad)),
            (nearly.InputError, "row 1", lambda: index.upsert(bad, ids=[6, 9, 12])),
            (nearly.InputError, "", lambda: index.add(bad.astype(np.float64) * 1e300)),
        ]
    for error, words, call in calls:
        with pytest.raises(error, match=words or None):
            call()
    assert state_of(index, tmp_path) == before
    assert index.add(new).tolist() == [598, 599, 600]


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_other_numbers_may_come_later(case):
    """Whole numbers are stored as bytes until something else comes."""
    whole = np.random.default_rng(0).integers(0, 256, (300, 8)).astype(np.float32)
    index = case.make(whole)
    n_bytes = index.n_bytes
    assert "uint8" in index.plan
    index.add(whole[:10] + 0.3)
    assert "float32" in index.plan
    np.testing.assert_array_equal(index.get(np.arange(310)), np.concatenate([whole, whole[:10] + np.float32(0.3)]))
    assert index.search(whole[:50], k=1, exact=True).distances.max() == 0
    assert index.n_bytes > n_bytes
    with pytest.raises(nearly.InputError):
        index.add(np.full((1, 8), np.nan, np.float32))


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_an_empty_index_grows(case):
    vectors = points("l2", 500)
    index = case.make(vectors[:0])
    assert len(index) == 0
    assert index.ids.tolist() == []
    assert index.search(vectors[:3], k=5).counts.tolist() == [0, 0, 0]
    assert index.range_search(vectors[0], 100.0).ids.tolist() == []
    for i in (0, 1, 2, 3):
        assert index.add(vectors[i : i + 1]).tolist() == [i]
    index.add(vectors[4:])
    hits = index.search(vectors[:50], k=5)
    assert hits.ids[:, 0].tolist() == list(range(50))
    same(index.search(vectors[:50], k=5, exact=True), nearly.Flat(vectors).search(vectors[:50], k=5))
    index.verify()


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_the_first_vectors_decide_the_dimension(case):
    index = case.make(np.zeros((0, 3), np.float32))
    assert index.search(np.ones(5, np.float32)).ids.tolist() == []
    index.add(np.ones((2, 5), np.float32))
    assert index.dim == 5
    assert index.search(np.ones(5, np.float32)).ids.tolist() == [0, 1]
    with pytest.raises(nearly.DimensionError):
        index.search(np.ones(3, np.float32))


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_many_changes_leave_a_sound_index(case):
    rng = np.random.default_rng(5)
    vectors = points("l2", 1000)
    index = case.make(vectors[:300])
    held = dict(enumerate(vectors[:300]))
    for step in range(6):
        gone = rng.choice(sorted(held), size=60, replace=False)
        index.remove(gone)
        for i in gone.tolist():
            del held[i]
        new = vectors[300 + step * 70 : 370 + step * 70]
        held |= dict(zip(index.add(new).tolist(), new, strict=True))
        replaced = rng.choice(sorted(held), size=10, replace=False)
        index.upsert(vectors[900:910], ids=replaced)
        held |= dict(zip(replaced.tolist(), vectors[900:910], strict=True))
    index.verify()
    ids = np.array(sorted(held))
    assert index.ids.tolist() == ids.tolist()
    stored = np.array([held[i] for i in ids.tolist()])
    np.testing.assert_array_equal(index.get(ids), stored)
    found = index.search(stored, k=1, recall=0.99)
    assert (found.distances == 0).mean() >= 0.99
    assert index.n_bytes < 5 * case.make(stored).n_bytes


@pytest.mark.parametrize("case", [*KINDS, Case("flat", nearly.RaBitQ(5), "l2")], ids=str)
def test_readers_go_on_while_a_writer_writes(case):
    vectors = points("l2", 1200)
    index = case.make(vectors[:600])
    asked = queries("l2", 20)
    stop, faults, rounds = threading.Event(), [], [0, 0, 0]

    def read(which):
        even = np.arange(0, 100_000, 2)
        try:
            while not stop.is_set() or rounds[which] < 2:
                chosen = asked if which else asked[rounds[0] % 20]
                hits = index.search(chosen, k=10)
                assert (hits.ids < 600 + 4 * 70).all()
                exact = np.linalg.norm(chosen[..., None, :] - vectors[hits.ids], axis=-1)  # an id is a row of vectors
                np.testing.assert_allclose(hits.distances, exact, atol=1e-4)
                assert (np.asarray(hits.counts) == 10).all()  # a row that is removed meanwhile leaves no gap
                assert (hits.distances[..., 1:] >= hits.distances[..., :-1]).all()
                if which == 2:
                    odd = index.search(asked, k=10, where=even).ids
                    assert (odd[odd >= 0] % 2 == 0).all()
                    index.search(asked, k=5, exact=True)
                    index.range_search(asked, 4.0)
                    assert len(index) > 0
                    assert 5 in index
                    assert len(index.get([5, 7, 9])) == 3
                    assert {5, 7, 9} <= set(index.ids.tolist())
                rounds[which] += 1
        except BaseException as fault:  # of any kind: it must reach the main thread
            faults.append(fault)

    readers = [threading.Thread(target=read, args=(i,)) for i in range(3)]
    for reader in readers:
        reader.start()
    for step in range(4):
        added = index.add(vectors[600 + 70 * step : 670 + 70 * step])
        index.remove(added[::2])
        index.remove(np.arange(10 + 70 * step, 80 + 70 * step))
    stop.set()
    for reader in readers:
        reader.join()
    if faults:
        raise faults[0]
    assert min(rounds) >= 2
    index.verify()
    assert len(index) == 600 + 4 * 35 - 4 * 70


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_readers_see_the_old_vector_or_the_new_one(case):
    """Never neither, never both, whichever way they look, while all vectors move to and fro and ids come in between."""
    n, rounds = 200, [0] * 4
    here = points("l2", n)
    there = here[::-1] + np.float32(3)
    index = case.make(here)
    ids, stop, faults = np.arange(n), threading.Event(), []
    places = np.stack([here, there])

    def is_place(vectors, of):
        return (vectors == places[:, of]).all(axis=-1).any(axis=0)

    def read(which):
        asked, some = queries("l2", 9), np.arange(0, n, 3)
        try:
            while not stop.is_set() or rounds[which] < 2:
                some_queries = asked[: 1 + 8 * (rounds[which] % 2)]  # a scan of one and a scan by products
                answers = [
                    lambda part=some_queries: [index.search(part, k=300, exact=True)],
                    lambda: [index.search(asked, k=300, where=some), index.search(asked, k=10)],
                    lambda: [index.range_search(asked, 1e9)],
                    list,
                ][which]()
                for query, row in (pair for hits in answers for pair in zip(asked, hits, strict=False)):
                    old = row.ids < n
                    got = row.ids[old]
                    assert len(np.unique(row.ids)) == len(row.ids)
                    assert which == 1 or len(got) == n
                    apart = np.linalg.norm(places[:, got] - query, axis=-1)
                    assert np.isclose(row.distances[old], apart, atol=1e-3).any(axis=0).all()
                if which == 1:
                    assert [sorted(row.ids.tolist()) for row in answers[0]] == [some.tolist()] * 9
                if which == 3:
                    assert is_place(index.get(ids), ids).all()
                    assert set(ids.tolist()) <= set(index.ids.tolist())
                    assert 5 in index
                    assert len(index) in (n, n + 1)
                rounds[which] += 1
        except BaseException as fault:  # of any kind: it must reach the main thread
            faults.append(fault)

    readers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for reader in readers:
        reader.start()
    rng = np.random.default_rng(0)
    for step in range(60 if case.kind == "flat" else 18):
        moved = rng.permutation(n)[: rng.integers(1, n)]
        if step % 3:
            index.upsert(places[step % 2][moved], ids=moved)
        else:  # one is new
            index.upsert(places[step % 2][[*moved, 0]], ids=[*moved, n + step])
            index.remove(n + step)
        if faults:
            break
    stop.set()
    for reader in readers:
        reader.join()
    if faults:
        raise faults[0]
    assert min(rounds) >= 2
    index.verify()
    assert index.ids.tolist() == ids.tolist()


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_an_index_that_lost_all_is_saved_and_grows_again(case, tmp_path):
    vectors = points("l2", 300)
    index = case.make(vectors)
    index.remove(np.arange(300))
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", verify=True)
    assert len(loaded) == 0
    assert loaded.search(vectors[0]).ids.tolist() == []
    assert loaded.add(vectors).tolist() == list(range(300, 600))
    assert (loaded.search(vectors, k=1, recall=0.99).distances == 0).mean() >= 0.99
    loaded.verify()
