"""A progress bar on standard error: only on a terminal, only after two seconds."""

import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["bar", "reporter"]

_SILENT_SECONDS = 2.0
_WIDTH = 32


def bar(total: int, unit: str = "vectors") -> Callable[[int], None] | None:
    """Return what draws "done of total", or None where nobody would see it."""
    if not sys.stderr.isatty():
        return None
    started = time.monotonic()

    def draw(done: int) -> None:
        passed = time.monotonic() - started
        if passed < _SILENT_SECONDS:
            return
        share = done / max(1, total)
        filled = int(_WIDTH * share)
        left = passed / max(share, 1e-6) - passed
        end = "\n" if done >= total else ""
        text = f"\r{'#' * filled}{'.' * (_WIDTH - filled)} {done:,} of {total:,} {unit}, {left:.0f} s left "
        sys.stderr.write(text + end)
        sys.stderr.flush()

    return draw


def reporter(progress: Any, total: int, unit: str = "vectors") -> Any:
    """What long work calls now and then: the user's callback, or a bar on a terminal; None if nobody is to be told."""
    if progress is False:
        return None
    if progress is not None:
        return lambda done: progress(int(done), total)
    return bar(total, unit)
