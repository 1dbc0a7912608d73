"""`rembert score`: files in and out, resuming, several processes, what is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bleurt import regressors, score_files
from rembert.bleurt.score_file import CUT, DONE, TODO, ScoreFile
from rembert.bleurt.scorer import Score
from rembert.cli.main import main
from rembert.common.errors import InputError
from rembert.tasks import RemBertScorer
from tests.bleurt.cases import (
    BERT_CONFIG,
    make_variables,
    reference_input,
    reference_score,
    write_saved_model,
)
from tests.frameworks import needs_pt, on_both

pytestmark = needs_pt
VARIABLES = make_variables()
CANDIDATES = ["a bird chirps", "this looks random", "über den Wolken", "a b c"]
REFERENCES = ["a bird sings by the window", "this is random", "above the clouds", "a b c"]
OTHERS = ["the bird chirps", "this seems to be random", "over the clouds", "d e f"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_saved_model(tmp_path_factory.mktemp("bleurt") / "tiny", VARIABLES)


@pytest.fixture
def call(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command in a directory that has the files of lines."""
    monkeypatch.chdir(tmp_path)
    for name, texts in (("c.txt", CANDIDATES), ("r.txt", REFERENCES), ("o.txt", OTHERS)):
        Path(name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return lambda *arguments: main(["score", "--model", str(model), *map(str, arguments)])


def truth(candidate: str, reference: str) -> float:
    return reference_score(VARIABLES, BERT_CONFIG, *reference_input(candidate, reference, 48))


FIRST = [truth(*pair) for pair in zip(CANDIDATES, REFERENCES, strict=True)]
SECOND = [truth(*pair) for pair in zip(CANDIDATES, OTHERS, strict=True)]


def close(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-5)


def json_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------- files


def test_lines_to_the_standard_output(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--candidates", "c.txt", "--references", "r.txt") == 0
    said = capsys.readouterr()
    assert [float(line) for line in said.out.splitlines()] == close(FIRST)
    assert f"c.txt: {np.mean(FIRST):.4f} [" in said.err
    assert "4 segments" in said.err
    assert "pairs/s" not in said.err  # no bar where there is no terminal


@on_both
def test_both_frameworks(call: Any, framework: Any) -> None:
    assert call("--candidates", "c.txt", "--references", "r.txt", "--framework", framework.name, "--output", "s") == 0
    assert [float(line) for line in Path("s").read_text().splitlines()] == close(FIRST)
    assert sorted(path.name for path in Path().iterdir()) == ["c.txt", "o.txt", "r.txt", "s"]  # nothing is left


@pytest.mark.parametrize(("aggregate", "combine"), [("best", np.max), ("mean", np.mean)])
def test_several_references_to_json_lines(call: Any, aggregate: str, combine: Any) -> None:
    arguments = ("--candidates", "c.txt", "--references", "r.txt", "o.txt", "--output", "s.jsonl")
    assert call(*arguments, "--aggregate", aggregate) == 0
    both = np.stack([FIRST, SECOND], axis=1)
    rows = json_lines("s.jsonl")
    assert [row["score"] for row in rows] == close(combine(both, axis=1))
    assert [row["score_all"] for row in rows] == [close(scores) for scores in both.tolist()]
    assert [row["score_best"] for row in rows] == close(both.max(1))
    assert [row["score_mean"] for row in rows] == close(both.mean(1))
    assert [row["candidate"] for row in rows] == CANDIDATES
    assert rows[2]["references"] == [REFERENCES[2], OTHERS[2]]


def test_json_lines_keep_their_records(call: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7, "candidate": "a b c", "reference": "a b c"},
        {"candidate": "a bird chirps", "references": ["a bird sings by the window", "the bird chirps"]},
    ]
    with gzip.open("in.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    assert call("--candidates", "in.jsonl.gz", "--output", "s.jsonl", "--score-field", "bleurt") == 0
    found = json_lines("s.jsonl")
    assert {key: found[0][key] for key in rows[0]} == rows[0]
    assert [row["bleurt_all"] for row in found] == [close([FIRST[3]]), close([FIRST[0], SECOND[0]])]


def test_tables(call: Any) -> None:
    texts = zip(CANDIDATES, REFERENCES, OTHERS, strict=True)
    Path("in.tsv").write_text(
        "id\tcandidate\treference\treference_2\n"
        + "".join(f"{n}\t" + "\t".join(t) + "\n" for n, t in enumerate(texts))
    )
    assert call("--candidates", "in.tsv", "--output", "s.tsv") == 0
    with open("s.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = ["id", "candidate", "reference", "reference_2", "score", "score_best", "score_mean", "score_all"]
    assert list(rows[0]) == names
    assert [row["candidate"] for row in rows] == CANDIDATES
    assert [float(row["score"]) for row in rows] == close(np.maximum(FIRST, SECOND))
    assert [[float(one) for one in row["score_all"].split()] for row in rows] == [
        close(list(pair)) for pair in zip(FIRST, SECOND, strict=True)
    ]
    assert call("--candidates", "c.txt", "--references", "r.txt", "--output", "s.csv") == 0
    with open("s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows[:1]] == [["score"]]
    assert [float(row["score"]) for row in rows] == close(FIRST)


@pytest.mark.parametrize("taken", ["score", "score_best", "score_mean", "score_all", "score_cut"])
def test_fields_of_the_input_are_not_overwritten(call: Any, capsys: pytest.CaptureFixture[str], taken: str) -> None:
    Path("in.tsv").write_text(f"candidate\treference\treference_2\t{taken}\na\tb\tc\t9\n")
    row = {"candidate": "a", "references": ["b", "c"]}  # the second row alone has the field
    Path("in.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps({**row, taken: 9})}\n")
    for ending in ("tsv", "jsonl"):
        assert call("--candidates", f"in.{ending}", "--output", f"s.{ending}") == 2
        assert f"must differ from the input's fields. Received: {taken!r}" in capsys.readouterr().err
        assert not Path(f"s.{ending}").exists()


def test_report_as_json_with_a_second_system(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("long.txt").write_text("\n".join([*CANDIDATES[:3], "a " * 70]))
    call("--candidates", "long.txt", "--compare", "o.txt", "--references", "r.txt", "--output", "s", "--json")
    report = json.loads(capsys.readouterr().out)
    first, second = report["systems"]
    values = [truth(*pair) for pair in zip([*CANDIDATES[:3], "a " * 70], REFERENCES, strict=True)]
    others = [truth(*pair) for pair in zip(OTHERS, REFERENCES, strict=True)]
    assert (first["segments"], first["pairs"], first["cut"], second["cut"]) == (4, 4, 1, 0)
    assert (first["mean"], second["mean"]) == close((np.mean(values), np.mean(others)))
    assert first["low"] <= first["mean"] <= first["high"]
    assert report["comparison"]["difference"]["mean"] == close(np.mean(values) - np.mean(others))
    assert 0 < report["comparison"]["p_value"] <= 1
    assert [float(line) for line in Path("s").read_text().splitlines()] == close(values)
    call("--candidates", "long.txt", "--compare", "o.txt", "--references", "r.txt", "--output", "s")
    said = capsys.readouterr().out
    assert "1 of 4 pairs were truncated to 48 tokens" in said
    assert "the first is better in" in said


def test_empty_texts_are_scored_and_counted(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("gaps.txt").write_text("a bird chirps\n\n \na b c\n")
    assert call("--candidates", "gaps.txt", "--references", "r.txt") == 0
    said = capsys.readouterr()
    expected = [truth(*pair) for pair in zip(["a bird chirps", "", "", "a b c"], REFERENCES, strict=True)]
    assert [float(line) for line in said.out.splitlines()] == close(expected)
    assert "gaps.txt: 2 empty texts" in said.err


# ---------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("content", "name", "code", "message"),
    [
        ("a\nb\n", "r.txt", 1, "same number of lines. Received: c.txt with 4, r.txt with 2"),
        ("", "r.txt", 1, "Received: c.txt with 4, r.txt with 0"),
        ("", "c.txt", 1, "Received: c.txt with 0, r.txt with 4"),
        (b"a\n\xff\n", "c.txt", 1, "c.txt:2: text must be UTF-8"),
        ('{"candidate": "a"}\n', "c.jsonl", 1, "c.jsonl:1: a candidate must have a reference"),
        ('{"text": "a"}\n', "c.jsonl", 1, "c.jsonl:1: a field 'candidate' was expected. Received: 'text'"),
        ('{"candidate": "a", "reference": 3}\n', "c.jsonl", 1, "'reference' must be a string. Received: int 3"),
        ('{"candidate": "\\ud800", "reference": "a"}\n', "c.jsonl", 1, "a lone surrogate"),
        ("{\n", "c.jsonl", 1, "c.jsonl:1: a JSON object was expected"),
        ("candidate\treference\na\n", "c.tsv", 1, "c.tsv:2: 2 columns (candidate, reference) were expected"),
        ("", "c.tsv", 1, "at least one candidate was expected"),
    ],
)
def test_wrong_files(
    call: Any, capsys: pytest.CaptureFixture[str], content: str | bytes, name: str, code: int, message: str
) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    candidates = name if name.startswith("c.") else "c.txt"
    references = ("--references", "r.txt") if candidates == "c.txt" else ()
    assert call("--candidates", candidates, *references, "--output", "s") == code
    assert message in capsys.readouterr().err
    assert not Path("s").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--candidates", "c.txt"), "no file of references"),
        (("--candidates", "c.txt", "--references", "r.txt", "--output", "c.txt"), "must not be an input file"),
        (("--candidates", "c.txt", "--references", "r.txt", "--output", "no/where"), "in an existing directory"),
        (
            ("--candidates", "c.txt", "--references", "r.txt", "--resamples", "0"),
            "`--resamples` must be an integer",
        ),
        (
            ("--candidates", "c.txt", "--references", "r.txt", "--confidence", "95"),
            "`--confidence` must be a number",
        ),
        (("--candidates", "c.txt", "--references", "r.txt", "--batch-tokens", "0"), "`--batch-tokens` must be"),
        (("--candidates", "c.txt", "--references", "r.txt", "--seed", "-1"), "`--seed` must be an integer"),
        (
            ("--candidates", "c.txt", "--references", "r.txt", "--max-length", "900"),
            "`max_length` must be an integer",
        ),
        (("--candidates", "r.jsonl", "--output", "s.jsonl"), "must differ from the input's fields"),
        (("--candidates", "r.jsonl", "--compare", "c.jsonl"), "must have the same references"),
    ],
)
def test_wrong_calls(call: Any, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    Path("r.jsonl").write_text('{"candidate": "a", "reference": "b", "score": 0.3}\n')
    Path("c.jsonl").write_text('{"candidate": "a", "reference": "c"}\n')
    assert call(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file(call: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--candidates", "c.txt", "--references", "nowhere") == 1
    assert "nowhere cannot be read: No such file or directory" in capsys.readouterr().err


# ---------------------------------------------------------------------- interrupted runs


def _counting(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[int]:
    """The sizes of the batches that the model computes; after a number of batches, the run is interrupted."""
    batches: list[int] = []
    compute = regressors.Regressor.__call__

    def counted(self: Any, pairs: Any) -> np.ndarray:
        if stop_after is not None and len(batches) == stop_after:
            raise KeyboardInterrupt
        batches.append(len(pairs))
        return compute(self, pairs)

    monkeypatch.setattr(regressors.Regressor, "__call__", counted)
    return batches


def test_an_interrupted_run_resumes(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--candidates", "c.txt", "--references", "r.txt", "o.txt", "--output", "s", "--batch-tokens", "20")
    with monkeypatch.context() as patched:
        done = _counting(patched, stop_after=2)
        assert call(*arguments) == 130
    assert not Path("s").exists()
    with monkeypatch.context() as patched:
        rest = _counting(patched)
        assert call(*arguments) == 0
    assert sum(done) + sum(rest) == 8  # every pair once
    assert [float(line) for line in Path("s").read_text().splitlines()] == close(np.maximum(FIRST, SECOND))
    assert sorted(path.name for path in Path().iterdir()) == ["c.txt", "o.txt", "r.txt", "s"]


@pytest.mark.parametrize("change", ["texts", "model", "length"])
def test_scores_of_other_texts_or_models_are_not_reused(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    arguments = ["--candidates", "c.txt", "--references", "r.txt", "--output", "s", "--batch-tokens", "20"]
    with monkeypatch.context() as patched:
        _counting(patched, stop_after=2)
        assert call(*arguments) == 130
    if change == "texts":
        Path("c.txt").write_text("\n".join(OTHERS))
    elif change == "length":
        arguments += ["--max-length", "8"]
    else:
        other = write_saved_model(tmp_path / "m" / "other", make_variables(seed=1))
        arguments += ["--model", str(other)]
    batches = _counting(monkeypatch)
    assert call(*arguments) == 0
    assert sum(batches) == 4


def test_a_file_of_scores(tmp_path: Path) -> None:
    output, digest = tmp_path / "s", b"d" * 32
    scores = ScoreFile.resume(output, "scores", digest, 5)
    scores.put([3, 0, 4], [Score(0.3, False), Score(0.0, True), Score(0.4, False)])
    with pytest.raises(InputError, match=r"Another process is writing this output. Received: .*s\."):
        ScoreFile.resume(output, "scores", digest, 5)
    with pytest.raises(InputError, match="Another process"):
        ScoreFile.resume(output, "scores", b"e" * 32, 5)
    scores.close()
    scores = ScoreFile.resume(output, "scores", digest, 5)
    assert scores.states(0, 5).tolist() == [CUT, TODO, TODO, DONE, DONE]
    assert scores.done() == 3
    scores.put([1, 2], [Score(0.1, False), Score(0.2, True)])
    assert list(scores.scores()) == [
        Score(0.0, True), Score(0.1, False), Score(0.2, True), Score(0.3, False), Score(0.4, False)
    ]  # fmt: skip
    scores.close()
    records = [struct.pack("<dB", value, state) for value, state in ((0.0, 7), (math.nan, DONE), (0.2, DONE))]
    scores.path.write_bytes(b"".join(records) + bytes(18))  # two that no run writes
    scores = ScoreFile.resume(output, "scores", digest, 5)
    assert scores.states(0, 5).tolist() == [TODO, TODO, DONE, TODO, TODO]
    scores.close()
    scores.path.write_bytes(scores.path.read_bytes()[:-1])  # cut off
    for other in (digest, b"e" * 32):
        scores = ScoreFile.resume(output, "scores", other, 5)
        assert scores.done() == 0
        scores.close()
    assert list(tmp_path.iterdir()) == [scores.path]  # that of the other run is removed


# ---------------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_split_the_file(model: Path, tmp_path: Path) -> None:
    count = 3 * score_files._SMALLEST_WINDOW + 5
    numbers = [number % 23 for number in range(count)]
    (tmp_path / "c.txt").write_text("".join("a " * (number + 1) + "\n" for number in numbers))
    (tmp_path / "r.txt").write_text("a b c\n" * count)
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "rembert", "score", "--model", model, "--candidates", "c.txt", "--references",
               "r.txt", "--output", "s"]  # fmt: skip
    package = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                 "MASTER_PORT": str(port), "PYTHONPATH": str(package)},
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    scores = [float(line) for line in (tmp_path / "s").read_text().splitlines()]
    expected = [truth("a " * (number + 1), "a b c") for number in range(23)]
    assert scores == close([expected[number] for number in numbers])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.txt", "r.txt", "s"]
    assert f"{count} segments" in said[0]
    assert "segments" not in said[1]


def test_windows_go_to_the_processes_in_turn(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    # Each process alone: the second one's part, and then the first one, which finds it done.
    monkeypatch.setattr(score_files, "_SMALLEST_WINDOW", 1)
    monkeypatch.setattr(score_files.Process, "wait_for_all", lambda self: None)
    files = score_files.SegmentFiles("c.txt", ["r.txt"])
    scorer, survey, output = RemBertScorer.from_pretrained(model), files.survey(), tmp_path / "s"
    made = score_files.score_files(scorer, files, survey, output)
    made.close()
    made.path.write_bytes(bytes(made.path.stat().st_size))
    second = score_files.score_files(scorer, files, survey, output, process=score_files.Process(1, 2))
    assert second.states(0, 4).tolist() == [TODO, DONE, TODO, DONE]
    second.close()
    first = score_files.score_files(scorer, files, survey, output, process=score_files.Process(0, 2))
    assert [score.value for score in first.scores()] == close(FIRST)
    first.close()


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [("2", "2", "RANK=2 and WORLD_SIZE=2"), ("x", "2", "RANK=x"), ("0", "2", "`--output` must be given")],
)
def test_wrong_processes(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str, size: str, message: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert call("--candidates", "c.txt", "--references", "r.txt") == 2
    assert message in capsys.readouterr().err


def test_a_process_waits_for_slower_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("torch.distributed")
    given: dict[str, Any] = {}
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **options: given.update(options))
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    score_files.Process(1, 2).wait_for_all()
    assert (given["rank"], given["world_size"]) == (1, 2)
    assert given["timeout"].days >= 1  # by default half an hour, which a part of large files may take longer than


def test_processes_that_cannot_find_each_other(
    call: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert call("--candidates", "c.txt", "--references", "r.txt", "--output", "s") == 2
    assert "start them with `torchrun`" in capsys.readouterr().err
