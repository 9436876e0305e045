"""One database in a process of its own: fills it, opens it, searches it. The protocol is that of worker.py.

The driver lets one process fill a folder, and others open it, so that what is searched was read back from the disk.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import databases
import measure
import numpy as np
import records
from worker import K, keep_ids, serve, use_threads

# lancedb's are left alone: on one core they change nothing, and with LANCE_IO_THREADS=1 version 0.40 waits for ever
LIMITS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")


def environment(threads: int) -> dict[str, str]:
    """Return what tells libraries how many threads to start; none calls home or downloads anything."""
    return {**dict.fromkeys(LIMITS, str(threads)), "ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}


class Session:
    """What the process can be asked for: one method per request."""

    def __init__(self, folder: Path, name: str, metric: str, core: int) -> None:
        self.folder, self.core = folder, core
        self.database = databases.make_database(name, metric)
        self.queries = np.load(folder / "queries.npy")
        self.filters = records.read_filters(folder)

    def fill(self, path: str, threads: int) -> dict[str, Any]:
        """Make a database of all rows: added, indexed, closed, and every file of it on the disk."""
        rows, folder, database = records.read_rows(self.folder), Path(path), self.database
        use_threads(threads, self.core)
        importlib.import_module(database.package)  # so that importing it is no part of the work
        before = measure.memory_bytes()
        measure.reset_peak()
        steps = {"add": lambda: database.add(folder, rows), "index": lambda: database.index(len(rows), threads)}
        steps |= {"close": database.close, "sync": lambda: synced(folder)}
        took = {name: measure.timed(step) for name, step in steps.items()}
        return {
            **{f"{name}_seconds": step.seconds for name, step in took.items()},
            "cpu_seconds": sum(step.cpu_seconds for step in took.values()),
            "peak_bytes": measure.memory_bytes("VmHWM") - before,
            "disk_bytes": measure.folder_bytes(folder),
        }

    def open(self, path: str) -> dict[str, Any]:
        """Open what was filled, and search for the first time."""
        use_threads(1, self.core)
        database, before = self.database, measure.memory_bytes()
        imported = measure.timed(lambda: importlib.import_module(database.package))
        opened = measure.timed(lambda: database.open(Path(path)))
        efforts = database.efforts()
        database.tune(tuple(efforts[0][0]))
        first = measure.timed(lambda: database.one(self.queries[0], K, None))
        return {
            "import_seconds": imported.seconds,
            "open_seconds": opened.seconds,
            "open_cpu_seconds": opened.cpu_seconds,
            "first_search_seconds": first.seconds,
            "resident_bytes": measure.memory_bytes() - before,
            "efforts": efforts,
            "asks": database.asks,
        }

    def search(self, mode: str, effort: list[float], n_queries: int, keep: bool) -> dict[str, Any]:
        """Search for the first queries one by one under a filter, whose name is the mode."""
        use_threads(1, self.core)
        database, conditions = self.database, self.filters[mode]
        database.tune(tuple(effort))
        where, queries = database.where(conditions) if conditions else None, self.queries[:n_queries]
        took = measure.timed(lambda: [database.one(query, K, where) for query in queries])
        if keep:
            keep_ids(self.folder, took.result)
        return {"seconds": took.seconds, "cpu_seconds": took.cpu_seconds}


def synced(folder: Path) -> None:
    """Have every file and folder on the disk, also of libraries that leave it to the system."""
    for path in (folder, *folder.rglob("*")):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


if __name__ == "__main__":
    # lancedb asks sys.modules for the library of the name `datasets`, and would find ours
    sys.modules.pop("datasets", None)
    del sys.path[0]
    serve(Session)
