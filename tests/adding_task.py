"""A task as a contributor would add it: this file declares it, and `test_adding.py` tests it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.arguments import number
from rembert.common.collation.padding import pad_inputs
from rembert.common.config import RemBertConfig
from rembert.tasks import Example, Feature, Option, Output, Score, Task
from rembert.tasks.encoding import encode
from rembert.tasks.examples import TextExample
from rembert.tasks.fields import Fields
from rembert.tasks.scoring import Scorer
from rembert.tasks.task import Batch, identified


class Rating(Task):
    """Stars, from 0 to `most_stars`, as a number from 0 to 1. It shares its head with sequence classification."""

    name = "rating"
    head = "sequence-classification"
    recipe: ClassVar = {"learning_rate": 1e-3, "batch_size": 4}
    options: ClassVar = (
        Option("most_stars", float, "the best rating there is", default=5.0, constraint=number(above=0)),
    )
    scores: ClassVar = (Score("mean_error", lower_is_better=True),)
    metric = "mean_error"
    fields: ClassVar = {"text": ("text",), "stars": ("stars",)}
    most_stars: float

    def example(self, fields: Fields) -> TextExample:
        return TextExample(*fields.common(), text=fields.text("text"), text_pair=None, label=fields.optional("stars"))

    def prepare(self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None) -> None:
        pass

    def config_overrides(self) -> dict[str, Any]:
        return {"problem_type": "regression", "num_labels": 1}

    def batch_features(self, examples: Sequence[Any]) -> list[list[Feature]]:
        rows = encode(self, [example.text for example in examples])
        for row, example in zip(rows, examples, strict=True):
            if example.label is not None:
                row["labels"] = example.label / self.most_stars
        return [[row] for row in rows]

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        batch = pad_inputs(features, self.pad_token_id)
        if all("labels" in feature for feature in features):
            batch["labels"] = np.array([feature["labels"] for feature in features], np.float32)
        return batch

    def has_label(self, example: Any) -> bool:
        return example.label is not None

    def scorer(self) -> Scorer:
        return _MeanError(self.most_stars)

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        return identified(example, stars=float(outputs[0]["logits"][0]) * self.most_stars)


class _MeanError(Scorer):
    def __init__(self, most_stars: float) -> None:
        self._most_stars = most_stars
        self._errors: list[float] = []

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        self._errors.append(abs(float(outputs[0]["logits"][0]) * self._most_stars - example.label))

    def result(self) -> dict[str, float]:
        return {"mean_error": sum(self._errors) / len(self._errors)}
