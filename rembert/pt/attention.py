"""Multi-head attention: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.

Notation: b batch, s queries, t keys (or the tokens of a packed batch), h heads, d head size, e = h × d.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.config import RemBertConfig
from rembert.pt.cache import LayerCache, extend
from rembert.pt.packed_attention import packed_attention
from rembert.pt.packing import Packing


class RemBertSelfAttention(nn.Module):
    """softmax(Q Kᵀ / sqrt(d)) V, for self-attention or attention to an encoder's states."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.is_causal = config.is_decoder
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
        explicit: bool = False,
        use_cache: bool = False,
        packing: Packing | None = None,
    ) -> tuple[Tensor, ...]:
        """Attend.

        Args:
            hidden_states: [b, s, e], the source of the queries; with `packing` [t, e].
            bias: added to the scores, broadcastable to [b, h, s, t].
            source: [b, t, e], the source of keys and values in cross-attention.
            cached: (key, value) of earlier calls: of earlier positions, or of the whole source in cross-attention.
            is_cross: whether this is cross-attention.
            explicit: whether to compute and return the probabilities.
            use_cache: whether to return the keys and values.
            packing: of packed states, which attend within their own sequences, without bias or cache.

        Returns:
            The context in the shape of `hidden_states`; if asked for, then the probabilities [b, h, s, t]; if asked
            for, then the key and the value to cache, [b, h, t, d] each.
        """
        if packing is not None:
            query, key, value = (project(hidden_states) for project in (self.query, self.key, self.value))
            return (self.attend_packed(query, key, value, packing),)
        query = self.split_heads(self.query(hidden_states))
        if is_cross and cached is not None:
            key, value = cached
        else:
            states = source if is_cross else hidden_states
            key, value = self.split_heads(self.key(states)), self.split_heads(self.value(states))
            if not is_cross:
                key, value = extend(cached, key, value)
        context, *probabilities = self.attend(query, key, value, bias, explicit)
        return self.join_heads(context), *probabilities, *((key, value) if use_cache else ())

    def split_heads(self, states: Tensor) -> Tensor:
        """[b, t, e] to [b, h, t, d]."""
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def join_heads(self, context: Tensor) -> Tensor:
        """[b, h, s, d] to [b, s, e]."""
        return context.transpose(1, 2).flatten(2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, explicit: bool
    ) -> tuple[Tensor, ...]:
        """The context of fused attention, or of the explicit form and its probabilities; all take [b, h, ·, d]."""
        if not explicit:
            dropout = self.dropout.p if self.training else 0.0
            return (F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout),)
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_dim)  # (b, h, s, t)
        if bias is not None:
            scores = scores + bias
        statistics = torch.promote_types(scores.dtype, torch.float32)
        probabilities = torch.softmax(scores, dim=-1, dtype=statistics).to(value.dtype)
        return self.dropout(probabilities) @ value, probabilities

    def attend_packed(self, query: Tensor, key: Tensor, value: Tensor, packing: Packing) -> Tensor:
        """Attention within each sequence of a packed batch; arguments and result are [t, e]."""
        shape = (self.num_heads, self.head_dim)
        query, key, value = (states.unflatten(-1, shape) for states in (query, key, value))  # (t, h, d)
        dropout = self.dropout.p if self.training else 0.0
        return packed_attention(query, key, value, packing, self.is_causal, dropout).flatten(1)


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
        explicit: bool = False,
        use_cache: bool = False,
        packing: Packing | None = None,
    ) -> tuple[Tensor, ...]:
        """As `RemBertSelfAttention`, with the sub-layer's output [b, s, e] in place of the context."""
        context, *others = self.self(
            hidden_states,
            bias,
            source=source,
            cached=cached,
            is_cross=is_cross,
            explicit=explicit,
            use_cache=use_cache,
            packing=packing,
        )
        return self.output(context, hidden_states), *others
