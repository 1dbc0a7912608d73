"""The heads' losses: scalars in float32, or in float64 for float64 logits.

A loss is a mean over the labels that count. If none counts it is 0: a batch without labels does not affect training.
A `label_smoothing` is the fraction of each target's probability that is spread evenly; `class_weights` are
the weights of the classes; see `LossSettings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rembert.common.checks import IGNORE_INDEX
from rembert.common.labels import PROBLEM_TYPES, LabelKind
from rembert.common.loss_settings import check_smoothing

Tensor = Any


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: Any = IGNORE_INDEX,
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
    logits = _precise(logits)
    logits = ops.reshape(logits, (-1, ops.shape(logits)[-1]))
    labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
    counted = ops.not_equal(labels, ignore_index)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ops.where(counted, labels, 0), logits)
    weights = ops.convert_to_tensor(class_weights or 1.0, losses.dtype)
    shares = ops.cast(counted, losses.dtype)
    if class_weights is not None:
        of_labels = tf.gather(weights, ops.where(counted, labels, 0))
        losses, shares = losses * of_labels, shares * of_labels
    if label_smoothing:
        even = -ops.mean(weights * ops.log_softmax(logits), axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * even
    least = 1.0 if class_weights is None else np.finfo(losses.dtype.as_numpy_dtype).tiny
    return ops.sum(losses * ops.cast(counted, losses.dtype)) / ops.maximum(ops.sum(shares), least)


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
    targets = ops.reshape(ops.cast(labels, logits.dtype), ops.shape(logits))
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / 2
    losses = NUMBER_LOSSES[problem_type](logits, targets)
    if class_weights is not None:
        losses = losses * ops.convert_to_tensor(class_weights, losses.dtype)
    return ops.sum(losses) / ops.cast(ops.maximum(ops.size(losses), 1), losses.dtype)  # 0 without rows


# The losses of numeric labels, by problem type: elementwise, of logits and targets [b, labels].
NUMBER_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "regression": lambda logits, targets: ops.square(logits - targets),
    "multi_label_classification": lambda logits, targets: tf.nn.sigmoid_cross_entropy_with_logits(targets, logits),
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
    length = ops.shape(start_logits)[1]
    real = None
    if attention_mask is not None and len(attention_mask.shape) == 2:
        real = ops.not_equal(attention_mask, ops.zeros((), dtype=attention_mask.dtype))
    losses = []
    for logits, positions in ((start_logits, starts), (end_logits, ends)):
        logits = _precise(logits)
        # Clipped as int64: a position beyond int32 stays beyond the sequence.
        positions = ops.clip(ops.reshape(ops.cast(positions, "int64"), (-1,)), 0, ops.cast(length, "int64"))
        if real is not None:
            # Not minus infinity: a row without real positions would have no softmax.
            logits = ops.where(real, logits, ops.cast(logits.dtype.min / 2, logits.dtype))
            held = tf.gather(ops.pad(real, ((0, 0), (0, 1))), positions, batch_dims=1)
            positions = ops.where(held, positions, ops.cast(length, "int64"))
        loss = cross_entropy(logits, positions, ignore_index=length)
        if label_smoothing:
            even = _even_cross_entropy(logits, real, positions < ops.cast(length, "int64"))
            loss = (1 - label_smoothing) * loss + label_smoothing * even
        losses.append(loss)
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
    """The label that each position of a causal language model predicts: the next one.

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


def _even_cross_entropy(logits: Tensor, real: Tensor | None, counted: Tensor) -> Tensor:
    """Mean over the rows that count of -log softmax(logits), averaged over the real positions.

    Args:
        logits: [b, s].
        real: [b, s] booleans, or None if every position is real.
        counted: [b] booleans.
    """
    weights = ops.ones_like(logits) if real is None else ops.cast(real, logits.dtype)
    costs = ops.sum(-ops.log_softmax(logits) * weights, axis=-1) / ops.maximum(ops.sum(weights, axis=-1), 1)
    counted = ops.cast(counted, logits.dtype)
    return ops.sum(costs * counted) / ops.maximum(ops.sum(counted), 1.0)


def _precise(logits: Tensor) -> Tensor:
    return ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
