"""Four readers and a writer on one collection, with flushes, graphs and merges under way: the long form."""

import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import nearly
from nearly.collection import queries
from nearly.collection.queries import Question
from nearly.collection.writing import Limits

DIM = 16
CENTERS = np.random.default_rng(0).standard_normal((30, DIM), dtype=np.float32) * 2


def points(rng, n):
    return CENTERS[rng.integers(len(CENTERS), size=n)] + rng.standard_normal((n, DIM), dtype=np.float32)


@pytest.mark.soak
def test_readers_find_what_is_alive_while_a_writer_changes_everything(request):
    until = time.monotonic() + min(60.0, max(5.0, request.config.getoption("--soak") / 8))
    room = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    rng = np.random.default_rng(request.config.getoption("--soak-seed"))
    docs = nearly.open(f"{room}/docs", durable=False)
    docs._writer.limits = Limits(tail_rows=512)
    docs.add(points(rng, 8000), metadata={"group": rng.integers(0, 10, 8000)})
    recalls, problems = [], []

    def read(seed):
        mine = np.random.default_rng(seed)
        try:
            while time.monotonic() < until:
                state, probes = docs._state, points(mine, 8)
                asked = Question("vector", None, {}, (), state.schema.columns)
                found = queries.search(state, probes, 10, asked)
                exact = queries.search(state, probes, 10, Question("vector", None, {"exact": True}, (), {}))
                recalls.append(float((found.distances <= exact.distances[:, -1:] * (1 + 1e-6)).mean()))
                alive = [key for row in found.ids.tolist() for key in row]
                assert state.known(nearly.collection.keys.Keys(np.unique(np.array(alive, np.int64)))).all()
                group = int(mine.integers(10))
                hits = docs.search(probes[0], 5, where={"group": group})
                assert set(hits.metadata["group"].tolist()) <= {group}
        except BaseException as problem:
            problems.append(problem)

    readers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for reader in readers:
        reader.start()
    held = set(range(8000))
    while time.monotonic() < until and not problems:
        added = docs.add(points(rng, 100), metadata={"group": rng.integers(0, 10, 100)})
        gone = rng.choice(sorted(held), 60, replace=False).tolist()
        docs.delete(gone)
        held = (held | set(added)) - set(gone)
        changed = rng.choice(sorted(held), 20, replace=False)
        docs.upsert(points(rng, 20), ids=changed, metadata={"group": rng.integers(0, 10, 20)})
        docs.update(changed[:5], metadata={"group": 3})
    for reader in readers:
        reader.join()
    assert problems == []
    docs.flush()
    assert set(docs.get(include=[]).ids.tolist()) == held
    docs.verify()
    docs.close()
    shutil.rmtree(room)
    assert np.mean(recalls) >= 0.95 - 0.01  # a mean over queries, of a sample
