"""Common code of masked and causal language modelling: texts in rows that fill the maximum length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.metrics.language_models import TokenScores
from rembert.tasks.declarations import Option
from rembert.tasks.encoding import row_of, token_ids
from rembert.tasks.examples import Example, PlainExample
from rembert.tasks.fields import Fields
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Feature, Task

JOIN = Option("join", bool, "in training, join short texts until a row is full", default=True)


class LanguageModelTask(Task):
    """Field: `text`; each line of a plain text file is a text.

    An example by itself is `[CLS] text [SEP]`, in several rows if it is too long: no token is dropped.

    Args:
        tokenizer, max_length, data: as for `Task`.
        join: in training, join short texts until a row is full, each between its `[CLS]` and `[SEP]`.
    """

    recipe: ClassVar = {"learning_rate": 1e-5}
    options: ClassVar[tuple[Option, ...]] = (JOIN,)
    metric = "loss"
    format = "text"
    fields: ClassVar = {"text": ("text", "sentence", "content")}
    takes_label_scores = True
    join: bool

    def example(self, fields: Fields) -> PlainExample:
        return PlainExample(*fields.common(), text=fields.text("text"))

    def _token_ids(self, examples: Sequence[Example]) -> list[list[int]]:
        return token_ids(self, [example.text for example in examples if isinstance(example, PlainExample)])

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        opening, closing = self.edges
        size = self.max_length - 2
        return [
            [row_of([opening, *ids[at : at + size], closing]) for at in range(0, max(len(ids), 1), size)]
            for ids in self._token_ids(examples)
        ]

    def training_features(self, examples: Iterable[Example]) -> Iterator[Feature]:
        if not self.join:
            yield from super().training_features(examples)
            return
        # Rows are cut from one long sequence of `[CLS] text [SEP]`, so only the last one is short.
        opening, closing = self.edges
        held: list[int] = []
        for ids in self._in_batches(examples, self._token_ids):
            held += [opening, *ids, closing]
            full = len(held) - len(held) % self.max_length
            for start in range(0, full, self.max_length):
                yield row_of(held[start : start + self.max_length])
            held = held[full:]
        if len(held) > 2:
            yield row_of(held)

    def outputs(self, features: Sequence[Feature], results: Mapping[str, np.ndarray]) -> list[Output]:
        """`log_probs`, `predicted` and `expected` of each row's labelled tokens."""
        rows = []
        for number in range(len(features)):
            counted = results["expected"][number] >= 0
            rows.append({name: array[number][counted] for name, array in results.items()})
        return rows

    def has_label(self, example: Example) -> bool:
        return True

    def scorer(self) -> Scorer:
        return _Scorer()


def log_probabilities(outputs: Sequence[Output]) -> np.ndarray:
    """The log-probabilities of an example's labelled tokens, [n] float64."""
    return np.concatenate([output["log_probs"] for output in outputs] or [np.zeros(0)]).astype(np.float64)


class _Scorer(Scorer):
    def __init__(self) -> None:
        self._scores = TokenScores()

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._scores.add(output["log_probs"], output["predicted"], output["expected"])

    def result(self) -> dict[str, float]:
        return self._scores.result()
