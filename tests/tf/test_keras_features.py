"""What Keras offers around `fit`: each feature gives the numbers of the plain run that it should equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.tf import AdamW, TFRemBertForSequenceClassification  # noqa: E402
from tests.frameworks import small_config  # noqa: E402

pytestmark = pytest.mark.slow  # every case traces two graphs

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.0}
ROWS = 8


def _model(**options: Any) -> Any:
    keras.utils.set_random_seed(0)
    config = small_config(num_hidden_layers=1, max_position_embeddings=512, **NO_DROPOUT)
    return TFRemBertForSequenceClassification(config, **options)


def _data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    draw = np.random.default_rng(0)
    ids = draw.integers(5, 61, (ROWS, 6)).astype(np.int32)
    mask = np.ones_like(ids)
    mask[: ROWS // 2, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}, draw.integers(0, 5, ROWS).astype(np.int32)


def _logits(optimizer: Any, batch_size: int = ROWS, epochs: int = 2, dtype: Any = None, **options: Any) -> np.ndarray:
    """What a new model predicts after training."""
    inputs, labels = _data()
    model = _model(dtype=dtype)
    model.compile(optimizer, **options)
    model.fit(inputs, labels, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return np.asarray(model(inputs).logits)


def _sgd(**options: Any) -> Any:
    return keras.optimizers.SGD(0.1, **options)


CASES: dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]] = {
    "gradient accumulation": (
        lambda: _logits(_sgd(gradient_accumulation_steps=2), batch_size=4),
        lambda: _logits(_sgd()),
    ),
    "gradient accumulation of AdamW": (
        lambda: _logits(AdamW(0.01, gradient_accumulation_steps=2), batch_size=4),
        lambda: _logits(AdamW(0.01)),
    ),
    "steps per execution": (
        lambda: _logits(_sgd(), batch_size=2, steps_per_execution=4),
        lambda: _logits(_sgd(), batch_size=2),
    ),
    "loss scaling": (
        lambda: _logits(keras.optimizers.LossScaleOptimizer(_sgd(), initial_scale=128.0)),
        lambda: _logits(_sgd()),
    ),
    "XLA for 50 steps": (
        lambda: _logits(_sgd(), epochs=50, dtype="float64", jit_compile=True),
        lambda: _logits(_sgd(), epochs=50, dtype="float64"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_feature_trains_as_the_plain_run_does(name: str) -> None:
    with_it, without = (run() for run in CASES[name])
    np.testing.assert_allclose(with_it, without, rtol=1e-5, atol=1e-6)  # float32 sums in another order
