"""One writer at a time, and what a child forked in the middle of a change is told."""

import os
import threading
from types import TracebackType

from nearly.errors import StateError

__all__ = ["Writing"]


class Writing:
    """A lock for one writer, who may take it more than once.

    A child that was forked while another thread held it would wait for ever, over tables that are half changed: its
    changes raise a `StateError`. Searches go on.
    """

    def __init__(self) -> None:
        self._lock, self._depth, self._process = threading.RLock(), 0, os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            if self._depth:
                raise StateError("this process was forked while the index was being changed, and holds half of that "
                                 "change; load or build the index in the child")  # fmt: skip
            self._lock, self._process = threading.RLock(), os.getpid()
        self._lock.acquire()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        self._lock.release()
