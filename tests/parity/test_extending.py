"""Modules that a subclass adds: saved by one framework, loaded by a subclass of the other with the same attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

from rembert.common.errors import CheckpointError  # noqa: E402
from rembert.pt import RemBertForTokenClassification  # noqa: E402
from rembert.tf import TFRemBertForTokenClassification  # noqa: E402
from tests.frameworks import PT, TF, small_config  # noqa: E402

IDS = np.array([[5, 6, 7], [8, 9, 0]])


class Torch(RemBertForTokenClassification):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.extra = torch.nn.Linear(config.num_labels, 4)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(4)])
        self.register_buffer("shift", torch.ones(4), persistent=False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs["logits"] = self.norms[0](self.extra(outputs.logits)) + self.shift
        return outputs


class Keras(TFRemBertForTokenClassification):
    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.extra = keras.layers.Dense(4)
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5)]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().call(*args, **kwargs)
        outputs["logits"] = self.norms[0](self.extra(outputs.logits)) + 1
        return outputs


def test_what_one_framework_adds_the_other_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Torch(small_config(num_hidden_layers=1)).eval()
    with torch.no_grad():
        for parameter in model.norms.parameters():
            parameter.normal_()
    expected = PT.call(model, input_ids=IDS).logits.numpy()
    model.save_pretrained(tmp_path / "pt")
    twin = Keras.from_pretrained(tmp_path / "pt")
    np.testing.assert_allclose(TF.call(twin, input_ids=IDS).logits, expected, rtol=1e-5, atol=1e-5)
    twin.save_pretrained(tmp_path / "tf")
    for directory in ("pt", "tf"):
        again = Torch.from_pretrained(tmp_path / directory)
        np.testing.assert_array_equal(PT.call(again, input_ids=IDS).logits.numpy(), expected)
    with pytest.raises(CheckpointError, match=r"Unexpected \(4\)"):
        RemBertForTokenClassification.from_pretrained(tmp_path / "tf")


@pytest.mark.parametrize("model_class", [Torch, Keras])
def test_a_checkpoint_without_them_gives_initial_values(model_class: type, tmp_path: Path) -> None:
    RemBertForTokenClassification(small_config(num_hidden_layers=1)).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="newly initiali[sz]ed: extra"):
        model = model_class.from_pretrained(tmp_path)
    framework = PT if model_class is Torch else TF
    assert np.isfinite(framework.array(framework.call(model, input_ids=IDS).logits)).all()


def test_another_classifier_or_table_in_pytorch(tmp_path: Path) -> None:
    model = RemBertForTokenClassification(small_config(num_hidden_layers=1)).eval()
    model.classifier = torch.nn.Linear(model.config.hidden_size, 7)
    rows = model.config.vocab_size + 5
    model.set_input_embeddings(torch.nn.Embedding(rows, model.config.input_embedding_size))
    ids = np.full((1, 2), rows - 1)
    outputs = PT.call(model, input_ids=ids, labels=np.array([[6, 0]]))
    assert torch.isfinite(outputs.loss)
    model.save_pretrained(tmp_path)
    again = RemBertForTokenClassification.from_pretrained(tmp_path)
    np.testing.assert_array_equal(PT.call(again, input_ids=ids).logits, outputs.logits)
