"""Changes that are broken off, by Ctrl-C at any line or in any batch, did all that they were to do, or nothing."""

import sys
from pathlib import Path

import numpy as np
import pytest
from contract_support import GRAPHS, KINDS, points

import nearly
from nearly.indexes.graph import GraphIndex

INSIDE = str(Path(nearly.__file__).parent / "indexes")
FAR = 10.0  # what is added lies there


class Interrupted:
    """Ctrl-C at one of the lines that the indexes go through, each counted once it is about to run."""

    def __init__(self, at):
        self.at, self.lines = at, 0

    def __enter__(self):
        sys.settrace(self.enter)

    def __exit__(self, *_):
        sys.settrace(None)

    def enter(self, frame, event, argument):
        return self.step if frame.f_code.co_filename.startswith(INSIDE) else None

    def step(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.step


def break_off(monkeypatch, index, after):
    """Ctrl-C after so many batches of the next insertion."""

    def insert(nodes, threads, report):
        done = iter(range(after - 1))
        GraphIndex._insert(index, nodes, threads, lambda _: next(done, None) is None and press())

    def press():
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "_insert", insert)


def start(case, n):
    """Return an index of n vectors, a few of which are gone, and what it holds by id."""
    vectors = points("l2", 400)
    index = case.make(vectors[:n], calibrate=False) if case.kind != "flat" else case.make(vectors[:n])
    gone = np.arange(0, n, 9)
    index.remove(gone)
    if case.kind != "flat":
        index.consolidate()  # places to be used again
    return index, {i: vectors[i] for i in range(n) if i % 9}


def add(index, held):
    new = points("l2", 60, seed=9) + np.float32(FAR)
    return lambda: index.add(new), held | {max(held, default=-1) + 1 + i: v for i, v in enumerate(new)}


def upsert(index, held):
    new = points("l2", 60, seed=9) + np.float32(FAR)
    ids = [*list(held)[:40], *range(1000, 1020)]
    return lambda: index.upsert(new, ids=ids), held | dict(zip(ids, new, strict=True))


def remove(index, held):
    ids = list(held)[: len(held) * 2 // 3]  # so many that places are freed
    return lambda: index.remove(ids), {i: v for i, v in held.items() if i not in ids}


def check(index, held):
    """The index holds just this, and searches find it."""
    ids = np.array(sorted(held), np.int64)
    index.verify()
    assert len(index) == len(held)
    assert index.ids.tolist() == ids.tolist()
    if not len(held):
        assert index.search(points("l2", 1)[0], exact=True).ids.tolist() == []
        return
    stored = np.array([held[i] for i in ids.tolist()])
    np.testing.assert_array_equal(index.get(ids), stored)
    assert index.search(stored, k=1, exact=True).ids[:, 0].tolist() == ids.tolist()
    if not isinstance(index, nearly.Flat):
        found = index.search(stored, k=1, effort=40)
        assert (found.ids[:, 0] == ids).mean() > 0.98
        if isinstance(index, GraphIndex):
            assert index._graph.count_unreachable() == 0


@pytest.mark.parametrize("lines", [3, pytest.param(40, marks=pytest.mark.soak)])
@pytest.mark.parametrize("n", [200, 0])
@pytest.mark.parametrize("change", [add, upsert, remove], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_ctrl_c_at_any_line_leaves_all_or_nothing(case, change, n, lines, tmp_path):
    if n == 0 and change is not add:
        pytest.skip("nothing is there to be replaced or removed")
    index, held = start(case, n)
    whole = Interrupted(0)
    with whole:
        change(index, held)[0]()
    outcomes = set()
    for at in np.unique(np.linspace(1, whole.lines, lines).astype(int)):
        index, held = start(case, n)
        call, then = change(index, held)
        with pytest.raises(KeyboardInterrupt), Interrupted(at):
            call()
        done = index.ids.tolist() == sorted(then)
        outcomes.add(done)
        check(index, then if done else held)
        index.save(tmp_path / "a")
        check(nearly.load(tmp_path / "a", verify=True), then if done else held)
        if not done or change is upsert:  # the same once more: nothing is half there
            call()
        check(index, then)
        more = points("l2", 20, seed=11) - np.float32(FAR)
        check(index, then | dict(zip(index.add(more).tolist(), more, strict=True)))
    assert False in outcomes


@pytest.mark.parametrize("change", [add, upsert], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", [c for c in KINDS if c.kind in GRAPHS], ids=str)
def test_ctrl_c_in_any_batch_changes_nothing(case, change, monkeypatch):
    for after in range(1, 7):
        index, held = start(case, 200)
        call, then = change(index, held)
        break_off(monkeypatch, index, after)
        with pytest.raises(KeyboardInterrupt):
            call()
        monkeypatch.undo()
        check(index, held)
        call()
        check(index, then)


def test_ctrl_c_in_calibration_keeps_the_curve_there_was():
    index = nearly.Vamana(points("l2", 600))
    curve = index.curve
    for at in range(5, 150, 7):
        with pytest.raises(KeyboardInterrupt), Interrupted(at):
            index.calibrate()
        assert index.curve is curve
        assert index.search(points("l2", 600)[5], k=1).ids.tolist() == [5]
