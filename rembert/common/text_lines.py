"""Lines of UTF-8 text from a file, compressed or not, or from the standard input, in constant memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from rembert.common.errors import DataError
from rembert.common.text_files import STANDARD_INPUT, TextFile, name_of

__all__ = ["STANDARD_INPUT", "Line", "TextFile", "name_of", "open_bytes", "read_lines", "text_batches"]

_LINE_END_WITHIN = 1 << 16  # bytes
MAX_LINE = 1 << 28  # bytes; a small packed file may unpack to a line that fills the memory
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line: its number from 1, its text without the line end, or why it is not UTF-8."""

    number: int
    text: str
    problem: str | None = None


@contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The bytes of a file, or of the standard input for `-`; packed files are recognised by their first bytes.

    Args:
        path: the file; a `TextFile` may have another encoding than UTF-8.

    Raises:
        DataError: the file is missing, cannot be read, or is damaged.
    """
    with (path if isinstance(path, TextFile) else TextFile(path)).open() as stream:
        yield stream


def read_lines(path: str | os.PathLike[str], *, strict: bool = False) -> Iterator[Line]:
    """The lines of a file, with LF, CRLF, or CR alone at all their ends; a byte order mark of UTF-8 is left out.

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
        for batch in _whole_lines(stream, read_bytes, name_of(path)):
            if number == 1:
                if batch[0].startswith(_UTF16_MARKS):
                    raise DataError(
                        f"{name_of(path)}:1: text must be UTF-8. Received: the byte order mark of UTF-16. "
                        "Pass `encoding` (--encoding utf-16)."
                    )
                batch[0] = batch[0].removeprefix(_UTF8_MARK)
            yield number, batch
            number += len(batch)


def _whole_lines(stream: Any, read_bytes: int, name: str) -> Iterator[list[bytes]]:
    """The lines that each read completes; the rest of a read waits for the next.

    Lines end with LF; or with CR, as in files of old Macintosh programs, if the first 64 KiB or the whole file has no
    LF.

    Raises:
        DataError: a line has more than `MAX_LINE` bytes.
    """
    begun: list[bytes] = []
    size = 0  # of what is begun
    end, has_cr = None, False
    while read := stream.read1(read_bytes):
        if end is None:
            has_cr = has_cr or b"\r" in read
            has_only_cr = size + len(read) >= _LINE_END_WITHIN and has_cr
            end = b"\n" if b"\n" in read else b"\r" if has_only_cr else None
            if end is not None:
                read, begun, size = b"".join([*begun, read]), [], 0
        lines, newline, rest = (b"", b"", read) if end is None else read.rpartition(end)
        if newline:
            yield b"".join([*begun, lines]).split(end)
            begun, size = [], 0
        if rest:
            begun.append(rest)
            size += len(rest)
        if size > MAX_LINE:
            raise DataError(f"{name}: a line must have at most {MAX_LINE} bytes. Received: a longer one.")
    if begun:
        last = b"".join(begun)
        yield last.removesuffix(b"\r").split(b"\r") if end is None else [last]


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
