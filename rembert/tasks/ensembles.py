"""Several models of one task as one: the mean of their probabilities, or of their numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from rembert.common.errors import InputError
from rembert.common.labels import LabelKind
from rembert.common.metrics.calibration import softmax
from rembert.common.parameters import HEADS
from rembert.tasks.backends import Arrays
from rembert.tasks.predicting import Run, load_task, task_runner
from rembert.tasks.task import Task

_SMALLEST = np.finfo(np.float64).tiny


def load_ensemble(
    name: str, paths: Sequence[str | os.PathLike[str]], framework: str = "pt", **options: Any
) -> tuple[Task, list[Any]]:
    """Fine-tuned checkpoints as a prepared task and their models; arguments as for `load_task`.

    Raises:
        InputError: the checkpoints have other classes or other maximum lengths, or the task is a language model.
        CheckpointError: as for `load_task`.

    Example:
        >>> task, models = load_ensemble("masked-lm", ["google/rembert"])
        >>> len(models)
        1
    """
    (task, first), *rest = [load_task(name, path, framework, **options) for path in paths]
    if rest and task.takes_label_scores:
        raise InputError(f"`model` must be one checkpoint for {name}. Received: {len(paths)}.")
    for path, (other, _) in zip(paths[1:], rest, strict=True):
        if (other.labels, other.max_length) != (task.labels, task.max_length):
            raise InputError(
                f"`model` must be checkpoints with the same classes and lengths. Received: {os.fspath(path)} with "
                f"{', '.join(other.labels) or 'none'}, up to {other.max_length} tokens, and {os.fspath(paths[0])} "
                f"with {', '.join(task.labels) or 'none'}, up to {task.max_length}."
            )
    return task, [first, *(model for _, model in rest)]


@contextmanager
def ensemble_runner(task: Task, models: Sequence[Any]) -> Iterator[Run]:
    """As `task_runner`, for one model or several: pass it as `run` to `predict`, `evaluate` or `analyse`.

    The logits that it gives are those of the mean of the models' probabilities; for regression, the mean of their
    numbers.

    Example:
        >>> task, models = load_ensemble("masked-lm", ["google/rembert"])
        >>> with ensemble_runner(task, models) as run:
        ...     batch = run(task.collate(task.features(next(task.read([{"text": "The ferry."}])))))
        >>> sorted(batch)
        ['expected', 'log_probs', 'predicted']
    """
    kind = HEADS[task.head].kind_of_labels(task.config_overrides().get("problem_type"))
    with ExitStack() as stack:
        runs = [stack.enter_context(task_runner(task, model)) for model in models]
        if len(runs) == 1:
            yield runs[0]
        else:
            yield lambda batch: _combined(task, kind, batch, [run(batch) for run in runs])


def _combined(task: Task, kind: LabelKind, batch: Mapping[str, np.ndarray], found: Sequence[Arrays]) -> Arrays:
    """The outputs of the models as those of one."""
    result = dict(found[0])
    for name in HEADS[task.head].logits:
        logits = np.stack([outputs[name] for outputs in found]).astype(np.float64)
        if kind is LabelKind.NUMBER:
            combined = logits.mean(0)
        elif kind is LabelKind.CLASSES:
            shares = (0.5 * (1.0 + np.tanh(0.5 * logits))).mean(0)
            combined = np.log(np.maximum(shares, _SMALLEST)) - np.log(np.maximum(1.0 - shares, _SMALLEST))
        else:
            if kind is LabelKind.SPAN:  # padding takes no part
                logits = np.where(batch["attention_mask"] != 0, logits, -np.inf)
            combined = np.log(np.maximum(softmax(logits).mean(0), _SMALLEST))
        result[name] = combined
    return result
