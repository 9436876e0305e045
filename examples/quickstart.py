"""Build an index, search it, say how accurate an answer must be, save and load it.   python examples/quickstart.py"""

import tempfile
from pathlib import Path

import numpy as np

import nearly

rng = np.random.default_rng(0)
topics = rng.standard_normal((100, 64), dtype=np.float32)
vectors = topics[rng.integers(100, size=6_000)] + 0.5 * rng.standard_normal((6_000, 64), dtype=np.float32)
queries = topics[rng.integers(100, size=200)] + 0.5 * rng.standard_normal((200, 64), dtype=np.float32)

# Vectors and a recall go in; what was chosen, and why, is in the plan.
index = nearly.build(vectors, metric="cosine", recall=0.95)
print(index)

# One query gives 1-D arrays, a batch 2-D ones. A stored vector is nearest to itself.
hits = index.search(vectors[42], k=3)
print("\nnearest to vector 42:", ", ".join(f"{hit.id} at {hit.distance:.3f}" for hit in hits))

# Ask for any recall at any time, and compare with exact search.
truth = index.search(queries, k=10, exact=True)
print("\nasked  expected  delivered")
for recall in (0.8, 0.9, 0.95, 0.99):
    hits = index.search(queries, k=10, recall=recall)
    delivered = np.mean([len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(hits.ids, truth.ids, strict=True)])
    print(f"{recall:5.2f}  {hits.expected_recall:8.3f}  {delivered:9.3f}")

# One index, one file. Loading maps it into memory, so it is ready at once.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "topics.nearly"
    index.save(path)
    loaded = nearly.load(path)
    same = np.array_equal(loaded.search(queries, k=10).ids, index.search(queries, k=10).ids)
    print(f"\nsaved {path.stat().st_size:,} bytes; the loaded index answers the same: {same}")
