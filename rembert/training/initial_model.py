"""The weights that training starts from: a checkpoint's, and new ones for parameters that it lacks.

New weights come from `rembert.common.initialization` and the recipe's seed, so PyTorch and TensorFlow start with the
same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError
from rembert.common.parameters import HEADS
from rembert.tasks.labels import label_names
from rembert.training.recipe import Recipe


def training_overrides(recipe: Recipe, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration keys that a run sets: the task's `overrides`, and the recipe's dropout."""
    if recipe.dropout is None:
        return dict(overrides)
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
    return {**overrides, **dict.fromkeys(rates, recipe.dropout)}


def fresh_names(
    report: Mapping[str, Sequence[Any]], source: str, head: str, overrides: Mapping[str, Any]
) -> list[str]:
    """The parameters that a run initialises: those that a checkpoint lacks, and a classifier trained for other
    classes, or with another head whose classifier has the same name.

    Args:
        report: of `from_pretrained`.
        source: the checkpoint.
        head: a key of `HEADS`, of the run.
        overrides: the configuration keys that the task sets.

    Raises:
        CheckpointError: the encoder is incomplete, or its shapes differ from the configuration.
    """
    names = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    encoder = [name for name in names if name.startswith(("rembert.embeddings.", "rembert.encoder."))]
    encoder = [name for name in encoder if ".crossattention." not in name]
    if encoder:
        shown = ", ".join(encoder[:6]) + (f" and {len(encoder) - 6} more" if len(encoder) > 6 else "")
        raise CheckpointError(
            f"{source} must hold a whole encoder. Missing, or of another shape: {shown}. To train from random "
            "weights, pass `from_scratch` (--from-scratch)."
        )
    before = RemBertConfig.from_pretrained(source)
    if not _has_same_classes(before, head, overrides):
        own = [each.name for each in HEADS[head].own_parameters(before) if each.name.startswith("classifier.")]
        names += [name for name in own if name not in names]
    return names


def kept_labels(config: RemBertConfig, head: str) -> list[str]:
    """The names of the classes that a checkpoint was trained for with this head; none if it was not, or they are the
    numbered defaults.

    Args:
        config: of the checkpoint.
        head: a key of `HEADS`.
    """
    names = label_names(config)
    return [] if names == _default_names(config) or not was_trained(config, head) else names


def was_trained(config: RemBertConfig, head: str) -> bool:
    """Whether `config.architectures` names a class with this head, a key of `HEADS`."""
    named = [name.removeprefix("TF") for name in config.architectures or ()]
    return any(each.architecture in named and each.means_the_same(HEADS[head]) for each in HEADS.values())


def _has_same_classes(before: RemBertConfig, head: str, overrides: Mapping[str, Any]) -> bool:
    if not was_trained(before, head):
        return not before.architectures  # a file without them may be anything
    wanted = overrides.get("problem_type") or before.problem_type
    if before.problem_type is not None and wanted != before.problem_type:
        return False
    names = label_names(before)
    new = overrides.get("id2label")
    return new is None or names == _default_names(before) or names == [str(new[number]) for number in sorted(new)]


def _default_names(config: RemBertConfig) -> list[str]:
    return [f"LABEL_{number}" for number in range(config.num_labels)]


def step_seed(recipe: Recipe, step: int, rank: int = 0) -> int:
    """The seed of one update's dropout. Each update has its own: a resumed run needs no generator state."""
    return int(np.random.SeedSequence([recipe.seed, step, rank]).generate_state(1)[0])
