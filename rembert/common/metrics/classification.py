"""Accuracy and F1 of class labels, one or several for each example."""

from __future__ import annotations

import numpy as np


def f1(correct: float, predicted: float, expected: float) -> float:
    """Harmonic mean of precision (correct / predicted) and recall (correct / expected): 2c / (p + e), 0 for 0 / 0.

    Example:
        >>> f1(correct=1, predicted=2, expected=2)
        0.5
    """
    return 2.0 * correct / (predicted + expected) if predicted + expected else 0.0


class LabelScores:
    """Accuracy, macro and micro F1 of examples with one class each.

    Macro F1 is the mean over the classes that were expected or predicted at least once.

    Example:
        >>> scores = LabelScores(classes=3)
        >>> scores.add(expected=np.array([0, 1, 1, 2]), predicted=np.array([0, 1, 0, 2]))
        >>> scores.result()["accuracy"]
        0.75
    """

    def __init__(self, classes: int) -> None:
        self._confusion = np.zeros((classes, classes), np.int64)  # [expected, predicted]

    def add(self, expected: np.ndarray | int, predicted: np.ndarray | int) -> None:
        """Count class ids, one or an array of them."""
        np.add.at(self._confusion, (np.asarray(expected), np.asarray(predicted)), 1)

    def result(self) -> dict[str, float]:
        """`accuracy`, `f1_macro`, `f1_micro`."""
        correct = np.diagonal(self._confusion)
        expected, predicted = self._confusion.sum(1), self._confusion.sum(0)
        return {
            "accuracy": float(correct.sum() / max(expected.sum(), 1)),
            "f1_macro": _macro(correct, predicted, expected),
            "f1_micro": f1(float(correct.sum()), float(predicted.sum()), float(expected.sum())),
        }


class MultiLabelScores:
    """Exact accuracy, macro and micro F1 of examples with any number of classes each.

    Accuracy is the fraction of examples with exactly the expected classes. Macro F1 is the mean over all classes; a
    class that is neither expected nor predicted counts as 0.

    Example:
        >>> scores = MultiLabelScores(classes=2)
        >>> scores.add(expected=np.array([1, 1]), predicted=np.array([1, 0]))
        >>> scores.add(expected=np.array([0, 1]), predicted=np.array([0, 1]))
        >>> scores.result()["accuracy"]
        0.5
    """

    def __init__(self, classes: int) -> None:
        self._correct, self._predicted, self._expected = np.zeros((3, classes), np.int64)
        self._exact = self._count = 0

    def add(self, expected: np.ndarray, predicted: np.ndarray) -> None:
        """Count one example: [classes] of 0 and 1, or of False and True."""
        wanted, got = np.asarray(expected, bool), np.asarray(predicted, bool)
        self._correct += wanted & got
        self._predicted += got
        self._expected += wanted
        self._exact += bool((wanted == got).all())
        self._count += 1

    def result(self) -> dict[str, float]:
        """`accuracy`, `f1_macro`, `f1_micro`."""
        scores = [f1(*map(float, row)) for row in zip(self._correct, self._predicted, self._expected, strict=True)]
        totals = (float(each.sum()) for each in (self._correct, self._predicted, self._expected))
        return {
            "accuracy": self._exact / max(self._count, 1),
            "f1_macro": float(np.mean(scores)),
            "f1_micro": f1(*totals),
        }


def _macro(correct: np.ndarray, predicted: np.ndarray, expected: np.ndarray) -> float:
    present = predicted + expected > 0
    scores = 2.0 * correct[present] / (predicted + expected)[present]
    return float(scores.mean()) if scores.size else 0.0
