"""The command ``nearly``: app.py has what is for indexes, collections.py what is for collections."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from nearly.errors import NearlyError

__all__ = ["main"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the word ``nearly``; default ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit status: 0 done, 1 failed (unusable data, a damaged or missing file), 2 wrong usage, 130 interrupted. What
        went wrong is said on standard error in a line or two.

    Examples
    --------
    >>> main(["--version"])  # doctest: +ELLIPSIS
    nearly ...
    0
    """
    try:
        import typer  # here, so that importing this module costs nothing, and an interrupt while importing is quiet

        from nearly.cli.app import app

        # UsageError: typer has its own since 0.26, click's before.
        usage: Any = typer.BadParameter.__bases__[0]
        try:
            status = app(args=sys.argv[1:] if arguments is None else list(arguments), prog_name="nearly",
                         standalone_mode=False)  # fmt: skip
            sys.stdout.flush()
        except usage as problem:
            return _usage(problem)
        except typer.Abort:  # an interrupt, in typer before 0.26, which ends the line itself
            return _INTERRUPTED
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # what reads our output has ended; nothing is wrong, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as problem:
        return _failed(f"{problem.strerror}: {problem.filename}" if problem.filename else str(problem))
    except (NearlyError, ImportError) as problem:
        return _failed(str(problem))
    except MemoryError as problem:
        return _failed(f"out of memory{f' ({problem})' if str(problem) else ''}; build --memory-limit takes less")
    if status == _INTERRUPTED:
        return _interrupted()
    return status if isinstance(status, int) else 0


def _failed(message: str) -> int:
    print(f"nearly: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _usage(problem: BaseException) -> int:
    message = getattr(problem, "format_message", lambda: str(problem))()
    message = re.sub(
        r"^Invalid value(?: for ('?)(.*?)\1)?: ", lambda found: f"{found[2]}: " if found[2] else "", message
    )
    context = getattr(problem, "ctx", None)
    command = context.command_path if context is not None else "nearly"
    print(f"{command}: {' '.join(message.split())}\nsee {command} --help", file=sys.stderr)
    return 2


def _interrupted() -> int:
    if sys.stderr.isatty():
        print(file=sys.stderr)  # leave the line with ^C, or a half-drawn bar
    return _INTERRUPTED
