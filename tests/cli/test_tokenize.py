"""`rembert tokenize`, through its two functions."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rembert.cli import tokenize
from rembert.common.errors import InputError, RemBertError
from tests.common.tokenizer_cases import MODEL, processor


def call(*arguments: Any) -> int:
    parser = argparse.ArgumentParser()
    tokenize.add_parser(parser.add_subparsers())
    args = parser.parse_args(["tokenize", *map(str, arguments)])
    return args.run(args)


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(MODEL, "a [MASK]", "½ b") == 0
    assert capsys.readouterr().out == "[CLS] ▁a [MASK] [SEP]\n[CLS] ▁1 <unk> 2 ▁b [SEP]\n"


def test_ids_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = ["Ufaransa", "", "a b\r", "última"]
    (tmp_path / "text").write_bytes("\n".join(lines).encode())
    assert call(MODEL, "--file", tmp_path / "text", "--to", "ids", "--no-special-tokens") == 0
    expected = [" ".join(map(str, processor().encode(line))) for line in lines]
    assert capsys.readouterr().out.split("\n")[:-1] == expected


def test_json_lines_of_the_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO("a é\n\n".encode()))))
    assert call(MODEL, "--to", "jsonl", "--max-length", 3) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {
        "input_ids": [3, 13, 4],
        "tokens": ["[CLS]", "▁a", "[SEP]"],
        "offsets": [[0, 0], [0, 1], [0, 0]],
    }
    assert rows[1]["input_ids"] == [3, 4]


def test_output_does_not_wait_for_more_input() -> None:
    command = [sys.executable, "-m", "rembert", "tokenize", str(MODEL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for text in (b"a\n", b"b\n"):
            process.stdin.write(text)
            process.stdin.flush()
            assert process.stdout.readline() == b"[CLS] \xe2\x96\x81" + text.strip() + b" [SEP]\n"
        process.stdin.close()
        assert process.wait(60) == 0


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(RemBertError, match="a --file or a standard input"):
        call(MODEL)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"ok\nb\xff", "text:2: text must be UTF-8"), (None, "cannot be read")],
)
def test_wrong_data(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(RemBertError, match=message):
        call(MODEL, "--file", tmp_path / "text")


@pytest.mark.parametrize("arguments", [(MODEL, "a", "--file", "x"), ()])
def test_wrong_calls(arguments: tuple[Any, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert caught.value.code == 2


def test_a_wrong_length() -> None:
    with pytest.raises(InputError, match="`--max-length` must be an integer of 1 or more"):
        call(MODEL, "a", "--max-length", "0")


def test_a_reader_that_stops_early() -> None:
    command = f'yes "some words" | head -n 200000 | "{sys.executable}" -m rembert tokenize "{MODEL}" | head -n 1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[CLS] ")
    assert done.stderr == ""
