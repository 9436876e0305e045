"""What a power cut leaves of a folder, from the trace of what was done to it (shim.c).

The disk has what was synced. Of writes that came after, any sectors of 512 bytes may have arrived; of names that were
made, changed or removed since their folder was synced, any first few may have.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
_HEAD = struct.Struct("<cQq3I")


@dataclass
class Node:
    """A file: its contents on the disk, and what was done since it was synced."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)

    def sync(self) -> None:
        for operation in self.pending:
            _apply(self.synced, operation)
        self.pending = []


def records(trace: bytes) -> Iterator[tuple[str, int, int, str, str, bytes]]:
    at = 0
    while at + _HEAD.size <= len(trace):
        op, node, offset, *lengths = _HEAD.unpack_from(trace, at)
        at += _HEAD.size
        if at + sum(lengths) > len(trace):  # it died while it wrote this down
            return
        pieces = []
        for length in lengths:
            pieces.append(trace[at : at + length])
            at += length
        yield op.decode(), node, offset, pieces[0].decode(), pieces[1].decode(), pieces[2]


def rebuild(trace: bytes, folder: Path, target: Path, rng: random.Random) -> None:
    """Make `target` what the disk would hold of `folder` after a power cut at the end of the trace."""
    nodes: dict[int, Node] = {}
    names: dict[str, int | None] = {}  # on the disk; None for a folder
    current: dict[str, int | None] = {}
    pending: list[tuple[str, str, str, int | None]] = []
    for op, number, offset, path, second, data in records(trace):
        if op == "C":
            nodes[number] = Node()  # an inode's number may be used again
            current[path] = number
            pending.append(("make", path, "", number))
        elif op == "D":
            current[path] = None
            pending.append(("make", path, "", None))
        elif op in "WT":
            nodes.setdefault(number, Node()).pending.append((op, offset, data))
        elif op == "S" and number in nodes and current.get(path, 0) is not None and path in current:
            nodes[number].sync()
        elif op == "S":  # a folder
            kept = []
            for change in pending:
                if str(Path(change[1]).parent) == path:
                    _rename(names, change)
                else:
                    kept.append(change)
            pending = kept
        elif op == "R":
            current[second] = current.pop(path)
            pending.append(("move", path, second, current[second]))
        elif op == "U":
            current.pop(path, None)
            pending.append(("drop", path, "", None))
    for change in pending[: rng.randint(0, len(pending)) if rng.random() < 0.7 else 0]:
        _rename(names, change)
    contents = {number: _torn(node, rng) for number, node in nodes.items()}
    target.mkdir(parents=True)
    for path, node_number in sorted(names.items(), key=lambda item: (item[1] is not None, item[0])):
        place = target / Path(path).relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        if node_number is None:
            place.mkdir(exist_ok=True)
        elif not path.endswith("-shm"):  # shared memory, which no disk ever sees whole
            place.write_bytes(contents[node_number])


def _rename(names: dict[str, int | None], change: tuple[str, str, str, int | None]) -> None:
    kind, path, second, number = change
    if kind == "make":
        names[path] = number
    elif kind == "drop":
        names.pop(path, None)
    else:
        names.pop(path, None)
        names[second] = number


def _apply(contents: bytearray, operation: tuple[str, int, bytes]) -> None:
    op, offset, data = operation
    if op == "T":
        if offset < len(contents):
            del contents[offset:]
        contents.extend(bytes(offset - len(contents)))
        return
    contents.extend(bytes(max(0, offset + len(data) - len(contents))))
    contents[offset : offset + len(data)] = data


def _torn(node: Node, rng: random.Random) -> bytes:
    contents = bytearray(node.synced)
    kept = rng.choice((0.0, 0.5, 1.0))
    for op, offset, data in node.pending:
        if op == "T":
            if rng.random() < kept:
                _apply(contents, (op, offset, data))
            continue
        begin = 0
        while begin < len(data):
            end = min(len(data), (offset + begin) // SECTOR * SECTOR + SECTOR - offset)
            if rng.random() < kept:
                _apply(contents, ("W", offset + begin, data[begin:end]))
            begin = end
    return bytes(contents)
