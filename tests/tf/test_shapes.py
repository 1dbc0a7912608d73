"""The shapes that a model states without a call, and what Keras makes of them: summaries and wrappers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.common.errors import InputError  # noqa: E402
from rembert.tf import TFRemBertForSequenceClassification, TFRemBertModel  # noqa: E402
from tests.frameworks import TF, flat, small_config  # noqa: E402
from tests.parity.cases import CASES, Case, build, by_case  # noqa: E402

HEADS = [case for case in CASES if not case.settings.get("is_decoder")]


@by_case(HEADS)
def test_shapes_are_those_of_a_call(case: Case) -> None:
    config = case.config(num_hidden_layers=1)
    model, inputs = build(TF, case, config), case.inputs(config)
    inputs = {name: array for name, array in inputs.items() if name not in model.label_names}
    stated = model.compute_output_shape({name: array.shape for name, array in inputs.items()})
    expected = {name: array.shape for name, array in flat(TF, TF.call(model, **inputs)).items()}
    assert (stated if isinstance(stated, dict) else {"logits": stated}) == expected
    if "input_ids" in inputs:
        assert model.compute_output_shape(inputs["input_ids"].shape) == stated


def _summary(model: Any, **options: Any) -> list[str]:
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=200, **options)
    return "\n".join(lines).splitlines()


def test_a_summary_shows_shapes_and_the_encoders_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    config = small_config(num_hidden_layers=2, hidden_size=12, input_embedding_size=10)
    for _ in range(2):  # another model has the same names
        lines = _summary(TFRemBertForSequenceClassification(config), expand_nested=True)
        found = dict(re.findall(r"│\s+(?:└ )?(\w+) \(\w+\)\s+│ (\(.*?\)|\{.*?\}|\?) +│", "\n".join(lines)))
        assert found == {
            "rembert": "{last_hidden_state: (None, None, 12), pooler_output: (None, 12)}",
            "embeddings": "(None, None, 10)",
            "encoder": "(None, None, 12)",
            "embedding_hidden_mapping_in": "(None, None, 12)",
            "layer_0": "(None, None, 12)",
            "layer_1": "(None, None, 12)",
            "pooler": "(None, 12)",
            "dropout": "(None, 12)",
            "classifier": f"(None, {config.num_labels})",
        }
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    lines = _summary(keras.Model(ids, TFRemBertModel(config)(ids).pooler_output), expand_nested=True)
    assert any("layer_1" in line and "(None, None, 12)" in line for line in lines)


def test_a_plot_shows_shapes(tmp_path: Path) -> None:
    pytest.importorskip("pydot")
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    graph = keras.Model(ids, TFRemBertModel(small_config(num_hidden_layers=1))(ids).pooler_output)
    dot = keras.utils.model_to_dot(graph, show_shapes=True).to_string()
    assert "(None, None, 12)" in dot
    assert "(None, 12)" in dot


def test_time_distributed_is_one_call_for_each_step() -> None:
    config = small_config(num_hidden_layers=1)
    ids = np.random.default_rng(0).integers(5, 61, (2, 3, 7))
    head, base = TFRemBertForSequenceClassification(config), TFRemBertModel(config)
    steps, given = keras.layers.TimeDistributed(head), keras.Input((3, None), dtype="int32")
    assert steps(given).shape == (None, 3, config.num_labels)
    expected = np.stack([head(ids[:, step]).logits for step in range(3)], axis=1)
    np.testing.assert_allclose(steps(ids), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(keras.Model(given, steps(given))(ids), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"several tensors.*`outputs\.last_hidden_state`.*pooler_output"):
        keras.layers.TimeDistributed(base)(ids)
    part = keras.Input((None,), dtype="int32")
    pooled = keras.layers.TimeDistributed(keras.Model(part, base(part).pooler_output))(ids)
    np.testing.assert_allclose(pooled[:, 1], base(ids[:, 1]).pooler_output, rtol=1e-5, atol=1e-6)
