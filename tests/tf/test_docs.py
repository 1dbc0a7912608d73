"""The examples of docs/tensorflow.md run, in order, on a small model under the released one's name."""

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
