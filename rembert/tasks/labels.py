"""Sets of class names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.tasks.declarations import Option


def sorted_labels(names: Iterable[str]) -> list[str]:
    """The distinct names, sorted by value if all are numbers, otherwise by code point."""
    found = set(names)
    if found and all(name.isascii() and name.isdigit() for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def chosen_labels(found: Iterable[str], given: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The classes of a model: the `given` ones, or else the `known` ones if all `found` are among them, or else those
    found, sorted.

    Example:
        >>> chosen_labels(["sky", "food"], None, ["sky", "road", "food"]), chosen_labels(["sky", "food"], None, [])
        (['sky', 'road', 'food'], ['food', 'sky'])
    """
    found = set(found)
    return list(given or (known if found and found <= set(known) else sorted_labels(found)))


def numbered_label(value: Any, names: Sequence[str] | None) -> Any:
    """The name of a class that is given by its number among `names`; anything else as it is."""
    if names is None or isinstance(value, bool) or str(value) in names or not str(value).isdecimal():
        return value
    return names[int(value)] if int(value) < len(names) else value


def listed_labels(names: Sequence[str], most: int = 20) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


LABELS = Option(
    "label_names", list, "the names of the classes, in order; of a trained model, instead of its own", flag="labels"
)


def label_names(config: RemBertConfig, given: Sequence[str] | None = None) -> list[str]:
    """The label names of a configuration, by id, or the `given` ones.

    Raises:
        InputError: another number of names is given.
    """
    if given is not None and len(given) != config.num_labels:
        raise InputError(
            f"`label_names` (--labels) must be the names of the model's {config.num_labels} classes. Received: "
            f"{len(given)}, {listed_labels(given)}."
        )
    return [str(config.id2label[number]) for number in range(config.num_labels)] if given is None else list(given)


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that a reader would take for one: they differ in case, in spaces at their edges, in
    the form of Unicode, or as numbers are written.

    Example:
        >>> look_alikes(["sport", "Sport ", "news", "1", "1.0"])
        [['1', '1.0'], ['Sport ', 'sport']]
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(_folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _folded(name: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    try:
        return repr(float(folded))
    except ValueError:
        return folded


def counted_labels(counts: Mapping[str, int], most: int = 20) -> str:
    """The names with how often each occurs, the most frequent first.

    Example:
        >>> counted_labels({"travel": 1, "sport": 3})
        "'sport' 3, 'travel' 1"
    """
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{name!r:.60} {count}" for name, count in ordered[:most])
    return listed + (f", and {len(ordered) - most} more" if len(ordered) > most else "")
