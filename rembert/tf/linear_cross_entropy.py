"""Cross entropy of a linear layer's outputs, without all the outputs: what a loss over a large vocabulary needs.

n rows have n × v logits, 1 GB for 1,024 rows of RemBERT's vocabulary, and automatic differentiation holds them several
times. Here a few rows are taken at a time: their logits, their loss, and at once their part of the gradients, which
follow from the same probabilities. What is kept is the gradients themselves, the layer's in one piece of memory that
each part is added to. The backward pass has nothing left to do but to scale them.

Products are in the dtype of the given states, the softmax and every sum in float32, or float64 for float64.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import tensorflow as tf

from rembert.common.checks import IGNORE_INDEX
from rembert.tf.keras_internals import in_xla

Tensor = Any

# Logits held at a time: 128 MB in float32. Fewer make the products too thin to be fast; a GPU needs thicker ones.
_AT_A_TIME = {"CPU": 2**25, "GPU": 2**28}
# Columns of the kernel's gradient that are added to at a time.
_ADDED_AT_A_TIME = 2**14


def linear_cross_entropy(states: Tensor, kernel: Tensor, bias: Tensor, labels: Tensor, training: bool) -> Tensor:
    """Mean of -log softmax(states kernel + bias)[label] over the labels that are not -100; 0 where none is.

    The gradient can be taken once: it has none of its own.

    Args:
        states: [n, w]; the products are in their dtype.
        kernel: [w, v].
        bias: [v].
        labels: [n] integers.
        training: whether gradients will be wanted. If they are and this is False, they cost the logits once more.

    Returns:
        A scalar in float32, or float64 for float64.
    """
    kernel, bias, labels = tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), tf.cast(labels, tf.int32)

    def compute(states: Tensor, kernel: Tensor, bias: Tensor, wanted: bool) -> Any:
        if not tf.executing_eagerly():
            return _compute(states, kernel, bias, labels, wanted)
        # As a graph: there memory is used anew as soon as it is free. A tape that watched the inputs would have the
        # graph keep all of it, for a gradient of its own that nobody takes.
        unwatched = map(tf.stop_gradient, (states, kernel, bias))
        return _in_graph(tuple(kernel.shape), states.dtype, kernel.dtype, wanted)(*unwatched, labels)

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
    """Whether a layer does what its kernel and bias say and no more: no adapter, no quantised kernel."""
    return type(layer) is keras.layers.Dense and not layer.lora_enabled and layer.quantization_mode is None


@cache
def _in_graph(shape: tuple[int, int], dtype: Any, kernel_dtype: Any, wanted: bool) -> Any:
    """`_compute` as a graph for any number of rows."""
    inputs, outputs = shape
    return tf.function(
        lambda states, kernel, bias, labels: _compute(states, kernel, bias, labels, wanted),
        input_signature=[
            tf.TensorSpec([None, inputs], dtype),
            tf.TensorSpec(shape, kernel_dtype),
            tf.TensorSpec([outputs], kernel_dtype),
            tf.TensorSpec([None], tf.int32),
        ],
        autograph=False,
    )


def _compute(states: Tensor, kernel: Tensor, bias: Tensor, labels: Tensor, wanted: bool) -> Any:
    """The mean loss, and where they are wanted its gradients in the states, the kernel and the bias."""
    statistics = keras.backend.result_type(states.dtype, "float32")
    counted = labels != IGNORE_INDEX
    weights = tf.cast(counted, statistics)
    share = 1 / tf.maximum(tf.reduce_sum(weights), 1)
    targets = tf.where(counted, labels, 0)
    used_kernel, used_bias = tf.cast(kernel, states.dtype), tf.cast(bias, states.dtype)

    def part(begin: Any, end: Any) -> tuple[Tensor, ...]:
        """The loss of some rows and its gradient in them; and what the kernel's gradient is the product of."""
        rows, wanted_at, weight = states[begin:end], targets[begin:end], weights[begin:end]
        logits = tf.cast(tf.matmul(rows, used_kernel) + used_bias, statistics)
        logits -= tf.reduce_max(logits, 1, keepdims=True)
        probabilities = tf.exp(logits)
        sums = tf.reduce_sum(probabilities, 1)
        losses = tf.math.log(sums) - tf.gather(logits, wanted_at, batch_dims=1)
        loss = tf.reduce_sum(losses * weight) * share
        if not wanted:
            return (loss,)
        places = tf.stack([tf.range(tf.shape(rows)[0]), wanted_at], 1)
        d_logits = probabilities * (weight / sums)[:, None]
        d_logits = tf.tensor_scatter_nd_sub(d_logits, places, weight)
        used_d_logits = tf.cast(d_logits, states.dtype)
        d_rows = tf.matmul(used_d_logits, used_kernel, transpose_b=True)
        return loss, _scaled(d_rows, share), tf.reduce_sum(d_logits, 0) * share, rows, used_d_logits

    def first(begin: Any, end: Any) -> tuple[Tensor, ...]:
        if not wanted:
            return part(begin, end)
        loss, d_rows, d_bias, rows, d_logits = part(begin, end)
        return loss, d_rows, d_bias, _scaled(tf.matmul(rows, d_logits, transpose_a=True), share)

    def following(begin: Any, end: Any, *totals: Tensor) -> tuple[Tensor, ...]:
        if not wanted:
            return (totals[0] + part(begin, end)[0],)
        loss, d_rows, d_bias, rows, d_logits = part(begin, end)
        d_kernel = totals[3]
        for start in range(0, kernel.shape[1], _ADDED_AT_A_TIME):
            stop = min(start + _ADDED_AT_A_TIME, kernel.shape[1])
            block = _scaled(tf.matmul(rows, d_logits[:, start:stop], transpose_a=True), share)
            block += d_kernel[:, start:stop]
            # Written into the memory of `d_kernel`, which nobody else holds.
            d_kernel = tf.raw_ops.TensorStridedSliceUpdate(
                input=d_kernel, begin=[0, start], end=[rows.shape[1], stop], strides=[1, 1], value=block
            )
        return totals[0] + loss, tf.concat([totals[1], d_rows], 0), totals[2] + d_bias, d_kernel

    def _scaled(product: Tensor, factor: Tensor) -> Tensor:
        # The factor comes last: before the product, float16 would lose the small probabilities.
        return tf.cast(product, statistics) * factor

    most = max(_AT_A_TIME["GPU" if tf.config.list_physical_devices("GPU") else "CPU"] // kernel.shape[1], 1)
    count = states.shape[0]
    if count is not None:
        size = -(-count // max(-(-count // most), 1))
        totals = first(0, size)
        for begin in range(size, count, size):
            totals = following(begin, begin + size, *totals)
    elif in_xla():
        # Known when it compiles, but not here: XLA's loops know no tensor that grows, so all rows are one part.
        totals = first(0, tf.shape(states)[0])
    else:
        count = tf.shape(states)[0]
        size = -(-count // tf.maximum(-(-count // most), 1))
        totals = first(0, size)
        shapes = [total.shape for total in totals]
        if wanted:
            shapes[1] = tf.TensorShape([None, states.shape[1]])
        _, *totals = tf.while_loop(
            lambda begin, *_: begin < count,
            lambda begin, *totals: (begin + size, *following(begin, begin + size, *totals)),
            (size, *totals),
            shape_invariants=(tf.TensorShape([]), *shapes),
        )
    if not wanted:
        return (totals[0],)
    loss, d_states, d_bias, d_kernel = totals
    return loss, tf.cast(d_states, states.dtype), tf.cast(d_kernel, kernel.dtype), tf.cast(d_bias, bias.dtype)
