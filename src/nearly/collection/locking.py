"""One writer a folder: a lock of the kernel's, which ends with its process, and the name of who holds it.

The lock is POSIX's (fcntl): a forked child does not inherit it. Its pitfall is that a process loses it when it closes
any descriptor of the file, so who holds it here is asked before the file is opened.
"""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from nearly.errors import StateError

__all__ = ["LOCK", "FolderLock", "check_file_system"]

LOCK = "lock"  # its file in the folder

_HELD: dict[tuple[int, int], int] = {}  # (device, inode) of lock files held by this process, and its id
_GUARD = threading.Lock()
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_NETWORKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p", "fuse.sshfs", "ncpfs")


class FolderLock:
    """The right to write into a folder.

    Raises
    ------
    StateError
        If another process, or this one, has it; says which.
    """

    def __init__(self, path: Path) -> None:
        import fcntl  # late: Windows has none

        self._identity: tuple[int, int] | None = None
        with _GUARD:
            self._refuse_own(path)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as problem:
                if problem.errno in _NOT_WRITABLE:
                    problem.strerror = f'{problem.strerror}; mode="r" opens a collection to read it'
                raise
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = _owner(descriptor)
                os.close(descriptor)
                raise StateError(
                    f"{str(path.parent)!r} is open for writing in {owner}; close it there, or open it here with "
                    f'mode="r" to read along'
                ) from None
            status = os.fstat(descriptor)
            self._identity = status.st_dev, status.st_ino
            _HELD[self._identity] = os.getpid()
            self._descriptor = descriptor
        mine = {"process": os.getpid(), "host": os.uname().nodename, "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        text = json.dumps(mine).encode()
        os.pwrite(descriptor, text.ljust(512), 0)

    @staticmethod
    def _refuse_own(path: Path) -> None:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return
        if _HELD.get((status.st_dev, status.st_ino)) == os.getpid():
            raise StateError(
                f"{str(path.parent)!r} is open for writing in this process already; use that collection, which serves "
                f'many threads, or open it with mode="r"'
            )

    def release(self) -> None:
        """Let others write."""
        with _GUARD:
            if self._identity is None:
                return
            if _HELD.get(self._identity) == os.getpid():
                del _HELD[self._identity]
            os.close(self._descriptor)
            self._identity = None

    def forget(self) -> None:
        """In a forked child, which has no lock: only the descriptor is let go."""
        if self._identity is not None:
            os.close(self._descriptor)
            self._identity = None


def _owner(descriptor: int) -> str:
    try:
        held: Any = json.loads(os.pread(descriptor, 512, 0))
        return f"process {held['process']} on {held['host']} (since {held['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def check_file_system(folder: Path) -> None:
    """Refuse network file systems: their locks and syncs do not hold what they promise.

    Raises
    ------
    StateError
        Naming the file system.
    """
    kind = _file_system(os.path.realpath(folder))
    if kind in _NETWORKS:
        raise StateError(
            f"{str(folder)!r} is on a network file system ({kind}), where locks and syncs are not reliable; put the "
            "collection on a local disk, and copy it with snapshot()"
        )


def _file_system(path: str) -> str:
    """The kind of file system that a path is on, "" where the system does not say."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return ""
    best, kind = "", ""
    for fields in mounts:
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best) and "-" in fields:
            best, kind = point, fields[fields.index("-") + 1]
    return kind
