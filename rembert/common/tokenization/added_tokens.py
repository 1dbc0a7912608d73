"""Tokens that are found in the text before SentencePiece sees it: special tokens and those that the user adds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.common.tokenization.folding import Folding


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched as a whole in the text.

    Args:
        content: the text that is matched.
        single_word: match only where no letter, digit or underscore stands directly before or after.
        lstrip: take the white space before the match too.
        rstrip: take the white space after the match too.
        normalized: match in the text after lower-casing and accent stripping (where those are on), not before.
            By default True, and False for a special token.
        special: a special token, which `decode(skip_special_tokens=True)` leaves out.
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

        `special`, when given, overrides what the token says of itself.
        """
        if isinstance(token, str):
            return cls(token, special=bool(special), **defaults)
        names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
        if isinstance(token, Mapping):
            fields = {name: token[name] for name in names if name in token}
        else:
            fields = {name: getattr(token, name) for name in names if hasattr(token, name)}
        if "content" not in fields:
            raise InputError(f"A token must be a string or an `AddedToken`. Received: {token!r}.")
        if special is not None:
            fields["special"] = special
        return cls(**fields)


class Part(NamedTuple):
    """A stretch of a text: either an added token, or text for SentencePiece."""

    start: int  # in the source
    end: int
    token: int | None  # the id of an added token
    text: str  # for SentencePiece, after folding; empty for an added token
    boundaries: list[int] | None = None  # source positions of the folded characters, where folding is on


class Match(NamedTuple):
    start: int
    end: int
    token: int


class AddedTokenSplitter:
    """Cuts texts at added tokens. At each place the longest token that matches is taken, from left to right."""

    def __init__(self, tokens: Mapping[int, AddedToken], folding: Folding) -> None:
        """`tokens` by id; `folding` is applied to the text between them."""
        self._folding = folding
        exact = {index: token for index, token in tokens.items() if not (folding and token.normalized)}
        folded = {index: token for index, token in tokens.items() if index not in exact}
        self._exact = _Matcher((token.content, token, index) for index, token in exact.items())
        self._folded = _Matcher((folding.fold(token.content), token, index) for index, token in folded.items())
        self._contents = [token.content for token in tokens.values()]

    def may_change(self, texts: list[str]) -> bool:
        """False when no text holds an added token and none is folded, so SentencePiece can have them as they are.

        Searching one joined string costs 0.02 times SentencePiece's batch encode, searching each text 0.12 times.
        """
        if self._folding:
            return True
        joined = texts[0] if len(texts) == 1 else "\n".join(texts)
        return any(content in joined for content in self._contents)

    def split(self, text: str) -> list[Part]:
        """The parts of a text in order; white space that an added token takes is in that token's part."""
        parts: list[Part] = []
        for start, end, token in _with_gaps(self._exact.find(text), len(text)):
            if token is not None:
                parts.append(Part(start, end, token, ""))
            elif not self._folding:
                parts.append(Part(start, end, None, text[start:end]))
            else:
                parts += self._split_folded(text[start:end], start)
        return parts

    def _split_folded(self, text: str, offset: int) -> Iterator[Part]:
        folded, boundaries = self._folding.fold_with_boundaries(text)
        for start, end, token in _with_gaps(self._folded.find(folded), len(folded)):
            source_start = offset + (boundaries[start] if start else 0)
            source_end = offset + boundaries[end]
            if token is not None:
                yield Part(source_start, source_end, token, "")
            else:
                inner = [position + offset - source_start for position in boundaries[start : end + 1]]
                yield Part(source_start, source_end, None, folded[start:end], inner)


class _Matcher:
    """Finds tokens in a text, for one form of the text."""

    def __init__(self, forms: Iterable[tuple[str, AddedToken, int]]) -> None:
        self._tokens = {form: (token, index) for form, token, index in forms if form}
        patterns = [
            rf"(?<!\w){re.escape(form)}(?!\w)" if token.single_word else re.escape(form)
            for form, (token, _) in sorted(self._tokens.items(), key=lambda item: -len(item[0]))
        ]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def find(self, text: str) -> Iterator[Match]:
        if self._pattern is None:
            return
        position = 0  # the end of the last match, its white space included
        for found in self._pattern.finditer(text):
            start, end = found.span()
            if start < position:
                continue
            token, index = self._tokens[found.group()]
            # White space is taken here and not by the pattern, whose `\s*` would look at long runs again and again.
            if token.lstrip:
                start = position + len(text[position:start].rstrip())
            if token.rstrip:
                while end < len(text) and text[end].isspace():
                    end += 1
            yield Match(start, end, index)
            position = end


def _with_gaps(matches: Iterable[Match], length: int) -> Iterator[tuple[int, int, int | None]]:
    position = 0
    for start, end, token in matches:
        if start > position:
            yield position, start, None
        yield start, end, token
        position = end
    if position < length:
        yield position, length, None
