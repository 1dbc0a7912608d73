"""Label smoothing in both frameworks against NumPy in float64 and against PyTorch's own."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from rembert.common.errors import InputError
from tests.frameworks import PT, TF, Arrays, Framework, difference, needs_one_graph, needs_pt, needs_tf, on_both
from tests.parity.cases import CASES, WITH_LOSS, Case, build, by_case
from tests.parity.test_large_vocabularies import _in_chunks, _training

TOLERANCE = 1e-12
SMOOTHING = 0.2
LANGUAGE_MODELS = [case for case in CASES if case.name in ("masked_lm", "causal_lm")]


def smoothed(logits: np.ndarray, labels: np.ndarray, smoothing: float = SMOOTHING) -> float:
    """Mean over the labels that count of the cross entropy with (1 - ε) one-hot + ε / classes as the target."""
    costs = []
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), strict=True):
        if label != -100:
            target = np.full(len(row), smoothing / len(row))
            target[label] += 1 - smoothing
            costs.append(-target @ (row - row.max() - np.log(np.exp(row - row.max()).sum())))
    return float(np.mean(costs)) if costs else 0.0


def losses(framework: Framework) -> Any:
    return importlib.import_module(f"rembert.{framework.name}.losses")


def check(framework: Framework, loss: Any, expected: float) -> None:
    assert abs(float(framework.array(loss)) - expected) <= TOLERANCE * max(1.0, abs(expected))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) * 3


@on_both
def test_token_loss_is_smoothed_over_the_classes(framework: Framework) -> None:
    logits = numbers(3, 4, 5)
    labels = np.array([[0, 4, -100, 2], [1, 1, 3, -100], [-100, 2, 0, 4]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    found = losses(framework).token_loss(*map(framework.tensor, (logits, labels, mask)), SMOOTHING)
    check(framework, found, smoothed(logits, np.where(mask == 1, labels, -100)))
    without = losses(framework).token_loss(
        framework.tensor(logits), framework.tensor(labels * 0 - 100), None, SMOOTHING
    )
    check(framework, without, 0.0)


@on_both
def test_sequence_loss_is_smoothed_over_the_classes(framework: Framework) -> None:
    logits, labels = numbers(4, 3), np.array([2, -100, 0, 1])
    tensors = framework.tensor(logits), framework.tensor(labels)
    loss = losses(framework).sequence_loss
    check(framework, loss(*tensors, "single_label_classification", SMOOTHING), smoothed(logits, labels))
    several = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    targets = several * (1 - SMOOTHING) + SMOOTHING / 2
    expected = np.mean(targets * np.log1p(np.exp(-logits)) + (1 - targets) * np.log1p(np.exp(logits)))
    tensors = framework.tensor(logits), framework.tensor(several)
    check(framework, loss(*tensors, "multi_label_classification", SMOOTHING), float(expected))
    with pytest.raises(InputError, match=r"`label_smoothing` must be 0 for regression.*label_smoothing=0\.2"):
        loss(*tensors, "regression", SMOOTHING)


@on_both
@pytest.mark.parametrize("masked", [False, True])
def test_span_loss_is_smoothed_over_the_real_positions(framework: Framework, masked: bool) -> None:
    logits = numbers(5, 6), numbers(5, 6, seed=1)
    positions = np.array([0, 3, 9, 2, -1]), np.array([5, 4, 2, 5, 0])  # 9 is outside, the fourth end on padding
    mask = np.array([[1] * 6, [1] * 6, [1] * 6, [1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
    if not masked:
        mask = np.ones_like(mask)
    expected = 0.0
    for each, at in zip(logits, positions, strict=True):
        costs = []
        for row, real, position in zip(each, mask == 1, at.clip(0), strict=True):
            if position < 6 and real[position]:
                costs.append(smoothed(row[real][None], np.array([real[:position].sum()])))
        expected += float(np.mean(costs)) / 2
    given = (*logits, *positions, *([mask] if masked else []))
    found = losses(framework).span_loss(*map(framework.tensor, given), label_smoothing=SMOOTHING)
    check(framework, found, expected)


@needs_pt
@on_both
def test_pytorchs_own_smoothing_agrees(framework: Framework) -> None:
    import torch

    logits, labels = numbers(6, 4), np.array([0, 1, -100, 3, 2, -100])
    own = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    expected = float(own(torch.from_numpy(logits), torch.from_numpy(labels)))
    tensors = framework.tensor(logits), framework.tensor(labels)
    check(framework, losses(framework).cross_entropy(*tensors, label_smoothing=SMOOTHING), expected)


# ---------------------------------------------------------------------- without logits


def fused(framework: Framework, arrays: list[np.ndarray], labels: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """The loss of states [n, w], a table [v, w] and a bias [v], and its gradients."""
    module = importlib.import_module(f"rembert.{framework.name}.linear_cross_entropy")
    if framework.name == "pt":
        given = [framework.tensor(each).requires_grad_() for each in arrays]
        loss = module.linear_cross_entropy(*given, framework.tensor(labels), SMOOTHING)
        loss.backward()
        return loss.item(), [each.grad.numpy() for each in given]
    import tensorflow as tf

    states, table, bias = arrays
    given = [framework.tensor(each) for each in (states, table.T.copy(), bias)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = module.linear_cross_entropy(*given, framework.tensor(labels), True, SMOOTHING)
    d_states, d_kernel, d_bias = (gradient.numpy() for gradient in tape.gradient(loss, given))
    return float(loss), [d_states, d_kernel.T, d_bias]


@on_both
@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_loss_over_a_large_vocabulary_is_smoothed(
    framework: Framework, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_chunks(framework, monkeypatch, rows)
    arrays = [numbers(9, 5) / 3, numbers(61, 5, seed=1) / 3, numbers(61, seed=2) / 3]
    labels = np.array([0, 60, -100, 3, 3, 17, -100, 41, 8])

    def loss(states: np.ndarray, table: np.ndarray, bias: np.ndarray) -> float:
        return smoothed(states @ table.T + bias, labels)

    found, gradients = fused(framework, arrays, labels)
    assert abs(found - loss(*arrays)) <= TOLERANCE * found
    for number, array in enumerate(arrays):  # central differences, at some of the numbers
        for index in list(np.ndindex(array.shape))[::7]:
            step = np.zeros_like(array)
            step[index] = 1e-6
            above, below = ([*arrays[:number], array + sign * step, *arrays[number + 1 :]] for sign in (1, -1))
            slope = (loss(*above) - loss(*below)) / 2e-6
            assert gradients[number][index] == pytest.approx(slope, abs=1e-8)  # rounding of the differences: 1e-10


@on_both
@by_case(LANGUAGE_MODELS)
def test_language_models_are_smoothed_without_logits(
    framework: Framework, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_chunks(framework, monkeypatch, 4)
    model, inputs = build(framework, case, case.config(num_hidden_layers=1)), case.inputs(case.config())
    model.label_smoothing = SMOOTHING
    mode = _training(framework, model)
    results = [framework.call(model, **inputs, **mode, return_logits=wanted) for wanted in (True, None)]
    assert "logits" in results[0]
    assert "logits" not in results[1]
    assert difference(framework.array(results[1].loss), framework.array(results[0].loss)) <= TOLERANCE
    wanted, found = (framework.gradients(model, **inputs, **mode, return_logits=each) for each in (True, None))
    for name, array in wanted.items():
        assert np.abs(found[name] - array).max() <= TOLERANCE * max(np.abs(array).max(), 1e-3), name


@needs_pt
def test_pytorch_keeps_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rembert.pt import linear_cross_entropy as module

    _in_chunks(PT, monkeypatch, 2)
    chunks: list[int] = []
    compute = module._logits
    monkeypatch.setattr(module, "_logits", lambda rows, *layer: chunks.append(len(rows)) or compute(rows, *layer))
    case = LANGUAGE_MODELS[0]
    model = build(PT, case, case.config(num_hidden_layers=1)).train()
    model.label_smoothing = SMOOTHING
    inputs = {name: PT.tensor(array) for name, array in case.inputs(case.config(), batch=8).items()}

    def keeps_logits(**options: bool) -> bool:
        shapes: list[tuple[int, ...]] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: shapes.append(kept.shape) or kept, lambda kept: kept
        ):
            model(**inputs, **options)
        return any(len(shape) > 1 and shape[-1] == model.config.vocab_size for shape in shapes)

    assert keeps_logits(return_logits=True)
    assert not keeps_logits()
    assert len(chunks) > 4
    assert max(chunks) == 2


@pytest.mark.slow
@needs_tf
def test_tensorflow_computes_no_tensor_of_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from rembert.tf.linear_cross_entropy import linear_cross_entropy

    _in_chunks(TF, monkeypatch, 2)
    rows, width, vocabulary = 40, 3, 61

    @tf.function(
        input_signature=[
            tf.TensorSpec([rows, width], tf.float64),
            tf.TensorSpec([width, vocabulary], tf.float64),
            tf.TensorSpec([vocabulary], tf.float64),
            tf.TensorSpec([rows], tf.int32),
        ]
    )
    def gradients(states: Any, kernel: Any, bias: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((states, kernel, bias))
            loss = linear_cross_entropy(states, kernel, bias, labels, True, SMOOTHING)
        return tape.gradient(loss, (states, kernel, bias))

    operations = gradients.get_concrete_function().graph.get_operations()
    sizes = [output.shape.num_elements() for operation in operations for output in operation.outputs]
    largest = max(size for size in sizes if size is not None)
    assert largest == width * vocabulary  # the kernel's gradient; all logits would be 40 × 61


# ---------------------------------------------------------------------- the models' setting


@on_both
@by_case(WITH_LOSS)
def test_models_smooth_in_training_only(framework: Framework, case: Case) -> None:
    """A smoothed loss is affine in the smoothing, as its targets are."""
    config = case.config(num_hidden_layers=1, classifier_dropout_prob=0.0)
    model, inputs = build(framework, case, config), case.inputs(config)
    is_regression = case.name in ("one_number", "several_numbers")
    evaluated = float(framework.call(model, **inputs).loss)
    mode = _training(framework, model)
    found = []
    for smoothing in (0.0, 0.1, 0.2):
        model.label_smoothing = smoothing
        if is_regression and smoothing:
            with pytest.raises(InputError, match="must be 0 for regression"):
                framework.call(model, **inputs, **mode)
            return
        found.append(float(framework.call(model, **inputs, **mode).loss))
    assert found[0] == pytest.approx(evaluated, rel=TOLERANCE)
    assert abs(found[1] - found[0]) > 1e-6  # not rounding
    assert found[2] - found[0] == pytest.approx(2 * (found[1] - found[0]), rel=1e-9)
    if framework.name == "pt":
        model.eval()
    assert float(framework.call(model, **inputs).loss) == evaluated
    assert "label_smoothing" not in model.config.to_dict()


@on_both
@pytest.mark.parametrize("value", [-0.1, 1, "0.1", None])
def test_a_smoothing_outside_its_range_is_refused(framework: Framework, value: Any) -> None:
    model = build(framework, LANGUAGE_MODELS[0], LANGUAGE_MODELS[0].config(num_hidden_layers=1))
    with pytest.raises(InputError, match=r"`label_smoothing` must be a number in \[0, 1\)\. Received"):
        model.label_smoothing = value
    assert model.label_smoothing == 0.0


@needs_pt
@needs_one_graph
@pytest.mark.slow
def test_smoothed_models_compile_in_one_graph() -> None:
    import torch

    case = LANGUAGE_MODELS[0]
    model = build(PT, case, case.config(num_hidden_layers=1)).train()
    inputs: Arrays = {name: PT.tensor(array) for name, array in case.inputs(case.config()).items()}
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for smoothing in (0.1, 0.2, 0.0):
        model.label_smoothing = smoothing
        torch.testing.assert_close(compiled(**inputs).loss, model(**inputs).loss, rtol=1e-12, atol=1e-12)
