"""The key/value cache of decoder mode: plain tuples, which compilers and structure libraries can handle.

For each layer (key, value), or (key, value, cross key, cross value) in a decoder with cross-attention; each tensor is
[b, h, t, d]. A call returns a new tuple and leaves the given one unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LayerCache = tuple[Any, ...]
Cache = tuple[LayerCache, ...]


class CacheBuffer:
    """Keys or values of one layer in preallocated memory, used in place of a tensor by generation only.

    A tensor would be copied as a whole for every new token; here new positions are written after the earlier ones.

    Args:
        capacity: the largest number of positions; memory is allocated with the first ones.

    Example:
        >>> buffer = CacheBuffer(capacity=8)
        >>> buffer.append(torch.zeros(1, 2, 5, 4)).shape
        torch.Size([1, 2, 5, 4])
        >>> buffer.append(torch.zeros(1, 2, 1, 4)).shape
        torch.Size([1, 2, 6, 4])
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.memory: Tensor | None = None

    @property
    def shape(self) -> tuple[int | None, int | None, int, int | None]:
        """As of a tensor [b, h, t, d], where t is the number of positions so far."""
        if self.memory is None:
            return (None, None, 0, None)
        batch, heads, _, width = self.memory.shape
        return (batch, heads, self.length, width)

    def append(self, states: Tensor) -> Tensor:
        """Add [b, h, s, d]; return a view of all positions so far, [b, h, t, d]."""
        batch, heads, new, width = states.shape
        if self.memory is None:
            self.memory = states.new_empty(batch, heads, self.capacity, width)
        self.memory[:, :, self.length : self.length + new] = states
        self.length += new
        return self.memory[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        assert self.memory is not None  # the prompt is appended before rows are selected
        chosen = self.memory[:, :, : self.length].index_select(0, rows)
        if len(rows) != len(self.memory):
            self.memory = self.memory.new_empty(len(rows), *self.memory.shape[1:])
        self.memory[:, :, : self.length] = chosen


class CacheView:
    """Keys and values of one layer that another object holds: in the tuple of a layer it stands for both of them.

    A subclass says how many positions there are and adds new ones.
    """

    length: int

    @property
    def shape(self) -> tuple[int | None, int | None, int, int | None]:
        """As of a tensor [b, h, t, d], where t is the number of positions so far."""
        return (None, None, self.length, None)

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add [b, h, s, d] twice; return the keys and values of all positions, [b, h, t, d] twice."""
        raise NotImplementedError


def cached_length(past_key_values: Cache | None) -> int:
    """Number of positions in the cache, 0 without one."""
    return past_key_values[0][0].shape[2] if past_key_values else 0


def extend(cached: LayerCache | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the cached positions, followed by the new ones."""
    if cached is None:
        return key, value
    if isinstance(cached[0], CacheBuffer):
        return cached[0].append(key), cached[1].append(value)
    if isinstance(cached[0], CacheView):
        return cached[0].extend(key, value)
    return torch.cat([cached[0], key], dim=2), torch.cat([cached[1], value], dim=2)
