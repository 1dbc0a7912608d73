"""Progress of long work: a bar on a terminal; elsewhere, as in the log of a batch job, plain lines now and then."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

Item = TypeVar("Item")

CLEAR_LINE = "\r\x1b[K"  # on a terminal: what the bar's line shows is removed
_BAR_SECONDS = 0.1
_LINE_SECONDS = 10.0
_LINE_SHARE = 0.05  # of the time so far: the lines of a long run are farther apart


def silent(text: str) -> None:
    """Ignore a line of text: what takes the lines of those who want none."""


def counted(count: float) -> str:
    """'12,345' for 12345, '0.31' for a small rate."""
    return f"{count:,.0f}" if count >= 10 or isinstance(count, int) else f"{count:.2g}"


def duration(seconds: float) -> str:
    """'42 s', '5 min' or '3.2 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """Shows how much of a task is done, its rate and the time left. A context manager; called with the amount done.

    Args:
        label: what is being done.
        say: takes the plain lines; `silent` shows neither lines nor a bar.
        total: the amount in all, if it is known.
        unit: of the amounts, such as 'examples'.
        amount: how an amount is written.
        stream: of the bar, if it is a terminal; by default standard error.

    Example:
        >>> with Progress("reading", print, total=3, unit="rows") as progress:  # too quick to show anything
        ...     rows = list(progress.track("abc"))
        >>> rows
        ['a', 'b', 'c']
    """

    def __init__(
        self,
        label: str,
        say: Callable[[str], object],
        *,
        total: int | None = None,
        unit: str = "",
        amount: Callable[[float], str] = counted,
        stream: TextIO | None = None,
    ) -> None:
        self._label, self._say, self._unit, self._amount = label, say, unit and f" {unit}", amount
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._notes = ""
        self._open = False
        self.start(0)

    def start(self, before: int) -> None:
        """Begin with what was done before, which counts for no rate."""
        self._before = before
        self._started = self._shown = time.monotonic()

    def note(self, **values: float) -> None:
        """Show numbers behind the rate from now on."""
        self._notes = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in values.items())

    def track(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, counted once they have been used."""
        for done, item in enumerate(items, start=self._before + 1):
            yield item
            self(done)

    def __call__(self, done: int, total: int | None = None) -> None:
        now = time.monotonic()
        between = _BAR_SECONDS if self._terminal else max(_LINE_SECONDS, _LINE_SHARE * (now - self._started))
        if self._say is silent or now - self._shown < between:
            return
        self._shown = now
        total = self._total if total is None else total
        text = self._text(done, total, now - self._started)
        if not self._terminal:
            self._say(text)
            return
        width = min(40, shutil.get_terminal_size().columns - len(text) - 4)
        filled = round(max(width, 0) * done / max(total or 0, 1))
        bar = f" [{'#' * filled}{'.' * (width - filled)}]" if width > 4 and total is not None else ""
        self._stream.write(f"{CLEAR_LINE}{text}{bar}")
        self._stream.flush()
        self._open = True

    def _text(self, done: int, total: int | None, seconds: float) -> str:
        rate = (done - self._before) / max(seconds, 1e-9)
        of = "" if total is None else f" of {self._amount(total)}"
        left = f", {duration((total - done) / rate)} left" if total is not None and total >= done and rate else ""
        return f"{self._label}: {self._amount(done)}{of}{self._unit}, {self._amount(rate)}/s{left}{self._notes}"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()
