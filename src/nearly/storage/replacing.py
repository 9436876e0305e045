"""Putting a file in the place of another, whole or not at all."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from nearly.errors import InputError

__all__ = ["replacing", "write_all"]


@contextlib.contextmanager
def replacing(target: str) -> Iterator[int]:
    """Open a temporary file beside `target`; it takes the target's place when the body ends well."""
    mode = _replaceable_mode(target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = os.path.join(os.path.dirname(target), f".nearly-{os.urandom(12).hex()}.tmp")
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                if mode is not None:
                    os.fchmod(descriptor, mode)  # before any content: what was private never becomes public
                yield descriptor
                _sync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(folder)
    finally:
        os.close(folder)


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
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
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
