"""The format of a file by its content and, where that does not tell, by its name."""

from __future__ import annotations

import json
import os
import re

from rembert.common.compression import SUFFIXES
from rembert.common.text_files import TextFile
from rembert.tasks.reading.json_documents import holds_parts

PARQUET_START = b"PAR1"
_BY_EXTENSION = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".conll": "conll",
    ".conllu": "conllu",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".parquet": "parquet",
}
_OF_DATASETS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # files of `datasets`
_OBJECT = re.compile(r'\{\s*["}]')
_ARRAY = re.compile(r"\[\s*[{\]]")
_WORDS = re.compile(r"\b(tokens|words|text|sentence)\b", re.IGNORECASE)  # in the header of a table of sentences
_LEFT = "\ufeff \t\r\n"  # before the first value


def format_of(file: TextFile, unknown: str) -> str:
    """The format of a file.

    Args:
        file: its first bytes are read.
        unknown: the format if neither content nor name determine it.
    """
    head = file.head()
    if head.startswith(PARQUET_START):
        return "parquet"
    text = head.decode("utf-8", errors="replace").lstrip(_LEFT)
    name = _by_name(file)
    if (found := _json_format(text, is_text=unknown == "text" and name is None)) is not None:
        return found
    if not text:
        return name or unknown
    if name in ("tsv", "csv") and unknown == "conll" and not _WORDS.search(text.partition("\n")[0]):
        return "conll"  # PAN-X calls its files of words and tags so
    if name is None and unknown in ("jsonl", "squad"):  # formats that this text is not
        return _table_format(text) or "jsonl"
    return name or unknown


def is_data_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name has the extension of a format, or of text, before that of its compression."""
    name = _unpacked_name(path)
    return (_by_name(path) is not None and os.path.basename(name) not in _OF_DATASETS) or name.endswith(".txt")


def _unpacked_name(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path).lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _by_name(file: str | os.PathLike[str]) -> str | None:
    return _BY_EXTENSION.get(os.path.splitext(_unpacked_name(file))[1])


def _json_format(text: str, *, is_text: bool) -> str | None:
    """`jsonl` for an object in each line, `json` for a document, or None for something else.

    Args:
        text: the start of the file.
        is_text: whether lines of any text are as likely.
    """
    first, newline, _ = text.partition("\n")
    if _OBJECT.match(text) is not None:
        try:
            fields = json.loads(first)
        except (ValueError, RecursionError):
            if is_text:
                return None
            # A first line that goes on beyond what was read, or an object over several lines.
            is_document = first.rstrip().endswith(("{", "[", ",", ":")) if newline else '"paragraphs"' in text
            return "json" if is_document else "jsonl"
        return "json" if isinstance(fields.get("data"), list) or holds_parts(fields) else "jsonl"
    return "json" if _ARRAY.match(text) is not None and not is_text else None


def _table_format(text: str) -> str | None:
    """`tsv` or `csv` if the first lines have as many fields as the first, more than one."""
    lines = [line for line in text.splitlines()[:5] if line.strip()]
    for delimiter, format in (("\t", "tsv"), (",", "csv"), (";", "csv"), ("|", "csv")):
        counts = [line.count(delimiter) for line in lines]
        if counts and counts[0] and (format == "csv" or min(counts) == max(counts)) and len(lines) > 1:
            return format
    return None
