"""Add, replace and remove vectors while the index answers.   python examples/streaming.py"""

import threading

import numpy as np

import nearly

rng = np.random.default_rng(0)
dim = 32
vectors = rng.standard_normal((3_000, dim), dtype=np.float32)

index = nearly.Vamana(vectors[:2_000], metric="l2", recall=0.95)
print(f"start: {len(index):,} vectors")

# Readers need no lock: one writer changes the index while any number of threads search it.
shares: list[float] = []
stop = threading.Event()


def read() -> None:
    while not stop.is_set():
        hits = index.search(vectors[:100], k=1)
        shares.append(float(np.mean(hits.ids[:, 0] == np.arange(100))))


reader = threading.Thread(target=read)
reader.start()
try:
    for first in range(2_000, 3_000, 250):
        ids = index.add(vectors[first : first + 250])
        print(f"added {len(ids)}: ids {ids[0]} to {ids[-1]}")
    index.remove(np.arange(500, 1_500))
    print(f"removed 1,000: {len(index):,} left, 700 in index: {700 in index}")
finally:
    stop.set()
    reader.join()
print(f"answered {100 * len(shares):,} queries meanwhile, {np.mean(shares):.3f} of them found their own vector")

# upsert replaces a vector under its id; removed ids are never given out again.
index.upsert(np.full((1, dim), 9.0, np.float32), ids=[7])
print("nearest to (9, 9, ...):", index.search(np.full(dim, 9.0, np.float32), k=1).ids.tolist())
print("next id:", index.add(np.zeros((1, dim), np.float32)).tolist())

# After many changes, calibrate again: on queries like yours, or on some made from the data.
index.calibrate()
hits = index.search(rng.standard_normal((100, dim), dtype=np.float32), k=10)
print(f"expected recall {hits.expected_recall:.3f}\n{hits.plan}")
