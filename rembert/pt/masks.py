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
    """0 where a query may look, a large negative number where not; None where all may look everywhere.

    The number is finite, so a row without anything to look at gives finite results (equal weights).

    Args:
        attention_mask: [b, t] (1 for a real token), or [b, s, t] (1 where the query may look), or None. The second
            form is taken as it is: a decoder adds no causal mask to it.
        length: queries, s.
        past_length: cached positions; t = past_length + s.
        causal: whether a query looks at earlier positions and itself only.
        dtype: of the scores.
        device: of the scores.

    Returns:
        [b or 1, 1, s or 1, t], or None.
    """
    allowed: Tensor | None = None
    if attention_mask is not None:
        allowed = attention_mask != 0
        allowed = allowed[:, None] if allowed.ndim == 3 else allowed[:, None, None]
    if causal and (attention_mask is None or attention_mask.ndim == 2):
        queries = torch.arange(past_length, past_length + length, device=device)[:, None]
        keys = torch.arange(past_length + length, device=device)[None]
        before = (keys <= queries)[None, None]
        allowed = before if allowed is None else allowed & before
    if allowed is None:
        return None
    bias = torch.zeros(allowed.shape, dtype=dtype, device=device)
    # Half of the smallest number: adding a negative score to the smallest itself would give -inf in float16.
    return bias.masked_fill(~allowed, torch.finfo(dtype).min / 2)
