"""PyTorch against TensorFlow: outputs, losses and gradients of every head, in float64 and in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rembert.common.config_values import ACTIVATIONS
from tests.frameworks import PT, TF, Arrays, difference, flat, needs_pt, needs_tf, scale_of_gradient
from tests.parity.cases import CASES, WITH_LOSS, Case, as_dtype, build_both, by_case, shared

pytestmark = [needs_pt, needs_tf]

# Parts of an output's, or a gradient's, largest number. float32 rounds at 6e-8; the gradient of a small model adds up
# some hundred roundings.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}


def check_outputs(models: tuple[Any, Any], inputs: Arrays, tolerance: float, **flags: Any) -> None:
    pt, tf = (flat(each, each.call(model, **inputs, **flags)) for each, model in zip((PT, TF), models, strict=True))
    assert list(pt) == list(tf)
    for name in pt:
        assert pt[name].dtype == tf[name].dtype
        assert difference(tf[name], pt[name]) <= tolerance, name


def check_gradients(models: tuple[Any, Any], inputs: Arrays, tolerance: float) -> None:
    pt, tf = (each.gradients(model, **inputs) for each, model in zip((PT, TF), models, strict=True))
    head, layers = models[0].head, models[0].config.num_hidden_layers
    for name in pt:
        scale = np.abs(pt[scale_of_gradient(name, head, layers)]).max()
        assert np.abs(pt[name] - tf[name]).max() <= tolerance * scale, name


def _models(case: Case, dtype: str) -> tuple[Any, Any]:
    return shared(PT, case, dtype), shared(TF, case, dtype)


@by_case()
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_outputs(case: Case, dtype: str) -> None:
    config = case.config()
    models, inputs = _models(case, dtype), as_dtype(case.inputs(config), dtype)
    check_outputs(models, inputs, TOLERANCES[dtype], output_attentions=True, output_hidden_states=True)
    check_outputs(models, inputs, TOLERANCES[dtype])


@by_case(WITH_LOSS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_gradients(case: Case, dtype: str) -> None:
    config = case.config()
    inputs = as_dtype(case.inputs(config), dtype)
    check_gradients(_models(case, dtype), inputs, TOLERANCES[dtype])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    # Outputs and gradients through the activation, which the language model's head has as well.
    case = Case(activation, "masked-lm")
    config = case.config(hidden_act=activation, num_hidden_layers=1)
    models, inputs = build_both(case, config), case.inputs(config)
    check_outputs(models, inputs, TOLERANCES["float64"])
    check_gradients(models, inputs, TOLERANCES["float64"])


@pytest.mark.slow
def test_at_the_depth_of_the_released_model() -> None:
    case = Case("released depth", "masked-lm")
    sizes = {"hidden_size": 576, "num_hidden_layers": 32, "num_attention_heads": 18, "intermediate_size": 2304}
    config = case.config(**sizes, input_embedding_size=256, output_embedding_size=1664, max_position_embeddings=32)
    inputs = case.inputs(config, batch=2, length=24)
    check_outputs(build_both(case, config), inputs, TOLERANCES["float64"], output_hidden_states=True)


def test_every_head_is_a_case() -> None:
    from rembert.common.parameters import HEADS

    assert {case.head for case in CASES} == set(HEADS)
