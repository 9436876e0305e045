"""The doors of the core: a call that does not fit is an exception, never a crash, and changes nothing."""

import numpy as np
import pytest
from core_support import (
    ELEMENTS,
    METRICS,
    NONE,
    Function,
    as_bytes,
    build,
    empty_answer,
    make_columns,
    make_graph,
    make_plain,
    make_rows,
    make_table,
    scan,
)

from nearly import _core

HUGE = 2**64 - 1
ROWS = np.zeros((5, 8), np.uint8)


def store(n=20, dim=8):
    return make_plain(np.arange(n * dim, dtype=np.float32).reshape(n, dim))


def codes():
    """Codes of 4 vectors of dimension 4."""
    empty, ones = np.zeros(0, np.float32), np.ones(4, np.float32)
    table = _core.Table(_core.Codes.row_bytes(4, 8, False), 4, 4)
    return _core.Codes(table, 4, 4, 8, False, 0, 0.0, ones, ones, np.zeros(0, np.int8), empty, empty, empty)


CALLS = {
    "fill past the end": lambda: store().fill(19, np.zeros((2, 32), np.uint8)),
    "fill from far away": lambda: store().fill(HUGE, np.zeros((1, 32), np.uint8)),
    "fill with rows of another size": lambda: store().fill(0, np.zeros((1, 31), np.uint8)),
    "decode a row that is not there": lambda: store().decode(np.array([20], np.uint32), np.zeros((1, 8), np.float32)),
    "encode past the end": lambda: codes().encode(4, np.zeros((1, 4), np.float32)),
    "encode from far away": lambda: codes().encode(HUGE, np.zeros((1, 4), np.float32)),
    "decode codes from far away": lambda: codes().decode(HUGE, np.zeros((1, 4), np.float32)),
    "codes of another store": lambda: codes().fill(store(), 0, 4),
    "a query of another size": lambda: scan(store(), make_rows(20), 20, np.zeros((1, 7), np.float32), 1),
    "a batch of another size": lambda: scan(store(), make_rows(20), 20, np.zeros((9, 9), np.float32), 1),
    "more nodes than rows": lambda: scan(store(), make_rows(20), 21, np.zeros((1, 8), np.float32), 1),
    "a node that is not there": lambda: scan(
        store(), make_rows(20), 20, np.zeros((1, 8), np.float32), 1, only=np.array([20], np.uint32)
    ),
    "a radius for other queries": lambda: _core.scan_radius(
        store(), make_rows(20), 20, 4, np.zeros((1, 4), np.uint8), 0, 1.0
    ),
    "a score for other queries": lambda: store().score(
        4, np.zeros(4, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.float32)
    ),
    "a score of no row": lambda: store().score(
        32, np.zeros(32, np.uint8), np.array([20], np.uint32), np.zeros(1, np.float32)
    ),
    "between no rows": lambda: store().between(20, np.zeros(1, np.uint32), np.zeros(1, np.float32)),
    "link a row that is not there": lambda: make_columns(3, 2).rows.link(*link(3, 0, 0)),
    "link to a node that is not there": lambda: make_columns(3, 2).rows.link(*link(0, 0, 2)),
    "unlink from a node that is not there": lambda: make_columns(3, 2).rows.unlink(*link(0, 0, 2)[::2]),
    "an element that does not exist": lambda: _core.Plain.row_bytes(5, 0, 3),
    "a metric that does not exist": lambda: _core.Plain.row_bytes(0, 6, 3),
    "bits that are floats": lambda: _core.Plain(_core.Table(16, 1, 1), 0, METRICS.index("hamming"), 4),
    "a table of another stride": lambda: _core.Plain(_core.Table(12, 1, 1), 0, 0, 4),
    "a dimension of 0": lambda: _core.Plain(_core.Table(12, 1, 1), 0, 0, 0),
    "a table without columns": lambda: _core.Table(0, 1, 1),
    "a table of too many rows": lambda: _core.Table(1, 2**32, 0),
    "a kernel without a name": lambda: _core.distances(
        "l3", 0, False, np.zeros(4, np.uint8), ROWS, 1, np.zeros(5, np.float32)
    ),
    "a kernel beyond its rows": lambda: _core.distances(
        "l2", 0, False, np.zeros(12, np.uint8), ROWS, 3, np.zeros(5, np.float32)
    ),
    "a kernel with a short query": lambda: _core.distances(
        "l2", 0, False, np.zeros(7, np.uint8), ROWS, 2, np.zeros(5, np.float32)
    ),
    "a kernel for no row": lambda: _core.distances(
        "l2", 0, False, np.zeros(8, np.uint8), ROWS, 2, np.zeros(1, np.float32), np.array([5], np.uint32)
    ),
    "dots of 3 bits": lambda: _core.dots(np.zeros(8, np.int8), ROWS, 3, np.zeros(5, np.int32)),
    "dots with a short query": lambda: _core.dots(np.zeros(8, np.int8), ROWS, 4, np.zeros(5, np.int32)),
    "an odd projection": lambda: _core.project(
        np.zeros((1, 3), np.int16), np.zeros(48, np.int8), np.zeros((1, 16), np.int32)
    ),
    "products that do not fit": lambda: _core.products(
        np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32)
    ),
    "more axes than dimensions": lambda: _core.principal_axes(
        np.eye(3, dtype=np.float32), 4, 2, 0, np.zeros((4, 3)), np.zeros(4)
    ),
}


def link(row, id, node):
    return np.array([row], np.uint32), np.array([id], np.int64), np.array([node], np.uint32)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()


def test_a_refused_link_links_nothing():
    columns = make_columns(3, 2)
    with pytest.raises(ValueError, match="out of range"):
        columns.rows.link(np.array([0, 1, 9], np.uint32), np.arange(3), np.zeros(3, np.uint32))
    assert columns.first.tolist() == [NONE, NONE]


@pytest.mark.parametrize("array", [np.zeros((4, 8)), np.zeros((4, 8), np.float32).T, np.zeros(8, np.float32)])
def test_arrays_are_not_converted_unseen(array):
    with pytest.raises(TypeError):
        _core.products(array, np.zeros((2, 8), np.float32), np.zeros((4, 2), np.float32))


# ---------------------------------------------------------------- places for vectors


def placed(n_nodes, spare=(), n=1, bytes_=None):
    width = _core.Plain.row_bytes(ELEMENTS.index("float32"), 0, 4)
    table = _core.Table(width, 10, 10)
    plain = _core.Plain(table, 0, 0, 4)
    distinct = _core.Distinct(table, bytes_ or 16, 0, np.zeros(0, np.uint8))
    vectors = np.arange(n * (bytes_ or 16), dtype=np.uint8).reshape(n, -1)
    nodes, fresh = np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    return distinct.place(plain, vectors, n_nodes, np.asarray(spare, np.uint32), nodes, fresh)


@pytest.mark.parametrize(
    ("n_nodes", "spare", "n"),
    [(10, [], 1), (HUGE, [], 1), (11, [3], 1), (600, [599] * 600, 1), (9, [], 2), (5, [5], 1), (5, [2], 7)],
)
def test_vectors_are_placed_within_the_table_only(n_nodes, spare, n):
    with pytest.raises(ValueError, match="place"):
        placed(n_nodes, spare, n)
    assert placed(10, [4], 1) == 1  # the last place is a spare one


def test_vectors_of_another_size_are_not_placed():
    with pytest.raises(ValueError, match="place"):
        placed(0, bytes_=3)


# ---------------------------------------------------------------- graphs


def graph_of(lists, slots=(), entries=(), n_nodes=0, n=20):
    plain = store(n)
    return _core.Graph(list(lists), list(slots), list(entries), plain, plain, make_rows(n), n_nodes)


GRAPHS = {
    "no lists": lambda: graph_of([]),
    "nothing for lists": lambda: graph_of([None]),
    "nothing for slots": lambda: graph_of([make_table(16, 20)] * 2, [None]),
    "a degree of 0": lambda: graph_of([_core.Table.borrow(np.zeros((20, 0), np.uint8))]),
    "half a word": lambda: graph_of([make_table(18, 20)]),
    "a degree of 513": lambda: graph_of([make_table(4 * 513, 20)]),
    "fewer lists than nodes": lambda: graph_of([make_table(16, 19)], n_nodes=20),
    "fewer vectors than nodes": lambda: graph_of([make_table(16, 40)], n_nodes=21),
    "fewer slots than nodes": lambda: graph_of([make_table(16, 20)] * 2, [make_table(4, 19)], n_nodes=20),
    "slots of 8 bytes": lambda: graph_of([make_table(16, 20)] * 2, [make_table(8, 20)]),
    "an entry that is not there": lambda: graph_of([make_table(16, 20)], entries=[3], n_nodes=3),
    "scorers for other queries": lambda: _core.Graph(
        [make_table(16, 20)], [], [], store(), store(dim=9), make_rows(20), 0
    ),
}


@pytest.mark.parametrize("call", GRAPHS.values(), ids=GRAPHS)
def test_a_graph_of_parts_that_do_not_fit_is_refused(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()


def ask(graph, query_bytes=32, width=5, n=1, **more):
    graph.search(query_bytes, np.zeros((n, query_bytes), np.uint8), 0, width, 1, *empty_answer(n, 1)[:3], **more)


LEVELS = {
    "probe": 3, "bounds": np.zeros(0, np.float32), "widths": np.ones(1, np.uint32), "reaches": np.zeros(1, np.float32)
}  # fmt: skip
FILLED = {
    "a query of another size": lambda g: ask(g, 28),
    "no width": lambda g: ask(g, width=0),
    "an endless width": lambda g: ask(g, width=2**62),
    "widths without bounds": lambda g: ask(g, **{name: LEVELS[name] for name in LEVELS if name != "bounds"}),
    "widths without a probe": lambda g: ask(g, **LEVELS | {"probe": 0}),
    "fewer reaches than widths": lambda g: ask(g, **LEVELS | {"reaches": np.zeros(0, np.float32)}),
    "an anchor of 0": lambda g: ask(g, **LEVELS, anchor=0),
    "hardness without widths": lambda g: ask(g, hardness=np.zeros(1, np.float32)),
    "nodes to do without for other queries": lambda g: ask(g, without=np.zeros(3, np.uint32)),
    "a plan for no neighbors": lambda g: _core.Plan(7, 0, 0, 5, 1),
    "a plan without a width": lambda g: _core.Plan(7, 1, 0, 0, 1),
    "a node beyond the number given": lambda g: g.insert(np.array([7], np.uint32), 7, 20, 4, 1.2),
    "a node beyond the tables": lambda g: g.insert(np.array([20], np.uint32), 21, 20, 4, 1.2),
    "a beam of 0": lambda g: g.insert(np.array([7], np.uint32), 20, 0, 4, 1.2),
    "an alpha below 1": lambda g: g.insert(np.array([7], np.uint32), 20, 20, 4, 0.9),
    "an alpha that is no number": lambda g: g.insert(np.array([7], np.uint32), 20, 20, 4, float("nan")),
    "too few flags": lambda g: g.consolidate(np.zeros(19, np.uint8), 20, 4, 1.2),
    "connect without a beam": lambda g: g.connect(0),
    "an entry that is not there": lambda g: setattr(g, "entries", [20]),
}


@pytest.mark.parametrize("call", FILLED.values(), ids=FILLED)
def test_a_graph_refuses_what_does_not_fit_and_stays_as_it_was(rng, call):
    vectors = rng.standard_normal((20, 8), dtype=np.float32)
    made = build(vectors, degree=12)
    before = made.lists.tobytes()
    with pytest.raises(ValueError, match=r"\w"):
        call(made.graph)
    assert made.lists.tobytes() == before
    assert made.search(vectors, 1).ids[:, 0].tolist() == list(range(20))


def test_borrowed_tables_are_searched_and_not_changed(rng):
    vectors = rng.standard_normal((30, 8), dtype=np.float32)
    made = build(vectors)
    frozen = make_columns(30, 30)
    frozen.rows.link(np.arange(30, dtype=np.uint32), np.arange(30), np.arange(30, dtype=np.uint32))
    lists = bytes(made.lists.tobytes())
    columns = [np.frombuffer(c.tobytes(), np.uint8).reshape(30, -1) for c in frozen[1:]]
    tables = [_core.Table.borrow(c) for c in columns]
    table = _core.Table.borrow(np.frombuffer(lists, np.uint8).reshape(30, -1))
    rows = _core.Rows(*tables)
    graph = _core.Graph([table], [], made.graph.entries, made.scorer, made.scorer, rows, 30)
    answer = empty_answer(30, 1)
    graph.search(32, as_bytes(vectors), 0, 20, 1, *answer[:3])
    assert answer.ids[:, 0].tolist() == list(range(30))
    one, none = np.zeros(1, np.uint32), np.zeros(30, np.uint8)
    for change in (
        lambda: graph.insert(one, 30, 20, 12, 1.2),
        lambda: graph.connect(20),
        lambda: graph.consolidate(none, 20, 12, 1.2),
        lambda: rows.link(one, np.zeros(1, np.int64), one),
        lambda: rows.unlink(one, one),
    ):
        with pytest.raises(ValueError, match="borrowed"):
            change()
    assert made.lists.tobytes() == lists


# ---------------------------------------------------------------- lists of a file


def damaged(change, slots=None, owners=True):
    table = make_table(16, 6)
    lists = table.array().view(np.uint32)
    lists[0, :2] = 1, 2
    lists[1, :1] = 0
    change(lists)
    _core.check_lists(table, 6, 6, owners, slots)


@pytest.mark.parametrize(
    "change",
    [
        lambda lists: lists.__setitem__((0, 0), 6),  # a node that does not exist
        lambda lists: lists.__setitem__((0, 1), 0),  # itself
        lambda lists: lists.__setitem__((1, 2), 3),  # a hole
    ],
    ids=["stranger", "owner", "hole"],
)
def test_damaged_lists_are_found(change):
    damaged(lambda lists: None)
    with pytest.raises(ValueError, match="damaged"):
        damaged(change)


def test_an_upper_layer_names_only_nodes_that_it_holds():
    slots = make_table(4, 6)
    at = slots.array().view(np.uint32)[:, 0]
    at[[0, 1, 2]] = 5, 3, 0
    damaged(lambda lists: None, slots, owners=False)
    with pytest.raises(ValueError, match="damaged"):
        damaged(lambda lists: lists.__setitem__((0, 0), 4), slots, owners=False)
    at[2] = 6
    with pytest.raises(ValueError, match="does not exist"):
        damaged(lambda lists: None, slots, owners=False)


# ---------------------------------------------------------------- Python inside


@pytest.mark.parametrize("door", ["search", "insert", "connect", "consolidate"])
def test_a_metric_may_not_search_or_change_a_graph(rng, door):
    # A search within a search on one thread would share its memory.
    other = build(rng.standard_normal((60, 8), dtype=np.float32))

    class Curious(Function):
        def __call__(self, stored, which, rows):
            if self.calls == 50:
                if door == "search":
                    other.search(np.zeros((2, 8), np.float32), 3)
                elif door == "insert":
                    other.insert([3])
                elif door == "connect":
                    other.graph.connect(20)
                else:
                    other.graph.consolidate(np.zeros(60, np.uint8), 20, 12, 1.2)
            return super().__call__(stored, which, rows)

    function = Curious(rng.permutation(500)[:100])
    made = make_graph(_core.Callable(function, 100), 100, degree=6, metric="l1")
    with pytest.raises(RuntimeError, match="a metric may not"):
        made.insert(np.arange(100))
    assert (other.search(np.zeros((2, 8), np.float32), 3).counts == 3).all()


def test_a_metric_may_scan(rng):
    plain, rows = store(), make_rows(20)

    def metric(stored, which, nodes):
        scan(plain, rows, 20, np.zeros((1, 8), np.float32), 1)
        return np.abs(nodes.astype(np.float32) - which)

    made = make_graph(_core.Callable(metric, 40), 40, degree=6, metric="l1")
    made.insert(np.arange(40))
    assert made.graph.n_nodes == 40
