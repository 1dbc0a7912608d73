"""`rembert demo`: the main job, on its own checkpoint and on a given one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rembert.cli.main import main
from rembert.common.parameters import HEADS
from rembert.tasks.backends import get_backend

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"


def rows(printed: str) -> dict[str, list[str]]:
    """The table's rows by head."""
    return {
        line.split()[0]: line.split() for line in printed.splitlines() if line.split()[:1] and line.split()[0] in HEADS
    }


def test_on_its_own_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "kept")]) == 0
    printed = capsys.readouterr().out
    assert "every tensor the same, bit for bit" in printed
    assert rows(printed).keys() == HEADS.keys()
    assert all(row[-1] == "equal" for row in rows(printed).values())
    assert "scores, those of each language too, are equal" in printed
    accuracies = [float(found) for found in re.findall(r"accuracy (\d\.\d+)", printed)]
    assert accuracies[0] == accuracies[1] > 0.5  # of three subjects
    assert (tmp_path / "kept" / "fine-tuned" / "model.safetensors").is_file()
    assert (tmp_path / "kept" / "pytorch" / "model.safetensors").is_file()
    assert (tmp_path / "kept" / "tensorflow" / "tf_model.h5").is_file()
    assert (tmp_path / "kept" / "tensorflow" / "sentencepiece.model").is_file()


@pytest.mark.parametrize("name", ["causal_lm_cross", "sequence_regression"])
def test_on_a_given_checkpoint(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(GOLDEN / name / "tf_model.h5")]) == 0
    printed = capsys.readouterr().out
    assert "h5 → pt" in printed
    assert all(row[-1] == "equal" for row in rows(printed).values())
    assert len(rows(printed)) == len(HEADS)


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


def test_bad_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "new or empty" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    assert main(["demo", str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err
