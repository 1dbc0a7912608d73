"""How numbers and lines look on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rembert.common.progress import CLEAR_LINE


def byte_size(count: float) -> str:
    """'2.3 GB' for 2_303_681_536."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def say(text: str) -> None:
    """Print a line to standard error, in place of a progress bar."""
    print((CLEAR_LINE if sys.stderr.isatty() else "") + text, file=sys.stderr, flush=True)


def say_resumed(done: int, kind: str) -> None:
    """Say how much of an interrupted run there is; nothing for a new one."""
    if done:
        say(f"resumed after {done:,} {kind}")


def table(rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows as columns of equal width, those numbered in `right` set flush right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def shortened(names: Sequence[str], count: int = 3) -> str:
    """The first few names, and a sign that there are more."""
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
