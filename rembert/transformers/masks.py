"""transformers' masks of four dimensions and its choice of positions, in the form of `rembert.pt`."""

from __future__ import annotations

import torch
from torch import Tensor

from rembert.common.errors import InputError


def pairwise_mask(name: str, mask: Tensor | None) -> Tensor | None:
    """A mask [b, 1, s, t] as [b, s, t] booleans, True where a query may attend; any other mask as it is.

    Args:
        name: of the argument.
        mask: of booleans or integers, non-zero where a query may attend; or of floats that are added to the scores,
            0 there and very negative elsewhere.

    Raises:
        InputError: the mask differs from head to head.
    """
    if mask is None or getattr(mask, "ndim", 0) != 4:
        return mask
    if mask.shape[1] != 1:
        raise InputError(
            f"`{name}` must be the same for all heads, [batch, 1, sequence, keys]. Received: {mask.shape}."
        )
    mask = mask[:, 0]
    return mask >= 0 if mask.is_floating_point() else mask != 0


def kept_positions(logits_to_keep: int | Tensor, given: Tensor) -> Tensor | None:
    """The positions [b, k] that have logits; None for all.

    Args:
        logits_to_keep: how many of the last positions, 0 for all; or positions, [k] or [b, k].
        given: [b, s, ...], the inputs.

    Raises:
        InputError: a mask of booleans, which may choose another number in each row.
    """
    batch, length = given.shape[:2]
    if isinstance(logits_to_keep, int):
        if logits_to_keep == 0:
            return None
        logits_to_keep = torch.arange(max(length - logits_to_keep, 0), length, device=given.device)
    if logits_to_keep.dtype == torch.bool:
        raise InputError("`logits_to_keep` must be a number or positions. Received: booleans. Use `logits_at`.")
    return logits_to_keep.expand(batch, -1) % length  # negative positions count from the end
