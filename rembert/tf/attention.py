"""Multi-head attention: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.

Notation: b batch, s queries, t keys (or the tokens of a packed batch), h heads, d head size, e = h × d.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from rembert.common.config import RemBertConfig
from rembert.tf.cache import LayerCache, extend
from rembert.tf.layers import RemBertLayerBase, dense, dropout, norm
from rembert.tf.packing import Packing

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertSelfAttention(RemBertLayerBase):
    """softmax(Q Kᵀ / sqrt(d)) V, for self-attention or attention to an encoder's states."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.query = dense(config, config.hidden_size, "query", self.dtype_policy)
        self.key = dense(config, config.hidden_size, "key", self.dtype_policy)
        self.value = dense(config, config.hidden_size, "value", self.dtype_policy)
        self.dropout = dropout(config.attention_probs_dropout_prob, self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        width = self.config.hidden_size
        self.build_parts(query=width, key=width, value=width)

    def call(
        self,
        hidden_states: Tensor,
        bias: Tensor | tuple[Tensor, ...] | None = None,
        source: Tensor | None = None,
        cached: LayerCache | None = None,
        is_cross: bool = False,
        packing: Packing | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor | None, LayerCache]:
        """Attend.

        Args:
            hidden_states: [b, s, e], the source of the queries; with `packing` [t, e].
            bias: added to the scores, broadcastable to [b, h, s, t]; with `packing` one for each group.
            source: [b, t, e], the source of keys and values in cross-attention.
            cached: (key, value) of earlier calls: of earlier positions, or of the whole source in cross-attention.
            is_cross: whether this is cross-attention.
            packing: of packed states, which attend within their own sequences, without a cache.
            training: whether dropout is on.

        Returns:
            The context in the shape of `hidden_states`, the probabilities [b, h, s, t] (None for packed states), and
            the (key, value) to cache.
        """
        if packing is not None:
            query, key, value = (project(hidden_states) for project in (self.query, self.key, self.value))
            return self.attend_packed(query, key, value, bias, packing, training), None, ()
        query = self.split_heads(self.query(hidden_states))
        if is_cross and cached is not None:
            key, value = cached
        else:
            states = source if is_cross else hidden_states
            key, value = self.split_heads(self.key(states)), self.split_heads(self.value(states))
            if not is_cross:
                key, value = extend(cached, key, value)
        context, probabilities = self.attend(query, key, value, bias, training)
        return self.join_heads(context), probabilities, (key, value)

    def split_heads(self, states: Tensor) -> Tensor:
        """[b, t, e] to [b, h, t, d]."""
        batch, length = ops.shape(states)[:2]
        return ops.transpose(ops.reshape(states, (batch, length, self.num_heads, self.head_dim)), (0, 2, 1, 3))

    def join_heads(self, context: Tensor) -> Tensor:
        """[b, h, s, d] to [b, s, e]."""
        batch, _, length, _ = ops.shape(context)
        context = ops.transpose(context, (0, 2, 1, 3))
        return ops.reshape(context, (batch, length, self.num_heads * self.head_dim))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, training: bool | None
    ) -> tuple[Tensor, Tensor]:
        """The context and the probabilities; arguments are [b, h, ·, d]."""
        scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(self.head_dim)  # (b, h, s, t)
        if bias is not None:
            scores = scores + bias
        statistics = keras.backend.result_type(scores.dtype, "float32")
        # TensorFlow's softmax: Keras' warns about a single key, as in the first step of decoding.
        probabilities = ops.cast(tf.nn.softmax(ops.cast(scores, statistics), axis=-1), value.dtype)
        return tf.matmul(self.dropout(probabilities, training=training), value), probabilities

    def attend_packed(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Any,
        packing: Packing,
        training: bool | None,
    ) -> Tensor:
        """Attention within each sequence of a packed batch, in groups of similar lengths; all take [t, e]."""
        heads = (tf.reshape(states, (-1, self.num_heads, self.head_dim)) for states in (query, key, value))
        parts = (tf.split(states, packing.sizes, num=len(packing.groups)) for states in heads)
        contexts = []
        for group, mask, *states in zip(packing.groups, bias, *parts, strict=True):
            query, key, value = (tf.transpose(group.unpack(part), (0, 2, 1, 3)) for part in states)  # (b, h, s, d)
            context, _ = self.attend(query, key, value, mask, training)
            contexts.append(group.pack(tf.transpose(context, (0, 2, 1, 3))))
        return tf.reshape(tf.concat(contexts, 0), (-1, self.num_heads * self.head_dim))


@keras.saving.register_keras_serializable("rembert")
class TFRemBertSelfOutput(RemBertLayerBase):
    """The linear layer after attention, dropout, and LayerNorm of the sum with the sub-layer's input."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.dense = dense(config, config.hidden_size, "dense", self.dtype_policy)
        self.LayerNorm = norm(config, self.dtype_policy)
        self.dropout = dropout(config.hidden_dropout_prob, self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(dense=self.config.hidden_size, LayerNorm=self.config.hidden_size)

    def call(self, context: Tensor, residual: Tensor, training: bool | None = None) -> Tensor:
        """[b, s, e] and [b, s, e] to [b, s, e]."""
        return self.LayerNorm(self.dropout(self.dense(context), training=training) + residual)


@keras.saving.register_keras_serializable("rembert")
class TFRemBertAttention(RemBertLayerBase):
    """An attention sub-layer: attention, projection, residual, LayerNorm."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.self = TFRemBertSelfAttention(config, name="self", dtype=self.dtype_policy)
        # Every Keras layer has a property `output`; the sub-layer of that name is the attribute `out`.
        self.out = TFRemBertSelfOutput(config, name="output", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        width = self.config.hidden_size
        self.build_parts(self=width, out=width)

    def call(
        self,
        hidden_states: Tensor,
        bias: Tensor | tuple[Tensor, ...] | None = None,
        source: Tensor | None = None,
        cached: LayerCache | None = None,
        is_cross: bool = False,
        packing: Packing | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor | None, LayerCache]:
        """As `TFRemBertSelfAttention`, with the sub-layer's output [b, s, e] in place of the context."""
        context, probabilities, cache = self.self(
            hidden_states,
            bias,
            source=source,
            cached=cached,
            is_cross=is_cross,
            packing=packing,
            training=training,
        )
        return self.out(context, hidden_states, training=training), probabilities, cache
