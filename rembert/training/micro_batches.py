"""A batch in micro-batches, for devices and accumulation steps; their losses add up to that of the batch.

Each head's loss is a mean over the labels that count. The mean over the batch is therefore the sum of the
micro-batches' means, each weighted by its share of the labels. Both frameworks use these weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.labels import LabelKind
from rembert.common.parameters import HEADS

Batch = Mapping[str, np.ndarray]
# Some rows of a batch, and the weight of their loss.
MicroBatch = tuple[dict[str, np.ndarray], float]


def label_count(
    head: str, batch: Batch, problem_type: str | None = None, class_weights: Sequence[float] | None = None
) -> float:
    """The number of labels of a batch that the head's loss is a mean over, or the sum of their weights.

    Args:
        head: a key of `HEADS`.
        batch: the model's arguments with labels.
        problem_type: of a sequence classifier, as in its configuration.
        class_weights: of the loss.
    """
    declared = HEADS[head]
    kind = declared.kind_of_labels(problem_type)
    labels = batch[declared.labels[0]]
    if kind is LabelKind.SPAN:
        # Starts only: an end outside the window comes with a start outside it.
        return int((labels < batch["input_ids"].shape[-1]).sum())
    if kind in (LabelKind.NUMBER, LabelKind.CLASSES):
        return int(labels.size)
    if class_weights is None:
        counted = labels != IGNORE_INDEX
    else:
        counted = np.where(labels == IGNORE_INDEX, 0.0, np.asarray(class_weights)[np.maximum(labels, 0)])
    mask = batch.get("attention_mask")
    if kind is LabelKind.TOKEN and mask is not None:
        counted = counted * (mask != 0)
    if declared.predicts_next:
        counted = counted[:, 1:]  # nothing predicts the first
    return float(counted.sum())


def split_batch(batch: Batch, parts: int, count: Callable[[Batch], float]) -> list[MicroBatch]:
    """Split a batch by rows into `parts` micro-batches, each with the weight of its loss; the weights add up to 1.

    With more parts than rows, the last micro-batches are a row of the batch at weight 0, so that every device takes
    part in the step; otherwise the others would wait for it. A batch without labels gives weights of 0.

    Args:
        batch: arrays with a row for each example.
        parts: the number of micro-batches.
        count: the number of labels of a batch that its loss is a mean over.
    """
    rows = len(next(iter(batch.values())))
    total = count(batch)
    size = -(-rows // parts)
    result: list[MicroBatch] = []
    for start in range(0, size * parts, size):
        part = {name: array[start : start + size] for name, array in batch.items()}
        if start < rows:
            result.append((part, count(part) / total if total else 0.0))
        else:
            result.append(({name: array[:1] for name, array in batch.items()}, 0.0))
    return result
