"""JSON documents: SQuAD's, lists of objects, and objects over several lines."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from rembert.common.errors import DataError
from rembert.common.text_lines import name_of, open_bytes
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.records import BadLine, Location, Record
from rembert.tasks.reading.squad import squad_records

MAX_PACKED = 1 << 28  # bytes
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
_LAYOUTS = (
    "SQuAD's layout was expected, an object with a list `data`; a list of objects; or JSON lines, one object per line"
)


def read_json(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """The records of a JSON document: SQuAD's questions (see `squad_records`), or the objects of a list, which may be
    the value of `data`; or several objects, each over any number of lines. The whole file is read into memory.

    Raises:
        DataError: the file is not UTF-8, not JSON, or in another layout.
    """
    name = name_of(path)
    text = _text(path)
    start = _SPACE.match(text).end()  # type: ignore[union-attr]
    if text.startswith("[", start):
        yield from _objects(text, start + 1, "]", name)
        return
    values = list(_objects(text, start, "", name))
    if len(values) != 1 or not isinstance(values[0], Record):
        yield from values
        return
    document = values[0].fields
    held = document.get("data")
    if not isinstance(held, list):
        if holds_parts(document):
            raise DataError(f"{name}: {_LAYOUTS}. Received: an object with {', '.join(document) or 'nothing':.200}.")
        yield from values
    elif any(isinstance(article, dict) and "paragraphs" not in article for article in held):
        yield from (_record(Location(name, None, f"row {number}"), each) for number, each in enumerate(held, 1))
    else:
        yield from squad_records(document, text, name)


def holds_parts(document: dict[str, Any]) -> bool:
    """Whether an object holds several lists of records, such as `train` and `test`, and is none itself."""
    parts = [value[0] if isinstance(value, list) and value else value for value in document.values()]
    return any(isinstance(part, dict) for part in parts) and all(isinstance(v, dict | list) for v in document.values())


def _text(path: str | os.PathLike[str]) -> str:
    # What stands on the disk may be read; a small packed file may unpack to more than the memory holds.
    limit = max(MAX_PACKED, os.path.getsize(path) if os.path.isfile(path) else 0)
    with open_bytes(path) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise DataError(
            f"{name_of(path)}: a JSON document that is packed or comes from a pipe must have at most {limit} bytes. "
            "Received: more. Unpack it, or use JSON lines."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"{Location(name_of(path), line)}: text must be UTF-8, unless `encoding` (--encoding) is given. Received: "
            f"byte 0x{content[problem.start]:02x}."
        ) from None


def _objects(text: str, at: int, end: str, name: str) -> Iterator[Record | BadLine]:
    """The objects of a text from a position on, each with the number of its first line; up to the character `end`."""
    line, seen = 1, 0
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    while at < len(text) and not (end and text.startswith(end, at)):
        line, seen = line + text.count("\n", seen, at), at
        try:
            value, after = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as problem:
            raise DataError(f"{Location(name, problem.lineno)}: JSON was expected. Received: {problem.msg}.") from None
        except RecursionError:
            raise DataError(f"{name}: JSON with fewer levels of nesting was expected.") from None
        yield _record(Location(name, line), value)
        at = _BETWEEN.match(text, after).end()  # type: ignore[union-attr]


def _record(location: Location, value: Any) -> Record | BadLine:
    if isinstance(value, dict):
        return Record(location, value)
    return BadLine(location, f"a JSON object was expected. Received: {type(value).__name__} {value!r:.60}")
