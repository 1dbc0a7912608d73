"""Packed files (gzip, bzip2, xz, Zstandard, ZIP archives of one file), recognised by their first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from rembert.common.dependencies import require_packages
from rembert.common.errors import DataError

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
_MEMORY = 1 << 28  # bytes to unpack xz with: its highest preset needs a quarter, a damaged header may ask for 4 GB
_READ_BYTES = 1 << 10  # packed bytes of Zstandard at once: four of them may stand for 128 KiB
_NOT_DATA = ("__MACOSX/", ".")  # what archive programs add: folders of their own, hidden files


@contextmanager
def unpacked(stream: Any, name: str) -> Iterator[IO[bytes]]:
    """The bytes of a file without its compression, if it has one.

    Args:
        stream: a buffered binary file.
        name: of the file, for messages.

    Raises:
        DataError: the file is damaged, needs too much memory, or is an archive of several files.
        MissingDependencyError: it is packed with Zstandard, and `zstandard` is not installed.
    """
    start = stream.peek(6)[:6]
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    try:
        yield stream if opener is None else opener(stream, name)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as problem:
        raise DataError(f"{name} is damaged: {problem}.") from problem


class PartReader(io.RawIOBase):
    """A file of bytes that come in parts of any size."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def _next(self) -> bytes:
        """The next bytes; none at the end."""
        raise NotImplementedError

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._next()
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _Zstandard(PartReader):
    """The content of a file of Zstandard frames; unlike the package's own reader, it refuses one that is cut."""

    def __init__(self, stream: Any, name: str) -> None:
        super().__init__()
        require_packages("zstandard", needed_for=f"Reading {name}, which is packed with Zstandard,")
        self._stream, self._name = stream, name
        self._frame: Any = None
        self._left = b""  # of the next frame

    def _next(self) -> bytes:
        import zstandard

        text = b""
        while not text:
            part = self._left or self._stream.read1(_READ_BYTES)
            if not part:
                if self._frame is not None:
                    raise EOFError("the last frame is cut")
                return b""
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                text = self._frame.decompress(part)
            except zstandard.ZstdError as problem:
                raise DataError(f"{self._name} is damaged: {problem}.") from problem
            self._left = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        return text


class _Xz(PartReader):
    """The content of a file of xz streams, unpacked in bounded memory."""

    def __init__(self, stream: Any, name: str) -> None:
        super().__init__()
        self._stream, self._name = stream, name
        self._decompressor: lzma.LZMADecompressor | None = None  # of the stream that is read
        self._left = b""  # of the next stream

    def _next(self) -> bytes:
        text = b""
        while not text:
            part = b""
            if self._decompressor is None or self._decompressor.needs_input:
                part = self._left or self._stream.read1(io.DEFAULT_BUFFER_SIZE)
                if not part:
                    if self._decompressor is not None:
                        raise EOFError("the last stream is cut")
                    return b""
                self._left = b""
            if self._decompressor is None:
                if not (part := part.lstrip(b"\0")):  # padding between streams
                    continue
                self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
            text = self._unpacked(self._decompressor, part)
            if self._decompressor.eof:
                self._left, self._decompressor = self._decompressor.unused_data, None
        return text

    def _unpacked(self, decompressor: lzma.LZMADecompressor, part: bytes) -> bytes:
        try:
            return decompressor.decompress(part, io.DEFAULT_BUFFER_SIZE)
        except lzma.LZMAError as problem:
            if "limit" not in str(problem):
                raise
            raise DataError(
                f"{self._name} must be unpacked in at most {_MEMORY >> 20} MiB of memory. Received: a dictionary that "
                "needs more. Pack it with `xz -9` or less."
            ) from problem


def _only_member(stream: Any, name: str) -> Any:
    """The one file of a ZIP archive."""
    if not stream.seekable():
        stream = io.BytesIO(stream.read())
    archive = zipfile.ZipFile(stream)
    names = [each for each in archive.namelist() if not each.endswith("/") and not each.startswith(_NOT_DATA)]
    if len(names) != 1:
        kind = "a document of an office program; save it as CSV" if "[Content_Types].xml" in names else "an archive"
        raise DataError(f"{name} must hold one file. Received: {kind} of {len(names)}: {', '.join(names):.200}.")
    return archive.open(names[0])


_OPENERS: dict[bytes, Callable[[Any, str], Any]] = {
    b"\x1f\x8b": lambda stream, name: gzip.GzipFile(fileobj=stream),
    b"BZh": lambda stream, name: bz2.BZ2File(stream),
    b"\xfd7zXZ\x00": lambda stream, name: io.BufferedReader(_Xz(stream, name)),
    b"\x28\xb5\x2f\xfd": lambda stream, name: io.BufferedReader(_Zstandard(stream, name)),
    b"PK\x03\x04": _only_member,
}
