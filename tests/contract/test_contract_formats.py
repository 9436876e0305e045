"""Index files of every format version that was released can be read: tests/golden/format_N/KIND.nearly.

NEARLY_TEST=overwrite makes the files of the present version again, which is right only until it is released.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly.storage import FORMAT_VERSION

GOLDEN = Path(__file__).parent.parent / "golden"
WORDS = [f"{a}{b}{c}" for a in "bdgkt" for b in "aeiou" for c in "lns"]


def vectors(n):
    """Return points of small integers, which every element type and every CPU target holds exactly."""
    return np.random.default_rng(3).integers(0, 200, (n, 6)).astype(np.float32)


def letters(word, words):
    return [sum(a != b for a, b in zip(word, other, strict=True)) for other in words]


def changed(index):
    """Remove and add, so that free places, removed rows and ids of the user's are in the file too."""
    index.remove(index.ids[[2, 5, 7]])
    index.add(vectors(90)[80:], ids=np.arange(1000, 1010))
    return index


MADE = {
    "flat": lambda: changed(nearly.Flat(vectors(60))),
    "flat_codes": lambda: changed(nearly.Flat(vectors(60), quantizer=nearly.RaBitQ(bits=4))),
    "vamana": lambda: changed(nearly.Vamana(vectors(80), degree=6, beam=20, quantizer=nearly.Scalar(bits=8))),
    "vamana_curve": lambda: nearly.Vamana(vectors(260), degree=6, beam=20, quantizer=nearly.Reduced(dims=5)),
    "hnsw": lambda: changed(nearly.HNSW(vectors(60), M=4, ef_construction=20, metric="ip")),
    "ivf": lambda: changed(nearly.IVF(vectors(60), lists=6, quantizer=nearly.RaBitQ(bits=4))),
    "callable": lambda: nearly.HNSW(WORDS, metric=letters, M=3),
}
FILES = sorted(path.relative_to(GOLDEN) for path in GOLDEN.glob("format_*/*.nearly"))


def found(index):
    """Return what some searches find: ids by rank, and distances of exact ones."""
    if index.kind == "callable":
        queries = ["ban", "zal"]
        exact = [index.search(word, k=5, exact=True) for word in queries]
        return {
            "exact": [hits.ids.tolist() for hits in exact],
            "distances": [hits.distances.tolist() for hits in exact],
            "found": [index.search(word, k=3, effort=30).ids.tolist() for word in queries],
        }
    queries = vectors(400)[390:]
    exact = index.search(queries, k=5, exact=True)
    how = {"recall": 0.99} if index.kind == "flat" or getattr(index, "curve", None) is not None else {"effort": 40}
    return {
        "exact": exact.ids.tolist(),
        "distances": exact.distances.tolist(),
        "found": index.search(queries, k=3, **how).ids.tolist(),
        "curve": None if getattr(index, "curve", None) is None else index.curve.n_queries,
    }


@pytest.mark.parametrize("kind", MADE)
def test_the_present_format_has_a_file_of_each_kind(kind):
    path = GOLDEN / f"format_{FORMAT_VERSION}" / f"{kind}.nearly"
    if os.environ.get("NEARLY_TEST") == "overwrite":
        path.parent.mkdir(exist_ok=True)
        MADE[kind]().save(path)
    assert path.stat().st_size < 40_000
    assert {index.kind for index in (nearly.Flat, nearly.Vamana, nearly.HNSW, nearly.IVF)} <= {*MADE}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_released_file_is_read_searched_and_changed(file, golden, tmp_path, simd_target):
    metric = {"metric": letters} if file.stem == "callable" else {}
    index = nearly.load(GOLDEN / file, verify=True, **metric)
    golden(str(file.with_suffix("")), found(index))
    more = ["zox"] if metric else vectors(500)[499:]
    added = index.add(more)
    assert added.tolist() == [index.ids[-1]]
    assert added[0] in index.search(more[0], k=20, exact=True).ids
    index.save(tmp_path / "again")
    again = nearly.load(tmp_path / "again", verify=True, **metric)
    assert again.ids.tolist() == index.ids.tolist()
