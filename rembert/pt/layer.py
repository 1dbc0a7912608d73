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
        use_cache: whether layers return their keys and values.
        packing: of packed states [t, e], which have neither bias nor source nor cache; None for [b, s, e].
    """

    bias: Tensor | None = None
    source: Tensor | None = None
    source_bias: Tensor | None = None
    explicit: bool = False
    use_cache: bool = False
    packing: Packing | None = None

    def crosses(self, cached: LayerCache | None) -> bool:
        """Whether a layer with this cache attends to a source: one is given, or its keys are cached."""
        return self.source is not None or (cached is not None and len(cached) == 4)


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
    ) -> tuple[Tensor, ...]:
        """[b, s, e] to [b, s, e], then what the context asks for: self- and cross-attention's probabilities, and the
        tensors of the layer's cache. Only tensors, which what is attached to a layer can take.

        Packed states are [t, e]. Cross-attention is left out when neither a source nor its cached keys are given.
        """
        hidden_states, *others = self.attention(
            hidden_states,
            context.bias,
            cached=cached[:2] if cached is not None else None,
            explicit=context.explicit,
            use_cache=context.use_cache,
            packing=context.packing,
        )
        if context.crosses(cached):
            hidden_states, *own = self.crossattention(
                hidden_states,
                context.source_bias,
                source=context.source,
                cached=(cached[2:] or None) if cached is not None else None,
                is_cross=True,
                explicit=context.explicit,
                use_cache=context.use_cache,
            )
            count = int(context.explicit)  # of probabilities, which come before keys and values
            others = [*others[:count], *own[:count], *others[count:], *own[count:]]
        return self.output(self.intermediate(hidden_states), hidden_states), *others
