"""Vectors on disk: files that are shortened, replaced or gone, full drives, children of a fork."""

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import _core


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((900, 16), dtype=np.float32)


@pytest.fixture
def saved(vectors, tmp_path):
    nearly.IVF(vectors, refine="disk").save(tmp_path / "a")
    return tmp_path / "a"


def asked(index, vectors):
    return index.search(vectors[:40] + 0.1, 5).ids.tolist()


def test_a_file_that_is_gone_or_replaced_goes_on_serving(vectors, saved):
    index = nearly.load(saved)
    found = asked(index, vectors)
    nearly.IVF(vectors[:300], refine="disk").save(saved)
    assert asked(index, vectors) == found
    saved.unlink()
    assert asked(index, vectors) == found
    index.add(vectors[:10] + 5)
    assert len(index.get(np.arange(910))) == 910
    with pytest.raises(FileNotFoundError):
        nearly.load(saved)


def test_a_shorter_file_is_refused_and_under_an_index_it_is_an_error_of_the_search(vectors, saved):
    index, other = nearly.load(saved), nearly.load(saved)
    os.truncate(saved, saved.stat().st_size - 900 * 32)
    with pytest.raises(nearly.FormatError, match="truncated"):
        nearly.load(saved)
    with pytest.raises(OSError, match="ends before") as failed:
        index.search(vectors, 5, exact=True)
    assert failed.value.errno == errno.EIO
    with pytest.raises(nearly.FormatError, match="truncated"):
        index.verify()
    os.truncate(saved, 0)  # codes and lists are in memory: nothing is left that could end the process
    for read in (lambda: asked(index, vectors), lambda: index.get(5), lambda: other.add(vectors[:1]), index.verify):
        with pytest.raises((OSError, nearly.FormatError)):
            read()
    with pytest.raises(OSError, match="ends before"):
        index.range_search(vectors[0], 1.0)
    assert len(other) == 900


def test_a_file_that_changes_while_it_is_opened_is_refused(saved, tmp_path):
    file = nearly.storage.read(saved)
    (tmp_path / "b").write_bytes(saved.read_bytes())
    os.replace(tmp_path / "b", saved)
    with pytest.raises(nearly.FormatError, match="load it again"):
        file.reopen("vectors")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no drive that is always full")
def test_a_full_drive_is_an_error():
    table = _core.FileTable(os.open("/dev/full", os.O_RDWR), True, 0, 64, 0)
    with pytest.raises(OSError) as failed:  # noqa: PT011 - the number says which
        table.grow(3)
    assert failed.value.errno in (errno.EINVAL, errno.ENOSPC)


def test_an_addition_that_the_drive_refuses_changes_nothing(vectors, monkeypatch):
    index = nearly.IVF(vectors, refine="disk")
    before = asked(index, vectors)
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900 * 64 + 4096, limits[1]))
    try:
        with pytest.raises(OSError) as failed:  # noqa: PT011 - the number says which
            index.add(vectors + 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert failed.value.errno == errno.EFBIG
    assert (len(index), asked(index, vectors)) == (900, before)
    index.verify()
    index.add(vectors + 3)
    assert len(index) == 1800
    index.verify()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_a_fork_writes_into_a_file_of_its_own(vectors):
    index = nearly.Flat(vectors, refine="disk")
    before = index.get(np.arange(900))
    child = os.fork()
    if not child:
        try:
            index.remove(np.arange(500))
            index.add(vectors[:700] + 9)
            os._exit(0 if np.array_equal(index.get(950), vectors[50] + 9) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(index.get(np.arange(900)), before)


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_files_are_closed_with_their_index(vectors, tmp_path):
    def count():
        return len(os.listdir("/proc/self/fd"))

    nearly.Flat(vectors, refine="disk").save(tmp_path / "a")
    before = count()
    for _ in range(5):
        index = nearly.load(tmp_path / "a")
        index.add(vectors)
        index.remove(np.arange(1200))  # more than half: what is left moves to another file
        del index
        nearly.Vamana(vectors[:100], refine="disk")
    assert count() <= before + 1


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8", "uint8", "bits"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip", "l1", "hamming", "jaccard"])
def test_rows_of_a_file_score_as_rows_in_memory(rng, simd_target, kind, metric, tmp_path):
    found = nearly.metrics.METRICS[metric]
    if (kind == "bits") != (found.input == "bits"):
        pytest.skip("not what this metric compares")
    element = ["float32", "float16", "bfloat16", "int8", "uint8"].index("uint8" if kind == "bits" else kind)
    for dim in (1, 7, 64, 300):
        width = dim * (4 if element == 0 else 2 if element < 3 else 1)
        rows = rng.integers(0, 60, (300, width), dtype=np.uint8)  # small exponents: all numbers are finite
        stride = _core.Plain.row_bytes(element, found.number, dim)
        table = _core.Table(stride, 300, 300)
        file = _core.FileTable(os.open(tmp_path / "rows", os.O_RDWR | os.O_CREAT | os.O_TRUNC), True, 0, stride, 0)
        file.grow(300)
        scorers = _core.Plain(table, element, found.number, dim), _core.Filed(file, element, found.number, dim)
        query = rng.integers(0, 60, dim * (1 if kind == "bits" else 4), dtype=np.uint8)
        some = rng.permutation(300)[:200].astype(np.uint32)
        scores = []
        for scorer in scorers:
            scorer.fill(0, rows)
            out, between = np.empty(200, np.float32), np.empty(200, np.float32)
            scorer.score(len(query), query, some, out)
            scorer.between(17, some, between)
            scores.append((out, between))
            if kind != "bits":
                wide = np.empty((200, dim), np.float32)
                scorer.decode(some, wide)
                scores[-1] += (wide,)
        for ours, theirs in zip(*scores, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        read = np.empty((300, stride), np.uint8)
        file.read(0, read)
        np.testing.assert_array_equal(read[:, :width], rows)


def test_shapes_that_disagree_are_refused(tmp_path):
    def opened():
        return os.open(tmp_path / "rows", os.O_RDWR | os.O_CREAT)

    with pytest.raises(ValueError, match="ends before"):
        _core.FileTable(opened(), False, 0, 8, 1)
    with pytest.raises(ValueError, match="stride"):
        _core.FileTable(opened(), True, 0, 0, 0)
    file = _core.FileTable(opened(), True, 0, 8, 0)
    file.grow(4)
    with pytest.raises(ValueError, match="shapes"):
        file.read(2, np.empty((3, 8), np.uint8))
    with pytest.raises(ValueError, match="range"):
        file.gather(np.array([4], np.uint32), np.empty((1, 8), np.uint8))
    with pytest.raises(ValueError, match="shapes"):
        file.write(0, np.empty((5, 8), np.uint8))
    with pytest.raises(ValueError, match="row_bytes"):
        _core.Filed(file, 0, 0, 3)
    borrowed = _core.FileTable(opened(), False, 0, 8, 4)
    with pytest.raises(ValueError, match="borrowed"):
        borrowed.grow(5)
