"""Token classification: a tag for each word of a sentence, as entities (IOB2) or parts of speech."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.padding import pad_inputs, pad_labels
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError, InputError
from rembert.common.metrics.classification import LabelScores
from rembert.common.metrics.entities import EntityScores, entities, iob1_to_iob2, is_entity_scheme
from rembert.tasks.encoding import row_of
from rembert.tasks.examples import Example, TaggedExample
from rembert.tasks.labels import known_labels, label_names, sorted_labels
from rembert.tasks.task import BadExample, Batch, Feature, Fields, Output, Scorer, Task, checked_text, identified

SCHEMES = ("iob2", "iob1")
_OUTSIDE = "O"


class TokenClassification(Task):
    """Fields: `tokens` (a list of words), `tags` (a list as long); from CoNLL files the first and the last column,
    from CoNLL-U the words and their universal parts of speech.

    A word's tag is learnt and read at its first piece. A sentence that is longer than `max_length` is cut between
    words into several rows, so every word has a prediction.

    Args:
        tokenizer, max_length, data: as for `Task`.
        scheme: "iob2", or "iob1" for files in that older scheme, whose tags are rewritten. Tags that are no entities
            are not touched.
    """

    name = "token-classification"
    options: ClassVar[tuple[str, ...]] = ("scheme",)
    format = "conll"
    fields: ClassVar = {
        "tokens": ("tokens", "words"),
        "tags": ("tags", "ner_tags", "pos_tags", "upos", "labels"),
    }
    per_token = True

    def __init__(self, *args: Any, scheme: str = "iob2", **options: Any) -> None:
        super().__init__(*args, **options)
        if scheme not in SCHEMES:
            raise InputError(f"`scheme` must be one of {', '.join(SCHEMES)}. Received: `scheme={scheme!r}`.")
        self.scheme = scheme
        self.labels: list[str] = []
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
                    raise DataError(f"{example.place}: tags were expected. Received: none.")
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
                known = known_labels(self.labels)
                raise BadExample(f"the tag must be one of the model's: {known}. Received: {tag!r} at word {number}")
        return [self._ids[tag] for tag in tags]

    # ------------------------------------------------------------------ to the model and back

    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        mine = [example for example in examples if isinstance(example, TaggedExample)]
        # Words come again and again: each is encoded once.
        words = list(dict.fromkeys(word for example in mine for word in example.words))
        rows = self.tokenizer(
            words, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, truncation=False
        )
        pieces = dict(zip(words, rows["input_ids"], strict=True))
        return [self._rows(example, pieces) for example in mine]

    def _rows(self, example: TaggedExample, pieces: Mapping[str, list[int]]) -> list[Feature]:
        targets = None
        if example.tags is not None:
            targets = self.labelled(example, lambda: self._targets(example.tags or ()))
        opening, closing = self.edges
        room = self.max_length - 2
        rows: list[Feature] = []
        ids: list[int] = []
        firsts: list[int] = []
        numbers: list[int] = []
        labels: list[int] = []

        def close() -> None:
            input_ids = [opening, *ids, closing]
            row = row_of(input_ids)
            row |= {"first_pieces": np.array(firsts, np.int32), "word_numbers": np.array(numbers, np.int32)}
            if targets is not None:
                row["labels"] = np.array([IGNORE_INDEX, *labels, IGNORE_INDEX], np.int32)
            rows.append(row)
            for column in (ids, firsts, numbers, labels):
                column.clear()

        for number, word in enumerate(example.words):
            own = pieces[word]
            if len(own) > room:
                own = own[:room]
                self.report.truncated += 1
            if not own:
                continue  # nothing is left of it once normalized: it can only be tagged as what is no entity
            if len(ids) + len(own) > room:
                close()
            firsts.append(len(ids) + 1)
            numbers.append(number)
            ids.extend(own)
            labels.extend([IGNORE_INDEX if targets is None else targets[number], *[IGNORE_INDEX] * (len(own) - 1)])
        close()
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
                "logits": results["logits"][row][feature["first_pieces"]],
                "word_numbers": feature["word_numbers"],
            }
            for row, feature in enumerate(features)
        ]

    def predicted(self, example: TaggedExample, outputs: Sequence[Output]) -> list[str]:
        """The likeliest tag of every word; `O`, or the first of the tags, of one without any piece."""
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
