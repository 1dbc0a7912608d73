"""The key/value cache of decoder mode: plain tuples, so that it passes through compilers and data structures.

For each layer (key, value), or (key, value, cross key, cross value) in a decoder with cross-attention; each tensor is
[b, h, t, d]. A call returns a new tuple; what it was given stays as it was.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any
LayerCache = tuple[Tensor, ...]
Cache = tuple[LayerCache, ...]


def cached_length(past_key_values: Cache | None) -> Any:
    """Positions in the cache, 0 where there is none; a scalar tensor where a graph does not know it yet."""
    return ops.shape(past_key_values[0][0])[2] if past_key_values else 0


def extend(cached: LayerCache | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the cached positions, followed by the new ones."""
    if cached is None:
        return key, value
    return ops.concatenate([cached[0], key], axis=2), ops.concatenate([cached[1], value], axis=2)
