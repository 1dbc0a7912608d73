"""Locks that tell whether another process is writing; they end with the process that holds them, even a killed one.

They are the advisory locks of POSIX (`flock`). Windows and a few network file systems have none; two writers are not
told apart there.
"""

from __future__ import annotations

import os
from pathlib import Path

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


class DirectoryLock:
    """Lets one process at a time write a directory.

    Args:
        directory: must exist.

    Attributes:
        is_held: False where another process holds the lock.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor: int | None = os.open(directory, os.O_RDONLY)
        self.is_held = try_lock(self._descriptor) is not False

    def release(self) -> None:
        """Let others have it. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
