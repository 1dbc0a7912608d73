"""Runs whose files were damaged or removed, or that two processes write: refused by name, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rembert import RemBertConfig
from rembert.common.errors import CheckpointError, InputError, RemBertError
from rembert.common.files import atomic_path, leftovers, write_text
from rembert.common.locks import DirectoryLock
from rembert.tasks import finetune
from rembert.tasks.run_digest import sampled_digests
from rembert.training import loop
from rembert.training.checkpoints import Checkpoints
from rembert.training.reporting import read_metrics
from tests.frameworks import PT, needs_pt
from tests.training.runs import write_examples, write_start

pytestmark = needs_pt


class _Interrupted(Exception):
    """Ends a run as a kill would, where a test wants it."""


def _train(folder: Path, output: Path, **changes: Any) -> dict[str, float]:
    settings = {"evaluation": folder / "dev.jsonl", "from_scratch": True, "batch_size": 8, "max_steps": 4}
    settings |= {"eval_steps": 1, "save_steps": 1, "learning_rate": 1e-2, **changes}
    return finetune("sequence-classification", folder / "start", folder / "train.jsonl", output=output, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to start from, examples, and a run that was interrupted with two checkpoints: best and newest."""
    folder = tmp_path_factory.mktemp("damaged")
    write_start(folder / "start", num_hidden_layers=1)
    write_examples(folder / "train.jsonl", 29)
    write_examples(folder / "dev.jsonl", 9)
    with pytest.MonkeyPatch.context() as patch:
        # The first evaluation is the best one, whatever the model: later ones count as worse.
        patch.setattr("rembert.training.evaluation.Evaluator._is_better", lambda *_: False)
        write = Checkpoints.write

        def interrupted(self: Checkpoints, state: Any, trainer: Any) -> None:
            best = {"best_step": 1, "best_value": 0.5, "best_scores": {"eval_accuracy": 0.5}}
            write(self, type(state)(**{**vars(state), **best}), trainer)
            if state.step == 2:
                raise _Interrupted

        patch.setattr(Checkpoints, "write", interrupted)
        with pytest.raises(_Interrupted):
            _train(folder, folder / "interrupted")
    assert sorted(path.name for path in (folder / "interrupted" / "checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000002",
    ]
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "interrupted", tmp_path / "run"))


def _files(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def _check_refused(folder: Path, run: Path, message: str, error: type[RemBertError] = CheckpointError) -> None:
    before = _files(run)
    with pytest.raises(error, match=message):
        _train(folder, run, resume=True)
    assert _files(run) == before


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda steps: shutil.rmtree(steps / "step-00000001"), "best"),
        (lambda steps: (steps / "step-00000001" / "model.safetensors").unlink(), "best"),
        (lambda steps: os.truncate(steps / "step-00000001" / "model.safetensors", 2000), "best"),
        (lambda steps: (steps / "step-00000002" / "config.json").write_text("{"), "newest"),
        (lambda steps: os.truncate(steps / "step-00000002" / "optimizer.safetensors", 2000), "newest"),
        (lambda steps: (steps / "step-00000002" / "optimizer.safetensors").unlink(), "newest"),
    ],
)
def test_a_lost_checkpoint_is_named_and_nothing_is_removed(folder: Path, run: Path, damage: Any, kind: str) -> None:
    damage(run / "checkpoints")
    _check_refused(folder, run, f"the {kind} checkpoint of this run, is missing or damaged. Restore it")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "abc"),
        ("step", -5),
        ("step", 99),
        ("best_step", 7),
        ("best_value", None),
        ("best_scores", 5),
        ("best_scores", {"eval_accuracy": "high"}),
        ("stopped", 1),
        ("seconds", -1),
        ("evaluations", 1.5),
        ("evaluations_since_best", 99),
    ],
)
def test_a_damaged_training_state_is_refused(folder: Path, run: Path, key: str, value: Any) -> None:
    path = run / "checkpoints" / "step-00000002" / "training_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    _check_refused(folder, run, rf"training_state\.json: `{'best_step' if key == 'best_value' else key}`")


@pytest.mark.parametrize("name", ["checkpoints", "events"])
def test_a_file_in_place_of_a_directory_is_refused_before_training(folder: Path, run: Path, name: str) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(name)
    _check_refused(folder, run, f"{name} must be a directory of the run", InputError)


@pytest.mark.parametrize("step", ["step-00000001", "step-00000002"])
@pytest.mark.parametrize(("key", "value"), [("layer_norm_eps", 0.5), ("architectures", ["RemBertForMaskedLM"])])
def test_another_configuration_than_the_runs_is_refused(
    folder: Path, run: Path, step: str, key: str, value: Any
) -> None:
    path = run / "checkpoints" / step / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    _check_refused(folder, run, f"{step}: config.json must have the values of the run. Received others of {key}")


def test_a_run_is_resumed_with_the_checkpoint_that_it_began_with(folder: Path, tmp_path: Path) -> None:
    """The content counts, not the time of modification: a copy of the checkpoint will do."""
    files = Path(shutil.copytree(folder, tmp_path / "files", ignore=shutil.ignore_patterns("interrupted")))
    PT.build(RemBertConfig.from_pretrained(files / "start"), "model").save_pretrained(files / "start")
    settings: dict[str, Any] = {"max_steps": 1, "from_scratch": False}
    scores = _train(files, tmp_path / "run", **settings)
    for path in (files / "start").iterdir():
        os.utime(path)
    assert _train(files, tmp_path / "run", resume=True, **settings) == scores
    for name in ("model.safetensors", "config.json", "tokenizer_config.json"):
        path = files / "start" / name
        content, status = path.read_bytes(), path.stat()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ (0x80 if name.endswith("s") else 0x2A)]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(InputError, match=rf"that it began with.*start, whose {name} had other content when"):
            _train(files, tmp_path / "run", resume=True, **settings)
        path.write_bytes(content)


def test_a_sample_of_a_large_file_shows_other_values(tmp_path: Path) -> None:
    path = tmp_path / "sentencepiece.model"
    content = bytes(3 * 2**20 + 5)
    digests = set()
    for place in (None, 0, 2**20 - 1, 2**20, 2 * 2**20 + 9, len(content) - 2**20, len(content) - 1):
        path.write_bytes(content if place is None else content[:place] + b"x" + content[place + 1 :])
        digests.add(sampled_digests(tmp_path, weights=False)[path.name])
    path.write_bytes(content + bytes(2**20))
    digests.add(sampled_digests(tmp_path, weights=False)[path.name])
    assert len(digests) == 8


@pytest.mark.parametrize(
    "line",
    ["5", "null", "[]", "{", "{}", '{"step": -1}', '{"loss": 1.0}', '{"step": "x"}', '{"step": 1, "loss": [1]}'],
)
def test_a_damaged_line_of_metrics_is_refused(folder: Path, run: Path, line: str) -> None:
    path = run / "metrics.jsonl"
    path.write_text(f"{line}\n{path.read_text()}")
    _check_refused(folder, run, r"metrics\.jsonl, line 1, must map names to numbers")


def test_a_directory_in_place_of_the_metrics_is_refused(folder: Path, run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    _check_refused(folder, run, r"metrics\.jsonl must be a file")


def test_a_last_line_that_a_kill_has_cut_is_dropped(run: Path) -> None:
    path = run / "metrics.jsonl"
    whole = read_metrics(path)
    path.write_text(path.read_text() + '{"step": 3, "lo')
    assert read_metrics(path) == whole


def test_a_result_that_differs_from_its_checkpoint_is_refused(
    folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", no_link)
    monkeypatch.setattr("shutil.copyfile", lambda _, target: Path(target).write_bytes(b"other"))
    with pytest.raises(OSError, match="differs from"):
        _train(folder, run, resume=True)
    monkeypatch.undo()
    assert (run / "checkpoints" / "step-00000001" / "model.safetensors").is_file()
    _train(folder, run, resume=True)
    expected = (folder / "interrupted" / "checkpoints" / "step-00000001" / "model.safetensors").read_bytes()
    assert (run / "model.safetensors").read_bytes() == expected
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("exists", [True, False])
def test_two_runs_cannot_write_one_directory(
    folder: Path, tmp_path: Path, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    if exists:
        output.mkdir()
    train_model = loop.train_model

    def with_another(*arguments: Any, **settings: Any) -> dict[str, float]:
        with pytest.raises(InputError, match="Another process is writing a run into `output`"):
            _train(folder, output, max_steps=1)
        return train_model(*arguments, **settings)

    monkeypatch.setattr("rembert.training.finetuning.train_model", with_another)
    _train(folder, output, max_steps=1)
    assert DirectoryLock(output).is_held  # free again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_last_update(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Also between two checkpoints of its schedule; it resumes to the same model."""
    settings: dict[str, Any] = {"save_steps": None, "eval_steps": None, "log_steps": 1}
    output, reports, split = tmp_path / "run", [], loop.split_batch

    def interrupt(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return split(*arguments)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's processes ignore it
    monkeypatch.setattr(loop, "split_batch", interrupt)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
            _train(folder, output, say=reports.append, **settings)
    finally:
        signal.signal(signal.SIGINT, handler)
    monkeypatch.undo()
    assert ended.type is (KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    if number == signal.SIGTERM:
        assert ended.value.code == 143
    assert reports[-1] == "interrupted after update 1 of 4; continue with --resume"
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000001"]
    _train(folder, output, resume=True, **settings)
    _train(folder, tmp_path / "whole", **settings)
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_only_temporary_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    program = (
        "import os, sys; from rembert.common.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_text('half'); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", program, target], env=environment)
    [dead] = leftovers(target)
    with atomic_path(target) as live:
        assert leftovers(target) == [live]
        write_text(target, "by another")  # a second writer leaves the first one's file alone
        assert leftovers(target) == [live]
        live.write_text("by the first")
    assert not dead.exists()
    assert target.read_text() == "by the first"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_refused_run_has_made_is_removed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="`metric` must be"):
        _train(folder, tmp_path / "a" / "b" / "c" / "d", metric="nonsense")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not list((tmp_path / "a").iterdir())
