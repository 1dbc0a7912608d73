"""Shapes of tensors, and their check."""

from __future__ import annotations

from rembert.common.errors import InputError

# A size that a graph does not know yet is None.
Shape = tuple[int | None, ...]


def check_shape(name: str, shape: Shape, wanted: Shape, meaning: str) -> None:
    """Refuse a tensor with another shape.

    Args:
        name: the name of the argument.
        shape: its shape.
        wanted: the shape that it must have; None for a size that may be anything.
        meaning: of the dimensions, for the message, such as "[batch, sequence]".

    Raises:
        InputError: quotes both shapes.

    Example:
        >>> check_shape("labels", (4, 7), (4, None), "[batch, sequence]")
        >>> check_shape("labels", (4, 7), (4,), "[batch]")
        Traceback (most recent call last):
        rembert.common.errors.InputError: `labels` must have the shape [batch], here [4]. Received: the shape [4, 7].
    """
    fits = len(shape) == len(wanted) and all(
        want is None or got is None or got == want for got, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        sizes = f", here {list(wanted)}" if any(want is not None for want in wanted) else ""
        raise InputError(f"`{name}` must have the shape {meaning}{sizes}. Received: the shape {list(shape)}.")
