"""Base of all tasks: reading with all checks, and the interface for training and prediction.

The steps are `read` → `prepare` (once) → `features` → `collate` → the model → `score` or `decode`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np

from rembert.common.arguments import check_argument, integer
from rembert.common.config import RemBertConfig
from rembert.common.errors import DataError, InputError
from rembert.common.tokenization import RemBertTokenizer
from rembert.tasks.columns import COMMON_FIELDS
from rembert.tasks.data import DataOptions, Report
from rembert.tasks.declarations import Option, Score
from rembert.tasks.examples import Example, SkippedExample
from rembert.tasks.fields import BadExample, Fields
from rembert.tasks.labels import counted_labels, look_alikes
from rembert.tasks.reading_examples import read_examples
from rembert.tasks.scoring import Output, Scorer
from rembert.tasks.sources import Data

Feature = dict[str, Any]
"""The model's inputs and labels for one row, unpadded, by name; other keys are for `Task.outputs`."""
Batch = dict[str, np.ndarray]
Result = TypeVar("Result")

_ENCODED_TOGETHER = 256  # examples; enough that the tokenizer works at full speed
_LENGTHS = integer(at_least=4, at_most=10**9 - 1)  # transformers writes 10**30 for "no limit"
_LOSS = Score("loss", lower_is_better=True)


class Task(ABC):
    """One kind of fine-tuning, from files to scores.

    The class attributes of a subclass declare the task. Its options are attributes of an instance, too.

    Args:
        tokenizer: encodes the texts.
        max_length: the maximum length of a row in tokens; by default the tokenizer's `model_max_length`. Longer texts
            are truncated and counted, unless the task splits them into several rows.
        data: how files are read.
        **options: the task's own; see `options`.

    Attributes:
        name: the task's name in commands.
        head: the key in `rembert.common.parameters.HEADS` of the head that is trained. Tasks may share a head.
        recipe: the fields of `Recipe` in which this task's defaults differ.
        options: the task's own arguments.
        scores: the scores it may return, beside `loss`.
        metric: the name of the score that decides which of two models is better.
        labels: the names of the classes, by class id; known after `prepare`.
        known_labels: those of the checkpoint that training starts from; `prepare` keeps them if they are enough.
        report: what was read, skipped and truncated.

    Raises:
        InputError: no maximum length is known, the tokenizer has no padding token, or an option is not allowed.
        TypeError: the task does not have an option of this name.

    Example:
        >>> from pathlib import Path
        >>> from rembert.tasks import get_task
        >>> tokenizer = RemBertTokenizer.from_pretrained("google/rembert")
        >>> task = get_task("sequence-classification", tokenizer, max_length=32)
        >>> _ = Path("texts.tsv").write_text("text\\tlabel\\nBread and soup.\\tfood\\nIt rains.\\tsky\\n")
        >>> examples = list(task.read("texts.tsv"))
        >>> task.prepare(examples)
        >>> task.labels
        ['food', 'sky']
        >>> task.collate(task.features(examples[1]))["labels"]
        array([1])
    """

    name: ClassVar[str]
    head: ClassVar[str]
    recipe: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[tuple[Option, ...]] = ()
    scores: ClassVar[tuple[Score, ...]]
    metric: str
    format: ClassVar[str] = "jsonl"  # of a file whose name does not determine it
    fields: ClassVar[Mapping[str, tuple[str, ...]]]  # the usual column names of each field
    layouts: ClassVar[tuple[Mapping[str, str], ...]] = ()  # columns by field that belong together, as both of a pair
    label_fields: ClassVar[tuple[str, ...]] = ("label",)  # those that prediction does not read
    per_token: ClassVar[bool] = False  # whether the model's outputs have a row for each token
    # Whether `outputs` takes the labelled tokens' scores (see `rembert.tasks.label_scores`) instead of the model's
    # outputs: the logits of a whole vocabulary for every token would exceed the memory.
    takes_label_scores: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: RemBertTokenizer,
        *,
        max_length: int | None = None,
        data: DataOptions | None = None,
        **options: Any,
    ) -> None:
        limit: int = tokenizer.model_max_length if max_length is None else max_length
        check_argument("max_length", limit, _LENGTHS)
        if tokenizer.pad_token_id is None:
            raise InputError("`tokenizer` must have a padding token. Received: one without `pad_token`.")
        self.tokenizer = tokenizer
        self.max_length = limit
        self.data = data or DataOptions()
        self.report = Report()
        self.labels: list[str] = []
        self.known_labels: list[str] = []
        unknown = sorted(set(self.data.columns) - {*self.fields, *COMMON_FIELDS})
        if unknown:
            raise InputError(
                f"`columns` must be for the fields of {self.name}: {', '.join([*self.fields, *COMMON_FIELDS])}. "
                f"Received: {', '.join(unknown)}."
            )
        self._set_options(options)

    def _set_options(self, given: dict[str, Any]) -> None:
        known = [option.name for option in self.options]
        if unknown := sorted(set(given) - set(known)):
            raise TypeError(
                f"{self.name} got an unexpected option: {', '.join(unknown)}. It has {', '.join(known) or 'none'}."
            )
        for option in self.options:
            value = given.get(option.name, option.default)
            option.check(value)
            setattr(self, option.name, value)

    @classmethod
    def score_of(cls, name: str) -> Score | None:
        """The declared score with this name or a variant of it, or None."""
        return next((score for score in (*cls.scores, _LOSS) if score.covers(name)), None)

    # ------------------------------------------------------------------ from files to examples

    def read(self, *data: Data, labels: bool = True, keep_skipped: bool = False) -> Iterator[Example]:
        """The examples of files or of data in memory, one after the other, as they are read.

        Args:
            *data: files, directories of files, or patterns such as `data/*.tsv`; `-` is the standard input. Or records
                in memory: an iterable of mappings such as a list or a generator of dictionaries, a pandas frame, or a
                `Dataset` of Hugging Face, whose names of classes are used.
            labels: whether to read labels, which prediction does not need: without it, none is checked or refused.
            keep_skipped: whether a malformed line becomes a `SkippedExample`, if `data.skip_bad_lines`.

        Raises:
            InputError: nothing is given, or there is no such format.
            DataError: a file cannot be read or holds no example; or, unless `data.skip_bad_lines`, a line is
                malformed. The message begins with `file:line` and says what was expected.
        """
        return read_examples(self, data, labels=labels, keep_skipped=keep_skipped)

    def classes(self, example: Example) -> Iterable[str]:
        """The names of the classes or tags that an example is labelled with."""
        return ()

    def tell_classes(self, use: str, counts: Mapping[str, int]) -> None:
        """Say how often each class occurs, and warn of names that look alike.

        Args:
            use: of the examples, such as 'training'.
            counts: of each class.
        """
        if not counts:
            return
        self.report.tell(f"{use}: {len(counts)} classes: {counted_labels(counts)}")
        for group in look_alikes(counts):
            names = " and ".join(f"{name!r} ({counts[name]})" for name in group)
            self.report.warn(f"{use}: {names} look alike, but are different classes.")

    @abstractmethod
    def example(self, fields: Fields) -> Example:
        """The example of one record.

        Raises:
            BadExample: the record is not a valid example.
        """

    def check(self, example: Example) -> None:  # noqa: B027 (most tasks have nothing to add)
        """Refuse an example that contradicts what `prepare` has found, such as an unknown label.

        Raises:
            BadExample: it does.
        """

    @staticmethod
    def labelled(example: Example, label: Callable[[], Result]) -> Result:
        """The result of `label`; its `BadExample` becomes a `DataError` with the example's location."""
        try:
            return label()
        except BadExample as problem:
            raise DataError(f"{example.location}: {problem}.") from None

    # ------------------------------------------------------------------ what the model must know

    def prepare(  # noqa: B027 (some tasks have nothing to prepare)
        self, examples: Iterable[Example] = (), *, config: RemBertConfig | None = None
    ) -> None:
        """Determine the set of labels and similar settings from `examples`, or take them from `config`.

        Call it before `features`. With `config`, that of a fine-tuned model, `examples` are not read.

        Raises:
            DataError: the labels of the examples contradict each other.
            InputError: the configuration does not belong to this task.
        """

    def config_overrides(self) -> dict[str, Any]:
        """The keys of the model's configuration that this task sets, after `prepare`."""
        return {}

    # ------------------------------------------------------------------ to the model

    @property
    def edges(self) -> tuple[int, int]:
        """The ids of `[CLS]` and `[SEP]`."""
        opening, closing = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        assert opening is not None  # every tokenizer has both
        assert closing is not None
        return opening, closing

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's padding token."""
        found = self.tokenizer.pad_token_id
        assert found is not None  # checked in `__init__`
        return found

    def features(self, example: Example) -> list[Feature]:
        """The unpadded rows of an example; several if a long context is split into windows.

        Raises:
            DataError: the model does not have a label; names `file:line`.
        """
        return self.batch_features([example])[0]

    @abstractmethod
    def batch_features(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """`features` of several examples at once, which is much faster per example."""

    def stream_features(self, examples: Iterable[Example]) -> Iterator[tuple[Example, list[Feature]]]:
        """Each example with its features; examples are encoded a few hundred at a time as they come."""
        source = iter(examples)
        while batch := list(islice(source, _ENCODED_TOGETHER)):
            features = iter(self.batch_features([each for each in batch if not isinstance(each, SkippedExample)]))
            yield from ((each, [] if isinstance(each, SkippedExample) else next(features)) for each in batch)

    def training_features(self, examples: Iterable[Example]) -> Iterator[Feature]:
        """The rows to train on. A row may span examples: language models join short texts."""
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
        """A padded batch of arrays by the names of the model's arguments, with labels if every feature has them.

        Args:
            features: rows of any lengths.
            rng: for random choices in each batch, such as masks; without it, the batch depends on the features only.
        """

    @staticmethod
    def length(feature: Feature) -> int:
        """The number of tokens of a feature, for batches of similar lengths."""
        return len(feature["input_ids"])

    # ------------------------------------------------------------------ from the model

    def outputs(self, features: Sequence[Feature], results: Mapping[str, np.ndarray]) -> list[Output]:
        """The results of a batch that `score` and `decode` need: one row per feature, without padding."""
        rows = []
        for number, feature in enumerate(features):
            row = {name: array[number] for name, array in results.items() if name != "loss"}
            length = self.length(feature)
            rows.append({name: value[:length] if self.per_token else value for name, value in row.items()})
        return rows

    def score(self, examples: Iterable[Example], outputs: Iterable[Sequence[Output]]) -> dict[str, float]:
        """The scores, by name, over the examples that have labels; also per language, with their means
        (`accuracy_mean`), if they have several.

        Args:
            examples: in any order.
            outputs: for each example, those of its features.

        Raises:
            DataError: no example has a label, or the model does not have an example's label.
        """
        return self.score_pairs(zip(examples, outputs, strict=True))

    def score_pairs(self, pairs: Iterable[tuple[Example, Sequence[Output]]]) -> dict[str, float]:
        """`score` of a stream of examples with their outputs, as prediction yields them."""
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
            raise DataError("`examples` must have labels to be scored. Received: none with a label.")
        scores = whole.result()
        if len(by_language) > 1:
            each = {language: scorer.result() for language, scorer in sorted(by_language.items())}
            shared = [name for name in scores if all(name in own for own in each.values())]
            for language, own in each.items():
                scores |= {f"{name}_{language}": value for name, value in own.items()}
            scores |= {f"{name}_mean": sum(own[name] for own in each.values()) / len(each) for name in shared}
        return scores

    @abstractmethod
    def scorer(self) -> Scorer:
        """A new scorer, with nothing counted."""

    @abstractmethod
    def has_label(self, example: Example) -> bool:
        """Whether an example has a label."""

    def outcomes(self, example: Example, prediction: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The expected and the predicted class of a labelled example; several where it has several.

        Args:
            example: with a label.
            prediction: from `decode`.
        """
        return []

    @property
    def has_one_class(self) -> bool:
        """Whether one of several classes is right for an example, or a token of it: `judgements` then has logits."""
        return False

    def judgements(self, example: Example, outputs: Sequence[Output]) -> tuple[np.ndarray, np.ndarray]:
        """The logits [n, classes] of a labelled example and its class ids [n].

        Args:
            example: with a label.
            outputs: of its features.
        """
        raise NotImplementedError

    def is_right(self, example: Example, prediction: Mapping[str, Any]) -> bool:
        """Whether a prediction is that of the example's label."""
        return all(expected == predicted for expected, predicted in self.outcomes(example, prediction))

    @abstractmethod
    def decode(self, example: Example, outputs: Sequence[Output]) -> dict[str, Any]:
        """The prediction for one example, as JSON-compatible values; `id` comes first if the example has one."""


def identified(example: Example, **found: Any) -> dict[str, Any]:
    """A prediction, preceded by the example's id if it has one."""
    return found if example.id is None else {"id": example.id, **found}
