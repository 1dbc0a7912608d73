"""The backend of the tokenizer inside transformers: the `tokenizers` library's, with this library's encodings."""

from __future__ import annotations

import math
from typing import Any

from rembert.common.tokenization import AddedToken, RemBertTokenizerFast
from rembert.transformers.encodings import Encoding, encode

# Replacing one of these parts changes what the backend encodes, which only its own code can follow.
_PARTS = ("model", "normalizer", "pre_tokenizer", "post_processor")


class Backend:
    """A `tokenizers.Tokenizer` whose texts are encoded by `RemBertTokenizer`: exact ids, offsets and windows.

    Vocabulary, added tokens, decoding and files are those of the wrapped tokenizer. If one of its parts is replaced,
    or special tokens in texts are to be split, it encodes too.

    Args:
        tokenizer: this library's.
    """

    def __init__(self, tokenizer: RemBertTokenizerFast) -> None:
        self.__dict__.update(tokenizer=tokenizer, wrapped=tokenizer.backend_tokenizer, is_exact=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "wrapped" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)
        if name in _PARTS:
            self.__dict__["is_exact"] = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def add_tokens(self, tokens: Any) -> int:
        """Add tokens to both tokenizers; returns how many are new."""
        return self._add(tokens, self.wrapped.add_tokens, False)

    def add_special_tokens(self, tokens: Any) -> int:
        """Add special tokens to both tokenizers; returns how many are new."""
        return self._add(tokens, self.wrapped.add_special_tokens, True)

    def _add(self, tokens: Any, add: Any, special: bool) -> int:
        count = add(tokens)
        for each in tokens:
            token = AddedToken.of(each, special=True if special else None)
            if token.content:
                self.tokenizer.add_tokens([token], special_tokens=token.special)
                if self.wrapped.token_to_id(token.content) != self.tokenizer.convert_tokens_to_ids(token.content):
                    self.__dict__["is_exact"] = False
        return count

    def encode(
        self, sequence: Any, pair: Any = None, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Any:
        """As `tokenizers.Tokenizer.encode`."""
        return self.encode_batch(
            [sequence if pair is None else (sequence, pair)], is_pretokenized, add_special_tokens
        )[0]

    def encode_batch(self, input: Any, is_pretokenized: bool = False, add_special_tokens: bool = True) -> list[Any]:
        """As `tokenizers.Tokenizer.encode_batch`."""
        if not self.is_exact or self.wrapped.encode_special_tokens:
            return self.wrapped.encode_batch(
                input, is_pretokenized=is_pretokenized, add_special_tokens=add_special_tokens
            )
        rows = encode(
            self.tokenizer, input, words=is_pretokenized, specials=add_special_tokens,
            truncation=self.wrapped.truncation,
        )  # fmt: skip
        if self.wrapped.padding is not None:
            _pad(rows, self.wrapped.padding)
        return rows


def _pad(rows: list[Encoding], padding: dict[str, Any]) -> None:
    """Pad the rows as `tokenizers` describes it."""
    width = padding["length"]
    if width is None:
        width = max((len(each) for row in rows for each in (row, *row.overflowing)), default=0)
    if padding["pad_to_multiple_of"]:
        width = math.ceil(width / padding["pad_to_multiple_of"]) * padding["pad_to_multiple_of"]
    for row in rows:
        row.pad(width, padding["direction"], padding["pad_id"], padding["pad_type_id"])
