"""Generation's traced loops: they follow what becomes of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from tests.frameworks import TF  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402

CASE = next(case for case in CASES if case.name == "causal_lm")
FAVOURITE = 3


def _resized(model: Any) -> None:
    model.resize_token_embeddings(80)
    model.get_output_embeddings().bias.assign(100.0 * (np.arange(80) == 75))


def _adapted(model: Any) -> None:
    keras.utils.set_random_seed(0)
    layer = model.cls.predictions.dense
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(100 * np.random.default_rng(0).standard_normal(layer.lora_kernel_b.shape))


@pytest.mark.parametrize("change", [pytest.param(_resized, marks=pytest.mark.slow), _adapted])
def test_changes_after_the_first_call_take_effect(change: Callable[[Any], None]) -> None:
    model, ids = build(TF, CASE, CASE.config(num_hidden_layers=1)), tf.constant([[5, 6, 7]])
    before = model.generate(ids, max_new_tokens=1)[0, -1]
    change(model)
    wanted = tf.argmax(model(ids).logits[0, -1])
    assert wanted != before
    assert model.generate(ids, max_new_tokens=1)[0, -1] == wanted
