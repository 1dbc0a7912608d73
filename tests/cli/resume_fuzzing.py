"""Interrupted runs whose state is damaged; a program like `tests.cli.fuzzing`, with families of its own.

    python -m tests.cli.resume_fuzzing FAMILY FIRST COUNT

A command must refuse the state by name and leave it as it is, or end with a complete result: that of a run without
interruption, unless the damage is in numbers that hold no checksum.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from rembert.bleurt.score_file import ScoreFile
from rembert.tasks import batching
from rembert.training.checkpoints import Checkpoints
from tests.bridge.fuzzing import damage_bytes, damage_json, damage_safetensors, go_through
from tests.cli.fuzzing import Family, outcome_and_text, prepare_classifier, prepare_metric
from tests.training.runs import write_examples, write_start

_NUMBERS = ("model.safetensors", "optimizer.safetensors", "training_state.json")
_NOTE = "damaged"  # says which file was


@contextmanager
def _stopping(owner: Any, name: str, after: int) -> Iterator[None]:
    """Let a function raise an error of the system once it has been called some times."""
    function, calls = getattr(owner, name), 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        if calls == after:
            raise OSError("interrupted")
        calls += 1
        return function(*arguments)

    with mock.patch.object(owner, name, counted):
        yield


def damage_state(chance: random.Random, path: Path) -> None:
    """Change, cut, empty or remove a file, or put a directory or a link in its stead."""
    kind = chance.randrange(16)
    if kind < 4:
        content = path.read_bytes()
        path.unlink()
        if kind == 1:
            path.write_bytes(b"")
        elif kind == 2:
            path.mkdir()
        elif kind == 3:
            path.with_name("elsewhere").write_bytes(content)
            path.symlink_to("elsewhere")
    elif path.name.endswith(".safetensors"):
        damage_safetensors(chance, path)
    elif path.suffix == ".json":
        damage_json(chance, path)
    elif chance.randrange(3) == 0:
        content = path.read_bytes()
        path.write_bytes(content + content[chance.randrange(len(content)) :])  # twice, or the end of it
    else:
        damage_bytes(chance, path)


# ---------------------------------------------------------------------- finetune


def _finetune(directory: Path, framework: str, *more: str) -> tuple[str, str]:
    files = ("--model", "start", "--train", "train.jsonl", "--eval", "train.jsonl", "--output", "run")
    sizes = ("--max-steps", 3, "--batch-size", 4, "--eval-steps", 1, "--save-steps", 1, "--from-scratch")
    with chdir(directory):
        return outcome_and_text("finetune", "sequence-classification", *files, *sizes, "--framework", framework, *more)


def training(framework: str) -> Callable[[Path], None]:
    """A run that ended after two of three updates, and one that did not."""

    def prepare(directory: Path) -> None:
        if framework == "tf":
            import_module("tensorflow").config.run_functions_eagerly(True)  # tracing would take most of a short run
        write_start(directory / "start", num_hidden_layers=1)
        write_examples(directory / "train.jsonl", 9)
        assert _finetune(directory, framework)[0] == "ok"
        (directory / "run").rename(directory / "expected")
        with _stopping(Checkpoints, "write", after=2):
            assert _finetune(directory, framework)[0] != "ok"

    return prepare


def damage_run(chance: random.Random, directory: Path) -> None:
    """Damage one of its files."""
    paths = [path for path in (directory / "run").rglob("*") if path.is_file() and path.parent.name != "events"]
    path = chance.choice(sorted(paths))
    (directory / _NOTE).write_text(path.name)
    damage_state(chance, path)


def continuing_training(framework: str) -> Callable[[Path], str]:
    """Continue it."""

    def attempt(directory: Path) -> str:
        before = _files(directory / "run")
        outcome, said = _finetune(directory, framework, "--resume")
        if outcome == "refused":
            if not any(name in said for name in ("run/", "Received: run,", "its own settings")):
                return f"wrong: no file is named: {said[-200:]!r}"
            return outcome if _files(directory / "run") == before else "wrong: refused, but files have changed"
        if outcome == "ok":
            note = directory / _NOTE
            same = ["config.json", "tokenizer_config.json", "sentencepiece.model", "run.json"]
            if not note.exists() or note.read_text() not in _NUMBERS:
                same.append("model.safetensors")
            for name in same:
                found, expected = ((directory / place / name).read_bytes() for place in ("run", "expected"))
                if found != expected and (name != "config.json" or json.loads(found) != json.loads(expected)):
                    return f"wrong: another {name}"
            if (directory / "run" / "checkpoints").exists():
                return "wrong: checkpoints are left"
        return outcome

    return attempt


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------- predict, embed, score

_COMMANDS: dict[str, tuple[Any, ...]] = {
    "predict": ("predict", "sequence-classification", "--model", ".", "--batch-size", 2, "--data", "data.jsonl"),
    "embed": ("embed", ".", "--batch-size", 2, "--data", "data.jsonl"),
    "score": ("score", "--model", "metric", "--batch-tokens", 40, "--candidates", "data.jsonl", "--quiet"),
}


def _run(name: str, directory: Path) -> tuple[str, str]:
    output = "out.npy" if name == "embed" else "out.jsonl"
    with chdir(directory), mock.patch.object(batching, "_WINDOW", 1):
        return outcome_and_text(*_COMMANDS[name], "--output", output)


def _numbers(path: Path) -> np.ndarray:
    """Everything that the command has computed."""
    if path.suffix == ".npy":
        return np.load(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return np.array([[row.get("score", 0.0)] for row in rows])  # a changed name is as valid as a changed number


def interrupted(name: str) -> Callable[[Path], None]:
    """A directory with what the command has done of its texts, and its whole output under `expected`."""

    def prepare(directory: Path) -> None:
        (prepare_metric if name == "score" else prepare_classifier)(directory)
        lines = (directory / "data.jsonl").read_text()
        (directory / "data.jsonl").write_text(lines * 2)
        assert _run(name, directory)[0] == "ok"
        [output] = directory.glob("out.*")
        output.rename(output.with_stem("expected"))
        owner, function = (ScoreFile, "put") if name == "score" else (batching, "sorted_batches")
        with _stopping(owner, function, after=2):
            assert _run(name, directory)[0] != "ok"

    return prepare


def damage_kept(chance: random.Random, directory: Path) -> None:
    """Damage what is kept."""
    [kept] = directory.glob(".out.*")
    damage_state(chance, kept)


def continuing(name: str) -> Callable[[Path], str]:
    """Run the command again: a result of the whole length with numbers in it."""

    def attempt(directory: Path) -> str:
        outcome, said = _run(name, directory)
        if outcome == "refused":
            return outcome if ".out." in said or "skip" in said else f"wrong: no file is named: {said[-200:]!r}"
        if outcome == "ok":
            [output] = directory.glob("out.*")
            try:
                found, expected = _numbers(output), _numbers(output.with_stem("expected"))
            except (ValueError, AttributeError) as problem:
                return f"wrong: the output cannot be read: {problem}"
            if found.shape != expected.shape or not np.isfinite(found).all():
                return f"wrong: an output of {found.shape}"
        return outcome

    return attempt


FAMILIES: dict[str, Family] = {
    "finetune": (training("pt"), damage_run, continuing_training("pt")),
    "finetune-tf": (training("tf"), damage_run, continuing_training("tf")),
    **{name: (interrupted(name), damage_kept, continuing(name)) for name in _COMMANDS},
}


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    go_through(*FAMILIES[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]))
