"""The examples of docs/tasks run: their files are written, their scripts and commands executed, at small size."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from rembert import RemBertConfig, RemBertTokenizer
from rembert.cli.main import main
from rembert.tasks import TASKS
from rembert.tasks.registry import task_class
from tests.frameworks import needs_pt, needs_tf
from tests.tasks.support import TOKENIZER, config

DOCS = Path(__file__).parent.parent / "docs" / "tasks"
_FILE = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)```\n", re.MULTILINE | re.DOTALL)


def page(task: str) -> str:
    return (DOCS / f"{task}.md").read_text(encoding="utf-8")


def block(task: str, heading: str, kind: str) -> str:
    found = re.search(rf"^## {heading}\n+```{kind}\n(.*?)```\n", page(task), re.MULTILINE | re.DOTALL)
    assert found, f"{task}.md has no {kind} under {heading}"
    return found[1]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small checkpoint where the pages say it is."""
    from rembert.pt import RemBertForMaskedLM

    model = RemBertForMaskedLM(config(max_position_embeddings=256, initializer_range=0.02))
    model.save_pretrained(tmp_path / "path" / "to" / "rembert")
    TOKENIZER().save_pretrained(tmp_path / "path" / "to" / "rembert")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(task: str, directory: Path) -> None:
    for name, content in _FILE.findall(page(task)):
        (directory / name).write_text(content, encoding="utf-8")


# One of them in every run: the others take long.
ONE_OF_TASKS = [
    task if task == "sequence-classification" else pytest.param(task, marks=pytest.mark.slow) for task in TASKS
]


@needs_pt
@pytest.mark.parametrize("task", ONE_OF_TASKS)
def test_the_pytorch_script_runs(task: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run_script(task, "PyTorch", workplace, capsys)


@pytest.mark.slow
@needs_pt
@needs_tf
@pytest.mark.parametrize("task", ONE_OF_TASKS)
def test_the_tensorflow_script_runs(task: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run_script(task, "TensorFlow", workplace, capsys)


def _run_script(task: str, framework: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(task, workplace)
    exec(compile(block(task, framework, "python"), f"{task}.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    shown = re.search(r"  # \{(.*)\}$", block(task, framework, "python"), re.MULTILINE)
    assert shown
    scores = next(line for line in printed if line.startswith("{"))
    assert re.findall(r'"(\w+)"', shown[1]) == re.findall(r"'(\w+)': ", scores)[: shown[1].count('"') // 2]
    assert len(printed) >= 2  # the scores, and a prediction


@needs_pt
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_commands_run(task: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(task, workplace)
    for line in block(task, "Command line", "sh").splitlines():
        words = shlex.split(line)
        assert words[0] == "rembert"
        assert main(words[1:]) == 0, capsys.readouterr().err
    assert (workplace / "mine" / "metrics.jsonl").is_file()


@needs_pt
@needs_tf
@pytest.mark.slow
def test_the_recipe_of_the_training_page_runs(workplace: Path) -> None:
    write_files("token-classification", workplace)
    names: dict[str, Any] = {}
    exec(block("training", "In Python", "python"), names)
    assert names["scores"].keys() >= {"eval_f1", "train_loss"}
    assert (workplace / "mine" / "model.safetensors").is_file()


def test_the_configuration_of_the_training_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Path("tests", "fixtures", "tokenizer", "sentencepiece.model")
    (tmp_path / model).parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / model, tmp_path / model)
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```python\n(.*?)^```", page("training"), re.MULTILINE | re.DOTALL)
    assert len(found) == 2  # the first one runs above
    exec(found[1], {})
    config = RemBertConfig.from_pretrained("small")
    assert config.vocab_size == len(RemBertTokenizer.from_pretrained("small"))
    assert config.num_hidden_layers == 4


def test_the_pages_name_only_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--help"]) == 0
    assert main(["evaluate", "--help"]) == 0
    assert main(["xtreme", "--help"]) == 0
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    known |= {"--output", "--top-k", "--targets"}  # of other commands
    known |= {"--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--master-port"}  # of torchrun
    known |= {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--requeue"}  # of SLURM
    for path in DOCS.glob("*.md"):
        assert set(re.findall(r"--[a-z][\w-]*", path.read_text(encoding="utf-8"))) <= known, path.name


@pytest.mark.parametrize("task", TASKS)
def test_a_page_names_every_option_and_score_of_its_task(task: str) -> None:
    declared = task_class(task)
    for option in declared.options:
        flag = option.flag or option.name.replace("_", "-")
        assert f"--{flag}" in page(task) or f"--no-{flag}" in page(task)
    for score in declared.scores:
        assert f"`{score.name}" in page(task)


def test_every_task_has_a_page() -> None:
    others = ["README.md", "training.md", "xtreme.md"]
    assert sorted(os.listdir(DOCS)) == sorted([*others, *(f"{task}.md" for task in TASKS)])
