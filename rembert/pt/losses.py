"""The heads' losses: scalars in float32, or in float64 for float64 logits.

A loss is a mean over the labels that count. If none counts it is 0: a batch without labels does not affect training.
A `label_smoothing` is the fraction of each target's probability that is spread evenly; `class_weights` are
the weights of the classes; see `LossSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rembert.common.checks import IGNORE_INDEX
from rembert.common.labels import PROBLEM_TYPES, LabelKind
from rembert.common.loss_settings import check_smoothing


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Mean of -log softmax(logits)[label] over the labels that are not `ignore_index`.

    Args:
        logits: [..., classes].
        labels: [...] integers.
        ignore_index: the label that does not count.
        label_smoothing: in [0, 1); spread over the classes.
        class_weights: [classes]; the mean is weighted by those of the labels.
    """
    labels = labels.long().reshape(-1)
    logits = _precise(logits).reshape(-1, logits.shape[-1])
    weights = None if class_weights is None else logits.new_tensor(class_weights)
    total = F.cross_entropy(
        logits,
        labels,
        weight=weights,
        ignore_index=ignore_index,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    counted = labels != ignore_index
    if weights is None:
        return total / counted.sum().clamp(min=1)
    share = (weights[labels.masked_fill(~counted, 0)] * counted).sum()
    return total / share.clamp(min=torch.finfo(share.dtype).tiny)  # 0 if no label counts


def token_loss(
    logits: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Cross entropy of every token's label; labels on padding are ignored.

    Args:
        logits: [b, s, classes].
        labels: [b, s] integers, -100 to ignore.
        attention_mask: as the model received it; only a [b, t] mask says which tokens are padding.
        label_smoothing: in [0, 1); spread over the classes.
        class_weights: [classes].
    """
    labels = ignore_padding(labels, attention_mask)
    return cross_entropy(logits, labels, label_smoothing=label_smoothing, class_weights=class_weights)


def sequence_loss(
    logits: Tensor,
    labels: Tensor,
    problem_type: str,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """The loss of a sequence classifier.

    Args:
        logits: [b, labels].
        labels: [b] class ids; [b, labels] of 0 and 1 for several classes; [b] or [b, labels] numbers for regression.
        problem_type: one of `rembert.common.labels.PROBLEM_TYPES`.
        label_smoothing: in [0, 1); spread over the classes; with several classes, targets move towards one half.
        class_weights: [labels]; with several classes, of the terms of each; not for regression.

    Raises:
        InputError: `label_smoothing` is not 0 for regression.
    """
    check_smoothing(label_smoothing, problem_type)
    if PROBLEM_TYPES[problem_type] is LabelKind.CLASS:
        return cross_entropy(logits, labels, label_smoothing=label_smoothing, class_weights=class_weights)
    logits = _precise(logits)
    targets = labels.to(logits.dtype).reshape(logits.shape)
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / 2
    losses = NUMBER_LOSSES[problem_type](logits, targets)
    if class_weights is not None:
        losses = losses * logits.new_tensor(class_weights)
    return losses.sum() / max(targets.numel(), 1)  # 0 without rows


# The losses of numeric labels, by problem type: elementwise, of logits and targets [b, labels].
NUMBER_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "regression": partial(F.mse_loss, reduction="none"),
    "multi_label_classification": partial(F.binary_cross_entropy_with_logits, reduction="none"),
}


def span_loss(
    start_logits: Tensor,
    end_logits: Tensor,
    starts: Tensor,
    ends: Tensor,
    attention_mask: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean of the start's and the end's cross entropy, where only real positions compete.

    Positions of s and more and those on padding are ignored; negative ones are taken as 0.

    Args:
        start_logits, end_logits: [b, s].
        starts, ends: [b] or [b, 1] integers.
        attention_mask: as the model received it; only a [b, s] mask says which positions are padding.
        label_smoothing: in [0, 1); spread over the real positions.
    """
    length = start_logits.shape[1]
    real = attention_mask != 0 if attention_mask is not None and attention_mask.ndim == 2 else None
    losses = []
    for logits, positions in ((start_logits, starts), (end_logits, ends)):
        logits, positions = _precise(logits), positions.long().reshape(-1).clamp(0, length)
        if real is not None:
            # Not minus infinity: a row without real positions would have no softmax.
            logits = logits.masked_fill(~real, torch.finfo(logits.dtype).min / 2)
            held = F.pad(real, (0, 1)).gather(1, positions[:, None]).squeeze(1)
            positions = positions.masked_fill(~held, length)
        loss = cross_entropy(logits, positions, ignore_index=length)
        if label_smoothing:
            even = _even_cross_entropy(logits, real, positions < length)
            loss = (1 - label_smoothing) * loss + label_smoothing * even
        losses.append(loss)
    return (losses[0] + losses[1]) / 2


def share_of_items(loss: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """A mean loss as the part that its labels have in a larger batch: their sum, divided by the larger batch's number.

    The parts of micro-batches add up to the loss of the whole batch, however many labels each has.

    Args:
        loss: the mean over the `labels` that are not -100.
        labels: of any shape.
        num_items: the number of labels of the larger batch; None leaves the mean as it is.
    """
    if num_items is None:
        return loss
    labels = labels if labels.is_floating_point() else labels.long()  # in a byte, -100 would be 156
    return loss * (labels != IGNORE_INDEX).sum() / num_items


def ignore_padding(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """`labels` [b, s] with -100 where the [b, t] mask says padding; t may count cached positions before s."""
    labels = labels.long()  # in a byte, -100 would be 156
    if attention_mask is None or attention_mask.ndim != 2:
        return labels
    real = attention_mask[:, -labels.shape[1] :] != 0
    return labels.masked_fill(~real, IGNORE_INDEX)


def next_labels(labels: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None = None) -> Tensor:
    """The label that each position of a causal language model predicts: the next one.

    That is -100 at the end of a sequence, before a label on padding, and where padding itself would have to predict.

    Args:
        labels: [b, s] integers, or [t] of packed sequences.
        attention_mask: as `ignore_padding`.
        cu_seqlens: [n + 1], where the packed sequences start, and t.
    """
    labels = ignore_padding(labels, attention_mask)
    following = F.pad(labels[..., 1:], (0, 1), value=IGNORE_INDEX)
    if cu_seqlens is not None:
        following = following.index_fill(0, cu_seqlens[1:].long() - 1, IGNORE_INDEX)
    return ignore_padding(following, attention_mask)


def _even_cross_entropy(logits: Tensor, real: Tensor | None, counted: Tensor) -> Tensor:
    """Mean over the rows that count of -log softmax(logits), averaged over the real positions.

    Args:
        logits: [b, s].
        real: [b, s] booleans, or None if every position is real.
        counted: [b] booleans.
    """
    if real is None:
        real = torch.ones_like(logits, dtype=torch.bool)
    costs = torch.where(real, -F.log_softmax(logits, -1), 0).sum(-1) / real.sum(-1).clamp(min=1)
    return torch.where(counted, costs, 0).sum() / counted.sum().clamp(min=1)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
