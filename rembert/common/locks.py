"""Locks that tell whether another process is writing; they end with the process that holds them, even a killed one.

They are the advisory locks of POSIX (`flock`). Windows and a few network file systems have none; two writers are not
told apart there.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or directory until the descriptor is closed, without waiting.

    Returns:
        True with the lock, False where another process holds it, None where the system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_if_dead(path: Path) -> bool:
    """Remove a file or a directory that its writer had locked, unless that process still lives.

    Returns:
        whether the process is known to live.
    """
    if fcntl is None:
        return False
    with suppress(OSError):  # another process may remove it at the same time
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            is_locked = try_lock(descriptor)
            if is_locked and path.is_dir():
                shutil.rmtree(path)
            elif is_locked:
                path.unlink()
            return is_locked is False
        finally:
            os.close(descriptor)
    return False


class DirectoryLock:
    """Lets one process at a time write a directory.

    Args:
        directory: must exist.

    Attributes:
        is_held: False where it is locked already, by another process or by this one.
    """

    _own: ClassVar[set[tuple[int, int]]] = set()  # device and number of each directory that this process has locked

    def __init__(self, directory: Path) -> None:
        self._descriptor: int | None = os.open(directory, os.O_RDONLY)
        self._key = _identity(os.fstat(self._descriptor))
        self.is_held = try_lock(self._descriptor) is not False
        if self.is_held:
            self._own.add(self._key)

    @classmethod
    def is_own(cls, directory: Path) -> bool:
        """Whether this process has locked a directory."""
        return _identity(directory.stat()) in cls._own

    def is_of(self, directory: Path) -> bool:
        """Whether the locked directory is still the one of this name."""
        return directory.exists() and _identity(directory.stat()) == self._key

    def release(self) -> None:
        """Let others have it. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            if self.is_held:
                self._own.discard(self._key)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
