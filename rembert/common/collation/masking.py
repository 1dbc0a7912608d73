"""Masks for masked language modelling: which tokens are predicted, and what replaces them in the input.

- "token": single tokens; 80% of the chosen ones become `[MASK]`, 10% a random token, 10% stay (Devlin et al., 2019,
  section 3.1).
- "word": whole words; each of their tokens is replaced as above.
- "span": runs of words, with a length drawn from a geometric distribution (p = 0.2, at most 10); all tokens of a run
  are replaced alike (Joshi et al., 2020, sections 3.1 and 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rembert.common.arguments import check_arguments, number, one_of
from rembert.common.checks import IGNORE_INDEX
from rembert.common.errors import InputError

STRATEGIES = ("token", "word", "span")
_MASKED, _RANDOM = 0.8, 0.1  # the rest stays
_CONSTRAINTS = {"probability": number(above=0, at_most=1), "strategy": one_of(STRATEGIES)}
_SPAN_P, _SPAN_MOST = 0.2, 10


@dataclass(frozen=True)
class Masking:
    """Masks tokens at random.

    Args:
        mask_token_id: of `[MASK]`.
        special_ids: of tokens that are neither chosen nor drawn as random tokens.
        vocab_size: the range of the random tokens.
        probability: the fraction of a row's tokens that is chosen, rounded to at least one token.
        strategy: one of `STRATEGIES`.
        starts_word: [vocab] whether a token begins a word; needed for the strategies "word" and "span".

    Raises:
        InputError: an invalid value.

    Example:
        >>> masking = Masking(mask_token_id=4, special_ids=frozenset({2, 3, 4}), vocab_size=100, probability=0.5)
        >>> ids, labels = masking([2, 50, 60, 70, 80, 3], np.random.default_rng(0))
        >>> int((labels != -100).sum())
        2
    """

    mask_token_id: int
    special_ids: frozenset[int]
    vocab_size: int
    probability: float = 0.15
    strategy: str = "token"
    starts_word: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_arguments(_CONSTRAINTS, vars(self))
        if self.strategy != "token" and self.starts_word is None:
            raise InputError(f"`starts_word` must be given for `strategy={self.strategy!r}`. Received: None.")

    def __call__(self, ids: Sequence[int] | np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The masked ids [s] and the labels [s]: the id of a token to predict, -100 elsewhere."""
        masked = np.array(ids, np.int64)
        labels = np.full(masked.shape, IGNORE_INDEX, np.int64)
        free = np.flatnonzero(~np.isin(masked, list(self.special_ids)))
        if not len(free):
            return masked, labels
        budget = max(1, round(self.probability * len(free)))
        runs = self._runs(masked, free, budget, rng)
        chosen = np.concatenate(runs)
        labels[chosen] = masked[chosen]
        # One draw for each token, or for each run.
        sizes = [len(run) for run in runs]
        draws = np.repeat(rng.random(len(runs)), sizes) if self.strategy == "span" else rng.random(len(chosen))
        masked[chosen[draws < _MASKED]] = self.mask_token_id
        others = chosen[(draws >= _MASKED) & (draws < _MASKED + _RANDOM)]
        masked[others] = self._random_tokens(len(others), rng)
        return masked, labels

    def _runs(self, ids: np.ndarray, free: np.ndarray, budget: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Positions to predict, in runs that belong together; `budget` positions in all, or slightly fewer."""
        if self.strategy == "token":
            return [np.sort(rng.permutation(free)[:budget])]
        words = self._words(ids, free)
        runs: list[np.ndarray] = []
        if self.strategy == "word":
            for number in rng.permutation(len(words)):
                word = words[number]
                # A word longer than the remaining budget is skipped, unless nothing else would be chosen.
                if len(word) <= budget:
                    runs.append(word)
                    budget -= len(word)
        else:
            taken = np.zeros(len(words), bool)
            for start in rng.permutation(len(words)):
                length = min(int(rng.geometric(_SPAN_P)), _SPAN_MOST)
                span: list[np.ndarray] = []
                for number in range(start, min(start + length, len(words))):
                    adjoins = not span or words[number][0] == words[number - 1][-1] + 1
                    if taken[number] or not adjoins or len(words[number]) > budget:
                        break
                    taken[number] = True
                    span.append(words[number])
                    budget -= len(words[number])
                if span:
                    runs.append(np.concatenate(span))
                if not budget:
                    break
        return runs or [words[int(rng.integers(len(words)))]]

    def _words(self, ids: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
        assert self.starts_word is not None  # checked by `__post_init__`
        starts = self.starts_word[ids[free]].copy()
        starts[0] = True
        starts[1:] |= np.diff(free) > 1  # a special token is between
        return np.split(free, np.flatnonzero(starts)[1:])

    def _random_tokens(self, count: int, rng: np.random.Generator) -> np.ndarray:
        drawn = rng.integers(0, self.vocab_size, count)
        while (bad := np.isin(drawn, list(self.special_ids))).any():
            drawn[bad] = rng.integers(0, self.vocab_size, int(bad.sum()))
        return drawn
