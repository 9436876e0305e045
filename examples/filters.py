"""Search among some of the vectors only: a mask or ids, from a handful to nearly all.   python examples/filters.py"""

import numpy as np

import nearly

rng = np.random.default_rng(0)
n, dim = 5_000, 24
vectors = rng.standard_normal((n, dim), dtype=np.float32)
year = rng.integers(1990, 2025, size=n)
language = rng.choice(["en", "fr", "de"], size=n, p=[0.8, 0.15, 0.05])
query = rng.standard_normal(dim, dtype=np.float32)

index = nearly.Vamana(vectors, metric="l2", recall=0.95)

# A mask has one entry per id. However few pass, k of them come back if there are k.
for name, mask in {
    "everything": np.ones(n, bool),
    "since 2000": year >= 2000,
    "German, since 2000": (year >= 2000) & (language == "de"),
    "French, 1994": (year == 1994) & (language == "fr"),
}.items():
    hits = index.search(query, k=5, where=mask)
    assert mask[hits.ids].all()
    print(f"{name:<20} {mask.sum():6,} pass   {hits.ids.tolist()}\n{'':<20} {hits.plan}\n")

# Ids work as well, and fewer than k of them is an honest answer.
hits = index.search(query, k=5, where=[17, 23, 4711])
print(f"{'three ids':<20} {hits.counts} found  {hits.ids.tolist()}")

# Everything within a distance, whatever the number.
found = index.range_search(query, radius=float(index.search(query, k=1).distances[0]) * 1.2)
print(f"{'within a radius':<20} {len(found)} found  {found.ids[:5].tolist()}")
