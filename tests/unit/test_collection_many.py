"""Searches that are asked together: the answers of one after the other, or exact ones, whatever they share."""

import numpy as np
import pytest

import nearly

N, DIM = 6000, 16
FILTERS = ("lang = 'en'", "year >= 2015", "year >= 2005 AND lang = 'de'", "year = 1990", None, {"year": {"$lt": 1995}})


@pytest.fixture(scope="module")
def docs():
    """Return rows in a graph, rows beside it, and some that are gone."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N + 300, DIM), np.float32)
    metadata = {"year": rng.integers(1990, 2020, N + 300).tolist(), "lang": rng.choice(["en", "de"], N + 300).tolist()}
    docs = nearly.open(metric="l2")
    docs.add(vectors[:N], metadata={name: values[:N] for name, values in metadata.items()})
    docs.compact()
    docs.add(vectors[N:], metadata={name: values[N:] for name, values in metadata.items()})
    docs.delete(list(range(0, N, 50)))
    return docs


def questions(n, seed=1):
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((n, DIM), np.float32)
    return [{"query": query, "where": FILTERS[i % len(FILTERS)], "k": 3 + i % 2 * 4} for i, query in enumerate(queries)]


def same(one, other):
    assert one.single == other.single
    assert one.ids.tolist() == other.ids.tolist()
    assert one.distances.tobytes() == other.distances.tobytes()


@pytest.mark.parametrize("options", [{"exact": True}, {"recall": 0.9}, {}], ids=["exact", "recall", "default"])
def test_few_are_answered_as_one_after_the_other(docs, options):
    asked = questions(24)  # two or four share filter and k: fewer than are compared by blocks
    asked[3]["query"] = asked[3]["query"].astype(np.float64)
    asked[5]["query"] = np.stack([asked[5]["query"], asked[6]["query"]])
    asked[7]["query"] = asked[7]["query"].tolist()
    found = docs.search_many(asked, **options)
    assert len(found) == len(asked)
    for question, hits in zip(asked, found, strict=True):
        question = dict(question)
        same(docs.search(question.pop("query"), **question, **options), hits)
        assert set(hits.metadata) == {"year", "lang"}


def test_many_with_one_filter_are_compared_with_all_that_passes_where_that_is_quicker(docs):
    queries = np.random.default_rng(2).standard_normal((100, DIM), np.float32)
    found = docs.search_many([{"query": query} for query in queries], where="year >= 2012", k=5, recall=0.9)
    assert "sooner than 100 walks" in found[0].plan
    for query, hits in zip(queries, found, strict=True):
        same(docs.search(query, 5, where="year >= 2012", exact=True), hits)
    walked = docs.search_many([{"query": query} for query in queries[:3]], k=5, recall=0.9)
    assert all("sooner" not in hits.plan for hits in walked)
    alone = [docs.search(query, 5, recall=0.9) for query in queries[:3]]
    for one, hits in zip(alone, walked, strict=True):
        same(one, hits)


def test_answers_do_not_depend_on_the_order(docs):
    asked = questions(120)
    turned = docs.search_many(asked[::-1])[::-1]
    for one, other in zip(docs.search_many(asked), turned, strict=True):
        same(one, other)


def test_what_fits_nothing_is_refused_or_answered_as_alone(docs):
    query = np.zeros(DIM, np.float32)
    for odd in ([], np.zeros((0, 5), np.float32)):
        with pytest.raises(nearly.DimensionError):
            docs.search(odd)
        with pytest.raises(nearly.DimensionError) as raised:
            docs.search_many([{"query": query}, {"query": odd}])
        assert "searches[1]" in "".join(raised.value.__notes__)
    empty = nearly.open()
    found = empty.search_many([{"query": np.zeros(3)}, {"query": np.zeros(4)}, {"query": np.zeros((2, 3))}])
    assert [hits.ids.tolist() for hits in found] == [[], [], [[-1] * 10] * 2]


@pytest.mark.parametrize("recall", [2.0, "much"])
def test_a_wrong_recall_of_many_is_refused(docs, recall):
    asked = [{"query": query, "where": "year >= 2012"} for query in np.zeros((20, DIM), np.float32)]
    with pytest.raises(nearly.InputError, match="recall"):
        docs.search_many(asked, recall=recall)


def test_a_target_beyond_the_graph_keeps_its_reason():
    vectors = np.random.default_rng(3).standard_normal((3000, DIM), np.float32)
    index = nearly.Vamana(vectors)
    plan = index.search_many(vectors[:64], 10, where=np.arange(1500), recall=1.0).plan
    assert plan == index.search(vectors[:64], 10, where=np.arange(1500), recall=1.0).plan
    assert "beyond the graph" in plan
    assert index.search_many(vectors[:16], 300_000, where=np.arange(300)).ids.shape == (16, 1 << 16)


@pytest.mark.parametrize(("one", "other"), [({"k": 1}, {"k": True}), ({"recall": 1.0}, {"recall": True})])
def test_what_python_calls_equal_is_read_by_itself(docs, one, other):
    query = np.zeros(DIM)
    assert len(docs.search_many([{"query": query, **one}])) == 1
    with pytest.raises(nearly.InputError) as caught:
        docs.search_many([{"query": query, **one}, {"query": query, **other}])
    assert "searches[1]" in str(caught.value.__notes__)


def test_answers_of_a_batch_name_their_own_rows(docs):
    queries = np.random.default_rng(5).standard_normal((6, DIM), np.float32)
    where = "year = 1990 AND lang = 'en' AND year < 1991"
    batch = docs.search(queries, 200, where=where)
    assert (batch.counts < 200).all()  # so that single answers are shorter than their row of the batch
    for query, one, at in zip(queries, batch, range(6), strict=True):
        same(docs.search(query, 200, where=where), one)
        same(batch[at : at + 2][0], one)
        assert batch[at].ids[2:4].tolist() == [hit.id for hit in one[2:4]]


def test_nothing_asked_is_nothing_found(docs):
    assert docs.search_many([]) == []
    (none,) = docs.search_many([{"query": np.zeros(DIM, np.float32), "where": "year = 1800"}])
    assert none.ids.tolist() == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"query": np.full(DIM, np.nan, np.float32)}, "finite"),
        ({"query": np.zeros(DIM + 1, np.float32)}, "dim"),
        ({"query": "words"}, "queries"),
        ({"k": 0}, "k is 0"),
        ({"where": "nothing = 1"}, "nothing"),
        ({"where": "year >"}, "year"),
        ({"recall": 2.0}, "recall"),
        ({"field": "other"}, "other"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_error_says_which_search_it_is_about(docs, wrong, message):
    asked = questions(8)
    asked[4] = {**asked[4], **wrong}
    with pytest.raises(nearly.InputError, match=message) as raised:
        docs.search_many(asked)
    assert "searches[4]" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("refine", ["memory", "disk"])
def test_few_vectors_are_read_for_a_scan(refine):
    vectors = np.random.default_rng(3).standard_normal((3000, DIM), np.float32)
    index = nearly.Vamana(vectors, refine=refine)
    hits = index.search_many(vectors[:64], 10, where=np.arange(1500))
    assert "scan by 8-bit codes" in hits.plan
    assert hits.stats.n_reranked < 64 * 100
