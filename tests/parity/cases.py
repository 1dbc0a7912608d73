"""Every head as a short declaration, and random inputs for it; what the parity tests run on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from rembert.common.config import RemBertConfig
from tests.frameworks import PT, TF, Arrays, Framework, random_weights, small_config

CHOICES = 3
SOURCE = 4  # length of the encoder states a decoder with cross-attention looks at


@dataclass(frozen=True, eq=False)
class Case:
    """A head with the configuration that makes it what it is."""

    name: str
    head: str
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self, **changes: Any) -> RemBertConfig:
        return small_config(**{**changes, **self.settings})

    def inputs(self, config: RemBertConfig, seed: int = 0, batch: int = 3, length: int = 7) -> Arrays:
        """Tokens with padding at the end (the first row has none), token types and labels, some of them ignored."""
        numbers = np.random.default_rng(seed)
        rows = (batch, CHOICES) if self.head == "multiple-choice" else (batch,)
        real = numbers.integers(1, length + 1, rows)
        real.flat[0] = length
        inputs = {
            "input_ids": numbers.integers(0, config.vocab_size, (*rows, length)),
            "attention_mask": (np.arange(length) < real[..., None]).astype(np.int64),
            "token_type_ids": numbers.integers(0, config.type_vocab_size, (*rows, length)),
        }
        if config.add_cross_attention:
            inputs["encoder_hidden_states"] = numbers.standard_normal((batch, SOURCE, config.hidden_size))
            inputs["encoder_attention_mask"] = numbers.integers(0, 2, (batch, SOURCE))
        return {**inputs, **self.labels(config, numbers, batch, length)}

    def labels(self, config: RemBertConfig, numbers: np.random.Generator, batch: int, length: int) -> Arrays:
        """Labels of every kind this head knows: right, ignored, and (for answers) outside the sequence."""
        if self.head == "model":
            return {}
        if self.head == "question-answering":
            return {name: numbers.integers(-2, length + 2, batch) for name in ("start_positions", "end_positions")}
        if self.head == "multiple-choice":
            return {"labels": numbers.integers(0, CHOICES, batch)}
        if self.head == "sequence-classification":
            if config.num_labels == 1:
                return {"labels": numbers.standard_normal(batch)}
            if config.problem_type == "regression":
                return {"labels": numbers.standard_normal((batch, config.num_labels))}
            if config.problem_type == "multi_label_classification":
                return {"labels": numbers.integers(0, 2, (batch, config.num_labels)).astype(np.float64)}
            return {"labels": numbers.integers(0, config.num_labels, batch)}
        count = config.num_labels if self.head == "token-classification" else config.vocab_size
        labels = numbers.integers(0, count, (batch, length))
        return {"labels": np.where(numbers.random(labels.shape) < 0.3, -100, labels)}


CASES = [
    Case("model", "model"),
    Case("decoder", "model", {"is_decoder": True}),
    Case("masked_lm", "masked-lm"),
    Case("causal_lm", "causal-lm", {"is_decoder": True}),
    Case("causal_lm_cross", "causal-lm", {"is_decoder": True, "add_cross_attention": True}),
    Case("one_label_each", "sequence-classification"),
    Case("several_labels", "sequence-classification", {"problem_type": "multi_label_classification"}),
    Case("one_number", "sequence-classification", {"num_labels": 1}),
    Case("several_numbers", "sequence-classification", {"problem_type": "regression"}),
    Case("multiple_choice", "multiple-choice"),
    Case("token_classification", "token-classification"),
    Case("question_answering", "question-answering"),
]
# One for each way of computing outputs. The others of sequence classification differ in their losses alone.
FORWARDS = [case for case in CASES if case.name not in ("several_labels", "one_number", "several_numbers")]
# One for each way of using the encoder; for what a head's loss and output do not touch.
KINDS = [case for case in CASES if case.name in ("decoder", "causal_lm_cross", "one_label_each", "multiple_choice")]
DECODERS = [case for case in CASES if case.settings.get("is_decoder")]
WITH_LOSS = [case for case in CASES if case.head != "model"]


def by_case(cases: list[Case] = CASES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def as_dtype(arrays: Arrays, dtype: str | np.dtype) -> Arrays:
    """Arrays of numbers in another dtype; indices, masks and labels that are integers stay."""
    return {name: array.astype(dtype) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def build(framework: Framework, case: Case, config: RemBertConfig, dtype: str = "float64", seed: int = 0) -> Any:
    """A model with random weights, the same in both frameworks."""
    model = framework.build(config, case.head, dtype=dtype)
    framework.set_weights(model, random_weights(config, case.head, seed, dtype))
    return model


@cache
def shared(framework: Framework, case: Case, dtype: str = "float64", **settings: Any) -> Any:
    """The same model for every test of a process that asks for it: none may change it."""
    return build(framework, case, case.config(**settings), dtype)


def build_both(case: Case, config: RemBertConfig, dtype: str = "float64", seed: int = 0) -> tuple[Any, Any]:
    return build(PT, case, config, dtype, seed), build(TF, case, config, dtype, seed)
