"""The rows of one or two sequences of ids: special tokens around them, truncation, windows.

A row is `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`; token types are 0 up to the first `[SEP]`, 1 after.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import product
from typing import NamedTuple

from rembert.common.errors import InputError


class Truncation(StrEnum):
    """Which sequence is cut if a row is too long."""

    NONE = "do_not_truncate"
    LONGEST_FIRST = "longest_first"
    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"


class Padding(StrEnum):
    """The length to which rows are padded."""

    NONE = "do_not_pad"
    LONGEST = "longest"
    MAX_LENGTH = "max_length"


class Window(NamedTuple):
    """One row: a sample, and the slices of its two sequences in the row."""

    sample: int
    first: slice
    second: slice | None


def special_count(pair: bool, add_special_tokens: bool = True) -> int:
    """The number of special tokens in a row."""
    if not add_special_tokens:
        return 0
    return 3 if pair else 2


def windows(
    sample: int, lengths: tuple[int, int | None], *, max_length: int, specials: int, strategy: Truncation,
    stride: int, overflow: bool, side: str,
) -> list[Window]:  # fmt: skip
    """The rows of one sample: one, or, with `overflow`, enough rows to hold all of its ids.

    Args:
        lengths: ids of the first and of the second sequence (None without one).
        max_length: the longest row, special tokens included.
        specials: the number of special tokens in a row.
        stride: the number of ids that a window shares with the one before it.
        side: "right" or "left", the side that is cut.

    Raises:
        InputError: the strategy cannot make the row short enough, or `stride` leaves a window no new ids.
    """
    first, second = lengths
    excess = first + (second or 0) + specials - max_length
    if excess <= 0:
        return [Window(sample, slice(0, first), None if second is None else slice(0, second))]
    keep_first, keep_second = _kept(first, second, excess, max_length, specials, strategy)
    if overflow:
        firsts = _slide(first, keep_first, stride, side, max_length)
        seconds = [] if second is None else _slide(second, keep_second, stride, side, max_length)
    else:
        firsts = [_cut(first, keep_first, side)]
        seconds = [] if second is None else [_cut(second, keep_second, side)]
    if second is None:
        return [Window(sample, stretch, None) for stretch in firsts]
    # The order is that of transformers: the other windows of the first text come before those of the second.
    pairs = [(firsts[0], seconds[0]), *product(firsts[1:], seconds), *product(firsts[:1], seconds[1:])]
    return [Window(sample, a, b) for a, b in pairs]


def _kept(
    first: int, second: int | None, excess: int, max_length: int, specials: int, strategy: Truncation
) -> tuple[int, int]:
    """How many ids of each sequence are kept."""
    capacity = max_length - specials
    if capacity < 0:
        raise InputError(
            f"`max_length`, by default `model_max_length`, must hold the special tokens of a row. Received: rows of "
            f"{max_length} tokens, and a row has {specials} special ones."
        )
    if strategy is Truncation.LONGEST_FIRST:
        if second is None:
            return capacity, 0
        # The longer one gives ids until both are equal; from there they give in turn, the second first.
        if capacity >= 2 * min(first, second):
            return (first, capacity - first) if first < second else (capacity - second, second)
        return capacity - capacity // 2, capacity // 2
    if strategy is Truncation.ONLY_SECOND and second is None:
        raise InputError(
            f"`truncation='only_second'` needs a second text. Received: one text of {first} tokens, too long for a "
            f"row of {max_length}. Pass `text_pair`, or use `truncation=True`."
        )
    length = first if strategy is Truncation.ONLY_FIRST else second or 0
    if length <= excess:
        raise InputError(
            f"`truncation='{strategy.value}'` cannot make the row short enough. Received: texts of {first} and "
            f"{second or 0} tokens with {specials} special tokens for a row of {max_length}, {excess} too many. "
            f"Use `truncation='longest_first'`, or a larger `max_length`."
        )
    return (first - excess, second or 0) if strategy is Truncation.ONLY_FIRST else (first, length - excess)


def _cut(length: int, keep: int, side: str) -> slice:
    return slice(length - keep, length) if side == "left" else slice(0, keep)


def _slide(length: int, keep: int, stride: int, side: str, max_length: int) -> list[slice]:
    """Slices of `keep` ids that overlap by `stride` and together hold all ids."""
    if keep >= length:
        return [slice(0, length)]
    check_stride(stride, keep, max_length)
    step = keep - stride
    if side == "left":
        stops = range(length, stride, -step)
        return [slice(max(stop - keep, 0), stop) for stop in stops]
    starts = range(0, length - stride, step)
    return [slice(start, min(start + keep, length)) for start in starts]


def check_stride(stride: int, capacity: int, max_length: int) -> None:
    """Refuse a stride that leaves no new ids in a window of `capacity` ids."""
    if stride >= capacity:
        raise InputError(
            f"`stride` must be less than the number of text tokens in a row, here {capacity}. Received: "
            f"`stride={stride}` and rows of {max_length} tokens."
        )
