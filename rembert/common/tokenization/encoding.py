"""Texts to the model's inputs: the call of both tokenizers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from rembert.common.arguments import boolean_or, check_argument, integer, plain
from rembert.common.errors import InputError
from rembert.common.tokenization.batch_encoding import Alignment, BatchEncoding
from rembert.common.tokenization.garbage_collection import paused_garbage_collection
from rembert.common.tokenization.inputs import describe, sort_inputs
from rembert.common.tokenization.padding import (
    COUNT,
    SIDE,
    as_columns,
    check_tensors,
    pad_columns,
    padded_length,
    parse_padding,
    to_tensors,
)
from rembert.common.tokenization.samples import EncodedSamples
from rembert.common.tokenization.truncation import Padding, Truncation, Window, check_stride, special_count, windows
from rembert.common.tokenization.vocabulary import Vocabulary

UNLIMITED = int(1e30)  # `model_max_length` without a limit, as transformers writes it
Rows = list[list[Any]]
_STRIDE = integer(at_least=0)
_TRUNCATION = boolean_or(Truncation)


class CallableTokenizer(Vocabulary):
    """Encodes texts as the model's inputs."""

    model_input_names = ("input_ids", "token_type_ids", "attention_mask")
    model_max_length: int
    padding_side: str
    truncation_side: str

    # Long: a line for each argument, then one for each step.
    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool = True,
        return_attention_mask: bool = True,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
    ) -> BatchEncoding:
        """Encode a text, a pair of texts, or a batch of either.

        Args:
            text: a string; a list of strings (a batch); a list of pairs of strings (a batch of pairs). With
                `is_split_into_words`, a list of words, or a list of such lists (a batch).
            text_pair: the second texts, in the same form as `text`.
            add_special_tokens: put `[CLS]` first and `[SEP]` after each text.
            padding: True or "longest" (to the longest row), "max_length" (to `max_length`), or False.
            truncation: True or "longest_first", "only_first", "only_second", or False. By default it is on if
                `max_length` is given without padding.
            max_length: in tokens, special tokens included; by default `model_max_length`.
            stride: the number of tokens by which neighbouring windows of a text overlap.
            is_split_into_words: the texts are given as words; each is encoded on its own.
            pad_to_multiple_of: pad rows to a multiple of this.
            padding_side: "left" or "right"; by default `self.padding_side`.
            return_tensors: "np", "pt" or "tf" for tensors of shape [b, s]; by default lists.
            return_token_type_ids: return `token_type_ids`: 0 up to the first `[SEP]`, 1 after.
            return_attention_mask: return `attention_mask`: 1 for tokens, 0 for padding.
            return_overflowing_tokens: return the truncated tokens in further rows ("windows"), and the number of each
                row's sample in `overflow_to_sample_mapping`; the result is then always a batch.
            return_special_tokens_mask: return `special_tokens_mask`: 1 for `[CLS]`, `[SEP]` and padding added here.
            return_offsets_mapping: return `offset_mapping`: for each token (start, end) in characters of its text (of
                its word, if the texts are given as words), (0, 0) for the special tokens of this call.
            return_length: return `length`, the number of tokens of each row without padding.

        Raises:
            InputError: the text is not of these forms or holds lone surrogates; the arguments do not fit together;
                no truncation can bring the pair to `max_length`; padding is asked for without a pad token.
            MissingDependencyError: the framework that `return_tensors` asks for is not installed.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> batch = tokenizer(["Moja habari", "habari"], padding=True, return_tensors="np")
            >>> batch.input_ids.shape == batch.attention_mask.shape, len(batch.input_ids)
            (True, 2)
        """
        cut = self._truncation(truncation, max_length, padding)
        pad = parse_padding(padding)
        limit = self._limit(max_length)
        side = self.padding_side if padding_side is None else padding_side
        check_argument("padding_side", side, SIDE)
        check_argument("truncation_side", self.truncation_side, SIDE)
        stride = plain(stride)
        check_argument("stride", stride, _STRIDE)
        tensors = check_tensors(return_tensors)
        firsts, seconds, batched = sort_inputs(text, text_pair, is_split_into_words)
        if pad is not Padding.NONE and self.pad_token_id is None:
            pad_columns({}, 0, None, side)
        specials = special_count(seconds is not None, add_special_tokens)
        if return_overflowing_tokens and cut is not Truncation.NONE and limit is not None:
            check_stride(stride, max(limit - specials, 1), limit)
        with paused_garbage_collection():
            first = EncodedSamples(self._model, self._text_splitter, firsts, words=is_split_into_words)
            second = None
            if seconds is not None:
                second = EncodedSamples(self._model, self._text_splitter, seconds, words=is_split_into_words)
            rows = self._cut(first, second, cut, limit, specials, stride, return_overflowing_tokens)
            columns = self._columns(
                first,
                second,
                rows,
                add_special_tokens,
                types=return_token_type_ids,
                mask=return_attention_mask,
                special_mask=return_special_tokens_mask,
                spans=return_offsets_mapping,
            )
            if return_overflowing_tokens:
                columns["overflow_to_sample_mapping"] = [row.sample for row in rows or []] or list(range(len(firsts)))
            lengths = list(map(len, columns["input_ids"]))
            if return_length:
                columns["length"] = lengths
            width = padded_length(max(lengths, default=0), pad, limit, pad_to_multiple_of)
            if width is not None:
                pad_columns(columns, width, self.pad_token_id, side)
        if tensors is not None:
            columns = to_tensors(columns, tensors)
        elif not batched and not return_overflowing_tokens:
            columns = {name: rows[0] for name, rows in columns.items()}
        alignment = Alignment((first, second), rows, specials=add_special_tokens, width=width, left=side == "left")
        return BatchEncoding(columns, alignment)

    def _truncation(self, truncation: bool | str | None, max_length: int | None, padding: bool | str) -> Truncation:
        if truncation is None:
            return Truncation.LONGEST_FIRST if max_length is not None and padding is False else Truncation.NONE
        if isinstance(truncation, bool):
            return Truncation.LONGEST_FIRST if truncation else Truncation.NONE
        name = getattr(truncation, "value", truncation)
        check_argument("truncation", name, _TRUNCATION)
        return Truncation(name)

    def _limit(self, max_length: int | None) -> int | None:
        """The longest row, or None: `max_length`, else `model_max_length`."""
        if max_length is not None:
            length: int = plain(max_length)
            check_argument("max_length", length, COUNT)
            return length
        limit = plain(self.model_max_length)
        if isinstance(limit, int | float) and limit >= UNLIMITED:  # some files have it as a float
            return None
        check_argument("model_max_length", limit, COUNT)
        return limit

    def _cut(
        self, first: EncodedSamples, second: EncodedSamples | None, strategy: Truncation, limit: int | None,
        specials: int, stride: int, overflow: bool,
    ) -> list[Window] | None:  # fmt: skip
        """The rows, or None if each sample is one whole row."""
        if strategy is Truncation.NONE:
            return None
        if limit is None:
            warnings.warn(
                "`truncation` has no effect without `max_length`: this tokenizer has no `model_max_length`.",
                stacklevel=3,
            )
            return None
        firsts = list(map(len, first.ids))
        seconds: Sequence[int | None] = [None] * len(firsts) if second is None else list(map(len, second.ids))
        longest = max((a + (b or 0) for a, b in zip(firsts, seconds, strict=True)), default=0)
        if longest + specials <= limit:
            return None
        return [
            window
            for sample, lengths in enumerate(zip(firsts, seconds, strict=True))
            for window in windows(
                sample, lengths, max_length=limit, specials=specials, strategy=strategy, stride=stride,
                overflow=overflow, side=self.truncation_side,
            )
        ]  # fmt: skip

    def _columns(
        self, first: EncodedSamples, second: EncodedSamples | None, rows: list[Window] | None, specials: bool, *,
        types: bool, mask: bool, special_mask: bool, spans: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """The columns of the result, one list per row, before padding."""
        a = _windows_of(first.ids, rows, 0)
        b = None if second is None else _windows_of(second.ids, rows, 1)
        opening, closing = ([self._edge("cls_token")], [self._edge("sep_token")]) if specials else ([], [])
        columns: dict[str, Any] = {"input_ids": _framed(a, b, opening, closing)}
        edges = len(closing)
        if types:
            columns["token_type_ids"] = (
                [[0] * (len(x) + 2 * edges) for x in a]
                if b is None
                else [[0] * (len(x) + 2 * edges) + [1] * (len(y) + edges) for x, y in zip(a, b, strict=True)]
            )
        if mask:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        if special_mask:
            zeros_b = None if b is None else [[0] * len(x) for x in b]
            columns["special_tokens_mask"] = _framed([[0] * len(x) for x in a], zeros_b, [1] * edges, [1] * edges)
        if spans:
            spans_b = None if second is None else _windows_of(second.all_spans(), rows, 1)
            empty = [(0, 0)] * edges
            columns["offset_mapping"] = _framed(_windows_of(first.all_spans(), rows, 0), spans_b, empty, empty)
        return columns

    def _edge(self, name: str) -> int:
        index = self._role_id(name)
        if index is None:
            raise InputError(
                f"The tokenizer must have a `{name}` to frame a row. Received: `{name}=None`. Set it, or call with "
                f"`add_special_tokens=False`."
            )
        return index

    # Parts of a call

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """The `input_ids` of one text or pair; `options` as for a call."""
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """A call, under its older name for one text or pair."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **options: Any) -> BatchEncoding:
        """A call, under its older name for a batch."""
        return self(batch_text_or_text_pairs, **options)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text as strings; an unknown token is shown as the text that it covers.

        Args:
            text: the text.
            pair: a second text; its tokens follow.
            add_special_tokens: put `[CLS]` and `[SEP]` around them.

        Raises:
            InputError: `text` or `pair` is not a string, or holds lone surrogates.
        """
        if not isinstance(text, str):
            raise InputError(f"`text` must be a string. Received: {describe(text)}.")
        firsts, seconds, _ = sort_inputs(text, pair, False)
        first, second = (
            [
                token
                for part in self._text_splitter.split(sample)
                for token in (
                    self._model.encode_as_tokens(part.text)
                    if part.token is None
                    else [self.convert_ids_to_tokens(part.token)]
                )
            ]
            for sample in (firsts[0], "" if seconds is None else seconds[0])
        )
        if not add_special_tokens:
            return first + second
        opening, closing = (self.convert_ids_to_tokens([self._edge(name)]) for name in ("cls_token", "sep_token"))
        return _framed([first], None if seconds is None else [second], opening, closing)[0]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """The number of special tokens in a row: 2, or 3 for a pair."""
        return special_count(pair)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """`[CLS] 0 [SEP]`, or `[CLS] 0 [SEP] 1 [SEP]` for a pair.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> ids = tokenizer.build_inputs_with_special_tokens([11, 12], [13])
            >>> tokenizer.convert_ids_to_tokens(ids[::3])
            ['[CLS]', '[SEP]']
        """
        second = None if token_ids_1 is None else [list(token_ids_1)]
        return _framed([list(token_ids_0)], second, [self._edge("cls_token")], [self._edge("sep_token")])[0]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The token types of `build_inputs_with_special_tokens`: 0 up to the first `[SEP]`, 1 after.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> tokenizer.create_token_type_ids_from_sequences([11, 12], [13])
            [0, 0, 0, 0, 1, 1]
        """
        return [0] * (len(token_ids_0) + 2) + ([] if token_ids_1 is None else [1] * (len(token_ids_1) + 1))

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for special tokens, 0 for others.

        Args:
            token_ids_0: ids without special tokens, or, with `already_has_special_tokens`, a whole row.
            token_ids_1: the ids of the second text.
            already_has_special_tokens: find the special tokens of `token_ids_0`; `token_ids_1` must then be None.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> tokenizer.get_special_tokens_mask([11, 12], [13])
            [1, 0, 0, 1, 0, 1]
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise InputError(
                    "`token_ids_1` must be None with `already_has_special_tokens=True`, which takes a whole row. "
                    f"Received: {len(token_ids_1)} ids."
                )
            special = self._special_ids
            return [int(index in special) for index in token_ids_0]
        zeros = None if token_ids_1 is None else [[0] * len(token_ids_1)]
        return _framed([[0] * len(token_ids_0)], zeros, [1], [1])[0]

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad rows that were encoded one by one to one length.

        Args:
            encoded_inputs: a list of results of calls (or other mappings), a mapping of lists of rows, or one row.
                Values may be lists, arrays or tensors. Unknown keys are kept unchanged.
            padding, max_length, pad_to_multiple_of, padding_side, return_tensors: as for a call.
            return_attention_mask: add a missing `attention_mask`.

        Raises:
            InputError: no `input_ids`, rows with different keys, or no pad token.
            MissingDependencyError: the framework that `return_tensors` asks for is not installed.
        """
        side = self.padding_side if padding_side is None else padding_side
        check_argument("padding_side", side, SIDE)
        strategy = parse_padding(padding)
        tensors = check_tensors(return_tensors)
        columns, single = as_columns(encoded_inputs)
        ids = columns["input_ids"]
        if return_attention_mask and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in ids]
        longest = max(map(len, ids), default=0)
        width = padded_length(longest, strategy, self._limit(max_length), pad_to_multiple_of)
        if width is not None:
            pad_columns(columns, width, self.pad_token_id, side)
        if single:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns if tensors is None else to_tensors(columns, tensors))


def _windows_of(ids: Rows, rows: list[Window] | None, sequence: int) -> Rows:
    if rows is None:
        return ids
    return [ids[row.sample][row[1 + sequence]] for row in rows]  # type: ignore[index]


def _framed(first: Rows, second: Rows | None, opening: list[Any], closing: list[Any]) -> Rows:
    if second is None:
        return [[*opening, *row, *closing] for row in first]
    return [[*opening, *a, *closing, *b, *closing] for a, b in zip(first, second, strict=True)]
