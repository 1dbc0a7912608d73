"""Calibration: whether predictions of probability p are right in a fraction p of the cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
_RANGE = (1e-3, 1e3)  # of temperatures
_HALVINGS = 60  # of the interval; its width is then 1e-17


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose probability lies in one interval.

    Attributes:
        low, high: the interval, open at its lower end.
        count: how many there are.
        confidence: the mean of their probabilities; 0 if there are none.
        accuracy: the fraction that is right; 0 if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How well the probabilities of the predicted classes match how often they are right.

    Attributes:
        count: the number of predictions.
        ece: the expected calibration error.
        temperature: the number by which the logits are divided for the smallest negative log-likelihood of the
            labels; above 1, the model is overconfident.
        ece_scaled: the error with that temperature.
        bins: for a reliability diagram.
    """

    count: int
    ece: float
    temperature: float
    ece_scaled: float
    bins: tuple[ReliabilityBin, ...]


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """The calibration of a classifier on labelled data (Guo et al., ICML 2017).

    The temperature is fitted on the same data. The error is the mean difference between accuracy and mean probability
    over intervals of equal width, weighted by their numbers of predictions.

    Args:
        logits: [n, classes], n of 1 or more; minus infinity for a class that an example does not have.
        labels: [n] class ids.
        bins: the number of intervals.

    Example:
        >>> found = calibration(np.log([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))
        >>> round(found.ece, 3), round(found.temperature)
        (0.4, 1000)
    """
    logits = np.asarray(logits, np.float64)
    labels = np.asarray(labels)
    temperature = fit_temperature(logits, labels)
    found = _bins(logits, labels, bins)
    return Calibration(
        len(labels), _error(found), temperature, _error(_bins(logits / temperature, labels, bins)), found
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T in [0.001, 1000] with the smallest mean of -log softmax(logits / T)[label].

    The loss is convex in 1 / T. Its derivative is mean(E[logit] - logit of the label) with E over softmax(logits / T);
    bisection finds the root.

    Args:
        logits: [n, classes] of float64.
        labels: [n] class ids.
    """
    finite = np.where(np.isfinite(logits), logits, 0.0)  # probability 0, and no contribution
    of_labels = logits[np.arange(len(labels)), labels]
    low, high = np.log(_RANGE)  # of 1 / T
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (softmax(logits * np.exp(middle)) * finite).sum(-1)
        low, high = (low, middle) if (expected - of_labels).mean() > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) over the last axis, divided by its sum; float64."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
    return shares


def _bins(logits: np.ndarray, labels: np.ndarray, bins: int) -> tuple[ReliabilityBin, ...]:
    probabilities = softmax(logits)
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    numbers = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(numbers, minlength=bins)
    sums = (np.bincount(numbers, weights, minlength=bins) for weights in (confidence, right))
    means = [each / np.maximum(counts, 1) for each in sums]
    return tuple(
        ReliabilityBin(number / bins, (number + 1) / bins, int(count), float(mean), float(accuracy))
        for number, (count, mean, accuracy) in enumerate(zip(counts, *means, strict=True))
    )


def _error(bins: tuple[ReliabilityBin, ...]) -> float:
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / max(total, 1)
