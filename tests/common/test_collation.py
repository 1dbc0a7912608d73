"""Padding, masks and answer spans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert.common.collation.answer_spans import AnswerSpan, answer_tokens, best_spans, merged
from rembert.common.collation.masking import Masking
from rembert.common.collation.padding import pad_inputs, pad_rows
from rembert.common.errors import InputError

ROWS = st.lists(st.lists(st.integers(0, 99), max_size=7), min_size=1, max_size=5)


@given(ROWS)
def test_rows_are_padded_at_their_end(rows: list[list[int]]) -> None:
    width = max(map(len, rows))
    assert pad_rows(rows, 7).tolist() == [row + [7] * (width - len(row)) for row in rows]


def test_inputs_are_padded_together() -> None:
    batch = pad_inputs(
        [{"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1]}, {"input_ids": [8], "token_type_ids": [0]}], 3
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


# ---------------------------------------------------------------------- masks

SPECIAL = frozenset({0, 1, 2, 3, 4})
MASK, SIZE = 4, 50
STARTS = np.arange(SIZE) % 3 == 0  # every third token begins a word


def masking(strategy: str, probability: float = 0.15) -> Masking:
    return Masking(MASK, SPECIAL, SIZE, probability, strategy, STARTS)


@pytest.mark.parametrize("strategy", ["token", "word", "span"])
@given(
    ids=st.lists(st.integers(0, SIZE - 1), max_size=60),
    seed=st.integers(0, 5),
    probability=st.sampled_from([0.15, 0.5]),
)
def test_masks_have_the_declared_properties(strategy: str, ids: list[int], seed: int, probability: float) -> None:
    masked, labels = masking(strategy, probability)(ids, np.random.default_rng(seed))
    chosen = labels != -100
    ids = np.array(ids, np.int64)
    free = ~np.isin(ids, list(SPECIAL))
    assert not (chosen & ~free).any()  # special tokens are never predicted
    assert (labels[chosen] == ids[chosen]).all()
    assert (masked[~chosen] == ids[~chosen]).all()
    assert not np.isin(masked[chosen], list(SPECIAL - {MASK})).any()
    budget = max(1, round(probability * free.sum())) if free.any() else 0
    if strategy == "token":
        assert chosen.sum() == budget
    elif free.any():
        assert chosen.any()


def test_eight_in_ten_are_masked_one_drawn_and_one_left() -> None:
    ids = np.arange(200_000) % 45 + 5
    masked, labels = masking("token")(ids, np.random.default_rng(0))
    chosen = labels != -100
    assert chosen.mean() == pytest.approx(0.15, abs=1e-5)
    # Four standard deviations of 30,000 draws; one drawn token in 45 is the original one.
    assert (masked[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (masked[chosen] == ids[chosen]).mean() == pytest.approx(0.1 + 0.1 / 45, abs=0.008)


def _words(ids: np.ndarray) -> np.ndarray:
    return np.cumsum(STARTS[ids])


@pytest.mark.parametrize("strategy", ["word", "span"])
def test_whole_words_are_masked(strategy: str) -> None:
    ids = np.random.default_rng(1).integers(5, SIZE, 3000)
    _, labels = masking(strategy)(ids, np.random.default_rng(0))
    chosen, words = labels != -100, _words(ids)
    assert 0.1 < chosen.mean() <= 0.15 + 1e-9
    for word in np.unique(words):
        assert len(set(chosen[words == word])) == 1


def test_tokens_of_a_span_are_replaced_alike() -> None:
    ids = np.random.default_rng(1).integers(5, SIZE, 3000)
    masked, labels = masking("span")(ids, np.random.default_rng(0))
    chosen = labels != -100
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(int)))
    runs = [slice(start, stop) for start, stop in edges.reshape(-1, 2)]
    words = _words(ids)
    # Mean of min(geometric(0.2), 10) is 4.5 words (Joshi et al.: 3.8 after their own cut); neighbours and the row's
    # end shorten some.
    assert np.mean([len(set(words[run])) for run in runs]) > 2
    whole = [run for run in runs if (masked[run] == MASK).all()]
    kept = [run for run in runs if (masked[run] == ids[run]).all()]
    assert len(whole) / len(runs) > 0.6
    assert kept


def test_invalid_options_of_masks_are_refused() -> None:
    with pytest.raises(InputError, match=r"probability=0"):
        Masking(MASK, SPECIAL, SIZE, 0)
    with pytest.raises(InputError, match="'letter'"):
        Masking(MASK, SPECIAL, SIZE, 0.15, "letter")
    with pytest.raises(InputError, match="starts_word"):
        Masking(MASK, SPECIAL, SIZE, 0.15, "word")


# ---------------------------------------------------------------------- answers

SPANS = np.array([[-1, -1], [-1, -1], [0, 3], [3, 5], [6, 9], [9, 9], [9, 12], [-1, -1]])


@pytest.mark.parametrize(
    ("start", "end", "tokens"),
    [(0, 3, (2, 2)), (0, 5, (2, 3)), (4, 5, (3, 3)), (4, 10, (3, 6)), (5, 9, (4, 4)), (9, 12, (6, 6))],
)
def test_an_answer_is_found_in_its_tokens(start: int, end: int, tokens: tuple[int, int]) -> None:
    assert answer_tokens(start, end, SPANS) == tokens


@pytest.mark.parametrize(("start", "end"), [(20, 22), (10, 14)])
def test_an_answer_that_the_window_does_not_hold_whole_is_none(start: int, end: int) -> None:
    assert answer_tokens(start, end, SPANS) is None


def test_an_answer_that_begins_before_the_window_is_none() -> None:
    window = SPANS.copy()
    window[2] = -1
    assert answer_tokens(0, 5, window) is None
    assert answer_tokens(3, 5, window) == (3, 3)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 9))
def test_the_best_answer_is_the_best_of_all_pairs(seed: int, longest: int, n_best: int) -> None:
    draw = np.random.default_rng(seed)
    length = 9
    starts, ends = draw.normal(size=(2, length)).astype(np.float32)
    spans = np.array([[-1, -1], *[[2 * i, 2 * i + 1] for i in range(length - 2)], [-1, -1]])
    found = best_spans(starts, ends, spans, n_best=length, max_tokens=longest)
    pairs = {
        (int(spans[i, 0]), int(spans[j, 1])): float(starts[i] + ends[j])
        for i in range(1, length - 1)
        for j in range(i, min(i + longest, length - 1))
    }
    best = sorted(pairs.items(), key=lambda item: -item[1])[:length]
    assert [((span.start, span.end), span.score) for span in found] == [
        (key, pytest.approx(score)) for key, score in best
    ]
    # With fewer starts and ends looked at, what is found is among the allowed pairs, the best first.
    few = best_spans(starts, ends, spans, n_best=n_best, max_tokens=longest)
    assert all(pairs[span.start, span.end] == pytest.approx(span.score) for span in few)
    assert [span.score for span in few] == sorted((span.score for span in few), reverse=True)


def test_an_answer_in_two_windows_counts_once() -> None:
    windows = [[AnswerSpan(0, 2, 1.0), AnswerSpan(3, 5, 0.5)], [AnswerSpan(3, 5, 2.0), AnswerSpan(6, 7, 0.1)]]
    assert merged(windows, 2) == [AnswerSpan(3, 5, 2.0), AnswerSpan(0, 2, 1.0)]
