"""What a limit chooses among, in which order, and what it says of what it left."""

import sys
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly import metrics
from nearly.arrays import as_vectors
from nearly.indexes import choose, lists, memory
from nearly.kmeans import balanced

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import bench_memory

DIM = 96


def embeddings(n, *, seed=0):
    """Return vectors of a few directions and a little of all others."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(9).standard_normal((16, DIM)).astype(np.float32)
    return rng.standard_normal((n, 16), np.float32) @ basis + 0.3 * rng.standard_normal((n, DIM), np.float32)


def knots(n, *, seed=0):
    """Return vectors of few far topics, within which all dimensions say what is near."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(9).standard_normal((12, DIM)).astype(np.float32) * 4
    return topics[rng.integers(12, size=n)] + rng.standard_normal((n, DIM), np.float32)


def offered(metric="l2", dim=384, kind="float32", *, sample=None, recall=0.95, disk=True):
    some = None if sample is None else memory.sample_of(as_vectors(sample))
    return list(memory.candidates(metrics.named(metric), dim, kind, 100_000, some, recall, disk))


def test_what_needs_no_file_comes_first_and_codes_alone_only_where_none_is_allowed():
    places = [None if shape is None else (shape.refine, shape.degree) for shape in offered()]
    first_on_disk = next(i for i, place in enumerate(places) if place is not None and place[0] == "disk")
    assert all(place is not None and place[0] == "memory" for place in places[:first_on_disk])
    assert places[-2:] == [("disk", 0), None]
    assert (None, 0) not in places
    alone = offered(disk=False)
    assert not any(shape is not None and shape.refine == "disk" for shape in alone)
    end = alone.index(None)
    assert [str(shape.quantizer) for shape in alone[end + 1 :]] == [
        str(nearly.RaBitQ(8)), str(nearly.SAQ(6))
    ]  # fmt: skip
    assert len(offered(disk=False, recall=0.9)) == len(alone) + 1
    assert offered(disk=False, recall=0.995)[-1] is None  # no codes alone reach that
    assert offered("l1")[-1] is None
    assert all(shape is None or shape.refine == "memory" for shape in offered("l1"))


@pytest.mark.parametrize(("kind", "quicker"), [("float32", "lists"), ("uint8", "no codes")])
def test_lists_come_before_graphs_that_walk_by_long_vectors(kind, quicker):
    names = [shape.name for shape in offered(dim=128, kind=kind) if shape is not None]
    at = {"lists": next(i for i, name in enumerate(names) if "lists" in name),
          "no codes": next(i for i, name in enumerate(names) if "no codes" in name)}  # fmt: skip
    assert min(at, key=at.get) == quicker


def test_shorter_codes_are_offered_where_they_tell_enough():
    rng, found = np.random.default_rng(0), {}
    for decay in (0.99, 0.993, 1.0):
        vectors = rng.standard_normal((3000, 384), np.float32) * decay ** np.arange(384, dtype=np.float32)
        shapes = [shape for shape in offered(sample=vectors) if shape is not None and shape.degree == 32]
        found[decay] = [shape.quantizer for shape in shapes if shape.refine == "memory"][1:]
        sizes = [shape.code_bytes for shape in shapes if shape.refine == "memory"]
        assert sizes == sorted(set(sizes), reverse=True)
    assert found[0.99] == [nearly.SAQ(1)]
    assert found[0.993][0] == nearly.RaBitQ(2)
    assert found[1.0] == []
    assert not any(isinstance(code, nearly.Reduced) for codes in found.values() for code in codes)
    without = [shape.quantizer for shape in offered(dim=384) if shape is not None and shape.refine == "memory"]
    assert [nearly.RaBitQ(2), nearly.Reduced(dims=59)] == without[1:3]  # nobody knows: the largest is foretold


def test_the_plan_names_what_was_faster_and_did_not_fit(monkeypatch):
    monkeypatch.setattr(choose, "_SMALL", 1000)
    vectors = embeddings(3000)
    usual = nearly.build(vectors, memory_limit=10**9)
    assert "limit" not in usual.plan
    most = nearly.estimate(3000, DIM, sample=vectors, memory_limit=10**9).peak_bytes
    shorter = nearly.build(vectors, memory_limit=most - 1)
    assert shorter.n_bytes < usual.n_bytes
    assert "faster, but larger: degree 32" in shorter.plan
    assert f"({most:,})" in shorter.plan


def test_each_that_is_offered_is_built_as_foretold(monkeypatch):
    monkeypatch.setattr(choose, "_SMALL", 1000)
    vectors, queries, seen = embeddings(4000), embeddings(100, seed=5), set()
    for disk in (True, False):
        limit = 10**9
        while True:
            try:
                foretold = nearly.estimate(4000, DIM, sample=vectors, memory_limit=limit, disk=disk)
            except nearly.InputError:  # nothing is left
                break
            index = nearly.build(vectors, memory_limit=limit, disk=disk)
            kept = index._store.kept
            seen.add((type(index), kept))
            assert 0.8 * foretold.index_bytes <= index.n_bytes <= 1.01 * foretold.index_bytes
            assert foretold.index_bytes <= limit
            if kept != "none":
                exact = index.search(queries, exact=True).distances[:, -1:]
                assert (index.search(queries).distances <= exact * (1 + 1e-5)).mean() >= 0.93
            limit = (foretold.peak_bytes if foretold.peak_bytes <= limit else foretold.index_bytes) - 1
    assert seen == {(nearly.Vamana, "memory"), (nearly.Vamana, "disk"), (nearly.Flat, "memory"), (nearly.IVF, "disk"),
                    (nearly.IVF, "none")}  # fmt: skip


def test_lists_are_built_where_no_graph_fits(monkeypatch):
    """Of many vectors: what a build takes for a while is more than the index where there are few."""
    vectors = embeddings(6000)
    shape = next(shape for shape in offered(dim=DIM) if shape is not None and shape.n_lists)
    monkeypatch.setattr(memory, "candidates", lambda *_: iter([shape, None]))
    index = nearly.build(vectors, memory_limit=10**9)
    assert type(index) is nearly.IVF
    assert index._store.kept == "memory"


def test_a_plan_names_what_was_faster_and_did_not_fit(monkeypatch):
    monkeypatch.setattr(choose, "_SMALL", 1000)
    vectors = embeddings(2000)
    usual = nearly.estimate(2000, DIM, sample=vectors).peak_bytes
    index = nearly.build(vectors, memory_limit=usual - 1)
    assert f"faster, but larger: degree 32 and 8-bit codes of 60 of 96 dimensions ({usual:,})" in index.plan


def test_codes_alone_that_do_not_reach_the_recall_are_refused(monkeypatch):
    vectors = knots(6000)
    alone = offered(dim=DIM, sample=vectors, recall=0.9, disk=False)[-1]
    monkeypatch.setattr(memory, "candidates", lambda *_: iter([alone]))
    with pytest.raises(nearly.InputError, match=r"only codes alone fit, which reach 0\.\d+ of recall 0\.97; raise"):
        nearly.build(vectors, memory_limit=10**9, recall=0.97, disk=False)
    with pytest.raises(nearly.InputError, match="disk"):
        nearly.build(vectors, memory_limit=10**9, disk="no")


@pytest.mark.skipif(sys.platform != "linux", reason="the largest resident set is read from /proc")
@pytest.mark.timing
@pytest.mark.soak
@pytest.mark.parametrize(("n", "dim", "metric"), [(60_000, 128, "l2"), (40_000, 384, "cosine"), (20_000, 96, "ip")])
def test_lists_are_built_in_what_was_foretold(n, dim, metric):
    """Measured in a new process by what the system counts; the limit is for what lists keep."""
    least = nearly.estimate(n, dim, metric=metric).index_bytes // 6
    made = bench_memory.built(n, dim, metric, limit=least)
    assert "lists" in made["plan"]
    assert made["index_bytes"] < least
    assert made["peak_bytes"] <= nearly.estimate(n, dim, metric=metric, memory_limit=least).peak_bytes


class Counted:
    """Rows that note how many were asked for at a time."""

    def __init__(self, rows):
        self.rows, self.most = rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, which):
        part = self.rows[which]
        self.most = max(self.most, len(part))
        return part


def test_lists_are_found_with_a_part_of_their_sample_in_hand(rng):
    rows = rng.standard_normal((30_000, 6), dtype=np.float32) + 3
    counted = Counted(rows)
    assert (balanced(counted, 300) == balanced(rows, 300)).all()
    assert counted.most <= 256 * 17  # what the first division looks at


def test_a_sample_that_is_read_again_and_again_gives_the_same_lists(monkeypatch):
    vectors = embeddings(3000)
    held = nearly.IVF(vectors, calibrate=False)
    monkeypatch.setattr(lists, "HELD", 0)
    again = nearly.IVF(vectors, calibrate=False)
    assert (held._lists.centers.rows == again._lists.centers.rows).all()
    assert (held._codes.codes.array() == again._codes.codes.array()).all()
