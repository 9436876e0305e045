"""A collection of each format version that was released stays readable: tests/golden/collection_v1 and its like.

NEARLY_TEST=overwrite writes that of the present version anew; do so only before the version is released.
"""

import datetime as dt
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly.collection.catalogue import FORMAT_VERSION

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DAY, MOMENT = dt.date(2020, 2, 29), dt.datetime(2021, 3, 4, 5, 6, 7, 8)


def write(path):
    """Write a collection that has a segment with dead and patched rows, and a log with each kind of record."""
    docs = nearly.open(path, metric="cosine", embedding="model 1", background=False)
    n = 12
    metadata = {
        "flag": [i % 2 == 0 for i in range(n)],
        "year": [2000 + i if i else None for i in range(n)],
        "score": [i / 4 for i in range(n)],
        "lang": ["de", "日本", None] * 4,
        "day": [DAY] * n,
        "at": [MOMENT] * n,
        "tags": [["a", "b"][: i % 3] for i in range(n)],
        "extra": [{"x": [i, None]} for i in range(n)],
    }
    documents = [None, "text", b"\x00\xff"] * 4
    docs.add(np.eye(n, 4) + 0.25, ids=[f"key {i}" for i in range(n)], metadata=metadata, documents=documents)
    docs.flush()
    docs.delete(["key 3", "key 4"])
    docs.update("key 5", metadata={"year": [1]})
    docs.upsert(np.ones((1, 4)), ids=["key 6"], metadata={"year": [6], "new": ["late"]})
    docs._maintenance.flush_tail()
    docs.upsert(np.ones((1, 4)) * 2, ids=["fresh"], metadata={"year": [7], "day": [DAY]}, documents=["in the log"])
    docs.delete("key 7")
    docs.update(["key 8"], metadata={"at": [MOMENT]})
    docs.close()


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_collections_of_every_version_are_read(version, tmp_path):
    golden = GOLDEN / f"collection_v{version}"
    if os.environ.get("NEARLY_TEST") == "overwrite" and version == FORMAT_VERSION:
        shutil.rmtree(golden, ignore_errors=True)
        write(golden)
        (golden / "lock").write_text("")  # names whoever wrote it
    shutil.copytree(golden, tmp_path / "docs")
    docs = nearly.open(tmp_path / "docs", background=False)
    docs.verify()
    assert sorted(docs.get().ids.tolist()) == ["fresh", *(f"key {i}" for i in (0, 1, 10, 11, 2, 5, 6, 8, 9))]
    row = docs.get("key 2", include=["metadata", "document", "vector"])
    assert row.metadata == {
        "flag": True, "year": 2002, "score": 0.5, "lang": None, "day": DAY, "at": MOMENT, "tags": ["a", "b"],
        "extra": {"x": [2, None]}, "new": None,
    }  # fmt: skip
    assert row.document == b"\x00\xff"
    assert row.vector.tolist() == [0.25, 0.25, 1.25, 0.25]
    assert docs.get("key 0").metadata["year"] is None
    assert (docs.get("key 5").metadata["year"], docs.get("key 6").metadata["new"]) == (1, "late")
    assert docs.get("fresh").document == "in the log"
    assert docs.count("lang = '日本' AND year > 2001") == 1
    assert docs.search([1, 0.2, 0.2, 0.2], 1).ids.tolist() == ["key 0"]
    docs.compact()
    docs.verify()
    docs.close()
