"""Attention within the sequences of a packed batch, by the form that suits the device, and as an operator of graphs.

Notation: n sequences of up to s positions, t tokens in total, h heads, d head size.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rembert.pt.masks import attention_bias
from rembert.pt.packing import GraphPacking, Packing, pack_lengths, reads_when_run


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, causal: bool, dropout: float
) -> Tensor:
    """Attention within each sequence.

    In a graph of `torch.compile` it is one operator, which reads the lengths when it runs. Otherwise, on a GPU it is
    the variable-length kernel if it exists (half precision, no dropout) or a padded call. On a CPU it is one call for
    each sequence: on mixed lengths this took a sixth of the padded call's time, and a quarter with the backward pass;
    padding groups of similar lengths took twice as long, nested tensors ten times.

    Args:
        query, key, value: [t, h, d].
        packing: of the batch.
        causal: whether a token attends to earlier ones and itself only.
        dropout: of the probabilities.

    Returns:
        [t, h, d].
    """
    if reads_when_run():
        seed = torch.randint(2**31, ()) if dropout else None
        return _attend_when_run(query, key, value, packing.cu_seqlens, seed, causal, dropout)
    return _attend_packed(query, key, value, packing, causal, dropout)


def _attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    causal: bool,
    dropout: float,
    differentiable: bool = False,
) -> Tensor:
    """The form of the device; [t, h, d] three times to [t, h, d]. `differentiable`: for `torch.func`."""
    if isinstance(packing, GraphPacking):
        return _attend_padded(query, key, value, packing, causal, dropout)
    if query.device.type == "cpu":
        return _attend_each(query, key, value, packing.lengths, causal, dropout)
    if dropout == 0.0 and not differentiable and _has_variable_length_kernel(query):
        return _attend_variable_length(query, key, value, packing, causal)
    return _attend_padded(query, key, value, packing, causal, dropout)


# Custom operators, which `torch.compile` does not trace: a graph for some lengths would serve no other batch. The
# gradients come from computing the attention again, with the dropout of the same seed.
@torch.library.custom_op(
    "rembert::packed_attention",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, Tensor? seed, bool causal, float dropout)"
    " -> Tensor",
)
def _attend_when_run(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, seed: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """`_attend_packed` by lengths that are read when it runs."""
    with _seeded(seed, query.device):
        return _attend_packed(query, key, value, pack_lengths(cu_seqlens), causal, dropout).contiguous()


@torch.library.custom_op(
    "rembert::packed_attention_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor query, Tensor key, Tensor value, Tensor cu_seqlens, Tensor? seed, bool causal, "
    "float dropout) -> (Tensor, Tensor, Tensor)",
)
def _gradients_when_run(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    seed: Tensor | None,
    causal: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `_attend_when_run` in the query, the key and the value."""
    packing = pack_lengths(cu_seqlens)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _attend_packed(query, key, value, packing, causal, dropout, differentiable=True)

    with _seeded(seed, query.device):
        pull_back = torch.func.vjp(attend, query, key, value)[1]  # within an operator autograd is off, `vjp` is not
    one, two, three = (each.contiguous() for each in pull_back(gradient))
    return one, two, three


@_attend_when_run.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@_gradients_when_run.register_fake
def _(_: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (torch.empty_like(each, memory_format=torch.contiguous_format) for each in inputs[:3])
    return one, two, three


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.causal, ctx.dropout = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients_when_run(gradient, *ctx.saved_tensors, ctx.causal, ctx.dropout), None, None, None, None


_attend_when_run.register_autograd(_backward, setup_context=_keep_inputs)


@contextlib.contextmanager
def _seeded(seed: Tensor | None, device: torch.device) -> Iterator[None]:
    """Inside the block the device's default generator starts from `seed` if there is one; its state is kept."""
    if seed is None:
        yield
    elif device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed))
            yield
    else:
        with torch.random.fork_rng([device], device_type=device.type), torch.get_device_module(device).device(device):
            torch.get_device_module(device).manual_seed(int(seed))
            yield


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
