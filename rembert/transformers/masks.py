"""transformers' masks of four dimensions in the form of `rembert.pt`."""

from __future__ import annotations

from torch import Tensor

from rembert.common.errors import InputError
from rembert.pt.inputs import values_can_be_read

_CLOSED = -1e4  # float16's lowest value is -65504; transformers' masks hold the lowest value of their dtype


def mask_of_keys(name: str, mask: Tensor | None, given: Tensor | None, *, causal: bool = False) -> Tensor | None:
    """A mask [b, 1, s, t] as [b, s, t] booleans, True where a query may attend; any other mask as it is.

    A single row of it is for all queries: [b, 1, 1, t] says which keys are real, [b, t]. `rembert.pt` adds the causal
    mask of a decoder's self-attention to a mask of keys, which transformers does not, so there it stays [b, s, t].

    Args:
        name: of the argument.
        mask: of booleans or integers, non-zero where a query may attend; or of floats that are added to the scores,
            0 there and very negative elsewhere. Values between, a bias, are not supported; they are refused unless
            they cannot be read. A single mask is for the whole batch.
        given: [b, s, ...], the inputs.
        causal: whether it is the mask of a decoder's self-attention.

    Raises:
        InputError: the mask differs from head to head, or holds a bias.
    """
    if given is None or getattr(mask, "ndim", 0) != 4:
        return mask
    assert mask is not None
    if mask.shape[1] != 1:
        raise InputError(
            f"`{name}` must be the same for all heads, [batch, 1, sequence, keys]. Received: {tuple(mask.shape)}."
        )
    allowed = _allowed(name, mask[:, 0])
    allowed = allowed.expand(len(given) if len(allowed) == 1 else -1, -1, -1)
    if allowed.shape[1] != 1 or given.shape[1] == 1:
        return allowed
    return allowed.expand(-1, given.shape[1], -1) if causal else allowed[:, 0]


def _allowed(name: str, mask: Tensor) -> Tensor:
    """The mask as booleans."""
    if not mask.is_floating_point():
        return mask != 0
    bias = (mask != 0) & (mask > _CLOSED)
    if values_can_be_read(mask) and bool(bias.any()):
        raise InputError(
            f"`{name}` must hold 0 where a query may attend and at most {_CLOSED:g} elsewhere. Received: a bias of "
            f"{float(mask[bias][0]):g}."
        )
    return mask >= 0
