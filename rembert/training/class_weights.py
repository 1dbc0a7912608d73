"""The weights of classes in the training loss: numbers of a recipe, or those that make all classes count alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rembert.common.errors import InputError
from rembert.common.labels import LabelKind
from rembert.common.parameters import HEADS
from rembert.tasks.task import Feature, Task
from rembert.training.recipe import BALANCED
from rembert.training.reporting import Reporter

_KINDS = (LabelKind.CLASS, LabelKind.CLASSES, LabelKind.TOKEN)


def class_weights(
    task: Task, wanted: str | list[float] | None, rows: Iterable[Feature], report: Reporter
) -> tuple[float, ...] | None:
    """The weight of each class, by its id; None if a recipe has none.

    Args:
        task: a prepared task.
        wanted: the recipe's `class_weights`.
        rows: to train on, with labels.
        report: takes a line of text for the user.

    Raises:
        InputError: the task has no classes, or another number of them.
    """
    if wanted is None:
        return None
    kind = HEADS[task.head].kind_of_labels(task.config_overrides().get("problem_type"))
    if kind not in _KINDS or not task.labels:
        raise InputError(
            f"`class_weights` must be None for {task.name} without classes. Received: `class_weights={wanted!r:.80}`."
        )
    if isinstance(wanted, str):
        assert wanted == BALANCED
        weights = balanced_weights(_counts(rows, len(task.labels)))
    elif len(wanted) != len(task.labels):
        raise InputError(
            f"`class_weights` must be {len(task.labels)} numbers, for {', '.join(task.labels):.200}. Received: "
            f"{len(wanted)} numbers."
        )
    else:
        weights = tuple(map(float, wanted))
    shown = ", ".join(f"{label!r} {weight:.4g}" for label, weight in zip(task.labels, weights, strict=True))
    report(f"class weights: {shown:.500}")
    return weights


def balanced_weights(counts: np.ndarray) -> tuple[float, ...]:
    """For counts n [classes] of labels the weights sum(n) / (classes n), where classes are those that occur; 1 for a
    class that does not occur.

    Example:
        >>> balanced_weights(np.array([6, 2, 0]))
        (0.666..., 2.0, 1.0)
    """
    occurs = counts > 0
    weights = np.where(occurs, counts.sum() / (occurs.sum() * np.maximum(counts, 1)), 1.0)
    return tuple(weights.tolist())


def _counts(rows: Iterable[Feature], classes: int) -> np.ndarray:
    """How often each class occurs [classes] among the labels of rows."""
    found = np.zeros(classes)
    for row in rows:
        labels = np.asarray(row["labels"])
        if labels.dtype.kind == "f":  # of several classes, whether each applies
            found += labels
        else:
            found += np.bincount(labels.reshape(-1)[labels.reshape(-1) >= 0], minlength=classes)
    return found
