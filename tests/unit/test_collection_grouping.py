"""Writes that wait for one another share a commit, and come to what they would have come to one by one."""

import threading
import time

import numpy as np
import pytest

import nearly
from nearly.collection.tail import Batch, Tail

ALL = ["metadata", "document", "vector"]


def vector(key):
    return np.full((1, 4), key, np.float32)


def together(docs, writes):
    """Let writes wait in this order and be committed as one; returns what each returned or raised."""
    results = [None] * len(writes)

    def run(i, write):
        try:
            results[i] = write()
        except Exception as problem:
            results[i] = problem

    writer, threads = docs._writer, []
    with writer.mutex:
        for i, write in enumerate(writes):
            n, until = len(writer._queue), time.monotonic() + 30
            threads.append(threading.Thread(target=run, args=(i, write)))
            threads[-1].start()
            while len(writer._queue) == n and threads[-1].is_alive():  # some are refused before they wait
                assert time.monotonic() < until
    for thread in threads:
        thread.join(30)
    return results


def put(docs, key, **more):
    return lambda: docs.upsert(vector(key), ids=[key], **more)


def test_rows_put_by_many_are_one_record(tmp_path):
    docs = nearly.open(tmp_path / "docs", background=False)
    docs.add(vector(0), ids=[0], metadata={"year": [2000]})
    assert docs._state.sequence == 1
    writes = [put(docs, key, metadata={"year": [key]}) for key in range(1, 6)]
    writes += [put(docs, 6, documents=["six"]), put(docs, 0), lambda: docs.add(vector(7))]
    assert together(docs, writes) == [[1], [2], [3], [4], [5], [6], [0], [7]]
    assert (docs._writer.n_commits, docs._state.sequence) == (2, 2)
    for _ in range(2):  # also when the log is read again
        rows = {row.id: (row.metadata["year"], row.document, row.vector[0]) for row in docs.get(include=ALL)}
        assert rows == {**{key: (key, None, key) for key in range(1, 6)},
                        6: (None, "six", 6), 0: (None, None, 0), 7: (None, None, 7)}  # fmt: skip
        docs.close()
        docs = nearly.open(tmp_path / "docs", background=False)


def test_each_write_sees_those_before_it():
    docs = nearly.open(background=False)
    docs.add(vector(0), ids=[0], metadata={"year": [0]})
    told = together(docs, [
        put(docs, 1), lambda: docs.add(vector(1), ids=[1]), put(docs, 1, documents=["again"]),
        lambda: docs.delete(1), put(docs, 2), lambda: docs.update(2, metadata={"year": 2}),
        put(docs, 3, metadata={"year": [3]}), lambda: docs.delete(where="year = 3"),
        put(docs, 4, metadata={"new": ["x"]}),
        lambda: docs.upsert(np.full((1, 4), 5, np.int8), ids=[5]), lambda: docs.upsert(np.zeros((1, 3)), ids=[6]),
        lambda: docs.delete(7), put(docs, 9), lambda: docs.add(vector(10)),
    ])  # fmt: skip
    assert "ids are taken: 1" in str(told[1])
    assert isinstance(told[10], nearly.DimensionError)
    assert "not in this collection" in str(told[11])
    assert [told[i] for i in (0, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13)] == [
        [1], [1], 1, [2], 1, [3], 1, [4], [5], [9], [10],
    ]  # fmt: skip
    rows = {row.id: (row.metadata["year"], row.metadata["new"], row.vector[0]) for row in docs.get(include=ALL)}
    assert rows == {0: (0, None, 0), 2: (2, None, 2), 4: (None, "x", 4), 5: (None, None, 5),
                    9: (None, None, 9), 10: (None, None, 10)}  # fmt: skip
    for key in rows:
        assert docs.search(vector(key)[0], 1).ids.tolist() == [key]


def test_who_shares_a_record_that_fails_is_told(monkeypatch):
    docs = nearly.open(background=False)
    docs.add(vector(0), ids=[0])
    real = Tail.append

    def fails(self, batch):
        monkeypatch.setattr(Tail, "append", real)
        raise MemoryError("no room")

    monkeypatch.setattr(Tail, "append", fails)
    told = together(docs, [put(docs, 1), put(docs, 2), lambda: docs.delete(0)])
    assert all(isinstance(each, MemoryError) for each in told)
    assert docs.get(include=[]).ids.tolist() == [0]
    put(docs, 3)()
    assert sorted(docs.get(include=[]).ids.tolist()) == [0, 3]


def test_a_group_that_fails_leaves_nothing_of_those_before(monkeypatch):
    docs = nearly.open(background=False)
    docs.add(vector(0), ids=[0])
    real = Batch.joined

    def fails(batches):
        monkeypatch.setattr(Batch, "joined", real)
        raise MemoryError("no room")

    monkeypatch.setattr(Batch, "joined", fails)
    told = together(docs, [put(docs, 1, metadata={"b": [7]}), put(docs, 2), put(docs, 3)])
    assert all(isinstance(each, MemoryError) for each in told)
    docs.add(vector(4), ids=[4], metadata={"b": ["text"]})
    assert docs.count("b = 'text'") == 1
    assert sorted(docs.get(include=[]).ids.tolist()) == [0, 4]


@pytest.mark.parametrize("n_threads", [2, 8])
def test_threads_that_add_without_keys_get_different_ones(n_threads):
    docs = nearly.open(background=False)
    keys, guard = [], threading.Lock()

    def work():
        for _ in range(20):
            (key,) = docs.add(np.zeros((1, 4)))
            with guard:
                keys.append(key)

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys) == list(range(20 * n_threads))
    assert len(docs) == 20 * n_threads
