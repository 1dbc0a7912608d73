"""Samples (texts, or lists of words) to ids, and later from ids back to characters and words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, chain, pairwise
from typing import Protocol

from rembert.common.errors import InputError
from rembert.common.tokenization.added_tokens import AddedTokenSplitter, Part
from rembert.common.tokenization.offsets import Span, project, token_spans, word_numbers
from rembert.common.tokenization.sentencepiece_model import SentencePieceModel

Sample = str | Sequence[str]  # a text, or the words of one


class EncodedTexts(Protocol):
    """Texts as ids: of `EncodedSamples`, or given by the caller."""

    ids: list[list[int]]

    def all_spans(self) -> list[list[Span]]:
        """For each text, for each id, its range of characters."""


class GivenIds:
    """Ids that the caller made."""

    def __init__(self, ids: list[list[int]]) -> None:
        """Take the ids of each text."""
        self.ids = ids

    def all_spans(self) -> list[list[Span]]:
        raise InputError("Ids have no characters.")


class EncodedSamples:
    """The ids of some samples. Offsets and words are computed when they are needed.

    A sample is one text, or several (its words). A text is one segment for SentencePiece or, if it holds added tokens,
    several parts.
    """

    def __init__(
        self, model: SentencePieceModel, splitter: AddedTokenSplitter, samples: Sequence[Sample], *, words: bool
    ) -> None:
        """Encode `samples`, which are lists of words where `words` is true."""
        self._model = model
        self._words = words
        texts: list[str] = list(chain.from_iterable(samples)) if words else list(samples)  # type: ignore[arg-type]
        self._texts = texts
        self._parts: dict[int, list[Part]] = {}  # of the texts that are not one unchanged segment
        if splitter.may_change(texts):
            for number, text in enumerate(texts):
                parts = splitter.split(text)
                if len(parts) != 1 or parts[0].token is not None or parts[0].text != text:
                    self._parts[number] = parts
        text_ids = self._encode_parts() if self._parts else model.encode(texts)
        self._text_ids = text_ids  # ids of each text
        if words:
            self._bounds = [0, *accumulate(map(len, samples))]
            self.ids = [list(chain.from_iterable(text_ids[low:high])) for low, high in pairwise(self._bounds)]
        else:
            self.ids = text_ids

    def _encode_parts(self) -> list[list[int]]:
        segments = [part.text for parts in self._parts.values() for part in parts if part.token is None]
        whole = [text for number, text in enumerate(self._texts) if number not in self._parts]
        encoded = iter(self._model.encode(whole + segments))
        text_ids: list[list[int]] = [
            [] if number in self._parts else next(encoded) for number in range(len(self._texts))
        ]
        self._part_ids: dict[int, list[list[int]]] = {}
        for number, parts in self._parts.items():
            ids = [next(encoded) if part.token is None else [part.token] for part in parts]
            self._part_ids[number] = ids
            text_ids[number] = list(chain.from_iterable(ids))
        return text_ids

    def _range(self, sample: int) -> range:
        return range(self._bounds[sample], self._bounds[sample + 1]) if self._words else range(sample, sample + 1)

    def all_spans(self) -> list[list[Span]]:
        """For each sample, for each id, its range of characters; of a word, within that word."""
        spans = self._text_spans(range(len(self._texts)))
        if self._words:
            return [list(chain.from_iterable(spans[low:high])) for low, high in pairwise(self._bounds)]
        return spans

    def spans(self, sample: int) -> list[Span]:
        """`all_spans()[sample]`, without computing the others."""
        return list(chain.from_iterable(self._text_spans(self._range(sample))))

    def tokens(self, sample: int, names: Callable[[list[int]], list[str]]) -> list[str]:
        """For each id of a sample its token; an unknown one is shown as the text that it covers.

        `names` gives the tokens of ids.
        """
        result: list[str] = []
        for number in self._range(sample):
            whole = [(self._texts[number], self._text_ids[number])]
            parts = (
                zip((part.text for part in self._parts[number]), self._part_ids[number], strict=True)
                if number in self._parts
                else whole
            )
            for text, ids in parts:
                result += self._model.encode_as_tokens(text) if text and self._model.unk_id in ids else names(ids)
        return result

    def words(self, sample: int) -> list[int]:
        """For each id of a sample the number of its word, from 0.

        Words that were given are numbered as given. In a text, a word starts at each space and at each added token,
        and an added token is a word.
        """
        if self._words:
            texts = self._range(sample)
            return [word for word, number in enumerate(texts) for _ in self._text_ids[number]]
        if sample not in self._parts:
            return word_numbers(self._model, self._texts[sample], self._text_ids[sample])
        result: list[int] = []
        for part, ids in zip(self._parts[sample], self._part_ids[sample], strict=True):
            base = result[-1] + 1 if result else 0
            words = [0] if part.token is not None else word_numbers(self._model, part.text, ids)
            result += [base + word for word in words]
        return result

    def _text_spans(self, numbers: range) -> list[list[Span]]:
        segments: list[str] = []
        ids: list[list[int]] = []
        for number in numbers:
            if number in self._parts:
                for part, part_ids in zip(self._parts[number], self._part_ids[number], strict=True):
                    if part.token is None:
                        segments.append(part.text)
                        ids.append(part_ids)
            else:
                segments.append(self._texts[number])
                ids.append(self._text_ids[number])
        found = token_spans(self._model, segments, ids)
        if self._parts:
            spans = iter(found)
            return [
                self._joined([next(spans) if part.token is None else None for part in self._parts[number]], number)
                if number in self._parts
                else next(spans)
                for number in numbers
            ]
        return found

    def _joined(self, part_spans: list[list[Span] | None], number: int) -> list[Span]:
        """The ranges of a text's parts, moved to the positions of the parts; None is an added token."""
        text = self._texts[number]
        result: list[Span] = []
        for part, spans in zip(self._parts[number], part_spans, strict=True):
            if spans is None:
                stripped = text[part.start : part.end].lstrip()
                result.append((part.end - len(stripped), part.start + len(text[part.start : part.end].rstrip())))
            else:
                if part.boundaries is not None:
                    spans = project(spans, part.boundaries)
                result += [(part.start + start, part.start + end) for start, end in spans]
        return result
