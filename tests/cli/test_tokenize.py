"""`rembert tokenize`, through its two functions."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys

import pytest

from rembert.cli import tokenize
from rembert.common.errors import RemBertError
from tests.common.tokenizer_cases import MODEL, processor


def call(*arguments):
    parser = argparse.ArgumentParser()
    tokenize.add_parser(parser.add_subparsers())
    args = parser.parse_args(["tokenize", *map(str, arguments)])
    return args.run(args)


def test_text(capsys):
    assert call(MODEL, "a [MASK]", "½ b") == 0
    assert capsys.readouterr().out == "[CLS] ▁a [MASK] [SEP]\n[CLS] ▁1 <unk> 2 ▁b [SEP]\n"


def test_ids_of_a_file(capsys, tmp_path):
    lines = ["Ufaransa", "", "a b\r", "última"]
    (tmp_path / "text").write_bytes("\n".join(lines).encode())
    assert call(MODEL, "--file", tmp_path / "text", "--to", "ids", "--no-special-tokens") == 0
    expected = [" ".join(map(str, processor().encode(line))) for line in lines]
    assert capsys.readouterr().out.split("\n")[:-1] == expected


def test_json_lines_of_the_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a é\n\n".encode())))
    assert call(MODEL, "--to", "jsonl", "--max-length", 3) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {
        "input_ids": [3, 13, 4],
        "pieces": ["[CLS]", "▁a", "[SEP]"],
        "offsets": [[0, 0], [0, 1], [0, 0]],
    }
    assert rows[1]["input_ids"] == [3, 4]


def test_input_is_read_while_output_is_written(monkeypatch, capsys):
    monkeypatch.setattr(tokenize, "_BATCH_CHARACTERS", 200)
    read = []

    def lines():
        for number in range(100):
            read.append(number)
            yield b"word\n"

    batches = tokenize._batches(line.decode() for line in lines())
    assert len(next(batches)) == len(read) == 3


@pytest.mark.parametrize(("content", "message"), [(b"ok\nb\xff", "byte 0xff in line 2 of"), (None, "cannot be read")])
def test_wrong_data(tmp_path, content, message):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(RemBertError, match=message):
        call(MODEL, "--file", tmp_path / "text")


@pytest.mark.parametrize("arguments", [(MODEL, "a", "--file", "x"), (MODEL, "--max-length", "0", "a"), ()])
def test_wrong_calls(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert caught.value.code == 2


def test_a_reader_that_stops_early():
    code = (
        "import argparse; from rembert.cli import tokenize; p = argparse.ArgumentParser(); "
        "tokenize.add_parser(p.add_subparsers()); a = p.parse_args(); raise SystemExit(a.run(a))"
    )
    command = f'yes "some words" | head -n 200000 | "{sys.executable}" -c "{code}" tokenize "{MODEL}" | head -n 1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[CLS] ")
    assert done.stderr == ""
