"""Windows: what lies between two values, against brute force; trees that grow; files."""

import datetime
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nearly
from nearly.errors import FormatError, IdError, InputError
from nearly.indexes.window.margins import bits_of
from nearly.indexes.window.values import as_column, as_windows
from nearly.indexes.window.ways import METHODS

N, DIM = 1200, 8
SMALL: dict[str, Any] = {"leaf": 100, "branching": 4, "degree": 12, "beam": 32}
BINARY = {**SMALL, "branching": 2}
METHOD_NAMES = ["auto", *METHODS]


@cache
def data() -> tuple[Any, Any, Any]:
    """Vectors, some of them twice, values, of which many are equal, and queries."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N, DIM), dtype=np.float32)
    vectors[:150] = vectors[700:850]  # equal vectors
    return vectors, rng.integers(-40, 300, N), rng.standard_normal((30, DIM), dtype=np.float32)


@cache
def made(overlap: bool = True) -> nearly.Window:
    vectors, values, _ = data()
    return nearly.Window(vectors, values, overlap=overlap, **SMALL)


def brute(
    vectors: Any, values: Any, query: Any, low: Any, high: Any, k: int, ids: Any = None
) -> tuple[list[int], list[float]]:
    """Ids of the k nearest in a window, by (distance, id)."""
    ids = np.arange(len(vectors)) if ids is None else ids
    inside = np.flatnonzero((values >= low) & (values <= high))
    distances = np.sqrt(((vectors[inside].astype(np.float64) - query) ** 2).sum(axis=1)).astype(np.float32)
    order = np.lexsort((ids[inside], distances))[:k]
    return ids[inside][order].tolist(), distances[order].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(-60, 320), st.integers(-60, 320), st.integers(1, 30))
def test_exact_is_brute_force_with_both_ends_inclusive(low, high, k):
    vectors, values, queries = data()

    hits = made().search(queries[0], k, window=(low, high), exact=True)

    ids, distances = brute(vectors, values, queries[0], low, high, k)
    np.testing.assert_allclose(hits.distances, distances, rtol=1e-5)
    assert hits.ids.tolist() == ids
    assert hits.expected_recall == 1.0


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_stays_inside_and_keeps_recall(method):
    vectors, values, queries = data()
    shares = []
    for low, high in [(-40, 299), (0, 150), (100, 260), (20, 30), (150, 150), (-100, 60), (120, 400)]:
        hits = made().search(queries, 10, window=(low, high), method=method)
        inside = int(((values >= low) & (values <= high)).sum())
        assert (hits.counts == min(10, inside)).all()
        found = values[hits.ids[hits.ids >= 0]]
        assert ((found >= low) & (found <= high)).all()
        true = [brute(vectors, values, query, low, high, 10)[1] for query in queries]
        shares += [np.mean(row.distances <= far[-1] * (1 + 1e-5)) for row, far in zip(hits, true, strict=True) if far]
    assert np.mean(shares) >= 0.94


def test_auto_compares_less_than_a_scan_and_names_the_way():
    rng = np.random.default_rng(6)
    vectors = (rng.standard_normal((3000, 6)) @ rng.standard_normal((6, 128))).astype(np.float32)
    index = nearly.Window(vectors, np.arange(3000), leaf=1500, branching=2, degree=12, beam=32)
    hits = index.search(vectors[:30], window=(0, 2000))

    assert hits.stats.n_distances < 2000 * 30 / 3
    assert all(part in hits.plan for part in ("window of 2001 of 3000 vectors", "within", "reach", "calibrated"))
    assert "scan" in index.search(vectors[0], window=(5, 6)).plan


def test_each_query_may_have_its_own_window():
    _, _, queries = data()
    rng = np.random.default_rng(1)
    windows = np.sort(rng.integers(-40, 300, (30, 2)), axis=1)

    together = made().search(queries, 5, window=windows)

    for query, window, hits in zip(queries, windows.tolist(), together, strict=True):
        alone = made().search(query, 5, window=tuple(window))
        assert hits.ids.tolist() == alone.ids.tolist()
        assert hits.distances.tolist() == alone.distances.tolist()


def test_open_ends_and_no_window():
    _, values, queries = data()
    index = made()

    everything = index.search(queries, window=None)
    assert (everything.ids == index.search(queries, window=(None, None)).ids).all()
    assert (values[index.search(queries, window=(None, 10)).ids] <= 10).all()
    assert (values[index.search(queries, window=(10, None)).ids] >= 10).all()


@pytest.mark.parametrize("window", [(5, 3), (1000, 2000), (150.2, 150.8), (2**70, None), (None, -(2**70))])
def test_empty_windows_find_nothing(window):
    hits = made().search(data()[2], window=window)

    assert (hits.ids == -1).all()
    assert hits.plan == "the window is empty"


def test_range_search_in_a_window():
    vectors, values, queries = data()

    found = made().range_search(queries, 2.5, window=(0, 100))

    for query, row in zip(queries, found, strict=True):
        ids, distances = brute(vectors, values, query, 0, 100, N)
        assert row.ids.tolist() == [i for i, d in zip(ids, distances, strict=True) if d <= 2.5]


@pytest.mark.parametrize("metric", ["cosine", "ip", "hamming"])
def test_other_metrics_are_exact_and_near(metric):
    vectors, values, queries = data()
    if metric == "hamming":
        rng = np.random.default_rng(2)
        vectors, queries = (rng.integers(0, 256, (n, 16), dtype=np.uint8) for n in (400, 5))
    vectors, values = vectors[:400], values[:400]
    index = nearly.Window(vectors, values, metric=metric, **SMALL)
    truth = nearly.Flat(vectors, metric=metric)
    inside = np.flatnonzero((values >= 0) & (values <= 200))

    exact = index.search(queries, window=(0, 200), exact=True)
    near = index.search(queries, window=(0, 200))

    expected = truth.search(queries, where=inside)
    assert (exact.ids == expected.ids).all()
    assert (exact.distances == expected.distances).all()
    assert (near.distances <= expected.distances[:, -1:]).mean() >= 0.9


# -- changes ---------------------------------------------------------------------------------------------------------


def test_appends_in_order_build_no_part_again_however_they_are_cut():
    vectors, values, _ = data()
    order = np.argsort(values, kind="stable")
    vectors, values = vectors[order][:650], values[order][:650]
    grown = []
    for step in (60, 200):
        index = nearly.Window(vectors[:50], values[:50], quantizer=nearly.Plain(), **{**BINARY, "leaf": 75})
        for at in range(50, 650, step):
            before = dict(index._runs[0].parts)
            index.add(vectors[at : at + step], values[at : at + step])
            graphs = {key: part._lists for key, part in index._runs[0].parts.items()}
            assert all(graphs[key] is part._lists for key, part in before.items())
        assert len(index._runs) == 1
        assert len(index) == 650
        grown.append(index)

    one, other = (dict(index._runs[0].parts) for index in grown)
    assert sorted(one) == sorted(other)
    assert (3, 0, False) in one
    assert all((one[key]._lists[0].array() == other[key]._lists[0].array()).all() for key in one)


def test_late_values_wait_in_runs_that_are_merged():
    vectors, values, queries = data()
    index = nearly.Window(vectors[:700], values[:700], **{**BINARY, "leaf": 150})
    most = 0
    for at in range(700, N, 80):
        index.add(vectors[at : at + 80], values[at : at + 80])
        most = max(most, len(index._runs))
        hits = index.search(queries[0], 7, window=(10, 200), exact=True)
        n = min(N, at + 80)
        assert hits.ids.tolist() == brute(vectors[:n], values[:n], queries[0], 10, 200, 7)[0]

    assert 2 <= most <= 4
    assert len(index) == sum(run.n for run in index._runs) == N
    assert (index.values(index.ids) == values).all()
    assert (index.get(index.ids) == vectors).all()


def test_removed_rows_are_passed_over_and_half_of_them_rebuild():
    vectors, values, queries = data()
    vectors, values = vectors[:700], values[:700]
    index = nearly.Window(vectors, values, **SMALL)
    rng = np.random.default_rng(3)
    kept = np.ones(700, bool)
    for n_gone in (100, 300):
        gone = rng.permutation(np.flatnonzero(kept))[:n_gone]
        index.remove(gone)
        kept[gone] = False
        ids = np.flatnonzero(kept)
        assert len(index) == len(ids)
        assert (index.ids == ids).all()
        assert int(gone[0]) not in index
        for method in METHOD_NAMES:
            assert kept[index.search(queries, window=(0, 200), method=method).ids].all()
        hits = index.search(queries[1], window=(0, 250), exact=True)
        assert hits.ids.tolist() == brute(vectors[kept], values[kept], queries[1], 0, 250, 10, ids)[0]

    assert index._runs[0].alive is None  # built anew
    with pytest.raises(IdError, match="not in this index"):
        index.remove([int(ids[0]), int(gone[0])])
    assert int(ids[0]) in index


def test_upsert_replaces_vector_and_value():
    vectors, values, queries = data()
    index = nearly.Window(vectors[:300], values[:300], **SMALL)

    index.upsert(queries[:2], [1000, -1000], ids=[5, 900])

    assert index.values([5, 900]).tolist() == [1000, -1000]
    assert len(index) == 301
    assert index.search(queries[0], window=(999, None)).ids.tolist() == [5]
    assert index.add(queries[:1], [3]).tolist() == [901]


def test_an_index_without_vectors_grows():
    index = nearly.Window(np.zeros((0, 3), np.float32), [])

    assert index.search(np.zeros(3, np.float32), window=(0, 1)).ids.tolist() == []
    index.add(np.eye(4, dtype=np.float32), [1.5, 2.5, 2.5, np.inf])
    assert index.search(np.eye(4, dtype=np.float32)[2], window=(2.5, 2.5)).ids.tolist() == [2, 1]
    index.remove(index.ids)
    assert len(index) == 0
    assert index.search(np.zeros(4, np.float32)).ids.tolist() == []


def test_vectors_that_need_another_element_type():
    rng = np.random.default_rng(4)
    whole = rng.integers(0, 200, (400, 6)).astype(np.float32)
    index = nearly.Window(whole, np.arange(400), **SMALL)
    index.add(whole[:10] + 0.5, np.arange(400, 410))
    index.add(whole[:10] + 0.25, np.arange(10))

    vectors = np.concatenate([whole, whole[:10] + 0.5, whole[:10] + 0.25])
    assert (index.get(np.arange(420)) == vectors).all()
    assert index.search(whole[3] + 0.5, k=1).ids.tolist() == [403]


# -- what it is made of ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [False, True])
def test_memory_is_as_the_formula_says(overlap):
    index = made(overlap)
    run = index._runs[0]

    levels = math.ceil(math.log(N / SMALL["leaf"], SMALL["branching"]))
    shifted = sum(len(part) for key, part in run.parts.items() if key[2])  # all but a half at both ends
    graphs = 4 * SMALL["degree"] * (N * levels + shifted)
    assert (shifted > N // 2) == overlap
    shared = N * (run.vectors.stride + 16 + run.travel.codes.stride)
    chains = sum(0 if part._hung is None else part._hung.nbytes for part in run.parts.values())

    assert (len(run.starts) - 1, max(key[0] for key in run.parts)) == (16, levels)
    assert index.n_bytes == pytest.approx(shared + graphs + chains, rel=0.1)


def test_overlapping_parts_hold_what_straddles_the_others():
    run = made()._runs[0]
    middle, length = N // 2, N // 12

    start, stop = middle - length // 2, middle + length // 2
    inside = [part for part in run.parts.values() if part.start <= start and part.stop >= stop]

    assert min(len(part) for part in inside) <= 8 * length < len(run.parts[2, 0, False])


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_bits_of_an_interval(n, a, b, some):
    start, stop = sorted((min(a, n), min(b, n)))
    alive = np.arange(n) % 3 > 0 if some else None

    bits = np.unpackbits(bits_of(n, start, stop, alive).view(np.uint8), bitorder="little")

    rows = np.arange(len(bits))
    expected = (rows >= start) & (rows < stop) & (True if alive is None else rows % 3 > 0)
    assert (bits == expected).all()


def test_same_bytes_for_any_number_of_threads_and_after_loading(tmp_path):
    vectors, values, queries = data()
    for threads in (1, 2):
        nearly.Window(vectors[:400], values[:400], threads=threads, **SMALL).save(tmp_path / f"{threads}.nearly")
    assert (tmp_path / "1.nearly").read_bytes() == (tmp_path / "2.nearly").read_bytes()

    loaded = nearly.load(tmp_path / "1.nearly", verify=True)
    built = nearly.Window(vectors[:400], values[:400], **SMALL)
    assert loaded.plan == built.plan
    assert (7 in loaded, 400 in loaded) == (True, False)
    for window in [(0, 200), (None, None), (5, 6)]:
        assert (loaded.search(queries, window=window).ids == built.search(queries, window=window).ids).all()
    loaded.save(tmp_path / "3.nearly")
    assert (tmp_path / "3.nearly").read_bytes() == (tmp_path / "1.nearly").read_bytes()

    loaded.add(vectors[400:420], values[400:420])
    loaded.add(vectors[420:540], np.full(120, 300))
    loaded.remove([0, 1])
    loaded.save(tmp_path / "4.nearly")
    again = nearly.load(tmp_path / "4.nearly", verify=True)
    hits = again.search(queries[2], window=(100, 300), exact=True)
    assert hits.ids.tolist() == brute(vectors[2:540], again.values(again.ids), queries[2], 100, 300, 10, again.ids)[0]


@pytest.mark.parametrize("quantizer", [nearly.Plain(), nearly.Scalar(bits=4), None], ids=str)
def test_a_loaded_index_builds_new_runs_by_its_quantizer(tmp_path, quantizer):
    vectors, values, _ = data()
    index = nearly.Window(vectors[:400], values[:400], quantizer=quantizer, **SMALL)
    index.save(tmp_path / "a")
    loaded = nearly.load(tmp_path / "a")
    for one in (index, loaded):
        one.remove(np.arange(100))  # built anew
    index.save(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (loaded._runs[0].travel.codes is None) == (quantizer == nearly.Plain())


@pytest.mark.parametrize("specification", [{"specification": "pca"}, {"specification": "reduced", "dims": "all"}, 3])
def test_a_file_with_a_damaged_specification_is_refused(tmp_path, specification):
    made().save(tmp_path / "a")
    file = nearly.storage.read(tmp_path / "a")
    nearly.storage.write(tmp_path / "b", file.arrays, {**file.config, "specification": specification}, kind=file.kind)
    with pytest.raises(FormatError):
        nearly.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("run0_values", lambda a: a[::-1], "order"),
        ("run0_starts", lambda a: a[::-1], "leaves"),
        ("run0_ids", lambda a: np.where(a == 1199, 300, a), "twice"),
        ("run0_part0_lists", lambda a: np.full_like(a, 254), "damaged"),
        ("run0_part0_entries", lambda a: a + 10000, "entry"),
        ("run0_margins", lambda a: a - 9, "margins"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, damage, said):
    made().save(tmp_path / "a.nearly")
    file = nearly.storage.read(tmp_path / "a.nearly")
    parts = {**file.arrays, name: np.ascontiguousarray(damage(file.arrays[name]))}
    nearly.storage.write(tmp_path / "b.nearly", parts, file.config, kind=file.kind)

    with pytest.raises(FormatError, match=said):
        nearly.load(tmp_path / "b.nearly")


def test_calibrate_on_queries_names_them():
    index = nearly.Window(data()[0][:500], data()[1][:500], **SMALL)
    index.calibrate(data()[2])

    assert "the queries passed to calibrate" in index.search(data()[2], method="within").plan
    assert (
        "the queries passed when it was built"
        in nearly.Window(data()[0][:500], data()[1][:500], queries=data()[2], **SMALL)
        .search(data()[2], method="within")
        .plan
    )


# -- values and windows ----------------------------------------------------------------------------------------------


def test_points_in_time():
    days = np.datetime64("2024-01-01") + np.arange(366)
    index = nearly.Window(np.random.default_rng(5).standard_normal((366, 4), dtype=np.float32), days)
    query = np.zeros(4, np.float32)

    def days_found(low: Any, high: Any) -> list[int]:
        return sorted(index.search(query, 400, window=(low, high)).ids.tolist())

    assert days_found(np.datetime64("2024-02"), np.datetime64("2024-02-02")) == [31, 32]
    assert days_found(np.datetime64("2024-12-30T23:00"), None) == [365]
    assert days_found(datetime.date(2024, 1, 3), datetime.datetime(2024, 1, 4, 12)) == [2, 3]
    assert index.values([3]).tolist() == [datetime.date(2024, 1, 4)]
    with pytest.raises(InputError, match="points in time"):
        index.search(query, window=(2024, 2025))


@given(st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_bounds_of_another_kind_let_in_nothing_else(value, low, high):
    for column, kind in ((np.array([value]), "int64"), (np.array([float(value)]), "float64")):
        lows, highs = as_windows((low, high), kind, 1, True)
        inside = bool((column >= lows).all() and (column <= highs).all())
        assert inside == (low <= column[0].item() <= high)
    for bound in (value, value + 1):
        lows, highs = as_windows((bound, bound), "float64", 1, True)
        assert (lows[0] <= float(value) <= highs[0]) == (float(value) == bound)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, np.nan], "NaN"), ([1, 2, 3], "one value for each"), (["a", "b"], "dtype"),
        (np.array(["2024-01-01", "NaT"], "datetime64[D]"), "NaT"), (np.array([1, 2**64 - 1], np.uint64), "int64"),
        ([True, False], "dtype"),
    ],
)  # fmt: skip
def test_values_that_have_no_order_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        nearly.Window(np.eye(2, dtype=np.float32), values)


def test_values_of_another_kind_are_refused_or_fit():
    assert as_column([1, 2], 2, "float64")[0].dtype == np.float64
    with pytest.raises(InputError, match="holds int64"):
        as_column([1.5, 2], 2, "int64")
    with pytest.raises(InputError, match="rounds"):
        as_column([2**53 + 1], 1, "float64")
    with pytest.raises(InputError, match="finer"):
        as_column(np.array(["2024-01-01T10"], "datetime64[h]"), 1, "datetime64[D]")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 3}, "pair"), ({"window": (1, 2, 3)}, "neither"), ({"window": ("a", 2)}, "numbers"),
        ({"window": (float("nan"), 2)}, "NaN"), ({"window": [(1, 2), (3, 4)]}, "holds 2 pairs"),
        ({"method": "tree"}, "method"), ({"recall": 2}, "recall"), ({"k": 0}, "k"),
    ],
)  # fmt: skip
def test_what_no_search_can_mean_is_an_error(options, said):
    with pytest.raises(InputError, match=said):
        made().search(data()[2], **options)


def test_arguments_by_other_names_are_named():
    with pytest.raises(TypeError, match="use k="):
        made().search(data()[2], top_k=3)
    with pytest.raises(TypeError, match="use metric="):
        nearly.Window(data()[0], data()[1], space="l2")


def test_reading_while_another_writes():
    from concurrent.futures import ThreadPoolExecutor

    vectors, _, queries = data()
    index = nearly.Window(vectors[:400], np.arange(400), **BINARY)

    def read(_: int) -> bool:
        hits = index.search(queries, 5, window=(0, 399))
        return bool((hits.counts == 5).all() and (hits.ids < 400).all())

    with ThreadPoolExecutor(2) as pool:
        reads = pool.map(read, range(60))
        for at in range(400, 800, 50):
            index.add(vectors[at : at + 50], np.arange(at, at + 50))
        assert all(reads)


def test_many_together_are_answered_without_a_window():
    index, queries = made(), data()[2]
    assert index.search_many(queries, 5).ids.tolist() == index.search(queries, 5).ids.tolist()
    assert index.search_many(queries, 5, exact=True).ids.tolist() == index.search(queries, 5, exact=True).ids.tolist()
