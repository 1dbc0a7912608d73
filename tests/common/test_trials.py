"""Random inputs for every head, and the comparison of outputs."""

from __future__ import annotations

import numpy as np
import pytest

from rembert.common.parameters import HEADS
from rembert.common.trials import CHOICES, output_differences, trial_inputs, trial_labels
from tests.frameworks import small_config
from tests.parity.cases import CASES, Case, by_case


@by_case()
def test_inputs_are_within_the_tables(case: Case) -> None:
    config = case.config()
    inputs = trial_inputs(config, case.head, batch=7, length=9)
    rows = (7, CHOICES) if case.head == "multiple-choice" else (7,)
    for name, size in (("input_ids", 61), ("token_type_ids", 2), ("attention_mask", 2)):
        assert inputs[name].shape == (*rows, 9)
        assert inputs[name].dtype == np.int64
        assert 0 <= inputs[name].min() <= inputs[name].max() < size
    assert ("encoder_hidden_states" in inputs) == config.add_cross_attention
    # No padding, padding on the right, left and inside, and nothing else; then the pattern begins again.
    masks = ["111111111", "111110000", "000011111", "101010101", "000000000", "111111111", "111110000"]
    lines = inputs["attention_mask"].reshape(7, -1, 9)[:, 0]
    assert ["".join(map(str, line)) for line in lines] == masks


def test_the_longest_sequence() -> None:
    for length in (None, 99):
        assert trial_inputs(small_config(), "model", batch=1, length=length)["input_ids"].shape == (1, 18)


@pytest.mark.parametrize("seed", [0, 1])
def test_inputs_follow_from_the_seed(seed: int) -> None:
    one, other, third = (trial_inputs(small_config(), "model", seed=each) for each in (seed, seed, 2))
    np.testing.assert_array_equal(one["input_ids"], other["input_ids"])
    assert (one["input_ids"] != third["input_ids"]).any()


@pytest.mark.parametrize(
    ("name", "low", "high", "shape"),
    [
        ("masked_lm", -100, 60, (50, 9)),
        ("causal_lm", -100, 60, (50, 9)),
        ("token_classification", -100, 4, (50, 9)),
        ("one_label_each", 0, 4, (50,)),
        ("several_labels", 0, 1, (50, 5)),
        ("multiple_choice", 0, 1, (50,)),
        ("question_answering", -2, 10, (50,)),
    ],
)
def test_labels_cover_what_a_head_takes(name: str, low: int, high: int, shape: tuple[int, ...]) -> None:
    case = next(case for case in CASES if case.name == name)
    config = case.config()
    labels = trial_labels(config, case.head, trial_inputs(config, case.head, batch=50, length=9))
    assert tuple(labels) == HEADS[case.head].labels
    for array in labels.values():
        assert array.shape == shape
        assert (array.min(), array.max()) == (low, high)


def test_numbers_are_labels_of_a_regression() -> None:
    for settings, shape in (({"problem_type": "regression"}, (4, 5)), ({"num_labels": 1}, (4,))):
        config = small_config(**settings)
        labels = trial_labels(config, "sequence-classification", {"input_ids": np.zeros((4, 3), int)})
        assert labels["labels"].shape == shape
        assert labels["labels"].dtype == np.float32


def test_differences_are_relative_to_the_first() -> None:
    one = {"a": np.array([1.0, -4.0]), "b": np.zeros(2), "c": np.ones(1)}
    other = {"b": np.array([0.0, 0.5]), "a": np.array([1.0, -3.0])}
    found = output_differences(one, other)
    assert list(found) == ["a", "b"]
    assert (found["a"].largest, found["a"].scale, found["a"].relative) == (1.0, 4.0, 0.25)
    assert found["b"].relative == 0.5
    both = found["a"] | found["b"]
    assert (both.largest, both.scale) == (1.0, 4.0)


def test_nan_infinity_and_other_shapes_differ() -> None:
    for one, other in ((np.nan, 1.0), (1.0, np.nan), (np.inf, np.inf)):
        found = output_differences({"a": np.array([0.0, one])}, {"a": np.array([0.0, other])})["a"]
        assert np.isnan(found.largest)
        assert np.isnan((found | found).largest)
    found = output_differences({"a": np.zeros(2)}, {"a": np.zeros((2, 1))})["a"]
    assert found.largest == np.inf


def test_padding_is_left_out_of_token_outputs_only() -> None:
    mask = np.array([[1, 0]])
    one, other = {"logits": np.array([[1.0, 2.0]])}, {"logits": np.array([[1.0, 3.0]])}
    assert output_differences(one, other, head="sequence-classification", mask=mask)["logits"].largest == 1
    assert output_differences(one, other, head="token-classification", mask=mask)["logits"].largest == 0
