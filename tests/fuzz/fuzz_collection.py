"""Damage the files of a collection in thousands of ways: opening it, reading it and writing to it is sound or raises
one of our errors, nothing else.

    python tests/fuzz/fuzz_collection.py --seconds 60 --seed 1
    python tests/fuzz/fuzz_collection.py --mutations 1 --start 123 --seed 1      # repeat mutation 123 of seed 1

Mutation i of a seed is the same in every run: octets changed in one file, or its end cut off. The collection is the
golden one of the present format, which has segments, dead rows, patches and a log.
"""

import argparse
import collections
import faulthandler
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import nearly
from nearly.collection.catalogue import FORMAT_VERSION

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / f"collection_v{FORMAT_VERSION}"


def damage(rng: random.Random, folder: Path) -> str:
    """Change one file; returns its name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = rng.choice(files)
    octets = bytearray(path.read_bytes())
    if rng.random() < 0.15:
        octets = octets[: rng.randrange(len(octets))]
    else:
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(octets))
            octets[at] = rng.choice([0, 255, octets[at] ^ (1 << rng.randrange(8)), rng.randrange(256)])
    path.write_bytes(octets)
    return path.name


def use(folder: Path) -> str:
    """Open a collection and do all kinds of things to it; returns how that ended."""
    try:
        docs = nearly.open(folder, background=False, durable=False)
    except nearly.NearlyError:
        return "refused"
    try:
        docs.get(include=["metadata", "document", "vector"])
        docs.search(np.ones(4), 3, where="year > 2000").metadata  # noqa: B018
        docs.count("lang = 'de'")
        try:
            docs.verify()
            ending = "sound"
        except nearly.NearlyError:
            docs.repair()
            ending = "found by verify"
        docs.upsert(np.ones((1, 4)), ids=["z"], metadata={"year": [1]})
        docs.compact()
        return ending
    except nearly.NearlyError:
        return "raised"
    finally:
        docs.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--mutations", type=int, default=1 << 60)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faulthandler.enable()
    room = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    endings: collections.Counter[str] = collections.Counter()
    until, i = time.monotonic() + arguments.seconds, arguments.start
    try:
        while i < arguments.start + arguments.mutations and time.monotonic() < until:
            shutil.copytree(GOLDEN, room / "docs")
            name = damage(random.Random(f"{arguments.seed} {i}"), room / "docs")
            try:
                endings[use(room / "docs")] += 1
            except BaseException:
                print(f"mutation {i} of seed {arguments.seed}, in {name}:", file=sys.stderr)
                raise
            shutil.rmtree(room / "docs")
            i += 1
    finally:
        shutil.rmtree(room)
    print(f"{i - arguments.start} mutations: " + ", ".join(f"{n} {ending}" for ending, n in sorted(endings.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
