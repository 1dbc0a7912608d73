"""The readers by the name of their format, and the choice of one by a file's name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from rembert.common.arguments import check_argument, one_of
from rembert.common.text_lines import open_bytes
from rembert.tasks.reading.conll import read_conll, read_conllu
from rembert.tasks.reading.json_lines import read_json_lines
from rembert.tasks.reading.plain_text import read_text
from rembert.tasks.reading.records import BadLine, Record
from rembert.tasks.reading.squad import read_squad
from rembert.tasks.reading.tables import read_csv, read_tsv

READERS: dict[str, Callable[[str | os.PathLike[str]], Iterator[Record | BadLine]]] = {
    "jsonl": read_json_lines,
    "csv": read_csv,
    "tsv": read_tsv,
    "conll": read_conll,
    "conllu": read_conllu,
    "squad": read_squad,
    "text": read_text,
}
_BY_EXTENSION = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".conllu": "conllu",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
}


def read_records(
    path: str | os.PathLike[str], *, format: str | None = None, unknown: str = "jsonl"
) -> Iterator[Record | BadLine]:
    """The records of a file, as they are read.

    Args:
        path: the file; `-` is the standard input.
        format: a key of `READERS`; by default chosen by the extension of the name, without a `.gz`.
        unknown: the format if the extension does not determine it, as for `.txt` and the standard input.

    Raises:
        InputError: there is no such format.
        DataError: the file cannot be read.
    """
    found = _format_of(path, unknown) if format is None else format
    check_argument("format", found, one_of(READERS))
    yield from READERS[found](path)


def _format_of(path: str | os.PathLike[str], unknown: str) -> str:
    name = os.fspath(path).lower().removesuffix(".gz")
    extension = os.path.splitext(name)[1]
    if extension == ".json":
        return "jsonl" if _holds_json_lines(path) else "squad"
    return _BY_EXTENSION.get(extension, unknown)


def _holds_json_lines(path: str | os.PathLike[str]) -> bool:
    """Whether a `.json` file holds JSON lines: its first line is a whole object, and not SQuAD's."""
    with open_bytes(path) as stream:
        start = stream.readline(1 << 16).strip()
    return start.startswith(b"{") and start.endswith(b"}") and b'"paragraphs"' not in start
