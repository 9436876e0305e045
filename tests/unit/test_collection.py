"""What a collection does for its user, in memory: writing, reading, searching, and what it refuses."""

import asyncio
import datetime as dt
import inspect
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nearly
from nearly.collection import Collection, Field
from nearly.collection.writing import Limits

DIM = 6


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((30, DIM), dtype=np.float32)


@pytest.fixture
def docs(vectors):
    """Thirty rows, ten of each language, every third without a score."""
    made = nearly.open(metric="l2", background=False)
    made.add(
        vectors,
        ids=[f"k{i}" for i in range(30)],
        metadata={
            "year": list(range(1990, 2020)),
            "lang": [("de", "en", "日本")[i % 3] for i in range(30)],
            "score": [None if i % 3 == 0 else i / 2 for i in range(30)],
        },
        documents=[None if i == 4 else f"text {i}" if i % 2 else bytes([i]) for i in range(30)],
    )
    return made


# -- writing ---------------------------------------------------------------------------------------------------------


def test_keys_continue_after_the_largest_ever_given(vectors):
    docs = nearly.open()
    assert docs.add(vectors[:3]) == [0, 1, 2]
    assert docs.add(vectors[3:4], ids=[7]) == [7]
    docs.delete(7)
    assert docs.add(vectors[4:6]) == [8, 9]


def test_add_refuses_keys_that_are_there_and_writes_nothing(docs, vectors):
    with pytest.raises(nearly.IdError, match="2 of the ids are taken: k3, k5"):
        docs.add(vectors[:3], ids=["k3", "new", "k5"])
    assert len(docs) == 30
    assert "new" not in docs
    with pytest.raises(nearly.IdError, match="distinct, but a came more than once"):
        docs.add(vectors[:2], ids=["a", "a"])


def test_upsert_replaces_the_whole_row(docs, vectors):
    docs.upsert(vectors[:2] + 1, ids=["k1", "new"], metadata={"year": [1, 2]})
    row = docs.get("k1", include=["metadata", "document", "vector"])
    assert row.metadata == {"year": 1, "lang": None, "score": None}
    assert row.document is None
    np.testing.assert_array_equal(row.vector, vectors[0] + 1)
    assert len(docs) == 31


def test_update_changes_what_it_names(docs, vectors):
    assert docs.update(["k1", "k2"], metadata={"year": [1, None]}) == 2
    assert docs.get("k1").metadata == {"year": 1, "lang": "en", "score": 0.5}
    assert docs.get("k2").metadata == {"year": None, "lang": "日本", "score": 1.0}
    docs.update("k3", vectors=vectors[:1] * 3, documents=["other"], metadata={"lang": ["fr"]})
    row = docs.get("k3", include=["metadata", "document", "vector"])
    assert (row.metadata["year"], row.metadata["lang"], row.document) == (1993, "fr", "other")
    np.testing.assert_array_equal(row.vector, vectors[0] * 3)
    assert docs.update(where="lang = 'fr'", metadata={"year": 5}) == 1
    assert docs.count("year = 5") == 1


def test_update_of_metadata_writes_no_vector(docs):
    docs.flush()
    index = docs._state.segments[0].source.index("vector")
    docs.update("k1", metadata={"year": [3000]})
    docs.flush()
    assert docs._state.segments[0].source.index("vector") is index
    assert docs.search(np.zeros(DIM), 30, where="year = 3000").ids.tolist() == ["k1"]


def test_delete_by_keys_and_by_filter(docs):
    assert docs.delete("k0") == 1
    assert docs.delete(where={"lang": "de"}) == 9
    assert len(docs) == 20
    with pytest.raises(nearly.IdError, match="1 of 2 ids are not in this collection: k0"):
        docs.delete(["k1", "k0"])
    assert "k1" in docs
    with pytest.raises(nearly.InputError, match="one of them"):
        docs.delete()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metadata": {"year": [1.5]}}, "holds int"),
        ({"metadata": {"year": [1, 2]}}, "2 values, but there are 1 rows"),
        ({"metadata": {"document": ["x"]}}, "cannot be named 'document'"),
        ({"metadata": {"vector": ["x"]}}, "cannot be named 'vector'"),
        ({"metadata": "year"}, "a dict of columns"),
        ({"documents": ["a", "b"]}, "2 entries, but there are 1 rows"),
        ({"documents": [5]}, "str, bytes or None"),
        ({"ids": [5]}, "the keys of this collection are str"),
        ({"ids": ["a", "b"]}, "2 ids, but there are 1 rows"),
        ({"ids": ["\ud800"]}, "not valid Unicode"),
        ({"ids": None}, "pass ids="),
    ],
)
def test_wrong_rows_change_nothing(docs, arguments, message):
    with pytest.raises(nearly.InputError, match=message):
        docs.add(np.zeros((1, DIM)), **{"ids": ["new"], **arguments})
    assert len(docs) == 30
    assert docs.columns == {"year": "int", "lang": "str", "score": "float"}


@pytest.mark.parametrize("wrong", [np.zeros((1, DIM + 1)), np.full((1, DIM), np.nan), np.zeros(DIM), "nothing"])
def test_wrong_vectors_change_nothing(docs, wrong):
    with pytest.raises((nearly.InputError, FileNotFoundError)):
        docs.add(wrong, ids=["new"])
    assert len(docs) == 30


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("update", {"ids": "k1", "metadata": 5}, "metadata is 5"),
        ("update", {"ids": "k1", "metadata": "x"}, "metadata is 'x'"),
        ("update", {"ids": {"k1", "k2"}, "metadata": {"year": [1, 2]}}, "no order"),
        ("add", {"rows": np.ones((2, DIM)), "ids": {"a", "b"}}, "no order"),
        ("add", {"rows": np.ones((2, DIM)), "ids": ["a", "b"], "documents": {"a", "b"}}, "documents is a set"),
        ("add", {"rows": np.ones((2, DIM)), "ids": ["a", "b"], "metadata": {5: [1, 2], "5": [3, 4]}}, "one name"),
        ("search", {"query": np.ones(DIM), "include": [["year"]]}, "include names"),
        ("search", {"query": np.ones(DIM), "include": ["document"]}, "documents are hits.documents"),
        ("get", {"ids": "k1", "include": [["year"]]}, "include holds a list"),
        ("search_many", {"searches": 5}, "searches is 5"),
        ("count", {"where": "YEAR > 1"}, "did you mean 'year'"),
        ("count", {"where": 'lang = "de"'}, "in single quotes"),
        ("count", {"where": "id = 'k1'"}, "keys are for get"),
    ],
)  # fmt: skip
def test_wrong_arguments_say_what_to_do(docs, verb, arguments, message):
    with pytest.raises(nearly.InputError, match=message):
        getattr(docs, verb)(**arguments)
    assert len(docs) == 30
    assert docs.get("k1").metadata["year"] == 1991


def test_names_of_other_libraries_are_answered_with_ours(docs):
    for name in ("top_k", "n_results", "limit"):
        with pytest.raises(TypeError, match="use k="):
            docs.search(np.ones(DIM), **{name: 3})
    for name in ("ef", "nprobe", "effort"):
        with pytest.raises(TypeError, match="use recall="):
            docs.search(np.ones(DIM), **{name: 3})


def test_values_that_hold_themselves_are_refused(docs):
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(nearly.InputError, match="holds itself"):
        docs.update("k1", metadata={"extra": [endless]})


def test_values_nested_without_end_are_refused(docs):
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(nearly.InputError, match="lists in lists"):
        docs.add(np.zeros((1, DIM)), ids=["new"], metadata={"deep": [deep]})
    assert "new" not in docs


def test_long_keys_are_shortened_in_messages(docs):
    with pytest.raises(nearly.IdError, match=r"not in this collection: x{77}\.\.\.$"):
        docs.get("x" * 100_000)


def test_half_a_surrogate_pair_is_no_key(docs):
    assert "\ud800" not in docs


def test_columns_may_come_later_and_types_stay(docs, vectors):
    docs.flush()
    day = dt.date(2020, 2, 29)
    docs.add(vectors[:1], ids=["new"], metadata={"day": [day], "tags": [["a", "b"]], "extra": [{"x": [1, None]}]})
    assert docs.columns["day"] == "date"
    assert docs.columns["tags"] == "list[str]"
    assert docs.columns["extra"] == "json"
    docs.flush()
    docs.compact()
    assert docs.get("k1").metadata["day"] is None
    assert docs.get("new").metadata == {
        "year": None, "lang": None, "score": None, "day": day, "tags": ["a", "b"], "extra": {"x": [1, None]},
    }  # fmt: skip
    assert docs.count("day IS NULL") == 30
    assert docs.count({"tags": {"$contains": "b"}}) == 1


def test_types_may_be_declared(tmp_path):
    path = tmp_path / "docs"
    with nearly.open(path, columns={"year": "float", "note": "json"}, durable=False) as docs:
        docs.add(np.zeros((1, 2)), ids=["a"], metadata={"year": [2000], "note": ["text"]})
        assert docs.columns == {"year": "float", "note": "json"}
    with nearly.open(path, columns={"year": "float", "day": "date"}) as docs:
        assert docs.columns == {"year": "float", "note": "json", "day": "date"}
        assert docs.get("a").metadata == {"year": 2000.0, "note": "text", "day": None}
    with nearly.open(path, mode="r") as docs:
        assert docs.columns["day"] == "date"
    with pytest.raises(nearly.InputError, match="holds float, not int"):
        nearly.open(path, columns={"year": "int"})
    with pytest.raises(nearly.InputError, match="choose one of bool, int"):
        nearly.open(columns={"year": "number"})


def test_moments_are_stored_in_utc(docs, vectors):
    zone = dt.timezone(dt.timedelta(hours=2))
    docs.add(vectors[:1], ids=["new"], metadata={"at": [dt.datetime(2020, 1, 1, 1, tzinfo=zone)]})
    assert docs.get("new").metadata["at"] == dt.datetime(2019, 12, 31, 23)


def test_large_batches_go_past_the_log(docs, rng):
    docs._writer.limits = Limits(tail_rows=50, draft_rows=100)
    many = rng.standard_normal((400, DIM), dtype=np.float32)
    docs.upsert(many, ids=[f"k{i}" for i in range(20, 420)], metadata={"year": [7] * 400})
    assert len(docs) == 420
    assert len(docs._state.segments) == 1
    assert docs._state.segments[0].source.draft
    assert docs.get("k25").metadata["year"] == 7
    docs.flush()
    assert not any(part.source.draft for part in docs._state.segments)
    assert docs.search(many[9], 1).ids.tolist() == ["k29"]


# -- forms of input --------------------------------------------------------------------------------------------------


def table(n=5):
    return {
        "key": [f"k{i}" for i in range(n)],
        "emb": [[float(i), 1.0] for i in range(n)],
        "text": [f"text {i}" for i in range(n)],
        "year": [None if i == 2 else 2000 + i for i in range(n)],
        "tags": [["a"] * i for i in range(n)],
    }


def as_dicts(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_pandas(columns):
    import pandas as pd

    return pd.DataFrame({**columns, "year": pd.array(columns["year"], dtype="Int64")})


def as_polars(columns):
    import polars as pl

    return pl.DataFrame(columns)


FORMS = {
    "columns": lambda columns: columns,
    "dicts": as_dicts,
    "pandas": as_pandas,
    "polars": as_polars,
    "lazy": lambda columns: as_polars(columns).lazy(),
    "arrow": pa.table,
    "reader": lambda columns: pa.table(columns).to_reader(max_chunksize=2),
    "generator of dicts": lambda columns: iter(as_dicts(columns)),
    "generator of tables": lambda columns: iter([pa.table(columns).slice(0, 3), as_dicts(columns)[3:]]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_gives_the_same(form):
    docs = nearly.open()
    assert docs.add(FORMS[form](table()), id="key", vector="emb", document="text") == table()["key"]
    assert docs.columns == {"year": "int", "tags": "list[str]"}
    row = docs.get("k3", include=["metadata", "document", "vector"])
    assert (row.metadata, row.document, row.vector.tolist()) == (
        {"year": 2003, "tags": ["a"] * 3},
        "text 3",
        [3.0, 1.0],
    )
    assert docs.get("k2").metadata["year"] is None


@pytest.mark.parametrize("arrow", [True, False], ids=["by pyarrow", "by duckdb"])
def test_a_parquet_file_is_read_in_batches(tmp_path, monkeypatch, arrow):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(table()), path)
    if not arrow:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    docs, told = nearly.open(), []
    docs.add(path, id="key", vector="emb", document="text", progress=lambda done, total: told.append(done))
    assert (len(docs), told) == (5, [5])
    assert docs.get("k4").metadata == {"year": 2004, "tags": ["a"] * 4}


@pytest.mark.parametrize("n", [0, 5, 6000], ids=["none", "by the log", "past the log"])
def test_progress_is_told_of_rows_that_come_at_once(n):
    docs, told = nearly.open(), []
    docs.add(np.eye(n or 1, 4)[:n], progress=lambda *done: told.append((*done, len(docs))))
    docs.upsert(np.eye(n or 1, 4)[:n], ids=np.arange(n), progress=lambda *done: told.append((*done, len(docs))))
    assert told == [(n, n, n)] * 2


IDS = {
    "arrow": lambda ids: pa.array(ids),
    "chunks": lambda ids: pa.chunked_array([ids[:1], ids[1:]]),
    "dictionary": lambda ids: pa.array(ids).dictionary_encode(),
    "generator": lambda ids: (each for each in ids),
    "keys of a dict": lambda ids: dict.fromkeys(ids).keys(),
}


@pytest.mark.parametrize("form", IDS)
def test_every_form_of_ids_and_columns_gives_the_same(form):
    docs, make = nearly.open(), IDS[form]
    texts = ["b", "a", "ü"]
    assert docs.add(np.eye(3), ids=make(texts), metadata={"lang": make(texts)}, documents=make(texts)) == texts
    assert docs.get(make(texts[1:])).documents.tolist() == ["a", "ü"]
    assert docs.get("ü").metadata == {"lang": "ü"}
    assert docs.update(make(texts[:2]), metadata={"lang": make(["x", "y"])}) == 2
    assert docs.upsert(np.eye(3), ids=make(texts)) == texts
    assert docs.delete(make(texts)) == 3
    numbers = nearly.open()
    assert numbers.add(np.eye(3), ids=make([7, 5, 6])) == [7, 5, 6]
    assert numbers.get(make([5])).ids.tolist() == [5]


def test_documents_are_str_and_bytes_of_python():
    docs = nearly.open()
    docs.add(np.eye(2), documents=np.array([b"x", b"y"]))
    assert {type(each) for each in docs.get().documents} == {bytes}


def test_no_rows_need_no_keys(docs):
    assert docs.add(np.zeros((0, DIM))) == []
    assert docs.add([]) == []


@pytest.mark.parametrize(
    ("ids", "message"), [([1, "a"], r"ids\[1\] is 'a'"), ([2**63, 1], r"ids\[0\] is 9223372036854775808")]
)
def test_the_key_that_does_not_fit_is_named(ids, message):
    with pytest.raises(nearly.IdError, match=message):
        nearly.open().add(np.eye(2), ids=ids)


def test_a_missing_vector_column_is_named():
    with pytest.raises(nearly.InputError, match=r"no column 'vector'.*key, emb, text, year, tags"):
        nearly.open().add(pa.table(table()), id="key")
    with pytest.raises(FileNotFoundError, match="no file"):
        nearly.open().add("missing.parquet")


def test_several_fields_have_their_own_metric():
    docs = nearly.open(fields={"title": Field(metric="cosine"), "body": Field(metric="ip", dtype="float16")})
    docs.add({"title": [[1, 0], [0, 2]], "body": [[1, 2, 3], [3, 2, 1]]}, ids=["a", "b"])
    assert docs.search([0, 1], 1, field="title").ids.tolist() == ["b"]
    assert docs.search([0, 0, 1], 1, field="body").ids.tolist() == ["a"]
    with pytest.raises(nearly.InputError, match="pass field="):
        docs.search([0, 1])
    with pytest.raises(nearly.InputError, match="no vectors for body"):
        docs.add({"title": [[1, 0]]}, ids=["c"])
    docs.update("a", vectors={"title": [[0, 5]]})
    assert docs.get("a", include=["body"]).vector.tolist() == [1, 2, 3]


def test_vectors_of_several_fields_are_read_together():
    docs = nearly.open(fields={"title": Field(), "body": Field()})
    docs.add({"title": [[1, 0], [0, 2]], "body": [[1, 2, 3], [3, 2, 1]]}, ids=["a", "b"])
    rows = docs.get(include=["title", "body"])
    assert {name: vector.tolist() for name, vector in rows[1].vector.items()} == {"title": [0, 2], "body": [3, 2, 1]}
    assert rows.to_arrow().schema.names == ["id", "title", "body"]
    copy = nearly.open(fields={"title": Field(), "body": Field()})
    copy.add(rows.to_arrow())
    assert copy.search([3, 2, 1], 1, field="body").ids.tolist() == ["b"]


def test_a_stream_of_small_batches_does_not_wait_for_graphs(rng):
    docs = nearly.open(background=False)
    docs._writer.limits = Limits(tail_rows=40, draft_rows=30)
    vectors = rng.standard_normal((150, 4), dtype=np.float32)
    docs.add({"vector": vectors[i : i + 15]} for i in range(0, 150, 15))
    assert sum(part.source.draft for part in docs._state.segments) > 1
    assert docs.search(vectors[7], 1).ids.tolist() == [7]
    docs.flush()
    assert not any(part.source.draft for part in docs._state.segments)
    assert docs.search(vectors[7], 1).ids.tolist() == [7]


# -- searching -------------------------------------------------------------------------------------------------------


def test_answers_join_rows_when_asked(docs, vectors):
    hits = docs.search(vectors[:2], k=3)
    assert hits.ids[:, 0].tolist() == ["k0", "k1"]
    assert hits.metadata["year"][:, 0].tolist() == [1990, 1991]
    assert hits.documents[1, 0] == "text 1"
    assert hits[1].metadata["lang"][0] == "en"
    frame = hits.to_pandas()
    assert frame.columns.tolist() == ["query", "rank", "id", "distance", "score", "year", "lang", "metadata.score"]
    assert len(frame) == 6
    assert docs.search(vectors[0], include=["lang"]).metadata.keys() == {"lang"}
    with pytest.raises(nearly.InputError, match="include names nothing"):
        docs.search(vectors[0], include=["nothing"])


def test_full_k_under_filters_and_the_true_number_where_fewer_match(docs, vectors):
    docs.flush()
    docs.add(vectors[:3] + 0.1, ids=["a", "b", "c"], metadata={"year": [2000, 2000, 1]})
    for where, n in [("year = 2000", 3), ({"year": {"$gte": 2015}}, 5), (nearly.F.lang == "fr", 0)]:
        hits = docs.search(vectors[:4], k=10, where=where)
        assert hits.counts.tolist() == [n] * 4 == [docs.count(where)] * 4
        assert f"{n} of 33 rows pass" in hits.plan or n == 0
    assert docs.search(vectors[0], 5, where="year = $y", parameters={"y": 1}).ids.tolist() == ["c"]
    with pytest.raises(nearly.InputError, match="where names yeer, but the columns of this collection are: year"):
        docs.search(vectors[0], where="yeer = 1")


def test_an_answer_after_a_change_is_of_its_own_moment(docs, vectors):
    hits = docs.search(vectors[3], 1)
    docs.upsert(vectors[:1], ids=["k3"], metadata={"year": [0]})
    docs.compact()
    assert hits.ids.tolist() == ["k3"]
    assert hits.metadata["year"].tolist() == [1993]


def test_pages_show_every_row_once(docs, vectors):
    docs.upsert(np.tile(vectors[:1], (12, 1)), ids=[f"same {i}" for i in range(12)])
    seen, after = [], None
    while True:
        page = docs.search(vectors[0], 4, exact=True, after=after)
        seen += page.ids.tolist()
        if not len(page):
            break
        after = page.cursor
        docs.flush()
    assert len(seen) == len(set(seen)) == 42
    with pytest.raises(nearly.InputError, match="another query"):
        docs.search(vectors[1], 4, after=after)
    with pytest.raises(nearly.InputError, match="no cursor"):
        docs.search(vectors[0], 4, after="x")


def test_pages_are_stable_under_writes(docs, vectors):
    first = docs.search(vectors[0], 5, exact=True)
    rest = docs.search(vectors[0], 25, exact=True, after=first.cursor).ids.tolist()
    docs.delete(first.ids.tolist()[:2])
    docs.add(vectors[:1], ids=["nearer"])
    docs.compact()
    assert docs.search(vectors[0], 25, exact=True, after=first.cursor).ids.tolist() == rest


def test_range_search_and_search_many(docs, vectors):
    docs.flush()
    docs.add(vectors[:1] + 10, ids=["far"])
    near = docs.range_search(vectors[:2], 0.5, where="year < 1991")
    assert near.ids.tolist() == ["k0"]
    assert near.counts.tolist() == [1, 0]
    found = docs.search_many([{"query": vectors[0], "where": "lang = 'en'"}, {"query": vectors[1], "k": 1}], exact=True)
    assert found[1].ids.tolist() == ["k1"]
    assert set(found[0].metadata["lang"]) == {"en"}
    with pytest.raises(TypeError, match="top_k"):
        docs.search_many([{"query": vectors[0], "top_k": 3}])
    with pytest.raises(TypeError, match="top_k"):
        docs.search(vectors[0], top_k=3)


def test_explain(docs, vectors):
    docs.flush()
    assert docs.explain(vectors[0], "k0").rank == 1
    assert docs.explain(vectors[0], "k0").found
    far = docs.search(vectors[0], 30, exact=True).ids.tolist()[20]
    told = docs.explain(vectors[0], far, k=5)
    assert (told.rank, told.found) == (21, False)
    assert "20 rows are nearer" in told.reason
    assert "excludes it" in docs.explain(vectors[0], "k0", where="year > 2000").reason
    docs.delete("k0")
    assert "deleted" in docs.explain(vectors[0], "k0").reason


def test_reading(docs):
    assert [row.id for row in docs.get(["k5", "k1", "k5"])] == ["k5", "k1", "k5"]
    assert docs.get("k3", include=["year"]).metadata == {"year": 1993}
    assert docs.get(where="lang = 'de'", limit=2, offset=1).ids.tolist() == ["k3", "k6"]
    assert [len(rows) for rows in docs.scan(12)] == [12, 12, 6]
    assert docs.get(["k4", "k1", "k2"]).documents.tolist() == [None, "text 1", b"\x02"]
    assert sum((rows.to_pandas()["year"].sum() for rows in docs.scan(7)), 0) == sum(range(1990, 2020))
    with pytest.raises(nearly.InputError, match="include names 'yeer'"):
        docs.get("k3", include=["yeer"])


def test_a_scan_sees_one_moment(docs):
    batches = docs.scan(10)
    first = next(batches)
    docs.delete(where="year >= 2000")
    docs.compact()
    assert len(first) + sum(map(len, batches)) == 30


def test_async_twins(docs, vectors):
    async def work():
        await docs.aadd(vectors[:1], ids=["new"])
        await docs.aupsert(vectors[:1], ids=["new"], metadata={"year": [1]})
        await docs.aupdate("new", metadata={"year": [2]})
        row = await docs.aget("new")
        hits, near, (many,) = await asyncio.gather(
            docs.asearch(vectors[0], 2), docs.arange_search(vectors[0], 0.1), docs.asearch_many([{"query": vectors[0]}])
        )
        await docs.adelete("new")
        return row.metadata["year"], set(hits.ids), set(near.ids), len(many)

    assert asyncio.run(work()) == (2, {"k0", "new"}, {"k0", "new"}, 10)


def test_async_twins_of_reading_and_upkeep(tmp_path, vectors):
    async def work(docs):
        await docs.aadd(vectors, metadata={"year": list(range(30))})
        assert await docs.acount("year < 7") == 7
        assert (await docs.aexplain(vectors[3], 3, k=1)).rank == 1
        await docs.aflush()
        assert (await docs.astats()).segments == (30,)
        await docs.adelete([0, 1])
        assert await docs.aerase(2) == 1
        assert (await docs.averify(erased=[2])).erased == 1
        await docs.acompact()
        assert (await docs.apartition_for(["year = 7"], dry_run=True)).applied is False
        assert await docs.arepair() == []
        await docs.asnapshot(tmp_path / "copy")
        batches = docs.ascan(10, where="year < 25", include=["year"])
        first = await anext(batches)
        await docs.adelete(where="year > 5")  # the scan is of one moment
        left = [row.id async for rows in batches for row in rows]
        with pytest.raises(nearly.InputError, match="yeer"):
            await anext(docs.ascan(where="yeer = 1"))
        assert await docs.arefresh() is False
        await docs.aclose()
        return [row.id for row in first] + left

    assert asyncio.run(work(nearly.open(tmp_path / "docs"))) == list(range(3, 25))
    assert len(nearly.open(tmp_path / "copy", mode="r")) == 27


def test_every_verb_has_an_async_twin():
    verbs = {name for name, each in vars(Collection).items() if inspect.isfunction(each) and name[0] != "_"}
    verbs |= {"add", "upsert", "update", "delete"}
    twins = {name for name in verbs if name[0] == "a" and name[1:] in verbs}
    assert verbs - twins == {name[1:] for name in twins}
    for name in twins:
        verb, made = getattr(Collection, name[1:]), getattr(Collection, name)
        assert inspect.signature(made) == inspect.signature(verb)
        assert (made.__name__, f"`{name[1:]}`" in made.__doc__) == (name, True)


def test_empty_collections_answer():
    docs = nearly.open(metric="cosine")
    assert docs.search([1.0, 2.0]).ids.tolist() == []
    assert docs.search([[1.0, 2.0]] * 2, k=3).counts.tolist() == [0, 0]
    assert (len(docs), docs.count(), docs.stats().rows, docs.verify().rows, list(docs.scan())) == (0, 0, 0, 0, [])
    assert docs.add(np.zeros((0, 2))) == []
    docs.compact()


# -- many threads ----------------------------------------------------------------------------------------------------


def test_readers_see_whole_groups_while_threads_write(rng):
    """Each write puts four rows with one number; a reader must see four of each number, or none."""
    docs = nearly.open()
    docs._writer.limits = Limits(tail_rows=64, draft_rows=100)
    stop, wrong = threading.Event(), []

    def write(thread):
        for i in range(40):
            number = thread * 1000 + i
            vectors = rng.random((4, DIM), dtype=np.float32)
            docs.add(vectors, ids=[f"{number} {j}" for j in range(4)], metadata={"number": [number] * 4})
            if i % 5 == 4:
                docs.delete(where=f"number = {number - 2}")

    def read():
        while not stop.is_set():
            numbers = docs.get(include=["metadata"]).metadata.get("number", np.zeros(0, object)).tolist()
            wrong.extend(n for n in set(numbers) if numbers.count(n) != 4)
            hits = docs.search(np.zeros(DIM, np.float32), 20, exact=True)
            wrong.extend(["short"] if len(hits) < min(20, len(numbers)) else [])

    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in [*writers, *readers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    docs.flush()
    assert wrong == []
    assert len(docs) == 4 * (40 - 8) * 4
    docs.verify()


def test_threads_share_commits(rng):
    docs = nearly.open(background=False)
    groups, commit = [], docs._writer._commit

    def counting(taken):
        import time

        time.sleep(0.003)  # a disk
        commit(taken)
        groups.append(len(taken))

    docs._writer._commit = counting
    vector = rng.random((1, DIM), dtype=np.float32)

    def write(i):
        for j in range(30):
            docs.add(vector, ids=[f"{i} {j}"])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(docs) == sum(groups) == 240
    assert len(groups) < 240 / 4


def test_a_write_that_fails_does_not_harm_those_it_shares_a_commit_with(rng):
    docs = nearly.open(background=False)
    docs.add(np.zeros((1, DIM)), ids=["there"])
    failed = []

    def write(i):
        try:
            docs.add(np.zeros((1, DIM)), ids=["there" if i % 2 else f"new {i}"])
        except nearly.IdError as problem:
            failed.append(str(problem))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(docs) == 6
    assert len(failed) == 5


def test_graphs_and_fresh_rows_answer_together(rng):
    """Two graphs, one with dead rows, and a tail: single queries and batches give the true neighbors of the whole."""
    centers = rng.standard_normal((20, DIM), dtype=np.float32) * 3
    vectors = centers[rng.integers(20, size=11_300)] + rng.standard_normal((11_300, DIM), dtype=np.float32)
    docs = nearly.open(background=False)
    for first, last in ((0, 5600), (5600, 11_200)):
        docs.add(vectors[first:last], metadata={"half": [first > 0] * (last - first)})
        docs._maintenance.finish(None)
    docs.add(vectors[11_200:])
    docs.delete(np.arange(5600, 6000))
    assert [type(part.source.index("vector")).__name__ for part in docs._state.parts] == ["Vamana", "Vamana", "Flat"]
    queries = centers[:20] + rng.standard_normal((20, DIM), dtype=np.float32)
    alive = np.delete(np.arange(11_300), np.arange(5600, 6000))
    for where, rows in ((None, alive), ("half", alive[(alive >= 5600) & (alive < 11_200)])):
        far = np.linalg.norm(queries[:, None] - vectors[rows][None], axis=2)
        kth = np.sort(far, axis=1)[:, 9:10] * (1 + 1e-6)
        batch = docs.search(queries, 10, where=where)
        singles = [docs.search(query, 10, where=where) for query in queries]
        assert np.isin(batch.ids, rows).all()
        assert (batch.distances <= kth).mean() >= 0.95
        assert [hits.ids.tolist() for hits in singles] == batch.ids.tolist()
        assert 0.9 < batch.expected_recall <= 1
        assert docs.search(queries, 10, where=where, exact=True).distances[:, 9:] == pytest.approx(kth, rel=1e-5)


def test_short_floats_are_the_decimals_that_were_written():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    wanted = [8.8, None, 0.1, -2.5e-07]
    short = np.array([8.8, np.nan, 0.1, -2.5e-07], np.float32)
    forms = [
        short, [None if x != x else x for x in short], pa.array(wanted, pa.float32()),
        pa.chunked_array([pa.array(wanted[:1], pa.float32()), pa.array(wanted[1:], pa.float32())]),
        pa.chunked_array([pa.array(wanted, pa.float32()).dictionary_encode()]),
        pl.Series(wanted, dtype=pl.Float32), pd.Series(short),
    ]  # fmt: skip
    for scores in forms:
        docs = nearly.open()
        docs.add(np.eye(4), metadata={"score": scores})
        assert docs.get(include=["metadata"]).metadata["score"].tolist() == wanted
        for where in ("score = 8.8", {"score": 8.8}, nearly.F.score == np.float32(8.8), "score > 8.7 AND score <= 8.8"):
            assert docs.count(where) == 1


def test_arguments_of_others_are_told_what_they_are_called_here():
    docs = nearly.open()
    for verb in (docs.add, docs.upsert):
        with pytest.raises(TypeError, match=r"'metadatas'; use metadata="):
            verb(np.eye(2), ids=[1, 2], metadatas={})
    with pytest.raises(nearly.InputError, match=r"searches\[0\] has no 'query', but 'k'"):
        docs.search_many([{"k": 3}])


def test_short_floats_that_are_whole_numbers_stay_these_numbers():
    wanted = [2.0**30, 123456792.0, -(2.0**100), 65504.0]
    docs = nearly.open()
    docs.add(np.eye(4), metadata={"x": np.array(wanted, np.float32), "y": [np.float32(each) for each in wanted]})
    found = docs.get(include=["metadata"]).metadata
    assert found["x"].tolist() == found["y"].tolist() == wanted
    assert docs.count("x = 1073741824") == docs.count(nearly.F.y == np.float32(2**30)) == 1
    docs.add(np.eye(4)[:2], metadata={"half": np.array([65504, 0.1], np.float16)})
    assert docs.count("half = 65504") == docs.count("half = 0.1") == 1
    docs.add(np.eye(4)[:1], metadata={"n": [1]})
    docs.add(np.eye(4)[:2], metadata={"n": np.array([2**30, 123456792], np.float32)})
    assert docs.count("n = 1073741824") == docs.count("n = 123456792") == 1
