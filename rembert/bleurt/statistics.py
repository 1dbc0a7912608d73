"""Confidence intervals of a system's mean score, and paired comparisons of two systems, by the bootstrap.

Efron & Tibshirani (1993), chapter 13; the paired form for translation systems is that of Koehn, "Statistical
Significance Tests for Machine Translation Evaluation" (EMNLP 2004), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rembert.common.arguments import check_argument, integer, number
from rembert.common.errors import InputError

RESAMPLES = 1000
CONFIDENCE = 0.95

_DRAWN_TOGETHER = 1 << 22  # numbers
_BINS = 1 << 16


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How much better the first of two systems is than the second.

    Attributes:
        difference: of the means, the first minus the second, with its interval.
        p_value: two-sided: the probability of a difference at least as large between equal systems.
        wins: the proportion of the resamples in which the first system is better.
    """

    difference: Interval
    p_value: float
    wins: float


def mean_interval(
    values: np.ndarray, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """The mean of the segments' scores with its percentile bootstrap interval.

    Args:
        values: [n] scores.
        resamples: the number of samples of n segments, drawn with replacement.
        confidence: of the interval, for example 0.95.
        seed: of the samples.

    Raises:
        InputError: there are no values, or a number is out of its range.
    """
    _check(values, resamples, confidence)
    return _interval(values, _resampled_means(values, resamples, seed), confidence)


def compare_systems(
    first: np.ndarray, second: np.ndarray, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Comparison:
    """Compare two systems by their scores [n] on the same segments; each resample has the same segments of both.

    Raises:
        InputError: the numbers of segments differ, there are no values, or a number is out of its range.
    """
    if len(first) != len(second):
        raise InputError(
            f"Both systems must have scores of the same segments. Received: {len(first)} and {len(second)} scores."
        )
    _check(first, resamples, confidence)
    # The difference of the means is the mean of the differences, in every resample.
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    means = _resampled_means(differences, resamples, seed)
    found = _interval(differences, means, confidence)
    # If both are equal, the resampled differences are centred at 0, so they are shifted there. The sample itself is
    # one more draw, which adds one above and below.
    as_large = np.abs(means - means.mean()) >= abs(found.mean)
    return Comparison(found, (int(as_large.sum()) + 1) / (resamples + 1), float((means > 0).mean()))


def _interval(values: np.ndarray, means: np.ndarray, confidence: float) -> Interval:
    outside = (1 - confidence) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return Interval(float(np.mean(values, dtype=np.float64)), float(low), float(high))


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The means of samples drawn with replacement, [resamples], in constant memory."""
    rng = np.random.default_rng(seed)
    count = len(values)
    means = np.empty(resamples)
    if count <= _BINS:
        values = np.asarray(values, np.float64)
        together = max(1, _DRAWN_TOGETHER // count)
        for start in range(0, resamples, together):
            rows = min(together, resamples - start)
            means[start : start + rows] = values[rng.integers(0, count, (rows, count))].mean(1)
        return means
    # With many values, neighbours are replaced by their mean. The counts of the bins are then one draw from a
    # multinomial distribution.
    centres, sizes = _binned(values)
    for index in range(resamples):
        means[index] = rng.multinomial(count, sizes / count) @ centres / count
    return means


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the values in each non-empty bin, and their number."""
    low, high = float(values.min()), float(values.max())
    sums, sizes = np.zeros(_BINS), np.zeros(_BINS)
    for start in range(0, len(values), _DRAWN_TOGETHER):
        part = np.asarray(values[start : start + _DRAWN_TOGETHER], np.float64)
        bins = np.minimum((part - low) / ((high - low) or 1.0) * _BINS, _BINS - 1).astype(np.int64)
        sums += np.bincount(bins, part, _BINS)
        sizes += np.bincount(bins, minlength=_BINS)
    full = sizes > 0
    return sums[full] / sizes[full], sizes[full]


def _check(values: np.ndarray, resamples: int, confidence: float) -> None:
    if not len(values):
        raise InputError("`values` must have at least one score. Received: none.")
    check_argument("resamples", resamples, integer(at_least=1))
    check_argument("confidence", confidence, number(above=0, below=1))
