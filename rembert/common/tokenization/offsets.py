"""From pieces to the characters they stand for.

A piece covers a stretch of the normalised text, and each normalised character comes from somewhere in the source. A
range given here holds every source character that any of the piece's characters comes from, so two pieces made from
one source character (`½` becomes `1⁄2`) both have it. Space markers at the start of a piece are left out; a piece of
nothing else has an empty range, before the next character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np

from rembert.common.tokenization.sentencepiece_model import MARKER, PieceShapes, SentencePieceModel, shapes_of

Span = tuple[int, int]

# Ranges are tuples, and most texts need the same ones: those that start early and are short are made once and shared.
# Making them anew doubles the cost of offsets (2.1 against 0.9 times SentencePiece's batch encode for 2,000,000 of
# them), most of it in the garbage collector, which looks at every new tuple.
_STARTS, _LENGTHS = 2048, 16


def piece_spans(model: SentencePieceModel, texts: list[str], ids: list[list[int]]) -> list[list[Span]]:
    """The source range of every piece.

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
    # Positions in the normalised texts one after the other, then in each text alone, without the prefix.
    ends = np.cumsum(lengths)
    ahead = np.cumsum(counts)
    base = np.repeat(np.concatenate([[0], ends])[ahead - counts] + len(prefix), counts)
    result = _by_text(np.maximum(ends - lengths + leading - base, 0), np.maximum(ends - base, 0), ahead)
    # Those are positions in the source where the normaliser changed nothing but spaces to markers.
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
    """`piece_spans` whatever the normaliser did to the texts, and where the lengths of unknown pieces vary."""
    counts = np.fromiter(map(len, ids), np.int64, len(ids))
    ahead = np.cumsum(counts)
    lengths, leading = _lengths_and_leading(model, ids, int(counts.sum()))
    for text, row, stop in zip(texts, ids, ahead.tolist(), strict=True):
        if model.unk_id in row:  # only the pieces themselves say how long an unknown one is
            shapes = shapes_of(model.encode_as_pieces(text))
            lengths[stop - len(row) : stop] = shapes.lengths
            leading[stop - len(row) : stop] = shapes.leading
    # All texts are looked up at once: each text's origins are moved behind those of the text before it.
    maps = [model.normalize_with_origins(text)[1] for text in texts]
    text_starts = np.cumsum([0, *(len(text) + 1 for text in texts)])[:-1]
    origins = np.concatenate([entries + start for entries, start in zip(maps, text_starts, strict=True)])
    # A text of n normalised characters has n + 1 entries, so every text before adds one to the position.
    ends = np.cumsum(lengths) + np.repeat(np.arange(len(texts)), counts)
    starts = ends - lengths + leading
    source_starts = origins[starts]
    # The source of the last character reaches to where the next source starts, which is not always the next entry.
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
    """Carry ranges in a changed text over to its source.

    Args:
        spans: ranges in the changed text.
        boundaries: for each of its n characters the source position it comes from, and the source's length: n + 1
            entries that never decrease.
    """
    origins = np.asarray(boundaries)
    reach = np.searchsorted(origins, origins, side="right").clip(max=len(origins) - 1)
    return [
        (int(origins[start]), int(origins[reach[end - 1]] if end > start else origins[start])) for start, end in spans
    ]


def word_numbers(model: SentencePieceModel, text: str, ids: list[int]) -> list[int]:
    """For each piece of a text the number of the word it starts in, counted from 0; a marker starts a word."""
    if not ids:
        return []
    if model.unk_id in ids:  # an unknown piece can hold markers too
        shapes = shapes_of(model.encode_as_pieces(text))
    else:
        shapes = PieceShapes(*(values[ids] for values in model.shapes))
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
    """An array of shape [count] that holds tuples; NumPy would make two dimensions of a list of them."""
    result = np.empty(count, object)
    result[:] = list(pairs)
    return result
