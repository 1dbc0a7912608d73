"""Multi-head attention: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.

Notation: b batch, s queries, t keys (or the tokens of a packed batch), h heads, d width of a head, e = h × d.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rembert.common.config import RemBertConfig
from rembert.pt.cache import LayerCache, extend
from rembert.pt.masks import attention_bias
from rembert.pt.packing import Packing


class RemBertSelfAttention(nn.Module):
    """softmax(Q Kᵀ / sqrt(d)) V, for self-attention or attention to an encoder's states."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
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
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None, LayerCache]:
        """Attend.

        Args:
            hidden_states: [b, s, e], where the queries come from; with `packing` [t, e].
            bias: added to the scores, broadcastable to [b, h, s, t].
            source: [b, t, e], where keys and values come from in cross-attention.
            cached: (key, value) of earlier calls: of earlier positions, or of the whole source in cross-attention.
            is_cross: whether this is cross-attention.
            explicit: whether to compute and return the probabilities.
            packing: of packed states; they attend to their own sequences, without bias or cache.

        Returns:
            The context as `hidden_states`, the probabilities [b, h, s, t] or None, and the (key, value) to cache.
        """
        if packing is not None:
            heads = (self.num_heads, self.head_dim)
            query, key, value = (
                project(hidden_states).unflatten(-1, heads) for project in (self.query, self.key, self.value)
            )
            dropout = self.dropout.p if self.training else 0.0
            context = attend_packed(query, key, value, packing, causal=self.is_causal, dropout=dropout)
            return context.flatten(1), None, ()  # (t, e)
        query = self.split_heads(self.query(hidden_states))
        if is_cross and cached is not None:
            key, value = cached
        else:
            states = source if is_cross else hidden_states
            key, value = self.split_heads(self.key(states)), self.split_heads(self.value(states))
            if not is_cross:
                key, value = extend(cached, key, value)
        context, probabilities = self.attend(query, key, value, bias, explicit)
        return context.transpose(1, 2).flatten(2), probabilities, (key, value)  # (b, s, e)

    def split_heads(self, states: Tensor) -> Tensor:
        """[b, t, e] to [b, h, t, d]."""
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, explicit: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Fused attention, or the explicit form with its probabilities; both take [b, h, ·, d]."""
        if not explicit:
            dropout = self.dropout.p if self.training else 0.0
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout), None
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_dim)  # (b, h, s, t)
        if bias is not None:
            scores = scores + bias
        statistics = torch.promote_types(scores.dtype, torch.float32)
        probabilities = torch.softmax(scores, dim=-1, dtype=statistics).to(value.dtype)
        return self.dropout(probabilities) @ value, probabilities


def attend_packed(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, *, causal: bool, dropout: float
) -> Tensor:
    """Attention within each sequence of a packed batch: [t, h, d] three times to [t, h, d].

    On a GPU the variable-length kernel where it exists (half precision, no dropout), or a padded call. On a CPU one
    call for each sequence, which took a sixth of the padded call's time on mixed lengths, forward and backward a
    quarter; sequences of like lengths in one padded call took twice as long, nested tensors ten times.
    """
    if query.device.type == "cpu":
        return _attend_each(query, key, value, packing.lengths, causal, dropout)
    if dropout == 0.0 and _has_variable_length_kernel(query):
        return _attend_variable_length(query, key, value, packing, causal)
    return _attend_padded(query, key, value, packing, causal, dropout)


def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool, dropout: float
) -> Tensor:
    contexts = []
    for parts in zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True):
        if len(parts[0]):
            one, keys, values = (part.transpose(0, 1)[None] for part in parts)  # (1, h, s, d)
            context = F.scaled_dot_product_attention(one, keys, values, dropout_p=dropout, is_causal=causal)
            contexts.append(context.squeeze(0).transpose(0, 1))
    # Without any token there is nothing to compute; the three layers stay parts of the graph, as DDP wants it.
    return torch.cat(contexts) if contexts else query + key + value


def _has_variable_length_kernel(query: Tensor) -> bool:
    """Flash attention: half precision, heads of up to 256 in steps of 8, NVIDIA's Ampere and later."""
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and len(query) > 0
        and torch.version.cuda is not None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and _variable_length_function() is not None
    )


@functools.cache
def _variable_length_function() -> Callable[..., Any] | None:
    """PyTorch's own; None in versions without it or without its sliding window, and in builds for CPUs."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


def _attend_variable_length(query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool) -> Tensor:
    attend = _variable_length_function()
    assert attend is not None  # the caller has asked
    cu, longest = packing.cu_seqlens, packing.max_length
    window = (-1, 0) if causal else (-1, -1)
    context = attend(query, key, value, cu, cu, longest, longest, window_size=window)
    assert isinstance(context, Tensor)  # the statistics were not asked for
    return context


def _attend_padded(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool, dropout: float
) -> Tensor:
    bias = attention_bias(
        packing.mask(), length=packing.width, past_length=0, causal=causal, dtype=query.dtype, device=query.device
    )
    query, key, value = (packing.unpack(part).transpose(1, 2) for part in (query, key, value))  # (n, h, s, d)
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    return packing.pack(context.transpose(1, 2))


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
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None, LayerCache]:
        """As `RemBertSelfAttention`, with the sub-layer's output [b, s, e] in place of the context."""
        context, probabilities, cache = self.self(
            hidden_states,
            bias,
            source=source,
            cached=cached,
            is_cross=is_cross,
            explicit=explicit,
            packing=packing,
        )
        return self.output(context, hidden_states), probabilities, cache
