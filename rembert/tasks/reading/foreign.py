"""Files that hold no examples, recognised by their first bytes, and what to do about them."""

from __future__ import annotations

import re

from rembert.common.errors import DataError
from rembert.common.text_files import TextFile, name_of

# Of a file's start: what it seems to be, and what to do.
_KINDS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(start, re.IGNORECASE | re.DOTALL), kind, advice)
    for start, kind, advice in (
        (rb"version https://git-lfs", "a pointer of Git LFS, in place of the file", "Run `git lfs pull`"),
        (rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html)", "an HTML page", "Download the file itself"),
        (rb"(\xef\xbb\xbf)?\s*<\?xml", "XML", "Convert it to JSON lines, TSV or CoNLL"),
        (rb"%PDF-", "a PDF document", "Save its text"),
        (rb"\{\\rtf", "an RTF document", "Save it as plain text"),
        (rb"\xd0\xcf\x11\xe0", "a document of an older office program", "Save it as CSV"),
        (
            rb"ARROW1|\xff\xff\xff\xff.{4}\x10\x00\x00\x00",
            "an Arrow file",
            "Pass the `Dataset` itself in Python, or save it as Parquet",
        ),
        (rb"\x93NUMPY", "an array of NumPy", "Save the texts as JSON lines"),
        (rb"\x80[\x02-\x05]", "a pickle, which is never loaded", "Save it as JSON lines or Parquet"),
        (rb"SQLite format 3", "a database of SQLite", "Export a table as CSV"),
        (rb"\x89HDF", "an HDF5 file", "Save the texts as JSON lines"),
        (rb"\x89PNG|\xff\xd8\xff|GIF8", "an image", "Give a file of text"),
        (rb".{257}ustar", "a tar archive", "Unpack it first"),
    )
)


def refuse_foreign(file: TextFile) -> None:
    """Refuse a file that is recognised as something else than examples.

    Raises:
        DataError: says what it seems to be, and what to do.
    """
    head = file.head()
    for start, kind, advice in _KINDS:
        if start.match(head):
            raise DataError(f"{name_of(file)} must hold examples. Received: {kind}. {advice}.")
