"""JSON lines: one object per line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from rembert.tasks.reading.lines import lines
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.records import BadLine, Record


def read_json_lines(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """The object of each line that is not blank."""
    for item in lines(path):
        if isinstance(item, BadLine):
            yield item
            continue
        location, line = item
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as problem:
            yield BadLine(location, f"a JSON object was expected. Received: {line[:60]!r} ({problem})")
            continue
        if isinstance(fields, dict):
            yield Record(location, fields)
        else:
            yield BadLine(location, f"a JSON object was expected. Received: {type(fields).__name__} {line[:60]!r}")
