"""transformers' caches seen as the cache of `rembert.pt`: its layers append through them and read from them.

Notation: b sequences, s new positions, t positions that a layer of the cache returns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from rembert.common.errors import InputError
from rembert.pt import cache as pt_cache
from rembert.pt.cache import CacheView


class LayerView(CacheView):
    """The keys and values of one layer of a transformers cache.

    Args:
        cache: holds the keys and values of all layers.
        layer: the index of the layer.
        length: how many positions it returns beside the new ones; in a static cache also those that are still free.
    """

    def __init__(self, cache: Cache, layer: int, length: int) -> None:
        self.cache, self.layer, self.length = cache, layer, length

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.update(key, value, self.layer)


def new_cache(has_cross_attention: bool) -> Cache:
    """An empty cache that grows with every call."""
    if has_cross_attention:
        return EncoderDecoderCache(DynamicCache(), DynamicCache())
    return DynamicCache()


def check_cache(past_key_values: object) -> None:
    """Refuse what is not a cache of transformers.

    Raises:
        InputError: names its class.
    """
    if past_key_values is not None and not isinstance(past_key_values, Cache):
        raise InputError(
            "`past_key_values` must be a cache of transformers, such as `DynamicCache`. Received: "
            f"{type(past_key_values).__name__}."
        )


def view(cache: Cache, layers: int, new: int) -> pt_cache.Cache:
    """The cache in the form of `rembert.pt`: for each layer its view twice, and the source's keys and values if known.

    Args:
        cache: any cache of transformers.
        layers: the number of layers of the model.
        new: s.
    """
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    result = []
    for index in range(layers):
        layer = LayerView(own, index, own.get_mask_sizes(new, index)[0] - new)
        source: tuple[Tensor, ...] = ()
        if isinstance(cache, EncoderDecoderCache) and cache.is_updated.get(index):
            held = cache.cross_attention_cache.layers[index]
            source = (held.keys, held.values)
        result.append((layer, layer, *source))
    return tuple(result)


def keep_source(cache: Cache, states: pt_cache.Cache) -> None:
    """Hold the source's keys and values that a call computed, for the calls after it."""
    if isinstance(cache, EncoderDecoderCache):
        for index, layer in enumerate(states):
            if len(layer) == 4 and not cache.is_updated.get(index):
                cache.cross_attention_cache.update(layer[2], layer[3], index)
                cache.is_updated[index] = True


def with_free_positions(
    cache: Cache, views: pt_cache.Cache, given: Tensor, mask: Tensor | None, position_ids: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The mask and the positions of a call; a cache that returns free positions too needs both.

    Args:
        cache: holds the earlier positions.
        views: from `view`.
        given: [b, s, ...], the inputs.
        mask: [b, past + s], non-zero for real tokens; None if all are real; [b, s, t] as it is.
        position_ids: as the call has them.

    Returns:
        With free positions, the mask is [b, s, t]: True where a query may attend.
    """
    past, length = cache.get_seq_length(), given.shape[1]
    total = views[0][0].shape[2] + length
    if total == past + length:
        return mask, position_ids
    new = past + torch.arange(length, device=given.device)
    if mask is None or mask.ndim == 2:
        before = (torch.arange(total, device=given.device) <= new[:, None])[None].expand(len(given), -1, -1)
        mask = before if mask is None else before & F.pad(mask != 0, (0, total - mask.shape[1]))[:, None]
    return mask, new[None] if position_ids is None else position_ids
