"""Rows of ids: special tokens around them, the longest row, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rembert.common.arguments import Constraint, boolean_or, check_argument, integer, plain
from rembert.common.errors import InputError
from rembert.common.tokenization.added_tokens import has_surrogate
from rembert.common.tokenization.batch_encoding import BatchEncoding
from rembert.common.tokenization.call_options import CallOptions
from rembert.common.tokenization.decoding import TextDecoder
from rembert.common.tokenization.padding import (
    COUNT,
    LENGTH,
    SIDE,
    UNLIMITED,
    as_columns,
    check_tensors,
    pad_columns,
    padded_length,
    parse_padding,
    to_tensors,
)
from rembert.common.tokenization.samples import EncodedTexts, GivenIds
from rembert.common.tokenization.truncation import (
    Padding,
    Truncation,
    Window,
    check_stride,
    special_count,
    windows,
)
from rembert.common.tokenization.vocabulary import check_ids
from rembert.common.warning import warn

INPUT_NAMES = ("input_ids", "token_type_ids", "attention_mask")
NAMES = Constraint(
    "a list of names, `input_ids` first",
    lambda value: (
        isinstance(value, list | tuple)
        and value[:1] in (["input_ids"], ("input_ids",))
        and all(isinstance(name, str) and not has_surrogate(name) for name in value)
    ),
)
Rows = list[list[Any]]
_TRUNCATION = boolean_or(Truncation)
_STRIDE = integer(at_least=0)


class RowBuilder(TextDecoder):
    """Makes rows of ids that the model takes."""

    model_input_names: list[str]
    model_max_length: int
    padding_side: str
    truncation_side: str
    verbose: bool

    pad_token_type_id = 0  # the token type of padding

    @property
    def max_len_single_sentence(self) -> int:
        """The longest text in tokens, without special tokens, by `model_max_length`."""
        return self.model_max_length - special_count(False)

    @property
    def max_len_sentences_pair(self) -> int:
        """The longest pair of texts in tokens, without special tokens, by `model_max_length`."""
        return self.model_max_length - special_count(True)

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
        return framed([list(token_ids_0)], second, [self._edge("cls_token")], [self._edge("sep_token")])[0]

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
        return framed([[0] * len(token_ids_0)], zeros, [1], [1])[0]

    def prepare_for_model(
        self, ids: Sequence[int], pair_ids: Sequence[int] | None = None, *, prepend_batch_axis: bool = False,
        **options: Any,
    ) -> BatchEncoding:  # fmt: skip
        """The inputs for ids that were made before: special tokens, truncation, padding.

        Args:
            ids: ids without special tokens, such as those of `convert_tokens_to_ids`.
            pair_ids: the ids of the second text.
            prepend_batch_axis: return a batch of one row.
            options: as for a call, without those that need a text. As everywhere, `return_overflowing_tokens` returns
                the truncated tokens in further rows.

        Raises:
            InputError: ids that are no integers, offsets asked for, or as for a call.
            KeywordError: an unknown option, or one that needs a text.

        Example:
            >>> from rembert import RemBertTokenizer
            >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
            >>> ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("Moja habari"))
            >>> tokenizer.prepare_for_model(ids) == tokenizer("Moja habari")
            True
        """
        checked = self._options("prepare_for_model", **options)
        if checked.spans:
            raise InputError(
                "`return_offsets_mapping` needs a text, and ids have none. Received: `return_offsets_mapping=True`. "
                "Call the tokenizer with the text."
            )
        second = None if pair_ids is None else GivenIds([check_ids(pair_ids)])
        self._check_rows(second is not None, checked)
        columns, _, _ = self._rows(GivenIds([check_ids(ids)]), second, checked)
        if not prepend_batch_axis and not checked.overflow:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, tensor_type=checked.tensors)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
        **others: Any,
    ) -> BatchEncoding:
        """Pad rows that were encoded one by one to one length.

        Args:
            encoded_inputs: a list of results of calls (or other mappings), a mapping of lists of rows, or one row.
                Values may be lists, arrays or tensors. Unknown keys are kept unchanged.
            padding, max_length, pad_to_multiple_of, padding_side, return_tensors: as for a call.
            return_attention_mask: add a missing `attention_mask`; by default if `model_input_names` has it.
            verbose: has no effect.
            others: None or False for arguments that transformers has.

        Raises:
            InputError: no `input_ids`, rows with different keys, or no pad token.
            KeywordError: an unknown argument.
            MissingDependencyError: the framework that `return_tensors` asks for is not installed.
        """
        self._check_others(others, "pad")
        side = self.padding_side if padding_side is None else padding_side
        check_argument("padding_side", side, SIDE)
        strategy = parse_padding(padding)
        tensors = check_tensors(return_tensors)
        columns, single = as_columns(encoded_inputs)
        ids = columns["input_ids"]
        if return_attention_mask is None:
            return_attention_mask = "attention_mask" in self.model_input_names
        if return_attention_mask and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in ids]
        longest = max(map(len, ids), default=0)
        width = padded_length(longest, strategy, self._limit(max_length), pad_to_multiple_of)
        if width is not None:
            pad_columns(columns, width, self.pad_token_id, side)
        if single:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns if tensors is None else to_tensors(columns, tensors))

    # Steps of a call

    def _options(
        self,
        caller: str,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
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
    ) -> CallOptions:
        """The options of a call, checked; the arguments are those of `CallableTokenizer.__call__`."""
        self._check_others(others, "__call__", caller)
        side = self.padding_side if padding_side is None else padding_side
        check_argument("padding_side", side, SIDE)
        check_argument("truncation_side", self.truncation_side, SIDE)
        stride = plain(stride)
        check_argument("stride", stride, _STRIDE)
        names = self.model_input_names
        return CallOptions(
            specials=add_special_tokens,
            pad=parse_padding(padding),
            cut=self._truncation(truncation, max_length, padding),
            limit=self._limit(max_length),
            stride=stride,
            multiple_of=pad_to_multiple_of,
            side=side,
            tensors=check_tensors(return_tensors),
            types="token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
            mask="attention_mask" in names if return_attention_mask is None else return_attention_mask,
            overflow=return_overflowing_tokens,
            special_mask=return_special_tokens_mask,
            spans=return_offsets_mapping,
            length=return_length,
            verbose=verbose and self.verbose and max_length is None,
        )

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
        check_argument("model_max_length", limit, LENGTH)
        return None if limit >= UNLIMITED else limit

    def _check_rows(self, pairs: bool, options: CallOptions) -> None:
        if options.pad is not Padding.NONE and self.pad_token_id is None:
            pad_columns({}, 0, None, options.side)
        if options.overflow and options.cut is not Truncation.NONE and options.limit is not None:
            specials = special_count(pairs, options.specials)
            check_stride(options.stride, max(options.limit - specials, 1), options.limit)

    def _rows(
        self, first: EncodedTexts, second: EncodedTexts | None, options: CallOptions
    ) -> tuple[dict[str, Any], list[Window] | None, int | None]:
        """The columns of the result, the rows as in `_cut`, and the padded length (None without padding)."""
        rows = self._cut(first, second, options)
        columns = self._columns(first, second, rows, options)
        if options.overflow:
            samples = [row.sample for row in rows or []] or list(range(len(first.ids)))
            columns["overflow_to_sample_mapping"] = samples
        lengths = list(map(len, columns["input_ids"]))
        longest = max(lengths, default=0)
        if options.length:
            columns["length"] = lengths
        if options.verbose and options.limit is not None and longest > options.limit:
            self._warn_of_length(longest, options.limit)
        width = padded_length(longest, options.pad, options.limit, options.multiple_of)
        if width is not None:
            pad_columns(columns, width, self.pad_token_id, options.side)
        return columns, rows, width

    def _warn_of_length(self, longest: int, limit: int) -> None:
        if "_warned" not in self.__dict__:
            self._warned = True
            warn(
                f"A row of {longest} tokens is longer than `model_max_length={limit}`; a model may refuse it. Pass "
                f"`truncation=True`. This tokenizer warns once.",
            )

    def _cut(self, first: EncodedTexts, second: EncodedTexts | None, options: CallOptions) -> list[Window] | None:
        """The rows, or None if each sample is one whole row."""
        strategy, limit = options.cut, options.limit
        specials = special_count(second is not None, options.specials)
        if strategy is Truncation.NONE:
            return None
        if limit is None:
            warn(
                "`truncation` has no effect without `max_length`: this tokenizer has no `model_max_length`.",
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
                sample, lengths, max_length=limit, specials=specials, strategy=strategy, stride=options.stride,
                overflow=options.overflow, side=self.truncation_side,
            )
        ]  # fmt: skip

    def _columns(
        self, first: EncodedTexts, second: EncodedTexts | None,
        rows: list[Window] | None, options: CallOptions,
    ) -> dict[str, Any]:  # fmt: skip
        """The columns of the result, one list per row, before padding."""
        a = _windows_of(first.ids, rows, 0)
        b = None if second is None else _windows_of(second.ids, rows, 1)
        opening, closing = ([self._edge("cls_token")], [self._edge("sep_token")]) if options.specials else ([], [])
        columns: dict[str, Any] = {"input_ids": framed(a, b, opening, closing)}
        edges = len(closing)
        if options.types:
            columns["token_type_ids"] = (
                [[0] * (len(x) + 2 * edges) for x in a]
                if b is None
                else [[0] * (len(x) + 2 * edges) + [1] * (len(y) + edges) for x, y in zip(a, b, strict=True)]
            )
        if options.mask:
            columns["attention_mask"] = [[1] * len(row) for row in columns["input_ids"]]
        if options.special_mask:
            zeros_b = None if b is None else [[0] * len(x) for x in b]
            columns["special_tokens_mask"] = framed([[0] * len(x) for x in a], zeros_b, [1] * edges, [1] * edges)
        if options.spans:
            spans_b = None if second is None else _windows_of(second.all_spans(), rows, 1)
            empty = [(0, 0)] * edges
            columns["offset_mapping"] = framed(_windows_of(first.all_spans(), rows, 0), spans_b, empty, empty)
        return columns

    def _edge(self, name: str) -> int:
        index = self._role_id(name)
        if index is None:
            raise InputError(
                f"The tokenizer must have a `{name}` to frame a row. Received: `{name}=None`. Set it, or call with "
                f"`add_special_tokens=False`."
            )
        return index


def _windows_of(ids: Rows, rows: list[Window] | None, sequence: int) -> Rows:
    if rows is None:
        return ids
    return [ids[row.sample][row[1 + sequence]] for row in rows]  # type: ignore[index]


def framed(first: Rows, second: Rows | None, opening: list[Any], closing: list[Any]) -> Rows:
    """The rows `opening first closing`, or `opening first closing second closing`."""
    if second is None:
        return [[*opening, *row, *closing] for row in first]
    return [[*opening, *a, *closing, *b, *closing] for a, b in zip(first, second, strict=True)]
