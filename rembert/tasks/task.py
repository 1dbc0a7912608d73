"""What the six tasks have in common: reading with all checks, and the interface that training and prediction use.

The way of an example: `read` → `prepare` (once) → `features` → `collate` → the model → `score` or `decode`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np

from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError, InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.examples import Example
from rembert.tasks.reading import BadLine, Place, Record, read_records
from rembert.tasks.reading.lines import name_of

# The model's inputs and labels of one row, unpadded; with keys that are no argument of the model, for `decode`.
Feature = dict[str, Any]
# What the model gave for one feature, cut to the feature's real length.
Output = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]
Result = TypeVar("Result")

# So many examples are encoded at once: enough that the tokenizer works at full speed.
_ENCODED_TOGETHER = 256


@dataclass(frozen=True)
class DataOptions:
    """How files of examples are read.

    Args:
        format: a key of `rembert.tasks.reading.FORMATS`; by default found by the file's name.
        columns: names of the file's columns (keys, in JSON) by the task's own field names, as
            `{"text": "sentence", "label": "category"}`; other fields are looked for under their usual names.
        language: the language of examples that name none.
        skip_bad_lines: leave bad lines out, and count them in `Task.report`, instead of raising `DataError`.
    """

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    skip_bad_lines: bool = False


@dataclass
class Report:
    """What was met on the way, by number."""

    examples: int = 0
    skipped: int = 0
    truncated: int = 0
    reasons: list[str] = field(default_factory=list)  # the first few of what was skipped
    counts: Counter[str] = field(default_factory=Counter)  # whatever else a task counts

    _KEPT: ClassVar[int] = 10

    def skip(self, place: Place, reason: str) -> None:
        """Count a bad line."""
        self.skipped += 1
        if len(self.reasons) < self._KEPT:
            self.reasons.append(f"{place}: {reason}.")

    def since(self, skipped: int) -> str:
        """How many bad lines there were after so many, and the first of them where it is kept; else nothing."""
        count = self.skipped - skipped
        first = "".join(self.reasons[skipped : skipped + 1]).removesuffix(".")
        return (f", and {count} bad line(s) left out" + (f": {first}" if first else "")) if count else ""

    def to_dict(self) -> dict[str, int]:
        """The numbers, for a log."""
        return {"examples": self.examples, "skipped": self.skipped, "truncated": self.truncated, **self.counts}


class BadExample(Exception):
    """A record that is no example of a task; says what was expected and received."""


class Task(ABC):
    """One kind of fine-tuning, from files to scores.

    Args:
        tokenizer: encodes the texts.
        max_length: the longest row, in pieces; by default the tokenizer's `model_max_length`. Longer text is cut and
            counted, where a task does not make windows of it.
        data: how files are read.

    Raises:
        InputError: no length is known, or the tokenizer cannot pad.
    """

    name: ClassVar[str]  # the head's key in `rembert.common.parameters.HEADS`
    format: ClassVar[str] = "jsonl"  # of a file whose name does not tell
    fields: ClassVar[Mapping[str, tuple[str, ...]]]  # the usual column names of each field
    label_keys: ClassVar[tuple[str, ...]] = ("labels",)  # the model's arguments that make a loss
    per_token: ClassVar[bool] = False  # whether the model's outputs have a row for each piece
    # Whether `outputs` takes, in place of the model's outputs, what the labelled pieces got: `log_probs`, `predicted`
    # and `expected`, each [b, k], with an `expected` of -100 where a row has fewer. Logits of a whole vocabulary for
    # every piece would fill the memory.
    scores_pieces: ClassVar[bool] = False
    metric: str  # the name of the score that says which of two models is better
    options: ClassVar[tuple[str, ...]] = ()  # the task's own arguments, each an attribute of its name

    def __init__(
        self, tokenizer: RemBertTokenizer, *, max_length: int | None = None, data: DataOptions | None = None
    ) -> None:
        limit: int = tokenizer.model_max_length if max_length is None else max_length
        if not isinstance(limit, int) or isinstance(limit, bool) or not 4 <= limit < 10**9:
            raise InputError(f"`max_length` must be an integer of at least 4. Received: `max_length={limit!r}`.")
        if tokenizer.pad_token_id is None:
            raise InputError("A tokenizer that can pad is needed. Received: one without `pad_token`.")
        self.tokenizer = tokenizer
        self.max_length = limit
        self.data = data or DataOptions()
        self.report = Report()
        unknown = sorted(set(self.data.columns) - {*self.fields, "id", "language"})
        if unknown:
            raise InputError(
                f"The columns of {self.name} may be named for {', '.join([*self.fields, 'id', 'language'])}. Received "
                f"also: {', '.join(unknown)}."
            )

    # ------------------------------------------------------------------ from files to examples

    def read(self, *paths: str | os.PathLike[str]) -> Iterator[Example]:
        """The examples of files, one after the other, as they are read.

        Raises:
            DataError: a file cannot be read or holds no example; or, unless `data.skip_bad_lines`, a line is bad: the
                message begins with `file:line` and says what was expected.
        """
        if not paths:
            raise InputError("There must be a file of examples. Received: none.")
        for path in paths:
            found, skipped = self.report.examples, self.report.skipped
            known: dict[str, int | None] = {}
            for record in read_records(path, format=self.data.format, unknown=self.format):
                try:
                    if isinstance(record, BadLine):
                        raise BadExample(record.reason)
                    yield self._checked(record, known)
                except BadExample as problem:
                    if not self.data.skip_bad_lines:
                        raise DataError(f"{record.place}: {problem}.") from None
                    self.report.skip(record.place, str(problem))
            if self.report.examples == found:
                raise DataError(
                    f"{name_of(path)}: at least one example was expected. Received: none{self.report.since(skipped)}."
                )

    def _checked(self, record: Record, known: dict[str, int | None]) -> Example:
        example = self.example(Fields(self, record))
        if example.id is not None:
            if example.id in known:
                at = f", as in line {known[example.id]}" if known[example.id] is not None else ""
                raise BadExample(f"each id may be there once. Received twice: {example.id!r}{at}")
            known[example.id] = record.place.line
        self.check(example)
        self.report.examples += 1
        return example

    def check(self, example: Example) -> None:  # noqa: B027 (most tasks have nothing to add)
        """Refuse an example that does not go with what `prepare` has settled, as an unknown label.

        Raises:
            BadExample: it does not.
        """

    @staticmethod
    def labelled(example: Example, label: Callable[[], Result]) -> Result:
        """The result of `label`, whose `BadExample` becomes a `DataError` that names the example's place."""
        try:
            return label()
        except BadExample as problem:
            raise DataError(f"{example.place}: {problem}.") from None

    @property
    def edges(self) -> tuple[int, int]:
        """The ids of `[CLS]` and `[SEP]`."""
        opening, closing = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        assert opening is not None  # a tokenizer has both, or is not made
        assert closing is not None
        return opening, closing

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's."""
        found = self.tokenizer.pad_token_id
        assert found is not None  # refused when the task was made
        return found

    @abstractmethod
    def example(self, fields: Fields) -> Example:
        """The example of one record.

        Raises:
            BadExample: the record is none.
        """

    # ------------------------------------------------------------------ what the model must know

    def prepare(  # noqa: B027 (some tasks have nothing to settle)
        self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None
    ) -> None:
        """Settle what the data decide, as the set of labels: found in `examples`, or taken from `config`.

        Call it before `features`. With `config`, that of a fine-tuned model, `examples` are not looked at.

        Raises:
            DataError: the examples' labels do not go together.
            InputError: the configuration is not one of this task.
        """

    def config_overrides(self) -> dict[str, Any]:
        """What this task sets in the model's configuration, once `prepare` has run."""
        return {}

    # ------------------------------------------------------------------ to the model

    def features(self, example: Example) -> list[Feature]:
        """The rows that an example becomes, unpadded; several where a long context is cut into windows.

        Raises:
            DataError: a label that the model does not have; names `file:line`.
        """
        return self.batch_features([example])[0]

    @abstractmethod
    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """`features` of several examples at once, which takes the tokenizer much less time for each."""

    def stream_features(self, examples: Iterable[Example]) -> Iterator[tuple[Example, list[Feature]]]:
        """Each example with its features, encoded a few hundred at a time as they come."""
        source = iter(examples)
        while batch := list(islice(source, _ENCODED_TOGETHER)):
            yield from zip(batch, self.batch_features(batch), strict=True)

    def training_features(self, examples: Iterable[Example]) -> Iterator[Feature]:
        """The rows to train on. They need not belong to one example each: language models join short texts."""
        for features in self._in_batches(examples, self.batch_features):
            yield from features

    @staticmethod
    def _in_batches(
        examples: Iterable[Example], encode: Callable[[Sequence[Example]], list[Result]]
    ) -> Iterator[Result]:
        source = iter(examples)
        while batch := list(islice(source, _ENCODED_TOGETHER)):
            yield from encode(batch)

    @abstractmethod
    def collate(self, features: Sequence[Feature], rng: np.random.Generator | None = None) -> Batch:
        """A padded batch of arrays under the names of the model's arguments; labels where every feature has them.

        Args:
            features: rows of any lengths.
            rng: draws what is drawn anew for each batch (masks); a function of the features alone where left out.
        """

    @staticmethod
    def length(feature: Feature) -> int:
        """How many pieces a feature has, for batches of equal length."""
        return len(feature["input_ids"])

    # ------------------------------------------------------------------ from the model

    def outputs(self, features: Sequence[Feature], results: Mapping[str, np.ndarray]) -> list[Output]:
        """What `score` and `decode` need of a batch's results: a row for each feature, cut to its real length."""
        rows = []
        for number, feature in enumerate(features):
            row = {name: array[number] for name, array in results.items() if name != "loss"}
            length = self.length(feature)
            rows.append({name: value[:length] if self.per_token else value for name, value in row.items()})
        return rows

    def score(self, examples: Iterable[Example], outputs: Iterable[Sequence[Output]]) -> dict[str, float]:
        """Metrics by name, of the examples that have labels; with `language` in them, those of each language too.

        Args:
            examples: in any order.
            outputs: for each example, those of its features.

        Raises:
            DataError: no example has a label, or one has a label that the model does not know.
        """
        return self.score_pairs(zip(examples, outputs, strict=True))

    def score_pairs(self, pairs: Iterable[tuple[Example, Sequence[Output]]]) -> dict[str, float]:
        """`score` of examples that come with their outputs, one after the other, as prediction gives them."""
        whole = self.scorer()
        by_language: dict[str, Scorer] = {}
        count = 0
        for example, found in pairs:
            if not self.has_label(example):
                continue
            count += 1
            whole.add(example, found)
            if example.language is not None:
                if example.language not in by_language:
                    by_language[example.language] = self.scorer()
                by_language[example.language].add(example, found)
        if not count:
            raise DataError("Examples with labels are needed for scores. Received: none.")
        scores = whole.result()
        if len(by_language) > 1:
            for language, scorer in sorted(by_language.items()):
                scores |= {f"{name}_{language}": value for name, value in scorer.result().items()}
        return scores

    @abstractmethod
    def scorer(self) -> Scorer:
        """A new counter of what the task's metrics are made of."""

    @abstractmethod
    def has_label(self, example: Example) -> bool:
        """Whether an example says what is right."""

    @abstractmethod
    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        """The prediction for one example, of strings and numbers as JSON has them; `id` first where it has one."""


class Scorer(ABC):
    """Gathers examples and the model's outputs for them, one at a time, and gives the metrics."""

    @abstractmethod
    def add(self, example: Any, outputs: Sequence[Output]) -> None:
        """Count one example with a label."""

    @abstractmethod
    def result(self) -> dict[str, float]:
        """The metrics by name."""


class Fields:
    """The fields of a record under the task's names, each checked as it is read."""

    def __init__(self, task: Task, record: Record) -> None:
        self._task = task
        self._fields = record.fields
        self.place = record.place
        self.named = task.data.columns  # by the caller

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __getitem__(self, column: str) -> Any:
        return self._fields[column]

    def column(self, name: str) -> str | None:
        """The record's own name of a field, or None where it has none of its names."""
        given = self._task.data.columns.get(name)
        if given is not None:
            return given if given in self._fields else None
        usual = {"id": ("id", "idx", "index_id", "guid"), "language": ("language", "lang"), **self._task.fields}[name]
        return next((key for key in usual if key in self._fields), None)

    def value(self, name: str) -> Any:
        """A field's value.

        Raises:
            BadExample: the record has no such field.
        """
        column = self.column(name)
        if column is None:
            given = self._task.data.columns.get(name)
            wanted = repr(given) if given is not None else " or ".join(map(repr, self._task.fields[name]))
            raise BadExample(f"a column {wanted} was expected for the {name}. Received: {', '.join(self._fields)}")
        return self._fields[column]

    def optional(self, name: str) -> Any:
        """A field's value, or None; a column that was named must be there."""
        missing = self.column(name) is None and name not in self._task.data.columns
        return None if missing else self.value(name)

    def text(self, name: str) -> str:
        """A field that is a string with something in it.

        Raises:
            BadExample: it is missing, is no string, is empty, or holds half of a surrogate pair.
        """
        return checked_text(self.value(name), repr(self.column(name)))

    def common(self) -> tuple[Place, str | None, str | None]:
        """Place, id and language, with which every example begins."""
        named = {name: self._plain(name) for name in ("id", "language")}
        return self.place, named["id"], named["language"] or self._task.data.language

    def _plain(self, name: str) -> str | None:
        column = self.column(name)
        value = None if column is None else self._fields[column]
        if value is None and name in self._task.data.columns:
            raise BadExample(f"a column {self._task.data.columns[name]!r} was expected for the {name}")
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadExample(f"{column!r} must be a string or an integer. Received: {value!r:.60}")
        return str(value)


def checked_text(value: Any, name: str) -> str:
    """A string with something in it that can be encoded.

    Raises:
        BadExample: it is not.
    """
    if not isinstance(value, str):
        raise BadExample(f"{name} must be a text. Received: {type(value).__name__} {value!r:.60}")
    if not value.strip():
        raise BadExample(f"{name} must be a text. Received: an empty one")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadExample(f"{name} must be Unicode. Received: half of a surrogate pair in {value!r:.60}") from None
    return value


def identified(example: Example, **found: Any) -> dict[str, Any]:
    """A prediction with the example's id before it, where it has one."""
    return found if example.id is None else {"id": example.id, **found}
