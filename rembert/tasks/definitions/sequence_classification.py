"""Sequence classification: one class for a text or a pair of texts, several classes, or numbers (regression)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.collation.padding import pad_inputs
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError, InputError
from rembert.common.labels import PROBLEM_TYPES
from rembert.common.metrics.classification import LabelScores, MultiLabelScores
from rembert.common.metrics.regression import RegressionScores
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.columns import plain_name
from rembert.tasks.declarations import Option, Score
from rembert.tasks.encoding import encode
from rembert.tasks.examples import Example, TextExample
from rembert.tasks.fields import BadExample, Fields, checked_text
from rembert.tasks.labels import LABELS, chosen_labels, label_names, listed_labels, numbered_label
from rembert.tasks.reading import Location
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Batch, Feature, Task, identified

REGRESSION, SINGLE, MULTI = PROBLEM_TYPES
_METRICS = {REGRESSION: "pearson", SINGLE: "accuracy", MULTI: "f1_micro"}
_NO_GOLD_LABEL = ("goldlabel", "-")  # in SNLI, MNLI and XNLI: the annotators disagreed
_THRESHOLD = 0.5  # with several classes, one is predicted from this probability on


class SequenceClassification(Task):
    """Fields: `text`, `text_pair` (optional), `label`.

    A label is the name of a class (a string, or an integer); a list of names, for several classes; or a number, or a
    list of floats, for regression. The training data determine which of the three it is. Files of BLEURT's
    ratings (`reference`, `candidate`, `score`) can be read unchanged.

    Args:
        tokenizer, max_length, data: as for `Task`.
        problem_type: one of `PROBLEM_TYPES`; by default determined by the training data.
        label_separator: splits a label into the names of several classes, for example in CSV files.
        label_names: the classes, in the order of their ids; by default those of the training data, sorted.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("topics.tsv").write_text("text\\tlabel\\nThe ferry is late.\\ttravel\\nWe won!\\tsport\\n")
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> task = SequenceClassification(tokenizer, max_length=64)
        >>> task.prepare(task.read("topics.tsv"))
        >>> task.labels, task.problem_type
        (['sport', 'travel'], 'single_label_classification')
    """

    name = "sequence-classification"
    head = "sequence-classification"
    recipe: ClassVar = {"learning_rate": 1e-5}
    options: ClassVar = (
        Option(
            "problem_type",
            str,
            "the kind of the labels, if the data do not determine it",
            choices=tuple(PROBLEM_TYPES),
        ),
        Option("label_separator", str, "the text between several classes in one label"),
        LABELS,
    )
    scores: ClassVar = (
        Score("accuracy"),
        Score("f1"),
        Score("pearson"),
        Score("spearman"),
        Score("mse", lower_is_better=True),
    )
    fields: ClassVar = {
        "text": (
            *("text", "sentence", "sentence1", "premise", "question", "reference", "query", "tweet", "review"),
            *("comment", "utterance", "content", "body", "headline", "title"),
        ),
        "text_pair": ("text_pair", "sentence2", "hypothesis", "candidate"),
        "label": (
            "label",
            "labels",
            "gold_label",
            "category",
            "class",
            "target",
            "is_duplicate",
            "sentiment",
            "score",
            *("quality", "relevance_label", "relavance_label", "news_category"),  # MRPC, XGLUE
        ),
    }
    layouts: ClassVar = tuple(
        {"text": text, "text_pair": text_pair}
        for text, text_pair in (
            ("premise", "hypothesis"),
            ("premise", "hypo"),
            ("sentence1", "sentence2"),
            ("question1", "question2"),
            ("text1", "text2"),
            ("text_a", "text_b"),
            ("question", "sentence"),
            ("question", "passage"),
            ("question", "context"),
            ("question", "answer"),
            ("query", "passage"),
            ("query", "document"),
            ("reference", "candidate"),
            ("original", "translation"),
            ("#1 String", "#2 String"),  # MRPC
            ("query", "ad_title"),  # XGLUE
            ("query", "web_page_title"),
            ("news_title", "news_body"),
        )
    )

    problem_type: str | None
    label_separator: str | None
    label_names: list[str] | None

    def __init__(self, tokenizer: RemBertTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        if self.problem_type is None and self.label_separator is not None:
            self.problem_type = MULTI
        self.width = 0  # labels of the head

    def example(self, fields: Fields) -> TextExample:
        pair = fields.optional("text_pair")
        return TextExample(
            *fields.common(),
            text=fields.text("text"),
            text_pair=None if pair is None else checked_text(pair, repr(fields.column("text_pair"))),
            label=self._label(fields.optional("label"), fields.column("label")),
        )

    def classes(self, example: Example) -> list[str]:
        assert isinstance(example, TextExample)
        parts = example.label if isinstance(example.label, tuple) else (example.label,)
        return [_name(part) for part in parts if part is not None]

    def tell_classes(self, use: str, counts: Mapping[str, int]) -> None:
        if self.problem_type == REGRESSION:
            self.report.tell(f"{use}: the labels are numbers")
        else:
            super().tell_classes(use, counts)

    def _label(self, value: Any, column: str | None) -> Any:
        if column is not None and (plain_name(column), value) == _NO_GOLD_LABEL:
            return None
        if value is None or value == "":
            if value == "" and self.label_separator is not None:
                return ()  # no class
            return None
        if self.label_separator is not None and isinstance(value, str):
            value = [part.strip() for part in value.split(self.label_separator)]
        parts = [numbered_label(part, self.label_names) for part in (value if isinstance(value, list) else [value])]
        for part in parts:
            is_number = isinstance(part, int | float) and math.isfinite(part)
            if not is_number and not (isinstance(part, str) and part):
                raise BadExample(
                    f"{column!r} must be the name of a class, a number, or a list of either. Received: {value!r:.60}"
                )
        if len({isinstance(part, float) for part in parts}) > 1 and any(isinstance(part, str) for part in parts):
            raise BadExample(f"{column!r} must be a list of names only, or of numbers only. Received: {value!r:.60}")
        return tuple(parts) if isinstance(value, list) else parts[0]

    # ------------------------------------------------------------------ labels

    def prepare(self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None) -> None:
        if config is not None:
            inferred = REGRESSION if config.num_labels == 1 else SINGLE
            self.problem_type = self.problem_type or config.problem_type or inferred
            self.width = config.num_labels
            self.labels = [] if self.problem_type == REGRESSION else label_names(config, self.label_names)
            self._index()
            return
        # Each distinct label with its first location, by its repr: 1 and 1.0 differ.
        found: dict[str, tuple[Any, Location]] = {}
        for example in examples:
            assert isinstance(example, TextExample)
            if example.label is None:
                raise DataError(f"{example.location}: a label was expected. Received: none.")
            found.setdefault(repr(example.label), (example.label, example.location))
        labels = [label for label, _ in found.values()]
        if not labels:
            raise DataError("Examples with labels are needed to find the set of labels. Received: none.")
        if self.problem_type is None and self.label_names is not None:
            self.problem_type = MULTI if any(isinstance(label, tuple) for label in labels) else SINGLE
        self.problem_type = self.problem_type or _problem_type(labels, [location for _, location in found.values()])
        if self.problem_type == REGRESSION:
            if self.label_names is not None:
                raise InputError(
                    f"`label_names` (--labels) are for classes. Received: {self.label_names} for numbers."
                )
            first = labels[0]
            self.width = len(first) if isinstance(first, tuple) else 1
        else:
            names = (_name(part) for label in labels for part in (label if isinstance(label, tuple) else (label,)))
            self.labels = chosen_labels(names, self.label_names, self.known_labels)
            self.width = len(self.labels)
            if self.problem_type == SINGLE and self.width < 2:
                raise DataError(f"Examples of at least two classes are needed. Received: {self.labels[0]!r} alone.")
        self._index()

    def _index(self) -> None:
        self._ids = {label: number for number, label in enumerate(self.labels)}
        self.metric = _METRICS[self.problem_type or SINGLE]

    def config_overrides(self) -> dict[str, Any]:
        if self.problem_type == REGRESSION:
            return {"problem_type": REGRESSION, "num_labels": self.width}
        return {"problem_type": self.problem_type, "id2label": dict(enumerate(self.labels))}

    def check(self, example: Example) -> None:
        assert isinstance(example, TextExample)
        if self.width and example.label is not None:
            self._target(example.label)

    def _target(self, label: Any) -> int | float | list[float]:
        """A label for the model: a class id, a list [classes] of 0 and 1, a number, or a list of numbers."""
        parts = label if isinstance(label, tuple) else (label,)
        if self.problem_type == REGRESSION:
            try:
                numbers = list(map(float, parts))
            except ValueError:
                raise BadExample(f"the label must be a number. Received: {label!r:.60}") from None
            if len(numbers) != self.width or not all(map(math.isfinite, numbers)):
                raise BadExample(f"the label must have {self.width} finite number(s). Received: {label!r:.60}")
            return numbers if self.width > 1 else numbers[0]
        if self.problem_type == SINGLE and isinstance(label, tuple):
            raise BadExample(f"the label must be one class. Received: {list(label)!r:.60}")
        for part in parts:
            if _name(part) not in self._ids:
                known = listed_labels(self.labels)
                raise BadExample(f"the label must be one of the model's: {known}. Received: {_name(part)!r}")
        ids = [self._ids[_name(part)] for part in parts]
        if self.problem_type == SINGLE:
            return ids[0]
        return [float(number in ids) for number in range(self.width)]

    # ------------------------------------------------------------------ to the model and back

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        mine = [example for example in examples if isinstance(example, TextExample)]
        rows = encode(self, [example.text for example in mine], [example.text_pair for example in mine])
        for row, example in zip(rows, mine, strict=True):
            if example.label is not None:
                row["labels"] = self.labelled(example, lambda: self._target(example.label))  # noqa: B023 (called now)
        return [[row] for row in rows]

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        batch = pad_inputs(features, self.pad_token_id)
        if all("labels" in feature for feature in features):
            kind = np.int64 if self.problem_type == SINGLE else np.float32
            batch["labels"] = np.array([feature["labels"] for feature in features], kind)
        return batch

    def has_label(self, example: Example) -> bool:
        return isinstance(example, TextExample) and example.label is not None

    def scorer(self) -> Scorer:
        return _Scorer(self)

    def outcomes(self, example: Example, prediction: Mapping[str, Any]) -> list[tuple[str, str]]:
        expected = self.classes(example)
        if self.problem_type == SINGLE:
            return [(expected[0], prediction["label"])]
        if self.problem_type == REGRESSION:
            return []
        either = sorted({*expected, *prediction["labels"]})
        return [(name if name in expected else "", name if name in prediction["labels"] else "") for name in either]

    @property
    def has_one_class(self) -> bool:
        return self.problem_type == SINGLE

    def judgements(self, example: Example, outputs: Sequence[Output]) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(example, TextExample)
        return outputs[0]["logits"][None], np.array([self._target(example.label)])

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        logits = outputs[0]["logits"].astype(np.float64)
        if self.problem_type == REGRESSION:
            values = [float(number) for number in logits]
            return identified(example, value=values[0] if self.width == 1 else values)
        if self.problem_type == SINGLE:
            shifted = np.exp(logits - logits.max())
            likely = shifted / shifted.sum()
            best = int(likely.argmax())
            found: dict[str, Any] = {"label": self.labels[best], "score": float(likely[best])}
        else:
            likely = 0.5 * (1.0 + np.tanh(0.5 * logits))  # the sigmoid, without overflow
            found = {"labels": [self.labels[number] for number in np.flatnonzero(likely >= _THRESHOLD)]}
        return identified(example, **found, scores=dict(zip(self.labels, map(float, likely), strict=True)))


class _Scorer(Scorer):
    def __init__(self, task: SequenceClassification) -> None:
        self._task = task
        kinds: dict[Any, Any] = {SINGLE: LabelScores, MULTI: MultiLabelScores}
        kind = task.problem_type
        self._scores: Any = RegressionScores() if kind == REGRESSION else kinds[kind](task.width)

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        task, logits = self._task, outputs[0]["logits"]
        target = task.labelled(example, lambda: task._target(example.label))
        if task.problem_type == SINGLE:
            self._scores.add(target, int(logits.argmax()))
        elif task.problem_type == MULTI:
            self._scores.add(target, logits >= 0)  # a probability of at least `_THRESHOLD`
        else:
            self._scores.add(target, logits)

    def result(self) -> dict[str, float]:
        found: dict[str, float] = self._scores.result()
        return found


def _name(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _problem_type(labels: Sequence[Any], locations: Sequence[Location]) -> str:
    """Lists of names mean several classes; numbers with a fraction mean regression; anything else is one class.

    Raises:
        DataError: some labels are numbers with a fraction and others are not numbers, which may be a typing error.
    """
    if any(isinstance(label, tuple) for label in labels):
        parts = [part for label in labels for part in (label if isinstance(label, tuple) else (label,))]
        return REGRESSION if parts and all(isinstance(part, float) for part in parts) else MULTI
    numbers = [_number(label) for label in labels]
    fraction = next((number for number in numbers if number is not None and not number.is_integer()), None)
    if fraction is not None and None in numbers:
        other = numbers.index(None)
        raise DataError(
            f"{locations[other]}: the label must be a number, like {fraction} elsewhere, unless `problem_type` "
            f"(--problem-type) gives the kind of labels. Received: {labels[other]!r:.60}."
        )
    return SINGLE if fraction is None else REGRESSION


def _number(label: Any) -> float | None:
    if isinstance(label, bool):
        return None
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
