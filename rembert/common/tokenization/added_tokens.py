"""Tokens that are found in the text before SentencePiece splits it: special tokens and tokens added by the user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.common.tokenization.normalization import Normalization

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched as a whole in the text.

    Args:
        content: the text that is matched.
        single_word: match only where no letter, digit or underscore is directly before or after.
        lstrip: include the white space before the match.
        rstrip: include the white space after the match.
        normalized: match in the text after lower-casing and accent stripping (if those are on), not before. By default
            False for a special token and True for any other.
        special: a special token, which `decode(skip_special_tokens=True)` leaves out.

    Example:
        >>> AddedToken("<person>", lstrip=True).normalized
        True
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    special: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.content, str) or not self.content:
            raise InputError(f"`content` of an added token must be a non-empty string. Received: {self.content!r}.")
        for name in FLAGS:
            if not isinstance(getattr(self, name), bool) and (name, getattr(self, name)) != ("normalized", None):
                raise InputError(f"`{name}` must be True or False. Received: `{name}={getattr(self, name)!r:.80}`.")
        if self.normalized is None:
            object.__setattr__(self, "normalized", not self.special)

    def __str__(self) -> str:
        return self.content

    def as_json(self) -> dict[str, Any]:
        """The token as `tokenizer.json` and `tokenizer_config.json` hold it."""
        return asdict(self)

    @classmethod
    def of(cls, token: Any, *, special: bool | None = None, **defaults: Any) -> AddedToken:
        """Make a token from a string (with `defaults` as its other fields), a mapping, or another library's token.

        `special`, if given, replaces the token's own flag.
        """
        if isinstance(token, str):
            return cls(token, special=bool(special), **defaults)
        names = ("content", *FLAGS)
        if isinstance(token, Mapping):
            fields = {name: token[name] for name in names if token.get(name) is not None}
        else:
            fields = {name: getattr(token, name) for name in names if getattr(token, name, None) is not None}
        if "content" not in fields:
            raise InputError(f"A token must be a string or an `AddedToken`. Received: {token!r}.")
        if special is not None:
            fields["special"] = special
        return cls(**fields)


class Part(NamedTuple):
    """A part of a text: either an added token, or text for SentencePiece."""

    start: int  # in the source
    end: int
    token: int | None  # the id of an added token
    text: str  # for SentencePiece, after normalization; empty for an added token
    boundaries: list[int] | None = None  # source positions of the normalized characters, where normalization is on


class Match(NamedTuple):
    start: int
    end: int
    token: int


class AddedTokenSplitter:
    """Splits texts at added tokens: first at those that are matched as written, then, between them, at the others.

    From left to right, the longest match is taken at each position.
    """

    def __init__(self, tokens: Mapping[int, AddedToken], normalization: Normalization) -> None:
        """`tokens` by id; `normalization` is applied to the text between the tokens that are matched as written."""
        self._normalization = normalization
        self._exact = _Matcher(
            (token.content, token, index) for index, token in tokens.items() if not token.normalized
        )
        self._normalized = _Matcher(
            (normalization.apply(token.content), token, index) for index, token in tokens.items() if token.normalized
        )

    def may_change(self, texts: list[str]) -> bool:
        """False if no text holds an added token and none is normalised, so that SentencePiece can take them unchanged.

        Searching one joined string costs 0.02 times SentencePiece's batch encode, searching each text 0.12 times.
        """
        if self._normalization:
            return True
        joined = texts[0] if len(texts) == 1 else "\n".join(texts)
        return self._exact.may_find(joined) or self._normalized.may_find(joined)

    def split(self, text: str) -> list[Part]:
        """The parts of a text in order; white space that an added token includes is in that token's part."""
        parts: list[Part] = []
        for start, end, token in _with_gaps(self._exact.find(text), len(text)):
            if token is not None:
                parts.append(Part(start, end, token, ""))
            else:
                parts += self._split_normalized(text[start:end], start)
        return parts

    def _split_normalized(self, text: str, offset: int) -> Iterator[Part]:
        if not self._normalization:
            for start, end, token in _with_gaps(self._normalized.find(text), len(text)):
                yield Part(offset + start, offset + end, token, text[start:end] if token is None else "")
            return
        normalized, boundaries = self._normalization.apply_with_boundaries(text)
        for start, end, token in _with_gaps(self._normalized.find(normalized), len(normalized)):
            source_start = boundaries[start] if start else 0
            source_end = boundaries[end]
            if token is not None:
                yield Part(offset + source_start, offset + source_end, token, "")
            else:
                inner = [position - source_start for position in boundaries[start : end + 1]]
                yield Part(offset + source_start, offset + source_end, None, normalized[start:end], inner)


class _Matcher:
    """Finds tokens in one form of a text, in a time that hardly depends on the number of tokens."""

    def __init__(self, forms: Iterable[tuple[str, AddedToken, int]]) -> None:
        self._tokens = {form: (token, index) for form, token, index in forms if form}
        lengths: dict[str, set[int]] = {}
        seconds: dict[str, set[str]] = {}
        for form in self._tokens:
            lengths.setdefault(form[0], set()).add(len(form))
            seconds.setdefault(form[0], set()).add(form[1:2])
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        # A token may start at its first two characters; the second is not consumed, as it may start another token.
        self._starts = re.compile(
            "|".join(
                re.escape(first) + ("" if "" in found else f"(?=[{''.join(map(re.escape, sorted(found)))}])")
                for first, found in seconds.items()
            )
        )

    def may_find(self, text: str) -> bool:
        """False if no token is in the text."""
        if len(self._tokens) <= _FEW:
            return any(form in text for form in self._tokens)
        return next(self.find(text), None) is not None

    def find(self, text: str) -> Iterator[Match]:
        if not self._tokens:
            return
        position = 0  # the end of the last match, including its white space
        for candidate in self._starts.finditer(text):
            start = candidate.start()
            found = self._longest(text, start) if start >= position else None
            if found is None:
                continue
            form, token, index = found
            end = start + len(form)
            # `\s*` in a pattern would scan long runs of white space repeatedly.
            if token.lstrip:
                start = position + len(text[position:start].rstrip())
            if token.rstrip:
                while end < len(text) and text[end].isspace():
                    end += 1
            yield Match(start, end, index)
            position = end

    def _longest(self, text: str, start: int) -> tuple[str, AddedToken, int] | None:
        """The longest token that matches at `start`: its form, itself, its id."""
        for length in self._lengths[text[start]]:
            form = text[start : start + length]
            if form in self._tokens:
                token, index = self._tokens[form]
                if not (token.single_word and _touches_word(text, start, start + len(form))):
                    return form, token, index
        return None


_FEW = 32  # up to this number, a search for each token is faster than one search for all


def _touches_word(text: str, start: int, end: int) -> bool:
    """Whether a letter, digit or underscore is directly before `start` or at `end`."""
    neighbours = text[max(start - 1, 0) : start] + text[end : end + 1]
    return any(character.isalnum() or character == "_" for character in neighbours)


def _with_gaps(matches: Iterable[Match], length: int) -> Iterator[tuple[int, int, int | None]]:
    position = 0
    for start, end, token in matches:
        if start > position:
            yield position, start, None
        yield start, end, token
        position = end
    if position < length:
        yield position, length, None


def has_surrogate(text: str) -> bool:
    """Whether `text` holds a lone surrogate, which no encoding can represent."""
    return any("\ud800" <= character <= "\udfff" for character in text)
