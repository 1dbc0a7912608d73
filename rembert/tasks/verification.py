"""Run two checkpoints on the same inputs, each in a framework that can read it, and compare their outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge import FORMATS, open_checkpoint
from rembert.bridge.heads import has_pooler_in, recognise_head
from rembert.bridge.registry import locate_checkpoint
from rembert.common.arguments import check_arguments, integer, number
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError
from rembert.common.parameters import BASE_MODEL
from rembert.common.trials import Arrays, OutputDifference, output_differences, trial_inputs, trial_labels
from rembert.tasks.backends import check_framework, default_framework, get_backend, load_model

_CONSTRAINTS = {"tolerance": number(at_least=0), "seed": integer(at_least=0)}


@dataclass(frozen=True)
class Side:
    """One of the checkpoints that are compared.

    Attributes:
        path: where it is.
        head: a key of `HEADS`.
        framework: 'pt' or 'tf', where it was run.
    """

    path: Path
    head: str
    framework: str


@dataclass(frozen=True)
class Verification:
    """The differences of the outputs of two checkpoints.

    Attributes:
        sides: the two checkpoints.
        differences: of each output that both have.
        tolerance: the largest relative difference that is allowed.
    """

    sides: tuple[Side, Side]
    differences: dict[str, OutputDifference]
    tolerance: float

    @property
    def failed(self) -> list[str]:
        """The outputs that differ by more than the tolerance; NaN is more."""
        return [name for name, found in self.differences.items() if not found.relative <= self.tolerance]

    @property
    def compares_encoders(self) -> bool:
        """Whether the heads differ, so that the encoders alone were compared."""
        return self.sides[0].head != self.sides[1].head


def verify(
    one: str | os.PathLike[str],
    other: str | os.PathLike[str],
    *,
    frameworks: tuple[str, str] | None = None,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Verification:
    """Run two checkpoints on the same random inputs and labels, and compare their outputs.

    Both models are run with the checkpoints' head, or without one if their heads differ. Only one is in memory at a
    time.

    Args:
        one, other: checkpoint directories, files or indexes, with configurations.
        frameworks: 'pt' or 'tf' for each; by default the framework that the format belongs to, or the installed one.
        tolerance: the largest difference allowed, relative to the largest magnitude of the output.
        seed: of the inputs and labels.

    Raises:
        InputError: an argument is invalid.
        CheckpointError: a checkpoint is damaged, has no config, or the vocabularies differ in size.
        MissingDependencyError: a framework is not installed.

    Example:
        >>> found = verify("google/rembert", "google/rembert", frameworks=("pt", "pt"))
        >>> found.failed
        []
    """
    check_arguments(_CONSTRAINTS, {"tolerance": tolerance, "seed": seed})
    chosen = frameworks or (None, None)
    opened = [_open(locate_checkpoint(path), framework) for path, framework in zip((one, other), chosen, strict=True)]
    (first, config, first_pooled), (second, second_config, second_pooled) = opened
    if config.vocab_size != second_config.vocab_size:
        raise CheckpointError(
            "The checkpoints must have vocabularies of the same size. Received: "
            f"`vocab_size={config.vocab_size}` and `vocab_size={second_config.vocab_size}`."
        )
    head = first.head if first.head == second.head else BASE_MODEL
    options = {"add_pooling_layer": first_pooled and second_pooled} if head == BASE_MODEL else {}
    inputs = trial_inputs(config, head, seed=seed)
    arguments = {**inputs, **trial_labels(config, head, inputs, seed=seed)}
    outputs = [_run(side, head, arguments, **options) for side, *_ in opened]
    differences = output_differences(*outputs, head=head, mask=inputs["attention_mask"])
    return Verification((first, second), differences, tolerance)


def _run(side: Side, head: str, arguments: Mapping[str, np.ndarray], **options: Any) -> Arrays:
    """The outputs of a checkpoint's model."""
    model, _ = load_model(side.framework, head, side.path, **options)
    return get_backend(side.framework).run_once(model, arguments)


def _open(path: Path, framework: str | None) -> tuple[Side, RemBertConfig, bool]:
    """A checkpoint's head and framework, its config, and whether it has a pooler."""
    with open_checkpoint(path) as checkpoint:
        if checkpoint.config is None:
            raise CheckpointError(f"{path} has no config.json beside it, which is needed to build the model.")
        framework = framework or default_framework(FORMATS[checkpoint.format].framework)
        check_framework(framework)
        head = recognise_head(checkpoint.config, checkpoint.tensors)
        return Side(path, head, framework), checkpoint.config, has_pooler_in(checkpoint.tensors)
