"""Running text as words with their characters, for models that tag words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_INSIDE = "'’-"  # between two letters, as in "don't"
# Scripts without spaces between words, of which the usual data have a character for each word.
_ALONE = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"))


def word_spans(text: str) -> list[tuple[int, int]]:
    """The first character of each word and the one after its last.

    A word is a sequence of letters, marks and digits, with single apostrophes and hyphens inside; a Chinese or
    Japanese character; or any other character that is no space.

    Example:
        >>> text = "Don't wait, 東京!"
        >>> [text[start:end] for start, end in word_spans(text)]
        ["Don't", 'wait', ',', '東', '京', '!']
    """
    return list(_spans(text))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start: int | None = None
    for position, character in enumerate(text):
        belongs = _belongs(character)
        if not belongs and start is not None and character in _INSIDE:
            belongs = position + 1 < len(text) and _belongs(text[position + 1])
        if belongs:
            start = position if start is None else start
            continue
        if start is not None:
            yield start, position
            start = None
        if not character.isspace():
            yield position, position + 1
    if start is not None:
        yield start, len(text)


def _belongs(character: str) -> bool:
    """Whether a character is part of a longer word."""
    if any(first <= character <= last for first, last in _ALONE):
        return False
    return unicodedata.category(character)[0] in "LMN" or character in "_\u200c\u200d"
