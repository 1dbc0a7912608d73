"""Labels: their kinds, the problem types of sequence classification, and the names of classes."""

from __future__ import annotations

from enum import Enum
from typing import Any

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.errors import ConfigError

MAX_LABELS = 10**6  # each has a name


class LabelKind(Enum):
    """What the labels of a head apply to; this determines their shape, and which of them count in the mean loss."""

    NONE = "none"  # no labels and no loss
    CLASS = "class"  # [b] class ids, or the ids of the right choices; -100 is ignored
    CLASSES = "classes"  # [b, num_labels] of 0 and 1, whether each class applies; all count
    NUMBER = "number"  # [b] or [b, num_labels] real numbers; all count
    TOKEN = "token"  # [b, s] class or token ids; -100 and padding are ignored
    SPAN = "span"  # [b] first and [b] last positions; those outside the sequence are ignored


# `config.problem_type`: the kind of a sequence classifier's labels, and the name of its loss in both frameworks.
PROBLEM_TYPES = {
    "regression": LabelKind.NUMBER,
    "single_label_classification": LabelKind.CLASS,
    "multi_label_classification": LabelKind.CLASSES,
}


def label_maps(
    count: int | None, id2label: dict[Any, str] | None, label2id: dict[str, int] | None
) -> tuple[dict[int, str], dict[str, int]]:
    """The label maps of a configuration, `id2label` and `label2id`, from the given ones of the arguments.

    Args:
        count: the number of labels; 2 if nothing is given.
        id2label: names by id; ids may be strings, as in JSON.
        label2id: ids by name.

    Raises:
        ConfigError: the ids are not 0 to n - 1, or two arguments disagree.

    Example:
        >>> label_maps(None, {"0": "no", "1": "yes"}, None)
        ({0: 'no', 1: 'yes'}, {'no': 0, 'yes': 1})
    """
    check_argument("num_labels", count, optional(integer(at_least=1, at_most=MAX_LABELS)), ConfigError)
    if id2label is None and label2id is not None:
        id2label = {index: label for label, index in label2id.items()}
    if id2label is None:
        id2label = {index: f"LABEL_{index}" for index in range(2 if count is None else count)}
    try:
        by_id = {int(index): label for index, label in id2label.items()}
    except (TypeError, ValueError, AttributeError):
        raise ConfigError(f"`id2label` must map label ids to names. Received: `id2label={id2label!r:.200}`.") from None
    if sorted(by_id) != list(range(len(by_id))) or not by_id:
        raise ConfigError(
            f"`id2label` must have the ids 0 to n - 1, without gaps. Received: the ids {sorted(by_id)!r:.200}."
        )
    if count is not None and count != len(by_id):
        raise ConfigError(
            f"`num_labels` and the label map disagree. Received: `num_labels={count}` and {len(by_id)} labels."
        )
    by_label = {label: index for index, label in by_id.items()}
    if label2id is not None:
        # Some files have ids as strings here too.
        by_label = {label: int(index) if isinstance(index, str) else index for label, index in label2id.items()}
    if label2id is not None and any(by_id.get(index) != label for label, index in by_label.items()):
        raise ConfigError(
            "`id2label` and `label2id` disagree. Received: "
            f"`id2label={by_id!r:.200}` and `label2id={by_label!r:.200}`."
        )
    return dict(sorted(by_id.items())), by_label
