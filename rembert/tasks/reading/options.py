"""How a file is read: everything that its content does not say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileOptions:
    """How a file is read.

    Attributes:
        delimiter: between the fields of a table; by default found by its first lines.
        header: whether a table's first line names the columns. By default it does, unless the caller names columns by
            number. Columns without names are called `1`, `2`, ….
        named: the columns that the caller named.
    """

    delimiter: str | None = None
    header: bool | None = None
    named: tuple[str, ...] = ()


USUAL = FileOptions()
