"""The key/value cache of decoder mode: plain tuples, so that it passes through compilers and data structures.

For each layer (key, value), or (key, value, cross key, cross value) in a decoder with cross-attention; each tensor is
[b, h, t, d]. A call returns a new tuple; what it was given stays as it was.
"""

from __future__ import annotations

import torch
from torch import Tensor

LayerCache = tuple[Tensor, ...]
Cache = tuple[LayerCache, ...]


def cached_length(past_key_values: Cache | None) -> int:
    """Positions in the cache, 0 where there is none."""
    return past_key_values[0][0].shape[2] if past_key_values else 0


def extend(cached: LayerCache | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the cached positions, followed by the new ones."""
    if cached is None:
        return key, value
    return torch.cat([cached[0], key], dim=2), torch.cat([cached[1], value], dim=2)
