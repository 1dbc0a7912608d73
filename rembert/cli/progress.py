"""Progress on standard error: a bar with bytes and rate on a terminal, elsewhere plain lines, one a second at most."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

from rembert.cli.text import byte_size

_BAR_SECONDS = 0.1
_LINE_SECONDS = 1.0


class Progress:
    """Shows how far a piece of work is. A context manager; called with the bytes done and the bytes in all."""

    def __init__(self, label: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._label = label
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._started = self._shown = time.monotonic()
        self._open = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._quiet or now - self._shown < (_BAR_SECONDS if self._terminal else _LINE_SECONDS):
            return
        self._shown = now
        rate = byte_size(done / max(now - self._started, 1e-9))
        text = f"{self._label}: {byte_size(done)} of {byte_size(total)}, {rate}/s"
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
