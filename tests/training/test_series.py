"""Several runs of one recipe, and trackers of experiments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.cli.main import main
from rembert.common.dependencies import is_installed
from rembert.common.errors import DataError, InputError, MissingDependencyError
from rembert.tasks import Recipe, finetune
from rembert.training.series import Series
from tests.frameworks import needs, needs_pt
from tests.training.runs import lines, write_examples, write_start

TASK = "sequence-classification"
QUICK: dict[str, Any] = {"max_steps": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("series")
    return write_start(folder / "start"), write_examples(folder / "train.jsonl", 12)


@needs_pt
def test_runs_of_several_seeds_are_summed_up(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, train = files
    call = ["finetune", TASK, "--model", str(start), "--from-scratch", "--train", str(train), "--eval", str(train)]
    call += ["--max-steps", "1", "--output", str(tmp_path / "runs"), "--quiet"]
    assert main([*call, "--seeds", "3", "5"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["run", "seed-3", "seed-5", "mean", "std"]
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    both = [lines(tmp_path / "runs" / name)[-1]["eval_loss"] for name in ("seed-3", "seed-5")]
    assert both[0] != both[1]
    assert summary["mean"]["eval_loss"] == pytest.approx(np.mean(both))
    assert summary["std"]["eval_loss"] == pytest.approx(np.std(both, ddof=1))
    assert main([*call, "--seeds", "3", "5"]) == 2
    assert "unless resumed" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    assert main([*call, "--seeds", "3", "5", "--resume"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}


@needs_pt
def test_folds_hold_every_example_once_and_all_classes(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[list[Any], list[Any]]] = []

    def note(task: Any, model: Any, train: Any, *, evaluation: Any, output: Path, **settings: Any) -> dict[str, float]:
        parts.append((train, evaluation))
        output.mkdir(parents=True)
        return {"eval_loss": float(len(parts))}

    monkeypatch.setattr("rembert.training.series.finetune", note)
    start, train = files
    summary = Series(TASK, start, output=tmp_path / "folds", from_scratch=True).folds(train, 4)
    assert summary["mean"] == {"eval_loss": 2.5}
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    key = json.dumps
    assert sorted(key(row) for _, held_out in parts for row in held_out) == sorted(map(key, rows))
    for rest, held_out in parts:
        assert {row["label"] for row in held_out} == {"food", "road", "sky"}, "a class of four is in all four folds"
        assert sorted(map(key, [*rest, *held_out])) == sorted(map(key, rows))
    with pytest.raises(DataError, match="At least 13 examples"):
        Series(TASK, start, output=tmp_path / "more", from_scratch=True).folds(train, 13)


@needs_pt
def test_a_fold_is_trained_and_evaluated(files: tuple[Path, Path], tmp_path: Path) -> None:
    start, train = files
    recipe = Recipe.for_task(TASK, **QUICK)
    series = Series(TASK, start, output=tmp_path / "folds", recipe=recipe, from_scratch=True)
    summary = series.folds(train, 2)
    data = json.loads((tmp_path / "folds" / "fold-1" / "run.json").read_text())["data"]
    assert (data["training"]["examples"], data["evaluation"]["examples"]) == (6, 6)
    assert [run["run"] for run in summary["runs"]] == ["fold-1", "fold-2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "1", "2", "--folds", "2"], "exclude each other. Received: --seeds and --folds"),
        (["--folds", "2", "--eval", "any.jsonl"], "`--folds` (without --eval)"),
        (["--trials", "3"], "`--trials` (with --search)"),
        (["--trials", "3", "--search", "learning_rate=1:2"], "needs examples to compare"),
        (["--seeds", "1", "1"], "two or more different numbers"),
        (["--trials", "3", "--eval", "any", "--search", "epochs"], "must be KEY=LOW:HIGH"),
    ],
)
def test_calls_that_contradict_themselves_are_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["finetune", TASK, "--model", "any", "--train", "any.jsonl", "--output", str(tmp_path / "runs")]
    assert main([*call, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@needs_pt
@needs("optuna")
def test_a_search_keeps_to_its_ranges_and_names_the_best(files: tuple[Path, Path], tmp_path: Path) -> None:
    start, train = files
    recipe = Recipe.for_task(TASK, metric="loss", **QUICK)
    space = {"learning_rate": (1e-4, 1e-1), "batch_size": [4, 12], "seed": (1, 3)}
    found = [
        Series(TASK, start, output=tmp_path / name, recipe=recipe, from_scratch=True).search(train, train, space, 3)
        for name in ("one", "other")
    ]
    assert found[0] == found[1], "the sampler has the recipe's seed"
    runs = found[0]["runs"]
    for run in runs:
        assert 1e-4 <= run["learning_rate"] <= 1e-1
        assert run["batch_size"] in (4, 12)
        assert run["seed"] in (1, 2, 3)
    assert found[0]["best"] == min(runs, key=lambda run: run["eval_loss"])["run"]


@needs_pt
def test_what_is_not_installed_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("optuna", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    assert not is_installed("wandb")
    for name in ("wandb", "mlflow"):
        with pytest.raises(MissingDependencyError, match=rf"rembert\[{name}\]"):
            finetune(TASK, tmp_path, [], output=tmp_path / "run", trackers=[name])
    with pytest.raises(InputError, match="one of wandb, mlflow"):
        finetune(TASK, tmp_path, [], output=tmp_path / "run", trackers=["tensorboard"])
    series = Series(TASK, tmp_path, output=tmp_path / "search")
    with pytest.raises(MissingDependencyError, match=r"rembert\[search\]"):
        series.search([], [], {"epochs": [1, 2]}, 2)
    assert list(tmp_path.iterdir()) == []


@needs_pt
@needs("mlflow")
def test_mlflow_gets_every_line(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions want a database
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "topics")
    start, train = files
    finetune(TASK, start, train, evaluation=train, output=tmp_path / "run", from_scratch=True, log_steps=1,
             max_steps=3, batch_size=4, trackers=["mlflow"])  # fmt: skip
    client = MlflowClient()
    experiment = client.get_experiment_by_name("topics")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.data.params["max_steps"]) == ("FINISHED", "3")
    written = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss")]
    assert written == [(line["step"], line["loss"]) for line in lines(tmp_path / "run") if "loss" in line]
    assert "eval_accuracy" in run.data.metrics


@needs_pt
@needs("wandb")
def test_wandb_gets_every_line_offline(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    start, train = files
    finetune(TASK, start, train, evaluation=train, output=tmp_path / "run", from_scratch=True, trackers=["wandb"],
             **QUICK)  # fmt: skip
    [written] = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = written.read_bytes()
    for word in (b"eval_accuracy", b"sequence-classification", b"learning_rate"):
        assert word in content
