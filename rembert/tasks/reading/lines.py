"""Lines of UTF-8 text from a file, compressed or not, or from the standard input; one line in memory at a time."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO

from rembert.common.errors import DataError
from rembert.tasks.reading.records import BadLine, Location

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_UTF8_MARK = b"\xef\xbb\xbf"


def name_of(path: str | os.PathLike[str]) -> str:
    """A file's name for messages."""
    return "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of the standard input for `-`; gzip is recognized by its first bytes and unpacked.

    Raises:
        DataError: the file is missing, cannot be read, or is damaged gzip.
    """
    name = name_of(path)
    try:
        # The standard input is not ours to close.
        is_standard = os.fspath(path) == STANDARD_INPUT
        with nullcontext(sys.stdin.buffer) if is_standard else open(path, "rb") as stream:
            packed = stream.peek(2)[:2] == _GZIP  # type: ignore[union-attr]
            yield gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[misc]
    except OSError as problem:
        raise DataError(f"{name} cannot be read: {problem.strerror or problem}.") from problem
    except (EOFError, zlib.error) as problem:
        raise DataError(f"{name} is damaged: {problem}.") from problem


def lines(path: str | os.PathLike[str]) -> Iterator[tuple[Location, str] | BadLine]:
    """Every line with its location, without its end (LF or CRLF); a byte order mark of UTF-8 is left out.

    A line that is not UTF-8 is a `BadLine`.

    Raises:
        DataError: the file cannot be read, or begins with the mark of another encoding.
    """
    name = name_of(path)
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            location = Location(name, number)
            if number == 1:
                if other := _OTHER_MARKS.get(line[:2]):
                    raise DataError(f"{location}: text must be UTF-8. Received: a file that begins as {other} does.")
                line = line.removeprefix(_UTF8_MARK)
            if b"\0" in line:  # valid UTF-8, but not text: this is UTF-16 without a mark, or binary data
                yield BadLine(location, f"text must be UTF-8. Received: byte 0x00 at position {line.index(0)}")
                continue
            try:
                yield location, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as problem:
                byte = line[problem.start]
                yield BadLine(location, f"text must be UTF-8. Received: byte 0x{byte:02x} at position {problem.start}")
