"""Agreement of predicted with expected numbers: Pearson's and Spearman's correlation, mean squared error."""

from __future__ import annotations

import numpy as np


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of two arrays [n]; 0 if one of them is constant, as it is then undefined."""
    if not (np.ptp(one) and np.ptp(other)):
        return 0.0  # a constant differs from its mean by rounding only
    a, b = (np.asarray(values, np.float64) - np.mean(values, dtype=np.float64) for values in (one, other))
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale else 0.0


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation: Pearson's correlation of the ranks; equal values share the mean of their ranks."""
    return pearson(ranks(one), ranks(other))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value from 1, as float64; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: np.ndarray = (last - (counts - 1) / 2)[inverse.reshape(-1)]
    return mean


class RegressionScores:
    """Correlations and mean squared error; for examples of several numbers, the mean over the columns.

    Example:
        >>> scores = RegressionScores()
        >>> for expected, predicted in ((1.0, 1.5), (2.0, 2.5), (3.0, 3.5)):
        ...     scores.add(expected, predicted)
        >>> {name: round(value, 3) for name, value in scores.result().items()}
        {'pearson': 1.0, 'spearman': 1.0, 'mse': 0.25}
    """

    def __init__(self) -> None:
        self._expected: list[np.ndarray] = []
        self._predicted: list[np.ndarray] = []

    def add(self, expected: np.ndarray | float, predicted: np.ndarray | float) -> None:
        """Count one example: a number, or [numbers]."""
        self._expected.append(np.atleast_1d(np.asarray(expected, np.float64)))
        self._predicted.append(np.atleast_1d(np.asarray(predicted, np.float64)))

    def result(self) -> dict[str, float]:
        """`pearson`, `spearman`, `mse`."""
        expected, predicted = np.stack(self._expected), np.stack(self._predicted)
        columns = list(zip(expected.T, predicted.T, strict=True))
        return {
            "pearson": float(np.mean([pearson(*column) for column in columns])),
            "spearman": float(np.mean([spearman(*column) for column in columns])),
            "mse": float(np.mean((expected - predicted) ** 2)),
        }
