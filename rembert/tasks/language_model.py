"""What masked and causal language modelling share: texts in rows that fill the model's length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.metrics.language_models import PieceScores
from rembert.tasks.encoding import row_of
from rembert.tasks.examples import Example, PlainExample
from rembert.tasks.task import Feature, Fields, Output, Scorer, Task


class LanguageModelTask(Task):
    """Field: `text`; a line of a plain text file is a text.

    An example by itself is `[CLS] text [SEP]`, in several rows where it is too long: nothing is cut away.

    Args:
        tokenizer, max_length, data: as for `Task`.
        join: in training, put short texts together until a row is full, each between its `[CLS]` and `[SEP]`.
    """

    format = "text"
    fields: ClassVar = {"text": ("text", "sentence", "content")}
    scores_pieces = True
    metric = "loss"
    options: ClassVar[tuple[str, ...]] = ("join",)

    def __init__(self, *args: Any, join: bool = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self.join = join

    def example(self, fields: Fields) -> PlainExample:
        return PlainExample(*fields.common(), text=fields.text("text"))

    def _pieces(self, examples: Sequence[Example]) -> list[list[int]]:
        texts = [example.text for example in examples if isinstance(example, PlainExample)]
        rows: list[list[int]] = self.tokenizer(
            texts,
            add_special_tokens=False,
            truncation=False,
            return_token_type_ids=False,
            return_attention_mask=False,
        )["input_ids"]
        return rows

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        opening, closing = self.edges
        room = self.max_length - 2
        return [
            [row_of([opening, *ids[at : at + room], closing]) for at in range(0, max(len(ids), 1), room)]
            for ids in self._pieces(examples)
        ]

    def training_features(self, examples: Iterable[Example]) -> Iterator[Feature]:
        if not self.join:
            yield from super().training_features(examples)
            return
        # Rows are cut from one long run of `[CLS] text [SEP]`, so only the last one is short.
        opening, closing = self.edges
        held: list[int] = []
        for ids in self._in_batches(examples, self._pieces):
            held += [opening, *ids, closing]
            full = len(held) - len(held) % self.max_length
            for start in range(0, full, self.max_length):
                yield row_of(held[start : start + self.max_length])
            held = held[full:]
        if len(held) > 2:
            yield row_of(held)

    def outputs(self, features: Sequence[Feature], results: Mapping[str, np.ndarray]) -> list[Output]:
        """`log_probs`, `predicted` and `expected` of each row's labelled pieces."""
        rows = []
        for number in range(len(features)):
            counted = results["expected"][number] >= 0
            rows.append({name: array[number][counted] for name, array in results.items()})
        return rows

    def has_label(self, example: Example) -> bool:
        return True

    def scorer(self) -> Scorer:
        return _Scorer()


class _Scorer(Scorer):
    def __init__(self) -> None:
        self._scores = PieceScores()

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._scores.add(output["log_probs"], output["predicted"], output["expected"])

    def result(self) -> dict[str, float]:
        return self._scores.result()
