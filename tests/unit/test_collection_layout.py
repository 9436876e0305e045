"""Segments that are skipped, and segments laid out for a workload: the same answers, fewer rows read."""

import datetime as dt
import json

import numpy as np
import pytest

import nearly
from nearly import F
from nearly.collection import partitioning
from nearly.collection.balls import Balls
from nearly.collection.layout import Layout, as_cut
from nearly.collection.state import stored
from nearly.collection.writing import Limits
from nearly.filters import parse

N, DIM = 3000, 8
LANGUAGES = ("de", "en", "fr", "ja")


def rows(n=N, seed=0, clusters=0):
    """Return vectors, in clusters or not, and metadata with nulls."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, DIM)).astype(np.float32)
    if clusters:
        vectors += (
            30
            * np.random.default_rng(9)
            .standard_normal((clusters, DIM))
            .astype(np.float32)[rng.integers(clusters, size=n)]
        )
    years = [None if year == 2000 else int(year) for year in rng.integers(1990, 2021, n)]
    return vectors, {"year": years, "lang": rng.choice(LANGUAGES, n).tolist()}


def opened(path=None, n=N, clusters=0, **options):
    docs = nearly.open(path, background=False, durable=False, **options)
    vectors, metadata = rows(n, clusters=clusters)
    docs.add(vectors, metadata=metadata)
    docs.compact()
    return docs


def past(n=100, seed=1):
    """Return filters of searches: spans of years, and languages of the later ones."""
    rng = np.random.default_rng(seed)
    spans = [f"year >= {year} AND year < {year + 4}" for year in rng.integers(1990, 2018, n // 2).tolist()]
    named = [{"lang": str(name), "year": {"$gt": 2010}} for name in rng.choice(LANGUAGES, n // 2)]
    return [each for pair in zip(spans, named, strict=True) for each in pair]


def answers(docs):
    filters = (*past(30, seed=2), None, "year IS NULL", "lang <> 'de' OR year = 1999")
    queries = np.random.default_rng(3).standard_normal((len(filters), DIM)).astype(np.float32)
    found = [docs.search(query, 7, where=where, exact=True)
             for query, where in zip(queries, filters, strict=True)]  # fmt: skip
    return [(hits.ids.tolist(), hits.distances.tobytes(), docs.count(where))
            for hits, where in zip(found, filters, strict=True)]  # fmt: skip


def segments(docs):
    return [stored(part) for part in docs._state.segments]


# -- skipping --------------------------------------------------------------------------------------------------------


def test_segments_in_which_nothing_can_pass_are_not_looked_at():
    docs = nearly.open(background=False)
    docs._writer.limits = Limits(tail_rows=100)
    for year in (2000, 2010, 2020):
        docs.add(np.eye(8)[np.arange(100) % 8], metadata={"year": [year] * 100, "day": [dt.date(year, 1, 1)] * 100})
        docs.flush()
    docs._writer.limits = Limits(tail_rows=8)
    docs.add(np.eye(8), metadata={"lang": ["de"] * 8})
    docs.flush()
    hits = docs.search(np.ones(8), 3, where="year > 2015")
    assert "100 of 308 rows pass F.year > 2015; 3 of 4 segments skipped; segment" in hits.plan
    assert "2 of 4 segments skipped" in docs.search(np.ones(8), where="year IN (2020, 2005) OR lang = 'de'").plan
    assert "4 of 4 segments skipped" in docs.search(np.ones(8), where="day = '2015-01-01' OR lang = 'en'").plan
    assert "skipped" not in docs.search(np.ones(8), where="year IS NULL OR year > 0").plan
    assert docs.count("year > 2015") == len(docs.get(where="year > 2015")) == 100
    assert docs.count("year > 2020") == docs.delete(where="year > 2020") == 0


def test_patches_are_seen_in_segments_that_would_be_skipped():
    docs = opened()
    assert docs.count("year = 2050") == 0
    docs.update([3, 7], metadata={"year": 2050})
    assert docs.get(where="year = 2050").ids.tolist() == [3, 7]
    assert docs.count("year = 2051") == 0
    docs.update(3, metadata={"year": None})
    assert docs.get(where="year = 2050").ids.tolist() == [7]
    docs.delete(7)
    assert docs.count("year = 2050") == 0


def test_a_segment_that_says_less_than_it_holds_is_found(tmp_path):
    docs = opened(tmp_path / "docs")
    (source,) = segments(docs)
    column = source.rows.column("year")
    assert column.cover.low.tolist() == [1990, 2001]
    column._cover = type(column.cover)(column.cover.low[1:], column.cover.high[1:], True)
    with pytest.raises(nearly.FormatError, match="values past its ends"):
        docs.verify()


# -- laying out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, "docs"])
def test_answers_are_the_same_and_fewer_rows_are_read(tmp_path, path):
    docs = opened(None if path is None else tmp_path / path)
    docs.add(*([rows(50, seed=7)[0]]), metadata=rows(50, seed=7)[1])
    before = answers(docs)
    tried = docs.partition_for(past(), min_rows=100, dry_run=True)
    assert not tried.applied
    assert len(docs.stats().segments) == 1
    found = docs.partition_for(past(), min_rows=100)
    assert found == partitioning.Partition(**{**vars(tried), "applied": True})
    assert found.applied
    assert len(found.leaves) == len(found.rows) > 3
    assert sorted(found.rows) == sorted(docs.stats().segments)
    assert min(found.rows) >= 100
    assert sum(found.rows) == len(docs) == N + 50
    assert found.train_after < 0.5 * found.train_before
    assert found.test_after < 0.6 * found.test_before
    assert answers(docs) == before
    assert docs.verify().rows == len(docs)
    stats = docs.stats()
    assert stats.promised == found.test_after
    assert 0 < stats.read < 1


def test_searches_need_only_their_leaves():
    docs = opened()
    walked = docs.search_many([{"query": np.zeros(DIM), "where": where} for where in past(40, seed=2)])
    assert docs.stats().read is None
    found = docs.partition_for(past(), min_rows=200)
    laid_out = docs.search_many([{"query": np.zeros(DIM), "where": where} for where in past(40, seed=2)])
    for one, other in zip(walked, laid_out, strict=True):
        assert len(one) == len(other) == 10
    read = docs.stats().read
    assert read < 1.3 * found.test_after
    assert all("segments skipped" in hits.plan for hits in laid_out)


@pytest.mark.parametrize("kind", ["str", "date", "float", "int"])
def test_rows_of_many_tenants_are_divided_between_their_names(kind):
    rng = np.random.default_rng(0)
    tenants = {"str": [f"tenant {i:02d}" for i in range(60)], "int": list(range(60)),
               "date": [dt.date(2020, 1, 1) + dt.timedelta(i) for i in range(60)],
               "float": [i / 7 for i in range(60)]}[kind]  # fmt: skip
    docs = nearly.open(background=False)
    which = rng.integers(60, size=1500)
    docs.add(rng.random((1500, 4)), metadata={"tenant": [None if i == 7 else tenants[i] for i in which.tolist()]})
    found = docs.partition_for([F.tenant == tenants[i] for i in range(60)] * 2, min_rows=150, max_parts=8)
    assert len(found.rows) > 4
    assert found.test_after < 0.25
    for i in (0, 7, 59):
        assert docs.count(F.tenant == tenants[i]) == int((which == i).sum()) * (i != 7)
        plan = docs.search(np.zeros(4), where=F.tenant == tenants[i]).plan
        assert f"{len(found.rows) - (i != 7)} of {len(found.rows)} segments skipped" in plan


def test_vectors_in_clusters_are_divided_by_where_they_lie():
    for metric in ("l2", "cosine"):
        docs = opened(clusters=12, metric=metric)
        queries = rows(300, seed=5, clusters=12)[0]
        before = docs.search(queries, 5, exact=True)
        found = docs.partition_for([(query, None) for query in queries[:200]], min_rows=200)
        assert found.applied
        assert found.test_after < 0.4
        after = docs.search(queries, 5, exact=True)
        assert after.ids.tolist() == before.ids.tolist()
        assert after.distances.tobytes() == before.distances.tobytes()
        assert after.stats.n_distances < 0.4 * before.stats.n_distances
        one = docs.search(queries[250], 5, exact=True)  # of another batch, it reads as few
        assert one.ids.tolist() == before.ids[250].tolist()
        assert "segments skipped" in one.plan
        radius = float(before.distances[250, -1])
        assert set(before.ids[250].tolist()) <= set(docs.range_search(queries[250], radius).ids.tolist())
        assert docs.range_search(queries[250], radius).stats.n_distances < len(docs)


def test_a_search_for_more_than_a_leaf_holds_goes_on_to_the_next():
    docs = opened(clusters=12)
    queries = rows(200, seed=5, clusters=12)[0]
    docs.partition_for([{"query": query, "where": "year > 1995"} for query in queries], min_rows=200)
    for k in (1, 400, 2999):
        hits = docs.search(queries[:3], k, exact=True)
        far = np.linalg.norm(rows(clusters=12)[0][None] - queries[:3, None], axis=2)
        np.testing.assert_allclose(hits.distances, np.sort(far, axis=1)[:, :k], rtol=1e-5)


def test_attributes_and_places_are_cut_by_together():
    docs = opened(clusters=6)
    queries = rows(300, seed=5, clusters=6)[0]
    both = [{"query": query, "where": f"lang = '{LANGUAGES[i % 4]}'"} for i, query in enumerate(queries)]
    sizes = {}
    for cells in (0, None):
        for workload, name in ((both, "both"), ([each["where"] for each in both], "filters")):
            if cells == 0 or name == "both":
                sizes[cells, name] = docs.partition_for(workload, min_rows=60, max_parts=24, cells=cells, dry_run=True)
    assert sizes[None, "both"].test_after < 0.6 * sizes[0, "both"].test_after
    assert sizes[0, "both"].test_after == pytest.approx(sizes[0, "filters"].test_after, rel=0.2)


def test_balls_hold_their_vectors(rng):
    for metric in ("l2", "cosine"):
        docs = opened(clusters=5, metric=metric)
        assert not stored(docs._state.segments[0]).rows.balls
        docs.partition_for([(query, None) for query in rows(100, seed=5, clusters=5)[0]], min_rows=200)
        queries = np.concatenate([rows(20, seed=6, clusters=5)[0], rng.standard_normal((20, DIM)).astype(np.float32)])
        for part in docs._state.segments:
            least = stored(part).rows.balls["vector"].least(nearly.metrics.named(metric), queries)
            exact = stored(part).index("vector").search(queries, 1, exact=True).distances[:, 0]
            assert (least <= exact).all()
    docs.verify()
    source = stored(docs._state.segments[0])
    source.rows.balls["vector"] = source.rows.balls["vector"]._replace(radii=source.rows.balls["vector"].radii / 2)
    with pytest.raises(nearly.FormatError, match="outside of their balls"):
        docs.verify()
    alone = Balls.around(np.array([[1e6, 0], [3e6, 0], [0, 1]], np.float32), np.array([4, 4, 7]))
    assert alone.cells.tolist() == [4, 7]
    assert alone.centers.tolist() == [[2e6, 0], [0, 1]]
    assert alone.radii.tolist() == pytest.approx([1e6, 0])


# -- what comes later ------------------------------------------------------------------------------------------------


def test_a_reopened_collection_and_a_reader_know_the_layout(tmp_path):
    docs = opened(tmp_path / "docs")
    reader = nearly.open(tmp_path / "docs", mode="r")
    before = answers(docs)
    found = docs.partition_for(past(), min_rows=200)
    assert answers(reader) == before  # of the moment that it saw, whose files are gone
    assert len(reader.stats().segments) == 1
    assert reader.refresh()
    assert reader.stats().segments == docs.stats().segments
    assert reader.partition_for(past(), min_rows=200, dry_run=True).train_before == pytest.approx(found.train_after)
    with pytest.raises(nearly.StateError, match="mode"):
        reader.partition_for(past())
    assert answers(reader) == before
    docs.close()
    with nearly.open(tmp_path / "docs") as docs:
        assert docs._state.layout.tree is not None
        assert docs.stats().promised == found.test_after
        assert answers(docs) == before
    reader.close()


def test_merges_keep_leaves_apart_and_newer_rows_join_them():
    docs = opened()
    docs._writer.limits = Limits(tail_rows=64, draft_rows=50)
    found = docs.partition_for(past(), min_rows=200)
    n_leaves = len(found.rows)
    for turn in range(4):
        vectors, metadata = rows(150, seed=20 + turn)
        docs.add(vectors, metadata=metadata)
        docs.delete(docs.get(where=f"year = {1991 + turn}", limit=40).ids)
        docs.flush()
        leaves = [source.leaf for source in segments(docs)]
        assert sorted(leaf for leaf in leaves if leaf is not None) == list(range(n_leaves))
    vectors, metadata = rows(600, seed=30)
    docs.add(vectors, metadata=metadata)
    docs.flush()  # more than a quarter of all came since
    assert [source.leaf for source in segments(docs)] == list(range(n_leaves))
    docs.update(int(vectors.size and 5), metadata={"year": 2020})
    docs.add(vectors[:80])
    docs.compact()
    assert [source.leaf for source in segments(docs)] == list(range(n_leaves))
    assert docs.stats().deleted == 0
    assert not any(part.patches for part in docs._state.segments)
    assert docs.verify().rows == len(docs)
    for part, condition in zip(docs._state.segments, docs._state.layout.conditions(), strict=True):
        assert part.n_alive == part.n, condition
    assert docs.partition_for(None) is None
    docs.compact()
    assert len(segments(docs)) == 1


def test_what_happens_meanwhile_is_carried_over():
    docs = opened()
    maintenance, made = docs._maintenance, docs._maintenance._made
    done = []

    def meanwhile(parts, chosen, *rest):
        if not done:
            docs.delete([10, 20, 30])
            docs.update([11, 21], metadata={"year": 1234})
            docs.upsert(np.zeros((1, DIM)), ids=[40], metadata={"year": [1235]})
            done.append(True)
        return made(parts, chosen, *rest)

    maintenance._made = meanwhile
    found = docs.partition_for(past(), min_rows=200)
    assert done
    assert found.applied
    assert len(docs) == N - 3
    assert docs.get(where="year IN (1234, 1235)").ids.tolist() == [11, 21, 40]
    assert docs.verify().rows == N - 3


def test_a_layout_that_fails_leaves_everything_as_it_was(tmp_path):
    docs = opened(tmp_path / "docs")
    before, files = answers(docs), sorted(path.name for path in (tmp_path / "docs" / "segments").iterdir())
    made, calls = docs._maintenance._made, []

    def full(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("no space left on device")
        return made(*arguments)

    docs._maintenance._made = full
    with pytest.raises(OSError, match="no space"):
        docs.partition_for(past(), min_rows=200)
    assert sorted(path.name for path in (tmp_path / "docs" / "segments").iterdir()) == files
    assert answers(docs) == before
    assert docs._state.layout is None


def test_erased_rows_leave_nothing_behind_in_a_layout_by_cells(tmp_path):
    vectors, metadata = rows(1000, clusters=6)
    vectors[7] = 1234.5  # in a cell of its own
    docs = nearly.open(tmp_path / "docs", background=False, durable=False)
    docs.add(vectors, ids=[f"the key {i:05d}" for i in range(1000)], metadata=metadata)
    docs.partition_for([(query, None) for query in vectors[:300]], min_rows=100)
    assert docs._state.layout.by_cells
    docs.erase("the key 00007")
    assert docs.verify(erased="the key 00007").erased == 1
    needle = np.full(DIM, 1234.5, np.float32).tobytes()
    assert not any(needle in path.read_bytes() for path in (tmp_path / "docs").rglob("*") if path.is_file())
    docs.add(vectors[:400], ids=[f"another {i:05d}" for i in range(400)])
    docs.flush()
    assert docs.verify().rows == len(docs) == 1399
    docs.close()


def test_several_fields_and_elements_keep_their_vectors():
    rng = np.random.default_rng(0)
    fields = {"title": nearly.collection.Field(metric="cosine", dim=4, dtype="float16"),
              "code": nearly.collection.Field(metric="hamming", dim=8)}  # fmt: skip
    docs = nearly.open(fields=fields, background=False)
    codes = rng.integers(0, 256, (800, 8), np.uint8)
    docs.add({"title": rng.standard_normal((800, 4)), "code": codes}, metadata={"kind": ["a", "b"] * 400},
             documents=[f"text {i}" for i in range(800)])  # fmt: skip
    wanted = [["metadata", "document", name] for name in fields]
    before = [docs.get(include=each) for each in wanted]
    with pytest.raises(nearly.InputError, match="field"):
        docs.partition_for(["kind = 'a'"])
    with pytest.raises(nearly.InputError, match=r"hamming is no distance in space.*searches|hamming is no distance"):
        docs.partition_for([(codes[0], "kind = 'a'")], field="code", cells=3)
    found = docs.partition_for([(codes[0], "kind = 'a'"), {"where": "kind = 'b'"}] * 8, field="code", min_rows=100)
    assert found.rows == (400, 400)
    for each, old in zip(wanted, before, strict=True):
        new = docs.get(old.ids, include=each)
        for one, other in zip(old, new, strict=True):
            assert (one.id, one.metadata, one.document) == (other.id, other.metadata, other.document)
            np.testing.assert_array_equal(one.vector, other.vector)


# -- what is refused, and what does not pay ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workload", "options", "message"),
    [
        ([], {}, "workload is empty"),
        ("year > 3", {}, "a list of filters"),
        ({"year": 3}, {}, "a list of filters"),
        (7, {}, "a list of filters"),
        (["year > 3", "yaer > 3"], {}, "yaer"),
        (["year >"], {}, "year"),
        (["year = 'x'"], {}, "holds int"),
        ([{"query": np.zeros(3), "where": "year > 3"}], {}, "dim"),
        ([(np.full(DIM, np.nan), None)], {}, "finite"),
        ([(1, 2, 3)], {}, "a pair"),
        ([{"query": np.zeros(DIM), "k": 0}], {}, "k is 0"),
        (["year > 3"], {"max_parts": 1}, "max_parts"),
        (["year > 3"], {"min_rows": 0}, "min_rows"),
        (["year > 3"], {"cells": -1}, "cells"),
        (["year > 3"], {"cells": 4}, "the workload has no queries"),
        (["year > 3"], {"field": "other"}, "other"),
        (["year > 3"], {"dry_run": "yes"}, "dry_run"),
        (["year > 3"], {"progress": 3}, "progress"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_fits_nothing_is_refused(small, workload, options, message):
    with pytest.raises(nearly.InputError, match=message):
        small.partition_for(workload, **options)
    assert len(small.stats().segments) == 1


@pytest.fixture(scope="module")
def small():
    docs = nearly.open(background=False)
    vectors, metadata = rows(300)
    docs.add(vectors, metadata={**metadata, "serial": list(range(300))})
    docs.compact()
    return docs


def test_an_error_says_which_search_it_is_about(small):
    with pytest.raises(nearly.InputError) as raised:
        small.partition_for(["year > 3", "nothing = 3"])
    assert "searches[1]" in "".join(raised.value.__notes__)


def test_what_does_not_pay_is_not_done(small):
    no_cut = small.partition_for([None, "year > 0"] * 10, min_rows=10)
    assert not no_cut.applied
    assert (no_cut.leaves, no_cut.rows, no_cut.train_after) == (("all rows",), (300,), 1.0)
    assert "no cut" in no_cut.reason
    rng = np.random.default_rng(4)  # each search wants another half of the rows: nothing to learn for the next
    halves = [F.serial.is_in(rng.choice(300, 150, replace=False).tolist()) for _ in range(30)]
    found = small.partition_for(halves, min_rows=1)
    assert not found.applied
    assert found.train_after < 0.99 < found.test_after == 1
    assert "the present layout stays" in found.reason
    assert len(small.stats().segments) == 1
    empty = nearly.open(columns={"year": "int"})
    assert not empty.partition_for(["year > 3"]).applied


def test_a_small_workload_is_learned_from_whole(small):
    found = small.partition_for(["lang = 'de'", "lang = 'en'"], min_rows=20, dry_run=True)
    assert found.test_before is None
    assert found.train_after < 0.8


@pytest.mark.parametrize(
    "where",
    [
        "year >= 2000", "3 > score", "lang IN ('de', 'it''s')", "flag", "NOT flag", "year IS NULL",
        "day = '2020-01-01'", "moment < TIMESTAMP '2020-01-01 12:00:00'", "list_contains(tags, 'a')",
        "score > 'inf'::DOUBLE", "lang <> 'ä'",
    ],
)  # fmt: skip
def test_cuts_are_written_and_read(where):
    where = parse(where) if "inf" not in where else F.score > float("inf")
    test = where.item if type(where).__name__ == "Not" else where
    cut = as_cut(test)
    layout = Layout.from_json(json.loads(json.dumps(Layout((cut, None, (cut, None, None)), 0.5).to_json())))
    assert layout.n_leaves == 3
    assert layout.columns == test.columns
    assert as_cut(parse(cut)) == cut


@pytest.mark.parametrize("where", ["year > score", "lower(lang) = 'de'", '"$eq" = 3', "year = NULL"])
def test_other_tests_are_no_cuts(where):
    assert as_cut(parse(where)) is None


@pytest.mark.parametrize(
    "made",
    [3, {}, {"tree": [1, 2], "promised": 1, "field": None}, {"tree": None, "promised": "x", "field": None},
     {"tree": [{"year": {"$what": 3}}, None, None], "promised": 1, "field": None},
     {"tree": [{"$cells": ["x"]}, None, None], "promised": 1, "field": None}],
    ids=str,
)  # fmt: skip
def test_a_damaged_layout_is_refused(made):
    with pytest.raises(nearly.InputError, match="its layout cannot be read"):
        Layout.from_json(made)
