"""Attention masks as a bias that is added to the scores."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from keras import ops

Tensor = Any


def attention_bias(
    attention_mask: Tensor | None, *, length: Any, past_length: Any, causal: bool, dtype: str
) -> Tensor | None:
    """0 where a query may attend, a large negative number elsewhere; None if every query attends to every key.

    A query with all keys masked attends to all of them (in a decoder to all earlier ones): its result is
    meaningless but finite, with the same gradient as in PyTorch, where the kernels require this.

    Args:
        attention_mask: [b, t] (1 for a real token), or [b, s, t] (1 where the query may attend), or None. The second
            form is used unchanged: a decoder adds no causal mask to it.
        length: number of queries, s.
        past_length: number of cached positions; t = past_length + s.
        causal: whether a query attends to earlier positions and itself only.
        dtype: of the scores.

    Returns:
        [b or 1, 1, s or 1, t], or None.
    """
    before: Tensor | None = None
    if causal and (attention_mask is None or len(attention_mask.shape) == 2):
        queries = ops.arange(past_length, past_length + length, dtype="int32")[:, None]
        keys = ops.arange(past_length + length, dtype="int32")[None]
        before = ops.expand_dims(keys <= queries, (0, 1))
    allowed = before
    if attention_mask is not None:
        real = ops.not_equal(attention_mask, ops.zeros((), dtype=attention_mask.dtype))
        # Not by indexing: LiteRT cannot slice booleans.
        real = ops.expand_dims(real, 1 if len(real.shape) == 3 else (1, 2))
        allowed = real if before is None else ops.logical_and(real, before)
        is_masked = ops.logical_not(ops.any(allowed, axis=-1, keepdims=True))
        allowed = ops.logical_or(allowed, is_masked if before is None else ops.logical_and(is_masked, before))
    if allowed is None:
        return None
    # Half of the smallest number: a negative score added to the smallest itself would give -inf in float16.
    smallest = float((ml_dtypes if dtype == "bfloat16" else np).finfo(dtype).min)
    return ops.where(allowed, ops.zeros((), dtype=dtype), ops.full((), smallest / 2, dtype=dtype))
