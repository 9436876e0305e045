"""Kills a process that writes into a collection, again and again, and looks at what is left.

    LD_PRELOAD=build/crash/shim.so python tests/crash/driver.py --seed 1 --kills 300 --cuts 300

Each trial forks a child, which does random operations and reports each before and after. It dies at a random one of its
writes, syncs and renames, in kernel calls of Python and SQLite alike: by SIGKILL, or by a power cut, of which only what
was synced remains (power.py). Then everything that was reported as done must be there, and the operation that was under
way must be there whole, or not at all.
"""

import argparse
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import power

import nearly
from nearly.collection.writing import Limits

SHM = "/dev/shm" if Path("/dev/shm").is_dir() else None
DIM = 4
N_OPERATIONS = 30

Held = dict[str, tuple[Any, ...]]


def operations(seed: int) -> list[tuple[str, Any]]:
    """A random course of operations; each is a name and what it needs, and depends on the seed alone."""
    rng = random.Random(seed)
    keys: set[str] = set()
    made: list[tuple[str, Any]] = []
    serial = 0
    for _ in range(N_OPERATIONS):
        kind = rng.choices(
            ["add", "bulk", "upsert", "update", "delete", "flush", "compact", "reopen", "erase", "partition"],
            [8, 2, 4, 4, 4, 3, 1, 2, 1, 2],
        )[0]
        if kind in ("update", "delete", "erase", "upsert") and not keys:
            kind = "add"
        if kind == "partition" and not serial:  # there is no column yet
            kind = "add"
        if kind in ("add", "bulk"):
            n = rng.randint(1, 5) if kind == "add" else rng.randint(12, 30)
            chosen = [f"key {serial + i:06d}" for i in range(n)]
            serial += n
            made.append(("add", [(key, _row(rng)) for key in chosen]))
            keys |= set(chosen)
        elif kind in ("flush", "compact", "reopen"):
            made.append((kind, None))
        elif kind == "partition":
            made.append((kind, _workload(rng)))
        else:
            chosen = rng.sample(sorted(keys), rng.randint(1, min(4, len(keys))))
            if kind == "upsert":
                made.append((kind, [(key, _row(rng)) for key in chosen]))
            elif kind == "update":
                made.append((kind, [(key, rng.randint(0, 9)) for key in chosen]))
            else:
                made.append((kind, chosen))
                keys -= set(chosen)
    return made


def _row(rng: random.Random) -> tuple[tuple[int, ...], int, str]:
    return tuple(rng.randint(-3, 3) for _ in range(DIM)), rng.randint(0, 9), f"text {rng.random()}"


def _workload(rng: random.Random) -> list[Any] | None:
    """Filters that divide the rows, with vectors or without; None to forget what they came to."""
    choice = rng.randint(0, 3)
    if not choice:
        return None
    below = [{"number": {"$lt": rng.randint(2, 8)}} for _ in range(3)]
    return [(_row(rng)[0], where) for where in below] if choice == 1 else below


def after(held: Held, operation: tuple[str, Any]) -> Held:
    """What the model holds after an operation."""
    kind, what = operation
    if kind in ("add", "upsert"):
        return held | dict(what)
    if kind == "update":
        return held | {key: (held[key][0], number, held[key][2]) for key, number in what}
    if kind in ("delete", "erase"):
        return {key: row for key, row in held.items() if key not in set(what)}
    return held


def opened(folder: Path, durable: bool = True, background: bool = False) -> Any:
    docs = nearly.open(folder, background=background, durable=durable)
    docs._writer.limits = Limits(tail_rows=12, draft_rows=10)
    return docs


def perform(docs: Any, operation: tuple[str, Any], folder: Path, how: tuple[bool, bool]) -> Any:
    kind, what = operation
    if kind in ("add", "upsert"):
        put = docs.add if kind == "add" else docs.upsert
        vectors = np.array([row[0] for _, row in what], np.float32)
        numbers, texts = [row[1] for _, row in what], [row[2] for _, row in what]
        put(vectors, ids=[key for key, _ in what], metadata={"number": numbers}, documents=texts)
    elif kind == "update":
        docs.update([key for key, _ in what], metadata={"number": [number for _, number in what]})
    elif kind == "partition":
        docs.partition_for(what, **({} if what is None else {"min_rows": 3, "max_parts": 4}))
    elif kind == "reopen":
        docs.close()
        return opened(folder, *how)
    else:
        getattr(docs, kind)(*([] if what is None else [what]))
    return docs


def check(folder: Path, possible: list[Held]) -> str:
    """What is wrong with a folder that must hold one of some contents; "" if nothing is."""
    docs = opened(folder)
    try:
        docs.verify()
        rows = docs.get(include=["metadata", "document", "vector"])
        found = {r.id: (tuple(r.vector.astype(int).tolist()), r.metadata["number"], r.document) for r in rows}
        if found not in possible:
            lost = sorted(possible[-1].keys() - found.keys())[:5]
            return f"{len(found)} rows, but {[len(p) for p in possible]} were expected; lost {lost}"
        docs.add(np.zeros((1, DIM)), ids=["one more"], metadata={"number": [1]}, documents=["x"])
        docs.flush()
        docs.close()
        docs = opened(folder)
        docs.verify()
        if len(docs) != len(found) + 1:
            return "what was added afterwards is not there"
        return ""
    finally:
        docs.close()


class Trial:
    """One course of operations, in a folder of its own."""

    def __init__(self, seed: int, durable: bool, background: bool) -> None:
        self.course, self.durable, self.background = operations(seed), durable, background
        self.room = Path(tempfile.mkdtemp(prefix="crash-", dir=SHM))
        self.folder = self.room / "docs"
        self.reports = self.room / "reports"
        self.trace = self.room / "trace"

    def run(self, kill_at: int, torn: bool, traced: bool) -> tuple[int, int]:
        """Let a child run; returns its status, and how many calls it made if it lived."""
        shutil.rmtree(self.folder, ignore_errors=True)
        counted, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(counted)
            try:
                self._child(kill_at, torn, traced, told)
            except BaseException:
                traceback.print_exc()
                os._exit(3)
            os._exit(0)
        os.close(told)
        with os.fdopen(counted) as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        return status, int(text or 0)

    def _child(self, kill_at: int, torn: bool, traced: bool, told: int) -> None:
        shim = ctypes.CDLL(None)
        reports = os.open(self.reports, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        trace = os.open(self.trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if traced else -1
        self.folder.mkdir()
        shim.crash_arm(str(self.folder).encode(), ctypes.c_long(kill_at), int(torn), trace)
        how = self.durable, self.background
        docs = opened(self.folder, *how)
        for operation in self.course:
            os.write(reports, b"<")
            docs = perform(docs, operation, self.folder, how)
            os.write(reports, b">")
        docs.close()
        shim.crash_counted.restype = ctypes.c_long
        os.write(told, str(shim.crash_counted()).encode())

    def possible(self, cut: bool) -> list[Held]:
        """What may be there: all operations that were reported as done, and perhaps the one under way.

        After a power cut, without durability, the last ones may be missing, each whole.
        """
        text = self.reports.read_bytes() if self.reports.exists() else b""
        states: list[Held] = [{}]
        for operation in self.course[: text.count(b"<")]:
            states.append(after(states[-1], operation))
        return states if cut and not self.durable else states[text.count(b">") :]

    def verdict(self, folder: Path, cut: bool = False) -> str:
        """`check` in a child, so that this process never opens a collection."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                found = check(folder, self.possible(cut))
            except BaseException:
                found = traceback.format_exc()
            os.write(writing, found.encode()[:60000])
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            found = pipe.read()
        _, status = os.waitpid(child, 0)
        return found or ("" if status == 0 else f"the process that looked ended with {status}")

    def clean(self) -> None:
        shutil.rmtree(self.room, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--cuts", type=int, default=0)
    parser.add_argument("--every", action="store_true", help="kill at every call of the first course")
    parser.add_argument("--at", type=int, help="kill at this call only")
    parser.add_argument("--lazy", action="store_true", help="with durable=False")
    parser.add_argument("--background", action="store_true", help="with merges in a thread")
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    rng, began, failed, died = random.Random(arguments.seed), time.monotonic(), 0, 0
    wanted = ["kill"] * arguments.kills + ["cut"] * arguments.cuts
    rng.shuffle(wanted)
    trial, total, course = None, 0, arguments.seed
    for i, kind in enumerate(wanted):
        if time.monotonic() - began > arguments.seconds:
            break
        if trial is None or (i % 20 == 0 and not arguments.every):
            if trial is not None:
                trial.clean()
                course += 1
            trial = Trial(course, not arguments.lazy, arguments.background)
            status, total = trial.run(0, False, False)
            assert (status, total > 50) == (0, True), f"the course itself failed: {status}, {total}"
            problem = trial.verdict(trial.folder)
            assert not problem, problem
        at = arguments.at or (i % total + 1 if arguments.every else rng.randint(1, total))
        torn = rng.random() < 0.5
        status, _ = trial.run(at, torn, kind == "cut")
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if status == 0 and arguments.background:  # threads make another number of calls each time
            continue
        assert killed, f"it did not die at {at}: {status}"
        died += 1
        folder = trial.folder
        if kind == "cut":
            folder = trial.room / "rebuilt"
            shutil.rmtree(folder, ignore_errors=True)
            power.rebuild(trial.trace.read_bytes(), trial.folder, folder, random.Random(at))
        problem = trial.verdict(folder, kind == "cut")
        if problem:
            failed += 1
            print(f"{kind} at call {at} of {total}, course {course}{', torn' if torn else ''}: {problem}", flush=True)
    if trial is not None:
        trial.clean()
    print(f"{died} deaths, {failed} failed", flush=True)
    return int(failed > 0 or not died)


if __name__ == "__main__":
    sys.exit(main())
