"""One layer of the encoder: attention, optional cross-attention, feed-forward; LayerNorm after each residual."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rembert.common.config import RemBertConfig
from rembert.pt.activations import ACTIVATIONS
from rembert.pt.attention import RemBertAttention
from rembert.pt.cache import LayerCache
from rembert.pt.packing import Packing


class RemBertIntermediate(nn.Module):
    """The widening half of the feed-forward part: linear layer and activation."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[b, s, e] to [b, s, intermediate_size]."""
        return self.activation(self.dense(hidden_states))


class RemBertOutput(nn.Module):
    """The narrowing half of the feed-forward part: linear layer, dropout, residual, LayerNorm."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, widened: Tensor, residual: Tensor) -> Tensor:
        """[b, s, intermediate_size] and [b, s, e] to [b, s, e]."""
        return self.LayerNorm(self.dropout(self.dense(widened)) + residual)


@dataclass(frozen=True)
class LayerContext:
    """What every layer of one call shares.

    Attributes:
        bias: self-attention's, [b or 1, 1, s or 1, t], or None.
        source: encoder states for cross-attention, [b, source, e], or None.
        source_bias: cross-attention's, [b, 1, s or 1, source], or None.
        explicit: whether attention computes its probabilities, and layers return them.
        packing: of packed states [t, e], which have neither bias nor source nor cache; None for [b, s, e].
    """

    bias: Tensor | None = None
    source: Tensor | None = None
    source_bias: Tensor | None = None
    explicit: bool = False
    packing: Packing | None = None


class RemBertLayer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.attention = RemBertAttention(config)
        if config.add_cross_attention:
            self.crossattention = RemBertAttention(config)
        self.intermediate = RemBertIntermediate(config)
        self.output = RemBertOutput(config)

    def forward(
        self, hidden_states: Tensor, context: LayerContext, cached: LayerCache | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, LayerCache]:
        """[b, s, e] to [b, s, e], with self- and cross-attention's probabilities (or None) and the layer's cache.

        Packed states are [t, e]. Cross-attention is left out when neither a source nor its cached keys are given.
        """
        hidden_states, probabilities, cache = self.attention(
            hidden_states,
            context.bias,
            cached=cached[:2] if cached is not None else None,
            explicit=context.explicit,
            packing=context.packing,
        )
        cross_probabilities = None
        cached_source = cached[2:] if cached is not None and len(cached) == 4 else None
        if context.source is not None or cached_source is not None:
            hidden_states, cross_probabilities, cross_cache = self.crossattention(
                hidden_states,
                context.source_bias,
                source=context.source,
                cached=cached_source,
                is_cross=True,
                explicit=context.explicit,
            )
            cache = (*cache, *cross_cache)
        hidden_states = self.output(self.intermediate(hidden_states), hidden_states)
        return hidden_states, probabilities, cross_probabilities, cache
