"""Runs in parts: what their directory holds, which run may continue, and what is refused. Needs no Ray."""

from __future__ import annotations

import csv
import io
import tracemalloc
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bleurt.files import SegmentFiles
from rembert.cli import score
from rembert.cli.main import main
from rembert.common.errors import InputError
from rembert.scale.cluster import _first_line
from rembert.scale.parts import KEPT, Block, Parts, opened_parts, part_content
from rembert.tasks.reading import Location, Record
from tests.frameworks import needs, needs_pt
from tests.scale.cases import TEXTS, write_checkpoint, write_lines

SETTINGS = {"digest": "ab", "block_rows": 4}
ROWS: list[dict[str, Any]] = [{"id": "ü", "vector": np.float32([0.5, 1])}, {"id": None, "error": "a, b"}]


def _interrupted(output: Path, block: Block, content: bytes) -> None:
    """A run that is interrupted after one part."""
    with opened_parts(output, "jsonl", SETTINGS) as parts:
        parts.put(block, content)
        raise KeyboardInterrupt


def test_a_run_is_continued_until_it_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt) as interrupted:
        _interrupted(output, Block(1, 0), b"b")
    assert interrupted.value.__notes__ == [KEPT]
    with opened_parts(output, "jsonl", SETTINGS) as parts:
        assert parts.has(Block(1, 0))
        assert not parts.has(Block(0, 0))
        parts.put(Block(0, 10), b"a2")
        parts.put(Block(0, 9), b"a1")
        assert [path.read_bytes() for path in parts.files()] == [b"a1", b"a2", b"b"]  # in the order of the input
    with (
        pytest.raises(InputError, match=r"must be new.*complete") as refused,
        opened_parts(output, "jsonl", SETTINGS),
    ):
        pass
    assert not hasattr(refused.value, "__notes__")


def test_another_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "out", Block(0, 0), b"a")
    other = {**SETTINGS, "block_rows": 8}
    with (
        pytest.raises(InputError, match="block_rows was 4, now 8"),
        opened_parts(tmp_path / "out", "jsonl", other),
    ):
        pass
    assert (tmp_path / "out" / "part-00000-0000000.jsonl").is_file()


def test_a_run_without_a_part_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused, opened_parts(tmp_path / "out", "jsonl", SETTINGS):
        raise InputError("no cluster")
    assert not hasattr(refused.value, "__notes__")
    assert not list(tmp_path.iterdir())


def test_only_one_process_writes(tmp_path: Path) -> None:
    with opened_parts(tmp_path / "out", "jsonl", SETTINGS) as parts:
        parts.put(Block(0, 0), b"a")
        with pytest.raises(InputError, match="Another process"), opened_parts(tmp_path / "out", "jsonl", SETTINGS):
            pass
        assert (tmp_path / "out" / "run.json").is_file()


@pytest.mark.parametrize("kind", ["file", "other files", "no parent"])
def test_an_output_that_is_not_a_run_is_refused(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out"
    if kind == "file":
        output.write_text("mine")
    elif kind == "other files":
        output.mkdir()
        (output / "mine.txt").write_text("mine")
    else:
        output = output / "deeper"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="`--output` must be a"), opened_parts(output, "jsonl", SETTINGS):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_rows_in_csv() -> None:
    rows = list(csv.reader(io.StringIO(part_content(ROWS, "csv").decode(), newline="")))
    assert rows == [["id", "vector", "error"], ["ü", "[0.5, 1.0]", ""], ["", "", "a, b"]]


def test_rows_in_json_lines() -> None:
    lines = '{"id": "ü", "vector": [0.5, 1.0]}\n{"id": null, "error": "a, b"}\n'
    assert part_content(ROWS, "jsonl").decode() == lines


@needs("pyarrow")
def test_rows_in_parquet() -> None:
    from pyarrow import BufferReader
    from pyarrow.parquet import read_table

    found = read_table(BufferReader(part_content(ROWS, "parquet")))
    assert found.to_pylist() == [
        {"id": "ü", "vector": [0.5, 1.0], "error": None},
        {"id": None, "vector": None, "error": "a, b"},
    ]


@needs_pt
@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("predict", ["--workers", "2"], "`--workers` must be used with `--engine`"),
        ("predict", ["--output", "out", "--output-format", "csv"], "`--output-format` must be used with `--engine`"),
        ("predict", ["--engine", "ray"], "`--output` must be a directory with `--engine`. Received: none"),
        ("predict", ["--engine", "ray", "--output", "out", "--data", "-"], "must be regular files"),
        ("predict", ["--engine", "ray", "--output", "out", "--block-rows", "0"], "`block_rows` must be an integer"),
        ("embed", ["--output", "out", "--address", "auto"], "`--address` must be used with `--engine`"),
        ("score", ["--skip-bad-lines"], "`--skip-bad-lines` must be used with `--engine`"),
        ("score", ["--output", "out.parquet"], "Parquet must be written with `--engine`"),
        ("score", ["--engine", "ray", "--output", "out", "--compare", "in"], "`--compare` must be used without"),
        (
            "score",
            ["--engine", "ray", "--output", "out", "--output-format", "tsv"],
            "Parts must be jsonl, csv, parquet",
        ),
    ],
)
def test_options_that_do_not_go_together(
    command: str, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rembert.common.dependencies.is_installed", lambda name: True)
    model = str(write_checkpoint(tmp_path / "checkpoint"))
    write_lines(tmp_path / "in", [{"text": text} for text in TEXTS])
    start = {
        "predict": ["predict", "sequence-classification", "--model", model],
        "embed": ["embed", model],
        "score": ["score", "--model", model, "--candidates", "in", "--references", "in"],
    }[command]
    data = [] if command == "score" or "--data" in arguments else ["--data", "in"]
    assert main([*start, *data, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_pt
def test_a_missing_engine_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    model = str(write_checkpoint(tmp_path / "checkpoint"))
    data = str(write_lines(tmp_path / "in", [{"text": text} for text in TEXTS]))
    assert main(["embed", model, "--data", data, "--output", str(tmp_path / "out"), "--engine", "ray"]) == 1
    assert "pip install 'rembert[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scores_of_parts_are_kept_in_eight_bytes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "part-00000-0000000.jsonl", [{"candidate": "a", "reference": "b"}])
    system = score._System(SegmentFiles(path, []), SegmentFiles(path, []).survey())
    peaks = []
    for count in (2_000, 22_000):
        records = (Record(Location("part"), {"score": number / 7}) for number in range(count))
        monkeypatch.setattr(score, "read_records", lambda path, records=records: records)
        tracemalloc.start()
        whole = score._combined([system], Parts(tmp_path, "jsonl"), Namespace(candidates=path, score_field="score"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(whole.values) == count
    assert peaks[1] - peaks[0] < 20_000 * 20  # a float with its pointer has 32 bytes


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "\x1b[36mray::_about()\x1b[39m (pid=1, ip=192.0.2.2)\n  File a\nModuleNotFoundError: no b\n",
            "ModuleNotFoundError: no b",
        ),
        ("Traceback (most recent call last):\n  File a\nValueError: c", "ValueError: c"),
        ("The node died.\nIts logs are elsewhere.", "The node died."),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_of_a_failed_worker_is_one_line(said: str, shown: str) -> None:
    assert _first_line(RuntimeError(said)) == shown
