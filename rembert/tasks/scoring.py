"""Scores of examples, counted one example at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

Output = dict[str, np.ndarray]
"""The model's output arrays for one feature, by name, cut to the feature's real length."""


class Scorer(ABC):
    """Collects examples and the model's outputs for them, one at a time, and computes the scores."""

    @abstractmethod
    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        """Count one example with a label."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """The scores by name."""
