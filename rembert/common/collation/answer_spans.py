"""Answers in windows: from characters to pieces for training, and from scores of pieces to the best answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """A stretch of a context as an answer, with the sum of its start's and its end's logit."""

    start: int
    end: int
    score: float


def answer_tokens(start: int, end: int, spans: np.ndarray) -> tuple[int, int] | None:
    """The first and the last piece of the characters `start` to `end` - 1, or None where the window lacks any.

    Args:
        start, end: characters of the context.
        spans: [s, 2] each piece's characters in the context; (-1, -1) for pieces that are not of it.
    """
    inside = np.flatnonzero((spans[:, 0] < end) & (spans[:, 1] > start))
    if not len(inside):
        return None
    first, last = int(inside[0]), int(inside[-1])
    if spans[first, 0] > start or spans[last, 1] < end:
        # The window starts or ends inside the answer, unless what is missing is what no piece stands for.
        context = np.flatnonzero(spans[:, 0] >= 0)
        if (first == context[0] and spans[first, 0] > start) or (last == context[-1] and spans[last, 1] < end):
            return None
    return first, last


def best_spans(
    starts: np.ndarray, ends: np.ndarray, spans: np.ndarray, *, n_best: int, max_tokens: int
) -> list[AnswerSpan]:
    """The likeliest answers of one window, the best first.

    The `n_best` likeliest starts are paired with the `n_best` likeliest ends, as SQuAD's own programs do; sums of the
    two logits are the scores.

    Args:
        starts, ends: [s] logits.
        spans: [s, 2] as for `answer_tokens`.
        n_best: how many; there are fewer where pairs end before they start or are too long.
        max_tokens: of an answer.
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
    """The best answers over all windows of a context; the same stretch counts once, with its best score."""
    best: dict[tuple[int, int], AnswerSpan] = {}
    for span in (span for window in windows for span in window):
        known = best.get((span.start, span.end))
        if known is None or span.score > known.score:
            best[span.start, span.end] = span
    return sorted(best.values(), key=lambda span: -span.score)[:n_best]
