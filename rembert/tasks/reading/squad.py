"""SQuAD's JSON, versions 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), also the format of XQuAD and MLQA."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from rembert.common.errors import DataError
from rembert.common.text_lines import name_of, open_bytes
from rembert.tasks.reading.records import BadLine, Location, Record

_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


def read_squad(path: str | os.PathLike[str]) -> Iterator[Record | BadLine]:
    """Questions with the fields `id`, `question`, `context`, `answers` (a list of `text` and `answer_start`),
    `is_impossible`, and `language` if the file or the paragraph has one.

    The format is one JSON object, so the whole file is read into memory. A record's line is that of its `id`.

    Raises:
        DataError: the file is not UTF-8, not JSON, or not in this layout.
    """
    name = name_of(path)
    with open_bytes(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        byte = content[problem.start]
        raise DataError(f"{Location(name, line)}: text must be UTF-8. Received: byte 0x{byte:02x}.") from None
    if not text.strip():
        return
    try:
        data = json.loads(text)
    except json.JSONDecodeError as problem:
        raise DataError(f"{Location(name, problem.lineno)}: JSON was expected. Received: {problem.msg}.") from None
    except RecursionError:
        raise DataError(f"{name}: JSON with fewer levels of nesting was expected.") from None
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        wanted = "SQuAD's layout was expected, an object with a list `data`; or JSON lines, one object per line"
        raise DataError(f"{name}: {wanted}.")
    lines_of_ids = _lines_of_ids(text)
    language = data.get("language")
    for article in data["data"]:
        for paragraph in _list_of(article, "paragraphs", name):
            for question in _list_of(paragraph, "qas", name):
                if not isinstance(question, dict):
                    yield BadLine(Location(name), f"a question must be an object. Received: {question!r:.60}")
                    continue
                identity = question.get("id")
                known = lines_of_ids.get(identity) if isinstance(identity, str | int) else None
                item = f"question {identity!r:.60}" if known else None
                location = Location(name, known.pop() if known else None, item)
                fields = {**({"context": paragraph["context"]} if "context" in paragraph else {}), **question}
                spoken = paragraph.get("language", article.get("language", language))
                if spoken is not None:
                    fields.setdefault("language", spoken)
                yield Record(location, fields)


def _list_of(holder: Any, key: str, name: str) -> list[Any]:
    if not isinstance(holder, dict) or not isinstance(holder.get(key), list):
        wanted = f"SQuAD's layout was expected, an object with a list `{key}`"
        raise DataError(f"{name}: {wanted}. Received: {holder!r:.60}.")
    found: list[Any] = holder[key]
    return found


def _lines_of_ids(text: str) -> dict[Any, list[int]]:
    """The line numbers at which each id occurs, the last first."""
    found: dict[Any, list[int]] = {}
    line, seen = 1, 0
    for match in _ID.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        found.setdefault(json.loads(match[1]), []).insert(0, line)
    return found
