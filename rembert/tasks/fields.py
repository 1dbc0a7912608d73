"""The fields of a record under a task's own names, each checked when it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rembert.tasks.columns import Columns
from rembert.tasks.reading import Location, Record

FLAGGED = ("text", "text_pair", "label", "id", "language")  # fields whose column has a flag of its own


class BadExample(Exception):
    """A record that is not a valid example of a task; the message says what was expected and received."""


class Fields:
    """The fields of a record under a task's own names.

    Args:
        record: the record as its file has it.
        columns: finds the column of each field.
        language: of a record that names none.
    """

    def __init__(self, record: Record, columns: Columns, language: str | None = None) -> None:
        self._fields = record.fields
        self._columns = columns
        self._found = columns.of(record.fields)
        self._language = language
        self.location = record.location
        self.named = columns.named  # by the caller

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __getitem__(self, column: str) -> Any:
        return self._fields[column]

    def column(self, name: str) -> str | None:
        """The record's column for a field, or None."""
        return self._found.get(name)

    def value(self, name: str) -> Any:
        """A field's value.

        Raises:
            BadExample: the record has no such field.
        """
        column = self.column(name)
        if column is None:
            given = self.named.get(name)
            wanted = repr(given) if given is not None else " or ".join(map(repr, self._columns.usual[name][:6]))
            flag = f"--{name.replace('_', '-')}-column" if name in FLAGGED else f"--column {name}="
            named = "" if given is not None else f"; `columns` ({flag}) names another, by number if none has a name"
            raise BadExample(
                f"a column {wanted} was expected for the {name}{named}. Received: {', '.join(self._fields)}"
            )
        return self._fields[column]

    def optional(self, name: str) -> Any:
        """A field's value, or None. A column that the caller named must exist.

        Raises:
            BadExample: the column that the caller named does not exist.
        """
        is_missing = self.column(name) is None and not self.named.get(name)
        return None if is_missing else self.value(name)

    def text(self, name: str) -> str:
        """A field that is a non-empty string.

        Raises:
            BadExample: it is missing, not a string, empty, or holds a lone surrogate.
        """
        return checked_text(self.value(name), repr(self.column(name)))

    def common(self) -> tuple[Location, str | None, str | None]:
        """Location, id and language: the first three fields of every example."""
        return self.location, self._identifier("id"), self._identifier("language") or self._language

    def _identifier(self, name: str) -> str | None:
        column = self.column(name)
        value = None if column is None else self._fields[column]
        if value is None and self.named.get(name):
            raise BadExample(f"a column {self.named[name]!r} was expected for the {name}")
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadExample(f"{column!r} must be a string or a number. Received: {value!r:.60}")
        # A column of integers with a gap becomes one of floats in many programs.
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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
