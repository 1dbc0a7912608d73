"""SIGTERM as an exception, so that what is half done is cleaned up as after Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM  # the exit code of a process that SIGTERM has ended, as shells report it


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """A handler of SIGTERM that ends the program by an exception."""
    raise SystemExit(TERMINATED)


@contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """Have SIGTERM raise `SystemExit` while the block runs.

    A handler that the program has set itself stays; other threads than the main one cannot set any.
    """
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if is_ours and signal.getsignal(signal.SIGTERM) is leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
