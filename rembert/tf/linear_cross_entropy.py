"""Cross entropy of a linear layer's outputs without holding all outputs, for losses over large vocabularies.

n rows have n × v logits, 1 GB for 1,024 rows of RemBERT's vocabulary, and automatic differentiation stores several
copies. Here rows are processed in chunks. The logits of a chunk give its loss and, from the same probabilities, its
part of the gradients. Only the gradients are kept; each chunk is added to those of the layer in place. The backward
pass only scales them.

With p = softmax(z) of a row's logits z, y the one-hot label and a label smoothing of ε:

    loss = log Σ exp(z) - (1 - ε) z[label] - ε mean(z)
    dloss/dz = p - (1 - ε) y - ε / v

Products are in the dtype of the given states, the softmax and every sum in float32, or float64 for float64.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from rembert.common.checks import IGNORE_INDEX
from rembert.tf.keras_internals import in_xla

Tensor = Any

# Logits of a chunk: 128 MB in float32. Smaller products are slower; a GPU needs larger ones.
_AT_A_TIME = {"CPU": 2**25, "GPU": 2**28}
# Columns of the kernel's gradient that a chunk is added to at a time.
_ADDED_AT_A_TIME = 2**14


def linear_cross_entropy(
    states: Tensor, kernel: Tensor, bias: Tensor, labels: Tensor, training: bool, label_smoothing: float = 0.0
) -> Tensor:
    """Mean of -log softmax(states kernel + bias)[label] over the labels that are not -100; 0 if all are.

    The gradient can be taken once and has no gradient itself.

    Args:
        states: [n, w]; the products are in their dtype.
        kernel: [w, v].
        bias: [v].
        labels: [n] integers.
        training: whether gradients will be taken. If they are and this is False, the logits are computed twice.
        label_smoothing: in [0, 1); the fraction of each target's probability that is spread over the v classes.

    Returns:
        A scalar in float32, or float64 for float64.
    """
    kernel, bias, labels = tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), tf.cast(labels, tf.int32)

    def compute(states: Tensor, kernel: Tensor, bias: Tensor, wanted: bool) -> Any:
        if not tf.executing_eagerly():
            return _loss_and_gradients(states, kernel, bias, labels, wanted, label_smoothing)
        # As a graph, which reuses memory as soon as it is free. If the tape watched the inputs, the graph would keep
        # all of it for gradients that are not used.
        unwatched = map(tf.stop_gradient, (states, kernel, bias))
        graph = _in_graph(tuple(kernel.shape), states.dtype, kernel.dtype, wanted, label_smoothing)
        return graph(*unwatched, labels)

    @tf.custom_gradient
    def loss_of(states: Tensor, kernel: Tensor, bias: Tensor) -> tuple[Tensor, Any]:
        loss, *gradients = compute(states, kernel, bias, training)

        def backward(scale: Tensor) -> list[Tensor]:
            own = gradients if training else compute(states, kernel, bias, True)[1:]
            if tf.executing_eagerly() and scale == 1:
                return own  # unscaled, as the kernel's is large; a graph scales it in place
            return [gradient * tf.cast(scale, gradient.dtype) for gradient in own]

        return loss, backward

    return loss_of(states, kernel, bias)


def is_plain_linear(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a plain linear one, without adapter or quantised kernel."""
    return type(layer) is keras.layers.Dense and not layer.lora_enabled and layer.quantization_mode is None


@cache
def _in_graph(shape: tuple[int, int], dtype: Any, kernel_dtype: Any, wanted: bool, label_smoothing: float) -> Any:
    """`_loss_and_gradients` as a graph for any number of rows."""
    inputs, outputs = shape
    return tf.function(
        lambda states, kernel, bias, labels: _loss_and_gradients(
            states, kernel, bias, labels, wanted, label_smoothing
        ),
        input_signature=[
            tf.TensorSpec([None, inputs], dtype),
            tf.TensorSpec(shape, kernel_dtype),
            tf.TensorSpec([outputs], kernel_dtype),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )


def _loss_and_gradients(
    states: Tensor, kernel: Tensor, bias: Tensor, labels: Tensor, wanted: bool, label_smoothing: float
) -> tuple[Tensor, ...]:
    """The mean loss, and if `wanted` its gradients in the states, the kernel and the bias."""
    counted = labels != IGNORE_INDEX
    weights = tf.cast(counted, _statistics(states))
    inputs = _Inputs(
        states=states,
        kernel=tf.cast(kernel, states.dtype),
        bias=tf.cast(bias, states.dtype),
        targets=tf.where(counted, labels, 0),
        weights=weights,
        share=1 / tf.maximum(tf.reduce_sum(weights), 1),
        wanted=wanted,
        label_smoothing=label_smoothing,
    )
    totals = _totals(inputs)
    if not wanted:
        return totals
    loss, d_states, d_bias, d_kernel = totals
    return loss, tf.cast(d_states, states.dtype), tf.cast(d_kernel, kernel.dtype), tf.cast(d_bias, bias.dtype)


class _Inputs(NamedTuple):
    """The inputs of a chunk of rows."""

    states: Tensor  # [n, w]
    kernel: Tensor  # [w, v], in the dtype of the states
    bias: Tensor  # [v], in the dtype of the states
    targets: Tensor  # [n] labels; 0 where they do not count
    weights: Tensor  # [n] 1 where a label counts, otherwise 0
    share: Tensor  # of a row in the mean
    wanted: bool  # whether gradients are
    label_smoothing: float


def _totals(inputs: _Inputs) -> tuple[Tensor, ...]:
    """The loss, and if wanted the gradients in the states, the bias and the kernel, over all chunks."""
    width, outputs = inputs.kernel.shape
    most = max(_AT_A_TIME["GPU" if tf.config.list_physical_devices("GPU") else "CPU"] // outputs, 1)
    count = inputs.states.shape[0]
    if count is not None:
        size = -(-count // max(-(-count // most), 1))
        totals = _add_chunk(inputs, 0, size, None)
        for begin in range(size, count, max(size, 1)):
            totals = _add_chunk(inputs, begin, begin + size, totals)
        return totals
    count = tf.shape(inputs.states)[0]
    if in_xla():
        # The number is known when XLA compiles, but not here, and XLA's loops have no growing tensors: one chunk.
        return _add_chunk(inputs, 0, count, None)
    size = -(-count // tf.maximum(-(-count // most), 1))
    totals = _add_chunk(inputs, 0, size, None)
    shapes = [total.shape for total in totals]
    if inputs.wanted:
        shapes[1] = tf.TensorShape([None, width])
    _, *totals = tf.while_loop(
        lambda begin, *_: begin < count,
        lambda begin, *totals: (begin + size, *_add_chunk(inputs, begin, begin + size, totals)),
        (size, *totals),
        shape_invariants=(tf.TensorShape([]), *shapes),
    )
    return tuple(totals)


def _statistics(states: Tensor) -> Any:
    return keras.backend.result_type(states.dtype, "float32")


def _add_chunk(inputs: _Inputs, begin: Any, end: Any, totals: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """`totals` of the rows before `begin`, or None, with those of the rows from `begin` to `end` added."""
    rows, targets, weight = inputs.states[begin:end], inputs.targets[begin:end], inputs.weights[begin:end]
    logits = tf.cast(tf.matmul(rows, inputs.kernel) + inputs.bias, _statistics(rows))
    logits -= tf.reduce_max(logits, 1, keepdims=True)
    at_labels = tf.gather(logits, targets, batch_dims=1)
    probabilities = tf.exp(logits)
    sums = tf.reduce_sum(probabilities, 1)
    losses = tf.math.log(sums) - at_labels
    if inputs.label_smoothing:
        losses += inputs.label_smoothing * (at_labels - tf.reduce_mean(logits, 1))
    loss = tf.reduce_sum(losses * weight) * inputs.share
    if not inputs.wanted:
        return (loss,) if totals is None else (totals[0] + loss,)
    d_logits = probabilities * (weight / sums)[:, None]
    if inputs.label_smoothing:
        d_logits -= (weight * (inputs.label_smoothing / inputs.kernel.shape[1]))[:, None]
    at = tf.stack([tf.range(tf.shape(rows)[0]), targets], 1)
    d_logits = tf.tensor_scatter_nd_sub(d_logits, at, weight * (1 - inputs.label_smoothing))
    d_bias = tf.reduce_sum(d_logits, 0) * inputs.share
    d_logits = tf.cast(d_logits, rows.dtype)
    d_rows = _scaled(tf.matmul(d_logits, inputs.kernel, transpose_b=True), inputs.share)
    if totals is None:
        return loss, d_rows, d_bias, _scaled(tf.matmul(rows, d_logits, transpose_a=True), inputs.share)
    d_kernel = _add_product(totals[3], rows, d_logits, inputs.share)
    return totals[0] + loss, tf.concat([totals[1], d_rows], 0), totals[2] + d_bias, d_kernel


def _add_product(total: Tensor, left: Tensor, right: Tensor, factor: Tensor) -> Tensor:
    """`total` [w, v] plus leftᵀ right, written into the memory of `total`, to which there is no other reference."""
    width, outputs = total.shape
    for start in range(0, outputs, _ADDED_AT_A_TIME):
        stop = min(start + _ADDED_AT_A_TIME, outputs)
        block = _scaled(tf.matmul(left, right[:, start:stop], transpose_a=True), factor)
        block += total[:, start:stop]
        total = tf.raw_ops.TensorStridedSliceUpdate(
            input=total, begin=[0, start], end=[width, stop], strides=[1, 1], value=block
        )
    return total


def _scaled(product: Tensor, factor: Tensor) -> Tensor:
    # The factor comes last: before the product, float16 would lose the small probabilities.
    return tf.cast(product, _statistics(product)) * factor
