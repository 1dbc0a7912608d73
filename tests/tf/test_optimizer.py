"""`rembert.tf.AdamW` is `torch.optim.AdamW`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from rembert.tf import AdamW  # noqa: E402


@pytest.mark.parametrize("in_graph", [False, True])
def test_every_step_is_pytorchs(in_graph: bool) -> None:
    numbers = np.random.default_rng(0)
    start = [numbers.standard_normal((5, 3)), numbers.standard_normal(3)]
    parameters = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in start]
    theirs = torch.optim.AdamW(
        [
            {"params": [parameters[0]], "lr": 0.01, "weight_decay": 0.1},
            {"params": [parameters[1]], "lr": 0.005, "weight_decay": 0.0},
        ]
    )
    variables = [keras.Variable(array, dtype="float64") for array in start]
    rate = tf.Variable(0.01, dtype="float64")  # Keras holds a number as float32
    ours = AdamW(lambda: rate, weight_decay=0.1)
    ours.exclude_from_weight_decay(var_list=[variables[1]])
    ours.scale_learning_rate([variables[1]], 0.5)
    ours.build(variables)
    apply = tf.function(lambda gradients: ours.apply(gradients, variables)) if in_graph else ours.apply
    for step in range(30):
        # Small gradients now and then: there epsilon, and where it is added, decides.
        gradients = [numbers.standard_normal(array.shape) * (1e-8 if step % 3 else 1.0) for array in start]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        theirs.step()
        apply([tf.constant(gradient) for gradient in gradients])
        for parameter, variable in zip(parameters, variables, strict=True):
            np.testing.assert_allclose(variable.numpy(), parameter.detach().numpy(), rtol=1e-12)


def test_keras_own_is_another() -> None:
    # Otherwise this one would not be needed.
    ours, theirs = (keras.Variable(np.ones(3), dtype="float64") for _ in range(2))
    for variable, optimizer in ((ours, AdamW(0.1)), (theirs, keras.optimizers.AdamW(0.1, weight_decay=0.01))):
        optimizer.build([variable])
        optimizer.apply([tf.constant(np.full(3, 1e-7))])
    assert np.abs(ours.numpy() - theirs.numpy()).max() > 1e-2


def test_rows_that_a_batch_does_not_use_continue_to_change() -> None:
    table = torch.nn.Embedding(4, 2, dtype=torch.float64)
    theirs = torch.optim.AdamW(table.parameters(), lr=0.1, weight_decay=0.0)
    variable = keras.Variable(table.weight.detach().numpy(), dtype="float64")
    ours = AdamW(lambda: tf.constant(0.1, "float64"), weight_decay=0.0)
    ours.build([variable])
    for row in (0, 3, 1):
        table.weight.grad = None
        table(torch.tensor([row])).sum().backward()
        theirs.step()
        ours.apply([tf.IndexedSlices(tf.ones((1, 2), "float64"), [row], (4, 2))])
    np.testing.assert_allclose(variable.numpy(), table.weight.detach().numpy(), rtol=1e-12)


def test_a_compiled_model_keeps_it(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(AdamW(3e-3, epsilon=1e-6, weight_decay=0.2), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert isinstance(loaded, AdamW)
    assert (loaded.epsilon, loaded.weight_decay) == (1e-6, 0.2)
    assert float(loaded.learning_rate) == pytest.approx(3e-3)
    assert int(loaded.iterations) == 1
