"""The memory of a process, for the benchmarks. Needs Linux."""

from __future__ import annotations

import threading
from pathlib import Path


def used_memory(kind: str = "RssAnon", process: int | str = "self") -> int:
    """Bytes of memory that a process holds; 0 once it has ended.

    Args:
        kind: a row of /proc/PID/status: "VmRSS", or "RssAnon" without mapped files.
        process: its number.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


class Peak:
    """The most memory that this process held from here on, until `stop` or the end of the block."""

    def __init__(self, kind: str = "RssAnon") -> None:
        self.kind, self.highest, self._over = kind, used_memory(kind), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.highest = max(self.highest, used_memory(self.kind))

    def stop(self) -> int:
        """The peak in bytes."""
        self._over.set()
        self._watcher.join()
        return self.highest

    def __enter__(self) -> Peak:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
