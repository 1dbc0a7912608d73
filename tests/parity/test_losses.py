"""The losses of both frameworks against the same sums written out in NumPy, in float64."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert.common.checks import infer_problem_type
from rembert.common.config import RemBertConfig
from tests.frameworks import PT, Arrays, Framework, needs_pt, on_both
from tests.parity.cases import CASES, WITH_LOSS, Case, build, by_case

TOLERANCE = 1e-12


def _losses(framework: Framework) -> Any:
    return importlib.import_module(f"rembert.{framework.name}.losses")


def _cross_entropy(logits: np.ndarray, labels: np.ndarray, ignored: int = -100) -> float:
    """Mean of -log p(label) over the labels that count; 0 where none does."""
    costs = []
    for row, label in zip(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), strict=True):
        if label != ignored:
            top = row.max()
            costs.append(top + np.log(np.exp(row - top).sum()) - row[label])
    return float(np.mean(costs)) if costs else 0.0


def _near(framework: Framework, loss: Any, wanted: float) -> None:
    actual = framework.array(loss)
    assert actual.shape == ()
    assert actual.dtype == np.float64
    assert abs(actual - wanted) <= TOLERANCE * max(1.0, abs(wanted))


def _numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) * 10


@on_both
@given(st.data())
def test_token_and_causal_loss(framework: Framework, data: st.DataObject) -> None:
    batch, length, classes = (data.draw(st.integers(1, 4)) for _ in range(3))
    logits = _numbers(data.draw(st.integers(0, 99)), batch, length, classes)
    draw = st.lists(st.just(-100) | st.integers(0, classes - 1), min_size=batch * length, max_size=batch * length)
    labels = np.array(data.draw(draw)).reshape(batch, length)
    past = data.draw(st.integers(0, 2))
    bits = data.draw(st.lists(st.integers(0, 1), min_size=batch * (past + length), max_size=batch * (past + length)))
    mask = data.draw(st.none() | st.just(np.array(bits).reshape(batch, past + length)))
    counted = labels if mask is None else np.where(mask[:, past:] == 1, labels, -100)
    given_ = [framework.tensor(each) for each in (logits, labels, mask)]
    _near(framework, _losses(framework).token_loss(*given_), _cross_entropy(logits, counted))


@on_both
def test_labels_of_a_causal_model_are_the_next_tokens(framework: Framework) -> None:
    def following(labels: list, mask: Any = None, starts: Any = None) -> list:
        arrays = (np.array(labels), *(each and np.array(each) for each in (mask, starts)))
        return framework.array(_losses(framework).next_labels(*map(framework.tensor, arrays))).tolist()

    no = -100
    assert following([[1, 2, 3], [4, no, 6]]) == [[2, 3, no], [no, 6, no]]
    # Neither a label on padding counts, nor what padding would have to predict; one column of the mask is cached.
    mask = [[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]]
    assert following([[1, 2, 3]] * 3, mask) == [[2, no, no], [no, 3, no], [no, 3, no]]
    # Packed, no label crosses the border between two sequences.
    assert following([1, 2, 3, 4, 5, 6], None, [0, 2, 3, 6]) == [2, no, no, 5, 6, no]
    assert following([7], None, [0, 1]) == [no]


@on_both
def test_labels_of_a_byte(framework: Framework) -> None:
    """-100 as a byte is 156, which is a label there."""
    labels = framework.tensor(np.array([[156, 3]], np.uint8))
    losses = _losses(framework)
    for counted in (losses.ignore_padding(labels, None), losses.next_labels(labels, None)):
        assert framework.array(counted).min() in (3, -100)
        assert framework.array(counted).dtype.kind == "i"


@on_both
@pytest.mark.parametrize("kind", ["regression", "multi_label_classification", "single_label_classification"])
def test_the_loss_without_rows_is_zero(framework: Framework, kind: str) -> None:
    labels = np.zeros((0,), np.int64) if kind.startswith("single") else np.zeros((0, 3))
    given_ = map(framework.tensor, (np.zeros((0, 3)), labels))
    _near(framework, _losses(framework).sequence_loss(*given_, kind), 0.0)


@on_both
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_sequence_losses(framework: Framework, batch: int, count: int, seed: int) -> None:
    numbers, logits = np.random.default_rng(seed), _numbers(seed, batch, count)
    loss = _losses(framework).sequence_loss
    classes = numbers.integers(0, count, batch)
    classes[numbers.random(batch) < 0.3] = -100
    tensors = framework.tensor(logits), framework.tensor(classes)
    _near(framework, loss(*tensors, "single_label_classification"), _cross_entropy(logits, classes))

    several = numbers.integers(0, 2, (batch, count))
    wanted = np.mean(several * np.log1p(np.exp(-logits)) + (1 - several) * np.log1p(np.exp(logits)))
    for kind in (np.int64, np.float32, np.float64, bool):
        labels = framework.tensor(several.astype(kind))
        _near(framework, loss(framework.tensor(logits), labels, "multi_label_classification"), wanted)

    targets = numbers.standard_normal((batch, count))
    wanted = np.mean((logits - targets) ** 2)
    _near(framework, loss(framework.tensor(logits), framework.tensor(targets), "regression"), wanted)
    if count == 1:  # [b] against [b, 1] must not become [b, b]
        _near(framework, loss(framework.tensor(logits), framework.tensor(targets[:, 0]), "regression"), wanted)


@on_both
@by_case([case for case in WITH_LOSS if case.name in ("one_label_each", "several_labels", "one_number")])
def test_no_rows(framework: Framework, case: Case) -> None:
    """A device that a batch has nothing left for must not destroy the others' step."""
    inputs = {name: array[:0] for name, array in case.inputs(case.config()).items()}
    assert float(framework.call(build(framework, case, case.config()), **inputs).loss) == 0


@on_both
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_span_loss(framework: Framework, batch: int, length: int, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    logits = [_numbers(seed + index, batch, length) for index in range(2)]
    positions = [numbers.integers(-2, length + 3, batch) for _ in range(2)]
    clipped = [np.where(position >= length, -100, position.clip(0)) for position in positions]
    wanted = sum(_cross_entropy(each, position) for each, position in zip(logits, clipped, strict=True)) / 2
    _near(framework, _losses(framework).span_loss(*map(framework.tensor, (*logits, *positions))), wanted)
    columns = [position[:, None] for position in positions]
    _near(framework, _losses(framework).span_loss(*map(framework.tensor, (*logits, *columns))), wanted)

    mask = numbers.integers(0, 2, (batch, length))
    wanted = 0.0
    for each, position in zip(logits, clipped, strict=True):
        rows = [
            _cross_entropy(row[real == 1][None], np.array([real[:index].sum()]))
            for row, real, index in zip(each, mask, position, strict=True)
            if index >= 0 and real[index]
        ]
        wanted += float(np.mean(rows)) / 2 if rows else 0.0
    _near(framework, _losses(framework).span_loss(*map(framework.tensor, (*logits, *positions, mask))), wanted)


@needs_pt
def test_pytorchs_own_functions_agree() -> None:
    import torch
    import torch.nn.functional as F

    logits, labels = torch.from_numpy(_numbers(1, 6, 4)), torch.tensor([0, 1, -100, 3, 2, -100])
    losses = _losses(PT)
    torch.testing.assert_close(losses.cross_entropy(logits, labels), F.cross_entropy(logits, labels))
    several = torch.from_numpy((_numbers(2, 6, 4) > 0).astype(float))
    torch.testing.assert_close(
        losses.sequence_loss(logits, several, "multi_label_classification"),
        F.binary_cross_entropy_with_logits(logits, several),
    )
    torch.testing.assert_close(losses.sequence_loss(logits, several, "regression"), F.mse_loss(logits, several))


INFERRED = [
    ({"num_labels": 1}, np.array([1.5, 2.0]), "regression"),
    ({"num_labels": 1}, np.array([1, 2]), "regression"),
    ({"num_labels": 3}, np.array([1, 2]), "single_label_classification"),
    ({"num_labels": 3}, np.array([1, 2], np.int32), "single_label_classification"),
    ({"num_labels": 3}, np.eye(2, 3), "multi_label_classification"),
    ({"num_labels": 3}, np.eye(2, 3, dtype=bool), "multi_label_classification"),
    ({"num_labels": 3, "problem_type": "regression"}, np.eye(2, 3), "regression"),
    ({"num_labels": 3, "problem_type": "multi_label_classification"}, np.eye(2, 3, dtype=int), ""),
]


@on_both
@pytest.mark.parametrize(("settings", "labels", "kind"), INFERRED)
def test_the_kind_of_problem_is_inferred(
    framework: Framework, settings: dict[str, Any], labels: np.ndarray, kind: str
) -> None:
    case = next(case for case in CASES if case.name == "one_label_each")
    config = case.config(**settings)
    model = build(framework, case, config)
    inputs: Arrays = {"input_ids": np.array([[1, 2, 3], [4, 5, 6]])}
    outputs = framework.call(model, **inputs, labels=labels)
    kind = kind or str(settings["problem_type"])
    wanted = _losses(framework).sequence_loss(outputs.logits, framework.tensor(labels), kind)
    assert framework.array(outputs.loss) == framework.array(wanted)
    assert config.problem_type == settings.get("problem_type")  # a call leaves the configuration as it was


def test_inference_by_itself() -> None:
    assert infer_problem_type(RemBertConfig(num_labels=1), True) == "regression"
    assert infer_problem_type(RemBertConfig(num_labels=2), True) == "single_label_classification"
    assert infer_problem_type(RemBertConfig(num_labels=2), False) == "multi_label_classification"
    assert infer_problem_type(RemBertConfig(num_labels=2, problem_type="regression"), True) == "regression"
