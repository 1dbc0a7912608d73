"""SQuAD's JSON, versions 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), also the format of XQuAD and MLQA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rembert.common.errors import DataError
from rembert.tasks.reading.records import BadLine, Location, Record

_ID = re.compile(r'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')


def squad_records(data: dict[str, Any], text: str, name: str) -> Iterator[Record | BadLine]:
    """Questions with the fields `id`, `question`, `context`, `answers` (a list of `text` and `answer_start`),
    `is_impossible`, and `language` if the file or the paragraph has one. A record's line is that of its `id`.

    Args:
        data: the document.
        text: the same as text.
        name: of the file, for messages.

    Raises:
        DataError: it is not in this layout.
    """
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
