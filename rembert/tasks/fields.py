"""The fields of a record under a task's own names, each checked when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rembert.tasks.data import DataOptions
from rembert.tasks.reading import Location, Record

# The usual names of the columns that every task reads.
COMMON_FIELDS = {"id": ("id", "idx", "index_id", "guid"), "language": ("language", "lang")}


class BadExample(Exception):
    """A record that is not a valid example of a task; the message says what was expected and received."""


class Fields:
    """The fields of a record under a task's own names.

    Args:
        record: the record as its file has it.
        columns: the usual column names of each field of the task.
        data: how files are read; its `columns` take precedence.
    """

    def __init__(self, record: Record, columns: Mapping[str, tuple[str, ...]], data: DataOptions) -> None:
        self._fields = record.fields
        self._usual = {**COMMON_FIELDS, **columns}
        self._data = data
        self.location = record.location
        self.named = data.columns  # by the caller

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __getitem__(self, column: str) -> Any:
        return self._fields[column]

    def column(self, name: str) -> str | None:
        """The record's column for a field, or None."""
        given = self.named.get(name)
        if given is not None:
            return given if given in self._fields else None
        return next((key for key in self._usual[name] if key in self._fields), None)

    def value(self, name: str) -> Any:
        """A field's value.

        Raises:
            BadExample: the record has no such field.
        """
        column = self.column(name)
        if column is None:
            given = self.named.get(name)
            wanted = repr(given) if given is not None else " or ".join(map(repr, self._usual[name]))
            raise BadExample(f"a column {wanted} was expected for the {name}. Received: {', '.join(self._fields)}")
        return self._fields[column]

    def optional(self, name: str) -> Any:
        """A field's value, or None. A column that the caller named must exist.

        Raises:
            BadExample: the column that the caller named does not exist.
        """
        is_missing = self.column(name) is None and name not in self.named
        return None if is_missing else self.value(name)

    def text(self, name: str) -> str:
        """A field that is a non-empty string.

        Raises:
            BadExample: it is missing, not a string, empty, or holds a lone surrogate.
        """
        return checked_text(self.value(name), repr(self.column(name)))

    def common(self) -> tuple[Location, str | None, str | None]:
        """Location, id and language: the first three fields of every example."""
        return self.location, self._identifier("id"), self._identifier("language") or self._data.language

    def _identifier(self, name: str) -> str | None:
        column = self.column(name)
        value = None if column is None else self._fields[column]
        if value is None and name in self.named:
            raise BadExample(f"a column {self.named[name]!r} was expected for the {name}")
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadExample(f"{column!r} must be a string or an integer. Received: {value!r:.60}")
        return str(value)


def checked_text(value: Any, name: str) -> str:
    """`value`, a non-empty string that can be encoded.

    Raises:
        BadExample: it is anything else.
    """
    if not isinstance(value, str):
        raise BadExample(f"{name} must be a string. Received: {type(value).__name__} {value!r:.60}")
    if not value.strip():
        raise BadExample(f"{name} must be a non-empty string. Received: {value!r:.60}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadExample(f"{name} must be valid Unicode. Received: a lone surrogate in {value!r:.60}") from None
    return value
