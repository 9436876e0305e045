"""Damage index files in thousands of ways: reading them must be sound or raise FormatError, nothing else.

    python tests/fuzz/fuzz_storage.py --seconds 300 --seed 1
    python tests/fuzz/fuzz_storage.py --mutations 1 --start 1234 --seed 1      # repeat mutation 1234 of seed 1

Mutation i of a seed is the same in every run. Two families: plain damage, which the seal of the header, the size or the
checksums must find; and resealed headers, as an attacker writes them, where every later check stands alone. Whatever
we accept, the safetensors library, if it is installed, must accept too.
"""

import collections
import contextlib
import copy
import json
import random
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np

from nearly import storage
from nearly.errors import FormatError

try:
    from safetensors import deserialize
except ImportError:
    deserialize = None

Mutator = Callable[[random.Random, bytes], bytes]
DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
SEAL = re.compile(rb'"crc32":"[0-9a-f]{8}"')
VALUES = [
    None, True, False, -1, 0, 1, 2, 7, 63, 64, 65, 4096, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
    2**64, 10**25, 1.0, 0.5, -0.0, 1e308, "", "nearly", "F32", "BOOL", "BF16", "F8_E4M3", "00000000", "\ud800", "\0",
    "x" * 300, [], [0], [0, 0], [1, 2, 3], [64, 0], [2**62, 2**62], [0, 2**62], [0, 2**64], [1] * 40, [-1, -1],
    [True], [1.0], {}, {"a": {}},
]  # fmt: skip


def originals(folder: Path) -> list[bytes]:
    """Return the bytes of a few small files that differ in all that matters."""
    rng = np.random.default_rng(0)
    path = folder / "original"
    files = []

    def keep(arrays: dict[str, Any], config: dict[str, Any], **rest: Any) -> None:
        storage.write(path, arrays, config, kind="fuzz", **rest)
        files.append(path.read_bytes())

    everything = {f"a{i}": (rng.random((i, 5)) * 99).astype(dtype) for i, dtype in enumerate(DTYPES)}
    keep(everything, {"metric": "l2", "graph": {"degree": 32, "alpha": 1.2}, "curve": [[1, 0.5], [2, 0.9]], "on": True})
    keep({}, {})
    keep({"empty": np.empty((0, 3), np.float32), "one": np.array(1.5), "none": np.empty((2, 0, 4), bool)}, {"k": None})
    keep({"vectors": rng.integers(0, 2**16, (40, 7), np.uint16)}, {"dim": 7}, bfloat16={"vectors"})
    keep({"many": np.arange(3, dtype=np.uint8), "mask": rng.random(300) < 0.5}, {"text": "\u00e9\U0001f600" * 900})
    return files


def header_end(octets: bytes) -> int:
    return 8 + int.from_bytes(octets[:8], "little")


def reseal(octets: bytes) -> bytes:
    """Give a damaged header the checksum that belongs to it."""
    end = header_end(octets)
    blank = SEAL.sub(b'"crc32":"00000000"', octets[8:end], count=1)
    return octets[:8] + blank.replace(b'"crc32":"00000000"', b'"crc32":"%08x"' % zlib.crc32(blank), 1) + octets[end:]


def flip(rng: random.Random, octets: bytes, begin: int, end: int) -> bytes:
    result = bytearray(octets)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        result[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    return bytes(result)


def flip_header(rng: random.Random, octets: bytes) -> bytes:
    return flip(rng, octets, 0, rng.choice([8, 500, header_end(octets)]))


def flip_data(rng: random.Random, octets: bytes) -> bytes:
    begin = header_end(octets)
    return flip(rng, octets, begin, len(octets)) if begin < len(octets) else octets


def truncate(rng: random.Random, octets: bytes) -> bytes:
    near = rng.choice([0, 8, header_end(octets), len(octets), rng.randrange(len(octets))])
    return octets[: max(0, min(near + rng.randint(-9, 9), len(octets)))]


def extend(rng: random.Random, octets: bytes) -> bytes:
    return octets + rng.choice([b"\0", b" ", rng.randbytes(rng.randint(1, 64)), octets])


def change_length(rng: random.Random, octets: bytes) -> bytes:
    lengths = [0, 1, 2, 4087, 4088, 4089, 8184, 2**20, 2**20 + 1, 2**31, 2**63, 2**64 - 1, rng.getrandbits(64)]
    length = rng.choice(lengths)
    return length.to_bytes(8, "little") + octets[8:]


def splice(rng: random.Random, octets: bytes) -> bytes:
    """Remove, repeat or overwrite a stretch of the header; every later byte moves."""
    used = len(octets[: header_end(octets)].rstrip(b" "))
    begin = rng.randrange(8, used)
    end = min(used, begin + rng.choice([1, 2, 10, 100]))
    middle = rng.choice([b"", octets[begin:end] * 2, rng.randbytes(end - begin), b'"', b"{", b"]", b"\\", b"9" * 30])
    return octets[:begin] + middle + octets[end:]


def keep_length(octets: bytes, original: bytes) -> bytes:
    """Cut or fill the spaces at the end of a changed header, so that data begins where it did."""
    end = header_end(original)
    n_data = len(original) - end
    header = octets[: len(octets) - n_data][8:].rstrip(b" ")
    length = len(header) + -(8 + len(header)) % 4096
    return length.to_bytes(8, "little") + header.ljust(length) + original[end:]


def splice_resealed(rng: random.Random, octets: bytes) -> bytes:
    return reseal(keep_length(splice(rng, octets), octets))


def flip_resealed(rng: random.Random, octets: bytes) -> bytes:
    used = len(octets[: header_end(octets)].rstrip(b" "))
    return reseal(flip(rng, octets, 8, used))


def edit(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one thing in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        match rng.randrange(8):
            case 0:
                del value[key]
            case 1:
                value[rng.choice(["", "__pad0", "__x", "crc32", "\ud800", "y" * 200, key.upper()])] = value.pop(key)
            case 2:
                name = rng.choice(["", "__pad7", "new", "dtype", "config"])
                value[name] = copy.deepcopy(rng.choice([value[key], *VALUES]))
            case _:
                value[key] = edit(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        match rng.randrange(4):
            case 0:
                del value[i]
            case 1:
                value.insert(i, copy.deepcopy(rng.choice(VALUES)))
            case _:
                value[i] = edit(rng, value[i])
        return value
    if isinstance(value, int) and rng.random() < 0.6:
        return value + rng.choice([-64, -8, -1, 1, 8, 64])
    if rng.random() < 0.05:
        deep: Any = value
        for _ in range(rng.choice([10, 31, 40])):
            deep = [deep]
        return deep
    return copy.deepcopy(rng.choice(VALUES))


def edit_resealed(rng: random.Random, octets: bytes) -> bytes:
    """Change the meaning of the header, its own JSON text included, and seal it anew."""
    end = header_end(octets)
    table = json.loads(octets[8:end])
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        metadata = table.get("__metadata__") if isinstance(table, dict) else None
        ours = metadata.get("nearly") if isinstance(metadata, dict) else None
        draw = rng.random()
        if draw < 0.3 and isinstance(ours, str) and ours.startswith("{"):
            metadata["nearly"] = json.dumps(edit(rng, json.loads(ours)))
        elif draw < 0.8 and isinstance(table, dict) and len(table) > 1:
            name = rng.choice(sorted(table.keys() - {"__metadata__"}))
            table[name] = edit(rng, table[name])
        else:
            table = edit(rng, table)
    text = json.dumps(table, separators=(",", ":")).encode()
    if rng.random() < 0.05:
        text = text.replace(b",", b"," + text[1:].split(b",")[0] + b",", 1)  # perhaps a repeated key
    return reseal(keep_length(octets[:8] + text + octets[end:], octets))


def relayout(rng: random.Random, octets: bytes) -> bytes:
    """Describe random arrays whose sizes agree with their offsets; only places, names and the total may be wrong."""
    end = header_end(octets)
    table: dict[str, Any] = {}
    offset = rng.choice([0, 0, 0, 64, -64])
    for i in range(rng.randint(0, 6)):
        code, itemsize = rng.choice([("F32", 4), ("U8", 1), ("BOOL", 1), ("I64", 8), ("BF16", 2)])
        shape = [rng.choice([0, 1, 2, 8, 16, 64]) for _ in range(rng.randint(0, 3))]
        n_bytes = itemsize * int(np.prod(shape, dtype=object))
        name = rng.choice([f"a{i}", f"a{i}", f"a{i}", f"__pad{i}"])
        table[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, offset + n_bytes]}
        offset += n_bytes
    data = rng.choice([bytes, rng.randbytes])(max(offset, 0))
    ours = json.loads(json.loads(octets[8:end])["__metadata__"]["nearly"])
    ours["checksums"] = {name: "00000000" for name in table if not name.startswith("__pad")}
    table["__metadata__"] = {"crc32": "00000000", "nearly": json.dumps(ours)}
    text = json.dumps(table, separators=(",", ":")).encode()
    text = text.ljust(len(text) + -(8 + len(text)) % 4096)
    return reseal(len(text).to_bytes(8, "little") + text + data)


PLAIN: list[Mutator] = [flip_header, flip_data, truncate, extend, change_length, splice]  # always found
RESEALED: list[Mutator] = [splice_resealed, flip_resealed, edit_resealed, edit_resealed, edit_resealed, relayout]


def use(path: Path, mutant: bytes) -> bool:
    """Use whatever can be read; return whether the checksums agree. Raises FormatError, or it is a bug."""
    with storage.read(path) as file:
        assert file.n_bytes == len(mutant)
        assert 1 <= file.version <= storage.FORMAT_VERSION
        assert file.kind
        assert isinstance(file.kind, str)
        for name, array in file.arrays.items():
            assert not array.flags.writeable
            assert array.flags.c_contiguous
            assert array.nbytes <= len(mutant)
            assert array.size == 0 or (array.ctypes.data % 64 == 0 and array.tobytes() in mutant)
            assert array.dtype.str[1:] in DTYPES or array.dtype == np.bool_
            storage.require(file, name, "bfloat16" if name in file.bfloat16 else array.dtype, array.shape)
        if deserialize is not None:
            deserialize(mutant)  # raises for a file that is not valid safetensors
        for getter in (storage.config_int, storage.config_float, storage.config_str, storage.config_bool):
            for key in [*file.config, ("graph", "degree"), ("graph", "alpha")]:
                with contextlib.suppress(FormatError):
                    getter(file, key)
        try:
            file.verify()
        except FormatError:
            return False
    return True


def run(
    folder: Path, *, seed: int, mutations: int | None = None, seconds: float | None = None, start: int = 0
) -> collections.Counter[tuple[str, str]]:
    """Try mutations until one of the limits; return how often each mutator led to which end."""
    files = originals(folder)
    path = folder / "mutant"
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for i, rng in fuzzing.cases(seed, mutations, seconds, start):
        original, mutator = rng.choice(files), rng.choice(PLAIN + RESEALED)
        mutant = mutator(rng, original)
        path.unlink(missing_ok=True)  # never shrink a file that may still be mapped
        path.write_bytes(mutant)
        with fuzzing.repeatable(mutator.__name__, i, seed):
            try:
                end = "accepted" if use(path, mutant) else "found by verify"
            except FormatError as error:
                end = "refused"
                counts["reason", re.sub(r"[\d]+|'.*?'|\(.*\)", "", str(error))] += 1
        counts[mutator.__name__, end] += 1
        if mutator in PLAIN and mutant != original:
            assert end != "accepted", f"mutation {i} of seed {seed} ({mutator.__name__}) was not found"
    return counts


def main() -> None:
    arguments = fuzzing.arguments(__doc__, 20000)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(Path(folder), **vars(arguments))
    for (name, end), count in sorted(counts.items()):
        print(f"{count:8d}  {name}: {end}")
    total = sum(count for (name, _), count in counts.items() if name != "reason")
    print(f"{total} mutations of seed {arguments.seed} in {time.monotonic() - began:.0f} s, nothing wrong")


if __name__ == "__main__":
    sys.exit(main())
