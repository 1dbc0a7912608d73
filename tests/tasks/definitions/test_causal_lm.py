"""Causal language modelling: labels of a decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tasks.support import (
    opened,
)


def test_a_decoder_has_no_labels_on_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("eins\neins zwei drei\n")
    task, examples = opened("causal-lm", path)
    assert task.config_overrides() == {"is_decoder": True}
    batch = task.collate([feature for example in examples for feature in task.features(example)])
    real = batch["attention_mask"] == 1
    np.testing.assert_array_equal(batch["labels"][real], batch["input_ids"][real])
    assert (batch["labels"][~real] == -100).all()
