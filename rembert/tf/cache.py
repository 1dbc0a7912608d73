"""The key/value cache of decoder mode: plain tuples, which compilers and structure libraries can handle.

For each layer (key, value), or (key, value, cross key, cross value) in a decoder with cross-attention; each tensor is
[b, h, t, d]. A call returns a new tuple and leaves the given one unchanged.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any
LayerCache = tuple[Tensor, ...]
Cache = tuple[LayerCache, ...]


def cached_length(past_key_values: Cache | None) -> Any:
    """Number of positions in the cache, 0 without one; a scalar tensor if a graph does not know it yet."""
    return ops.shape(past_key_values[0][0])[2] if past_key_values else 0


def extend(cached: LayerCache | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the cached positions, followed by the new ones."""
    if cached is None:
        return key, value
    return ops.concatenate([cached[0], key], axis=2), ops.concatenate([cached[1], value], axis=2)
