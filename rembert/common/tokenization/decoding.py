"""Ids and tokens to text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rembert.common.errors import InputError
from rembert.common.tokenization.call_options import check_others
from rembert.common.tokenization.sentencepiece_model import MARKER
from rembert.common.tokenization.vocabulary import Vocabulary, check_strings, plain_ids

_CLEAN_UP = re.compile(r" (?=[.?!,]|n't|'m|'s|'ve|'re)")


class TextDecoder(Vocabulary):
    """Decodes ids to text.

    A space is put before a token that was added to the model, because the ids do not say whether the text had one:
    SentencePiece removes it from the text before the token. Tokens with a role (`[SEP]`) and those that include the
    space before them (`lstrip`, such as `[MASK]`, or a content that starts with white space) get none.
    """

    clean_up_tokenization_spaces = False

    def _check_others(self, others: Mapping[str, Any], method: str, caller: str | None = None) -> None:
        """Refuse arguments that a method does not have; `caller` is the method that was called, if another one."""
        if others:
            known = inspect.signature(getattr(type(self), method)).parameters
            check_others(others, known, f"{type(self).__name__}.{caller or method}")

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        """The text of some tokens, with spaces for markers and before added tokens, but none at the start."""
        return self._join(check_strings("tokens", tokens))

    def _join(self, tokens: list[str], spaces: bool = True) -> str:
        if spaces and not self._added_ids.keys().isdisjoint(tokens):
            spaced = self._tokens_with_space
            before = ["", *tokens]
            tokens = [
                MARKER + token if token in spaced and not last.endswith(MARKER) else token
                for last, token in zip(before, tokens, strict=False)
            ]
        return "".join(tokens).replace(MARKER, " ").lstrip(" ")

    @property
    def _tokens_with_space(self) -> set[str]:
        """The added tokens that get a space before them."""
        roles = set(self._roles.values())
        contents = {token.content for token in self._added.values() if not token.lstrip} - roles
        return {content for content in contents if not content.startswith(MARKER) and not content[0].isspace()}

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
        **others: Any,
    ) -> Any:
        """The text of some ids.

        Args:
            token_ids: an id, or a list, array or tensor of ids; with two dimensions, a list of texts is returned.
            skip_special_tokens: leave special tokens out (the unknown token is one of them).
            clean_up_tokenization_spaces: remove the space before `. ? ! ,` and English contractions; by default
                `self.clean_up_tokenization_spaces`.
            spaces_between_special_tokens: put a space before added tokens.
            others: None or False for arguments that transformers has.

        Raises:
            InputError: no ids, or ids outside the vocabulary.
            KeywordError: an unknown argument.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> tokenizer.add_tokens(["<person>"])
            1
            >>> tokenizer.decode(tokenizer.encode("Moja <person> habari"), skip_special_tokens=True)
            'Moja <person> habari'
        """
        self._check_others(others, "decode")
        ids = plain_ids(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return self.batch_decode(
                ids, skip_special_tokens, clean_up_tokenization_spaces, spaces_between_special_tokens
            )
        tokens = self.convert_ids_to_tokens([ids] if isinstance(ids, int) else ids, skip_special_tokens)
        text = self._join(tokens, spaces_between_special_tokens)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return _CLEAN_UP.sub("", text).replace(" ' ", "'") if clean_up_tokenization_spaces else text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
        **others: Any,
    ) -> list[str]:
        """`decode` for each sequence of a batch."""
        self._check_others(others, "batch_decode")
        rows = plain_ids(sequences)
        if isinstance(rows, int):
            raise InputError(f"`sequences` must be a list of sequences of ids. Received: {sequences!r}.")
        options = (skip_special_tokens, clean_up_tokenization_spaces, spaces_between_special_tokens)
        return [self.decode(ids, *options) for ids in rows]
