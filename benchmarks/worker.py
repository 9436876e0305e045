"""One peer in a process of its own. The driver asks by JSON lines on stdin; this answers on what was stdout.

The process holds the vectors, the queries and the index, nothing else: its memory is the peer's. Answers' ids go
through a file, so that the pipe carries figures only. What a process can be asked for is a session: the one here, or
that of another script which calls `serve` (keeper.py).
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import measure
import numpy as np
import peers
from datasets import Dataset

K = 10


class Session:
    """What the process can be asked for: one method per request."""

    def __init__(self, folder: Path, name: str, metric: str, core: int) -> None:
        self.folder, self.core = folder, core
        self.peer = peers.make_peer(name, metric)
        self.vectors, self.queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")

    def build(self, threads: int) -> dict[str, Any]:
        """Build on `threads` cores; memory is counted on top of the library and the loaded vectors and queries."""
        importlib.import_module(self.peer.package)  # so that importing it is no part of the build
        self._use(threads)
        self.peer.warm()
        before = measure.memory_bytes()
        measure.reset_peak()
        took = measure.timed(lambda: self.peer.build(self.vectors, threads))
        return {
            "build_seconds": took.seconds,
            "build_cpu_seconds": took.cpu_seconds,
            "peak_bytes": measure.memory_bytes("VmHWM") - before,
            "resident_bytes": measure.memory_bytes() - before,
            "efforts": self.peer.efforts(),
            "asks": self.peer.asks,
        }

    def search(self, mode: str, effort: list[float], n_queries: int, keep: bool) -> dict[str, Any]:
        """Make one pass over the first queries: "batch", "single" or "all"; `keep` writes the ids to ids.npy."""
        threads = len(measure.CPUS) if mode == "all" else 1
        self._use(threads)
        self.peer.tune(tuple(effort), threads)
        peer, queries = self.peer, self.queries[:n_queries]
        if mode == "single":
            took = measure.timed(lambda: [peer.one(query, K) for query in queries])
        else:
            took = measure.timed(lambda: peer.batch(queries, K))
        if keep:
            keep_ids(self.folder, took.result)
        return {"seconds": took.seconds, "cpu_seconds": took.cpu_seconds}

    def size(self) -> dict[str, Any]:
        """Write the index and return its bytes, and how many of them only rank what codes have found."""
        with tempfile.TemporaryDirectory(prefix="nearly-bench-") as folder:
            self.peer.save(Path(folder))
            return {
                "index_bytes": measure.folder_bytes(Path(folder)),
                "rank_bytes": self.peer.rank_bytes(Path(folder)),
            }

    def _use(self, threads: int) -> None:
        use_threads(threads, self.core)


def use_threads(threads: int, core: int) -> None:
    """Pin every thread to one core, or let them all go; also libraries that take no thread count obey."""
    measure.pin([core] if threads == 1 else measure.CPUS)
    with suppress(ImportError):
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)


def keep_ids(folder: Path, answers: Any) -> None:
    """Write the ids of each query's answer to ids.npy, -1 where there are fewer than K."""
    rows = [np.asarray(row).ravel()[:K].astype(np.int64) for row in answers]
    np.save(folder / "ids.npy", np.stack([np.pad(row, (0, K - len(row)), constant_values=-1) for row in rows]))


def serve(make: Callable[[Path, str, str, int], Any]) -> None:
    """Make a session, then answer requests, each the name of a method of it, until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print to stdout
    folder, name, metric, core = sys.argv[1:]
    session = make(Path(folder), name, metric, int(core))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(session, request.pop("do"))(**request)
        except Exception as error:  # whatever a library raises is an answer to the driver
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers)


@contextmanager
def shared(data: Dataset) -> Iterator[Path]:
    """Write vectors and queries once for all workers, and end the workers too when the driver is asked to end."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # shells let background jobs ignore SIGINT
        signal.signal(ending, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="nearly-bench-") as name:
        folder = Path(name)
        np.save(folder / "vectors.npy", data.vectors)
        np.save(folder / "queries.npy", data.queries)
        yield folder


class PeerError(Exception):
    """A peer failed, died or took too long."""


class Worker:
    """The driver's end: starts the process, asks, and ends it.

    `script` is a file beside this one that calls `serve`, `environment` what its process finds there besides.
    """

    def __init__(
        self, data_folder: Path, name: str, metric: str, core: int, *, label: str = "", script: str = "worker.py",
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.label = label or name
        self.scratch = tempfile.TemporaryDirectory(prefix="nearly-bench-")
        self.folder = Path(self.scratch.name)
        for part in data_folder.iterdir():
            (self.folder / part.name).symlink_to(part)
        self.log = (self.folder / "log").open("w+b")
        command = [sys.executable, str(Path(__file__).with_name(script)), str(self.folder), name, metric, str(core)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "TMPDIR": str(self.folder), **(environment or {})},
            bufsize=0,
            start_new_session=True,
        )

    def ask(self, do: str, *, timeout: float = 300, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises
        ------
        PeerError
            If the peer raises, ends or does not answer in `timeout` seconds; it is ended then.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        deadline, answer = time.monotonic() + timeout, b""
        try:
            self.process.stdin.write((json.dumps({"do": do, **arguments}) + "\n").encode())
        except BrokenPipeError:
            raise PeerError(self._last_words()) from None
        while not answer.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.close()
                raise PeerError(f"{do} took more than {timeout:.0f} s")
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise PeerError(self._last_words())
            answer += piece
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply

    def search(self, mode: str, effort: list[float], n_queries: int, *, keep: bool = False) -> dict[str, Any]:
        """Ask for one pass; see `Session.search`."""
        return self.ask("search", mode=mode, effort=effort, n_queries=n_queries, keep=keep)

    def warm_up(self, effort: list[float], modes: list[str], n_queries: int = 20) -> None:
        """Throw away the first calls: lazy set-up, page faults, thread pools."""
        for mode in modes:
            self.search(mode, effort, n_queries)

    def size(self) -> dict[str, Any]:
        """Return the bytes of the saved index, or why there is none."""
        try:
            return self.ask("size")
        except PeerError as error:
            return {"index_bytes": None, "size_error": str(error)}

    def ids(self) -> Any:
        """Return the ids of the last pass that kept them."""
        return np.load(self.folder / "ids.npy")

    def close(self) -> None:
        """End the process and its children."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                stream.close()
        self.scratch.cleanup()

    def _last_words(self) -> str:
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines() or [""]
        return f"the process ended with status {status}: {lines[-1][:200]}"


if __name__ == "__main__":
    serve(Session)
