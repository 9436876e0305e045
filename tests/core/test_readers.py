"""Readers beside a writer that uses places again: nobody sees a place change under his eyes."""

import threading

import numpy as np
import pytest
from core_support import METRICS, Function, as_bytes, empty_answer, make_columns, make_plain, make_table, scan

from nearly import _core

N = 40


class Paused(Function):
    """Distances between numbers; `during` is called in the middle of a search or scan."""

    during = staticmethod(lambda: None)
    seen: tuple[int, ...] = ()

    def __call__(self, stored, which, rows):
        self.seen = (*self.seen, *rows.tolist())
        self.during()
        return super().__call__(stored, which, rows)


class World:
    """Numbers 0..N-1 as nodes and rows, in a graph, by a function that can be paused."""

    def __init__(self):
        self.function = Paused(np.arange(N))
        self.function.queries = np.array([7.25])
        self.scorer = _core.Callable(self.function, N)
        self.columns = make_columns(N, N)
        self.rows = self.columns.rows
        every = np.arange(N, dtype=np.uint32)
        self.rows.link(every, every.astype(np.int64), every)
        self.lists = make_table(4 * 6, N)
        self.graph = _core.Graph([self.lists], [], [], self.scorer, self.scorer, self.rows, 0)
        self.graph.insert(every, N, 20, 6, 1.2, threads=1)
        self.function.seen = ()

    def read(self, way, graph=None):
        """Ids near 7.25, or None."""
        query, answer = np.zeros((1, 8), np.uint8), empty_answer(1, 3)
        metric = METRICS.index("l1")
        if way == "scan":
            done = _core.scan(self.scorer, self.rows, N, 8, query, metric, *answer[:3], threads=1)
        elif way == "radius":
            done = _core.scan_radius(self.scorer, self.rows, N, 8, query, metric, 1.5, threads=1)
            return None if done is None else sorted(done[0].tolist(), key=lambda i: abs(i - 7.25))
        else:
            done = (graph or self.graph).search(8, query, metric, 20, 3, *answer[:3], threads=1)
        return None if done is None else answer.ids[0].tolist()


WAYS = ["scan", "radius", "graph"]


@pytest.mark.parametrize("way", WAYS)
def test_a_writer_waits_for_whoever_reads(way):
    world = World()
    # As an index does when it grows: another graph over the same tables, and its writer waits by that one.
    other = _core.Graph([world.lists], [], [0], world.scorer, world.scorer, world.rows, N)
    writer = threading.Thread(target=other.wait_for_readers)
    waited = []

    def during():
        if not writer.ident:
            writer.start()
            writer.join(0.1)
            waited.append(writer.is_alive())

    world.function.during = during
    assert world.read(way)[0] == 7
    assert waited == [True]
    writer.join(10)
    assert not writer.is_alive()


def test_a_writer_does_not_wait_for_those_who_begin_later():
    world = World()
    first, second = threading.Event(), threading.Event()
    inside, may_end = threading.Event(), threading.Event()
    writer = threading.Thread(target=world.graph.wait_for_readers)

    def during():
        if threading.current_thread().name == "late":
            inside.set()
            may_end.wait(10)
        elif not first.is_set():
            first.set()
            second.wait(10)

    world.function.during = during
    early = threading.Thread(target=world.read, args=("scan",))
    late = threading.Thread(target=world.read, args=("scan",), name="late")
    early.start()
    assert first.wait(10)
    writer.start()
    writer.join(0.1)  # the writer has moved on to the next epoch and waits for the early reader
    late.start()
    assert inside.wait(10)
    second.set()
    writer.join(10)
    assert not writer.is_alive()
    assert late.is_alive()
    may_end.set()
    for reader in (early, late):
        reader.join(10)


@pytest.mark.parametrize("way", WAYS[:2])
def test_free_places_are_not_looked_at(way):
    # A writer may be filling them, and hang rows on them before the reader looks whether there are any.
    world = World()
    world.rows.unlink(np.array([7], np.uint32), np.array([7], np.uint32))
    filled = []

    def during():
        if not filled:
            filled.append(7)
            world.rows.link(np.array([7], np.uint32), np.array([100], np.int64), np.array([7], np.uint32))

    world.function.during = during
    assert 7 not in world.read(way)
    assert filled
    assert 7 not in world.function.seen
    assert 100 in world.read(way)


@pytest.mark.parametrize("n_queries", [1, 20])
def test_free_places_are_not_decoded(n_queries, rng):
    vectors = rng.standard_normal((300, 8), dtype=np.float32)
    vectors[::3] = np.nan  # what a place may hold while it is written
    columns = make_columns(300, 300)
    alive = np.flatnonzero(np.arange(300) % 3).astype(np.uint32)
    columns.rows.link(alive, alive.astype(np.int64), alive)
    queries = rng.standard_normal((n_queries, 8), dtype=np.float32)
    answer = scan(make_plain(vectors), columns.rows, 300, queries, 5)
    expected = np.sqrt(((vectors[alive].astype(np.float64) - queries[:, None]) ** 2).sum(-1))
    assert answer.ids.tolist() == alive[np.argsort(expected, axis=1)[:, :5]].tolist()


@pytest.mark.parametrize("way", WAYS)
def test_what_was_replaced_serves_no_reader_of_a_later_epoch(way):
    world = World()
    before = world.read(way)
    (world.graph if way == "graph" else world.rows).retire()
    assert world.read(way) == before  # nothing was used again yet
    world.graph.wait_for_readers()
    assert world.read(way) is None


def test_a_single_query_is_not_answered_by_a_graph_that_was_replaced(rng):
    vectors = rng.standard_normal((N, 4), dtype=np.float32)
    plain, columns = make_plain(vectors), make_columns(N, N)
    every = np.arange(N, dtype=np.uint32)
    columns.rows.link(every, every.astype(np.int64), every)
    graph = _core.Graph([make_table(24, N)], [], [], plain, plain, columns.rows, 0)
    graph.insert(every, N, 20, 6, 1.2)
    plan = _core.Plan(4, 1, 0, 20, 3)
    assert np.frombuffer(graph.search_one(plan, vectors[5], 1), np.int64, 1)[0] == 5
    graph.retire()
    graph.wait_for_readers()
    assert graph.search_one(plan, vectors[5], 1) is None


@pytest.mark.parametrize("n_queries", [1, 20])
def test_a_scan_says_how_often_it_compared(n_queries, rng):
    vectors = rng.standard_normal((300, 8), dtype=np.float32)
    columns, nodes = make_columns(300, 300), np.arange(0, 300, 2, dtype=np.uint32)
    columns.rows.link(nodes, nodes.astype(np.int64), nodes)
    raw, answer = as_bytes(vectors[:n_queries]), empty_answer(n_queries, 3)
    plain = make_plain(vectors)
    assert _core.scan(plain, columns.rows, 300, 32, raw, 0, *answer[:3], threads=2) == 150 * n_queries
    few = np.arange(100, dtype=np.uint32)
    assert _core.scan(plain, columns.rows, 300, 32, raw, 0, *answer[:3], None, few, 1) == 50 * n_queries


def test_indexes_may_share_readers():
    readers = _core.Readers()
    tables = [[make_table(8, 2), *(make_table(4, 2) for _ in range(3))] for _ in range(2)]
    first, second = (_core.Rows(*made, readers) for made in tables)
    scorer = _core.Plain(make_table(4, 2), 0, 0, 1)
    query, answer = np.zeros((1, 4), np.uint8), empty_answer(1, 1)
    first.retire()
    readers.wait()
    assert _core.scan(scorer, first, 2, 4, query, 0, *answer[:3]) is None
    assert _core.scan(scorer, second, 2, 4, query, 0, *answer[:3]) == 0


def test_a_metric_may_not_wait_for_its_own_reader():
    world = World()
    world.function.during = world.graph.wait_for_readers
    with pytest.raises(RuntimeError, match="a metric may not"):
        world.read("scan")
