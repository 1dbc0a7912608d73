"""The frameworks behind one interface: loading, placing, running, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rembert.bridge import save_checkpoint
from rembert.common.errors import CheckpointError, InputError
from rembert.common.initialization import initial_values
from rembert.tasks.backends import (
    check_framework,
    find_device,
    framework_of,
    get_backend,
    load_model,
    load_trained,
    running,
)
from tests.frameworks import PT, Framework, needs_pt, needs_tf, on_both, random_weights
from tests.tasks.support import TOKENIZER, config


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    encoded = TOKENIZER()(["Kurz.", "Ein etwas längerer Satz."], padding=True, return_tensors="np")
    return {name: np.asarray(encoded[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}


def build(framework: Framework, head: str, dtype: str = "float32") -> Any:
    settings = config()
    model = framework.build(settings, head, dtype=dtype)
    framework.set_weights(model, random_weights(settings, head, dtype="float32"))
    return model


@on_both
def test_a_runner_returns_the_outputs_of_a_plain_call(framework: Framework, inputs: dict[str, np.ndarray]) -> None:
    model = build(framework, "sequence-classification")
    expected = framework.array(framework.call(model, **inputs).logits)
    with running(model) as runner:
        for rows in (slice(None), slice(1)):  # another shape
            found = runner.outputs({name: array[rows] for name, array in inputs.items()})
            assert found.keys() == {"logits"}
            np.testing.assert_allclose(found["logits"], expected[rows], rtol=1e-5, atol=1e-6)
    once = get_backend(framework.name).run_once(model, {**inputs, "labels": np.array([0, 1])})
    np.testing.assert_allclose(once["logits"], expected, rtol=1e-5, atol=1e-6)
    assert once["loss"].shape == ()


@on_both
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_a_runner_returns_hidden_states(framework: Framework, layer: int, inputs: dict[str, np.ndarray]) -> None:
    model = build(framework, "model")
    expected = framework.array(framework.call(model, **inputs, output_hidden_states=True).hidden_states)[layer]
    with running(model) as runner:
        np.testing.assert_allclose(runner.hidden_states(inputs, layer), expected, rtol=1e-5, atol=1e-6)


@on_both
@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", "float32"), ("float64", "float64")])
def test_arrays_are_float32_or_better(
    framework: Framework, dtype: str, expected: str, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    build(framework, "sequence-classification").save_pretrained(tmp_path)
    model = framework.load(tmp_path, "sequence-classification", dtype=dtype)
    assert get_backend(framework.name).run_once(model, inputs)["logits"].dtype == expected


@needs_pt
def test_a_model_in_training_mode_is_evaluated_and_left_in_training_mode() -> None:
    model = PT.build(config(), "model").train()
    with running(model):
        assert not model.training
    assert model.training
    with pytest.raises(KeyError), running(model):
        raise KeyError
    assert model.training


@on_both
def test_the_framework_of_a_model_is_known(framework: Framework) -> None:
    assert framework_of(framework.build(config(), "model")) == framework.name
    with pytest.raises(InputError, match=r"`model` must be a model of .* Received: str"):
        framework_of("a model")


@needs_pt
@pytest.mark.parametrize("name", ["nowhere", "cuda:99", "meta:x"])
def test_pytorch_refuses_a_device_that_does_not_exist(name: str) -> None:
    with pytest.raises(InputError, match=f"`device` must be one that PyTorch has here.*`device='{name}'`"):
        find_device("pt", name)


@needs_pt
def test_pytorch_chooses_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert find_device("pt", None) == find_device("pt", "cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_device("pt", None) == torch.device("cuda:1")


@needs_tf
def test_tensorflow_refuses_a_device() -> None:
    assert find_device("tf", None) is None
    with pytest.raises(InputError, match=r"`device` must be None in TensorFlow.*`device='cpu'`"):
        find_device("tf", "cpu")


@on_both
def test_a_checkpoint_without_the_head_is_reported_or_refused(framework: Framework, tmp_path: Path) -> None:
    build(framework, "masked-lm").save_pretrained(tmp_path)
    assert load_trained(framework.name, "masked-lm", tmp_path) is not None
    _, report = load_model(framework.name, "token-classification", tmp_path)
    assert report["missing_keys"] == ["classifier.weight", "classifier.bias"]
    with pytest.raises(CheckpointError, match=r"not trained for token-classification.*classifier\.weight"):
        load_trained(framework.name, "token-classification", tmp_path)


@on_both
def test_a_checkpoint_of_another_head_with_the_same_names_is_refused(framework: Framework, tmp_path: Path) -> None:
    build(framework, "sequence-classification").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"was trained for sequence-classification.*Received: token-class"):
        load_trained(framework.name, "token-classification", tmp_path)
    assert load_trained(framework.name, "model", tmp_path) is not None


def test_an_unknown_framework_is_refused() -> None:
    with pytest.raises(InputError, match=r"`framework` must be one of pt, tf\. Received: `framework='jax'`"):
        check_framework("jax")


@on_both
def test_what_a_report_names_as_missing_is_initialized(framework: Framework, tmp_path: Path) -> None:
    settings = config()
    weights = random_weights(settings, "masked-lm", dtype="float32")
    save_checkpoint(tmp_path, weights, settings, head="masked-lm")
    model, report = load_model(framework.name, "model", tmp_path)
    get_backend(framework.name).initialize(model, report["missing_keys"], seed=3)
    (name,) = (each for each in report["missing_keys"] if each.endswith("weight"))
    parameter = model.parameter_table()[f"rembert.{name}"]
    expected = initial_values(parameter, settings.initializer_range, 3)
    assert (framework.weights(model)[f"rembert.{name}"] == expected).all()
