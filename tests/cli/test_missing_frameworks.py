"""Commands in a process where PyTorch, TensorFlow or both cannot be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.support import GOLDEN
from tests.frameworks import needs_pt, needs_tf

ROOT = Path(__file__).parents[2]
PACKAGES = {"pt": ["torch"], "tf": ["tensorflow", "keras"]}
# Hides packages, runs commands one after the other, and prints the exit code, output and errors of each.
PROGRAM = """
import contextlib, io, json, sys
absent, commands, changes = json.loads(sys.argv[1])

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in absent else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hiding, sys.meta_path)
from rembert.cli import demo
from rembert.cli.main import main
demo.LEARNING.update(changes)
results = []
for command in commands:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    results.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(results))
"""


def run_without(frameworks: list[str], commands: list[list[str]], **learning: Any) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each command; `learning` changes how the demo trains."""
    absent = [package for framework in frameworks for package in PACKAGES[framework]]
    arguments = [sys.executable, "-c", PROGRAM, json.dumps([absent, commands, learning])]
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return [tuple(result) for result in json.loads(done.stdout.splitlines()[-1])]


def test_commands_that_need_no_framework(tmp_path: Path) -> None:
    golden, kept = str(GOLDEN / "masked_lm"), str(tmp_path / "kept")
    (tmp_path / "text.txt").write_text("Der Zug fährt um sieben.\n", encoding="utf-8")
    text, trimmed = str(tmp_path / "text.txt"), str(tmp_path / "trimmed")
    commands = {
        "convert": (["convert", golden, str(tmp_path / "tf"), "--to", "tf"], "wrote tf_model.h5"),
        "inspect": (["inspect", str(tmp_path / "tf")], "masked-lm"),
        "diff": (["diff", golden, str(tmp_path / "tf")], "45 of 45 tensors"),
        "demo": (["demo", "--output", kept], "every tensor the same, bit for bit"),
        "tokenize": (["tokenize", f"{kept}/pytorch", "Der Zug"], "▁Z ug"),
        "trim": (["trim", f"{kept}/pytorch", trimmed, "--corpus", text], "512 -> "),
        "demo on a checkpoint": (["demo", golden], "every tensor the same, bit for bit"),
    }
    results = run_without(["pt", "tf"], [command for command, _ in commands.values()])
    for (name, (_, expected)), (code, printed, errors) in zip(commands.items(), results, strict=True):
        assert code == 0, (name, printed, errors)
        assert expected in printed, name
        if name.startswith("demo"):
            assert "pip install 'rembert[pt]'" in printed
            assert "pip install 'rembert[tf]'" in printed
            assert "fine-tuning" not in printed


def test_commands_that_need_a_framework_name_the_extra(tmp_path: Path) -> None:
    golden, whole = str(GOLDEN / "sequence_classification"), tmp_path / "masked_lm"
    shutil.copytree(GOLDEN / "masked_lm", whole)
    shutil.copy(GOLDEN.parent / "tokenizer" / "sentencepiece.model", whole)
    (tmp_path / "data.jsonl").write_text('{"text": "a", "label": "b"}\n')
    data = str(tmp_path / "data.jsonl")
    commands = [
        ["verify", golden, golden],
        ["convert", golden, str(tmp_path / "converted"), "--to", "tf", "--verify"],
        ["export", golden, str(tmp_path / "exported"), "--to", "onnx"],
        ["finetune", "sequence-classification", "--model", golden, "--train", data, "--output", str(tmp_path / "run")],
        ["evaluate", "sequence-classification", "--model", golden, "--data", data],
        ["predict", "sequence-classification", "--model", golden, "--data", data],
        ["embed", str(whole), "--data", data, "--output", str(tmp_path / "embeddings.npy")],
        ["fill-mask", str(whole), "a [MASK]"],
    ]
    for command, (code, printed, errors) in zip(commands, run_without(["pt", "tf"], commands), strict=True):
        assert code == 1, (command, errors)
        assert not printed
        assert "pip install 'rembert[" in errors, command
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "masked_lm"]


@pytest.mark.parametrize(
    ("absent", "name", "other"),
    [
        pytest.param("tf", "PyTorch", "TensorFlow", marks=[needs_pt, pytest.mark.slow]),
        pytest.param("pt", "TensorFlow", "PyTorch", marks=[needs_tf, pytest.mark.slow]),
    ],
)
def test_the_demo_with_one_framework(absent: str, name: str, other: str) -> None:
    ((code, printed, errors),) = run_without([absent], [["demo"]], epochs=1)
    assert code == 0, errors
    assert "every tensor the same, bit for bit" in printed
    assert f"running every head in {name}, from both layouts" in printed
    assert printed.count("0.0e+00") == printed.count(" equal") == 7
    assert f"fine-tuning in {name}" in printed
    assert printed.count("accuracy") == 1
    assert "La pluie est froide. " in printed
    assert f"{other} is not installed" in printed
    assert f"pip install 'rembert[{absent}]'" in printed
