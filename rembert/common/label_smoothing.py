"""Label smoothing (Szegedy et al., CVPR 2016, section 7): a setting of the models, in both frameworks.

With a smoothing of ε, the target of a loss is a mixture: the label with weight 1 - ε, and the even distribution over
all classes with weight ε.
"""

from __future__ import annotations

from rembert.common.arguments import check_argument, number
from rembert.common.errors import InputError
from rembert.common.labels import PROBLEM_TYPES, LabelKind

_FRACTION = number(at_least=0, below=1)


class LabelSmoothing:
    """Base of the model classes of both frameworks: the label smoothing of their losses."""

    _label_smoothing: float = 0.0

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
