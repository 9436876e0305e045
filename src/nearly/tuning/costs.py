"""What a filtered search costs by each way, in nanoseconds: the numbers that its planner compares.

Those written here were measured on one machine. A machine's own are measured when a user asks for it (`measure_costs`)
and kept in a file of this machine, outside of every index: never by themselves, since plans, and with them answers,
would change at some moment. Mostly their proportions matter, which vary less than the numbers.
"""

import json
import math
import os
import platform
import secrets
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nearly import runtime
from nearly.errors import InputError

__all__ = ["LIST", "TOGETHER", "WRITTEN", "Costs", "again", "compared", "costs_file", "current", "exactly", "prepared",
           "save", "scanned", "together", "use", "written_only"]  # fmt: skip

LIST = 3.0  # reading a list and testing its neighbors, of which few or none are compared, in comparisons of a walk
TOGETHER = 4  # queries from which on the core compares a panel of them at once
_LINE = 64  # bytes of a cache line
_CACHE = 1 << 18  # bytes of the second cache that chosen vectors may fill
_CALLED = 1000.0  # a function of the user's
_VARIABLE, _OF_THE_CODE = "NEARLY_COSTS", "written"
_MOST = 1e6  # nanoseconds that a file may say

Line = tuple[float, float]  # what something begins with, and what each cache line of a code or vector adds


@dataclass(frozen=True, slots=True)
class Costs:
    """Nanoseconds, on one machine.

    Attributes
    ----------
    compared : (float, float)
        One comparison during a walk, with what belongs to it: what it begins with, and for each cache line.
    scanned : (float, float)
        One comparison of a scan of chosen codes.
    exactly : (float, float)
        One comparison of a scan of chosen vectors.
    again : (float, float)
        The same for queries of a batch, which find few vectors in the cache.
    panel : (float, float)
        A row of codes by a panel of queries, and for each four codes of it.
    prepared : float
        A query made ready for codes, for each byte of a code and dimension: a product with a matrix, mostly.
    """

    compared: Line = (13.0, 3.3)
    scanned: Line = (0.8, 3.3)
    exactly: Line = (6.1, 2.9)
    again: Line = (6.0, 0.5)
    panel: Line = (30.0, 0.6)
    prepared: float = 0.035


WRITTEN = Costs()
_current: Costs | None = None


def current() -> Costs:
    """Return the costs that plans are made by: this machine's own, if they were measured, else those written here.

    Raises
    ------
    InputError
        If the variable ``NEARLY_COSTS`` names a file that holds no costs. It may also say ``written``.
    """
    global _current
    if _current is None:
        _current = _found()
    return _current


def use(costs: Costs | None) -> None:
    """Make plans by these costs from now on, in this process; None: by what `current` finds."""
    global _current
    _current = costs


def costs_file() -> Path:
    """Return where the costs of this machine are kept, with the CPU target in use: a cache that others may share.

    Or the file that ``NEARLY_COSTS`` names.

    Raises
    ------
    InputError
        If there is no home folder.
    """
    named = os.environ.get(_VARIABLE, "")
    if named not in ("", _OF_THE_CODE):
        return Path(named)
    cpu = next((line for line in _about_the_cpu() if line.startswith("model name")), platform.processor())
    name = f"{cpu} {platform.machine()} {os.cpu_count()} {runtime.simd_target()}"
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not folder.is_absolute():  # which the XDG specification says to ignore
        try:
            folder = Path.home() / ".cache"
        except RuntimeError as problem:
            raise InputError(f"there is no home folder to keep costs in; set {_VARIABLE} to a file") from problem
    return folder / "nearly" / f"costs-{zlib.crc32(name.encode()):08x}.json"


def written_only() -> bool:
    """Whether ``NEARLY_COSTS`` says that only those of the code are used."""
    return os.environ.get(_VARIABLE, "") == _OF_THE_CODE


def save(costs: Costs, path: Path) -> None:
    """Write costs to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    part.write_text(json.dumps({"costs": 1, **asdict(costs)}) + "\n")
    part.replace(path)


def compared(n_bytes: int, by: Costs | None = None) -> float:
    """One comparison during a walk, with what belongs to it, by code or vector of so many bytes."""
    return _CALLED if not n_bytes else _at((by or current()).compared, _lines(n_bytes))


def scanned(n_bytes: int, by: Costs | None = None) -> float:
    """One comparison of a scan of chosen codes."""
    return _at((by or current()).scanned, _lines(n_bytes))


def together(n_bytes: int, n_queries: int, width: int) -> float:
    """The same for each of the queries that are compared by panels of `width`: each row is read once for all."""
    panels, costs = -(-n_queries // width), current()
    return (costs.scanned[1] * _lines(n_bytes) + panels * _at(costs.panel, n_bytes / 4)) / n_queries


def prepared(n_bytes: int, dim: int) -> float:
    """A query of so many dimensions made ready for codes of so many bytes."""
    return current().prepared * n_bytes * dim


def exactly(n_bytes: int, by: Costs | None = None) -> float:
    """One comparison of a scan of chosen vectors."""
    return _CALLED if not n_bytes else _at((by or current()).exactly, _lines(n_bytes))


def again(n_bytes: int, n_rows: int) -> float:
    """The same for queries of a batch."""
    return _at(current().again, _lines(n_bytes)) if 0 < n_rows * n_bytes <= _CACHE else exactly(n_bytes)


def _at(line: Line, n: float) -> float:
    return line[0] + line[1] * n


def _lines(n_bytes: int) -> int:
    return -(-n_bytes // _LINE)


def _about_the_cpu() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _found() -> Costs:
    if written_only():
        return WRITTEN
    if named := os.environ.get(_VARIABLE, ""):
        return _read(Path(named))
    try:
        path = costs_file()
        return _read(path) if path.is_file() else WRITTEN
    except (InputError, OSError) as problem:  # a cache may hold anything; there may be no home
        warnings.warn(f"costs of this machine are not used: {problem}", stacklevel=3)
        return WRITTEN


def _read(path: Path) -> Costs:
    try:
        held = json.loads(path.read_text())
        return _of(held)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as problem:
        raise InputError(
            f"{path} holds no costs of a machine ({problem}); measure them anew by `nearly costs --measure`, or set "
            f"{_VARIABLE}={_OF_THE_CODE}"
        ) from problem


def _of(held: Mapping[str, Any]) -> Costs:
    if held["costs"] != 1:
        raise ValueError("they are of another version")
    values: dict[str, Any] = {}
    for field in fields(Costs):
        numbers = held[field.name] if field.name != "prepared" else [held[field.name], 0.0]
        if not isinstance(numbers, list) or any(type(number) not in (int, float) for number in numbers):
            raise TypeError(f"{field.name} is no numbers")
        first, rest = (float(number) for number in numbers)
        if not (0 <= first <= _MOST and 0 <= rest <= _MOST and first + rest > 0 and math.isfinite(first + rest)):
            raise ValueError(f"{field.name} is out of range")
        values[field.name] = (first, rest) if field.name != "prepared" else first
    return Costs(**values)
