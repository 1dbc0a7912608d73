"""The lines of a file with their locations."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rembert.common.text_lines import name_of, read_lines
from rembert.tasks.reading.records import BadLine, Location


def lines(path: str | os.PathLike[str]) -> Iterator[tuple[Location, str] | BadLine]:
    """Every line with its location; one that is not UTF-8 is a `BadLine`.

    Raises:
        DataError: the file cannot be read, or begins with the byte order mark of UTF-16.
    """
    name = name_of(path)
    for line in read_lines(path):
        location = Location(name, line.number)
        yield (location, line.text) if line.problem is None else BadLine(location, line.problem)
