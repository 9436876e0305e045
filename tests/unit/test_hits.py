"""Hits: shapes, laziness, iteration, conversions."""

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearly.hits import Hit, Hits, RangeHits, SearchContext, Stats
from nearly.metrics import METRICS

INF = np.inf


@pytest.fixture
def context():
    return SearchContext(METRICS["cosine"], plan="a plan", expected_recall=0.953)


@pytest.fixture
def one(context):
    return Hits(np.array([7, 3, -1]), np.array([0.25, 0.5, INF], np.float32), True, context, [90, 8, 3])


@pytest.fixture
def batch(context):
    ids = np.array([[7, 3, 2], [5, -1, -1], [-1, -1, -1]])
    distances = np.array([[0.25, 0.5, 1.5], [1, INF, INF], [INF, INF, INF]], np.float32)
    return Hits(ids, distances, False, context, [90, 8, 3])


@pytest.fixture
def ragged(context):
    distances = np.array([0.25, 0.5, 1.0, 0.75], np.float32)
    return RangeHits(np.array([7, 3, 2, 5]), distances, np.array([0, 3, 3, 4]), False, context, [90, 8, 3])


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_one_query_holds_only_what_was_found(context, shape):
    ids, distances = np.array([7, 3, -1]).reshape(shape), np.array([0.25, 0.5, INF], np.float32).reshape(shape)
    hits = Hits(ids, distances, True, context)
    assert (hits.ids.tolist(), hits.distances.tolist(), hits.scores.tolist()) == ([7, 3], [0.25, 0.5], [0.75, 0.5])
    assert (hits.counts, len(hits), hits.single) == (2, 2, True)
    assert isinstance(hits.counts, int)


@pytest.mark.parametrize("attribute", ["ids", "distances", "scores", "counts"])
def test_any_attribute_may_be_asked_for_first(context, attribute):
    hits = Hits(np.array([7, -1]), np.array([0.25, INF], np.float32), True, context)
    assert np.size(getattr(hits, attribute)) == 1
    assert (hits.ids.tolist(), hits.distances.tolist(), hits.counts) == ([7], [0.25], 1)


def test_a_full_answer_is_not_copied(context):
    ids, distances = np.array([7, 3]), np.array([0.25, 0.5], np.float32)
    hits = Hits(ids, distances, True, context)
    assert np.shares_memory(hits.ids, ids)
    assert np.shares_memory(hits.distances, distances)


def test_nothing_found_is_an_answer(context):
    for ids in (np.array([-1, -1]), np.empty(0, np.int64)):
        hits = Hits(ids, np.full(ids.shape, INF, np.float32), True, context)
        assert (hits.ids.shape, hits.counts, list(hits), bool(hits)) == ((0,), 0, [], False)
        assert "0 neighbors" in repr(hits)


def test_a_batch_stays_padded(batch):
    assert batch.ids.shape == batch.distances.shape == batch.scores.shape == (3, 3)
    assert batch.counts.tolist() == [3, 1, 0]
    assert batch.counts.dtype == np.int64
    assert batch.scores[1].tolist() == [0.0, -INF, -INF]


def test_a_batch_without_queries(context):
    hits = Hits(np.empty((0, 4), np.int64), np.empty((0, 4), np.float32), False, context)
    assert (len(hits), list(hits), hits.counts.tolist(), hits._columns()["id"].tolist()) == (0, [], [], [])
    assert "0 queries" in repr(hits)


@pytest.mark.parametrize("attribute", ["ids", "distances", "scores", "counts", "stats"])
@pytest.mark.parametrize("kind", ["one", "batch"])
def test_attributes_are_made_once(request, kind, attribute):
    hits = request.getfixturevalue(kind)
    assert getattr(hits, attribute) is getattr(hits, attribute)


def test_context_is_read_only_when_asked_for(one):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(name)

    hits = Hits(np.array([1]), np.array([0.5], np.float32), True, Untouchable(), np.zeros(3))
    assert (hits.ids.tolist(), hits.distances.tolist(), hits.counts) == ([1], [0.5], 1)
    with pytest.raises(AssertionError, match="plan"):
        _ = hits.plan


def test_plan_recall_and_work(one, batch):
    assert (one.plan, one.expected_recall, one.stats) == ("a plan", 0.953, Stats(90, 8, 3))
    assert batch[0].stats == Stats(90, 8, 3)
    assert Hits(one.ids, one.distances, True, SearchContext(METRICS["l2"], "p")).stats is None


def test_one_query_iterates_over_hits(one):
    assert list(one) == [Hit(7, 0.25), Hit(3, 0.5)]
    neighbor = one[1]
    assert (neighbor.id, neighbor.distance, type(neighbor.id), type(neighbor.distance)) == (3, 0.5, int, float)
    assert one[-1] == Hit(3, 0.5)
    assert one[:1].ids.tolist() == [7]
    with pytest.raises(IndexError):
        one[2]  # the slot was empty


def test_a_batch_iterates_over_queries(batch):
    assert [row.ids.tolist() for row in batch] == [[7, 3, 2], [5], []]
    assert all(isinstance(row, Hits) and row.single for row in batch)
    assert batch[np.int64(-2)].distances.tolist() == [1.0]
    part = batch[1:]
    assert (part.single, part.ids.tolist()) == (False, [[5, -1, -1], [-1, -1, -1]])
    with pytest.raises(IndexError):
        batch[3]
    with pytest.raises(TypeError):
        batch[[0, 1]]


def test_hits_are_equal_only_to_themselves(context, one):
    other = Hits(one.ids, one.distances, True, context)
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_hits_pickle(one, batch, ragged):
    for hits in (one, batch, ragged):
        copy = pickle.loads(pickle.dumps(hits))
        np.testing.assert_array_equal(copy.ids, hits.ids)
        np.testing.assert_array_equal(copy.scores, hits.scores)
        assert copy.plan == hits.plan


def test_repr_shows_hits_recall_and_plan(one, batch, ragged):
    assert repr(one).splitlines() == [
        "Hits: 2 neighbors of one query",
        "  ids        [7 3]",
        "  distances  [0.25 0.5 ]",
        "  recall     0.953 expected",
        "  plan       a plan",
    ]
    assert repr(batch).splitlines()[:3] == [
        "Hits: 3 queries, k=3",
        "  0          [7 3 2] at [0.25 0.5  1.5 ]",
        "  1          [5] at [1.]",
    ]
    assert repr(ragged).splitlines()[:3] == [
        "RangeHits: 3 queries, 4 neighbors",
        "  0          3 found: [7 3 2] at [0.25 0.5  1.  ]",
        "  1          0 found: [] at []",
    ]


def test_a_long_repr_stays_short(context):
    ids, distances = np.arange(5000).reshape(50, 100), np.sort(np.random.default_rng(0).random((50, 100), np.float32))
    for hits in (Hits(ids, distances, False, context), Hits(ids[0], distances[0], True, context)):
        assert "..." in repr(hits)
        assert len(repr(hits)) < 800
    found = RangeHits(ids.ravel(), distances.ravel(), np.arange(0, 5001, 100), False, context)
    assert "47 more" in repr(found)
    assert len(repr(found)) < 800


EXPECTED = {
    "query": [0, 0, 0, 1],
    "rank": [0, 1, 2, 0],
    "id": [7, 3, 2, 5],
    "distance": [0.25, 0.5, 1.5, 1.0],
    "score": [0.75, 0.5, -0.5, 0.0],
}
READERS = {
    "pyarrow": lambda hits: hits.to_arrow().to_pydict(),
    "pandas": lambda hits: hits.to_pandas().to_dict("list"),
    "polars": lambda hits: hits.to_polars().to_dict(as_series=False),
}


@pytest.mark.parametrize("library", READERS)
def test_conversions_leave_out_empty_slots(library, batch, one):
    pytest.importorskip(library)
    assert READERS[library](batch) == EXPECTED
    assert READERS[library](one)["id"] == [7, 3]
    assert READERS[library](one)["query"] == [0, 0]


@pytest.mark.parametrize("library", READERS)
def test_ragged_conversions(library, ragged):
    pytest.importorskip(library)
    table = READERS[library](ragged)
    assert (table["query"], table["rank"]) == ([0, 0, 0, 2], [0, 1, 2, 0])
    assert (table["id"], table["distance"]) == ([7, 3, 2, 5], [0.25, 0.5, 1.0, 0.75])


def test_arrow_types(batch):
    pytest.importorskip("pyarrow")
    types = {field.name: str(field.type) for field in batch.to_arrow().schema}
    assert types == {"query": "int64", "rank": "int64", "id": "int64", "distance": "float", "score": "float"}


@pytest.mark.parametrize(
    ("library", "advice"), [("pyarrow", r"nearly\[arrow\]"), ("pandas", "pandas"), ("polars", "polars")]
)
def test_a_missing_library_is_named(monkeypatch, one, library, advice):
    monkeypatch.setitem(sys.modules, library, None)
    method = one.to_arrow if library == "pyarrow" else getattr(one, f"to_{library}")
    with pytest.raises(ImportError, match=f"pip install.*{advice}"):
        method()


def test_metadata_follows_the_hits(context, batch):
    assert batch.metadata is None
    year = np.array([[1, 2, 3], [4, 0, 0], [0, 0, 0]])
    joined = Hits(batch.ids, batch.distances, False, context, None, {"year": year})
    assert [row.metadata["year"].tolist() for row in joined] == [[1, 2, 3], [4], []]
    assert joined[:2].metadata["year"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert joined[0][1:].metadata["year"].tolist() == [2, 3]
    assert joined._columns()["year"].tolist() == [1, 2, 3, 4]


def test_ragged_hits_are_rows_of_hits(ragged):
    assert (len(ragged), ragged.counts.tolist()) == (3, [3, 0, 1])
    assert [row.ids.tolist() for row in ragged] == [[7, 3, 2], [], [5]]
    assert ragged[-1].distances.tolist() == [0.75]
    assert ragged.scores.tolist() == [0.75, 0.5, 0.0, 0.25]
    assert ragged.scores is ragged.scores
    part = ragged[1:]
    assert (part.ids.tolist(), part.offsets.tolist(), part[1].ids.tolist()) == ([5], [0, 0, 1], [5])
    with pytest.raises(IndexError):
        ragged[3]
    with pytest.raises(IndexError, match="step 1"):
        ragged[::2]


def test_ragged_hits_of_one_query_are_hits(context):
    found = RangeHits(np.array([7, 3]), np.array([0.25, 0.5], np.float32), np.array([0, 2]), True, context)
    assert (len(found), found.counts, list(found)) == (2, 2, [Hit(7, 0.25), Hit(3, 0.5)])
    assert found[1] == Hit(3, 0.5)
    assert found[1:].ids.tolist() == [3]
    assert repr(found).startswith("RangeHits: 2 neighbors of one query")


def test_ragged_metadata(context, ragged):
    joined = RangeHits(ragged.ids, ragged.distances, ragged.offsets, False, context, None, {"year": np.arange(4)})
    assert [row.metadata["year"].tolist() for row in joined] == [[0, 1, 2], [], [3]]
    assert joined[1:].metadata["year"].tolist() == [3]
    assert joined._columns()["year"].tolist() == [0, 1, 2, 3]


@given(st.lists(st.integers(0, 5), max_size=8), st.data())
def test_slices_of_ragged_hits_agree_with_lists(counts, data):
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    ids = np.arange(offsets[-1])
    context = SearchContext(METRICS["l2"], "p")
    found = RangeHits(ids, ids.astype(np.float32), offsets, False, context)
    rows = [row.ids.tolist() for row in found]
    assert [len(row) for row in rows] == counts
    at = slice(*(data.draw(st.none() | st.integers(-9, 9)) for _ in range(2)))
    part = found[at]
    assert [row.ids.tolist() for row in part] == rows[at]
    assert part.ids.tolist() == [one for row in rows[at] for one in row]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_rows_of_a_batch_agree_with_the_batch(counts):
    ids = np.array([[i if i < count else -1 for i in range(4)] for count in counts])
    distances = np.where(ids < 0, INF, ids).astype(np.float32)
    hits = Hits(ids, distances, False, SearchContext(METRICS["l2"], "p"))
    assert hits.counts.tolist() == [row.counts for row in hits] == counts
    assert hits._columns()["id"].tolist() == [neighbor.id for row in hits for neighbor in row]
    assert hits._columns()["rank"].tolist() == [rank for row in hits for rank in range(len(row))]
