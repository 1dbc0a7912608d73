"""From tokens to the characters of the source text.

A token covers a range of the normalised text, and each normalised character has an origin in the source. The range of
a token holds the origins of all its characters, so two tokens from one source character (`½` becomes `1⁄2`) both
include it. Space markers at the start of a token are left out; a token of markers alone has an empty range before the
next character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np

from rembert.common.tokenization.sentencepiece_model import MARKER, SentencePieceModel, TokenShapes, shapes_of

Span = tuple[int, int]

# Ranges are tuples, and most texts need the same ones: short ranges near the start are made once and shared. Making
# new ones doubles the cost of offsets (2.1 against 0.9 times SentencePiece's batch encode for 2,000,000 ranges), most
# of it in the garbage collector, which visits every new tuple.
_STARTS, _LENGTHS = 2048, 16


def token_spans(model: SentencePieceModel, texts: list[str], ids: list[list[int]]) -> list[list[Span]]:
    """The source range of every token.

    Args:
        model: the model that made the ids.
        texts: the texts, exactly as they were encoded.
        ids: the ids of each text.

    Returns:
        for each text, for each id, (start, end) in characters of the text.
    """
    counts = np.fromiter(map(len, ids), np.int64, len(ids))
    lengths, leading = _lengths_and_leading(model, ids, int(counts.sum()))
    prefix = MARKER if model.normalizer_spec.add_dummy_prefix else ""
    # Positions in the concatenated normalised texts, then in each text without its prefix.
    ends = np.cumsum(lengths)
    ahead = np.cumsum(counts)
    base = np.repeat(np.concatenate([[0], ends])[ahead - counts] + len(prefix), counts)
    result = _by_text(np.maximum(ends - lengths + leading - base, 0), np.maximum(ends - base, 0), ahead)
    # These are positions in the source if the normaliser changed only spaces to markers.
    changed = [
        number
        for number, (text, normalized) in enumerate(zip(texts, model.normalize(texts), strict=True))
        if ids[number] and (normalized != prefix + text.replace(" ", MARKER) or model.unk_id in ids[number])
    ]
    if changed:
        spans = _spans_through_normalization(model, [texts[i] for i in changed], [ids[i] for i in changed])
        for number, text_spans in zip(changed, spans, strict=True):
            result[number] = text_spans
    return result


def _spans_through_normalization(
    model: SentencePieceModel, texts: list[str], ids: list[list[int]]
) -> list[list[Span]]:
    """`token_spans` for texts that the normaliser changed or that have unknown tokens, which vary in length."""
    counts = np.fromiter(map(len, ids), np.int64, len(ids))
    ahead = np.cumsum(counts)
    lengths, leading = _lengths_and_leading(model, ids, int(counts.sum()))
    for text, row, stop in zip(texts, ids, ahead.tolist(), strict=True):
        if model.unk_id in row:  # an unknown token has a length of its own in each text
            shapes = shapes_of(model.encode_as_tokens(text))
            lengths[stop - len(row) : stop] = shapes.lengths
            leading[stop - len(row) : stop] = shapes.leading
    # One lookup for all texts: the origins of each text are moved behind those of the text before it.
    maps = [model.normalize_with_origins(text)[1] for text in texts]
    text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    origins = np.concatenate([entries + start for entries, start in zip(maps, text_starts, strict=True)])
    # A text of n normalised characters has n + 1 entries, so each earlier text adds one to the position.
    ends = np.cumsum(lengths) + np.repeat(np.arange(len(texts)), counts)
    starts = ends - lengths + leading
    source_starts = origins[starts]
    # The origin of the last character ends where the next origin starts, which is not always the next entry.
    source_ends = origins[np.searchsorted(origins, origins[ends - 1], side="right")]
    source_ends = np.where(leading == lengths, source_starts, source_ends)
    base = np.repeat(text_starts, counts)
    return _by_text(source_starts - base, source_ends - base, ahead)


def _lengths_and_leading(model: SentencePieceModel, ids: list[list[int]], count: int) -> tuple[np.ndarray, np.ndarray]:
    flat = np.fromiter(chain.from_iterable(ids), np.int64, count)
    return model.shapes.lengths[flat], model.shapes.leading[flat]


def _by_text(starts: np.ndarray, ends: np.ndarray, ahead: np.ndarray) -> list[list[Span]]:
    spans = _shared_spans(starts, ends)
    return [spans[low:high] for low, high in pairwise([0, *ahead.tolist()])]


def project(spans: Sequence[Span], boundaries: Sequence[int]) -> list[Span]:
    """Ranges in the source from ranges in a changed text.

    Args:
        spans: ranges in the changed text.
        boundaries: the source position of each of its n characters, and the length of the source: n + 1 entries that
            never decrease.
    """
    origins = np.asarray(boundaries)
    reach = np.searchsorted(origins, origins, side="right").clip(max=len(origins) - 1)
    return [
        (int(origins[start]), int(origins[reach[end - 1]] if end > start else origins[start])) for start, end in spans
    ]


def word_numbers(model: SentencePieceModel, text: str, ids: list[int]) -> list[int]:
    """For each token of a text the number of the word in which it starts, from 0; a marker starts a word."""
    if not ids:
        return []
    if model.unk_id in ids:  # an unknown token may hold markers too
        shapes = shapes_of(model.encode_as_tokens(text))
    else:
        shapes = TokenShapes(*(values[ids] for values in model.shapes))
    seen = np.cumsum(shapes.markers) - shapes.markers + shapes.leading
    first = 1 if shapes.leading[0] else 0
    return (seen - first).tolist()


def _shared_spans(starts: np.ndarray, ends: np.ndarray) -> list[Span]:
    lengths = ends - starts
    spans = _table().take(starts * _LENGTHS + lengths, mode="clip")
    others = np.flatnonzero((starts >= _STARTS) | (lengths >= _LENGTHS))
    spans[others] = _tuples(zip(starts[others].tolist(), ends[others].tolist(), strict=True), len(others))
    return spans.tolist()


_shared: np.ndarray | None = None


def _table() -> np.ndarray:
    global _shared
    if _shared is None:
        pairs = ((start, start + length) for start in range(_STARTS) for length in range(_LENGTHS))
        _shared = _tuples(pairs, _STARTS * _LENGTHS)
    return _shared


def _tuples(pairs: Iterable[Span], count: int) -> np.ndarray:
    """An array of shape [count] that holds tuples; from a list of tuples NumPy would make two dimensions."""
    result = np.empty(count, object)
    result[:] = list(pairs)
    return result
