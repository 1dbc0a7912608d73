"""Lines of text files: line ends, byte order marks, gzip, encoding errors, and input that comes in parts."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest

from rembert.common import text_lines
from rembert.common.errors import DataError
from rembert.common.text_lines import Line, open_bytes, read_lines, text_batches
from rembert.tasks.reading import json_documents


def lines(path: Path, *, strict: bool = False) -> list[Line]:
    return list(read_lines(path, strict=strict))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_do_not_depend_on_the_reads(tmp_path: Path, size: int, packed: bool) -> None:
    content = "\ufeffa\n\n\nüber\r\n人\n\nend".encode()
    (tmp_path / "text").write_bytes(gzip.compress(content) if packed else content)
    expected = ["a", "", "", "über", "人", "", "end"]
    assert list(chain.from_iterable(text_batches(tmp_path / "text", read_bytes=size))) == expected
    assert lines(tmp_path / "text", strict=True) == [Line(number, text) for number, text in enumerate(expected, 1)]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"ok\nb\xffc\nx\0\nok")
    assert [line.problem for line in lines(tmp_path / "text")] == [
        None,
        "text must be UTF-8. Received: byte 0xff at position 1",
        "text must be UTF-8. Received: byte 0x00 at position 1",
        None,
    ]
    with pytest.raises(DataError, match=r"text:2: text must be UTF-8\. Received: byte 0xff at position 1\."):
        lines(tmp_path / "text", strict=True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf16_is_refused_by_its_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "text").write_bytes(
        "\ufeffx\n".encode("utf-16-be") if encoding == "utf-16-be" else "x\n".encode(encoding)
    )
    with pytest.raises(DataError, match=r"text:1: .*the byte order mark of UTF-16"):
        lines(tmp_path / "text")


def test_damaged_gzip_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(gzip.compress(b"x\n" * 5000)[:-20])
    with pytest.raises(DataError, match="text is damaged"):
        lines(tmp_path / "text")
    with pytest.raises(DataError, match="absent cannot be read: No such file"):
        lines(tmp_path / "absent")


def test_the_standard_input_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    standard = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"one\ntwo\n")))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", standard)
    assert [line.text for line in lines(Path("-"))] == ["one", "two"]
    assert not standard.buffer.closed


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_may_end_with_cr_alone(tmp_path: Path, size: int) -> None:
    (tmp_path / "text").write_bytes(b"a\rb\r\rc\r")
    assert list(chain.from_iterable(text_batches(tmp_path / "text", read_bytes=size))) == ["a", "b", "", "c"]
    long = b"x" * 70_000 + b"\ry\r" + b"z" * 70_000  # ends before the file is read whole
    (tmp_path / "text").write_bytes(long)
    found = list(chain.from_iterable(text_batches(tmp_path / "text", read_bytes=max(size, 1000))))
    assert list(map(len, found)) == [70_000, 1, 70_000]
    (tmp_path / "text").write_bytes(b"a\rb\nc")  # CR is a character where LF ends lines
    assert list(chain.from_iterable(text_batches(tmp_path / "text", read_bytes=size))) == ["a\rb", "c"]


def test_packed_files_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line, and a JSON document, of a small packed file."""
    monkeypatch.setattr(text_lines, "MAX_LINE", 1 << 18)
    monkeypatch.setattr(json_documents, "MAX_PACKED", 1 << 18)
    for content, kind in ((b"a\n" + b"b" * (1 << 19), "a line"), (b"[" + b" " * (1 << 19), "a JSON document")):
        path = tmp_path / "texts.gz"
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=f"{path.name}: {kind}.* must have at most 262144 bytes"):
            list(read_lines(path) if kind == "a line" else json_documents.read_json(path))
    path.write_bytes(gzip.compress(b"a" * (1 << 17) + b"\n"))
    assert [len(line.text) for line in read_lines(path)] == [1 << 17]
    plain = tmp_path / "texts.json"
    plain.write_bytes(b'[{"a": 1}' + b" " * (1 << 19) + b"]")  # as large on the disk
    assert len(list(json_documents.read_json(plain))) == 1


def test_a_small_file_of_zstandard_is_unpacked_in_parts(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "texts.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(b"\n" * (1 << 28)))
    tracemalloc.start()
    try:
        with open_bytes(path) as stream:
            assert stream.read1(1 << 10) == b"\n" * (1 << 10)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
