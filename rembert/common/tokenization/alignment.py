"""The rows of a result, token by token: ids, texts, words and characters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rembert.common.errors import InputError
from rembert.common.tokenization.offsets import Span
from rembert.common.tokenization.samples import EncodedSamples
from rembert.common.tokenization.truncation import Window


@dataclass(frozen=True)
class RowEncoding:
    """One row of a result, with the names of the `tokenizers` library. Its length is the number of tokens.

    Args:
        ids: the ids, padding included.
        tokens: the tokens as strings; an unknown token is shown as the text that it covers.
        type_ids: 0 up to the first `[SEP]` and for padding, 1 after.
        attention_mask: 1 for tokens, 0 for padding.
        sequence_ids: the text of each token, 0 or 1; None for special tokens of the call and padding.
        word_ids: the word of each token in its text, from 0; None likewise.
        spans: the characters of each token in its text (in its word, if words were given); None likewise.
        n_sequences: the number of texts, 1 or 2.
        overflowing: always empty: windows are rows of the result.

    Example:
        >>> from rembert import RemBertTokenizer
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> row = tokenizer(["Moja habari"])[0]
        >>> row.tokens[0], row.type_ids == [0] * len(row)
        ('[CLS]', True)
    """

    ids: list[int]
    tokens: list[str]
    type_ids: list[int]
    attention_mask: list[int]
    sequence_ids: list[int | None]
    word_ids: list[int | None]
    spans: list[Span | None]
    n_sequences: int
    overflowing: list[RowEncoding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def offsets(self) -> list[Span]:
        """`spans`, with (0, 0) for special tokens and padding."""
        return [(0, 0) if span is None else span for span in self.spans]

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for special tokens of the call and padding, 0 for others."""
        return [int(sequence is None) for sequence in self.sequence_ids]

    @property
    def words(self) -> list[int | None]:
        """`word_ids`, under its older name."""
        return self.word_ids


class Edges(NamedTuple):
    """The ids of the tokens that a call adds; None for those that it has no need of."""

    opening: int | None
    closing: int | None
    padding: int | None


class Alignment:
    """The alignment of every row, computed when it is needed.

    A pickle holds the alignments of all rows, not the texts and the model.
    """

    def __init__(
        self, samples: tuple[EncodedSamples, EncodedSamples | None], windows: list[Window] | None, *,
        edges: Edges, names: Callable[[list[int]], list[str]], width: int | None, left: bool,
    ) -> None:  # fmt: skip
        """Keep what the alignments are made of.

        Args:
            samples: the first and the second texts.
            windows: the rows; None if row i is all of sample i.
            edges: the ids of the special tokens of the call.
            names: gives the tokens of ids.
            width: the padded length; None without padding.
            left: whether padding is on the left.
        """
        self._samples: tuple[EncodedSamples | None, ...] = samples
        self._windows = windows
        self._edges = edges
        self._names: Callable[[list[int]], list[str]] | None = names
        self._width = width
        self._left = left
        self.n_sequences = 1 if samples[1] is None else 2
        self._rows: dict[int, RowEncoding] = {}
        # Tokens, words and ranges of whole samples, by text (0 or 1) and sample: all windows of a sample share them.
        self._whole: dict[tuple[int, int], tuple[list[str], list[int], list[Span]]] = {}

    def __len__(self) -> int:
        if self._windows is not None:
            return len(self._windows)
        return len(self._samples[0].ids) if self._samples and self._samples[0] is not None else len(self._rows)

    def row(self, index: int) -> RowEncoding:
        """One row; negative indices count from the end."""
        count = len(self)
        if not -count <= index < count:
            raise InputError(f"There is no row {index} in a batch of {count}.")
        index %= count
        if index not in self._rows:
            self._rows[index] = self._make(index)
        return self._rows[index]

    def _make(self, index: int) -> RowEncoding:
        whole = slice(None)
        sample, *stretches = self._windows[index] if self._windows else Window(index, whole, whole)
        opening, closing, pad = (([] if edge is None else [edge]) for edge in self._edges)
        ids: list[Any] = list(opening)
        tokens: list[Any] = self._name(opening)
        types = [0] * len(opening)
        edge: list[Any] = [None] * len(opening)
        sequences, words, spans = list(edge), list(edge), list(edge)
        for number, (samples, stretch) in enumerate(zip(self._samples, stretches, strict=True)):
            if samples is not None and stretch is not None:
                if (number, sample) not in self._whole:
                    self._whole[number, sample] = self._texts(samples, sample, samples.spans(sample))
                all_tokens, all_words, all_spans = self._whole[number, sample]
                part = samples.ids[sample][stretch]
                ids += part + closing
                tokens += all_tokens[stretch] + self._name(closing)
                types += [number] * (len(part) + len(closing))
                sequences += [number] * len(part) + edge
                words += all_words[stretch] + edge
                spans += all_spans[stretch] + edge
        count = max(self._width - len(words), 0) if self._width else 0

        def padded(column: list[Any], fill: list[Any]) -> list[Any]:
            return fill * count + column if self._left else column + fill * count

        return RowEncoding(
            ids=padded(ids, pad),
            tokens=padded(tokens, self._name(pad)),
            type_ids=padded(types, [0]),
            attention_mask=padded([1] * len(ids), [0]),
            sequence_ids=padded(sequences, [None]),
            word_ids=padded(words, [None]),
            spans=padded(spans, [None]),
            n_sequences=self.n_sequences,
        )

    def _name(self, ids: list[int]) -> list[str]:
        assert self._names is not None  # only a pickle has none, and it holds all rows
        return self._names(ids)

    def _texts(
        self, samples: EncodedSamples, sample: int, spans: list[Span]
    ) -> tuple[list[str], list[int], list[Span]]:
        return samples.tokens(sample, self._name), samples.words(sample), spans

    def __getstate__(self) -> dict[str, Any]:
        for number, samples in enumerate(self._samples):
            if samples is not None:  # the ranges of all samples at once cost a tenth of one sample at a time
                for sample, spans in enumerate(samples.all_spans()):
                    self._whole[number, sample] = self._texts(samples, sample, spans)
        rows = {index: self.row(index) for index in range(len(self))}
        return {**self.__dict__, "_rows": rows, "_samples": (), "_windows": None, "_whole": {}, "_names": None}
