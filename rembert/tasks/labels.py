"""Sets of class names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

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
    return [str(config.id2label[number]) for number in range(config.num_labels)]


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
