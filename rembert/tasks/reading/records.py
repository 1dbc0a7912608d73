"""What every format comes down to: records, and lines that are none."""

from __future__ import annotations

from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where something stands: the file's name, the number of the line from 1 (None for the file as a whole), and what
    stands there, where a line may hold several: SQuAD's own files are one line.
    """

    file: str
    line: int | None = None
    item: str | None = None

    def __str__(self) -> str:
        at = self.file if self.line is None else f"{self.file}:{self.line}"
        return at if self.item is None else f"{at}, {self.item}"


class Record(NamedTuple):
    """One example as its file has it: fields by name."""

    place: Place
    fields: dict[str, Any]


class BadLine(NamedTuple):
    """A line, or several, that hold no record, and why."""

    place: Place
    reason: str
