"""The key/value cache of decoder mode: plain tuples, so that it passes through compilers and data structures.

For each layer (key, value), or (key, value, cross key, cross value) in a decoder with cross-attention; each tensor is
[b, h, t, d]. A call returns a new tuple; what it was given stays as it was.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LayerCache = tuple[Any, ...]
Cache = tuple[LayerCache, ...]


class Room:
    """Keys or values with room for more, in the place of a tensor: generation's own cache, which nothing else holds.

    A tensor would be copied whole for every new token; here what is new is written behind what is there.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity` is the number of positions there will be; memory is taken when the first ones come."""
        self.capacity, self.length = capacity, 0
        self.memory: Tensor | None = None

    @property
    def shape(self) -> tuple[int | None, int | None, int, int | None]:
        """As of a tensor [b, h, t, d], where t are the positions so far."""
        if self.memory is None:
            return (None, None, 0, None)
        batch, heads, _, width = self.memory.shape
        return (batch, heads, self.length, width)

    def append(self, states: Tensor) -> Tensor:
        """Take [b, h, s, d] in; all positions so far, [b, h, t, d], without a copy."""
        batch, heads, new, width = states.shape
        if self.memory is None:
            self.memory = states.new_empty(batch, heads, self.capacity, width)
        self.memory[:, :, self.length : self.length + new] = states
        self.length += new
        return self.memory[:, :, : self.length]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        assert self.memory is not None  # nothing is selected before the prompt is there
        chosen = self.memory[:, :, : self.length].index_select(0, rows)
        if len(rows) != len(self.memory):
            self.memory = self.memory.new_empty(len(rows), *self.memory.shape[1:])
        self.memory[:, :, : self.length] = chosen


def cached_length(past_key_values: Cache | None) -> int:
    """Positions in the cache, 0 where there is none."""
    return past_key_values[0][0].shape[2] if past_key_values else 0


def extend(cached: LayerCache | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of the cached positions, followed by the new ones."""
    if cached is None:
        return key, value
    if isinstance(cached[0], Room):
        return cached[0].append(key), cached[1].append(value)
    return torch.cat([cached[0], key], dim=2), torch.cat([cached[1], value], dim=2)
