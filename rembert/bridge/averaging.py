"""The mean of several checkpoints' weights: of runs with other seeds, or of one run at several steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.conversion import copy_companions, is_checkpoint, source_config
from rembert.bridge.matching import match_checkpoint, require_match, select_parameters
from rembert.bridge.registry import locate_checkpoint
from rembert.bridge.saving import save_checkpoint
from rembert.bridge.tensors import TensorSource
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError

_MUST_AGREE = ("architectures", "id2label", "hidden_act", "problem_type")


def average(
    sources: Sequence[str | os.PathLike[str]], target: str | os.PathLike[str], *, force: bool = False
) -> list[Path]:
    """Write the mean of the weights of several checkpoints of one model as a new directory `target`.

    The mean is computed in float64, a tensor at a time, and stored in the dtype of the first checkpoint, whose
    configuration and tokenizer are copied. Averages are good models if the checkpoints come from the same pretrained
    weights (Wortsman et al., ICML 2022).

    Args:
        sources: two or more checkpoints, as for `open_checkpoint`.
        target: the new directory, which appears complete or not at all.
        force: replace a checkpoint at `target`.

    Returns:
        The files written.

    Raises:
        InputError: fewer than two checkpoints are given, or the target exists.
        CheckpointError: a checkpoint is damaged, or differs from the first in its parameters, its head or its classes.

    Example:
        >>> files = average(["google/rembert", "google/rembert"], "averaged")
        >>> files[0].name
        'model.safetensors'
    """
    if len(sources) < 2:
        raise InputError(f"`sources` must be two or more checkpoints. Received: {len(sources)}.")
    replacement = new_directory(Path(target), force=force, replaceable=is_checkpoint)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_checkpoint(locate_checkpoint(source))) for source in sources]
        models = [_parameters(checkpoint) for checkpoint in opened]
        first, config, head = models[0]
        for checkpoint, (tensors, other, _) in zip(opened[1:], models[1:], strict=True):
            _check_alike(opened[0], first, config, checkpoint, tensors, other)
        means = {
            name: TensorSource(tensor.shape, tensor.dtype, partial(_mean, [tensors[name] for tensors, *_ in models]))
            for name, tensor in first.items()
        }
        with replacement as directory:
            written = save_checkpoint(directory, means, config, to="pt", head=head)
            return [Path(target) / file.name for file in (*written, *copy_companions(opened[0].directory, directory))]


def _parameters(checkpoint: Checkpoint) -> tuple[dict[str, TensorSource], RemBertConfig, str]:
    """The parameters of a checkpoint by canonical name, its configuration and its head."""
    config = source_config(checkpoint)
    found = match_checkpoint(checkpoint, config)
    require_match(checkpoint, found)
    checkpoint.require_floats(found.match.found.values())
    chosen = select_parameters(checkpoint, found, config, None)
    return chosen.tensors, config, chosen.head


def _check_alike(
    first: Checkpoint,
    expected: dict[str, TensorSource],
    config: RemBertConfig,
    checkpoint: Checkpoint,
    tensors: dict[str, TensorSource],
    other: RemBertConfig,
) -> None:
    for key in _MUST_AGREE:
        if getattr(config, key) != getattr(other, key):
            raise CheckpointError(
                f"{checkpoint.path} must have the `{key}` of {first.path}. Received: {getattr(other, key)!r:.200} "
                f"and {getattr(config, key)!r:.200}."
            )
    shapes, others = ({name: each.shape for name, each in group.items()} for group in (expected, tensors))
    for name in [*shapes, *others]:
        if shapes.get(name) != others.get(name):
            raise CheckpointError(
                f"{checkpoint.path} must have the parameters of {first.path}. Received: `{name}` of shape "
                f"{others.get(name, 'none')} and {shapes.get(name, 'none')}."
            )


def _mean(sources: Sequence[TensorSource]) -> np.ndarray:
    total = sources[0].read().astype(np.float64)
    for source in sources[1:]:
        total += source.read()
    mean: np.ndarray = total / len(sources)
    return mean
