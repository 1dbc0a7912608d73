"""Perplexity and accuracy of predicted pieces."""

from __future__ import annotations

import math

import numpy as np


class TokenScores:
    """Mean of -log p of the right pieces, its exponential, and how often the likeliest piece is the right one."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._right = self._count = 0

    def add(self, log_probs: np.ndarray, predicted: np.ndarray, expected: np.ndarray) -> None:
        """Count some pieces: [n] natural logarithms of the right ones' probabilities, [n] likeliest, [n] right ids."""
        self._sum -= float(np.sum(log_probs, dtype=np.float64))
        self._right += int(np.sum(predicted == expected))
        self._count += len(log_probs)

    def result(self) -> dict[str, float]:
        """`loss`, `perplexity`, `accuracy`. A perplexity beyond all numbers is the largest there is."""
        mean = self._sum / max(self._count, 1)
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 709.0)),
            "accuracy": self._right / max(self._count, 1),
        }
