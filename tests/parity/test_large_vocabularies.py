"""The losses of the language models without logits, against the same losses taken from the logits, in float64."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from tests.frameworks import Arrays, Framework, difference, flat, on_both
from tests.parity.cases import CASES, Case, build, by_case, shared

TOLERANCE = 1e-12
LANGUAGE_MODELS = [case for case in CASES if case.name in ("masked_lm", "causal_lm")]
MASKED, CAUSAL = LANGUAGE_MODELS


def _in_chunks(framework: Framework, patch: pytest.MonkeyPatch, rows: int) -> None:
    """Have `rows` rows of logits computed at a time, and everything else in small chunks."""
    module = importlib.import_module(f"rembert.{framework.name}.linear_cross_entropy")
    kinds = module._AT_A_TIME
    patch.setattr(module, "_AT_A_TIME", dict.fromkeys(kinds, 61 * rows + 5))
    for name in ("_CAST_AT_A_TIME", "_ADDED_AT_A_TIME"):
        if hasattr(module, name):
            patch.setattr(module, name, 17)
    if framework.name == "tf":
        module._in_graph.cache_clear()  # a graph keeps the sizes it was traced with


def _model(framework: Framework, case: Case) -> Any:
    """One that the test may train: in PyTorch that is a state of the model."""
    if framework.name == "pt":
        return build(framework, case, case.config(num_hidden_layers=1))
    return shared(framework, case, num_hidden_layers=1)


def _training(framework: Framework, model: Any) -> dict[str, bool]:
    if framework.name == "pt":
        model.train()
        return {}
    return {"training": True}


def _without(arrays: Arrays, *names: str) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in names}


@on_both
@pytest.mark.parametrize(
    ("case", "rows", "trained"),
    [(MASKED, 1, True), (MASKED, 4, True), (MASKED, 1000, True), (MASKED, 4, False), (CAUSAL, 4, True)],
    ids=["a row", "rows", "all rows", "evaluation", "causal"],
)
def test_loss_and_its_gradients(
    framework: Framework, case: Case, rows: int, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_chunks(framework, monkeypatch, rows)
    model, inputs = _model(framework, case), case.inputs(case.config())
    mode = _training(framework, model) if trained else {}
    with_logits = framework.call(model, **inputs, **mode, return_logits=True)
    without = framework.call(model, **inputs, **mode, return_logits=False)
    assert "logits" not in without
    assert difference(framework.array(without.loss), framework.array(with_logits.loss)) <= TOLERANCE
    wanted = framework.gradients(model, **inputs, **mode, return_logits=True)
    actual = framework.gradients(model, **inputs, **mode, return_logits=False)
    for name, array in wanted.items():
        assert np.abs(actual[name] - array).max() <= TOLERANCE * max(np.abs(array).max(), 1e-3), name


@on_both
@by_case(LANGUAGE_MODELS)
def test_logits_are_left_out_in_training_only(framework: Framework, case: Case) -> None:
    model, inputs = _model(framework, case), case.inputs(case.config())
    unlabelled = _without(inputs, "labels")
    assert "logits" in framework.call(model, **inputs)
    assert "logits" not in framework.call(model, **inputs, return_logits=False)
    assert "logits" not in framework.call(model, **unlabelled, return_logits=False)
    mode = _training(framework, model)
    assert "logits" not in framework.call(model, **inputs, **mode)
    assert "logits" in framework.call(model, **unlabelled, **mode)
    assert "logits" in framework.call(model, **inputs, **mode, return_logits=True)
    assert len(framework.call(model, **inputs, **mode, return_dict=False)) == 1  # and no cache


@on_both
@by_case(LANGUAGE_MODELS)
def test_no_label_that_counts(framework: Framework, case: Case) -> None:
    model, inputs = _model(framework, case), case.inputs(case.config())
    inputs["labels"][:] = -100
    mode = _training(framework, model)
    assert float(framework.call(model, **inputs, **mode).loss) == 0
    gradients = framework.gradients(model, **inputs, **mode)
    assert all((gradient == 0).all() for gradient in gradients.values())


@on_both
@by_case(LANGUAGE_MODELS)
def test_logits_at_chosen_positions(framework: Framework, case: Case) -> None:
    model, inputs = _model(framework, case), _without(case.inputs(case.config()), "labels")
    rows = np.arange(3)[:, None]
    at = np.array([[6, 0], [1, 1], [3, 5]])
    whole = flat(framework, framework.call(model, **inputs))
    chosen = flat(framework, framework.call(model, **inputs, logits_at=at))
    assert difference(chosen["logits"], whole["logits"][rows, at]) <= TOLERANCE

    labels = np.array([[5, -100], [60, 0], [7, 8]])
    # What the positions predict: in a causal model too, labels that come with positions are not shifted.
    counted = (labels != -100) & (inputs["attention_mask"][rows, at] == 1)
    logits = chosen["logits"][counted]
    costs = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), labels[counted]]
    for mode in ({}, {"return_logits": False}):
        loss = framework.call(model, **inputs, logits_at=at, labels=labels, **mode).loss
        assert difference(framework.array(loss), np.array(costs.mean())) <= TOLERANCE


@on_both
def test_a_scaled_loss_has_scaled_gradients(framework: Framework) -> None:
    """As accumulation over batches and loss scaling in float16 need it."""
    module = importlib.import_module(f"rembert.{framework.name}.linear_cross_entropy")
    numbers = np.random.default_rng(0)
    states, table, bias = (numbers.standard_normal(shape) for shape in ((5, 3), (7, 3), (7,)))
    labels = np.array([1, -100, 6, 0, 3])
    results = []
    for factor in (1.0, 4.0):
        if framework.name == "pt":
            given = [framework.tensor(each).requires_grad_() for each in (states, table, bias)]
            (module.linear_cross_entropy(*given, framework.tensor(labels)) * factor).backward()
            results.append([each.grad.numpy() for each in given])
        else:
            import tensorflow as tf

            given = [framework.tensor(each) for each in (states, table.T.copy(), bias)]
            with tf.GradientTape() as tape:
                tape.watch(given)
                loss = module.linear_cross_entropy(*given, framework.tensor(labels), True) * factor
            results.append([each.numpy() for each in tape.gradient(loss, given)])
    for one, four in zip(*results, strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_array_equal(one * 4, four)
    if framework.name == "pt":
        loss = module.linear_cross_entropy(*given, framework.tensor(labels)) * 2
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError):  # the gradient was scaled in place: it cannot be scaled again
            loss.backward()


@on_both
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(framework: Framework, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights stay in float32, products are in half precision: the gradients too keep float32's range."""
    _in_chunks(framework, monkeypatch, 4)
    config = MASKED.config(num_hidden_layers=1)
    inputs = MASKED.inputs(config)
    exact = build(framework, MASKED, config, dtype="float32")
    wanted = framework.gradients(exact, **inputs, **_training(framework, exact))
    if framework.name == "pt":
        import torch

        with torch.autocast("cpu", getattr(torch, dtype)):
            loss = framework.call(exact, **inputs).loss
            actual = framework.gradients(exact, **inputs)
        exact.zero_grad()
    else:
        policy = framework.build(config, MASKED.head, dtype=f"mixed_{dtype}")
        framework.set_weights(policy, framework.weights(exact))
        loss = framework.call(policy, **inputs, training=True).loss
        actual = framework.gradients(policy, **inputs, training=True)
    assert str(loss.dtype).endswith("float32") or "float32" in str(loss.dtype)
    for name in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "cls.predictions.dense.weight"):
        # bfloat16 has three decimal digits at best, a few roundings deep.
        assert difference(actual[name], wanted[name]) <= (0.05 if dtype == "bfloat16" else 0.01), name
        assert actual[name].dtype == np.float32
