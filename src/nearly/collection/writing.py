"""The one writer: checks a write against the state, commits it, publishes the next state.

Threads that write at the same time share commits: whoever comes first takes along all that wait, so that the disk is
synced once for all of them. Readers use the state that was published last and never wait.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nearly.collection.catalogue import Catalogue
from nearly.collection.parts import Part
from nearly.collection.records import Record
from nearly.collection.state import State, stored
from nearly.collection.volumes import Volume, names_of
from nearly.errors import StateError

__all__ = ["Limits", "Plan", "Writer"]

# What a write comes to in a state: the state with its schema, the records to log, and what the caller is given.
Plan = tuple[State, Sequence[Record], Any]

_TOGETHER = 16 << 20  # bytes of writes that share a commit
_PATIENCE = 0.3  # of the time of a commit that the next one waits for more to come; chosen by hand


@dataclass(frozen=True)
class Limits:
    """Sizes at which data takes another form.

    Attributes
    ----------
    tail_rows, tail_bytes : int
        Of a tail that becomes a segment, and of a batch that goes into one of its own, past the log. Comparing with so
        many rows takes about a millisecond.
    draft_rows : int
        Rows from which a graph is worth its building; fewer are scanned (indexes/choose.py).
    """

    tail_rows: int = 4096
    tail_bytes: int = 16 << 20
    draft_rows: int = 5000

    def tail_is_full(self, n_rows: int, n_bytes: int) -> bool:
        """Whether that many are more than a tail is to hold."""
        return n_rows >= self.tail_rows or n_bytes >= self.tail_bytes


class _Request:
    """A write that waits for its commit, or to lead the next one."""

    __slots__ = ("called", "done", "error", "plan", "result")

    def __init__(self, plan: Callable[[State], Plan]) -> None:
        self.plan, self.done, self.called = plan, False, threading.Event()
        self.error: BaseException | None = None
        self.result: Any = None


class Writer:
    """The state of a collection and the right to change it.

    Parameters
    ----------
    state : State
    catalogue : Catalogue or None
        None in memory.
    volume : Volume
    """

    def __init__(self, state: State, catalogue: Catalogue | None, volume: Volume) -> None:
        self.state, self.catalogue, self.volume = state, catalogue, volume
        self.mutex = threading.RLock()
        self.limits = Limits()
        self._queue: list[_Request] = []
        self._arrived = threading.Condition()  # guards the queue and who leads
        self._leading = False
        self._crowd, self._seconds = 0, 0.0  # of the last commit: who took part or came meanwhile, how long it took
        self._process = os.getpid()
        self.n_commits = 0  # of the log
        self.broken: BaseException | None = None  # why nothing can be written any more

    def check_process(self) -> None:
        """Refuse to write in a forked child: the parent holds the lock."""
        if self._process != os.getpid():
            raise StateError(
                f"this process was forked from process {self._process}, which holds the lock of the collection; write "
                "there, or close it there and open it here"
            )
        if self.broken is not None:
            raise StateError(f"nothing can be written since {self.broken!r}; close the collection and open it again")

    def submit(self, plan: Callable[[State], Plan]) -> Any:
        """Carry out a write, on the disk when this returns; raises what its plan raised."""
        self.check_process()
        request = _Request(plan)
        with self._arrived:
            self._queue.append(request)
            leads, self._leading = not self._leading, True
            self._arrived.notify()
        try:
            if not leads:
                request.called.wait()
            if not request.done:
                self._lead()
        except BaseException:  # Ctrl-C: whoever waits must not wait for us
            self._withdraw(request, leads)
            raise
        if request.error is not None:
            raise request.error
        return request.result

    def _withdraw(self, request: _Request, leads: bool) -> None:
        with self._arrived:
            if request in self._queue:
                self._queue.remove(request)
                if leads or request.called.is_set():
                    self._call_next()

    def _call_next(self) -> None:
        """Let the first who waits lead; the queue is guarded by the caller."""
        self._leading = bool(self._queue)
        if self._queue:
            self._queue[0].called.set()

    def _lead(self) -> None:
        """Commit all that wait, and call one of those who came meanwhile to lead the next commit."""
        taken: list[_Request] = []
        try:
            self._gather()
            with self.mutex:
                began = time.monotonic()
                self._commit(taken)
                self._seconds = time.monotonic() - began
        except BaseException as error:
            for request in taken:
                request.error = request.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            with self._arrived:
                self._crowd = len(taken) + len(self._queue)
                self._call_next()
            for request in taken:
                request.done = True
                request.called.set()

    def _gather(self) -> None:
        """Wait a little for those who shared the last commit: they are about to write again; one sync serves all."""
        if self._crowd < 2:
            return
        until = time.monotonic() + _PATIENCE * self._seconds
        with self._arrived:
            while len(self._queue) < self._crowd and (left := until - time.monotonic()) > 0:
                self._arrived.wait(left)

    def _commit(self, taken: list[_Request]) -> None:
        state = begun = self.state
        records: list[tuple[int, Record]] = []
        n_bytes = 0
        while n_bytes < _TOGETHER:
            with self._arrived:
                if not self._queue:
                    break
                request = self._queue.pop(0)
                taken.append(request)
            mine = []
            try:
                planned, wanted, request.result = request.plan(state)
                for sequence, record in enumerate(wanted, planned.sequence + 1):
                    planned = replace(record.apply(planned, sequence), sequence=sequence)
                    mine.append((sequence, record))
            except Exception as error:
                request.error = error
                state.tail.forget(state.fresh.n)
                continue
            state = planned
            records += mine
            n_bytes += sum(record.n_bytes for _, record in mine)
        if state is begun:
            return
        try:
            self._settle(state)
            if self.catalogue is not None:
                self.catalogue.append(records, None if state.schema is begun.schema else state.schema)
        except BaseException:
            begun.tail.forget(begun.fresh.n)
            raise
        self.state, self.n_commits = state, self.n_commits + 1

    def _settle(self, state: State) -> None:
        try:
            state.tail.settle()
        except BaseException as error:  # places of vectors and rows may differ from now on
            self.broken = error
            raise

    # -- segments ----------------------------------------------------------------------------------------------------

    def commit_segments(self, state: State, **more: Any) -> None:
        """Name the segments of a state in the catalogue, publish it, remove the files that none consists of any more.

        The mutex is held. Files that are not named yet stay: another thread may be about to name them.
        """
        gone = self._files(self.state) - self._files(state)
        if self.catalogue is not None:
            self.catalogue.write_segments(state.segments, **more)
        self.state = state
        self.volume.remove(gone)

    def clean(self) -> None:
        """Remove files that the catalogue does not name: when a collection is opened, nobody is writing any."""
        self.volume.clean(self._files(self.state))

    def _files(self, state: State) -> set[str]:
        if self.catalogue is None:
            return set()
        return set().union(*(names_of(stored(part).files) for part in state.segments))

    def current(self, part: Part) -> Part | None:
        """What has become of a part since: the one with the same source."""
        for each in self.state.segments:
            if each.source is part.source:
                return each
        return None
