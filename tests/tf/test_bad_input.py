"""What Keras users get wrong: graphs without an input, damaged archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from rembert.common.errors import CheckpointError, InputError  # noqa: E402
from rembert.tf import TFRemBertForSequenceClassification  # noqa: E402
from tests.frameworks import TF, small_config  # noqa: E402

HEAD = "sequence-classification"


@pytest.fixture(scope="module")
def model() -> TFRemBertForSequenceClassification:
    return TF.build(small_config(num_hidden_layers=1), HEAD)


def test_a_graph_without_a_needed_input(model: TFRemBertForSequenceClassification) -> None:
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    with pytest.raises(InputError, match="`input_ids`"):
        model({"attention_mask": mask})
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    graph = keras.Model({"input_ids": ids, "attention_mask": mask}, model({"input_ids": ids, "attention_mask": mask}))
    with pytest.raises(ValueError, match="attention_mask"):  # Keras' own
        graph({"input_ids": np.ones((2, 3), "int32")})


def test_a_graph_of_the_wrong_inputs(model: TFRemBertForSequenceClassification) -> None:
    with pytest.raises(InputError, match=r"`input_ids` must hold integers\. Received: .*float32"):
        model(keras.Input((None,), dtype="float32"))
    with pytest.raises(InputError, match=r"`input_ids` must have the shape \[batch, sequence\]"):
        model(keras.Input((None, None, None), dtype="int32"))
    ids = keras.Input((None,), dtype="int32")
    with pytest.raises(InputError, match=r"may have the keys .*Received also: mask"):
        model({"input_ids": ids, "mask": ids})


def test_a_damaged_archive(model: TFRemBertForSequenceClassification, tmp_path: Path) -> None:
    whole, file = tmp_path / "whole.keras", tmp_path / "model.keras"
    model.save(whole)
    content = whole.read_bytes()
    middle = len(content) // 2
    for damaged in (b"", content[:middle], content[:middle] + bytes(64) + content[middle + 64 :]):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.keras"):
            TFRemBertForSequenceClassification.from_pretrained(file)
        with pytest.raises(CheckpointError, match=r"model\.keras"):
            model.load_weights(file)
        with pytest.raises(Exception):  # noqa: B017, PT011  # Keras' own function, its own errors: none may pass
            keras.saving.load_model(file)
