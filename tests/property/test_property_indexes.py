"""Indexes against a plain dict: whatever is added, replaced, removed, saved, the exact answer is that of the dict.

Vectors lie on a small grid, so that distances are exact on every target, ties are many, and equal vectors meet.
"""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

import nearly

DIM = 3
coordinates = st.integers(-2, 2)
vector = st.tuples(*[coordinates] * DIM)
many_vectors = st.lists(vector, min_size=1, max_size=40)
KINDS: dict[str, Any] = {
    "flat": lambda vectors, ids: nearly.Flat(vectors, ids=ids),
    "vamana": lambda vectors, ids: nearly.Vamana(vectors, ids=ids, degree=4, beam=8, quantizer=nearly.Plain()),
    "vamana-codes": lambda vectors, ids: nearly.Vamana(
        vectors, ids=ids, degree=4, beam=8, quantizer=nearly.Scalar(4, "vector")
    ),
    "ivf": lambda vectors, ids: nearly.IVF(vectors, ids=ids, lists=5, quantizer=nearly.Plain()),
    "ivf-blocks": lambda vectors, ids: nearly.IVF(vectors, ids=ids, lists=3, quantizer=nearly.Product(2, bits=4)),
    "ivf-coarse": lambda vectors, ids: nearly.IVF(
        vectors, ids=ids, lists=3, quantizer=nearly.Product(2, bits=4), coarse=nearly.Pca(2)
    ),
    "ivf-codes": lambda vectors, ids: nearly.IVF(vectors, ids=ids, lists=3, quantizer=nearly.Scalar(4, "vector")),
    "hnsw": lambda vectors, ids: nearly.HNSW(vectors, ids=ids, M=2, ef_construction=8),
}


def as_array(vectors: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(vectors, np.float32).reshape(len(vectors), DIM)


class Machine(RuleBasedStateMachine):
    """An index, and a dict that says what it holds."""

    kind = ""
    ids = Bundle("ids")  # that were given at some time

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.held: dict[int, tuple[int, ...]] = {}
        self.next_id = 0
        self.n_changes = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(target=ids, vectors=st.lists(vector, max_size=60), own=st.booleans())
    def build(self, vectors: list[tuple[int, ...]], own: bool) -> Any:
        given = [3 * i + 1 for i in range(len(vectors))][::-1] if own else None
        self.index = KINDS[self.kind](as_array(vectors), given)
        self.own = own
        return self.remember(vectors, list(range(len(vectors))) if given is None else given)

    def remember(self, vectors: list[tuple[int, ...]], ids: list[int]) -> Any:
        self.held |= dict(zip(ids, vectors, strict=True))
        self.next_id = max([self.next_id, *(i + 1 for i in ids)])
        return multiple(*ids)

    @rule(target=ids, vectors=many_vectors)
    def add(self, vectors: list[tuple[int, ...]]) -> Any:
        expected = list(range(self.next_id, self.next_id + len(vectors)))
        assert self.index.add(as_array(vectors)).tolist() == expected
        return self.remember(vectors, expected)

    @rule(target=ids, vectors=st.lists(vector, min_size=1, max_size=5), gap=st.integers(0, 5))
    def add_with_ids(self, vectors: list[tuple[int, ...]], gap: int) -> Any:
        chosen = [self.next_id + gap + 2 * i for i in range(len(vectors))][::-1]
        assert self.index.add(as_array(vectors), ids=chosen).tolist() == chosen
        self.own = True
        return self.remember(vectors, chosen)

    @rule(id=ids, point=vector)
    def add_again(self, id: int, point: tuple[int, ...]) -> None:
        if id in self.held:
            with pytest.raises(nearly.IdError):
                self.index.add(as_array([point, point]), ids=[self.next_id, id])
        else:
            self.index.add(as_array([point]), ids=[id])
            self.own = True
            self.remember([point], [id])

    @rule(target=ids, chosen=st.lists(ids, max_size=6, unique=True), new=st.booleans(), data=st.data())
    def upsert(self, chosen: list[int], new: bool, data: Any) -> Any:
        wanted = [*chosen, *([self.next_id] if new else [])]
        if not wanted:
            return multiple()
        vectors = data.draw(st.lists(vector, min_size=len(wanted), max_size=len(wanted)))
        assert self.index.upsert(as_array(vectors), ids=wanted).tolist() == wanted
        self.own = True
        self.remember(vectors, wanted)
        return multiple(*([wanted[-1]] if new else []))

    @rule(id=consumes(ids))
    def remove(self, id: int) -> None:
        if id in self.held:
            self.index.remove(id)
            del self.held[id]
        else:
            with pytest.raises(nearly.IdError):
                self.index.remove([id])

    @rule(every=st.integers(1, 4), first=st.integers(0, 3))
    def remove_many(self, every: int, first: int) -> None:
        gone = sorted(self.held)[first::every]
        self.index.remove(gone)
        for i in gone:
            del self.held[i]

    @rule()
    def consolidate(self) -> None:
        if self.kind != "flat":
            self.index.consolidate()

    @rule(verify=st.booleans())
    def save_and_load(self, verify: bool) -> None:
        self.index.save(self.folder / "a")
        before = (self.folder / "a").read_bytes()
        self.index = nearly.load(self.folder / "a", verify=verify)
        self.index.save(self.folder / "b")
        assert (self.folder / "b").read_bytes() == before

    def nearest(self, point: tuple[int, ...], allowed: set[int]) -> list[tuple[float, int]]:
        return sorted((math.dist(point, self.held[i]), i) for i in allowed & self.held.keys())

    @rule(point=vector, k=st.integers(1, 30))
    def search_exactly(self, point: tuple[int, ...], k: int) -> None:
        found = self.index.search(as_array([point])[0], k=k, exact=True)
        expected = self.nearest(point, set(self.held))[:k]
        assert found.ids.tolist() == [i for _, i in expected]
        np.testing.assert_allclose(found.distances, [d for d, _ in expected], rtol=1e-6)

    @rule(point=vector, k=st.integers(1, 12), effort=st.integers(1, 40))
    def search_with_an_effort(self, point: tuple[int, ...], k: int, effort: int) -> None:
        options = {} if self.kind == "flat" else {"effort": effort}
        found = self.index.search(as_array([point]), k=k, **options)[0]
        self.check_sound(point, found, min(k, len(self.held)))

    @rule(point=vector, chosen=st.lists(ids, max_size=8), k=st.integers(1, 6), effort=st.integers(1, 10))
    def search_some_ids(self, point: tuple[int, ...], chosen: list[int], k: int, effort: int) -> None:
        if len(chosen) > 2 and max(chosen) <= 1:
            return  # looks like a mask, and is refused
        options = {} if self.kind == "flat" else {"effort": effort}
        found = self.index.search(as_array([point])[0], k=k, where=chosen, **options)
        self.check_sound(point, found, min(k, len(set(chosen) & self.held.keys())))
        assert set(found.ids.tolist()) <= set(chosen)

    @rule(point=vector, remainder=st.integers(0, 2), k=st.integers(1, 6))
    def search_by_mask(self, point: tuple[int, ...], remainder: int, k: int) -> None:
        mask = np.arange(self.next_id) % 3 == remainder
        if self.own:
            with pytest.raises(nearly.InputError):
                self.index.search(as_array([point])[0], k=k, where=mask)
            return
        found = self.index.search(as_array([point])[0], k=k, where=mask, exact=True)
        allowed = set(range(remainder, self.next_id, 3))
        assert found.ids.tolist() == [i for _, i in self.nearest(point, allowed)[:k]]

    @rule(point=vector, square=st.integers(0, 30))
    def search_a_ball(self, point: tuple[int, ...], square: int) -> None:
        found = self.index.range_search(as_array([point])[0], math.sqrt(square + 0.5))
        expected = [i for d, i in self.nearest(point, set(self.held)) if d * d < square + 0.5]
        assert found.ids.tolist() == expected

    def check_sound(self, point: tuple[int, ...], found: Any, count: int) -> None:
        ids = found.ids.tolist()
        assert len(ids) == len(set(ids)) == count
        assert set(ids) <= self.held.keys()
        np.testing.assert_allclose(found.distances, [math.dist(point, self.held[i]) for i in ids], rtol=1e-6)
        pairs = list(zip(found.distances.tolist(), ids, strict=True))
        assert pairs == sorted(pairs)

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        if not hasattr(self, "index"):
            return
        expected = sorted(self.held)
        assert len(self.index) == len(expected)
        assert self.index.ids.tolist() == expected
        np.testing.assert_array_equal(self.index.get(expected), as_array([self.held[i] for i in expected]))
        assert self.next_id not in self.index
        assert all(i in self.index for i in expected[:3])
        self.index.verify()


def machine(name: str) -> Any:
    made = type(f"{name.title().replace('-', '')}Machine", (Machine,), {"kind": name})
    test = made.TestCase
    test.settings = settings(max_examples=6, stateful_step_count=25)
    return test


TestFlat = machine("flat")
TestVamana = machine("vamana")
TestVamanaCodes = machine("vamana-codes")
TestIVF = machine("ivf")
TestIVFCodes = machine("ivf-codes")
TestIVFBlocks = machine("ivf-blocks")
TestIVFCoarse = machine("ivf-coarse")
TestHNSW = machine("hnsw")
