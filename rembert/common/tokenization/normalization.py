"""Lower-casing and accent stripping before SentencePiece, for checkpoints that were trained that way."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Normalization:
    """The changes made to a text before it is split. Truthy if there are any."""

    lower_case: bool = False
    strip_accents: bool = False

    def __bool__(self) -> bool:
        return self.lower_case or self.strip_accents

    def apply(self, text: str) -> str:
        """The changed text: compatibility decomposition without combining marks, then lower case."""
        if self.strip_accents:
            text = "".join(map(_without_accents, text))
        return text.lower() if self.lower_case else text

    def apply_with_boundaries(self, text: str) -> tuple[str, list[int]]:
        """The changed text, and for each of its n characters its position in `text`.

        The list has n + 1 entries; the last one is the length of `text`. A dropped mark belongs to the character
        before it.
        """
        boundaries: list[int] = []
        for position, character in enumerate(text):
            # Lower case depends on the context only for the capital sigma, and never in its length.
            boundaries += [position] if character.isascii() else [position] * len(self.apply(character))
        boundaries.append(len(text))
        return self.apply(text), boundaries


@lru_cache(1 << 16)
def _without_accents(character: str) -> str:
    if character.isascii():
        return character
    decomposed = unicodedata.normalize("NFKD", character)
    return "".join(c for c in decomposed if unicodedata.category(c)[0] != "M")
