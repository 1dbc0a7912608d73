"""CoNLL files: one token per line, its tag in the last column, a blank line between sentences; and CoNLL-U, the format
of Universal Dependencies, with ten columns of fixed meaning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from rembert.tasks.reading.lines import lines
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.records import BadLine, Location, Record

_DOCUMENT = "-DOCSTART-"
_COMMENTS = ("# ", "#\t")
_LOOKED_AT = 2000  # lines in which the number of columns and the tags are found
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:-[a-z]+)*):.")
_UD_COLUMNS = 10
_FORM, _UPOS, _XPOS = 1, 3, 4
# The ids of a multiword token, which its words follow, and of a word that is not in the text.
_NOT_A_WORD = re.compile(r"[0-9]+[-.][0-9]+")

Columns = list[str]


def read_conll(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """Sentences with the fields `tokens` and `tags`; `tags` is missing in a file of one column.

    Tabs separate the columns if the line has one, otherwise spaces. Every line of a file must have as many columns as
    the first. Lines that begin with `# ` before a sentence's first token are comments, unless they have as many
    columns and a tag of the file's; `-DOCSTART-` lines are skipped. A malformed line invalidates its sentence. Other
    layouts are found in the first lines (see `_Layout`).
    """
    source = lines(path)
    start = list(islice(source, _LOOKED_AT))
    layout = _Layout(start, options)
    sentence = _Sentence(layout.fields)
    width: int | None = None
    for item in chain(start, source):
        if isinstance(item, BadLine):
            sentence.spoil(item)
            continue
        location, line = item
        if not line.strip():
            yield from sentence.end()
            continue
        if line.startswith(_DOCUMENT):
            continue
        if not sentence.rows and line.startswith(_COMMENTS) and not layout.has_token(line):
            continue
        columns = _columns(line)
        width = width or len(columns)
        if len(columns) != width or not all(columns):
            wanted = f"{width} columns were expected, as in the file's first line"
            received = f"{len(columns)}{'' if all(columns) else ', one of them empty,'} in {line!r:.60}"
            sentence.spoil(BadLine(location, f"{wanted}. Received: {received}"))
            continue
        sentence.add(location, columns)
    yield from sentence.end()


def read_conllu(path: str | os.PathLike[str], options: FileOptions = USUAL) -> Iterator[Record | BadLine]:
    """Sentences of CoNLL-U with the fields `tokens` (FORM), `upos` and `xpos`; a column with only `_` is dropped.

    The words of a multiword token are read instead of the token; empty nodes are skipped. A malformed line invalidates
    its sentence.
    """
    sentence = _Sentence(_words_and_tags)
    for item in lines(path):
        if isinstance(item, BadLine):
            sentence.spoil(item)
            continue
        location, line = item
        if not line.strip():
            yield from sentence.end()
            continue
        if line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != _UD_COLUMNS or not all(columns):
            wanted = f"CoNLL-U's {_UD_COLUMNS} columns were expected, between tabs"
            sentence.spoil(BadLine(location, f"{wanted}. Received: {len(columns)} in {line!r:.60}"))
        elif not _NOT_A_WORD.fullmatch(columns[0]):
            sentence.add(location, columns)
    yield from sentence.end()


class _Layout:
    """Which columns hold words and tags, found in the first lines of a file.

    These are the first and the last column, unless the first one counts the words of a sentence: then the words are in
    the second and the tags in the third column (GermEval 2014, whose fourth are inner entities), or in a file of ten
    columns (CoNLL-X, CoNLL-U) in the fourth. In PAN-X, each word begins with its language: `en:word`.

    Args:
        start: the first lines.
        options: columns that the caller named by number become fields, too.
    """

    def __init__(self, start: Iterable[tuple[Location, str] | BadLine], options: FileOptions) -> None:
        found = [item[1] for item in start if not isinstance(item, BadLine)]
        rows = [_columns(line) for line in found if line.strip() and not line.startswith((_DOCUMENT, *_COMMENTS))]
        self._width = len(rows[0]) if rows else 0
        rows = [row for row in rows if len(row) == self._width]
        self._word, self._tag = (1, _UPOS if self._width == _UD_COLUMNS else 2) if _counts_words(rows) else (0, -1)
        self._tags = {row[self._tag] for row in rows}
        prefixes = {match[1] if (match := _LANGUAGE.match(row[0])) else None for row in rows}
        self._language = prefixes.pop() if len(prefixes) == 1 and len(rows) > 1 else None
        self._by_number = any(map(str.isdigit, options.named))

    def has_token(self, line: str) -> bool:
        """Whether a line that looks like a comment is a sentence's first token `#`: it has the file's number of
        columns, and a tag that the file has elsewhere.
        """
        columns = _columns(line)
        return len(columns) == self._width > 1 and columns[self._tag] in self._tags

    def fields(self, rows: list[Columns]) -> dict[str, Any]:
        """The fields of a sentence."""
        words = [row[self._word] for row in rows]
        found: dict[str, Any] = {"tokens": words}
        if self._language is not None:
            prefix = f"{self._language}:"
            found = {"tokens": [word.removeprefix(prefix) for word in words], "language": self._language}
        if len(rows[0]) > 1:
            found["tags"] = [row[self._tag] for row in rows]
        if self._by_number:
            found |= {str(number): [row[number - 1] for row in rows] for number in range(1, len(rows[0]) + 1)}
        return found


def _counts_words(rows: Sequence[Columns]) -> bool:
    """Whether the first of three or more columns has the numbers of the words, from 1 in each sentence."""
    before = 0
    for row in rows:
        if len(row) < 3 or row[0] not in ("1", str(before + 1)):
            return False
        before = int(row[0])
    return before > 0


def _columns(line: str) -> Columns:
    # Only the plain space separates: others occur inside words, for example in numbers.
    return line.rstrip("\t ").split("\t") if "\t" in line else [part for part in line.split(" ") if part]


def _words_and_tags(rows: list[Columns]) -> dict[str, Any]:
    fields = {name: [row[at] for row in rows] for name, at in (("tokens", _FORM), ("upos", _UPOS), ("xpos", _XPOS))}
    return {name: column for name, column in fields.items() if name == "tokens" or set(column) != {"_"}}


class _Sentence:
    """The lines of a sentence; `fields` turns them into the fields of a record."""

    def __init__(self, fields: Callable[[list[Columns]], dict[str, Any]]) -> None:
        self._fields = fields
        self._reset()

    def _reset(self) -> None:
        self.location: Location | None = None
        self.rows: list[Columns] = []
        self.bad: BadLine | None = None

    def add(self, location: Location, columns: Columns) -> None:
        self.location = self.location or location
        self.rows.append(columns)

    def spoil(self, bad: BadLine) -> None:
        self.bad = self.bad or bad

    def end(self) -> Iterator[Record | BadLine]:
        if self.bad is not None:
            yield self.bad
        elif self.location is not None:
            yield Record(self.location, self._fields(self.rows))
        self._reset()
