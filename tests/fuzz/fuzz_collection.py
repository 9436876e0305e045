"""Damage the files of a collection in thousands of ways: opening it, reading it and writing to it is sound or raises
one of our errors, nothing else.

    python tests/fuzz/fuzz_collection.py --seconds 60 --seed 1
    python tests/fuzz/fuzz_collection.py --mutations 1 --start 123 --seed 1      # repeat mutation 123 of seed 1

Mutation i of a seed is the same in every run: octets changed in one file, or its end cut off, or another value in a
table of the catalogue, which stays a sound database. The collection is the golden one of the present format, which has
segments, dead rows, patches and a log; or a copy of it whose catalogue has checksums: where octets of that were
changed, what is not refused and passes `verify` must hold what was written.
"""

import argparse
import collections
import faulthandler
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import nearly
from nearly.collection.catalogue import FORMAT_VERSION, NAME

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / f"collection_v{FORMAT_VERSION}"
STRANGE = [
    None, True, 0, -1, 3, 1.5, 1e400, 2**63, 2**70, "", "year", "int", "\ud800", [], [[]], [1], {}, {"year": 1},
    [None] * 2,
]  # fmt: skip
TABLES = {
    "configuration": ("value",), "segments": ("place", "name", "rows", "applied", "files", "alive"),
    "patches": ("segment", "row", "changes"), "log": ("sequence", "kind", "body", "vectors"), "erased": ("hash",),
}  # fmt: skip


def damage(rng: random.Random, folder: Path, *, octets_only: bool) -> str:
    """Change one file; returns its name."""
    if not octets_only and rng.random() < 0.4:
        return damage_table(rng, folder / NAME)
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


def damage_table(rng: random.Random, path: Path) -> str:
    """Give a value of the catalogue another one; returns which."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        table = rng.choice([name for name in TABLES if database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]])
        column = rng.choice(TABLES[table])
        rows = database.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        names = [each[1] for each in database.execute(f"PRAGMA table_info({table})")]
        row = list(rng.choice(rows))
        which = " AND ".join(f"{name} IS ?" for name in names)
        changed = [damaged(rng, value) if name == column else value for name, value in zip(names, row, strict=True)]
        try:
            database.execute(f"DELETE FROM {table} WHERE {which}", row)
            if rng.random() < 0.95:
                database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", changed)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError):  # no database takes that
            pass
    return f"{column} of {table}"


def damaged(rng: random.Random, value: Any) -> Any:
    """A value of a table with something else in it."""
    if isinstance(value, str) and rng.random() < 0.7:
        try:
            return json.dumps(within(rng, json.loads(value)))
        except ValueError:
            pass
    if isinstance(value, str | bytes) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        other = bytes([rng.randrange(256)]) if isinstance(value, bytes) else chr(rng.randrange(32, 127))
        return rng.choice([value[:at] + other + value[at + 1 :], value[:at], value[at:], value + other])  # type: ignore[operator]
    if isinstance(value, int) and rng.random() < 0.6:
        return value + rng.choice([-1, 1, 2, 100])
    return rng.choice([None, -1, 0, 5, 2**62, 1.5, "", "7", "other", b"", b"\0" * 16])


def within(rng: random.Random, value: Any) -> Any:
    """JSON with another value, or another name, somewhere in it."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(STRANGE)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return value[:at] + rng.choice([[], [within(rng, value[at])], [value[at]] * 2]) + value[at + 1 :]
    name = rng.choice(list(value))
    how = rng.random()
    if how < 0.15:
        return {key: each for key, each in value.items() if key != name}
    if how < 0.3:
        other = rng.choice(["", "id", "vector", "year", f"{name}x"])
        return {other if key == name else key: each for key, each in value.items()}
    return value | {name: within(rng, value[name])}


def contents(docs: Any) -> list[Any]:
    rows = docs.get(include=["metadata", "document", "vector"])
    return [(row.id, row.metadata, row.document, row.vector.tobytes()) for row in rows]


def use(folder: Path, written: list[Any] | None) -> str:
    """Open a collection and do all kinds of things to it; returns how that ended."""
    try:
        docs = nearly.open(folder, background=False, durable=False)
    except nearly.NearlyError:
        return "refused"
    try:
        found = contents(docs)
        docs.search(np.ones(4), 3, where="year > 2000").metadata  # noqa: B018
        docs.count("lang = 'de'")
        try:
            docs.verify()
            ending = "sound"
            assert written in (None, found), f"{written} was written, and {found} passed for it"
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
        shutil.copytree(GOLDEN, room / "sealed")
        with nearly.open(room / "sealed", background=False) as docs:
            written = contents(docs)
        while i < arguments.start + arguments.mutations and time.monotonic() < until:
            rng = random.Random(f"{arguments.seed} {i}")
            sealed = rng.random() < 0.3
            shutil.copytree(room / "sealed" if sealed else GOLDEN, room / "docs")
            name = damage(rng, room / "docs", octets_only=sealed)
            try:
                endings[use(room / "docs", written if sealed else None)] += 1
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
