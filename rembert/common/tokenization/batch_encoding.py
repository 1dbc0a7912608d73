"""What a tokenizer returns: the model's inputs by name, and the alignment of tokens with words and characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.common.tokenization.alignment import Alignment, RowEncoding
from rembert.common.tokenization.padding import check_tensors, is_tensor, to_tensors


class Range(NamedTuple):
    """A half-open range."""

    start: int
    end: int


class BatchEncoding(dict):
    """A dictionary of the model's inputs, which are attributes too: `enc["input_ids"]` is `enc.input_ids`.

    Values are lists (one per row, or a single row for a single text) or tensors of shape [b, s]. `batch_index` is the
    number of a row. If a method takes `batch_or_…_index`, a single number means row 0.

    Example:
        >>> from rembert import RemBertTokenizer
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> encoding = tokenizer("Moja habari")
        >>> first_word = encoding.word_to_chars(0)
        >>> "Moja habari"[first_word.start : first_word.end]
        'Moja'
        >>> encoding.sequence_ids()[0] is None  # [CLS] belongs to no text
        True
        >>> encoding.tokens()[-1]
        '[SEP]'
    """

    def __init__(
        self,
        data: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        alignment: Alignment | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
    ) -> None:
        """Make a result from inputs by name; `tensor_type` and `prepend_batch_axis` as in `convert_to_tensors`."""
        super().__init__({} if data is None else data)
        self._alignment = alignment
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, key: Any) -> Any:
        """The values of a name; the `RowEncoding` of a row's number; for a slice, these rows of all values."""
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        if isinstance(key, int):
            return self._row(key)
        return super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}; its keys are {list(self)}.")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self._alignment)

    def copy(self) -> BatchEncoding:
        """A shallow copy."""
        return type(self)(dict(self), self._alignment)

    @property
    def data(self) -> dict[str, Any]:
        """The inputs as a plain dictionary."""
        return dict(self)

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move the PyTorch tensors to a device, in place, and return self. Other values stay as they are."""
        for name, value in self.items():
            if hasattr(value, "to") and hasattr(value, "device"):
                self[name] = value.to(device, non_blocking=non_blocking)
        return self

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Make all values tensors, in place, and return self.

        Args:
            tensor_type: "np", "pt" or "tf"; None changes nothing. Values that are such tensors stay as they are.
            prepend_batch_axis: give each value that is converted a first axis of length 1.

        Raises:
            InputError: rows of different lengths, or values that are not numbers.
            MissingDependencyError: the framework is not installed.
        """
        kind = check_tensors(tensor_type)
        if kind is not None:
            others = {name: value for name, value in self.items() if not is_tensor(value, kind)}
            if prepend_batch_axis:
                others = {name: [value] for name, value in others.items()}
            self.update(to_tensors(others, kind))
        return self

    @property
    def encodings(self) -> list[RowEncoding] | None:
        """All rows token by token, or None if this result does not come from a text."""
        return (
            None if self._alignment is None else [self._alignment.row(index) for index in range(len(self._alignment))]
        )

    @property
    def is_fast(self) -> bool:
        """Whether the result comes from a text, so that it has tokens, words and characters."""
        return self._alignment is not None

    @property
    def n_sequences(self) -> int | None:
        """The number of texts of each row, 1 or 2, or None if this result does not come from a text."""
        return None if self._alignment is None else self._alignment.n_sequences

    def _row(self, index: int) -> RowEncoding:
        if self._alignment is None:
            raise InputError("This result does not come from a text, so it has no words and characters.")
        return self._alignment.row(index)

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row as strings; an unknown token is shown as the text that it covers."""
        return list(self._row(batch_index).tokens)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its text, 0 or 1; None for special tokens and padding."""
        return list(self._row(batch_index).sequence_ids)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its word in its text, from 0; None for special tokens and padding."""
        return list(self._row(batch_index).word_ids)

    def words(self, batch_index: int = 0) -> list[int | None]:
        """`word_ids`, under its older name."""
        return self.word_ids(batch_index)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token of a character, or None (white space, or truncated).

        `char_to_token(char)` means the first row, `char_to_token(row, char)` the given one. In a text of words, the
        first word that has such a character counts.
        """
        row, char = _row_and_index(batch_or_char_index, char_index)
        alignment = self._row(row)
        self._check_char(char)
        for token, (sequence, span) in enumerate(zip(alignment.sequence_ids, alignment.spans, strict=True)):
            if sequence == sequence_index and span is not None and span[0] <= char < span[1]:
                return token
        return None

    @staticmethod
    def _check_char(char: int) -> None:
        if char < 0:
            raise InputError(f"A character's position must be 0 or more. Received: {char}.")

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> Range | None:
        """The (start, end) of the characters of a token, or None for special tokens and padding."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        span = self._at(self._row(row).spans, token)
        return None if span is None else Range(*span)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of the word of a token, or None for special tokens and padding."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        return self._at(self._row(row).word_ids, token)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of the text of a token, 0 or 1, or None for special tokens and padding."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        return self._at(self._row(row).sequence_ids, token)

    @staticmethod
    def _at(column: list[Any], token: int) -> Any:
        if not -len(column) <= token < len(column):
            raise InputError(f"There is no token {token} in a row of {len(column)}.")
        return column[token]

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> Range | None:
        """The tokens of a word as (first, last + 1), or None if the row holds none of them."""
        row, word = _row_and_index(batch_or_word_index, word_index)
        alignment = self._row(row)
        tokens = [
            token
            for token, (sequence, number) in enumerate(zip(alignment.sequence_ids, alignment.word_ids, strict=True))
            if sequence == sequence_index and number == word
        ]
        return Range(tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> Range | None:
        """The (start, end) of the characters of a word, or None if the row holds none of its tokens."""
        row, number = _row_and_index(batch_or_word_index, word_index)
        tokens = self.word_to_tokens(row, number, sequence_index)
        if tokens is None:
            return None
        spans = [span for span in self._row(row).spans[slice(*tokens)] if span is not None]
        return Range(min(start for start, _ in spans), max(end for _, end in spans))

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The number of the word of a character, or None."""
        row, position = _row_and_index(batch_or_char_index, char_index)
        token = self.char_to_token(row, position, sequence_index)
        return None if token is None else self._row(row).word_ids[token]


def _row_and_index(first: int, second: int | None) -> tuple[int, int]:
    """Row and index from the two numbers of a method; a single number means row 0."""
    return (0, first) if second is None else (first, second)
