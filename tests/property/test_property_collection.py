"""A collection against a plain dict, with closing and opening it again as an action.

Vectors lie on a small grid, so that distances are exact and ties are many. Limits are tiny, so that a few rows fill the
tail, make segments of their own past the log, become graphs and are merged.
"""

import datetime as dt
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import nearly
from nearly.collection.writing import Limits

DIM = 3
TYPES = {"year": "int", "lang": "str", "day": "date", "tags": "list[str]", "score": "float"}
SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a disk would be waited for at every commit

coordinates = st.integers(-2, 2)
vector = st.tuples(*[coordinates] * DIM)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "year": st.none() | st.integers(2000, 2004),
        "lang": st.sampled_from([None, "de", "en", "日本", ""]),
        "day": st.none() | st.dates(dt.date(1999, 12, 30), dt.date(2000, 1, 3)),
        "tags": st.none() | st.lists(st.sampled_from(["a", "b", "ä"]), max_size=2),
        "score": st.none() | st.sampled_from([0.5, -1.25, 1e300]),
    },
)
document = st.none() | st.text(max_size=4) | st.binary(max_size=3)
row = st.tuples(vector, metadata, document)


def columns(rows: list[Any]) -> dict[str, list[Any]]:
    names = sorted({name for _, values, _ in rows for name in values})
    return {name: [values.get(name) for _, values, _ in rows] for name in names}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class Machine(RuleBasedStateMachine):
    """A collection, and a dict that says what it holds."""

    in_memory = False
    texts = True  # keys are str

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=SHM))
        self.held: dict[Any, Any] = {}
        self.next_id = 0
        self.readers: list[Any] = []

    def key(self, number: int) -> Any:
        return f"key {number}" if self.texts else number

    def teardown(self) -> None:
        for reader, _ in self.readers:
            reader.close()
        self.docs.close()
        shutil.rmtree(self.folder)

    def open(self) -> None:
        path = None if self.in_memory else self.folder / "docs"
        self.docs = nearly.open(path, metric="l2", background=False, durable=False)
        self.docs._writer.limits = Limits(tail_rows=12, draft_rows=10)

    @initialize()
    def begin(self) -> None:
        self.open()
        self.docs.add(
            np.zeros((1, DIM)), ids=[self.key(0)],
            metadata={"year": [2000], "lang": ["de"], "day": [dt.date(2000, 1, 1)], "tags": [["a"]], "score": [0.5]},
        )  # fmt: skip
        self.held[self.key(0)] = (
            (0, 0, 0), {"year": 2000, "lang": "de", "day": dt.date(2000, 1, 1), "tags": ["a"], "score": 0.5}, None,
        )  # fmt: skip
        self.next_id = 1

    # -- changes -----------------------------------------------------------------------------------------------------

    @rule(rows=st.lists(row, min_size=1, max_size=16))
    def add(self, rows: list[Any]) -> None:
        keys = [self.key(self.next_id + i) for i in range(len(rows))]
        self.next_id += len(rows)
        vectors = np.array([v for v, _, _ in rows], np.float32)
        documents = [d for _, _, d in rows]
        given = keys if self.texts else None
        assert self.docs.add(vectors, ids=given, metadata=columns(rows), documents=documents) == keys
        self.held |= {key: (v, plain(m), d) for key, (v, m, d) in zip(keys, rows, strict=True)}

    @rule(rows=st.lists(row, min_size=1, max_size=14), data=st.data())
    def upsert(self, rows: list[Any], data: Any) -> None:
        numbers = data.draw(
            st.lists(st.integers(0, self.next_id + 14), min_size=len(rows), max_size=len(rows), unique=True)
        )
        keys = [self.key(number) for number in numbers]
        self.next_id = max(self.next_id, max(numbers) + 1)
        vectors = np.array([v for v, _, _ in rows], np.float32)
        self.docs.upsert(vectors, ids=keys, metadata=columns(rows), documents=[d for _, _, d in rows])
        self.held |= {key: (v, plain(m), d) for key, (v, m, d) in zip(keys, rows, strict=True)}

    def some(self, data: Any, most: int = 8) -> list[Any]:
        return data.draw(st.lists(st.sampled_from(sorted(self.held)), min_size=1, max_size=most, unique=True))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), year=st.none() | st.integers(2000, 2004))
    def update_metadata(self, data: Any, year: int | None) -> None:
        keys = self.some(data)
        assert self.docs.update(keys, metadata={"year": year}) == len(keys)
        for key in keys:
            v, m, d = self.held[key]
            self.held[key] = v, plain({**m, "year": year}), d

    @precondition(lambda self: self.held)
    @rule(data=st.data(), v=vector)
    def update_vector(self, data: Any, v: Any) -> None:
        (key,) = self.some(data, most=1)
        self.docs.update(key, vectors=np.array([v], np.float32))
        self.held[key] = (v, *self.held[key][1:])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        keys = self.some(data)
        assert self.docs.delete(keys) == len(keys)
        for key in keys:
            del self.held[key]

    @rule(year=st.integers(2000, 2004))
    def delete_where(self, year: int) -> None:
        gone = [key for key, (_, m, _) in self.held.items() if m.get("year") == year]
        assert self.docs.delete(where={"year": year}) == len(gone)
        for key in gone:
            del self.held[key]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def refuse(self, data: Any) -> None:
        keys = self.some(data, most=1)
        with pytest.raises(nearly.IdError, match="taken"):
            self.docs.add(np.zeros((2, DIM)), ids=[*keys, self.key(self.next_id)])
        with pytest.raises(nearly.IdError, match="not in this collection"):
            self.docs.delete([*keys, self.key(self.next_id)])
        with pytest.raises(nearly.InputError, match="holds int"):
            self.docs.upsert(np.zeros((1, DIM)), ids=keys, metadata={"year": ["late"]})

    @rule()
    def flush(self) -> None:
        self.docs.flush()

    @rule()
    def compact(self) -> None:
        self.docs.compact()
        stats = self.docs.stats()
        layout = self.docs._state.layout
        assert len(stats.segments) <= (1 if layout is None else layout.n_leaves)
        assert stats.deleted == 0

    @rule(years=st.lists(st.integers(2000, 2004), min_size=1, max_size=6), v=st.none() | vector, at=st.integers(1, 6))
    def partition_for(self, years: list[int], v: Any, at: int) -> None:
        wheres = [{"year": {"$gt": year}} if i % 2 else {"lang": {"$in": ["de", ""]}} for i, year in enumerate(years)]
        workload = wheres if v is None else [(np.array(v, np.float32), where) for where in (*wheres, None)]
        found = self.docs.partition_for(workload, min_rows=at, max_parts=4)
        assert sum(found.rows) == len(self.held)
        if found.applied:
            assert sorted(found.rows) == sorted(self.docs.stats().segments)
            assert min(found.rows) >= at

    @rule()
    def forget_layout(self) -> None:
        assert self.docs.partition_for(None) is None
        assert self.docs.stats().promised is None

    @precondition(lambda self: not self.in_memory)
    @rule()
    def reopen(self) -> None:
        self.docs.close()
        self.open()

    @precondition(lambda self: not self.in_memory)
    @rule()
    def reader(self) -> None:
        if not self.readers:
            self.readers.append((nearly.open(self.folder / "docs", mode="r"), None))
        docs, _ = self.readers[0]
        docs.refresh()
        self.same_rows(docs)

    # -- what it holds -----------------------------------------------------------------------------------------------

    def same_rows(self, docs: Any) -> None:
        rows = docs.get(include=["metadata", "document", "vector"])
        found = {r.id: (tuple(r.vector.tolist()), plain(r.metadata), r.document) for r in rows}
        assert len(found) == len(rows) == len(docs)
        assert found == self.held

    @invariant()
    def holds_the_same(self) -> None:
        type(self).TestCase.steps += 1  # after each
        if hasattr(self, "docs"):
            self.same_rows(self.docs)

    @rule(v=vector, k=st.integers(1, 12), year=st.none() | st.integers(2000, 2004), lang=st.booleans())
    def search(self, v: Any, k: int, year: int | None, lang: bool) -> None:
        where: dict[str, Any] = {} if year is None else {"year": {"$gte": year}}
        where |= {"lang": {"$exists": True}} if lang else {}
        passing = {
            key: (held, m, d)
            for key, (held, m, d) in self.held.items()
            if (year is None or m.get("year", 0) >= year) and (not lang or "lang" in m)
        }
        far = {key: np.linalg.norm(np.subtract(held, v)) for key, (held, _, _) in passing.items()}
        hits = self.docs.search(np.array(v, np.float32), k=k, where=where or None, exact=True)
        np.testing.assert_allclose(hits.distances, sorted(far.values())[:k], rtol=1e-6)
        np.testing.assert_allclose(hits.distances, [far[key] for key in hits.ids.tolist()], rtol=1e-6)
        assert len(set(hits.ids.tolist())) == len(hits) == min(k, len(passing))
        assert [m or 0 for m in hits.metadata["year"]] == [passing[i][1].get("year", 0) for i in hits.ids.tolist()]
        assert hits.documents.tolist() == [passing[i][2] for i in hits.ids.tolist()]
        assert self.docs.count(where or None) == len(passing)
        again = self.docs.search(np.array(v, np.float32), k=k, where=where or None, exact=True, after=hits.cursor)
        assert not set(again.ids.tolist()) & set(hits.ids.tolist())
        np.testing.assert_allclose(again.distances, sorted(far.values())[k : 2 * k], rtol=1e-6)

    @rule(v=vector, radius=st.integers(0, 3))
    def range_search(self, v: Any, radius: int) -> None:
        far = {key: np.linalg.norm(np.subtract(held, v)) for key, (held, _, _) in self.held.items()}
        hits = self.docs.range_search(np.array(v, np.float32), radius + 0.1)
        assert sorted(hits.ids.tolist()) == sorted(key for key, d in far.items() if d <= radius + 0.1)

    @rule()
    def verify(self) -> None:
        assert self.docs.verify().rows == len(self.held)


class Integers(Machine):
    texts = False


class InMemory(Machine):
    in_memory = True


for machine in (Machine, Integers, InMemory):
    machine.TestCase.settings = settings(max_examples=4, stateful_step_count=25, deadline=None)
    machine.TestCase.steps = 0
    machine.TestCase.pytestmark = [pytest.mark.xdist_group(machine.__name__)]  # in the long form each takes minutes
TestTexts, TestIntegers, TestInMemory = Machine.TestCase, Integers.TestCase, InMemory.TestCase
