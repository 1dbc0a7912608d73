"""A file of text that can be looked at before it is read: of any encoding, packed or not, also from a pipe."""

from __future__ import annotations

import codecs
import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import IO, Any

from rembert.common.compression import PartReader, unpacked
from rembert.common.errors import DataError, InputError

STANDARD_INPUT = "-"
_LOOKED_AT = 1 << 14  # bytes
_UTF8 = ("utf-8", "utf-8-sig")


def name_of(path: str | os.PathLike[str]) -> str:
    """A file's name for messages."""
    return "standard input" if os.fspath(path) == STANDARD_INPUT else os.fspath(path)


class TextFile(os.PathLike[str]):
    """A file of text, or the standard input for `-`. Its bytes are UTF-8, whatever its encoding.

    Args:
        path: the file.
        encoding: a name that Python knows; by default UTF-8.

    Raises:
        InputError: there is no such encoding.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("old.txt").write_bytes("café".encode("latin-1"))
        >>> file = TextFile("old.txt", encoding="latin-1")
        >>> file.head().decode()
        'café'
        >>> with file.open() as stream:
        ...     stream.read().decode()
        'café'
    """

    def __init__(self, path: str | os.PathLike[str], encoding: str | None = None) -> None:
        self._path = os.fspath(path)
        self._encoding = None
        if encoding is not None:
            try:
                name = codecs.lookup(encoding).name
                "".encode(name)  # not one from bytes to bytes
            except (LookupError, ValueError) as problem:
                raise InputError(f"`encoding` must be one that Python knows. Received: {encoding!r}.") from problem
            self._encoding = None if name in _UTF8 else name
        self._held: tuple[bytes, IO[bytes]] | None = None  # of a pipe: what `head` has read, and the rest

    def __fspath__(self) -> str:
        return self._path

    def head(self, size: int = _LOOKED_AT) -> bytes:
        """The first bytes, at least `size` if there are as many. A pipe can be read from its start afterwards."""
        if self._held is None and self._is_pipe():
            source = self._source()
            self._held = (_read(source, size), source)
        if self._held is not None:
            with suppress(EOFError), self._decoded(io.BufferedReader(io.BytesIO(self._held[0]))) as stream:
                return _read(stream, size)
            return b""
        with self.open() as stream:
            return _read(stream, size)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes of the file, unpacked, in UTF-8.

        Raises:
            DataError: the file is missing, cannot be read, or is damaged.
        """
        try:
            held, self._held = self._held, None
            if held is not None:
                source: Any = io.BufferedReader(_Joined(*held))
            else:
                source = self._source()
            # The standard input stays open.
            keeps = self._path == STANDARD_INPUT
            with nullcontext(source) if keeps else source, self._decoded(source) as stream:
                yield stream
        except OSError as problem:
            raise DataError(f"{name_of(self)} cannot be read: {problem.strerror or problem}.") from problem

    def _source(self) -> Any:
        return sys.stdin.buffer if self._path == STANDARD_INPUT else open(self._path, "rb")

    def _is_pipe(self) -> bool:
        if self._path == STANDARD_INPUT:
            return True
        try:
            mode = os.stat(self._path).st_mode
        except OSError:
            return False  # opening it says what is wrong
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)

    @contextmanager
    def _decoded(self, source: Any) -> Iterator[Any]:
        with unpacked(source, name_of(self)) as stream:
            if self._encoding is None:
                yield stream
            else:
                yield io.BufferedReader(_Recoded(stream, self._encoding, name_of(self)))


def _read(stream: Any, size: int) -> bytes:
    """At least `size` bytes, or all there are; a packed file may end before."""
    found = bytearray()
    with suppress(EOFError):
        while len(found) < size and (part := stream.read1(size)):
            found += part
    return bytes(found)


class _Joined(PartReader):
    """Bytes, followed by the rest of a file."""

    def __init__(self, start: bytes, rest: IO[bytes]) -> None:
        super().__init__()
        self._rest, self._stream = start, rest

    def _next(self) -> bytes:
        return self._stream.read1(_LOOKED_AT)  # type: ignore[attr-defined]


class _Recoded(PartReader):
    """A file in another encoding, as UTF-8."""

    def __init__(self, stream: Any, encoding: str, name: str) -> None:
        super().__init__()
        self._stream, self._name = stream, name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._line = 1

    def _next(self) -> bytes:
        text, is_last = "", False
        while not text and not is_last:
            part = self._stream.read1(_LOOKED_AT)
            is_last = not part
            try:
                text = self._decoder.decode(part, final=is_last)
            except UnicodeDecodeError as problem:
                line = self._line + problem.object[: problem.start].count(b"\n")
                raise DataError(
                    f"{self._name}:{line}: text must be {self._encoding} (`encoding`, --encoding). Received: byte "
                    f"0x{problem.object[problem.start]:02x}."
                ) from None
        self._line += text.count("\n")
        return text.encode("utf-8", "surrogatepass")
