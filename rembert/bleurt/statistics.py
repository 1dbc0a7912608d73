"""How sure a system's average is, and the difference of two: the bootstrap of Efron & Tibshirani (1993), chapter 13,
and its paired form for translation systems, Koehn, "Statistical Significance Tests for Machine Translation
Evaluation" (EMNLP 2004), section 4.
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
    """A mean, and the interval that holds it with some confidence."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How much better the first of two systems is.

    Attributes:
        difference: of the means, the first minus the second, with its interval.
        p_value: how often a difference at least as large, in either direction, would come about between equal systems.
        wins: the part of the resamples in which the first system is better.
    """

    difference: Interval
    p_value: float
    wins: float


def mean_interval(
    values: np.ndarray, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """The mean of segments' scores with its percentile bootstrap interval.

    Args:
        values: [n] scores.
        resamples: how many samples of n segments are drawn with replacement.
        confidence: the interval's, such as 0.95.
        seed: draws them.

    Raises:
        InputError: no values, or a number out of its range.
    """
    _check(values, resamples, confidence)
    return _interval(values, _resampled_means(values, resamples, seed), confidence)


def compare(
    first: np.ndarray, second: np.ndarray, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Comparison:
    """Compare two systems by their scores [n] on the same segments: every resample draws the same segments of both.

    Raises:
        InputError: not the same number of segments, no values, or a number out of its range.
    """
    if len(first) != len(second):
        raise InputError(
            f"Two systems are compared on the same segments. Received: {len(first)} and {len(second)} scores."
        )
    _check(first, resamples, confidence)
    # The difference of the means is the mean of the differences, in every resample too.
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    means = _resampled_means(differences, resamples, seed)
    found = _interval(differences, means, confidence)
    # Under the hypothesis that both are equal the resampled differences lie about 0: they are moved there. One is
    # added above and below, since the sample itself is one such draw.
    as_large = np.abs(means - means.mean()) >= abs(found.mean)
    return Comparison(found, (int(as_large.sum()) + 1) / (resamples + 1), float((means > 0).mean()))


def _interval(values: np.ndarray, means: np.ndarray, confidence: float) -> Interval:
    outside = (1 - confidence) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return Interval(float(np.mean(values, dtype=np.float64)), float(low), float(high))


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The means of samples drawn with replacement, [resamples]; in a memory that does not grow with n."""
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
    # So many that values next to each other may be taken for their mean: then how often each of them is drawn is
    # one draw from a multinomial distribution, whatever n.
    centres, sizes = _binned(values)
    for index in range(resamples):
        means[index] = rng.multinomial(count, sizes / count) @ centres / count
    return means


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the values in each bin that is not empty, and how many there are."""
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
        raise InputError("A mean needs at least one score. Received: none.")
    check_argument("resamples", resamples, integer(at_least=1))
    check_argument("confidence", confidence, number(above=0, below=1))
