"""Multi-head attention: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.

Notation: b batch, s queries, t keys, h heads, d width of a head, e = h × d.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.config import RemBertConfig
from rembert.pt.cache import LayerCache, extend


class RemBertSelfAttention(nn.Module):
    """softmax(Q Kᵀ / sqrt(d)) V, for self-attention or attention to an encoder's states."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        bias: Tensor | None,
        *,
        source: Tensor | None = None,
        cached: LayerCache | None = None,
        is_cross: bool = False,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, LayerCache]:
        """Attend.

        Args:
            hidden_states: [b, s, e], where the queries come from.
            bias: added to the scores, broadcastable to [b, h, s, t].
            source: [b, t, e], where keys and values come from in cross-attention.
            cached: (key, value) of earlier calls: of earlier positions, or of the whole source in cross-attention.
            is_cross: whether this is cross-attention.
            output_attentions: whether to return the probabilities.

        Returns:
            The context [b, s, e], the probabilities [b, h, s, t] or None, and the (key, value) to cache.
        """
        query = self.split_heads(self.query(hidden_states))
        if is_cross and cached is not None:
            key, value = cached
        else:
            states = source if is_cross else hidden_states
            key, value = self.split_heads(self.key(states)), self.split_heads(self.value(states))
            if not is_cross:
                key, value = extend(cached, key, value)
        context, probabilities = self.attend(query, key, value, bias, output_attentions)
        return context.transpose(1, 2).flatten(2), probabilities, (key, value)  # (b, s, e)

    def split_heads(self, states: Tensor) -> Tensor:
        """[b, t, e] to [b, h, t, d]."""
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Fused attention, or the explicit form when the probabilities are asked for; both take [b, h, ·, d]."""
        if not output_attentions:
            dropout = self.dropout.p if self.training else 0.0
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout), None
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_dim)  # (b, h, s, t)
        if bias is not None:
            scores = scores + bias
        statistics = torch.promote_types(scores.dtype, torch.float32)
        probabilities = torch.softmax(scores, dim=-1, dtype=statistics).to(value.dtype)
        return self.dropout(probabilities) @ value, probabilities


class RemBertSelfOutput(nn.Module):
    """The linear layer after attention, dropout, and LayerNorm of the sum with the sub-layer's input."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, context: Tensor, residual: Tensor) -> Tensor:
        """[b, s, e] and [b, s, e] to [b, s, e]."""
        return self.LayerNorm(self.dropout(self.dense(context)) + residual)


class RemBertAttention(nn.Module):
    """An attention sub-layer: attention, projection, residual, LayerNorm."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.self = RemBertSelfAttention(config)
        self.output = RemBertSelfOutput(config)

    def forward(
        self,
        hidden_states: Tensor,
        bias: Tensor | None,
        *,
        source: Tensor | None = None,
        cached: LayerCache | None = None,
        is_cross: bool = False,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, LayerCache]:
        """As `RemBertSelfAttention`, with the sub-layer's output [b, s, e] in place of the context."""
        context, probabilities, cache = self.self(
            hidden_states,
            bias,
            source=source,
            cached=cached,
            is_cross=is_cross,
            output_attentions=output_attentions,
        )
        return self.output(context, hidden_states), probabilities, cache
