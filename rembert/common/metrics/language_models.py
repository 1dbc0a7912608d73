"""Perplexity and accuracy of predicted tokens."""

from __future__ import annotations

import math

import numpy as np


class TokenScores:
    """Cross-entropy of the expected tokens, its exponential, and the accuracy of the most likely tokens.

    Example:
        >>> scores = TokenScores()
        >>> scores.add(np.log([0.5, 0.25]), predicted=np.array([7, 8]), expected=np.array([7, 9]))
        >>> {name: round(value, 3) for name, value in scores.result().items()}
        {'loss': 1.04, 'perplexity': 2.828, 'accuracy': 0.5}
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._right = self._count = 0

    def add(self, log_probs: np.ndarray, predicted: np.ndarray, expected: np.ndarray) -> None:
        """Count n tokens: log probabilities of the expected tokens, most likely ids, expected ids, each [n]."""
        self._sum -= float(np.sum(log_probs, dtype=np.float64))
        self._right += int(np.sum(predicted == expected))
        self._count += len(log_probs)

    def result(self) -> dict[str, float]:
        """`loss`, `perplexity`, `accuracy`. A perplexity that overflows is the largest float64."""
        mean = self._sum / max(self._count, 1)
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 709.0)),
            "accuracy": self._right / max(self._count, 1),
        }
