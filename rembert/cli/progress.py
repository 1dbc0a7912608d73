"""Progress on standard error: a bar with amount and rate on a terminal, elsewhere plain lines, one a second."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rembert.cli.text import byte_size

_BAR_SECONDS = 0.1
_LINE_SECONDS = 1.0


class Progress:
    """Shows the progress of a task. A context manager; called with the amount done and the total.

    Args:
        label: what is being made.
        quiet: show nothing.
        stream: in place of standard error.
        amount: how an amount is written; by default as bytes.
        terminal_only: write no plain lines where there is no terminal.
    """

    def __init__(
        self,
        label: str,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        amount: Callable[[float], str] = byte_size,
        terminal_only: bool = False,
    ) -> None:
        self._label = label
        self._amount = amount
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._quiet = quiet or (terminal_only and not self._terminal)
        self._started = self._shown = time.monotonic()
        self._before = 0.0
        self._open = False

    def start(self, before: int) -> None:
        """Begin with what was done before, which counts for no rate."""
        self._before = before
        self._started = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._quiet or now - self._shown < (_BAR_SECONDS if self._terminal else _LINE_SECONDS):
            return
        self._shown = now
        rate = self._amount((done - self._before) / max(now - self._started, 1e-9))
        text = f"{self._label}: {self._amount(done)} of {self._amount(total)}, {rate}/s"
        if not self._terminal:
            print(text, file=self._stream, flush=True)
            return
        width = min(40, shutil.get_terminal_size().columns - len(text) - 4)
        filled = round(max(width, 0) * done / max(total, 1))
        bar = f" [{'#' * filled}{'.' * (width - filled)}]" if width > 4 else ""
        self._stream.write(f"\r\x1b[K{text}{bar}")
        self._stream.flush()
        self._open = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def say_resumed(done: int, kind: str) -> None:
    """Say how much of an interrupted run there is; nothing for a new one."""
    if done:
        print(f"resumed after {done:,} {kind}", file=sys.stderr)
