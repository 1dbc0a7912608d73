"""How tags write entities: the letter of a word's place in its entity, and the entity's kind.

The schemes are those that seqeval reads: IOB1, IOB2, IOE1, IOE2, IOBES and BILOU (IOBES with other letters), and BMES.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

_OUTSIDE = ("O", "o", "0")  # the digit is a frequent typing error
# The letters of each scheme: a tag set belongs to the first that has all of its letters.
SCHEMES = {
    "iob2": "BI",
    "iob1": "BI",
    "ioe2": "IE",
    "ioe1": "IE",
    "iobes": "BIES",
    "bilou": "BILU",
    "bmes": "BMES",
}
# Each letter as that of IOBES: the first, an inner and the last word of an entity, and its only one.
_PLACES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
_LOOKS_LIKE_ONE = re.compile(r"[BIESLUM][-_].+|.+[-_][BIESLUM]", re.IGNORECASE)


@dataclass(frozen=True)
class Notation:
    """Where a tag has its letter and its kind: `B-PER` by default, `PER-B` as a suffix, `B_PER` with a separator.

    Example:
        >>> Notation().parts("B-PER"), Notation("_", is_suffix=True).parts("ORG_U"), Notation().parts("O")
        (('B', 'PER'), ('S', 'ORG'), ('O', ''))
    """

    separator: str = "-"
    is_suffix: bool = False

    def parts(self, tag: str) -> tuple[str, str]:
        """The place of the word, one of `BIES`, or `O` outside entities; and the kind, which may be empty.

        Any other first part begins an entity, as in seqeval.
        """
        if tag in _OUTSIDE:
            return "O", ""
        letter, kind = self.split(tag)
        return _PLACES.get(letter.upper(), "B"), kind

    def split(self, tag: str) -> tuple[str, str]:
        """The letter and the kind as they are written."""
        if self.is_suffix:
            kind, _, letter = tag.rpartition(self.separator)
            return letter, kind
        letter, _, kind = tag.partition(self.separator)
        return letter, kind

    def joined(self, letter: str, kind: str) -> str:
        """The tag of a letter and a kind; the letter alone for an entity without a kind."""
        if not kind:
            return letter
        return f"{kind}{self.separator}{letter}" if self.is_suffix else f"{letter}{self.separator}{kind}"


IOB = Notation()
_NOTATIONS = (IOB, Notation("-", is_suffix=True), Notation("_"), Notation("_", is_suffix=True))


def find_notation(tags: Collection[str], letters: str | None = None) -> Notation | None:
    """How a set of tags writes entities, or None if it has other tags too, or no entities.

    Args:
        tags: the distinct tags.
        letters: those of a scheme; by default any scheme's.

    Example:
        >>> find_notation({"O", "S-PER", "B-LOC", "E-LOC"})
        Notation(separator='-', is_suffix=False)
        >>> find_notation({"NOUN", "VERB"}) is None
        True
    """
    rest = [tag for tag in tags if tag not in _OUTSIDE]
    if not rest:
        return None
    for notation in _NOTATIONS:
        parts = [notation.split(tag) for tag in rest]
        if all(kind for _, kind in parts) and _scheme_of(parts, letters):
            return notation
    bare = {tag.upper() for tag in rest}
    is_bare = len(rest) == len(bare) >= 2 and len(rest) < len(tags) and {*bare} <= {*(letters or "BI")}
    return IOB if is_bare else None


def completed(tags: Iterable[str], notation: Notation) -> set[str]:
    """The tags, and those of longer and shorter entities of the same kinds, which other data may hold.

    Example:
        >>> sorted(completed({"O", "S-PER"}, IOB))
        ['B-PER', 'E-PER', 'I-PER', 'O', 'S-PER']
    """
    found = set(tags)
    parts = [notation.split(tag) for tag in found if tag not in _OUTSIDE]
    letters = _scheme_of(parts, None)
    if all(letter.islower() for letter, _ in parts):
        letters = letters.lower()
    found |= {notation.joined(letter, kind) for _, kind in parts for letter in letters}
    return found if found & {*_OUTSIDE} else {*found, "O"}


def looks_like_entities(tags: Collection[str]) -> list[str]:
    """The tags that look like an entity's, such as `B-PER`, if at least half of the set do; otherwise none."""
    rest = [tag for tag in tags if tag not in _OUTSIDE]
    found = [tag for tag in rest if _LOOKS_LIKE_ONE.fullmatch(tag)]
    return sorted(found) if 2 * len(found) >= len(rest) else []


def _scheme_of(parts: Sequence[tuple[str, str]], letters: str | None) -> str:
    """The letters of the scheme of tags in two parts; empty if it is none."""
    used = {letter.upper() for letter, _ in parts}
    known = SCHEMES.values() if letters is None else (letters,)
    return next((each for each in known if used <= set(each)), "")
