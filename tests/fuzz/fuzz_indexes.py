"""Damage saved indexes of every kind: loading is sound or raises FormatError, and what is loaded can be used.

    python tests/fuzz/fuzz_indexes.py --seconds 300 --seed 1
    python tests/fuzz/fuzz_indexes.py --mutations 1 --start 1234 --seed 1      # repeat mutation 1234 of seed 1

Mutation i of a seed is the same in every run. The damage is that of fuzz_storage.py, and words of the arrays that
become other plausible numbers, with all checksums made to fit: as an attacker would write them.
"""

import collections
import json
import random
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import fuzz_storage
import fuzzing
import numpy as np

import nearly
from nearly.errors import NearlyError

DIM = 6
WORDS = [0, 1, 2, 3, 7, 63, 64, 255, 299, 300, 301, 4096, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]


def lengths(item: Any, items: Any) -> list[float]:
    """Return distances of numbers, or of strings by their lengths, for an index over items."""
    return [abs(_length(item) - _length(other)) for other in items]


def _length(item: Any) -> float:
    return float(len(item)) if isinstance(item, str) else float(np.nan_to_num(np.sum(item)) % 1e6)


ITEMS = [float(i * i % 97) for i in range(60)]


def originals(folder: Path) -> list[bytes]:
    """Return the bytes of an index of each kind, with codes and without, some of them much changed."""
    rng = np.random.default_rng(0)
    floats = rng.standard_normal((300, DIM), dtype=np.float32)
    bits = rng.integers(0, 256, (300, DIM), dtype=np.uint8)
    quick = {"beam": 12, "degree": 6}
    changed = nearly.Vamana(floats, **quick, quantizer=nearly.Scalar(4, "vector"), metric="cosine")
    changed.remove(np.arange(0, 300, 4))
    changed.add(floats[:20] + 1)
    changed.remove([301])
    layered = nearly.HNSW(floats, M=3, ef_construction=12, ids=np.arange(300) * 7)
    layered.remove(np.arange(0, 700, 70))
    over_items = nearly.HNSW(ITEMS, metric=lengths, M=3)
    over_items.remove([5, 6])
    over_words = nearly.HNSW(["é" * (i % 13) for i in range(40)], metric=lengths, M=3)
    over_words.remove(np.arange(20))
    smaller = nearly.Flat(np.repeat(floats[:100], 3, axis=0))
    smaller.remove([4, 5])
    listed = nearly.IVF(floats[:200], lists=9, quantizer=nearly.Scalar(4, "vector"), queries=floats[200:260])
    listed.add(floats[200:] + 1)
    listed.remove(np.arange(0, 60, 4))
    made = [
        smaller,
        listed,
        nearly.IVF(floats, lists=7, quantizer=nearly.RaBitQ(2), metric="cosine", calibrate=False),
        nearly.IVF(floats, lists=7, calibrate=False),
        nearly.IVF(bits, metric="hamming"),
        nearly.IVF(floats[:0]),
        nearly.IVF(floats, lists=7, calibrate=False, refine="disk"),
        nearly.IVF(floats, lists=7, coarse=nearly.Pca(3), metric="ip"),
        nearly.IVF(
            floats,
            lists=7,
            coarse=nearly.Chain(nearly.Matryoshka(5), nearly.Pca(4)),
            metric="cosine",
            quantizer=nearly.RaBitQ(2),
        ),
        nearly.Flat(floats, quantizer=nearly.RaBitQ(2), refine="disk"),
        nearly.Vamana(floats, **quick, refine="float16"),
        nearly.Flat(bits, metric="jaccard"),
        nearly.Flat(floats, quantizer=nearly.RaBitQ(2)),
        nearly.Flat(floats, quantizer=nearly.SAQ(5.5)),
        nearly.Flat(floats[:0]),
        nearly.Vamana(floats, **quick, quantizer=nearly.Reduced(dims=4), metric="ip"),
        nearly.Vamana(floats, **quick, quantizer=nearly.RaBitQ(3), metric="cosine"),
        nearly.Vamana(
            floats,
            **quick,
            quantizer=nearly.Transformed(nearly.Chain(nearly.Matryoshka(6), nearly.Pca(5)), nearly.Scalar()),
        ),
        nearly.Vamana(bits, **quick, metric="hamming"),
        nearly.Vamana(floats, **quick, quantizer=nearly.Plain(), calibrate=False),
        changed,
        layered,
        nearly.HNSW(np.repeat(bits[:90], 3, axis=0), M=3, ef_construction=12, metric="l1"),
        over_items,
        over_words,
    ]
    files = []
    for index in made:
        index.save(folder / "original")
        files.append((folder / "original").read_bytes())
    return files


def change_words(rng: random.Random, octets: bytes) -> bytes:
    """Give some words of one array other values, and the file checksums that fit."""
    end = fuzz_storage.header_end(octets)
    table = json.loads(octets[8:end])
    ours = json.loads(table["__metadata__"]["nearly"])
    names = sorted(
        n for n in table if n in ours["checksums"] and table[n]["data_offsets"][0] < table[n]["data_offsets"][1]
    )
    if not names:
        return octets
    name = rng.choice(names)
    first, last = (end + offset for offset in table[name]["data_offsets"])
    array = bytearray(octets[first:last])
    for _ in range(rng.choice([1, 1, 2, 10])):
        at = rng.randrange(max(1, len(array) // 4)) * 4
        value = rng.choice([*WORDS, rng.getrandbits(32), rng.randrange(300)])
        size = len(array[at : at + 4])
        array[at : at + 4] = value.to_bytes(4, "little")[:size]
    checksum = f"{zlib.crc32(array):08x}"
    ours["checksums"][name] = checksum
    table["__metadata__"]["nearly"] = json.dumps(ours)
    text = json.dumps(table, separators=(",", ":")).encode()
    data = octets[end:first] + bytes(array) + octets[last:]
    return fuzz_storage.reseal(fuzz_storage.keep_length(octets[:8] + text + data, octets[:end] + data))


MUTATORS = [
    fuzz_storage.flip_header, fuzz_storage.flip_data, fuzz_storage.flip_data, fuzz_storage.truncate,
    fuzz_storage.splice_resealed, fuzz_storage.edit_resealed, fuzz_storage.edit_resealed, fuzz_storage.edit_resealed,
    change_words, change_words, change_words, change_words,
]  # fmt: skip


def use(path: Path, rng: random.Random) -> str:
    """Load, ask and change; any error but those of nearly is a bug."""
    try:
        index = nearly.load(path)
    except nearly.FormatError:
        return "refused"
    except nearly.InputError as error:
        if "callable" not in str(error) and "items" not in str(error):
            raise
        try:
            index = nearly.load(path, metric=lengths)
        except (nearly.FormatError, nearly.InputError):
            return "refused"
        for options in ({}, {"exact": True}, {"effort": 5}, {"where": [0, 3, 9]}):
            hits = index.search(7.0, k=5, **options)
            assert len(set(hits.ids.tolist())) == len(hits)
        index.add([3.0, 4.5])
        index.remove(index.search(3.0, k=2, exact=True).ids)
        return "used"
    ended = "used"
    bits = index.metric in ("hamming", "jaccard")
    dim = min(index.dim, 100_000)
    asked = np.full((9, dim), 3, np.uint8) if bits else np.linspace(-1, 1, 9 * dim, dtype=np.float32).reshape(9, dim)
    efforts = [{"effort": 20}, {"recall": 0.9}] if index.kind != "flat" else [{}]
    for options in ({}, {"exact": True}, {"where": [0, 3, 70, 280]}, *efforts):
        try:
            for queries in (asked, asked[0]):
                hits = index.search(queries, k=8, **options)
                assert hits.ids.shape[-1] <= 8
                assert (np.asarray(hits.ids) >= -1).all()
        except nearly.StateError:
            ended = "uncalibrated"
    index.range_search(asked, 0.5)
    assert len(index.ids) == len(index)
    assert len(index.get(index.ids[:20])) == len(index.ids[:20])
    repr(index)
    if rng.random() < 0.3:
        try:
            ids = index.add(asked)
            index.remove(ids[:4])
            index.upsert(asked[:3], ids=ids[4:7])
            index.remove(index.ids[::2])
            index.search(asked, k=3, exact=True)
        except NearlyError:
            ended = "changes refused"
    try:
        nearly.load(path, verify=True)
    except nearly.FormatError:
        return f"{ended}, found by verify"
    return ended


def run(
    folder: Path, *, seed: int, mutations: int | None = None, seconds: float | None = None, start: int = 0
) -> collections.Counter[tuple[str, str]]:
    """Try mutations until one of the limits; return how often each mutator led to which end."""
    files = originals(folder)
    path = folder / "mutant"
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for i, rng in fuzzing.cases(seed, mutations, seconds, start):
        original, mutator = rng.choice(files), rng.choice(MUTATORS)
        mutant = mutator(rng, original)
        path.unlink(missing_ok=True)  # never shrink a file that may still be mapped
        path.write_bytes(mutant)
        with fuzzing.repeatable(mutator.__name__, i, seed), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of numbers that damage made huge
            counts[mutator.__name__, use(path, rng)] += 1
    return counts


def main() -> None:
    arguments = fuzzing.arguments(__doc__, 5000)
    nearly.set_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder), **vars(arguments))
    for (name, end), count in sorted(counts.items()):
        print(f"{count:8d}  {name}: {end}")
    print(f"{counts.total()} mutations of seed {arguments.seed} in {time.monotonic() - began:.0f} s, nothing wrong")


if __name__ == "__main__":
    sys.exit(main())
