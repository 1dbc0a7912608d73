"""Rows of tokens in the form of the `tokenizers` library, encoded by this library's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rembert.common.tokenization import RemBertTokenizer
from rembert.common.tokenization.alignment import Alignment, RowEncoding
from rembert.common.tokenization.batch_encoding import BatchEncoding


class _OneRow(Alignment):
    """The alignment of a single row."""

    def __init__(self, row: RowEncoding) -> None:
        self._row = row

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def row(self, index: int) -> RowEncoding:
        return self._row


class Encoding:
    """A row as `tokenizers.Encoding` describes it: ids, and the words and characters that they come from.

    Args:
        tokenizer: encoded the row.
        batch: the result that the row is part of, without padding.
        index: of the row in it.
    """

    def __init__(self, tokenizer: RemBertTokenizer, batch: BatchEncoding, index: int) -> None:
        self.ids: list[int] = batch["input_ids"][index]
        self.type_ids: list[int] = batch["token_type_ids"][index]
        self.attention_mask: list[int] = [1] * len(self.ids)
        self.overflowing: list[Encoding] = []
        self._tokenizer, self._batch, self._index = tokenizer, batch, index
        self._padding = (0, 0)  # before and after

    def pad(self, width: int, side: str, pad_id: int, pad_type_id: int) -> None:
        """Pad the row and those that overflow to `width` on one side."""
        count = max(width - len(self.ids), 0)
        before, after = (count, 0) if side == "left" else (0, count)
        self._padding = (before, after)
        self.ids = [pad_id] * before + self.ids + [pad_id] * after
        self.type_ids = [pad_type_id] * before + self.type_ids + [pad_type_id] * after
        self.attention_mask = [0] * before + self.attention_mask + [0] * after
        self.__dict__.pop("_aligned", None)
        for each in self.overflowing:
            each.pad(width, side, pad_id, pad_type_id)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        # The words and characters, without the texts of the whole batch and the model.
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_tokenizer", "_batch")}
        return {**kept, "_aligned": self._alignment}

    @property
    def _alignment(self) -> BatchEncoding:
        if "_aligned" not in self.__dict__:
            row = self._batch._row(self._index)
            before, after = self._padding
            columns: dict[str, Any] = {
                name: [None] * before + getattr(row, name) + [None] * after
                for name in ("sequence_ids", "word_ids", "spans")
            }
            names = self._tokenizer.convert_ids_to_tokens
            columns["tokens"] = names(self.ids[:before]) + row.tokens + names(self.ids[len(self.ids) - after :])
            padded = replace(row, ids=self.ids, type_ids=self.type_ids, attention_mask=self.attention_mask, **columns)
            self._aligned = BatchEncoding({}, _OneRow(padded))
        return self._aligned

    @property
    def tokens(self) -> list[str]:
        """The tokens as strings; an unknown token is shown as the text that it covers."""
        return self._alignment.tokens(0)

    @property
    def sequence_ids(self) -> list[int | None]:
        """For each token the number of its text; None for special tokens and padding."""
        return self._alignment.sequence_ids(0)

    @property
    def word_ids(self) -> list[int | None]:
        """For each token the number of its word; None for special tokens and padding."""
        return self._alignment.word_ids(0)

    words = word_ids

    @property
    def n_sequences(self) -> int:
        """How many texts the row has tokens of."""
        return len({each for each in self.sequence_ids if each is not None}) or 1

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """For each token its characters, from and to; (0, 0) for special tokens and padding."""
        spans = (self._alignment.token_to_chars(0, token) for token in range(len(self)))
        return [(0, 0) if span is None else (span.start, span.end) for span in spans]

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for special tokens of the call and padding."""
        return [int(each is None) for each in self.sequence_ids]

    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """The token of a character."""
        return self._alignment.char_to_token(0, char_pos, sequence_index)

    def char_to_word(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """The word of a character."""
        return self._alignment.char_to_word(0, char_pos, sequence_index)

    def token_to_chars(self, token_index: int) -> tuple[int, int] | None:
        """The characters of a token."""
        return self._alignment.token_to_chars(0, token_index)

    def token_to_word(self, token_index: int) -> int | None:
        """The word of a token."""
        return self._alignment.token_to_word(0, token_index)

    def token_to_sequence(self, token_index: int) -> int | None:
        """The text of a token."""
        return self._alignment.token_to_sequence(0, token_index)

    def word_to_tokens(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """The tokens of a word, from and to."""
        return self._alignment.word_to_tokens(0, word_index, sequence_index)

    def word_to_chars(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """The characters of a word, from and to."""
        return self._alignment.word_to_chars(0, word_index, sequence_index)


def encode(
    tokenizer: RemBertTokenizer, inputs: Sequence[Any], *, words: bool, specials: bool, truncation: Any
) -> list[Encoding]:
    """Rows of texts and pairs of texts, each with the rows that overflow; without padding.

    Args:
        tokenizer: encodes.
        inputs: strings, or pairs of strings; with `words`, lists of words and pairs of them.
        words: whether texts are given as words.
        specials: whether `[CLS]` and `[SEP]` are added.
        truncation: `tokenizers`' description: maximal length, strategy, stride and side; None for none.
    """
    settings: dict[str, Any] = {"truncation": False}
    if truncation is not None:
        tokenizer.truncation_side = truncation["direction"]
        settings = {
            "truncation": truncation["strategy"],
            "max_length": truncation["max_length"],
            "stride": truncation["stride"],
            "return_overflowing_tokens": True,
        }
    are_pairs = [_is_pair(each, words) for each in inputs]
    result: list[Any] = [None] * len(inputs)
    for kind in {*are_pairs}:
        indices = [index for index, is_pair in enumerate(are_pairs) if is_pair is kind]
        chosen = [inputs[index] for index in indices]
        firsts, seconds = (list(column) for column in zip(*chosen, strict=True)) if kind else (chosen, None)
        batch = tokenizer(
            firsts, seconds, is_split_into_words=words, add_special_tokens=specials, **settings
        )  # fmt: skip
        samples = batch.get("overflow_to_sample_mapping", range(len(chosen)))
        for row, sample in enumerate(samples):
            encoding, index = Encoding(tokenizer, batch, row), indices[sample]
            if result[index] is None:
                result[index] = encoding
            else:
                result[index].overflowing.append(encoding)
    return result


def _is_pair(given: Any, words: bool) -> bool:
    if words:
        return len(given) == 2 and all(isinstance(each, list | tuple) for each in given)
    return not isinstance(given, str)
