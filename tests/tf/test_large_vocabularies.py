"""The losses over large vocabularies inside Keras' own tools: graphs, XLA, other output layers."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from rembert.tf import linear_cross_entropy as module  # noqa: E402
from rembert.tf.linear_cross_entropy import is_plain_linear, linear_cross_entropy  # noqa: E402
from tests.frameworks import TF, difference  # noqa: E402
from tests.parity.cases import CASES, build  # noqa: E402

CASE = next(case for case in CASES if case.name == "masked_lm")


@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_a_graph(xla: bool) -> None:
    model = build(TF, CASE, CASE.config(num_hidden_layers=1))
    variables = model.trainable_variables
    unknown = None if not xla else 3

    @tf.function(
        jit_compile=xla,
        input_signature=[tf.TensorSpec([unknown, 7 if xla else None], tf.int64) for _ in range(3)],
    )
    def step(input_ids: object, attention_mask: object, labels: object) -> tuple:
        with tf.GradientTape() as tape:
            loss = model(input_ids, attention_mask=attention_mask, labels=labels, training=True).loss
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return loss, [gradient if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]

    inputs = CASE.inputs(CASE.config())
    given = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
    for count in (3, 3 if xla else 2):
        loss, gradients = step(*(TF.tensor(array[:count]) for array in given.values()))
        arrays = {name: array[:count] for name, array in given.items()}
        wanted = TF.call(model, **arrays, return_logits=True).loss
        assert difference(TF.array(loss), TF.array(wanted)) <= 1e-12
        with tf.GradientTape() as tape:
            tensors = {name: TF.tensor(array) for name, array in arrays.items()}
            wanted = model(**tensors, return_logits=True).loss
        for actual, exact in zip(gradients, tape.gradient(wanted, [v.value for v in variables]), strict=True):
            if exact is not None:
                exact = tf.convert_to_tensor(exact).numpy()
                assert np.abs(actual.numpy() - exact).max() <= 1e-12 * max(np.abs(exact).max(), 1e-3)


def test_tape_takes_no_gradient_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep every intermediate number of all logits, which this loss exists to do without."""
    taken = []

    @tf.custom_gradient
    def noted(values: tf.Tensor) -> tuple:
        return tf.raw_ops.Exp(x=values), lambda gradient: taken.append(True) or gradient

    monkeypatch.setattr(tf, "exp", noted)
    module._in_graph.cache_clear()
    states, kernel, bias = tf.random.normal((5, 3)), tf.random.normal((3, 7)), tf.zeros(7)
    with tf.GradientTape() as tape:
        tape.watch((states, kernel, bias))
        loss = linear_cross_entropy(states, kernel, bias, tf.constant([0, 1, 2, 3, -100]), True)
    assert all(gradient is not None for gradient in tape.gradient(loss, (states, kernel, bias)))
    assert not taken
    module._in_graph.cache_clear()


def test_another_output_layer_is_called() -> None:
    """Keras' adapters on the output embeddings take part in the loss."""
    model = build(TF, CASE, CASE.config())
    decoder = model.get_output_embeddings()
    assert is_plain_linear(decoder)
    inputs = CASE.inputs(CASE.config())
    plain = TF.call(model, **inputs, training=True).loss
    decoder.enable_lora(2)
    decoder.lora_kernel_b.assign(tf.random.normal(decoder.lora_kernel_b.shape, dtype=tf.float64))
    assert not is_plain_linear(decoder)
    adapted = TF.call(model, **inputs, training=True).loss
    wanted = TF.call(model, **inputs, training=True, return_logits=True).loss
    assert difference(TF.array(adapted), TF.array(wanted)) <= 1e-12
    assert float(adapted) != float(plain)
