"""The weights that training starts from: a checkpoint's, and new ones for parameters that it lacks.

New weights come from `rembert.common.initialization` and the recipe's seed, so PyTorch and TensorFlow start with the
same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rembert.common.errors import CheckpointError
from rembert.training.recipe import Recipe


def training_overrides(recipe: Recipe, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration keys that a run sets: the task's `overrides`, and the recipe's dropout."""
    if recipe.dropout is None:
        return dict(overrides)
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
    return {**overrides, **dict.fromkeys(rates, recipe.dropout)}


def fresh_names(report: Mapping[str, Sequence[Any]], source: str) -> list[str]:
    """The parameters that a checkpoint lacks, from the report of `from_pretrained`.

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
    return names


def step_seed(recipe: Recipe, step: int, rank: int = 0) -> int:
    """The seed of one update's dropout. Each update has its own: a resumed run needs no generator state."""
    return int(np.random.SeedSequence([recipe.seed, step, rank]).generate_state(1)[0])
