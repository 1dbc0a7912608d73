"""Multi-head attention: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.

Notation: b batch, s queries, t keys (or the tokens of a packed batch), h heads, d head size, e = h × d.
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
from rembert.pt.packing import GraphPacking, Packing, pack_lengths, reads_when_run


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
        """Attention within each sequence of a packed batch; arguments and result are [t, e].

        In a graph of `torch.compile` for inference it is one operator, which reads the lengths when it runs.

        On a GPU the variable-length kernel if it exists (half precision, no dropout), otherwise a padded call. On a
        CPU one call for each sequence: on mixed lengths this took a sixth of the padded call's time, and a quarter
        with the backward pass; padding groups of similar lengths took twice as long, nested tensors ten times.
        """
        shape = (self.num_heads, self.head_dim)
        query, key, value = (states.unflatten(-1, shape) for states in (query, key, value))  # (t, h, d)
        dropout = self.dropout.p if self.training else 0.0
        if reads_when_run():
            return _attend_when_run(query, key, value, packing.cu_seqlens, self.is_causal, dropout).flatten(1)
        return _attend_packed(query, key, value, packing, self.is_causal, dropout).flatten(1)


def _attend_packed(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool, dropout: float
) -> Tensor:
    """The form of the device; [t, h, d] three times to [t, h, d]."""
    if isinstance(packing, GraphPacking):
        return _attend_padded(query, key, value, packing, causal, dropout)
    if query.device.type == "cpu":
        return _attend_each(query, key, value, packing.lengths, causal, dropout)
    if dropout == 0.0 and _has_variable_length_kernel(query):
        return _attend_variable_length(query, key, value, packing, causal)
    return _attend_padded(query, key, value, packing, causal, dropout)


# A custom operator, which `torch.compile` does not trace: a graph for some lengths would serve no other batch.
@torch.library.custom_op(
    "rembert::packed_attention",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, bool causal, float dropout) -> Tensor",
)
def _attend_when_run(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, causal: bool, dropout: float
) -> Tensor:
    """`_attend_packed` by lengths that are read when it runs, without gradients."""
    return _attend_packed(query, key, value, pack_lengths(cu_seqlens), causal, dropout).contiguous()


@_attend_when_run.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool, dropout: float
) -> Tensor:
    """One call for each sequence; [t, h, d] three times to [t, h, d]."""
    contexts = []
    for parts in zip(query.split(lengths), key.split(lengths), value.split(lengths), strict=True):
        if len(parts[0]):
            one, keys, values = (part.transpose(0, 1)[None] for part in parts)  # (1, h, s, d)
            context = F.scaled_dot_product_attention(one, keys, values, dropout_p=dropout, is_causal=causal)
            contexts.append(context.squeeze(0).transpose(0, 1))
    # A batch without tokens: the three layers stay part of the graph, as DDP requires.
    return torch.cat(contexts) if contexts else query + key + value


def _has_variable_length_kernel(query: Tensor) -> bool:
    """Flash attention: half precision, head sizes up to 256 in steps of 8, NVIDIA Ampere and later."""
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
    """PyTorch's `varlen_attn`; None in versions without it or without its sliding window, and in CPU builds."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


def _attend_variable_length(query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool) -> Tensor:
    """One call of PyTorch's variable-length kernel; [t, h, d] three times to [t, h, d]."""
    attend = _variable_length_function()
    assert attend is not None  # the caller has checked
    cu, longest = packing.cu_seqlens, packing.max_length
    window = (-1, 0) if causal else (-1, -1)
    context = attend(query, key, value, cu, cu, longest, longest, window_size=window)
    assert isinstance(context, Tensor)  # the statistics are not requested
    return context


def _attend_padded(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool, dropout: float
) -> Tensor:
    """One call on the padded batch; [t, h, d] three times to [t, h, d]."""
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
