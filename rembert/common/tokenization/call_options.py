"""The options of a call, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rembert.common.errors import KeywordError
from rembert.common.keywords import check_known
from rembert.common.tokenization.truncation import Padding, Truncation

# Arguments that transformers has, or has for texts alone: values that ask for nothing are accepted.
_ELSEWHERE = ("split_special_tokens", "pad_to_max_length", "is_split_into_words", "use_source_tokenizer")


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


def check_others(others: Mapping[str, Any], known: Collection[str], caller: str) -> None:
    """Refuse arguments that a call does not have.

    Args:
        others: by name; None and False pass for what transformers has.
        known: the names of the arguments that it has, for the message.
        caller: the method, for the message.

    Raises:
        KeywordError: names the argument, and the nearest known one.
    """
    for name in _ELSEWHERE:
        if others.get(name) not in (None, False):
            raise KeywordError(
                f"{caller}() does not support `{name}`: it must be None or False. "
                f"Received: `{name}={others[name]!r:.80}`."
            )
    unknown = others.keys() - set(_ELSEWHERE)
    check_known(unknown, set(known) - unknown, caller)
