"""The options of a call, checked."""

from __future__ import annotations

from dataclasses import dataclass

from rembert.common.tokenization.truncation import Padding, Truncation


@dataclass(frozen=True)
class CallOptions:
    """What a call does, after its arguments are checked."""

    specials: bool
    pad: Padding
    cut: Truncation
    limit: int | None  # the longest row
    stride: int
    multiple_of: int | None
    side: str  # of padding
    tensors: str | None
    types: bool
    mask: bool
    overflow: bool
    special_mask: bool
    spans: bool
    length: bool
    verbose: bool
