"""Ctrl-C between any two steps of a change: it is there whole or not at all, and the next one works."""

import threading

import numpy as np
import pytest

import nearly
from nearly import Flat
from nearly.collection.catalogue import Catalogue
from nearly.collection.tail import Tail
from nearly.collection.writing import Limits, Writer


def vectors(first, n):
    return np.arange(first, first + n, dtype=np.float32)[:, None] + np.zeros((n, 4), np.float32)


def put(docs, first, n):
    keys = list(range(first, first + n))
    docs.upsert(vectors(first, n), ids=keys, metadata={"key": keys}, documents=[str(key) for key in keys])


def check(docs, keys):
    """Every row is whole, and there are no others."""
    rows = docs.get(include=["metadata", "document", "vector"])
    assert sorted(row.id for row in rows) == sorted(keys)
    for row in rows:
        assert (row.metadata["key"], row.document, row.vector[0]) == (row.id, str(row.id), row.id)
        assert docs.search(row.vector, 1).ids.tolist() == [row.id]
    docs.verify()


def interrupt(monkeypatch, owner, name, when):
    """The next call of a method is broken off, before it did anything or when it had done it."""
    real = getattr(owner, name)

    def broken_off(*arguments, **options):
        monkeypatch.setattr(owner, name, real)
        if when == "after":
            real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, broken_off)


STEPS = [
    (Tail, "append"),
    (Catalogue, "append"),
    (Catalogue, "write_segments"),
    (Writer, "_put_down"),
]


@pytest.mark.parametrize("path", [True, False], ids=["folder", "memory"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_an_interrupted_change_is_whole_or_not_there(owner, name, when, path, tmp_path, monkeypatch):
    docs = nearly.open(tmp_path / "docs" if path else None, background=False, durable=False)
    docs._writer.limits = Limits(tail_rows=20)
    put(docs, 0, 5)
    put(docs, 3, 4)  # replaces two, so that some rows of the tail are dead
    interrupt(monkeypatch, owner, name, when)
    for n in (5, 30):  # through the log, and as a segment of its own
        try:
            put(docs, 100, n)
        except KeyboardInterrupt:
            break
    there = [key for key in range(100, 130) if key in docs]
    assert there in ([], list(range(100, 105)), list(range(100, 130)))
    check(docs, [*range(7), *there])
    put(docs, 200, 3)
    docs.delete(4)
    docs.flush()
    keys = [0, 1, 2, 3, 5, 6, *there, 200, 201, 202]
    check(docs, keys)
    docs.close()
    if path:
        with nearly.open(tmp_path / "docs") as docs:
            check(docs, keys)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), [(Tail, "_take_up"), (Flat, "add")], ids=["_take_up", "add"])
def test_an_interrupted_search_takes_up_vectors_once(owner, name, when, monkeypatch):
    docs = nearly.open(background=False)
    put(docs, 0, 3)
    assert docs.search(vectors(2, 1)[0], 1).ids.tolist() == [2]
    put(docs, 3, 2)
    interrupt(monkeypatch, owner, name, when)
    with pytest.raises(KeyboardInterrupt):
        docs.search(vectors(4, 1)[0], 1)
    put(docs, 5, 2)
    check(docs, range(7))


def test_who_waits_for_an_interrupted_thread_is_told(monkeypatch):
    docs = nearly.open(background=False)
    put(docs, 0, 1)
    real, both, told = Writer._commit, threading.Event(), []

    def broken_off(self, taken):
        both.wait(10)
        monkeypatch.setattr(Writer, "_commit", real)
        with self._arrived:
            taken += self._queue
            self._queue.clear()
        raise KeyboardInterrupt

    def write(key):
        try:
            put(docs, key, 1)
        except BaseException as problem:
            told.append(type(problem))

    monkeypatch.setattr(Writer, "_commit", broken_off)
    threads = [threading.Thread(target=write, args=(key,)) for key in (1, 2)]
    for thread in threads:
        thread.start()
    while len(docs._writer._queue) < 2:
        pass
    both.set()
    for thread in threads:
        thread.join(30)
    assert sorted(kind.__name__ for kind in told) == ["KeyboardInterrupt", "StateError"]
    put(docs, 3, 1)
    check(docs, [0, 3])


def test_a_write_whose_thread_was_lost_does_not_wait_for_ever(monkeypatch):
    docs = nearly.open(background=False)
    monkeypatch.setattr("nearly.collection.writing._LOST", 0.01)
    docs._writer._leading = True  # of a thread that is no more
    put(docs, 0, 1)
    check(docs, [0])
