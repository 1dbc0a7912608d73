"""Ctrl-C and SIGTERM during training: the update is finished and a checkpoint written before the process ends."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, NoReturn

from rembert.common.signals import TERMINATED, leave


class Interruption(AbstractContextManager["Interruption"]):
    """Notes the first SIGINT or SIGTERM while the block runs. A second one ends the process as it would without this.

    Handlers that the program has set itself stay, except that of the `rembert` command. Threads other than the main
    one cannot set any.

    Attributes:
        signal: the signal that arrived, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, leave):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def leave(self) -> NoReturn:
        """End as the signal would have ended the program: KeyboardInterrupt, or SystemExit with code 143."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
