"""`rembert demo` with the frameworks that are installed, on its own checkpoint and on a given one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rembert.cli.main import main
from rembert.common.parameters import HEADS
from rembert.tasks.backends import get_backend, installed_frameworks
from tests.frameworks import needs_pt, needs_tf

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"
INSTALLED = installed_frameworks()


def rows(printed: str) -> dict[str, list[str]]:
    """The table's rows by head."""
    return {
        line.split()[0]: line.split() for line in printed.splitlines() if line.split()[:1] and line.split()[0] in HEADS
    }


@pytest.mark.slow
def test_own_checkpoint_passes_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    assert main(["demo", "--output", str(kept)]) == 0
    printed = capsys.readouterr().out
    assert "every tensor the same, bit for bit" in printed
    assert "▁Z ug" in printed  # tokens
    before, after = map(int, re.findall(r"(\d+) → (\d+) tokens", printed)[0])
    assert after < before
    files = ["pytorch/model.safetensors", "tensorflow/tf_model.h5", "tensorflow/sentencepiece.model"]
    files += ["trimmed/model.safetensors", *(["fine-tuned/model.safetensors"] if INSTALLED else [])]
    assert [file for file in files if not (kept / file).is_file()] == []
    for framework in ("pt", "tf"):
        assert (f"pip install 'rembert[{framework}]'" in printed) == (framework not in INSTALLED)
    assert rows(printed).keys() == (HEADS.keys() if INSTALLED else set())
    assert all(row[-1] == "equal" for row in rows(printed).values())
    accuracies = [float(found) for found in re.findall(r"accuracy (\d\.\d+)", printed)]
    assert len(accuracies) == len(INSTALLED)
    assert len(set(accuracies)) <= 1
    assert all(accuracy > 0.5 for accuracy in accuracies)  # of three subjects
    assert ("scores, also by language, are equal" in printed) == (len(INSTALLED) == 2)
    assert printed.count("La pluie est froide. weather, ") == len(INSTALLED)  # predictions


@pytest.mark.parametrize("name", ["causal_lm_cross", "sequence_regression"])
def test_given_checkpoint_passes_its_steps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(GOLDEN / name / "tf_model.h5")]) == 0
    printed = capsys.readouterr().out
    assert "h5 → pt" in printed
    assert all(row[-1] == "equal" for row in rows(printed).values())
    assert len(rows(printed)) == (len(HEADS) if INSTALLED else 0)


@needs_pt
@needs_tf
def test_a_difference_between_the_frameworks_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorflow = get_backend("tf")
    run = tensorflow.run_once

    def slightly_wrong(model: object, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: value + 0.01 for name, value in run(model, inputs).items()}

    monkeypatch.setattr(tensorflow, "run_once", slightly_wrong)
    assert main(["demo", str(GOLDEN / "model")]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_invalid_calls_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "new or empty" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    assert main(["demo", str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err
