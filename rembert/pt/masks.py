"""Attention masks as a bias that is added to the scores."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_bias(
    attention_mask: Tensor | None,
    *,
    length: int,
    past_length: int,
    causal: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:
    """0 where a query may attend, a large negative number elsewhere; None if every query attends to every key.

    A query with all keys masked attends to all of them (in a decoder to all earlier ones): its result is
    meaningless but finite, with the same gradient in every kernel. (With one large negative number at all keys, the
    backward pass of the fused kernels would lose the scores and weight every key with 1.)

    Args:
        attention_mask: [b, t] (1 for a real token), or [b, s, t] (1 where the query may attend), or None. The second
            form is used unchanged: a decoder adds no causal mask to it.
        length: number of queries, s.
        past_length: number of cached positions; t = past_length + s.
        causal: whether a query attends to earlier positions and itself only.
        dtype: of the scores.
        device: of the scores.

    Returns:
        [b or 1, 1, s or 1, t], or None.
    """
    before: Tensor | None = None
    if causal and (attention_mask is None or attention_mask.ndim == 2):
        queries = torch.arange(past_length, past_length + length, device=device)[:, None]
        keys = torch.arange(past_length + length, device=device)[None]
        before = (keys <= queries)[None, None]
    allowed = before
    if attention_mask is not None:
        real = attention_mask != 0
        real = real[:, None] if real.ndim == 3 else real[:, None, None]
        allowed = real if before is None else real & before
        is_masked = ~allowed.any(-1, keepdim=True)
        allowed = allowed | (is_masked if before is None else is_masked & before)
    if allowed is None:
        return None
    bias = torch.zeros(allowed.shape, dtype=dtype, device=device)
    # Half of the smallest number: a negative score added to the smallest itself would give -inf in float16.
    return bias.masked_fill(~allowed, torch.finfo(dtype).min / 2)
