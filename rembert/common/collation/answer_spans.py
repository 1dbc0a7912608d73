"""Answers in windows: from characters to tokens for training, and from scores of tokens to the best answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A range of characters of a context as an answer, with the sum of its start logit and its end logit."""

    start: int
    end: int
    score: float


def covered_part(start: int, end: int, windows: Sequence[np.ndarray]) -> tuple[int, int] | None:
    """The characters `start` to `end` - 1 without those at both edges that belong to no token of any window.

    Such characters are spaces, and what the normaliser removes at the start of a text. None if nothing is left.

    Args:
        start, end: characters of the context.
        windows: for each window of the context [s, 2] as for `answer_tokens`.

    Example:
        >>> covered_part(4, 8, [np.array([(-1, -1), (0, 4), (5, 7), (-1, -1)])])
        (5, 7)
    """
    covered = np.zeros(end - start, bool)
    for first, last in np.concatenate(windows).tolist():
        covered[max(first - start, 0) : max(last - start, 0)] = True
    inside = np.flatnonzero(covered)
    return (start + int(inside[0]), start + int(inside[-1]) + 1) if len(inside) else None


def answer_tokens(start: int, end: int, spans: np.ndarray) -> tuple[int, int] | None:
    """The first and the last token of the characters `start` to `end` - 1, or None if the window lacks any of them.

    Args:
        start, end: characters of the context.
        spans: [s, 2] the characters of each token in the context; (-1, -1) for tokens outside the context.

    Example:
        >>> answer_tokens(5, 9, np.array([(-1, -1), (0, 4), (5, 7), (7, 9), (-1, -1)]))
        (2, 3)
    """
    inside = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
    if not len(inside):
        return None
    first, last = int(inside[0]), int(inside[-1])
    if spans[first, 0] > start or spans[last, 1] < end:
        # The window starts or ends inside the answer, unless the missing characters belong to no token.
        context = np.flatnonzero(spans[:, 0] >= 0)
        if (first == context[0] and spans[first, 0] > start) or (last == context[-1] and spans[last, 1] < end):
            return None
    return first, last


def best_spans(
    starts: np.ndarray, ends: np.ndarray, spans: np.ndarray, *, n_best: int, max_tokens: int
) -> list[AnswerSpan]:
    """The most likely answers of one window, the best first.

    The `n_best` most likely starts are paired with the `n_best` most likely ends, as in SQuAD's own programs. The
    score of a pair is the sum of its two logits.

    Args:
        starts, ends: [s] logits.
        spans: [s, 2] as for `answer_tokens`.
        n_best: the number of answers; fewer are returned if pairs end before they start or are too long.
        max_tokens: the longest answer, in tokens.

    Example:
        >>> starts, ends = np.array([0.0, 5.0, 1.0, 0.0]), np.array([0.0, 1.0, 6.0, 0.0])
        >>> best_spans(starts, ends, np.array([(-1, -1), (0, 4), (5, 9), (-1, -1)]), n_best=1, max_tokens=2)
        [AnswerSpan(start=0, end=9, score=11.0)]
    """
    context = np.flatnonzero((spans[:, 0] >= 0) & (spans[:, 1] > spans[:, 0]))
    if not len(context):
        return []
    first = context[np.argsort(-starts[context], kind="stable")[:n_best]]
    last = context[np.argsort(-ends[context], kind="stable")[:n_best]]
    length = last[None, :] - first[:, None] + 1
    scores = np.where((length > 0) & (length <= max_tokens), starts[first][:, None] + ends[last][None, :], -np.inf)
    order = np.argsort(-scores, axis=None, kind="stable")[:n_best]
    found = []
    for row, column in zip(*np.unravel_index(order, scores.shape), strict=True):
        if np.isneginf(scores[row, column]):
            break
        start, end = int(spans[first[row], 0]), int(spans[last[column], 1])
        found.append(AnswerSpan(start, end, float(scores[row, column])))
    return found


def merged(windows: Sequence[Sequence[AnswerSpan]], n_best: int) -> list[AnswerSpan]:
    """The best answers of all windows of a context; equal ranges count once, with their best score."""
    best: dict[tuple[int, int], AnswerSpan] = {}
    for span in (span for window in windows for span in window):
        known = best.get((span.start, span.end))
        if known is None or span.score > known.score:
            best[span.start, span.end] = span
    return sorted(best.values(), key=lambda span: -span.score)[:n_best]
