"""Random inputs for tests of models, and the comparison of the outputs of two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rembert.common.checks import IGNORE_INDEX, infer_problem_type
from rembert.common.config import RemBertConfig
from rembert.common.labels import LabelKind
from rembert.common.parameters import HEADS

Arrays = dict[str, np.ndarray]

CHOICES = 2  # of a head that chooses among texts
_SOURCE_LENGTH = 5  # of the encoder states that cross-attention reads


def takes_source(config: RemBertConfig, head: str) -> bool:
    """Whether a model of this head and configuration attends to the states of an encoder."""
    return config.add_cross_attention and HEADS[head].takes_source


def trial_inputs(
    config: RemBertConfig, head: str, *, batch: int = 5, length: int | None = 24, seed: int = 0
) -> Arrays:
    """Random tokens, token types and a mask; with cross-attention also an encoder's states and their mask.

    Of five rows, the first has no padding, the next three have it on the right, on the left and inside, and the last
    one is all padding; further rows repeat this pattern.

    Args:
        config: of the model.
        head: a key of `HEADS`.
        batch: the number of rows.
        length: of the sequences, at most `max_position_embeddings`, the value for None.
        seed: of the random numbers.

    Returns:
        Integers in int64, [b, s] or [b, choices, s]; states in float32, [b, source, e].

    Example:
        >>> config = RemBertConfig(vocab_size=100)
        >>> trial_inputs(config, "model", batch=3, length=4)["attention_mask"]
        array([[1, 1, 1, 1],
               [1, 1, 1, 0],
               [0, 0, 1, 1]])
    """
    random = np.random.default_rng(seed)
    length = min(length or config.max_position_embeddings, config.max_position_embeddings)
    rows = np.ones((5, length), np.int64)
    rows[1, length // 2 + 1 :] = 0
    rows[2, : length // 2] = 0
    rows[3, 1:-1:2] = 0
    rows[4] = 0
    mask = rows[np.arange(batch) % len(rows)]
    if HEADS[head].takes_choices:
        mask = np.repeat(mask[:, None], CHOICES, 1)
    inputs: Arrays = {
        "input_ids": np.asarray(random.integers(0, config.vocab_size, mask.shape)),
        "attention_mask": mask,
        "token_type_ids": np.asarray(random.integers(0, config.type_vocab_size, mask.shape)),
    }
    if takes_source(config, head):
        states = random.standard_normal((batch, _SOURCE_LENGTH, config.hidden_size), np.float32)
        inputs["encoder_hidden_states"] = states
        inputs["encoder_attention_mask"] = random.integers(0, 2, (batch, _SOURCE_LENGTH))
    return inputs


def trial_labels(config: RemBertConfig, head: str, inputs: Mapping[str, np.ndarray], *, seed: int = 0) -> Arrays:
    """Random labels for a head's loss, by the names of its arguments; the loss ignores some of them.

    Args:
        config, head, seed: as for `trial_inputs`.
        inputs: the model's, with `input_ids` [b, s] or [b, choices, s].

    Example:
        >>> config = RemBertConfig(num_labels=3)
        >>> labels = trial_labels(config, "sequence-classification", {"input_ids": np.zeros((4, 7), int)})
        >>> labels["labels"].shape
        (4,)
    """
    random = np.random.default_rng(seed)
    declared, (batch, *choices, length) = HEADS[head], inputs["input_ids"].shape
    kind = declared.kind_of_labels(infer_problem_type(config, labels_are_integers=True))
    labels: Arrays = {}
    for name in declared.labels:
        if kind is LabelKind.SPAN:
            labels[name] = random.integers(-2, length + 2, batch)
        elif kind is LabelKind.NUMBER:
            shape = (batch, config.num_labels) if config.num_labels > 1 else (batch,)
            labels[name] = random.standard_normal(shape, np.float32)
        elif kind is LabelKind.CLASSES:
            labels[name] = random.integers(0, 2, (batch, config.num_labels)).astype(np.float32)
        else:
            classes = choices[0] if declared.takes_choices else [*declared.own_parameters(config)][-1].shape[0]
            shape = (batch, length) if kind is LabelKind.TOKEN else (batch,)
            ids = random.integers(0, classes, shape)
            is_ignored = random.random(shape) < (0.3 if kind is LabelKind.TOKEN else 0)
            labels[name] = np.where(is_ignored, IGNORE_INDEX, ids)
    return labels


# ---------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class OutputDifference:
    """The difference of two arrays.

    Attributes:
        largest: the largest absolute difference; NaN where either array has one.
        scale: the largest magnitude in the first array.
    """

    largest: float
    scale: float

    @property
    def relative(self) -> float:
        """`largest` / `scale`; for an output of zeros, `largest` itself."""
        return self.largest / (self.scale or 1.0)

    def __or__(self, other: OutputDifference) -> OutputDifference:
        """The difference over both comparisons. `np.maximum` and not `max`: a NaN must stay one."""
        return OutputDifference(
            float(np.maximum(self.largest, other.largest)), float(np.maximum(self.scale, other.scale))
        )


def output_differences(
    one: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    *,
    head: str | None = None,
    mask: np.ndarray | None = None,
) -> dict[str, OutputDifference]:
    """The difference of each output that both models have, in the order of the first.

    Args:
        one, other: arrays by name.
        head: a key of `HEADS`, to exclude the rows of padding in its outputs, which have no meaning.
        mask: the attention mask [b, s], with `head`.

    Example:
        >>> output_differences({"logits": np.array([2.0, 4.0])}, {"logits": np.array([2.0, 4.5])})["logits"].relative
        0.125
    """
    found = {}
    for name in one:
        if name not in other:
            continue
        left, right = (np.asarray(outputs[name], np.float64) for outputs in (one, other))
        if left.shape != right.shape:
            found[name] = OutputDifference(float("inf"), float(np.abs(left).max(initial=0.0)))
            continue
        if head is not None and mask is not None and HEADS[head].is_per_token(name):
            left, right = left[mask != 0], right[mask != 0]
        with np.errstate(invalid="ignore"):  # infinity minus infinity is NaN, which is reported
            largest = np.abs(left - right).max(initial=0.0)
        found[name] = OutputDifference(float(largest), float(np.abs(left).max(initial=0.0)))
    return found
