"""transformers' masks of four dimensions and its choice of positions, in the form of `rembert.pt`."""

from __future__ import annotations

import torch
from torch import Tensor

from rembert.common.errors import InputError
from rembert.pt.inputs import values_can_be_read

_CLOSED = -1e4  # float16's lowest value is -65504; transformers' masks hold the lowest value of their dtype


def pairwise_mask(name: str, mask: Tensor | None) -> Tensor | None:
    """A mask [b, 1, s, t] as [b, s, t] booleans, True where a query may attend; any other mask as it is.

    Args:
        name: of the argument.
        mask: of booleans or integers, non-zero where a query may attend; or of floats that are added to the scores,
            0 there and very negative elsewhere. Values between, a bias, are not supported; they are refused unless
            they cannot be read.

    Raises:
        InputError: the mask differs from head to head, or holds a bias.
    """
    if mask is None or getattr(mask, "ndim", 0) != 4:
        return mask
    if mask.shape[1] != 1:
        raise InputError(
            f"`{name}` must be the same for all heads, [batch, 1, sequence, keys]. Received: {mask.shape}."
        )
    mask = mask[:, 0]
    if not mask.is_floating_point():
        return mask != 0
    if values_can_be_read(mask) and bool(((mask != 0) & (mask > _CLOSED)).any()):
        raise InputError(
            f"`{name}` must hold 0 where a query may attend and at most {_CLOSED:g} elsewhere. Received: a bias of "
            f"{float(mask[(mask != 0) & (mask > _CLOSED)][0]):g}."
        )
    return mask >= 0


def check_choices(
    labels: Tensor | None, shift_labels: Tensor | None, logits_to_keep: int | Tensor, cu_seqlens: Tensor | None
) -> None:
    """Refuse labels given twice, and arguments that packed inputs do not take.

    Raises:
        InputError: names the arguments.
    """
    if labels is not None and shift_labels is not None:
        raise InputError("`shift_labels` are given in place of `labels`. Received: both.")
    chooses = not isinstance(logits_to_keep, int) or logits_to_keep != 0
    if cu_seqlens is not None and (shift_labels is not None or chooses):
        name, other = ("shift_labels", "labels") if shift_labels is not None else ("logits_to_keep", "logits_at")
        raise InputError(f"`{name}` does not go with packed inputs (`cu_seqlens`). Pass `{other}`.")


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
