"""Token classification: a tag for each word of a sentence, as entities (IOB2) or parts of speech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.padding import pad_inputs, pad_labels
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError
from rembert.common.metrics.classification import LabelScores
from rembert.common.metrics.entities import EntityScores, entities, iob1_to_iob2, is_entity_scheme
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.declarations import Option, Score
from rembert.tasks.encoding import row_of, token_ids
from rembert.tasks.examples import Example, TaggedExample
from rembert.tasks.fields import BadExample, Fields, checked_text
from rembert.tasks.labels import label_names, listed_labels, sorted_labels
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Batch, Feature, Task, identified

SCHEMES = ("iob2", "iob1")
_OUTSIDE = "O"


class TokenClassification(Task):
    """Fields: `tokens` (a list of words), `tags` (a list of the same length); from CoNLL files the first and the last
    column, from CoNLL-U the words and their universal parts of speech.

    A word's tag is learned and predicted at its first token. A sentence that is longer than `max_length` is split
    between words into several rows, so that every word gets a prediction.

    Args:
        tokenizer, max_length, data: as for `Task`.
        scheme: "iob2", or "iob1" for files in that older scheme: their entity tags are rewritten as IOB2.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("names.conll").write_text("Anna B-PER\\nsleeps O\\n")
        >>> task = TokenClassification(RemBertTokenizer.from_pretrained("google/rembert"), max_length=64)
        >>> task.prepare(task.read("names.conll"))
        >>> task.labels
        ['B-PER', 'I-PER', 'O']
    """

    name = "token-classification"
    head = "token-classification"
    recipe: ClassVar = {"learning_rate": 8e-6}
    options: ClassVar = (Option("scheme", str, "of the tags in the files", default="iob2", choices=SCHEMES),)
    scores: ClassVar = (Score("precision"), Score("recall"), Score("f1"), Score("accuracy"))
    format = "conll"
    fields: ClassVar = {
        "tokens": ("tokens", "words"),
        "tags": ("tags", "ner_tags", "pos_tags", "upos", "labels"),
    }
    per_token = True
    scheme: str

    def __init__(self, tokenizer: RemBertTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self._ids: dict[str, int] = {}
        self.has_entities = False
        self.metric = "accuracy"

    def example(self, fields: Fields) -> TaggedExample:
        words = _words(fields.value("tokens"), fields.column("tokens"))
        tags = fields.optional("tags")
        if tags is not None:
            if not isinstance(tags, list) or not all(
                isinstance(tag, str | int) and not isinstance(tag, bool) and tag != "" for tag in tags
            ):
                raise BadExample(f"{fields.column('tags')!r} must be a list of tags. Received: {tags!r:.60}")
            if len(tags) != len(words):
                raise BadExample(f"a tag for each of {len(words)} tokens was expected. Received: {len(tags)} tags")
            tags = list(map(str, tags))
            tags = tuple(iob1_to_iob2(tags) if self.scheme == "iob1" else tags)
        return TaggedExample(*fields.common(), words=words, tags=tags)

    # ------------------------------------------------------------------ labels

    def prepare(self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None) -> None:
        if config is not None:
            self.labels = label_names(config)
        else:
            found: set[str] = set()
            for example in examples:
                assert isinstance(example, TaggedExample)
                if example.tags is None:
                    raise DataError(f"{example.location}: tags were expected. Received: none.")
                found |= set(example.tags)
            if not found:
                raise DataError("Examples with tags are needed to find the set of tags. Received: none.")
            if is_entity_scheme(sorted(found)):
                # Other data may hold longer or shorter entities of the same kinds.
                found |= {f"{prefix}{tag[2:]}" for tag in found if tag != _OUTSIDE for prefix in ("B-", "I-")}
                found.add(_OUTSIDE)
            self.labels = sorted_labels(found)
            if len(self.labels) < 2:
                raise DataError(f"Examples of at least two tags are needed. Received: {self.labels[0]!r} alone.")
        self._ids = {label: number for number, label in enumerate(self.labels)}
        self.has_entities = is_entity_scheme(self.labels)
        self.metric = "f1" if self.has_entities else "accuracy"

    def config_overrides(self) -> dict[str, Any]:
        return {"id2label": dict(enumerate(self.labels))}

    def check(self, example: Example) -> None:
        assert isinstance(example, TaggedExample)
        if self.labels and example.tags is not None:
            self._targets(example.tags)

    def _targets(self, tags: Sequence[str]) -> list[int]:
        for number, tag in enumerate(tags, 1):
            if tag not in self._ids:
                known = listed_labels(self.labels)
                raise BadExample(f"the tag must be one of the model's: {known}. Received: {tag!r} at word {number}")
        return [self._ids[tag] for tag in tags]

    # ------------------------------------------------------------------ to the model and back

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        mine = [example for example in examples if isinstance(example, TaggedExample)]
        words = list(dict.fromkeys(word for example in mine for word in example.words))  # each is encoded once
        tokens = dict(zip(words, token_ids(self, words), strict=True))
        return [self._rows(example, tokens) for example in mine]

    def _rows(self, example: TaggedExample, tokens: Mapping[str, list[int]]) -> list[Feature]:
        targets = None
        if example.tags is not None:
            targets = self.labelled(example, lambda: self._targets(example.tags or ()))
        size = self.max_length - 2
        rows: list[Feature] = []
        row = _Row()
        for number, word in enumerate(example.words):
            own = tokens[word]
            if len(own) > size:
                own = own[:size]
                self.report.truncated += 1
            if not own:
                continue  # the word is empty once normalized: it can only be predicted as outside any entity
            if len(row.ids) + len(own) > size:
                rows.append(row.feature(self.edges, targets))
                row = _Row()
            row.add(number, own)
        rows.append(row.feature(self.edges, targets))
        if len(rows) > 1:
            self.report.counts["split"] += 1
        return rows

    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        batch = pad_inputs(features, self.pad_token_id)
        if all("labels" in feature for feature in features):
            batch["labels"] = pad_labels(features)
        return batch

    def outputs(self, features: Sequence[Feature], results: Mapping[str, np.ndarray]) -> list[Output]:
        return [
            {
                "logits": results["logits"][row][feature["first_tokens"]],
                "word_numbers": feature["word_numbers"],
            }
            for row, feature in enumerate(features)
        ]

    def predicted(self, example: TaggedExample, outputs: Sequence[Output]) -> list[str]:
        """The most likely tag of every word; `O`, or else the first tag, for a word without tokens."""
        rest = _OUTSIDE if _OUTSIDE in self._ids else self.labels[0]
        tags = [rest] * len(example.words)
        for output in outputs:
            for number, label in zip(output["word_numbers"], output["logits"].argmax(-1), strict=True):
                tags[number] = self.labels[label]
        return tags

    def has_label(self, example: Example) -> bool:
        return isinstance(example, TaggedExample) and example.tags is not None

    def scorer(self) -> Scorer:
        return _EntityScorer(self) if self.has_entities else _TagScorer(self)

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        assert isinstance(example, TaggedExample)
        tags = self.predicted(example, outputs)
        found: dict[str, Any] = {"tokens": list(example.words), "tags": tags}
        if self.has_entities:
            found["entities"] = [
                {
                    "label": entity.kind,
                    "start": entity.start,
                    "end": entity.end,
                    "tokens": list(example.words[entity.start : entity.end]),
                }
                for entity in entities(tags)
            ]
        return identified(example, **found)


class _Row:
    """Words of a sentence that fit into one row."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.first_tokens: list[int] = []
        self.word_numbers: list[int] = []

    def add(self, number: int, ids: list[int]) -> None:
        """Append the tokens of the word with this number."""
        self.first_tokens.append(len(self.ids) + 1)  # after [CLS]
        self.word_numbers.append(number)
        self.ids += ids

    def feature(self, edges: tuple[int, int], targets: Sequence[int] | None) -> Feature:
        """The row between `[CLS]` and `[SEP]`, labelled at the first token of each word."""
        feature = row_of([edges[0], *self.ids, edges[1]])
        feature["first_tokens"] = np.array(self.first_tokens, np.int32)
        feature["word_numbers"] = np.array(self.word_numbers, np.int32)
        if targets is not None:
            feature["labels"] = np.full(len(self.ids) + 2, IGNORE_INDEX, np.int32)
            feature["labels"][feature["first_tokens"]] = [targets[number] for number in self.word_numbers]
        return feature


class _EntityScorer(Scorer):
    def __init__(self, task: TokenClassification) -> None:
        self._task = task
        self._scores = EntityScores()

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        self._scores.add(example.tags, self._task.predicted(example, outputs))

    def result(self) -> dict[str, float]:
        return self._scores.result()


class _TagScorer(Scorer):
    def __init__(self, task: TokenClassification) -> None:
        self._task = task
        self._scores = LabelScores(len(task.labels))

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        task = self._task
        self._scores.add(
            np.array(task.labelled(example, lambda: task._targets(example.tags))),
            np.array(task._targets(task.predicted(example, outputs))),
        )

    def result(self) -> dict[str, float]:
        return self._scores.result()


def _words(value: Any, column: str | None) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadExample(f"{column!r} must be a list of words. Received: {value!r:.60}")
    return tuple(checked_text(word, f"a word of {column!r}") for word in value)
