"""Lines of UTF-8 text from a file, compressed or not, or from the standard input, in constant memory."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Any, NamedTuple

from rembert.common.errors import DataError

STANDARD_INPUT = "-"
_GZIP = b"\x1f\x8b"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line: its number from 1, its text without the line end, or why it is not UTF-8."""

    number: int
    text: str
    problem: str | None = None


def name_of(path: str | os.PathLike[str]) -> str:
    """A file's name for messages."""
    return "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)


@contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of the standard input for `-`; gzip is recognized by its first bytes and unpacked.

    Raises:
        DataError: the file is missing, cannot be read, or is damaged gzip.
    """
    name = name_of(path)
    try:
        # The standard input stays open.
        is_standard = os.fspath(path) == STANDARD_INPUT
        with nullcontext(sys.stdin.buffer) if is_standard else open(path, "rb") as stream:
            packed = stream.peek(2)[:2] == _GZIP  # type: ignore[union-attr]
            yield gzip.GzipFile(fileobj=stream) if packed else stream  # type: ignore[misc]
    except OSError as problem:
        raise DataError(f"{name} cannot be read: {problem.strerror or problem}.") from problem
    except (EOFError, zlib.error) as problem:
        raise DataError(f"{name} is damaged: {problem}.") from problem


def read_lines(path: str | os.PathLike[str], *, strict: bool = False) -> Iterator[Line]:
    """The lines of a file, LF or CRLF at their ends; a byte order mark of UTF-8 is left out.

    Args:
        path: the file; `-` is the standard input.
        strict: refuse a line that is not UTF-8 instead of yielding its `problem`.

    Raises:
        DataError: the file cannot be read, begins with the byte order mark of UTF-16, or, with `strict`, holds a line
            that is not UTF-8; names file and line.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("text.txt").write_bytes(b"one\\r\\ntwo\\xff\\n")
        >>> for line in read_lines("text.txt"):
        ...     print(line.number, line.problem or line.text)
        1 one
        2 text must be UTF-8. Received: byte 0xff at position 3
    """
    for number, batch in _numbered_batches(path, io.DEFAULT_BUFFER_SIZE):
        for index, line in enumerate(batch, number):
            yield _decoded(line, index, path if strict else None)


def text_batches(path: str | os.PathLike[str], read_bytes: int = 1 << 17) -> Iterator[list[str]]:
    """The lines of a file in batches, one for each read, so that lines from a pipe arrive as they are written.

    Args:
        path: the file; `-` is the standard input.
        read_bytes: bytes of one read at most.

    Raises:
        DataError: as `read_lines` with `strict`.
    """
    for number, batch in _numbered_batches(path, read_bytes):
        yield [_decoded(line, index, path).text for index, line in enumerate(batch, number)]


def _numbered_batches(path: str | os.PathLike[str], read_bytes: int) -> Iterator[tuple[int, list[bytes]]]:
    """The lines of each read, and the number of the first of them."""
    number = 1
    with open_bytes(path) as stream:
        for batch in _whole_lines(stream, read_bytes):
            if number == 1:
                if batch[0].startswith(_UTF16_MARKS):
                    raise DataError(f"{name_of(path)}:1: text must be UTF-8. Received: the byte order mark of UTF-16.")
                batch[0] = batch[0].removeprefix(_UTF8_MARK)
            yield number, batch
            number += len(batch)


def _whole_lines(stream: Any, read_bytes: int) -> Iterator[list[bytes]]:
    """The lines that each read completes; the rest of a read waits for the next."""
    begun: list[bytes] = []
    while read := stream.read1(read_bytes):
        lines, newline, rest = read.rpartition(b"\n")
        if newline:
            yield b"".join([*begun, lines]).split(b"\n")
            begun = []
        if rest:
            begun.append(rest)
    if begun:
        yield [b"".join(begun)]


def _decoded(line: bytes, number: int, strict_path: str | os.PathLike[str] | None) -> Line:
    """A line as text; if it is not UTF-8, with its problem, or, if `path` is given, an error."""
    try:
        text = line.decode("utf-8")
        position = line.find(0)  # valid UTF-8, but not text: this is UTF-16 without a mark, or binary data
    except UnicodeDecodeError as error:
        text, position = "", error.start
    if position < 0:
        return Line(number, text.rstrip("\r"))
    problem = f"text must be UTF-8. Received: byte 0x{line[position]:02x} at position {position}"
    if strict_path is not None:
        raise DataError(f"{name_of(strict_path)}:{number}: {problem}.")
    return Line(number, "", problem)
