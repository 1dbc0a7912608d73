"""The readers by the name of their format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from rembert.common.arguments import check_argument, one_of
from rembert.common.text_files import TextFile
from rembert.tasks.reading.conll import read_conll, read_conllu
from rembert.tasks.reading.detection import format_of
from rembert.tasks.reading.foreign import refuse_foreign
from rembert.tasks.reading.json_documents import read_json
from rembert.tasks.reading.json_lines import read_json_lines
from rembert.tasks.reading.options import USUAL, FileOptions
from rembert.tasks.reading.parquet import read_parquet
from rembert.tasks.reading.plain_text import read_text
from rembert.tasks.reading.records import BadLine, Record
from rembert.tasks.reading.tables import read_csv, read_tsv

READERS: dict[str, Callable[[str | os.PathLike[str], FileOptions], Iterator[Record | BadLine]]] = {
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
    "conll": read_conll,
    "conllu": read_conllu,
    "squad": read_json,
    "text": read_text,
    "parquet": read_parquet,
}


def read_records(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    unknown: str = "jsonl",
    encoding: str | None = None,
    options: FileOptions = USUAL,
) -> Iterator[Record | BadLine]:
    """The records of a file, as they are read.

    Args:
        path: the file; `-` is the standard input.
        format: a key of `READERS`; by default found by the file's content and the extension of its name.
        unknown: the format if neither determines it, as for `.txt` and the standard input.
        encoding: of text; by default UTF-8.
        options: of tables.

    Raises:
        InputError: there is no such format or encoding.
        DataError: the file cannot be read.
    """
    file = TextFile(path, encoding)
    if format is not None:
        check_argument("format", format, one_of(READERS))
    refuse_foreign(file)
    yield from READERS[format or format_of(file, unknown)](file, options)
