"""Run a checkpoint in either framework and compare what comes out. Only commands that run models import this."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge import FORMATS, Checkpoint
from rembert.common.config import RemBertConfig
from rembert.common.exporting import takes_source
from rembert.common.parameters import BASE_MODEL, head_of_architecture
from rembert.tasks.frameworks import model_class

Arrays = dict[str, np.ndarray]
# Outputs with a row for each token: rows of padding carry no meaning.
_PER_TOKEN = ("last_hidden_state", "start_logits", "end_logits")


def framework_of(checkpoint: Checkpoint) -> str:
    """'pt' or 'tf': the framework whose own format a checkpoint has."""
    return FORMATS[checkpoint.format].framework


def head_of(config: RemBertConfig | None) -> str:
    """The head a configuration names; the base model where it names none."""
    found = head_of_architecture((config.architectures or [""])[0] if config is not None else "")
    return found.name if found else BASE_MODEL


def load(framework: str, head: str, path: Path | str, **options: Any) -> Any:
    """The model of a head from a checkpoint, in evaluation mode; fresh heads are not warned of.

    Raises:
        MissingDependencyError: the framework is not installed; names the extra that brings it.
        CheckpointError: the checkpoint does not fit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model_class(framework, head).from_pretrained(path, **options)


def run(framework: str, model: Any, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """The tensors of a model's output by name, without the cache."""
    if framework == "pt":
        torch = import_module("torch")
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    else:
        outputs = model(**inputs)
    return {name: np.asarray(value) for name, value in outputs.items() if name != "past_key_values"}


def sample_inputs(config: RemBertConfig, head: str, *, seed: int = 0, batch: int = 3, length: int = 24) -> Arrays:
    """Inputs, and labels for the head's loss, drawn from `seed`; the later rows of the batch end in padding."""
    draw = np.random.default_rng(seed)
    length = min(length, config.max_position_embeddings)
    ids = draw.integers(0, config.vocab_size, (batch, length))
    lengths = [max(1, length - row * length // (2 * batch)) for row in range(batch)]
    mask = (np.arange(length)[None] < np.array(lengths)[:, None]).astype(np.int64)
    if config.pad_token_id is not None:
        ids = np.where(mask, ids, config.pad_token_id)
    types = draw.integers(0, config.type_vocab_size, (batch, length))
    inputs: Arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    if takes_source(config, head):
        inputs["encoder_hidden_states"] = draw.normal(size=(batch, 7, config.hidden_size)).astype(np.float32)
    return with_labels(inputs, config, head, draw)


def with_labels(inputs: Arrays, config: RemBertConfig, head: str, draw: np.random.Generator) -> Arrays:
    """`inputs` [b, s] made into what a head takes, with labels for its loss drawn from `draw`."""
    batch, length = inputs["input_ids"].shape
    if head in ("masked-lm", "causal-lm"):
        return {**inputs, "labels": np.where(inputs["attention_mask"], inputs["input_ids"], -100)}
    if head == "token-classification":
        return {**inputs, "labels": draw.integers(0, config.num_labels, (batch, length))}
    if head == "question-answering":
        starts, ends = draw.integers(0, length, (2, batch))
        return {**inputs, "start_positions": starts, "end_positions": ends}
    if head == "multiple-choice":
        # Two choices: the texts themselves, and the same texts in the other order.
        choices = {name: np.stack([array, array[::-1]], axis=1) for name, array in inputs.items()}
        return {**choices, "labels": draw.integers(0, 2, (batch,))}
    if head == "sequence-classification":
        if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
            return {**inputs, "labels": draw.normal(size=(batch, config.num_labels)).astype(np.float32)}
        if config.problem_type == "multi_label_classification":
            return {**inputs, "labels": draw.integers(0, 2, (batch, config.num_labels)).astype(np.float32)}
        return {**inputs, "labels": draw.integers(0, config.num_labels, (batch,))}
    return inputs


def differences(one: Arrays, other: Arrays, inputs: Arrays) -> dict[str, tuple[float, float]]:
    """For each output that both have: the largest difference, and the output's scale (its largest magnitude).

    Rows of padded tokens are left out: they carry no meaning.
    """
    real = inputs["attention_mask"] != 0
    found = {}
    for name in one.keys() & other.keys():
        left, right = np.asarray(one[name], np.float64), np.asarray(other[name], np.float64)
        if name in _PER_TOKEN or (name == "logits" and left.ndim == 3):
            left, right = left[real], right[real]
        found[name] = (float(np.max(np.abs(left - right))), float(np.max(np.abs(left))))
    return {name: found[name] for name in one if name in found}
