"""`rembert verify` on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rembert import RemBertConfig
from rembert.bridge import open_checkpoint, save_checkpoint
from rembert.cli.main import main
from tests.frameworks import needs_a_framework, needs_pt, needs_tf

GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"


@needs_pt
@needs_tf
@pytest.mark.parametrize("name", sorted(path.parent.name for path in GOLDEN.glob("*/tf_model.h5")))
def test_both_frameworks_give_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytorch, tensorflow = GOLDEN / name / "model.safetensors", GOLDEN / name / "tf_model.h5"
    assert main(["verify", str(pytorch), str(tensorflow), "--tolerance", "1e-5"]) == 0
    printed = capsys.readouterr().out
    assert "run in pt" in printed
    assert "run in tf" in printed
    assert printed.count("equal") >= 2 - (name == "model") + (name == "question_answering")


@needs_a_framework
def test_changed_weights_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_checkpoint(GOLDEN / "token_classification") as checkpoint:
        weights = {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}
        weights["classifier.bias"] += np.float32(0.01)
        save_checkpoint(tmp_path, weights, checkpoint.config)
    assert main(["verify", str(GOLDEN / "token_classification"), str(tmp_path)]) == 1
    assert "logits" in next(line for line in capsys.readouterr().out.splitlines() if "differs" in line)
    assert main(["verify", str(GOLDEN / "token_classification"), str(tmp_path), "--tolerance", "0.1"]) == 0


@needs_a_framework
def test_nan_weights_differ(tmp_path: Path) -> None:
    with open_checkpoint(GOLDEN / "model") as checkpoint:
        weights = {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}
        next(iter(weights.values()))[...] = np.nan
        save_checkpoint(tmp_path, weights, checkpoint.config)
    assert main(["verify", str(GOLDEN / "model"), str(tmp_path), "--tolerance", "1e9"]) == 1


@needs_pt
@needs_tf
def test_encoders_of_different_heads_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rembert.pt import RemBertForTokenClassification, RemBertModel

    RemBertModel.from_pretrained(GOLDEN / "model").save_pretrained(tmp_path / "encoder")
    with pytest.warns(UserWarning, match="newly initialised"):
        RemBertForTokenClassification.from_pretrained(GOLDEN / "model").save_pretrained(tmp_path / "tagger")
    assert main(["verify", str(tmp_path / "encoder"), str(tmp_path / "tagger"), "--frameworks", "tf", "pt"]) == 0
    printed = capsys.readouterr().out
    assert "the encoders are compared" in printed
    assert "last_hidden_state" in printed


@needs_a_framework
def test_invalid_calls_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = str(GOLDEN / "model")
    assert main(["verify", golden, str(tmp_path)]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err
    assert main(["verify", golden, golden, "--tolerance", "-1"]) == 2
    assert "`tolerance=-1.0`" in capsys.readouterr().err
    shutil.copy(GOLDEN / "model" / "model.safetensors", tmp_path)
    assert main(["verify", golden, str(tmp_path)]) == 1
    assert "no config.json" in capsys.readouterr().err
    config = RemBertConfig.from_pretrained(golden)
    config.vocab_size = 200
    config.save_pretrained(tmp_path)
    assert main(["verify", golden, str(tmp_path)]) == 1
    assert "`vocab_size=160` and `vocab_size=200`" in capsys.readouterr().err
