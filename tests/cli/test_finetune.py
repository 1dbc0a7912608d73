"""`rembert finetune TASK`."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from rembert.cli.main import main
from rembert.tasks import Recipe
from tests.frameworks import Framework, needs_pt, needs_tf, on_both_tf_slow
from tests.training.runs import lines, write_examples, write_start


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    """A command line without what a test is about."""
    start = write_start(tmp_path / "start")
    train, dev = write_examples(tmp_path / "train.jsonl", 30), write_examples(tmp_path / "dev.jsonl", 9)
    return [
        *("finetune", "sequence-classification", "--model", str(start), "--from-scratch"),
        *("--train", str(train), "--eval", str(dev), "--output", str(tmp_path / "run")),
    ]


@needs_pt
@needs_tf
def test_both_frameworks_score_a_trained_model_alike(
    call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["--epochs", "3", "--batch-size", "8", "--learning-rate", "1e-2", "--seed", "3", "--max-length", "6"]
    assert main([*call, *recipe]) == 0
    printed = capsys.readouterr()
    scores = dict(line.split() for line in printed.out.splitlines())
    last = lines(tmp_path / "run")[-1]
    assert float(scores["eval_accuracy"]) == pytest.approx(last["eval_accuracy"], abs=1e-4)
    assert "truncated to 6 tokens" in printed.err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["recipe"]["seed"], run["recipe"]["epochs"], run["max_length"]) == (3, 3, 6)
    data = ["--data", str(tmp_path / "dev.jsonl"), "--max-length", "6"]
    for framework in ("pt", "tf"):
        arguments = ["evaluate", "sequence-classification", "--model", str(tmp_path / "run"), *data]
        assert main([*arguments, "--framework", framework]) == 0
        found = dict(line.split() for line in capsys.readouterr().out.splitlines())
        assert found["accuracy"] == scores["eval_accuracy"]


@needs_pt
def test_quiet_runs_print_nothing_and_resume(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*call, "--max-steps", "1", "--quiet"]) == 0
    first = capsys.readouterr()
    assert first.err == ""
    assert main([*call, "--max-steps", "1"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*call, "--max-steps", "1", "--resume"]) == 0
    assert capsys.readouterr().out == first.out


@on_both_tf_slow
def test_a_dry_run_estimates_and_writes_nothing(
    framework: Framework, call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    short = [*call[:-2], "--batch-size", "8", "--epochs", "5", "--max-length", "9", "--framework", framework.name]
    assert main([*short, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "training: 3 classes: 'food' 10, 'road' 10, 'sky' 10" in printed.err
    assert "truncated to 9 tokens" in printed.err
    assert "text=text, label=label" in printed.err
    lines = printed.out.splitlines()
    assert lines[0].endswith("the longest 9")
    assert lines[1] == "20 updates, 4 per epoch"
    assert [line.split(":")[0] for line in lines[2:]] == ["time", "memory", "disk"]
    assert sorted(tmp_path.rglob("*")) == before
    assert main(short) == 2
    assert "unless with --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "printed"), [("0", "eval_accuracy  0.5000\n"), ("1", "")])
def test_only_the_first_process_prints_the_scores(
    rank: str,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("rembert.cli.finetune.finetune", lambda *arguments, **options: {"eval_accuracy": 0.5})
    assert main(["finetune", "masked-lm", "--model", "any", "--train", "any.txt", "--output", "any"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "0"], "`learning_rate` must be a number above 0"),
        (["--bf16", "--precision", "float64"], "`--bf16` and `--precision` must agree"),
        (["--max-length", "9999"], "positions"),
        (["--stride", "3"], "`--stride` must be used with question-answering"),
        (["--label-column", "topic"], "'topic' was expected"),
    ],
)
@needs_pt
def test_bad_calls(
    arguments: list[str], message: str, call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*call, *arguments]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_setting_of_a_recipe_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--help"]) == 0
    said = capsys.readouterr().out
    for field in fields(Recipe):
        assert f"--{field.name.replace('_', '-')} " in said or f"--{field.name.replace('_', '-')}]" in said
