"""Token classification: a tag for each word of a sentence, as entities or parts of speech."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rembert.common.checks import IGNORE_INDEX
from rembert.common.collation.padding import pad_inputs, pad_labels
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError
from rembert.common.metrics.classification import LabelScores
from rembert.common.metrics.entities import Entity, EntityScores, entities, iob1_to_iob2
from rembert.common.metrics.entity_schemes import SCHEMES, Notation, completed, find_notation, looks_like_entities
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.declarations import Option, Score
from rembert.tasks.encoding import row_of, token_ids
from rembert.tasks.examples import Example, TaggedExample
from rembert.tasks.fields import BadExample, Fields, checked_text
from rembert.tasks.labels import LABELS, chosen_labels, label_names, listed_labels, numbered_label
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.task import Batch, Feature, Task, identified
from rembert.tasks.words import word_spans

PLAIN = "plain"  # the scheme of tags that are no entities, whatever they look like
_OUTSIDE, _MISTYPED = "O", "0"


class TokenClassification(Task):
    """Fields: `tokens` (a list of words), `tags` (a list of the same length); from CoNLL files the first and the last
    column, from CoNLL-U the words and their universal parts of speech. For prediction also `text`, running text.

    A word's tag is learned and predicted at its first token. A sentence that is longer than `max_length` is split
    between words into several rows, so that every word gets a prediction.

    Args:
        tokenizer, max_length, data: as for `Task`.
        scheme: of the tags; by default found by the set of tags. Every tag must then belong to it. Tags in "iob1" are
            rewritten as IOB2; "plain" tags are no entities.

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
    options: ClassVar = (
        Option("scheme", str, "of the tags, if they do not determine it", choices=(*SCHEMES, PLAIN)),
        LABELS,
    )
    scores: ClassVar = (Score("precision"), Score("recall"), Score("f1"), Score("accuracy"))
    format = "conll"
    fields: ClassVar = {
        "tokens": ("tokens", "words"),
        "tags": ("tags", "ner_tags", "pos_tags", "upos", "ner", "pos", "labels"),
        "text": ("text", "sentence"),
    }
    label_fields: ClassVar = ("tags",)
    per_token = True
    scheme: str | None
    label_names: list[str] | None

    def __init__(self, tokenizer: RemBertTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self._ids: dict[str, int] = {}
        self._has_warned = False
        self.notation: Notation | None = None  # of entities
        self.metric = "accuracy"

    def example(self, fields: Fields) -> TaggedExample:
        if fields.column("tokens") is None and not fields.named.get("tokens") and fields.column("text") is not None:
            return _running_text(fields)
        words = _words(fields.value("tokens"), fields.column("tokens"))
        tags = fields.optional("tags")
        if tags is not None:
            if not isinstance(tags, list) or not all(
                isinstance(tag, str | int) and not isinstance(tag, bool) and tag != "" for tag in tags
            ):
                raise BadExample(f"{fields.column('tags')!r} must be a list of tags. Received: {tags!r:.60}")
            if len(tags) != len(words):
                raise BadExample(f"a tag for each of {len(words)} tokens was expected. Received: {len(tags)} tags")
            tags = self._named(tags)
            self._check_scheme(tags)
            tags = tuple(iob1_to_iob2(tags) if self.scheme == "iob1" else tags)
        return TaggedExample(*fields.common(), words=words, tags=tags)

    def _named(self, tags: Sequence[str | int]) -> list[str]:
        """Tags by name; integers without names are a warning, once."""
        named = [numbered_label(tag, self.label_names) for tag in tags]
        if not self._has_warned and self.label_names is None and any(isinstance(tag, int) for tag in named):
            self._has_warned = True
            self.report.warn(
                "the tags are integers without names: single tags are scored, no entities. `label_names` (--labels O "
                "B-PER …) names them in the order of the integers, as does a `dataset_info.json` beside the file."
            )
        return list(map(str, named))

    def classes(self, example: Example) -> Sequence[str]:
        assert isinstance(example, TaggedExample)
        return example.tags or ()

    # ------------------------------------------------------------------ labels

    def prepare(self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None) -> None:
        if config is not None:
            self.labels = label_names(config, self.label_names)
        else:
            found: set[str] = set()
            for example in examples:
                assert isinstance(example, TaggedExample)
                if example.tags is None:
                    raise DataError(f"{example.location}: tags were expected. Received: none.")
                found |= set(example.tags)
            if not found:
                raise DataError("Examples with tags are needed to find the set of tags. Received: none.")
            if (notation := self._find_notation(found)) is not None:
                found = completed(found, notation)
                if _OUTSIDE in found:
                    found.discard(_MISTYPED)
            elif self.scheme is None and (alike := looks_like_entities(found)):
                odd = ", ".join(map(repr, sorted(found - {*alike, _OUTSIDE})))
                self.report.warn(
                    f"{', '.join(map(repr, alike)):.120} look like tags of entities, but "
                    f"{odd or 'their letters':.120} belong to no known scheme: single tags are scored. "
                    f"`scheme` (--scheme) is one of {', '.join(SCHEMES)}, or {PLAIN} for tags that are no entities."
                )
            self.labels = chosen_labels(found, self.label_names, self.known_labels)
            if len(self.labels) < 2:
                raise DataError(f"Examples of at least two tags are needed. Received: {self.labels[0]!r} alone.")
        self._ids = {label: number for number, label in enumerate(self.labels)}
        self.notation = self._find_notation(self.labels)
        if self.notation is not None and _OUTSIDE in self._ids:
            self._ids.setdefault(_MISTYPED, self._ids[_OUTSIDE])
        self.metric = "accuracy" if self.notation is None else "f1"

    def _find_notation(self, tags: Collection[str]) -> Notation | None:
        return None if self.scheme == PLAIN else find_notation(tags, SCHEMES.get(self.scheme or ""))

    def _check_scheme(self, tags: Sequence[str]) -> None:
        """Refuse a tag outside the given scheme."""
        if self.scheme is None or self.scheme == PLAIN:
            return
        for number, tag in enumerate(tags, 1):
            if tag not in (_OUTSIDE, _MISTYPED) and find_notation({tag}, SCHEMES[self.scheme]) is None:
                wanted = ", ".join(f"{letter}-…" for letter in SCHEMES[self.scheme])
                raise BadExample(f"the tag must be O, {wanted} in {self.scheme}. Received: {tag!r} at word {number}")

    def tell_classes(self, use: str, counts: Mapping[str, int]) -> None:
        super().tell_classes(use, counts)
        count = counts.get(_MISTYPED, 0)
        if count and self._ids.get(_MISTYPED) == self._ids.get(_OUTSIDE, -1):
            self.report.warn(f"{use}: {_MISTYPED!r} ({count}) is read as {_OUTSIDE!r}.")

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
        return self._likely(example, outputs)[0]

    def _likely(self, example: TaggedExample, outputs: Sequence[Output]) -> tuple[list[str], list[float]]:
        """The most likely tag of every word, and its probability; 1 for a word without tokens."""
        rest = _OUTSIDE if _OUTSIDE in self._ids else self.labels[0]
        tags, scores = [rest] * len(example.words), [1.0] * len(example.words)
        for output in outputs:
            logits = output["logits"].astype(np.float64)
            best = logits.argmax(-1)
            # The probability of the most likely: its own exponential is 1.
            likely = 1.0 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)
            for number, label, share in zip(output["word_numbers"], best, likely, strict=True):
                tags[number], scores[number] = self.labels[label], float(share)
        return tags, scores

    def has_label(self, example: Example) -> bool:
        return isinstance(example, TaggedExample) and example.tags is not None

    def scorer(self) -> Scorer:
        return _TagScorer(self) if self.notation is None else _EntityScorer(self, self.notation)

    def outcomes(self, example: Example, prediction: Mapping[str, Any]) -> list[tuple[str, str]]:
        assert isinstance(example, TaggedExample)
        tags = [self.labels[number] for number in self._targets(example.tags or ())]
        if self.notation is None:
            return list(zip(tags, prediction["tags"], strict=True))
        both = [
            {(e.start, e.end): e.kind for e in entities(each, self.notation)} for each in (tags, prediction["tags"])
        ]
        spans = sorted({*both[0], *both[1]})
        return [(both[0].get(span, ""), both[1].get(span, "")) for span in spans]

    @property
    def has_one_class(self) -> bool:
        return True

    def judgements(self, example: Example, outputs: Sequence[Output]) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(example, TaggedExample)
        numbers = np.concatenate([output["word_numbers"] for output in outputs])
        return np.concatenate([output["logits"] for output in outputs]), np.array(self._targets(example.tags or ()))[
            numbers
        ]

    def is_right(self, example: Example, prediction: Mapping[str, Any]) -> bool:
        assert isinstance(example, TaggedExample)
        return self._targets(example.tags or ()) == self._targets(prediction["tags"])

    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        assert isinstance(example, TaggedExample)
        tags, scores = self._likely(example, outputs)
        found: dict[str, Any] = {"tokens": list(example.words), "tags": tags, "scores": scores}
        if example.text is not None:
            found["spans"] = [list(span) for span in example.spans]
        if self.notation is not None:
            found["entities"] = [
                {
                    "label": entity.kind,
                    "start": entity.start,
                    "end": entity.end,
                    "tokens": list(example.words[entity.start : entity.end]),
                    "score": min(scores[entity.start : entity.end]),
                    **_characters(example, entity),
                }
                for entity in entities(tags, self.notation)
            ]
        return identified(example, **found)


def _characters(example: TaggedExample, entity: Entity) -> dict[str, Any]:
    """The characters of an entity in running text."""
    if example.text is None:
        return {}
    start, end = example.spans[entity.start][0], example.spans[entity.end - 1][1]
    return {"text": example.text[start:end], "start_char": start, "end_char": end}


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
    def __init__(self, task: TokenClassification, notation: Notation) -> None:
        self._task = task
        self._scores = EntityScores(notation)

    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        task = self._task
        expected = task.labelled(example, lambda: task._targets(example.tags))
        self._scores.add([task.labels[number] for number in expected], task.predicted(example, outputs))

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


def _running_text(fields: Fields) -> TaggedExample:
    """Text that is not split into words, to be tagged."""
    text = fields.text("text")
    spans = tuple(word_spans(text))
    words = tuple(text[start:end] for start, end in spans)
    return TaggedExample(*fields.common(), words=words, tags=None, text=text, spans=spans)


def _words(value: Any, column: str | None) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise BadExample(f"{column!r} must be a list of words. Received: {value!r:.60}")
    return tuple(checked_text(word, f"a word of {column!r}") for word in value)
