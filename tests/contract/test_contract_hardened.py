"""What an adversary tried: ids at their end, free places named twice, forks in a change, long chains, huge k."""

import os
import threading

import numpy as np
import pytest

import nearly
from nearly import storage
from nearly.indexes.store import NONE

KINDS = [nearly.Flat, nearly.Vamana, nearly.HNSW]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_end_where_int64_does(kind, rng, tmp_path):
    index = kind(rng.standard_normal((4, 3), dtype=np.float32), ids=[2**63 - 3, 0, 1, 2])
    with pytest.raises(nearly.IdError, match=r"2\*\*63"):
        index.add(rng.standard_normal((3, 3), dtype=np.float32))
    assert index.add(rng.standard_normal((2, 3), dtype=np.float32)).tolist() == [2**63 - 2, 2**63 - 1]
    with pytest.raises(nearly.IdError, match="pass ids="):
        index.add(np.zeros((1, 3), np.float32))
    index.save(tmp_path / "a.nearly")
    assert sorted(nearly.load(tmp_path / "a.nearly").ids.tolist()) == sorted(index.ids.tolist())


@pytest.mark.parametrize("kind", [nearly.Vamana, nearly.HNSW])  # Flat copies what is left: it has no free places
@pytest.mark.parametrize("name", ["spare_rows", "spare_nodes"])
def test_a_place_that_is_free_twice_is_refused(kind, name, rng, tmp_path):
    index = kind(rng.standard_normal((60, 4), dtype=np.float32))
    index.remove(np.arange(20))
    index.consolidate()
    index.save(tmp_path / "a.nearly")
    file = storage.read(tmp_path / "a.nearly")
    arrays = {key: np.array(value) for key, value in file.arrays.items()}
    arrays[name][:] = arrays[name][0]
    storage.write(tmp_path / "b.nearly", arrays, file.config, kind=file.kind)
    with pytest.raises(nearly.FormatError, match="twice"):
        nearly.load(tmp_path / "b.nearly")


def forged(path, config, arrays):
    """Write a file again with other values of its configuration and arrays, whole and with right checksums."""
    file = storage.read(path)
    rows = {"rows": {**file.config["rows"], **config}}
    storage.write(path.with_name("b"), {**file.arrays, **arrays}, {**file.config, **rows}, kind=file.kind)
    return path.with_name("b")


FORGED = {
    "an id that is still to be given": ("below the next", {"next_id": 59}, lambda held: {}),
    "a row in use that is free": ("in use", {}, lambda held: {"spare_rows": [40, *held["spare_rows"][1:]]}),
    "a node in use that is free": ("in use", {}, lambda held: {"spare_nodes": [40, *held["spare_nodes"][1:]]}),
    "a removed row that is not listed": ("removed rows", {}, lambda held: {"pending_rows": held["pending_rows"][1:]}),
    "a removed row that is in use": ("removed rows", {}, lambda held: {"pending_rows": [30, 21]}),
    "an entry that does not exist": ("entry nodes", {}, lambda held: {"entries": [60]}),
    "no entry": ("entry nodes", {}, lambda held: {"entries": []}),
}


@pytest.mark.parametrize("kind", [nearly.Vamana, nearly.HNSW])
@pytest.mark.parametrize(("message", "config", "change"), FORGED.values(), ids=FORGED)
def test_rows_and_nodes_that_contradict_each_other_are_refused(kind, message, config, change, rng, tmp_path):
    index = kind(rng.standard_normal((60, 4), dtype=np.float32))
    index.remove(np.arange(20))
    index.consolidate()
    index.remove([20, 21])
    index.save(tmp_path / "a")
    assert len(nearly.load(forged(tmp_path / "a", {}, {}))) == 38
    made = {name: np.array(values, np.uint32) for name, values in change(storage.read(tmp_path / "a").arrays).items()}
    with pytest.raises(nearly.FormatError, match=message):
        nearly.load(forged(tmp_path / "a", config, made))


def test_a_list_may_name_only_nodes_of_its_own_layer(rng, tmp_path):
    nearly.HNSW(rng.standard_normal((200, 4), dtype=np.float32), M=4).save(tmp_path / "a")
    arrays = storage.read(tmp_path / "a").arrays
    lists, slots = np.array(arrays["lists_1"]), arrays["slots_1"].view(np.uint32)[:, 0]
    lists.view(np.uint32)[slots[slots != NONE][0], 0] = np.flatnonzero(slots == NONE)[0]
    with pytest.raises(nearly.FormatError, match="does not hold it"):
        nearly.load(forged(tmp_path / "a", {}, {"lists_1": lists}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_forked_in_a_change_is_told_so(kind, rng):
    index = kind(rng.standard_normal((300, 4), dtype=np.float32))
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with index._writing:
            inside.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            index.search(np.zeros(4, np.float32), k=1)
            index.add(np.zeros((1, 4), np.float32))
        except nearly.StateError:
            code = 0
        finally:
            os._exit(code)
    leave.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    child = os.fork()  # nobody changes it now
    if child == 0:
        os._exit(0 if len(index.add(np.ones((1, 4), np.float32))) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_of_one_vector_come_and_go(kind, rng):
    n = 20_000
    index = kind(np.ones((n, 2), np.float32), ids=np.arange(n) * 2)
    index.add(np.ones((n, 2), np.float32), ids=rng.permutation(n) * 2 + 1)  # between those that hang there
    index.verify()
    assert index.search(np.ones(2, np.float32), k=n).ids.tolist() == list(range(n))
    gone = rng.permutation(2 * n)[:n]
    index.remove(gone)
    index.verify()
    left = np.setdiff1d(np.arange(2 * n), gone)
    assert index.search(np.ones(2, np.float32), k=n).ids.tolist() == left.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_an_answer_follows_the_vectors(kind, rng):
    index = kind(rng.standard_normal((300, 4), dtype=np.float32))
    for options in ({}, {"exact": True}, {"effort": 50}):
        hits = index.search(np.zeros((2, 4), np.float32), k=10**9, **options)
        assert hits.ids.shape[1] <= 1 << 16
        assert hits.counts.tolist() == [300, 300]


def test_numbers_of_a_forged_curve_are_refused(rng, tmp_path):
    index = nearly.Vamana(rng.standard_normal((600, 8), dtype=np.float32))
    index.save(tmp_path / "a.nearly")
    file = storage.read(tmp_path / "a.nearly")
    for name, value in (("curve_mean", 3e38), ("curve_share", -1.0), ("curve_error", -0.5), ("quantizer_step", -1.0)):
        arrays = {key: np.array(held) for key, held in file.arrays.items()}
        arrays[name][...] = value
        storage.write(tmp_path / "b.nearly", arrays, file.config, kind=file.kind)
        with pytest.raises(nearly.FormatError, match="damaged"):
            nearly.load(tmp_path / "b.nearly")


def test_a_metric_that_searches_keeps_the_query_of_the_outer_search(rng):
    items = list(rng.standard_normal(300))
    inner = []

    def distance(item, others):
        if inner:
            inner.pop()
            index.search(0.0, k=1, exact=True)
        return np.abs(np.array(others) - item)

    index = nearly.HNSW(items, metric=distance)
    truth = np.argsort(np.abs(np.array(items) - 1.0), kind="stable")[:5].tolist()
    inner.append(1)
    assert index.search(1.0, k=5, exact=True).ids.tolist() == truth


def test_an_id_given_again_to_an_item_is_loaded(tmp_path):
    def distance(item, others):
        return np.abs(np.array([other["at"] for other in others]) - item["at"])

    one, two, three, nine = ({"at": float(at)} for at in (1, 2, 3, 9))  # no file holds dicts
    index = nearly.HNSW([one, two, three], metric=distance)
    index.remove([1])
    index.add([nine], ids=[1])
    index.save(tmp_path / "a.nearly")
    loaded = nearly.load(tmp_path / "a.nearly", metric=distance, items=[one, nine, three])
    assert loaded.search(nine, k=1).ids.tolist() == [1]
