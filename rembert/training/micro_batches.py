"""A batch in pieces: what devices and accumulation steps compute apart adds up to the loss of the whole batch.

Each head's loss is a mean over the labels that count. The whole batch's mean is therefore the pieces' means, each
weighted by its part of the labels; both frameworks take the weights from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.parameters import HEADS, LabelKind

Batch = Mapping[str, np.ndarray]
Piece = tuple[dict[str, np.ndarray], float]


def label_count(head: str, batch: Batch, problem_type: str | None = None) -> int:
    """How many labels of a batch the head's loss is a mean over.

    Args:
        head: a key of `HEADS`.
        batch: the model's arguments with labels.
        problem_type: of a sequence classifier, as in its configuration.
    """
    declared = HEADS[head]
    kind = declared.kind_of_labels(problem_type)
    labels = batch[declared.labels[0]]
    if kind is LabelKind.SPAN:
        # Of starts; an end outside the window comes with a start outside it.
        return int((labels < batch["input_ids"].shape[-1]).sum())
    if kind is LabelKind.NUMBER:
        return int(labels.size)
    counted = labels != IGNORE_INDEX
    mask = batch.get("attention_mask")
    if kind is LabelKind.TOKEN and mask is not None:
        counted = counted & (mask != 0)
    if declared.predicts_next:
        counted = counted[:, 1:]  # nothing predicts the first
    return int(counted.sum())


def cut(batch: Batch, pieces: int, count: Callable[[Batch], int]) -> list[Piece]:
    """Cut a batch by rows into so many pieces, each with the weight of its loss; the weights add up to 1.

    Where there are more pieces than rows, the last ones are a row of the batch at weight 0: every device then takes
    part in a step, as those that wait for one another must. A batch without labels gives weights of 0.

    Args:
        batch: arrays with a row for each example.
        pieces: how many.
        count: how many labels of a batch count.
    """
    rows = len(next(iter(batch.values())))
    total = count(batch)
    size = -(-rows // pieces)
    result: list[Piece] = []
    for start in range(0, size * pieces, size):
        part = {name: array[start : start + size] for name, array in batch.items()}
        if start < rows:
            result.append((part, count(part) / total if total else 0.0))
        else:
            result.append(({name: array[:1] for name, array in batch.items()}, 0.0))
    return result
