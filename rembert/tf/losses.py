"""The heads' losses: scalars in float32, or in float64 for float64 logits.

A mean runs over the labels that count. Where none counts it is 0, so a batch without labels leaves training alone.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from rembert.common.checks import IGNORE_INDEX

Tensor = Any


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: Any = IGNORE_INDEX) -> Tensor:
    """Mean of -log softmax(logits)[label] over the labels that are not `ignore_index`.

    Args:
        logits: [..., classes].
        labels: [...] integers.
    """
    logits = _precise(logits)
    logits = ops.reshape(logits, (-1, ops.shape(logits)[-1]))
    labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
    counted = ops.not_equal(labels, ignore_index)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ops.where(counted, labels, 0), logits)
    counted = ops.cast(counted, losses.dtype)
    return ops.sum(losses * counted) / ops.maximum(ops.sum(counted), 1.0)


def token_loss(logits: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Cross entropy of every token's label; labels on padding are ignored.

    Args:
        logits: [b, s, classes].
        labels: [b, s] integers, -100 to ignore.
        attention_mask: as the model took it; only a [b, t] mask says which tokens are padding.
    """
    return cross_entropy(logits, ignore_padding(labels, attention_mask))


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str) -> Tensor:
    """The loss of a sequence classifier.

    Args:
        logits: [b, labels].
        labels: [b] class ids; [b, labels] of 0 and 1 for several classes; [b] or [b, labels] numbers for regression.
        problem_type: one of `rembert.common.labels.PROBLEM_TYPES`.
    """
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    logits = _precise(logits)
    targets = ops.reshape(ops.cast(labels, logits.dtype), ops.shape(logits))
    if problem_type == "regression":
        losses = ops.square(logits - targets)
    else:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return ops.sum(losses) / ops.cast(ops.maximum(ops.size(losses), 1), losses.dtype)


def span_loss(
    start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor, attention_mask: Tensor | None = None
) -> Tensor:
    """Mean of the start's and the end's cross entropy, where real positions alone compete.

    Positions of s and more and those on padding are ignored; negative ones count as 0.

    Args:
        start_logits, end_logits: [b, s].
        starts, ends: [b] or [b, 1] integers.
        attention_mask: as the model took it; only a [b, s] mask says which positions are padding.
    """
    length = ops.shape(start_logits)[1]
    real = None
    if attention_mask is not None and len(attention_mask.shape) == 2:
        real = ops.not_equal(attention_mask, ops.zeros((), dtype=attention_mask.dtype))
    losses = []
    for logits, positions in ((start_logits, starts), (end_logits, ends)):
        # Clipped as int64: a position beyond int32 stays beyond the sequence.
        positions = ops.clip(ops.reshape(ops.cast(positions, "int64"), (-1,)), 0, ops.cast(length, "int64"))
        if real is not None:
            # Not minus infinity: a row without real positions would have no softmax.
            logits = _precise(logits)
            logits = ops.where(real, logits, ops.cast(logits.dtype.min / 2, logits.dtype))
            held = tf.gather(ops.pad(real, ((0, 0), (0, 1))), positions, batch_dims=1)
            positions = ops.where(held, positions, ops.cast(length, "int64"))
        losses.append(cross_entropy(logits, positions, ignore_index=length))
    return (losses[0] + losses[1]) / 2


def ignore_padding(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """`labels` [b, s] with -100 where the [b, t] mask says padding; t may count cached positions before s."""
    labels = ops.cast(labels, "int32")  # in a byte, -100 would be 156
    if attention_mask is None or len(attention_mask.shape) != 2:
        return labels
    real = attention_mask[:, -ops.shape(labels)[1] :]
    real = ops.not_equal(real, ops.zeros((), dtype=real.dtype))
    return ops.where(real, labels, IGNORE_INDEX)


def next_labels(labels: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None = None) -> Tensor:
    """What each position of a causal language model is to predict: the label after it.

    That is -100 at the end of a sequence, before a label on padding, and where padding itself would have to predict.

    Args:
        labels: [b, s] integers, or [t] of packed sequences.
        attention_mask: as `ignore_padding`.
        cu_seqlens: [n + 1], where the packed sequences start, and t.
    """
    labels = ignore_padding(labels, attention_mask)
    following = ops.concatenate([labels[..., 1:], ops.full_like(labels[..., :1], IGNORE_INDEX)], axis=-1)
    if cu_seqlens is not None:
        ends = ops.cast(cu_seqlens[1:, None], "int32") - 1
        following = tf.tensor_scatter_nd_update(following, ends, ops.full_like(ends[:, 0], IGNORE_INDEX))
    return ignore_padding(following, attention_mask)


def _precise(logits: Tensor) -> Tensor:
    return ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
