"""Files and seeds: the same arguments give the same bytes, and a loaded index answers as the saved one did."""

import numpy as np
import pytest
from contract_support import CASES, KINDS, L2, SIMPLE, built, each, few_queries, points, queries, same

import nearly
from nearly import _core
from nearly.indexes import INDEXES

BUILT_TWICE = [c for c in CASES if c in SIMPLE or (c.metric == "ip" and c.kind == "vamana")]


def saved(index, path):
    """Return the bytes of an index."""
    index.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("case", each(CASES), ids=str)
def test_a_loaded_index_answers_the_same_and_is_saved_the_same(case, tmp_path):
    index, asked = built(case), queries(case.metric)
    octets = saved(index, tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", verify=True)
    assert type(loaded) is INDEXES[case.kind]
    assert (loaded.metric, loaded.dim, len(loaded)) == (index.metric, index.dim, len(index))
    assert loaded.plan == index.plan
    for options in ({}, {"exact": True}, {"where": np.arange(0, 600, 2)}):
        same(loaded.search(asked, **options), index.search(asked, **options))
    same(loaded.search(asked[0]), index.search(asked[0]))
    same(loaded.range_search(asked[0], 3.0), index.range_search(asked[0], 3.0))
    np.testing.assert_array_equal(loaded.get([0, 599]), index.get([0, 599]))
    assert saved(loaded, tmp_path / "b") == octets


@pytest.mark.parametrize("case", each(BUILT_TWICE), ids=str)
def test_the_same_arguments_give_the_same_bytes_for_any_number_of_threads(case, tmp_path):
    other = 1 if nearly.get_threads() > 1 else 2
    made = case.make(points(case.metric), threads=other, **few_queries(case))
    assert saved(made, tmp_path / "a") == saved(built(case), tmp_path / "b")


@pytest.mark.parametrize("case", [c for c in L2 if c.quantizer in (None, nearly.Plain(), nearly.Scalar())], ids=str)
def test_whole_numbers_give_the_same_bytes_on_every_target(case, tmp_path):
    vectors = np.rint(points("l2") * 20 + 128).clip(0, 255).astype(np.uint8)
    before, octets = _core.simd_target(), set()
    try:
        for target in _core.simd_targets():
            assert _core.use_simd_target(target)
            index = case.make(vectors[:500])
            index.add(vectors[500:])
            octets.add(saved(index, tmp_path / "a"))
    finally:
        assert _core.use_simd_target(before)
    assert len(octets) == 1


@pytest.mark.parametrize("case", [c for c in KINDS if c.kind != "flat"], ids=str)
def test_another_seed_gives_another_graph(case, tmp_path):
    vectors = points("l2")
    assert saved(case.make(vectors, seed=5), tmp_path / "a") != saved(case.make(vectors, seed=6), tmp_path / "a")


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_the_same_calls_give_the_same_bytes(case, tmp_path):
    vectors = points("l2", 450)
    options = {} if case.kind == "flat" else {"queries": vectors[:100]}  # few: changes of this size calibrate anew

    def made(threads, through_a_file):
        index = case.make(vectors[:300], threads=threads, **options)
        if through_a_file:
            index.save(tmp_path / "between")
            index = nearly.load(tmp_path / "between")
        index.add(vectors[300:], threads=threads)
        index.remove(np.arange(0, 450, 4))
        index.upsert(vectors[:50] + 1, ids=np.arange(50) * 4 + 1, threads=threads)
        return saved(index, tmp_path / "a")

    assert made(1, False) == made(2, False)
    assert made(1, True) == made(1, False)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_loaded_index_can_be_changed_and_its_file_stays_as_it_was(case, tmp_path):
    vectors = points("l2", 700)
    index = case.make(vectors[:600])
    octets = saved(index, tmp_path / "a")
    loaded = nearly.load(tmp_path / "a")
    assert loaded.add(vectors[600:]).tolist() == list(range(600, 700))
    loaded.remove(np.arange(0, 300))
    loaded.upsert(vectors[:5], ids=[300, 301, 302, 303, 2000])
    assert (tmp_path / "a").read_bytes() == octets
    assert len(loaded) == 401
    hits = loaded.search(vectors[:5], k=1, exact=True)
    assert hits.ids[:, 0].tolist() == [300, 301, 302, 303, 2000]
    loaded.save(tmp_path / "a")  # over the file that it is mapped from
    loaded.verify()
    again = nearly.load(tmp_path / "a", verify=True)
    same(again.search(vectors[:50]), loaded.search(vectors[:50]))
    assert again.ids.tolist() == loaded.ids.tolist()
    assert again.add(vectors[:1]).tolist() == [2001]


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_loaded_index_survives_the_removal_of_its_file(case, tmp_path):
    index, asked = built(case), queries("l2")
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a")
    (tmp_path / "a").unlink()
    same(loaded.search(asked), index.search(asked))


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("case", each(SIMPLE), ids=str)
def test_tiny_indexes_are_saved_too(case, n, tmp_path):
    vectors = points(case.metric, n)
    case.make(vectors).save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", verify=True)
    assert loaded.ids.tolist() == list(range(n))
    assert loaded.search(points(case.metric, 1)[0], k=3).counts == n
    assert loaded.add(points(case.metric, 3)).tolist() == list(range(n, n + 3))
    assert loaded.search(points(case.metric, 1)[0], k=10).counts == n + 3


def test_refuses_to_load_what_is_no_index(tmp_path):
    (tmp_path / "a").write_bytes(b"not an index" * 1000)
    with pytest.raises(nearly.FormatError):
        nearly.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        nearly.load(tmp_path / "nothing")
    nearly.Flat(points("l2", 3)).save(tmp_path / "b")
    with pytest.raises(nearly.InputError, match="callable"):
        nearly.load(tmp_path / "b", metric=len)


def test_refuses_to_save_where_there_is_no_folder(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        nearly.Flat(points("l2", 3)).save(tmp_path / "nowhere" / "a")
