"""One layer of the encoder: attention, optional cross-attention, feed-forward; LayerNorm after each residual."""

from __future__ import annotations

from typing import Any

import keras

from rembert.common.config import RemBertConfig
from rembert.tf.activations import ACTIVATIONS
from rembert.tf.attention import TFRemBertAttention
from rembert.tf.cache import LayerCache
from rembert.tf.layers import RemBertLayerBase, dense, dropout, norm
from rembert.tf.packing import Packing

Tensor = Any


@keras.saving.register_keras_serializable("rembert")
class TFRemBertIntermediate(RemBertLayerBase):
    """The widening half of the feed-forward part: linear layer and activation."""

    output_width = "intermediate_size"

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.dense = dense(config, config.intermediate_size, "dense", self.dtype_policy)
        self.activation = ACTIVATIONS[config.hidden_act]

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(dense=self.config.hidden_size)

    def call(self, hidden_states: Tensor) -> Tensor:
        """[b, s, e] to [b, s, intermediate_size]."""
        return self.activation(self.dense(hidden_states))


@keras.saving.register_keras_serializable("rembert")
class TFRemBertOutput(RemBertLayerBase):
    """The narrowing half of the feed-forward part: linear layer, dropout, residual, LayerNorm."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.dense = dense(config, config.hidden_size, "dense", self.dtype_policy)
        self.LayerNorm = norm(config, self.dtype_policy)
        self.dropout = dropout(config.hidden_dropout_prob, self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.build_parts(dense=self.config.intermediate_size, LayerNorm=self.config.hidden_size)

    def call(self, widened: Tensor, residual: Tensor, training: bool | None = None) -> Tensor:
        """[b, s, intermediate_size] and [b, s, e] to [b, s, e]."""
        return self.LayerNorm(self.dropout(self.dense(widened), training=training) + residual)


@keras.saving.register_keras_serializable("rembert")
class TFRemBertLayer(RemBertLayerBase):
    """Attention and feed-forward."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.attention = TFRemBertAttention(config, name="attention", dtype=self.dtype_policy)
        if config.add_cross_attention:
            self.crossattention = TFRemBertAttention(config, name="crossattention", dtype=self.dtype_policy)
        self.intermediate = TFRemBertIntermediate(config, name="intermediate", dtype=self.dtype_policy)
        self.out = TFRemBertOutput(config, name="output", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        width = self.config.hidden_size
        self.build_parts(attention=width, intermediate=width, out=self.config.intermediate_size)
        if self.config.add_cross_attention:
            self.build_parts(crossattention=width)

    # Keras inspects a call's tensors one argument at a time, so the fields of the twin's `LayerContext` are arguments.
    def call(
        self,
        hidden_states: Tensor,
        bias: Tensor | tuple[Tensor, ...] | None = None,
        source: Tensor | None = None,
        source_bias: Tensor | None = None,
        cached: LayerCache | None = None,
        packing: Packing | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, LayerCache]:
        """[b, s, e] or packed [t, e] to the same, with self- and cross-attention's probabilities (or None) and the
        layer's cache.

        Cross-attention is left out when neither a source nor its cached keys are given.

        Args:
            bias: self-attention's, [b or 1, 1, s or 1, t], or None; of packed states one for each group.
            source: encoder states for cross-attention, [b, source, e], or None.
            source_bias: cross-attention's, [b, 1, s or 1, source], or None.
            packing: of packed states, which have neither source nor cache; None for [b, s, e].
        """
        hidden_states, probabilities, cache = self.attention(
            hidden_states,
            bias,
            cached=cached[:2] if cached is not None else None,
            packing=packing,
            training=training,
        )
        cross_probabilities = None
        cached_source = cached[2:] if cached is not None and len(cached) == 4 else None
        if source is not None or cached_source is not None:
            hidden_states, cross_probabilities, cross_cache = self.crossattention(
                hidden_states, source_bias, source=source, cached=cached_source, is_cross=True, training=training
            )
            cache = (*cache, *cross_cache)
        hidden_states = self.out(self.intermediate(hidden_states), hidden_states, training=training)
        return hidden_states, probabilities, cross_probabilities, cache
