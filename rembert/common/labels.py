"""Labels: their kinds, the problem types of sequence classification, and the names of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import numpy as np

from rembert.common.arguments import Constraint, check_argument, check_arguments, integer, optional
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


def _is_id(value: Any) -> bool:
    if isinstance(value, str):  # as JSON writes a key
        return value.isascii() and value.isdecimal() and value == str(int(value[:20]))
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _mapping(wording: str, is_key: Callable[[Any], bool], is_value: Callable[[Any], bool]) -> Constraint:
    return optional(
        Constraint(
            wording, lambda v: isinstance(v, Mapping) and all(map(is_key, v)) and all(map(is_value, v.values()))
        )
    )


_MAPS = {
    "id2label": _mapping("a dictionary from label ids to names", _is_id, _is_name),
    "label2id": _mapping("a dictionary from names to label ids", _is_name, _is_id),
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
    check_arguments(_MAPS, {"id2label": id2label, "label2id": label2id}, ConfigError)
    by_label = None if label2id is None else {label: int(index) for label, index in label2id.items()}
    if id2label is not None:
        by_id = {int(index): label for index, label in id2label.items()}
    elif by_label is not None:
        by_id = {index: label for label, index in by_label.items()}
    else:
        by_id = {index: f"LABEL_{index}" for index in range(2 if count is None else count)}
    given = by_id if id2label is None else id2label
    if sorted(by_id) != list(range(len(given))) or not by_id:
        raise ConfigError(
            "`id2label` must have the ids 0 to n - 1, without gaps and each once. Received: the ids "
            f"{list(given)!r:.200}."
        )
    if count is not None and count != len(by_id):
        raise ConfigError(
            f"`num_labels` and the label map disagree. Received: `num_labels={count}` and {len(by_id)} labels."
        )
    # In JSON, the keys of `label2id` are text also where the names are numbers.
    if by_label is not None and any(str(by_id.get(index)) != str(label) for label, index in by_label.items()):
        raise ConfigError(
            "`id2label` and `label2id` disagree. Received: "
            f"`id2label={by_id!r:.200}` and `label2id={by_label!r:.200}`."
        )
    ids = range(len(by_id)) if by_label is None else by_label.values()
    return dict(sorted(by_id.items())), {by_id[index]: index for index in ids}
