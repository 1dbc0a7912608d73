"""The examples of docs/tensorflow.md and docs/keras.md run, in order, on a small model with the released name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from rembert.common.tokenization import RemBertTokenizer
from tests.frameworks import TF, small_config

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sentencepiece = ROOT / "tests" / "fixtures" / "tokenizer" / "sentencepiece.model"
    vocab_size = len(RemBertTokenizer(sentencepiece))
    config = small_config(num_hidden_layers=1, vocab_size=vocab_size, max_position_embeddings=64)
    TF.build(config, "model").save_pretrained("google/rembert")
    shutil.copy(sentencepiece, "google/rembert")
    page = (ROOT / "docs" / "tensorflow.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict = {}
    for number, example in enumerate(examples):
        exec(compile(example, f"docs/tensorflow.md, example {number}", "exec"), names)
    assert names["logits"].shape == (4, 2)
    assert not np.array_equal(names["rounded"], names["exact"])
    assert names["done"].outputs == ["logits"]
    assert len(names["losses"]) == 1
    assert np.isfinite(names["losses"][0])
    assert {"graph.keras", "tuned", "tuned.keras", "small.keras", "served", "phone"} <= {
        path.name for path in tmp_path.iterdir()
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_six_tasks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sentencepiece = ROOT / "tests" / "fixtures" / "tokenizer" / "sentencepiece.model"
    config = small_config(
        num_hidden_layers=1, vocab_size=len(RemBertTokenizer(sentencepiece)), max_position_embeddings=64
    )
    TF.build(config, "masked-lm").save_pretrained("google/rembert")
    shutil.copy(sentencepiece, "google/rembert")
    page = (ROOT / "docs" / "keras.md").read_text(encoding="utf-8")
    eager = page.replace("model.compile(optimizer)", "model.compile(optimizer, run_eagerly=True)")  # six graphs less
    assert eager != page
    names: dict = {}
    for number, example in enumerate(re.findall(r"^```python\n(.*?)^```", eager, re.MULTILINE | re.DOTALL)):
        exec(compile(example, f"docs/keras.md, example {number}", "exec"), names)
    assert 0 <= names["history"]["val_accuracy"][0] <= 1
    assert names["classes"].shape == (4,)
    assert [len(row) for row in names["entities"]] == [5, 6]
    windows = names["encoded"]["overflow_to_sample_mapping"]
    assert all(span in names["contexts"][example] for span, example in zip(names["spans"], windows, strict=True))
    assert set(names["chosen"].tolist()) <= {0, 1}
    assert len(names["best"]) == 5
    assert names["continued"][0].startswith("The train")
