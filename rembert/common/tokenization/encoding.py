"""Texts to the model's inputs: the call of both tokenizers."""

from __future__ import annotations

import inspect
from typing import Any

from rembert.common.errors import InputError
from rembert.common.tokenization.alignment import Alignment, Edges
from rembert.common.tokenization.batch_encoding import BatchEncoding
from rembert.common.tokenization.call_options import CallOptions
from rembert.common.tokenization.garbage_collection import paused_garbage_collection
from rembert.common.tokenization.inputs import describe, sort_inputs
from rembert.common.tokenization.rows import RowBuilder, framed
from rembert.common.tokenization.samples import EncodedSamples


class CallableTokenizer(RowBuilder):
    """Encodes texts as the model's inputs."""

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
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
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **others: Any,
    ) -> BatchEncoding:
        """Encode a text, a pair of texts, or a batch of either.

        Args:
            text: a string; a list of strings (a batch); a list of pairs of strings (a batch of pairs). With
                `is_split_into_words`, a list of words, a list of such lists (a batch), or a list of pairs of them.
            text_pair: the second texts, in the same form as `text`.
            text_target, text_pair_target: texts to be the labels, in the same forms. Beside `text`, their ids are
                returned as `labels`; alone, they are encoded as `text` is.
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
            return_token_type_ids: return `token_type_ids`: 0 up to the first `[SEP]`, 1 after. By default returned if
                `model_input_names` has them.
            return_attention_mask: return `attention_mask`: 1 for tokens, 0 for padding; likewise.
            return_overflowing_tokens: return the truncated tokens in further rows ("windows"), and the number of each
                row's sample in `overflow_to_sample_mapping`; the result is then always a batch.
            return_special_tokens_mask: return `special_tokens_mask`: 1 for `[CLS]`, `[SEP]` and padding added here.
            return_offsets_mapping: return `offset_mapping`: for each token (start, end) in characters of its text (of
                its word, if the texts are given as words), (0, 0) for the special tokens of this call.
            return_length: return `length`, the number of tokens of each row without padding.
            verbose: warn once if a row is longer than `model_max_length`, and not to be truncated.
            **others: arguments that only transformers' tokenizers have, as None or False, such as
                `split_special_tokens`.

        Raises:
            InputError: the text is not of these forms or holds lone surrogates; the arguments do not fit together;
                no truncation can bring the pair to `max_length`; padding is asked for without a pad token.
            KeywordError: an argument is unknown; the message suggests the nearest known one.
            MissingDependencyError: the framework that `return_tensors` asks for is not installed.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> batch = tokenizer(["Moja habari", "habari"], padding=True, return_tensors="np")
            >>> batch.input_ids.shape == batch.attention_mask.shape, len(batch.input_ids)
            (True, 2)
        """
        options = self._options(
            "__call__",
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_tensors=return_tensors,
            return_token_type_ids=return_token_type_ids,
            return_attention_mask=return_attention_mask,
            return_overflowing_tokens=return_overflowing_tokens,
            return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping,
            return_length=return_length,
            verbose=verbose,
            **others,
        )
        if text_pair_target is not None and text_target is None:
            raise InputError(
                "`text_pair_target` needs `text_target`, whose second texts it holds. Received: `text_target=None`."
            )
        if text is None and text_target is not None:
            return self._encode(text_target, text_pair_target, is_split_into_words, options)
        result = self._encode(text, text_pair, is_split_into_words, options)
        if text_target is not None:
            labels = self._encode(text_target, text_pair_target, is_split_into_words, options)
            result["labels"] = labels["input_ids"]
        return result

    def _encode(self, text: Any, text_pair: Any, words: bool, options: CallOptions) -> BatchEncoding:
        firsts, seconds, batched = sort_inputs(text, text_pair, words)
        self._check_rows(seconds is not None, options)
        with paused_garbage_collection():
            first = EncodedSamples(self._model, self._text_splitter, firsts, words=words)
            second = None
            if seconds is not None:
                second = EncodedSamples(self._model, self._text_splitter, seconds, words=words)
            columns, rows, width = self._rows(first, second, options)
        edges = (self.cls_token_id, self.sep_token_id) if options.specials else (None, None)
        alignment = Alignment(
            (first, second), rows, edges=Edges(*edges, self.pad_token_id), names=self.convert_ids_to_tokens,
            width=width, left=options.side == "left",
        )  # fmt: skip
        if options.tensors is None and not batched and not options.overflow:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, alignment, tensor_type=options.tensors)

    # Parts of a call

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """The `input_ids` of one text or pair; `options` as for a call."""
        self._check_names(options, "encode")
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """A call, under its older name for one text or pair."""
        self._check_names(options, "encode_plus")
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **options: Any) -> BatchEncoding:
        """A call, under its older name for a batch."""
        self._check_names(options, "batch_encode_plus")
        return self(batch_text_or_text_pairs, **options)

    def _check_names(self, options: dict[str, Any], caller: str) -> None:
        others = {name: value for name, value in options.items() if name not in _ARGUMENTS}
        self._check_others(others, "__call__", caller)

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
        return framed([first], None if seconds is None else [second], opening, closing)[0]


_ARGUMENTS = inspect.signature(CallableTokenizer.__call__).parameters.keys() - {"self", "others"}
