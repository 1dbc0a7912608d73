"""What a tokenizer returns: the model's inputs by name, and the alignment of tokens with words and characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.common.tokenization.offsets import Span
from rembert.common.tokenization.samples import EncodedSamples
from rembert.common.tokenization.truncation import Window


class RowAlignment(NamedTuple):
    """The text, the word and the characters of each token of a row; None for special tokens and padding."""

    sequences: list[int | None]
    words: list[int | None]
    spans: list[Span | None]


class Range(NamedTuple):
    """A half-open range."""

    start: int
    end: int


class Alignment:
    """The alignment of every row, computed when it is needed.

    A pickle holds the alignments of all rows, not the texts and the model.
    """

    def __init__(
        self, samples: tuple[EncodedSamples, EncodedSamples | None], windows: list[Window] | None, *,
        specials: bool, width: int | None, left: bool,
    ) -> None:  # fmt: skip
        """`windows` is None if row i is all of sample i; `width` is the padded length, None without padding."""
        self._samples = samples
        self._windows = windows
        self._specials = specials
        self._width = width
        self._left = left
        self._rows: dict[int, RowAlignment] = {}
        # Words and ranges of whole samples, by text (0 or 1) and sample: all windows of a sample share them.
        self._whole: dict[tuple[int, int], tuple[list[int], list[Span]]] = {}

    def __len__(self) -> int:
        if self._windows is not None:
            return len(self._windows)
        return len(self._samples[0].ids) if self._samples else len(self._rows)

    def row(self, index: int) -> RowAlignment:
        """The alignment of one row; negative indices count from the end."""
        count = len(self)
        if not -count <= index < count:
            raise InputError(f"There is no row {index} in a batch of {count}.")
        index %= count
        if index not in self._rows:
            self._rows[index] = self._make(index)
        return self._rows[index]

    def _make(self, index: int) -> RowAlignment:
        whole = slice(None)
        sample, *stretches = self._windows[index] if self._windows else Window(index, whole, whole)
        edge: list[Any] = [None] if self._specials else []
        sequences, words, spans = list(edge), list(edge), list(edge)
        for number, (samples, stretch) in enumerate(zip(self._samples, stretches, strict=True)):
            if samples is not None and stretch is not None:
                if (number, sample) not in self._whole:
                    self._whole[number, sample] = samples.words(sample), samples.spans(sample)
                all_words, all_spans = self._whole[number, sample]
                sequences += [number] * len(all_spans[stretch]) + edge
                words += all_words[stretch] + edge
                spans += all_spans[stretch] + edge
        padding = [None] * (max(self._width - len(words), 0) if self._width else 0)
        columns = (sequences, words, spans)
        return RowAlignment(*(padding + column if self._left else column + padding for column in columns))

    def __getstate__(self) -> dict[str, Any]:
        for number, samples in enumerate(self._samples):
            if samples is not None:  # the ranges of all samples at once cost a tenth of one sample at a time
                for sample, spans in enumerate(samples.all_spans()):
                    self._whole[number, sample] = samples.words(sample), spans
        rows = {index: self.row(index) for index in range(len(self))}
        return {**self.__dict__, "_rows": rows, "_samples": (), "_windows": None, "_whole": {}}


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
    """

    def __init__(
        self, data: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), alignment: Alignment | None = None
    ) -> None:
        super().__init__(data)
        self._alignment = alignment

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

    def _row(self, index: int) -> RowAlignment:
        if self._alignment is None:
            raise InputError("This result does not come from a text, so it has no words and characters.")
        return self._alignment.row(index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its text, 0 or 1; None for special tokens and padding."""
        return list(self._row(batch_index).sequences)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its word in its text, from 0; None for special tokens and padding."""
        return list(self._row(batch_index).words)

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
        for token, (sequence, span) in enumerate(zip(alignment.sequences, alignment.spans, strict=True)):
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
        return self._at(self._row(row).words, token)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The number of the text of a token, 0 or 1, or None for special tokens and padding."""
        row, token = _row_and_index(batch_or_token_index, token_index)
        return self._at(self._row(row).sequences, token)

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
            for token, (sequence, number) in enumerate(zip(alignment.sequences, alignment.words, strict=True))
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
        return None if token is None else self._row(row).words[token]


def _row_and_index(first: int, second: int | None) -> tuple[int, int]:
    """Row and index from the two numbers of a method; a single number means row 0."""
    return (0, first) if second is None else (first, second)
