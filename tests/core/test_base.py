"""The ground of the core: tables that grow in place, rows that hang on nodes, equal vectors, threads."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from core_support import NONE, PROMPT, Interrupt, as_bytes, make_columns, make_plain, make_rows, make_table, scan

from nearly import _core

# ---------------------------------------------------------------- tables


def test_a_table_grows_in_place_and_starts_with_zeros():
    table = _core.Table(12, 3, 50_000)
    early = table.array()
    assert early.shape == (3, 12)
    assert not early.any()
    early[:] = 7
    assert table.grow(50_000)
    late = table.array()
    assert late.shape == (50_000, 12)
    assert late.ctypes.data == early.ctypes.data
    assert late.ctypes.data % 64 == 0
    assert (late[:3] == 7).all()
    assert not late[3:].any()
    assert (table.rows, table.stride, table.n_bytes) == (50_000, 12, 600_000)


def test_a_table_refuses_to_outgrow_its_reservation():
    table = _core.Table(64, 2, 1000)
    assert not table.grow(table.capacity + 2)
    assert table.rows == 2
    assert table.grow(1)  # fewer than there are: nothing to do
    assert table.rows == 2


def test_a_table_shrinks_and_fills():
    table = make_table(4, 6)
    table.fill(1, 3, 9)
    assert table.array()[:, 0].tolist() == [255, 9, 9, 255, 255, 255]
    table.shrink(2)
    table.shrink(5)
    assert table.rows == 2


def test_a_borrowed_table_is_read_only_and_keeps_its_array():
    array = np.arange(24, dtype=np.uint8).reshape(3, 8)
    table = _core.Table.borrow(array)
    del array
    view = table.array()
    assert table.borrowed
    assert not view.flags.writeable
    del table
    assert view.ravel().tolist() == list(range(24))


@pytest.mark.parametrize(
    "change",
    [lambda t: t.grow(4), lambda t: t.fill(0, 1, 0)],
    ids=["grow", "fill"],
)
def test_a_borrowed_table_is_not_written(change):
    with pytest.raises(ValueError, match="borrowed"):
        change(_core.Table.borrow(np.zeros((3, 8), np.uint8)))


def test_a_table_that_no_memory_can_hold_is_a_memory_error():
    with pytest.raises(MemoryError):
        _core.Table((1 << 24) - 1, (1 << 32) - 1, 0)


# ---------------------------------------------------------------- rows on nodes


def chain(columns, node):
    """Walk a node's rows from the first to the last, by the tables themselves."""
    rows, at = [], int(columns.first[node])
    while at != NONE:
        rows.append(at)
        at = int(columns.next[at])
    assert int(columns.last[node]) == (rows[-1] if rows else NONE)
    return rows


def link(columns, rows, ids, nodes):
    columns.rows.link(np.array(rows, np.uint32), np.array(ids, np.int64), np.array(nodes, np.uint32))


def unlink(columns, rows, nodes):
    columns.rows.unlink(np.array(rows, np.uint32), np.array(nodes, np.uint32))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]])
def test_rows_hang_in_order_of_id(order):
    columns = make_columns(4, 2)
    link(columns, order, [10 * i for i in order], [1] * 4)
    assert chain(columns, 1) == [0, 1, 2, 3]
    assert chain(columns, 0) == []
    assert columns.rows.check(4, 2) == 4


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_rows_are_unlinked_in_any_order(order):
    columns = make_columns(4, 1)
    link(columns, [0, 1, 2, 3], [0, 1, 2, 3], [0] * 4)
    left = {0, 1, 2, 3}
    for row in order:
        unlink(columns, [row], [0])
        left.remove(row)
        assert chain(columns, 0) == sorted(left)
    link(columns, [2], [8], [0])  # a chain that became empty takes rows again
    assert chain(columns, 0) == [2]
    assert columns.rows.check(4, 1) == 1


def test_random_links_and_unlinks_agree_with_a_dict(rng):
    columns, n_rows, n_nodes = make_columns(60, 7), 60, 7
    hanging: dict[int, tuple[int, int]] = {}  # row -> (id, node)
    for step in range(600):
        row = int(rng.integers(n_rows))
        if row in hanging:
            unlink(columns, [row], [hanging.pop(row)[1]])
        else:
            hanging[row] = (int(rng.permutation(1000)[0]) * 1000 + step, int(rng.integers(n_nodes)))
            link(columns, [row], [hanging[row][0]], [hanging[row][1]])
    for node in range(n_nodes):
        here = [row for row in hanging if hanging[row][1] == node]
        assert chain(columns, node) == sorted(here, key=lambda row: hanging[row][0])
    assert columns.rows.check(n_rows, n_nodes) == len(hanging)


def test_a_row_that_does_not_hang_there_changes_nothing():
    columns = make_columns(3, 2)
    link(columns, [0, 1], [0, 1], [0, 1])
    unlink(columns, [1, 2], [0, 0])
    assert (chain(columns, 0), chain(columns, 1)) == ([0], [1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.next.__setitem__(1, 0), "twice"),  # a cycle
        (lambda c: c.next.__setitem__(1, 9), "does not exist"),
        (lambda c: c.first.__setitem__(1, 0), "twice"),  # two chains share rows
        (lambda c: c.ids.__setitem__(1, -3), "ascend"),
        (lambda c: c.ids.__setitem__(0, 9), "ascend"),
        (lambda c: c.last.__setitem__(0, 0), "last row"),
    ],
)
def test_damaged_chains_are_found(damage, message):
    columns = make_columns(3, 2)
    link(columns, [0, 1, 2], [4, 5, 6], [0, 0, 1])
    assert columns.rows.check(3, 2) == 3
    damage(columns)
    with pytest.raises(ValueError, match=message):
        columns.rows.check(3, 2)


# ---------------------------------------------------------------- equal vectors


def place(vectors, *, room, n_nodes=0, spare=(), before=()):
    """Place vectors in a store that holds `before` at its first nodes; returns nodes, fresh ones and what is stored."""
    stock = np.zeros((room, vectors.shape[1]), vectors.dtype)
    stock[: len(before)] = np.reshape(before, (-1, vectors.shape[1]))
    plain_table = _core.Table(vectors.shape[1] * vectors.itemsize, room, room)
    plain = _core.Plain(plain_table, 4, 0, vectors.shape[1])
    plain.fill(0, as_bytes(stock))
    alive = np.ones(room, np.uint8)
    alive[list(spare)] = 0
    distinct = _core.Distinct(plain_table, vectors.shape[1], n_nodes, alive)
    nodes, fresh = np.empty(len(vectors), np.uint32), np.empty(len(vectors), np.uint32)
    n_fresh = distinct.place(plain, as_bytes(vectors), n_nodes, np.array(spare, np.uint32), nodes, fresh)
    return nodes.tolist(), fresh[:n_fresh].tolist(), plain_table.array()


def test_equal_vectors_share_a_node():
    vectors = np.array([[1, 1], [2, 2], [1, 1], [3, 3], [2, 2]], np.uint8)
    nodes, fresh, stored = place(vectors, room=5)
    assert nodes == [0, 1, 0, 2, 1]
    assert fresh == [0, 1, 2]
    assert stored[:3].tolist() == [[1, 1], [2, 2], [3, 3]]


def test_vectors_find_those_that_stand_and_take_spare_nodes_first():
    before = np.array([[1, 1], [2, 2], [3, 3], [4, 4]], np.uint8)
    vectors = np.array([[3, 3], [9, 9], [2, 2], [8, 8], [9, 9], [7, 7]], np.uint8)
    nodes, fresh, stored = place(vectors, room=8, n_nodes=4, spare=[3, 1], before=before)
    assert nodes == [2, 3, 1, 4, 3, 5]  # [2, 2] was at a spare node: it is dead, so it gets a node of its own
    assert fresh == [3, 1, 4, 5]
    assert stored[:6].tolist() == [[1, 1], [2, 2], [3, 3], [9, 9], [8, 8], [7, 7]]


def test_an_erased_vector_is_forgotten_and_others_are_not(rng):
    vectors = rng.permutation(256).astype(np.uint8)[:, None].repeat(3, axis=1)[:200]
    table = _core.Table(3, 400, 400)
    table.array()[:200] = vectors
    plain = _core.Plain(table, 4, 0, 3)
    distinct = _core.Distinct(table, 3, 200, np.ones(200, np.uint8))
    distinct.erase(np.arange(0, 200, 2, dtype=np.uint32))
    nodes, fresh = np.empty(200, np.uint32), np.empty(200, np.uint32)
    n_fresh = distinct.place(plain, as_bytes(vectors), 200, np.zeros(0, np.uint32), nodes, fresh)
    assert n_fresh == 100
    assert nodes[1::2].tolist() == list(range(1, 200, 2))
    assert nodes[::2].tolist() == list(range(200, 300))


def test_many_equal_vectors_take_one_node():
    vectors = np.full((5000, 4), 3, np.uint8)
    nodes, fresh, _ = place(vectors, room=5000)
    assert set(nodes) == {0}
    assert fresh == [0]


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps freed memory for a while"
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is used")
def test_memory_does_not_grow_with_changes(rng):
    table = _core.Table(8, 2000, 2000)
    plain = _core.Plain(table, 4, 0, 8)
    distinct = _core.Distinct(table, 8, 0, np.zeros(0, np.uint8))
    nodes, fresh, none = np.empty(2000, np.uint32), np.empty(2000, np.uint32), np.zeros(0, np.uint32)

    def change():
        vectors = rng.integers(0, 256, (2000, 8), dtype=np.uint8)
        assert distinct.place(plain, vectors, 0, none, nodes, fresh) == 2000
        distinct.erase(nodes)

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    change()
    before = resident()
    for _ in range(1000):
        change()
    assert resident() - before < 4e6  # two million changes; a mark each would be 16 MB


# ---------------------------------------------------------------- answers of rows


def test_a_chain_of_thousands_is_answered_in_order_of_id(rng):
    n = 6000
    vectors = np.array([[0.0], [1.0], [5.0]], np.float32)
    nodes = rng.integers(0, 2, n)
    ids = rng.permutation(10 * n)[:n]
    columns = make_columns(n, 3)
    order = np.argsort(ids, kind="stable")  # linked in order of id; the rows are in any order
    link(columns, np.arange(n)[order], ids[order], nodes[order])
    plain = make_plain(vectors)
    answer = scan(plain, columns.rows, 3, np.zeros((1, 1), np.float32), n)
    near, far = np.sort(ids[nodes == 0]), np.sort(ids[nodes == 1])
    assert answer.ids[0].tolist() == [*near, *far]
    assert answer.distances[0].tolist() == [0.0] * len(near) + [1.0] * len(far)
    few = scan(plain, columns.rows, 3, np.zeros((1, 1), np.float32), 7)
    assert few.ids[0].tolist() == near[:7].tolist()


def test_chains_at_one_distance_are_merged_by_id(rng):
    n, vectors = 900, np.array([[2.0], [-2.0], [2.5]], np.float32)  # the first two are as far from 0
    nodes = rng.integers(0, 3, n)
    rows = make_rows(n, ids=np.arange(n) * 3, nodes=nodes, n_nodes=3)
    tied = np.flatnonzero(nodes < 2) * 3
    for k in (1, 5, 100, len(tied), n + 5):
        answer = scan(make_plain(vectors), rows, 3, np.zeros((1, 1), np.float32), k)
        expected = [*tied, *(np.flatnonzero(nodes == 2) * 3)][:k]
        assert answer.ids[0, : len(expected)].tolist() == expected
        assert answer.counts[0] == len(expected)
        assert set(answer.ids[0, len(expected) :].tolist()) <= {-1}


# ---------------------------------------------------------------- threads


def test_the_number_of_threads_is_set_and_given_back():
    before = _core.get_threads()
    _core.set_threads(3)
    assert _core.get_threads() == 3
    _core.set_threads(0)  # as many as the machine gives
    assert _core.get_threads() >= 1
    assert before >= 1


FORK = """
import os, sys
import numpy as np
from nearly import _core

rows = np.ones((4000, 16), np.float32)
def work():
    out = np.zeros((4000, 4000), np.float32)
    _core.products(rows, rows, out, 2)
    return bool((out == 16).all())

assert work()  # the pool has threads now; a child has none of them
child = os.fork()
if child == 0:
    os._exit(0 if work() else 1)
assert os.waitpid(child, 0)[1] == 0
assert work()
print("fine")
"""


# A search that a fork finds half done in another thread is not there in the child, whose writer would wait for ever.
FORK_BESIDE = """
import os, signal, threading
import numpy as np
from nearly import _core

def table(stride):
    t = _core.Table(stride, 5, 5)
    t.fill(0, 5, 255)
    return t

inside, go_on = threading.Event(), threading.Event()
def metric(stored, which, rows):
    inside.set()
    go_on.wait(30)
    return np.zeros(len(rows), np.float32)

rows = _core.Rows(*map(table, (8, 4, 4, 4)), readers := _core.Readers())
rows.link(np.arange(5, dtype=np.uint32), np.arange(5), np.arange(5, dtype=np.uint32))
answer = np.empty((1, 2), np.int64), np.empty((1, 2), np.float32), np.empty(1, np.uint32)
scan = lambda scorer: _core.scan(scorer, rows, 5, 8, np.zeros((1, 8), np.uint8), 3, *answer, threads=1)
thread = threading.Thread(target=scan, args=(_core.Callable(metric, 5),))
thread.start()
assert inside.wait(30)
child = os.fork()
if child == 0:
    signal.alarm(20)
    readers.wait()
    scan(_core.Callable(lambda stored, which, rows: np.ones(len(rows), np.float32), 5))
    readers.wait()
    os._exit(0 if answer[1].tolist() == [[1.0, 1.0]] else 1)
assert os.waitpid(child, 0)[1] == 0
waiting = threading.Thread(target=readers.wait)
waiting.start()
waiting.join(0.1)
assert waiting.is_alive()  # the parent's search goes on
go_on.set()
waiting.join(30)
assert not waiting.is_alive()
print("fine")
"""

# Python that forks in the middle of a search: the parent's goes on, the child's cannot where other threads had parts.
FORK_INSIDE = """
import os, signal, sys, threading
import numpy as np
from nearly import _core

def table(stride):
    t = _core.Table(stride, 50, 50)
    t.fill(0, 50, 255)
    return t

threads, child, every = int(sys.argv[1]), None, np.arange(50, dtype=np.uint32)
rows = _core.Rows(*map(table, (8, 4, 4, 4)), readers := _core.Readers())
rows.link(every, every.astype(np.int64), every)
answer = np.empty((50, 2), np.int64), np.empty((50, 2), np.float32), np.empty(50, np.uint32)

def metric(stored, which, nodes):
    global child
    if child is None and which > 5 and threading.current_thread() is threading.main_thread():
        child = os.fork()
    return np.abs(nodes.astype(np.float32) - which)

def scan():
    queries = np.arange(50)[:, None].view(np.uint8)
    _core.scan(_core.Callable(metric, 50), rows, 50, 8, queries, 3, *answer, threads=threads)
    return bool((answer[0][:, 0] == every).all())

failed = False
try:
    while child is None:
        assert scan()
except RuntimeError as error:
    failed = "forked" in str(error)
signal.alarm(20)
readers.wait()
assert scan()
if child == 0:
    os._exit(0 if failed == (threads > 1) else 1)
assert not failed
assert os.waitpid(child, 0)[1] == 0
print("fine")
"""

# Threads that the system refuses: the loop is done by those there are.
NO_THREADS = """
import resource
from pathlib import Path
import numpy as np
from nearly import _core

rows, out = np.ones((4000, 16), np.float32), np.ones((4000, 4000), np.float32)
_core.products(rows[:100], rows, out[:100], 1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + (12 << 20), before[1]))  # one stack of 8 MB, hardly more
_core.products(rows, rows, out, 64)
resource.setrlimit(resource.RLIMIT_AS, before)
assert (out == 16).all()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("script", "arguments"),
    [(FORK, []), (FORK_BESIDE, []), (FORK_INSIDE, ["1"]), (FORK_INSIDE, ["2"])],
    ids=["threads", "beside", "inside", "inside-threads"],
)
def test_a_forked_child_has_threads_and_readers_of_its_own(script, arguments):
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=90)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory is used")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer needs its address space")
def test_threads_that_the_system_refuses_are_done_without():
    done = subprocess.run([sys.executable, "-c", NO_THREADS], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr


# ---------------------------------------------------------------- Ctrl-C


def test_ctrl_c_ends_the_placing_of_vectors_fast_and_forgets_them():
    n = 3_000_000
    vectors = np.arange(n, dtype=np.uint64)[:, None].view(np.uint8)
    table = _core.Table(8, n, n)
    plain = _core.Plain(table, 4, 0, 8)
    distinct = _core.Distinct(table, 8, 0, np.zeros(0, np.uint8))
    nodes, fresh, none = np.empty(n, np.uint32), np.empty(n, np.uint32), np.zeros(0, np.uint32)
    with pytest.raises(KeyboardInterrupt), Interrupt(0.05) as interrupt:
        distinct.place(plain, vectors, 0, none, nodes, fresh)
    assert interrupt.late < PROMPT
    few = vectors[:999:-1][:5000].copy()  # in another order: what was placed before is not found
    assert distinct.place(plain, few, 0, none, nodes[:5000], fresh[:5000]) == 5000
    assert nodes[:5000].tolist() == list(range(5000))


@pytest.mark.timing  # and gigabytes of zeros, which take no memory but under a sanitizer
def test_ctrl_c_ends_the_search_for_what_is_no_number_fast():
    try:
        rows = np.zeros((3_000_000, 1024), np.float32)  # 12 GB of address space
    except MemoryError:
        pytest.skip("no address space for gigabytes")
    with pytest.raises(KeyboardInterrupt), Interrupt(0.05) as interrupt:
        _core.first_nonfinite(rows)
    assert interrupt.late < PROMPT
