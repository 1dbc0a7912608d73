"""Entity-level scores of tag sequences, counted as seqeval does by default (and conlleval before it)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rembert.common.metrics.classification import f1
from rembert.common.metrics.entity_schemes import IOB, Notation


class Entity(NamedTuple):
    """An entity: its kind, and the words `start` to `end` - 1 of a sentence."""

    kind: str
    start: int
    end: int


def entities(tags: Sequence[str], notation: Notation = IOB) -> list[Entity]:
    """The entities of a sentence's tags, in any of the schemes of `SCHEMES`.

    `B-x` and `S-x` begin an entity of kind x, and so do `I-x` and `E-x` if no entity of kind x is open. An entity ends
    after `E-` and `S-`, and before `O`, another kind, `B-` and `S-`. A tag other than `O` without a hyphen is an
    entity without a kind.

    Example:
        >>> entities(["B-PER", "I-PER", "O", "B-LOC"])
        [Entity(kind='PER', start=0, end=2), Entity(kind='LOC', start=3, end=4)]
        >>> entities(["B-PER", "E-PER", "S-PER"])
        [Entity(kind='PER', start=0, end=2), Entity(kind='PER', start=2, end=3)]
    """
    return list(_entities(tags, notation))


def _entities(tags: Sequence[str], notation: Notation) -> Iterator[Entity]:
    kind: str | None = None
    start, before = 0, "O"
    for position, tag in enumerate([*tags, "O"]):
        place, name = notation.parts(tag)
        goes_on = place in "IE" and before in "BI" and kind == name
        if kind is not None and not goes_on:
            yield Entity(kind, start, position)
            kind = None
        if place != "O" and not goes_on:
            kind, start = name, position
        before = place


def iob1_to_iob2(tags: Sequence[str]) -> list[str]:
    """IOB2 tags from IOB1 tags, which have `B-` only for an entity directly after another one of its kind.

    Example:
        >>> iob1_to_iob2(["I-PER", "I-PER", "O", "I-LOC"])
        ['B-PER', 'I-PER', 'O', 'B-LOC']
    """
    converted = list(tags)
    for position, tag in enumerate(tags):
        if tag.startswith("I-") and (position == 0 or tags[position - 1][1:] != tag[1:]):
            converted[position] = "B" + tag[1:]
    return converted


class EntityScores:
    """Precision, recall and F1 of entities. An entity is correct if both its kind and its words are.

    Args:
        notation: how the tags write entities.

    Example:
        >>> scores = EntityScores()
        >>> scores.add(expected=["B-PER", "I-PER", "O"], predicted=["B-PER", "O", "O"])
        >>> scores.result()["f1"]
        0.0
    """

    def __init__(self, notation: Notation = IOB) -> None:
        self._notation = notation
        self._correct: Counter[str] = Counter()
        self._predicted: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._right = self._words = 0

    def add(self, expected: Sequence[str], predicted: Sequence[str]) -> None:
        """Count one sentence's tags."""
        wanted, got = (entities(tags, self._notation) for tags in (expected, predicted))
        self._expected.update(entity.kind for entity in wanted)
        self._predicted.update(entity.kind for entity in got)
        self._correct.update(entity.kind for entity in set(wanted) & set(got))
        self._right += sum(one == other for one, other in zip(expected, predicted, strict=True))
        self._words += len(expected)

    def result(self) -> dict[str, float]:
        """`precision`, `recall`, `f1` (of all entities), `f1_macro` (mean over kinds), `accuracy` (of the tags)."""
        correct, predicted, expected = (each.total() for each in (self._correct, self._predicted, self._expected))
        kinds = sorted(self._expected.keys() | self._predicted.keys())
        each = [f1(self._correct[kind], self._predicted[kind], self._expected[kind]) for kind in kinds]
        return {
            "precision": correct / predicted if predicted else 0.0,
            "recall": correct / expected if expected else 0.0,
            "f1": f1(correct, predicted, expected),
            "f1_macro": float(np.mean(each)) if each else 0.0,
            "accuracy": self._right / self._words if self._words else 0.0,
        }
