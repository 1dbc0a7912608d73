"""What Keras offers around `fit`: each feature gives the numbers of the plain run that it should equal.

Features that a graph may change run in graphs, and are slow; the others run eagerly, in float64.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.tf import AdamW, TFRemBertForSequenceClassification  # noqa: E402
from tests.frameworks import TF, Arrays, small_config  # noqa: E402

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.0}
ROWS = 8


def _model(layers: int = 1, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    config = small_config(num_hidden_layers=layers, max_position_embeddings=512, **NO_DROPOUT)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_feature_trains_as_the_plain_run_does(name: str) -> None:
    with_it, without = (run() for run in CASES[name])
    np.testing.assert_allclose(with_it, without, rtol=1e-5, atol=1e-6)  # float32 sums in another order


# ---------------------------------------------------------------------- eagerly


def _fitted(optimizer: Any, steps: int = 1, model: Any = None, **options: Any) -> Any:
    """A model after whole batches."""
    model = model or _model(dtype="float64")
    model.compile(optimizer, run_eagerly=True)
    model.fit(*_data(), batch_size=ROWS, epochs=steps, shuffle=False, verbose=0, **options)
    return model


def _check_equal(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=0, atol=1e-12, err_msg=name)


class _Weights(keras.callbacks.Callback):
    """The weights after every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Arrays] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(TF.weights(self.model))


@pytest.mark.parametrize("kind", [pytest.param(keras.optimizers.SGD, marks=pytest.mark.slow), AdamW])
def test_the_optimizers_average_of_the_weights(kind: Callable[..., Any]) -> None:
    weights = _Weights()
    _fitted(kind(0.125), 3, callbacks=[weights])
    first, second, third = weights.seen
    # Keras' average begins with the weights after the first step; `fit` ends with the average in their place.
    wanted = {name: 0.25 * first[name] + 0.25 * second[name] + 0.5 * third[name] for name in first}
    _check_equal(TF.weights(_fitted(kind(0.125, use_ema=True, ema_momentum=0.5), 3)), wanted)


def test_a_rate_that_falls_on_a_plateau() -> None:
    # No loss is better than the first by 100: the rate is halved after the second epoch.
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0, mode="min")
    reduced = _fitted(keras.optimizers.SGD(0.125), 3, callbacks=[plateau])
    assert float(reduced.optimizer.learning_rate) == 0.125 / 4
    by_hand = _fitted(keras.optimizers.SGD(0.125), 2)
    _check_equal(TF.weights(reduced), TF.weights(_fitted(keras.optimizers.SGD(0.0625), 1, by_hand)))


def test_frozen_layers_stay_and_the_others_train_as_without_freezing() -> None:
    start = TF.weights(_model(2, dtype="float64"))
    model = _model(2, dtype="float64")
    model.rembert.embeddings.trainable = False
    model.rembert.encoder.layer[0].trainable = False
    frozen = ("rembert.embeddings.", "rembert.encoder.layer.0.")
    one_step = TF.weights(_fitted(keras.optimizers.SGD(0.125), 1, _model(2, dtype="float64")))
    assert all((one_step[name] != start[name]).any() for name in start if name.endswith("LayerNorm.weight"))
    _check_equal(
        TF.weights(_fitted(keras.optimizers.SGD(0.125), 1, model)),
        {name: start[name] if name.startswith(frozen) else array for name, array in one_step.items()},
    )


@pytest.mark.parametrize("implementation", ["auto", "eager"])  # without the padding, and with it
def test_float16_beside_480_positions_of_padding(implementation: str) -> None:
    inputs, labels = _data()
    padded = {name: np.pad(array, ((0, 0), (0, 480))) for name, array in inputs.items()}
    exact = np.asarray(_model()(inputs).logits)
    half = _model(dtype="mixed_float16")
    half.set_attn_implementation(implementation)
    assert 0 < np.abs(half(padded).logits - exact).max() <= 2**-9 * np.abs(exact).max()  # numbers have 11 bits
    half.compile(keras.optimizers.SGD(0.125), run_eagerly=True)
    losses = half.fit({**padded, "labels": labels}, batch_size=ROWS, epochs=2, shuffle=False, verbose=0).history[
        "loss"
    ]
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_a_saved_model_trains_on_in_another_process(tmp_path: Path) -> None:
    """The file alone says the class, the optimizer and its state: the process only imports the library."""
    model = _fitted(AdamW(0.01), 2)
    model.save(tmp_path / "model.keras")
    inputs, labels = _data()
    np.savez(tmp_path / "inputs.npz", **inputs)
    np.save(tmp_path / "labels.npy", labels)
    program = (
        "import sys, keras, numpy, rembert.tf; directory = sys.argv[1];"
        "inputs, labels = dict(numpy.load(directory + '/inputs.npz')), numpy.load(directory + '/labels.npy');"
        "model = keras.saving.load_model(directory + '/model.keras');"
        "model.fit(inputs, labels, batch_size=8, shuffle=False, verbose=0);"
        "numpy.save(directory + '/logits.npy', model.predict(inputs, verbose=0)['logits'])"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    model.fit(inputs, labels, batch_size=ROWS, shuffle=False, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model(inputs).logits, rtol=0, atol=1e-12)
