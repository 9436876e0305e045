"""Where full vectors are kept does not change what is found: on disk bit for bit, as float16 as they are rounded."""

import numpy as np
import pytest
from contract_support import CASES, KINDS, few_queries, points, queries, same

import nearly
from nearly import evaluate

# Every index by codes and without, under each metric once, and packed bits.
KEPT = [*KINDS, *(c for c in CASES if c.metric in ("cosine", "ip") and isinstance(c.quantizer, nearly.RaBitQ))]
KEPT += [c for c in CASES if c.metric == "hamming"]
FAST = [*KINDS, *(c for c in KEPT if c.kind == ("flat" if c.metric == "hamming" else "vamana"))]  # bits walk on disk
KEPT = [c if c in FAST else pytest.param(c, marks=pytest.mark.soak) for c in KEPT]


def compared(one, other, metric):
    """Check that two indexes answer alike, whatever they are asked."""
    asked, how = queries(metric), {} if isinstance(one, nearly.Flat) else {"effort": 20}
    for options in (how, {"exact": True}, {"where": np.arange(0, 600, 3), **how}):
        same(one.search(asked, 5, **options), other.search(asked, 5, **options))
    same(one.search(asked[0], 5, **how), other.search(asked[0], 5, **how))
    radius = float(one.search(asked[0], 5, exact=True).distances[-1])
    same(one.range_search(asked[:3], radius), other.range_search(asked[:3], radius))
    some = one.ids[::7]
    np.testing.assert_array_equal(one.get(some), other.get(some))


@pytest.mark.parametrize("case", KEPT, ids=str)
def test_vectors_on_disk_are_those_in_memory(case, tmp_path):
    vectors, how = points(case.metric), {} if case.kind == "flat" else {"calibrate": False}
    memory, disk = case.make(vectors, **how), case.make(vectors, refine="disk", **how)
    compared(memory, disk, case.metric)
    assert "on disk" in disk.plan
    assert memory.n_bytes - disk.n_bytes == memory._store.vectors.n_bytes
    disk.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a", verify=True)
    assert loaded.plan == disk.plan
    compared(memory, loaded, case.metric)
    more = points(case.metric, 80, seed=9)
    for index in (memory, disk, loaded):
        index.add(more[:40])
        index.remove(np.arange(0, 640, 5))
        index.upsert(more[40:], ids=np.arange(40) * 5 + 1)
        index.verify()
    compared(memory, disk, case.metric)
    compared(memory, loaded, case.metric)
    loaded.save(tmp_path / "a")  # over the file that it was read from
    compared(memory, loaded, case.metric)
    compared(memory, nearly.load(tmp_path / "a", verify=True), case.metric)


@pytest.mark.parametrize("case", KEPT, ids=str)
def test_half_of_the_bytes_are_distances_of_rounded_vectors(case, tmp_path):
    vectors, asked = points(case.metric), queries(case.metric)
    if case.metric == "hamming":
        with pytest.raises(nearly.InputError, match="float16"):
            case.make(vectors, refine="float16")
        return
    index = case.make(vectors[:400], refine="float16", **few_queries(case))
    index.add(vectors[400:])
    rounded = vectors.astype(np.float16).astype(np.float32)
    truth = evaluate.exact(rounded, asked, 5, metric=case.metric)[1]
    index.save(tmp_path / "a")
    for one in (index, nearly.load(tmp_path / "a", verify=True)):
        np.testing.assert_allclose(one.search(asked, 5, exact=True).distances, truth, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(one.get([3, 500]), rounded[[3, 500]])
    with pytest.raises(nearly.InputError, match="65504"):
        index.add(vectors[:2] * 1e5)
    assert len(index) == 600


@pytest.mark.parametrize("case", KINDS, ids=str)
@pytest.mark.parametrize("where", ["disk", pytest.param("float16", marks=pytest.mark.soak)])
def test_an_empty_index_keeps_what_comes_where_it_was_told(case, where):
    vectors = points("l2")
    index = case.make(vectors[:0], refine=where)
    index.add(vectors)
    same(index.search(vectors[:9], 3, exact=True), nearly.Flat(vectors, refine=where).search(vectors[:9], 3))
    assert index._store.kept == where


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_numbers_that_do_not_fit_the_element_type_convert_what_is_there(case):
    whole = np.rint(points("l2") * 20 + 128).clip(0, 255).astype(np.float32)
    for where, kind in (("disk", "float32"), ("float16", "float16")):
        index = case.make(whole, refine=where)
        assert index._store.kind == "uint8"
        index.add(whole[:5] + 0.3)
        assert index._store.kind == kind
        assert index.search(whole[7], 1, exact=True).distances[0] == 0


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_what_is_no_place_for_vectors_is_refused(case):
    for wrong in ("Disk", 3, *([] if case.kind == "ivf" else [None])):  # lists may keep codes alone
        with pytest.raises(nearly.InputError, match="refine"):
            case.make(points("l2"), refine=wrong)
