"""The cases of the parity tests: every declared head in each configuration that changes what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from rembert.common.config import RemBertConfig
from rembert.common.parameters import HEADS
from rembert.common.trials import takes_source, trial_labels
from tests.frameworks import PT, TF, Arrays, Framework, random_weights, small_config

CHOICES = 3
SOURCE = 4  # length of the encoder states that a decoder with cross-attention attends to


@dataclass(frozen=True, eq=False)
class Case:
    """A head and the settings that it is tested with."""

    name: str
    head: str
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self, **changes: Any) -> RemBertConfig:
        return small_config(**{**changes, **self.settings})

    def inputs(self, config: RemBertConfig, seed: int = 0, batch: int = 3, length: int = 7) -> Arrays:
        """Tokens with padding at the end (the first row has none), token types and labels, some of them ignored."""
        numbers = np.random.default_rng(seed)
        rows = (batch, CHOICES) if HEADS[self.head].takes_choices else (batch,)
        real = numbers.integers(1, length + 1, rows)
        real.flat[0] = length
        inputs = {
            "input_ids": numbers.integers(0, config.vocab_size, (*rows, length)),
            "attention_mask": (np.arange(length) < real[..., None]).astype(np.int64),
            "token_type_ids": numbers.integers(0, config.type_vocab_size, (*rows, length)),
        }
        if takes_source(config, self.head):
            inputs["encoder_hidden_states"] = numbers.standard_normal((batch, SOURCE, config.hidden_size))
            inputs["encoder_attention_mask"] = numbers.integers(0, 2, (batch, SOURCE))
        return {**inputs, **trial_labels(config, self.head, inputs, seed=seed)}


# The ways in which a head can follow `problem_type`.
_PROBLEMS: dict[str, dict[str, Any]] = {
    "one_label_each": {},
    "several_labels": {"problem_type": "multi_label_classification"},
    "one_number": {"num_labels": 1},
    "several_numbers": {"problem_type": "regression"},
}


def declared_cases() -> Iterator[Case]:
    """Every declared head, in every way in which it can be used."""
    for head in HEADS.values():
        name = head.name.replace("-", "_")
        if head.by_problem_type:
            for problem, settings in _PROBLEMS.items():
                yield Case(problem, head.name, settings)
        else:
            yield Case(name, head.name, {"is_decoder": True} if head.predicts_next else {})
        if head.takes_cache and not head.predicts_next:
            yield Case("decoder", head.name, {"is_decoder": True})
        if head.takes_cache and head.predicts_next:
            yield Case(f"{name}_cross", head.name, {"is_decoder": True, "add_cross_attention": True})


CASES = list(declared_cases())
# One for each way of computing outputs. The others of sequence classification differ in their losses alone.
FORWARDS = [case for case in CASES if case.name not in ("several_labels", "one_number", "several_numbers")]
# One for each way of using the encoder; for what a head's loss and output do not touch.
KINDS = [case for case in CASES if case.name in ("decoder", "causal_lm_cross", "one_label_each", "multiple_choice")]
DECODERS = [case for case in CASES if case.settings.get("is_decoder")]
WITH_LOSS = [case for case in CASES if HEADS[case.head].labels]


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
