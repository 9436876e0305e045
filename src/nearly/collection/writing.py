"""The one writer: checks a write against the state, commits it, publishes the next state.

Threads that write at the same time share commits: whoever comes first takes along all that wait, so that the disk is
synced once for all of them. Readers use the state that was published last and never wait.

Ctrl-C may come between any two steps. After a change that was broken off nobody knows how far it came, so the truth is
read again: from the catalogue, or in memory from the state that was published.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from nearly.collection.catalogue import Catalogue
from nearly.collection.grouping import Group, Plan
from nearly.collection.loading import load
from nearly.collection.parts import Part, Stored
from nearly.collection.records import Record
from nearly.collection.state import State, stored
from nearly.collection.volumes import Folder, Volume, names_of
from nearly.errors import StateError

__all__ = ["Limits", "Writer"]

_TOGETHER = 16 << 20  # bytes of writes that share a commit
_LOST = 1.0  # seconds after which who waits looks whether the one that leads is still there
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

    __slots__ = ("_gate", "called", "done", "error", "plan", "result")

    def __init__(self, plan: Callable[[State], Plan]) -> None:
        self.plan, self.done, self.called = plan, False, False
        self.error: BaseException | None = None
        self.result: Any = None
        self._gate = threading.Lock()  # shut until it is called; an Event takes more switches between threads
        self._gate.acquire()

    def wait(self) -> None:
        """Until it is called, or so long that the one who leads may be lost."""
        self._gate.acquire(timeout=_LOST)

    def call(self) -> None:
        """Its write is done, or it is to lead."""
        self.called = True
        with suppress(RuntimeError):  # it was called before
            self._gate.release()


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
        self._unsure = False  # a change was broken off, so that state and catalogue may differ

    def check_process(self) -> None:
        """Refuse to write in a forked child: the parent holds the lock."""
        if self._process != os.getpid():
            raise StateError(
                f"this process was forked from process {self._process}, which holds the lock of the collection; write "
                "there, or close it there and open it here"
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Alone, and from a state that is as the catalogue has it, whatever became of the change before."""
        with self.mutex:
            if self._unsure:
                self._read_again()
            try:
                yield
            except BaseException as error:
                if self._unsure or not isinstance(error, Exception):
                    self._unsure = True
                    with suppress(Exception):  # the next change tries again
                        self._read_again()
                raise

    def _read_again(self) -> None:
        before = self.state
        if self.catalogue is None:
            fresh = before.fresh
            self.state = replace(before, fresh=replace(fresh, source=before.tail.rebuilt(fresh.n)))
        else:
            assert isinstance(self.volume, Folder)
            self.state, _ = load(self.catalogue, self.volume, {stored(p).name: stored(p) for p in before.segments})
            self.volume.remove(self._files(before) - self._files(self.state))
        self._unsure = False

    def submit(self, plan: Callable[[State], Plan]) -> Any:
        """Carry out a write, on the disk when this returns; raises what its plan raised."""
        self.check_process()
        request, leads = _Request(plan), False
        try:
            with self._arrived:
                self._queue.append(request)
                leads, self._leading = not self._leading, True
                if len(self._queue) >= self._crowd:
                    self._arrived.notify()
            if leads:
                self._lead(request)
            while not request.done:
                request.wait()
                if not request.done:  # called to lead, or nobody does: Ctrl-C may end a leader
                    self._lead(request)
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
                if leads or request.called:
                    self._call_next()

    def _call_next(self) -> None:
        """Let the first who waits lead; the queue is guarded by the caller."""
        self._leading = bool(self._queue)
        if self._queue:
            self._queue[0].call()

    def _lead(self, mine: _Request) -> None:
        """Commit all that wait, `mine` among them, and call one of those who came meanwhile to lead the next commit."""
        taken: list[_Request] = []
        try:
            self._gather()
            with self.mutex:
                began = time.monotonic()
                try:
                    if not mine.done:
                        self._commit(taken)
                        if mine not in taken and mine not in self._queue:
                            mine.error = _interrupted()
                            taken.append(mine)
                except BaseException as error:
                    if mine not in taken:
                        self._withdraw(mine, False)
                        taken.append(mine)
                    for request in taken:
                        request.error = request.error or (error if isinstance(error, Exception) else _interrupted())
                    if not isinstance(error, Exception):
                        raise
                finally:
                    for request in taken:
                        request.done = True
                self._seconds = time.monotonic() - began
        finally:
            with self._arrived:
                self._crowd = len(taken) + len(self._queue)
                self._call_next()
            for request in taken:
                request.call()

    def _gather(self) -> None:
        """Wait a little for those who shared the last commit: they are about to write again; one sync serves all."""
        if self._crowd < 2:
            return
        until = time.monotonic() + _PATIENCE * self._seconds
        with self._arrived:
            while len(self._queue) < self._crowd and (left := until - time.monotonic()) > 0:
                self._arrived.wait(left)

    def _commit(self, taken: list[_Request]) -> None:
        with self.changing():
            begun, group = self.state, Group(self.state)
            while group.n_bytes < _TOGETHER:
                with self._arrived:
                    if not self._queue:
                        break
                    taken.append(self._queue[0])  # in this order, or Ctrl-C between them would lose it
                    del self._queue[0]
                request = taken[-1]
                if request.done:
                    continue
                try:
                    request.result = group.take(request.plan)
                except Exception as error:
                    request.error = error
            state, records = group.whole()
            if state is not begun:
                self._put_down(state, begun, records)

    def _put_down(self, state: State, begun: State, records: list[tuple[int, Record]]) -> None:
        self._unsure = True
        if self.catalogue is not None:
            self.catalogue.append(records, None if state.schema is begun.schema else state.schema)
        self.state, self.n_commits = state, self.n_commits + 1
        self._unsure = False

    # -- segments ----------------------------------------------------------------------------------------------------

    def commit_segments(self, state: State, **more: Any) -> None:
        """Name the segments of a state in the catalogue, publish it, remove the files that none consists of any more.

        The mutex is held. Files that are not named yet stay: another thread may be about to name them.
        """
        gone = self._files(self.state) - self._files(state)
        self._unsure = True
        if self.catalogue is not None:
            self.catalogue.write_segments(state.segments, **more)
        self.state = state
        self._unsure = False
        self.volume.remove(gone)

    def discard(self, made: Sequence[Stored]) -> None:
        """Remove the files of segments that the catalogue was never to name."""
        if self.catalogue is not None:
            self.volume.remove(set().union(*(names_of(each.files) for each in made)))

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


def _interrupted() -> StateError:
    """What threads are told whose writes shared a commit with one that was interrupted."""
    return StateError("the thread that wrote for this one too was interrupted; look whether the rows are there, and "
                      "write them again if not")  # fmt: skip
