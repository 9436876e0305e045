"""Putting a file in the place of another, whole or not at all.

Whoever writes a temporary file holds a lock on it (flock), which ends with the process however that ends. So one whose
lock is free has no writer any more, and the next to write into its folder removes it.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator

from nearly.errors import InputError

__all__ = ["replacing", "write_all"]

_TEMPORARY = re.compile(r"\.nearly-[0-9a-f]{24}\.tmp")


@contextlib.contextmanager
def replacing(target: str) -> Iterator[int]:
    """Open a temporary file beside `target`; it takes the target's place when the body ends well."""
    mode = _replaceable_mode(target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_abandoned(folder)
        with _temporary(os.path.dirname(target)) as (temporary, descriptor):
            if mode is not None:
                os.fchmod(descriptor, mode)  # before any content: what was private never becomes public
            yield descriptor
            _sync(descriptor)
            os.replace(temporary, target)  # before the lock ends
        _sync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _temporary(folder: str) -> Iterator[tuple[str, int]]:
    """A new file that is locked while it is open, and removed unless the body ends well."""
    while True:
        temporary = os.path.join(folder, f".nearly-{os.urandom(12).hex()}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                _lock(descriptor, wait=True)
                if not os.fstat(descriptor).st_nlink:  # another one took it for abandoned before the lock was there
                    continue
                yield temporary, descriptor
                return
            finally:
                os.close(descriptor)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _remove_abandoned(folder: int) -> None:
    """Remove the temporary files of writers that were killed."""
    for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor, wait=False):
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Whether the file is locked now; file systems without locks say no to all."""
    import fcntl  # here, not at the top: Windows has none

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def write_all(descriptor: int, octets: memoryview) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]


def _replaceable_mode(target: str) -> int | None:
    """Return the permissions of the file to be replaced, None if there is none, or raise."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(
            errno.EISDIR, "an index becomes a file, and this is a folder; name a file in it", target
        )
    if not stat.S_ISREG(mode):
        raise InputError(f"{target!r} is a device, a pipe or a socket, which cannot be replaced by a file")
    if not os.access(target, os.W_OK):  # a rename would not ask
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    return stat.S_IMODE(mode) & 0o777


def _sync(descriptor: int) -> None:
    """Put a file or a folder on the disk, past the drive's own cache where the system can say so."""
    import fcntl  # here, not at the top: Windows has none

    full_sync = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full_sync is not None:
        with contextlib.suppress(OSError):  # network file systems do not know it
            fcntl.fcntl(descriptor, full_sync)
            return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot sync a folder say EINVAL
            raise
