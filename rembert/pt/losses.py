"""The heads' losses: scalars in float32, or in float64 for float64 logits.

A mean runs over the labels that count. Where none counts it is 0, so a batch without labels leaves training alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rembert.common.checks import IGNORE_INDEX


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Mean of -log softmax(logits)[label] over the labels that are not `ignore_index`.

    Args:
        logits: [..., classes].
        labels: [...] integers.
    """
    labels = labels.long().reshape(-1)
    total = F.cross_entropy(
        _precise(logits).reshape(-1, logits.shape[-1]), labels, ignore_index=ignore_index, reduction="sum"
    )
    return total / (labels != ignore_index).sum().clamp(min=1)


def token_loss(logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Cross entropy of every token's label; labels on padding are ignored.

    Args:
        logits: [b, s, classes].
        labels: [b, s] integers, -100 to ignore.
        attention_mask: as the model took it; only a [b, t] mask says which tokens are padding.
    """
    return cross_entropy(logits, ignore_padding(labels, attention_mask))


def causal_lm_loss(logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Cross entropy of every next token: the logits at i predict the label at i + 1. Arguments as `token_loss`."""
    return cross_entropy(logits[:, :-1], ignore_padding(labels, attention_mask)[:, 1:])


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str) -> Tensor:
    """The loss of a sequence classifier.

    Args:
        logits: [b, labels].
        labels: [b] class ids; [b, labels] of 0 and 1 for several classes; [b] or [b, labels] numbers for regression.
        problem_type: one of `rembert.common.config.PROBLEM_TYPES`.
    """
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    logits = _precise(logits)
    targets = labels.to(logits.dtype).reshape(logits.shape)
    if problem_type == "regression":
        return F.mse_loss(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def span_loss(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Mean of the start's and the end's cross entropy; positions of s and more are ignored, negative ones count as 0.

    Args:
        start_logits, end_logits: [b, s].
        starts, ends: [b] or [b, 1] integers.
    """
    length = start_logits.shape[1]
    losses = [
        cross_entropy(logits, positions.long().reshape(-1).clamp(0, length), ignore_index=length)
        for logits, positions in ((start_logits, starts), (end_logits, ends))
    ]
    return (losses[0] + losses[1]) / 2


def ignore_padding(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """`labels` [b, s] with -100 where the [b, t] mask says padding; t may count cached positions before s."""
    if attention_mask is None or attention_mask.ndim != 2:
        return labels
    real = attention_mask[:, -labels.shape[1] :] != 0
    return labels.long().masked_fill(~real, IGNORE_INDEX)  # which a byte does not hold


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
