"""The kinds of files that people have, each read with the right values without options, or with the one it needs."""

from __future__ import annotations

import bz2
import io
import json
import lzma
import os
import sys
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from rembert.common.errors import DataError, InputError
from rembert.tasks import DataOptions, Task, get_task
from rembert.tasks.data import DataWarning
from tests.tasks.support import TOKENIZER

ROWS = '{"text": "eins", "label": "a"}\n{"text": "zwei", "label": "b"}\n'
PAIRS = [("eins", "a"), ("zwei", "b")]
LIST = [json.loads(line) for line in ROWS.splitlines()]


def task(**data: Any) -> Task:
    return get_task("sequence-classification", TOKENIZER(), max_length=64, data=DataOptions(**data))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def pairs(path: Path, **data: Any) -> list[tuple[str, Any]]:
    return [(example.text, example.label) for example in task(**data).read(path)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a", "a.csv", "a.tsv"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n", "\ufeff\r\n  "])
def test_json_lines_are_found_by_their_content(tmp_path: Path, name: str, start: str) -> None:
    assert pairs(write(tmp_path / name, start + ROWS)) == PAIRS


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(LIST),
        json.dumps({"data": LIST}, indent=2),
        "\ufeff\n" + json.dumps(LIST, indent=1),
        "\n".join(json.dumps(row, indent=1) for row in LIST),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.jsonl"])
def test_json_documents_are_found_by_their_content(tmp_path: Path, name: str, content: str) -> None:
    assert pairs(write(tmp_path / name, content)) == PAIRS


def test_rows_of_json_documents_have_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[\n{"text": "x"},\n\n{"text": 1}]')
    with pytest.raises(DataError, match=r"a\.json:4: 'text' must be a string"):
        list(task().read(path))


def test_a_long_first_line_is_one_line(tmp_path: Path) -> None:
    long = "lang " * 20_000
    assert len(long) > 1 << 16
    rows = "".join(json.dumps({"text": text, "label": "a"}) + "\n" for text in (long, "kurz"))
    assert pairs(write(tmp_path / "a.json", rows)) == [(long, "a"), ("kurz", "a")]


@pytest.mark.parametrize("content", [ROWS, "\n" + json.dumps(LIST)])
def test_the_standard_input_is_found_by_its_content(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for packed in (content.encode(), bz2.compress(content.encode())):
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(packed)))  # type: ignore[arg-type]
        monkeypatch.setattr(sys, "stdin", stream)
        assert pairs(Path("-")) == PAIRS


def test_a_named_pipe_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(ROWS * 3000,), daemon=True)
    writer.start()
    assert pairs(path) == PAIRS * 3000
    writer.join()


TABLES = {
    "a.csv": "text;label\neins;a\nzwei;b\n",
    "b.csv": "sep=;\ntext;label\neins;a\nzwei;b\n",
    "c.csv": 'text\tlabel\n"eins"\ta\nzwei\tb\n',
    "d.csv": '"text"|"label"\neins|a\nzwei|b\n',
    "e.csv": 'text,label,"a;b;c"\neins,a,\nzwei,b,\n',
    "f.txt": "text\tlabel\neins\ta\nzwei\tb\n",
    "g.txt": "label,text\na,eins\nb,zwei\n",
    "h.csv": "text,label\reins,a\rzwei,b\r",
    "i.tsv": "text\tlabel\r\neins\ta\r\nzwei\tb\r\n",
    "j.train": "ID\ttweet\tlabel\n1\teins\ta\n2\tzwei\tb\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_delimiters_and_line_ends_are_found(tmp_path: Path, name: str) -> None:
    assert pairs(write(tmp_path / name, TABLES[name])) == PAIRS


def test_tables_without_names_have_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "cola.tsv", "gj04\ta\t\teins\ngj04\tb\t\tzwei\n")
    assert pairs(path, columns={"text": "4", "label": "2"}) == PAIRS
    path = write(tmp_path / "a.csv", "2,1\neins,a\n")
    assert pairs(path, columns={"text": "2", "label": "1"}) == [("eins", "a")]  # these are names here
    assert pairs(path, columns={"text": "1", "label": "2"}, header=False) == [("2", "1"), ("eins", "a")]
    assert pairs(write(tmp_path / "b.txt", "text^label\neins^a\n"), format="csv", delimiter="^") == [("eins", "a")]
    with pytest.raises(DataError, match="or the columns be named by number"):
        pairs(write(tmp_path / "c.tsv", "x\tx\n"))
    with pytest.raises(InputError, match="`delimiter` must be one character"):
        pairs(path, delimiter="ab")


def test_fields_may_be_very_long(tmp_path: Path) -> None:
    long = "x" * 140_000
    assert pairs(write(tmp_path / "a.csv", f'text,label\n"{long}",a\n')) == [(long, "a")]


def zipped(content: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", ["bz2", "xz", "zip", "zst"])
def test_packed_files_are_unpacked(tmp_path: Path, suffix: str) -> None:
    content = ROWS.encode()
    if suffix == "zst":
        packed = pytest.importorskip("zstandard").ZstdCompressor().compress(content)
    elif suffix == "zip":
        packed = zipped(content, "x/a.jsonl", "__MACOSX/x/a.jsonl")
    else:
        packed = {"bz2": bz2.compress, "xz": lzma.compress}[suffix](content)
    assert pairs(write(tmp_path / f"a.jsonl.{suffix}", packed)) == PAIRS
    with pytest.raises(DataError, match=r"is damaged|cannot be read"):
        pairs(write(tmp_path / f"b.jsonl.{suffix}", packed[:-12]))


def test_streams_of_xz_may_follow_each_other(tmp_path: Path) -> None:
    rows = ROWS.encode() * 9000  # more than is unpacked at once
    packed = lzma.compress(rows) + bytes(8) + lzma.compress(rows, preset=9)
    assert pairs(write(tmp_path / "a.jsonl.xz", packed)) == PAIRS * 18_000
    with pytest.raises(DataError, match=r"b\.jsonl\.xz is damaged"):
        pairs(write(tmp_path / "b.jsonl.xz", packed + b"and more"))


def test_xz_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(ROWS.encode()))
    end = 12 + 4 * packed[12]  # of the block's header, before its checksum (The .xz File Format, 3.1)
    assert packed[14:16] == b"\x21\x01"  # LZMA2, one byte of properties: the size of the dictionary
    packed[16] = 40  # 4 GiB - 1
    packed[end : end + 4] = zlib.crc32(packed[12:end]).to_bytes(4, "little")
    with pytest.raises(DataError, match=r"a\.jsonl\.xz must be unpacked in at most 256 MiB of memory"):
        pairs(write(tmp_path / "a.jsonl.xz", bytes(packed)))


def test_archives_of_several_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold one file. Received: an archive of 2: a, b"):
        pairs(write(tmp_path / "a.zip", zipped(b"x", "a", "b")))
    with pytest.raises(DataError, match="a document of an office program; save it as CSV"):
        pairs(write(tmp_path / "a.xlsx", zipped(b"x", "[Content_Types].xml", "b")))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8"])
def test_text_may_have_another_encoding(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.csv", "text,label\r\nCafé,é\r\n".encode(encoding))
    assert pairs(path, encoding=encoding) == [("Café", "é")]
    with pytest.raises(InputError, match=r"`encoding` must be one that Python knows\. Received: 'klingon'"):
        pairs(path, encoding="klingon")


def test_a_byte_of_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tsv:2: text must be ascii \(`encoding`, --encoding\).* 0xc3"):
        pairs(write(tmp_path / "a.tsv", "text\né\n"), encoding="ascii")


def test_directories_and_patterns_name_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "data" / "b.tsv", "text\tlabel\nzwei\tb\n").parent
    write(folder / "a.jsonl", '{"text": "eins", "label": "a"}\n')
    write(folder / "README.md", "notes")
    write(folder / ".hidden.jsonl", "notes")
    assert pairs(folder) == PAIRS
    assert pairs(tmp_path / "*" / "[ab].*") == PAIRS
    with pytest.raises(DataError, match="must match at least one file"):
        pairs(folder / "*.csv")
    with pytest.raises(DataError, match=r"extension of a format. Received: README.md"):
        pairs(write(tmp_path / "empty" / "README.md", "x").parent)


def test_ids_that_repeat_or_are_floats_are_read(tmp_path: Path) -> None:
    rows = [{"id": 4.0, "text": "x"}, {"id": "4", "text": "y"}, {"id": 0.5, "text": "z"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.warns(DataWarning, match=r"a\.jsonl:2: the id '4' occurs twice, as in line 1"):
        assert [example.id for example in task().read(path)] == ["4", "4", "0.5"]


@pytest.mark.parametrize(
    "metadata",
    [b"[]", b"5", b"{", b"[" * 100_000, b'{"info": 5}', b'{"info": {"features": [5]}}', b"\xff",
     b'{"info": {"features": {"label": {"names": {"x": "y"}}}}}'],
    ids=range(8),
)  # fmt: skip
def test_metadata_of_others_name_no_classes(metadata: bytes, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": ["eins", "zwei"], "label": ["a", "b"]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    assert pairs(tmp_path / "a.parquet") == PAIRS
    (tmp_path / "a.jsonl").write_text(ROWS)
    (tmp_path / "dataset_info.json").write_bytes(metadata)
    assert pairs(tmp_path / "a.jsonl") == PAIRS


def test_parquet_files_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["eins", "zwei"], "label": ["a", "b"]}), tmp_path / "a")
    assert pairs(tmp_path / "a") == PAIRS
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        pairs(write(tmp_path / "b.parquet", "PAR1 and nothing"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF.*Save its text"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"\x80\x04\x95\x10", "pickle, which is never loaded"),
        (b"SQLite format 3\x00", "SQLite.*as CSV"),
        (b"x" * 257 + b"ustar\x0000", "tar archive"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv"])
def test_files_of_another_kind_are_named(tmp_path: Path, content: bytes, said: str, name: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{name} must hold examples. Received: .*{said}"):
        pairs(path)


def test_numbers_of_classes_are_named(tmp_path: Path) -> None:
    names = ["no", "yes"]
    with_names = get_task("sequence-classification", TOKENIZER(), max_length=64, label_names=names)
    found = list(with_names.read(write(tmp_path / "a.tsv", "text\tlabel\neins\t1\nzwei\t0\n")))
    assert [example.label for example in found] == ["yes", "no"]  # type: ignore[attr-defined]
    with_names.prepare(found)
    assert with_names.labels == names
    rows = [{"tokens": ["Ada", "lit"], "ner_tags": [1, 0]}]
    tags = get_task("token-classification", TOKENIZER(), max_length=64, label_names=["O", "B-PER"])
    [example] = tags.read(rows)
    tags.prepare([example])
    assert (example.tags, tags.metric) == (("B-PER", "O"), "f1")  # type: ignore[attr-defined]
    unnamed = get_task("token-classification", TOKENIZER(), max_length=64)
    with pytest.warns(DataWarning, match=r"integers without names.*--labels") as warnings:
        [*_] = unnamed.read(rows * 3)
    assert len([each for each in warnings if "integers" in str(each.message)]) == 1
