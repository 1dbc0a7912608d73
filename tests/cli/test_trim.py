"""`rembert trim` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rembert import RemBertConfig
from rembert.bridge import save_checkpoint
from rembert.cli.demo_checkpoint import make_tokenizer
from rembert.cli.main import main
from rembert.common.parameters import parameters


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "whole"
    directory.mkdir()
    config = RemBertConfig(
        vocab_size=len(make_tokenizer(directory)),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        input_embedding_size=4,
        intermediate_size=8,
        architectures=["RemBertModel"],
    )
    table = parameters(config, "model")
    save_checkpoint(directory, {name: np.ones(p.shape, np.float32) for name, p in table.items()}, config)
    return directory


def test_report(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The train to the coast.\n" * 12, encoding="utf-8")
    target = tmp_path / "small"
    assert main(["trim", str(checkpoint), str(target), "--corpus", str(corpus)]) == 0
    assert "0 of 12 lines (0.00%; +0.00% tokens) of the corpus" in capsys.readouterr().out
    assert main(["trim", str(checkpoint), str(target), "--corpus", str(corpus)]) == 2  # it is there already
    assert "small" in capsys.readouterr().err
    assert main(["trim", str(checkpoint), str(target), "--corpus", str(corpus), "--force", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["tokens_after"] < report["tokens_before"]
    assert report["corpus"]["changed"] == 0
    assert main(["inspect", str(target)]) == 0


def test_wrong_call(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trim", str(checkpoint), str(tmp_path / "small")]) == 2
    assert "neither" in capsys.readouterr().err
