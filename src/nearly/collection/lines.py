"""JSON Lines (https://jsonlines.org): a JSON value on each line of a text file, read with an error that names the line.

JSON has no bytes: a document of bytes is written as MongoDB's Extended JSON v2 has it,
``{"$binary": {"base64": "...", "subType": "00"}}``.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nearly.arrays.words import describe
from nearly.errors import IdError, InputError

__all__ = ["SUFFIXES", "Lines", "binary", "from_binary", "rows_of", "values_of"]

SUFFIXES = (".jsonl", ".ndjson")
_ROWS = 16384  # lines that are taken at a time
_OCTETS = 64 << 20  # or so much text
_LONGEST = 256 << 20  # octets of a line
_BOM = b"\xef\xbb\xbf"


class Lines(list[dict[str, Any]]):
    """Some rows of a file, and the line of each.

    Parameters
    ----------
    name : str
        Of the file.
    rows : sequence of dict
    numbers : sequence of int
    """

    def __init__(self, name: str, rows: Sequence[dict[str, Any]] = (), numbers: Sequence[int] = ()) -> None:
        super().__init__(rows)
        self.name, self.numbers = name, list(numbers)

    def at_fault(self, check: Callable[["Lines"], object], problem: InputError) -> InputError:
        """The error of a check that these rows did not pass, with the first line that is to blame.

        What is wrong with some rows is wrong with more of them too, so the shortest beginning that fails is found by
        halving.
        """
        low, high = 0, len(self)  # so many pass, so many do not
        while high - low > 1:
            middle = (low + high) // 2
            try:
                check(Lines(self.name, self[:middle], self.numbers[:middle]))
                low = middle
            except InputError as earlier:
                high, problem = middle, earlier
        first = self.numbers[0]
        before = f"; rows of the lines before {first} were taken" if first > 1 else ""
        kind = IdError if isinstance(problem, IdError) else InputError
        return kind(f"line {self.numbers[high - 1]} of {self.name}: {problem} (row 0 is line {first}{before})")


def values_of(path: str | Path) -> Iterator[tuple[int, Any, int]]:
    """Yield the number of each line, what it says, and its octets; lines without a word are passed over.

    Raises
    ------
    InputError
        Where a line is no UTF-8, no JSON, names something twice in one object, or has no end within 256 MiB.
    """
    name = Path(path).name
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(_LONGEST + 1):
            number += 1
            if len(line) > _LONGEST:
                raise InputError(f"line {number} of {name} is longer than {_LONGEST >> 20} MiB; is it JSON lines?")
            line = line.removeprefix(_BOM) if number == 1 else line
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode(), parse_constant=_refuse, object_pairs_hook=_once), len(line)
            except UnicodeDecodeError as problem:
                raise InputError(f"line {number} of {name} is no UTF-8 ({problem.reason}); write it as that") from None
            except RecursionError:
                raise InputError(f"line {number} of {name} is nested too deep") from None
            except ValueError as problem:
                raise InputError(f"line {number} of {name} is no JSON: {problem}") from None


def rows_of(path: str | Path) -> Iterator[Lines]:
    """Yield the rows of a file of objects, some at a time.

    Raises
    ------
    InputError
        Where a line is no object, and as `values_of`.
    """
    name = Path(path).name
    rows, size = Lines(name), 0
    for number, value, n_octets in values_of(path):
        if not isinstance(value, dict):
            raise InputError(f"line {number} of {name} is {describe(value)}, but an object with a row is wanted")
        rows.append(value)
        rows.numbers.append(number)
        size += n_octets
        if len(rows) >= _ROWS or size >= _OCTETS:
            yield rows
            rows, size = Lines(name), 0
    if rows:
        yield rows


def binary(octets: bytes) -> dict[str, dict[str, str]]:
    """Bytes as JSON has them.

    Examples
    --------
    >>> binary(b"abc")
    {'$binary': {'base64': 'YWJj', 'subType': '00'}}
    >>> from_binary(binary(b"abc"))
    b'abc'
    """
    return {"$binary": {"base64": base64.b64encode(octets).decode(), "subType": "00"}}


def from_binary(document: Any) -> Any:
    """The bytes that `binary` wrote; anything else as it came."""
    inner = document.get("$binary") if isinstance(document, Mapping) and len(document) == 1 else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("base64"), str):
        return document
    try:
        return base64.b64decode(inner["base64"], validate=True)
    except ValueError:
        return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has two values for {next(n for n in names if names.count(n) > 1)!r}")
    return made


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no value of JSON; write null where there is none")
