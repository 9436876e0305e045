"""Headers, which may be hostile: every number is checked before use."""

import math
import re
import zlib
from typing import Any, NamedTuple

from nearly.errors import FormatError
from nearly.storage.layout import (
    ARRAY_ALIGNMENT,
    DAMAGED,
    DATA_ALIGNMENT,
    DEPTH_LIMIT,
    DTYPES,
    FORMAT_VERSION,
    INT_LIMITS,
    SEAL,
    Entry,
    is_int,
    shape_problem,
)

__all__ = ["Header", "parse"]


class Header(NamedTuple):
    """What a header says, after every check that needs no data."""

    kind: str
    version: int
    config: dict[str, Any]
    checksums: dict[str, int]
    entries: list[Entry]  # offsets count from the beginning of the file
    n_bytes: int  # of the file


def parse(text: bytes) -> Header:
    """Check a header: ours or foreign, intact or not, new or old, and then every entry."""
    table = _load_json(text, "the header")
    if b"\\u" in text:
        _check_unicode(table)
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("nearly"), str):
        raise FormatError("a safetensors file of another program; pass a file that save() wrote")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"not all metadata of the header are strings; {DAMAGED}")
    _check_seal(text, metadata)
    ours = _load_json(metadata["nearly"], "our part of the header")
    version = ours.get("version")
    if ours.get("format") != "nearly" or not isinstance(version, int) or version is True or version < 1:
        raise FormatError(f"the header names neither our format nor its version; {DAMAGED}")
    if version > FORMAT_VERSION:
        raise FormatError(
            f"written in format version {version}, but this nearly reads up to {FORMAT_VERSION}; "
            "upgrade it: pip install -U nearly"
        )
    kind, config, checksums = ours.get("kind"), ours.get("config"), ours.get("checksums")
    if not (isinstance(kind, str) and kind and isinstance(config, dict) and isinstance(checksums, dict)):
        raise FormatError(f"the header has no kind, config or checksums; {DAMAGED}")
    start = 8 + len(text)
    if start % DATA_ALIGNMENT:
        raise FormatError(f"data begins at {start}, not at a multiple of {DATA_ALIGNMENT}; {DAMAGED}")
    entries = [entry._replace(begin=start + entry.begin, end=start + entry.end) for entry in _checked_entries(table)]
    if checksums.keys() != {entry.name for entry in entries if not entry.is_padding}:
        raise FormatError(f"arrays and checksums have different names; {DAMAGED}")
    sums = {name: _unhex(checksum) for name, checksum in checksums.items()}
    return Header(kind, version, config, sums, entries, entries[-1].end if entries else start)


_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: linear on any input
_ONLY_BRACKETS = {code: {"[": "[", "{": "[", "]": "]", "}": "]"}.get(chr(code)) for code in range(128)}
_DIGITS_TO_ZERO = str.maketrans("123456789E", "000000000e", "+")


def _load_json(source: str | bytes, what: str) -> dict[str, Any]:
    """Parse JSON that may be hostile: no deep nesting, no repeated key, no NaN, no number beyond 64 bits."""
    import json  # late: only files need it

    try:
        text = source.decode() if isinstance(source, bytes) else source
        bare = _STRINGS.sub("", text)
        brackets = bare.translate(_ONLY_BRACKETS)
        for _ in range(DEPTH_LIMIT):  # each round removes the innermost level
            brackets = brackets.replace("[]", "")
        if "[" in brackets:
            raise ValueError(f"nested more than {DEPTH_LIMIT} deep, or brackets that do not match")
        checks: dict[str, Any] = {}
        digits = bare.translate(_DIGITS_TO_ZERO)
        if "0" * 19 in digits or "e000" in digits:  # perhaps a large number; else the parser needs no slow calls
            checks = {"parse_int": _small_int, "parse_float": _finite}
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, **checks)
    except ValueError as error:
        raise FormatError(f"{what} is not valid JSON ({error}); {DAMAGED}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object; {DAMAGED}")
    return value


def _check_unicode(value: Any) -> None:
    """Refuse half surrogate pairs, which only Python lets through as escapes."""
    import json

    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"the header is not valid Unicode; {DAMAGED}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _small_int(text: str) -> int:
    if len(text) > 20 or not INT_LIMITS[0] <= int(text) <= INT_LIMITS[1]:
        raise ValueError("an integer beyond 64 bits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond the floats")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _check_seal(text: bytes, metadata: dict[str, Any]) -> None:
    seal = SEAL % _unhex(metadata.get("crc32"))
    if text.count(seal) != 1 or zlib.crc32(text.replace(seal, SEAL % 0)) != int(metadata["crc32"], 16):
        raise FormatError(f"the checksum of the header is wrong; {DAMAGED}")


def _unhex(value: Any) -> int:
    if not (isinstance(value, str) and re.fullmatch("[0-9a-f]{8}", value)):
        raise FormatError(f"a checksum is not eight hexadecimal digits; {DAMAGED}")
    return int(value, 16)


def _checked_entries(table: dict[str, Any]) -> list[Entry]:
    """Return the arrays of the header in the order of their offsets, which leave no hole and no overlap."""
    entries = sorted((_checked_entry(name, info) for name, info in table.items()), key=lambda entry: entry[-2:])
    offset = 0
    for entry in entries:
        if entry.begin != offset:
            raise FormatError(f"array {entry.name[:80]!r} begins at {entry.begin}, not at {offset}; {DAMAGED}")
        offset = entry.end
    return entries


def _checked_entry(name: str, info: Any) -> Entry:
    where = f"array {name[:80]!r}"
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} needs dtype, shape, data_offsets and nothing else; {DAMAGED}")
    code, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise FormatError(f"{where} has the unknown dtype {repr(code)[:80]}; {DAMAGED}")
    if not isinstance(shape, list) or shape_problem(shape, DTYPES[code].itemsize):
        raise FormatError(f"{where} has the impossible shape {repr(shape)[:80]}; {DAMAGED}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(is_int, offsets))):
        raise FormatError(f"{where} has the impossible offsets {repr(offsets)[:80]}; {DAMAGED}")
    entry = Entry(name, code, tuple(shape), *offsets)
    if entry.begin < 0 or entry.end - entry.begin != math.prod(shape) * DTYPES[code].itemsize:
        raise FormatError(f"{where} takes bytes {entry.begin} to {entry.end}, which its shape denies; {DAMAGED}")
    if entry.is_padding:
        if code != "U8" or len(shape) != 1 or not 0 < shape[0] < ARRAY_ALIGNMENT:
            raise FormatError(f"{where} is no padding of ours; {DAMAGED}")
    elif entry.begin % ARRAY_ALIGNMENT or not name or name.startswith("__"):
        raise FormatError(f"{where} has a name or a place that we never give; {DAMAGED}")
    return entry
