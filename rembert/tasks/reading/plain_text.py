"""Plain text: each line is a text."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rembert.tasks.reading.lines import lines
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.records import BadLine, Record


def read_text(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """Each line that is not blank, as the field `text`."""
    for item in lines(path):
        if isinstance(item, BadLine):
            yield item
        elif item[1].strip():
            yield Record(item[0], {"text": item[1]})
