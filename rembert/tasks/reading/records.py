"""The items of every reader: records and malformed lines, each with its location."""

from __future__ import annotations

from typing import Any, NamedTuple


class Location(NamedTuple):
    """The source location of a record: the file's name, the line's number from 1 (None for the file as a whole), and
    the item if a line may hold several, as in SQuAD's own files of one line.
    """

    file: str
    line: int | None = None
    item: str | None = None

    def __str__(self) -> str:
        at = self.file if self.line is None else f"{self.file}:{self.line}"
        return at if self.item is None else f"{at}, {self.item}"


class Record(NamedTuple):
    """One example in its file: fields by name."""

    location: Location
    fields: dict[str, Any]


class BadLine(NamedTuple):
    """A line, or several, without a valid record, and the reason."""

    location: Location
    reason: str
