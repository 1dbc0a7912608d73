"""Settings of the models' losses, in both frameworks: label smoothing and class weights.

With a smoothing of ε (Szegedy et al., CVPR 2016, section 7), the target of a loss is a mixture: the label with weight
1 - ε, and the even distribution over all classes with weight ε. With class weights w, the loss of a label y counts
w[y] times, and the mean is a weighted one, as in PyTorch's `cross_entropy(weight=w)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rembert.common.arguments import Constraint, check_argument, number, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.labels import PROBLEM_TYPES, LabelKind

_FRACTION = number(at_least=0, below=1)


_WEIGHT = number(at_least=0)
WEIGHTS = Constraint(
    "a list of numbers of 0 or more, one for each class",
    lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(_WEIGHT.accepts, v)),
)


class TargetSettings(NamedTuple):
    """How a loss treats its targets."""

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None


class LossSettings:
    """Base of the model classes of both frameworks: the settings of their losses."""

    config: RemBertConfig
    _label_smoothing: float = 0.0
    _class_weights: tuple[float, ...] | None = None

    @property
    def label_smoothing(self) -> float:
        """The fraction of each target's probability that the loss spreads evenly, in [0, 1); by default 0.

        It is spread over the classes, over the real positions of a span, or over the vocabulary; with several labels
        at once, each target moves towards one half. It applies in training mode only: the loss in evaluation mode
        stays comparable. It is not saved in `config.json`. Set it before a graph is traced.

        Raises:
            InputError: the value is out of range; in the model's call, it is not 0 for regression.
        """
        return self._label_smoothing

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        check_argument("label_smoothing", value, _FRACTION)
        self._label_smoothing = float(value)

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class in the loss of sequence and token classification; by default None.

        With several labels at once, the weight of a class applies to its own term. It applies in training mode only,
        and is not saved. Set it before a graph is traced.

        Raises:
            InputError: a weight is not a number of 0 or more, or there are not as many as labels.
        """
        return self._class_weights

    @class_weights.setter
    def class_weights(self, value: Sequence[float] | None) -> None:
        check_argument("class_weights", value, optional(WEIGHTS))
        if value is not None and len(value) != self.config.num_labels:
            raise InputError(
                f"`class_weights` must be one for each of {self.config.num_labels} labels. Received: {len(value)}."
            )
        self._class_weights = None if value is None else tuple(map(float, value))

    def target_settings(self, training: bool | None) -> TargetSettings:
        """Both settings in training mode, otherwise the defaults."""
        return TargetSettings(self._label_smoothing, self._class_weights) if training else TargetSettings()

    def smoothing(self, training: bool | None) -> float:
        """`label_smoothing` in training mode, otherwise 0."""
        return self._label_smoothing if training else 0.0


def check_smoothing(label_smoothing: float, problem_type: str | None) -> None:
    """Refuse label smoothing for regression.

    Args:
        label_smoothing: the smoothing.
        problem_type: one of `rembert.common.labels.PROBLEM_TYPES`, or None.

    Raises:
        InputError: quotes it.
    """
    if label_smoothing and problem_type is not None and PROBLEM_TYPES[problem_type] is LabelKind.NUMBER:
        raise InputError(
            "`label_smoothing` must be 0 for regression: its targets are not probabilities. Received: "
            f"`label_smoothing={label_smoothing}`."
        )
