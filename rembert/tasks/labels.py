"""Sets of class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rembert.common.config import RemBertConfig


def sorted_labels(names: Iterable[str]) -> list[str]:
    """The distinct names, sorted by value if all are numbers, otherwise by code point."""
    found = set(names)
    if found and all(name.isascii() and name.isdigit() for name in found):
        return sorted(found, key=lambda name: (int(name), name))
    return sorted(found)


def listed_labels(names: Sequence[str], most: int = 20) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def label_names(config: RemBertConfig) -> list[str]:
    """The label names of a configuration, by id."""
    return [config.id2label[number] for number in range(config.num_labels)]
