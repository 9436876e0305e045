"""What a newcomer may pass by mistake: a clear error that names the argument, before anything changed."""

import numpy as np
import pytest

import nearly

VECTORS = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32)
NO_VECTORS = {
    "a number": np.float32(3), "no dimension": np.array(3.0), "three dimensions": VECTORS.reshape(3, 100, 8),
    "text": "abc",
    "nothing": None, "a generator": (row for row in VECTORS), "complex": VECTORS.astype(complex),
    "objects": np.array([[1, "a"], [2, 3]], object), "ragged": [[1, 2], [3]],
    "masked": np.ma.masked_greater(VECTORS, 1),
    "not a number": np.full((2, 8), np.nan), "infinite": np.full((2, 8), np.inf), "huge": np.full((2, 8), 1e300),
    "strings": np.array([["a", "b"]]), "a dict": {"a": 1}, "a set": {1, 2}, "dates": np.zeros((2, 2), "M8[s]"),
    "bytes": b"abcd", "a type": np.ndarray, "an object": object(), "a long integer": [[2**70, 1]],
}  # fmt: skip
ARRAYS = {
    "fortran": np.asfortranarray(VECTORS), "backwards": VECTORS[::-1, ::-1], "float64": VECTORS.astype(float),
    "big-endian": VECTORS.astype(">f4"), "booleans": VECTORS > 0, "lists": VECTORS.tolist(),
    "unmasked": np.ma.array(VECTORS),
    "every other": VECTORS[::2],
}  # fmt: skip


@pytest.fixture(scope="module", params=[nearly.Flat, nearly.Vamana, nearly.HNSW, nearly.build])
def made(request):
    return request.param(VECTORS)


@pytest.mark.parametrize("what", NO_VECTORS)
def test_what_is_no_vectors_is_refused_by_name(made, what, tmp_path):
    wrong = NO_VECTORS[what]
    for name, call in {
        "vectors": lambda: type(made)(wrong), "queries": lambda: made.search(wrong), "sample": lambda: nearly.estimate(
            5, 8, sample=wrong),
    }.items():  # fmt: skip
        if not (name == "sample" and wrong is None):
            with pytest.raises(nearly.InputError, match=name):
                call()
    for change in (
        made.add,
        lambda vectors: made.upsert(vectors, ids=[0]),
        lambda queries: made.range_search(queries, 1.0),
    ):
        with pytest.raises(nearly.InputError):
            change(wrong)
    assert made.ids.tolist() == list(range(300))


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_of_all_layouts_mean_the_same(what):
    values = np.array(ARRAYS[what], np.float32)
    for kind in (nearly.Flat, nearly.Vamana):
        index = kind(ARRAYS[what])
        np.testing.assert_array_equal(index.get(index.ids), values)
        hits, expected = index.search(ARRAYS[what], k=3, exact=True), nearly.Flat(values).search(values, k=3)
        assert hits.ids.tolist() == expected.ids.tolist()
        one = index.search(ARRAYS[what][0], k=3, exact=True)
        assert one.ids.tolist() == expected.ids[0].tolist()


def test_arrays_that_cannot_be_written_or_lie_in_files_will_do(tmp_path):
    mapped = np.memmap(tmp_path / "a", np.float32, "w+", shape=VECTORS.shape)
    mapped[:] = VECTORS
    fixed = VECTORS.copy()
    fixed.flags.writeable = False
    for array in (mapped, fixed):
        index = nearly.Vamana(array)
        assert index.search(array, k=1).ids[:50, 0].tolist() == list(range(50))
        assert index.search(array[7], k=1).ids.tolist() == [7]


def test_wrong_arguments_of_a_search_are_refused_by_name(made):
    query = VECTORS[0]
    made.search(query, k=3)
    options = [{"k": k} for k in (0, -1, 1.5, "3", None, True, 3.0, 2**40, [3])]
    options += [{"recall": r} for r in (0, 2, -0.5, "a", [0.9], True)]
    options += [{"threads": t} for t in (0, 1.5, "2", 2000)]
    options += [{"where": w} for w in ("x > 1", np.ones(5, bool), [-1], [1.5], np.ones((3, 3), bool), {"a": 1}, 2**70)]
    options += [{"exact": e} for e in ("yes", 1)] + ([] if isinstance(made, nearly.Flat) else [{"exact": None}])
    options += [{"effort": e} for e in (0, 1.5, "64", 64.0, [3])]
    for wrong in options:
        with pytest.raises(nearly.InputError, match=next(iter(wrong))):
            made.search(query, **wrong)
    for radius in ("a", None, np.nan, np.inf, [1], True, 2j):
        with pytest.raises(nearly.InputError, match="radius"):
            made.range_search(query, radius)
    for name in ("top_k", "limit", "foo"):
        with pytest.raises(TypeError, match=name):
            made.search(query, **{name: 3})


@pytest.mark.parametrize(
    "ids", ["a", 1.5, [0, 0.5], None, True, [True], 300, -1, 2**70, np.array([[1]]), {1}, {"a": 1}], ids=repr
)
def test_ids_that_are_none_are_refused(made, ids):
    for call in (made.get, made.remove):
        with pytest.raises(nearly.InputError):
            call(ids)
    assert len(made) == 300


@pytest.mark.parametrize(
    "options",
    [
        {"metric": 5}, {"metric": None}, {"metric": "euclid"}, {"ids": [1]}, {"ids": "abc"}, {"threads": -1},
        {"degree": "8"}, {"quantizer": nearly.Scalar}, {"quantizer": "pq"}, {"seed": -1}, {"recall": None},
        {"queries": "a"}, {"queries": VECTORS[:, :3]}, {"queries": VECTORS[:0]}, {"queries": 5}, {"calibrate": "no"},
        {"order": "x"}, {"order": [1, 2]}, {"progress": 5}, {"alpha": None}, {"beam": None},
    ],
    ids=repr,
)  # fmt: skip
def test_wrong_arguments_of_a_graph_are_refused_by_name(options):
    with pytest.raises(nearly.InputError, match="euclid|l2" if "metric" in options else next(iter(options))):
        nearly.Vamana(VECTORS, **options)


def test_what_build_hands_on_is_checked_also_where_it_is_not_needed():
    for options in ({"progress": 3}, {"seed": -1}, {"queries": "a"}, {"queries": VECTORS[:, :3]}):
        with pytest.raises(nearly.InputError, match=next(iter(options))):
            nearly.build(VECTORS, **options)


def test_calibration_needs_queries():
    index = nearly.Vamana(VECTORS)
    curve = index.curve
    for wrong in (VECTORS[:0], "a", VECTORS[:, :3]):
        with pytest.raises(nearly.InputError, match="queries"):
            index.calibrate(wrong)
    assert index.curve is curve


def test_a_target_has_a_name():
    with pytest.raises(nearly.InputError, match="5"):
        nearly.use_simd_target(5)
