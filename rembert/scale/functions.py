"""Classes that run a model on batches: for `map_batches` of Ray Data, `datasets.map` and Spark's `mapInPandas`.

An object holds its settings only, so it can be pickled. The model is loaded by the first call in a process, and shared
by all copies of the object there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import numpy as np

from rembert.bleurt.files import Segment, SegmentFiles, segment_of
from rembert.bleurt.score_files import ScoredSegment
from rembert.bleurt.scorer import AGGREGATES, RemBertScorer
from rembert.bleurt.writing import found_scores, scored_record
from rembert.common.arguments import check_argument, integer, one_of
from rembert.common.errors import DataError
from rembert.common.parameters import BASE_MODEL
from rembert.common.text_files import name_of
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.scale.base import ERROR, BatchFunction, Input, Item, Row
from rembert.tasks import DataOptions
from rembert.tasks.backends import find_device, load_trained, running
from rembert.tasks.data import Report
from rembert.tasks.embedding import Texts, embed
from rembert.tasks.examples import Example, SkippedExample
from rembert.tasks.predicting import load_task, predict, row_length, task_runner
from rembert.tasks.reading import BadLine, Record
from rembert.tasks.reading_examples import columns_of as task_columns
from rembert.tasks.reading_examples import read_example
from rembert.tasks.registry import task_class
from rembert.tasks.sources import Source


class _Loaded(NamedTuple):
    """A task and its model, ready to run for as long as the process has them."""

    task: Any
    model: Any
    run: Any
    context: ExitStack

    @classmethod
    def entering(cls, task: Any, model: Any, context: AbstractContextManager[Any]) -> _Loaded:
        stack = ExitStack()
        return cls(task, model, stack.enter_context(context), stack)


class Predict(BatchFunction):
    """Predictions of a fine-tuned checkpoint, as `rembert predict` writes them: a column for each key.

    Args:
        task: a key of `TASKS`.
        checkpoint: a fine-tuned checkpoint, with its tokenizer.
        framework: 'pt' or 'tf'.
        batch_size: the maximum number of rows that the model takes at once.
        max_tokens: the maximum of these rows times the longest row's length.
        max_length: the maximum length of a row in tokens.
        data: which columns are read, among others; labels are not.
        device: of PyTorch; by default a GPU if there is one.
        keep: columns of the input that the output has, too.
        **options: the task's own.

    Raises:
        InputError: an argument is not allowed.

    Example:
        >>> predict = Predict("masked-lm", "google/rembert", batch_size=16, keep=["page"])
        >>> batch = {"page": np.array([4, 5]), "text": np.array(["The ferry leaves.", "It is late."])}
        >>> list(predict(batch))
        ['page', 'masked_log_likelihood', 'tokens']
    """

    def __init__(
        self, task: str, checkpoint: str | os.PathLike[str], framework: str = "pt", *, batch_size: int = 32,
        max_tokens: int | None = None, max_length: int | None = None, data: DataOptions | None = None,
        device: str | None = None, keep: Iterable[str] = (), **options: Any,
    ) -> None:  # fmt: skip
        task_class(task)  # raises for a name that is not a task
        check_argument("batch_size", batch_size, integer(at_least=1))
        self.data = data or DataOptions()
        super().__init__(checkpoint, framework, device, keep, self.data.skip_bad_lines)
        self.task = task
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.max_length = max_length
        self.options = options

    def load(self) -> _Loaded:
        """The task, its model, and what runs it."""
        task, model = load_task(
            self.task, self.checkpoint, self.framework,
            max_length=self.max_length, data=self.data, device=self.device, **self.options,
        )  # fmt: skip
        return _Loaded.entering(task, model, task_runner(task, model))

    def read(self, source: Input) -> Iterator[Item]:
        """The records of a file."""
        return _records(source, self.data, task_class(self.task).format)

    def rows(self, records: Sequence[Record | BadLine]) -> list[Row]:
        """The prediction for each record."""
        task, model, run, _ = self.loaded()
        examples = _examples(task, records)
        return list(
            predict(task, model, examples, batch_size=self.batch_size, max_tokens=self.max_tokens, run=run)
        )  # fmt: skip

    def report(self) -> Report:
        """What the task has counted since the last call."""
        return _taken_report(self.loaded().task)

    def _options(self) -> DataOptions:
        return self.data


class Embed(BatchFunction):
    """Vectors of texts, as `rembert embed` writes them, in the column `embedding`: [e] float32.

    Args:
        checkpoint: any checkpoint.
        framework: 'pt' or 'tf'.
        layer: the hidden states to take, 0 for the encoder's input, -1 for the last layer.
        normalize: divide each vector by its length.
        batch_size: the maximum number of rows that the model takes at once.
        max_length: the maximum length of a row in tokens.
        data: which column is the text, among others.
        device: of PyTorch; by default a GPU if there is one.
        keep: columns of the input that the output has, too.

    Raises:
        InputError: an argument is not allowed.

    Example:
        >>> embed = Embed("google/rembert", normalize=True)
        >>> embed({"text": np.array(["The ferry leaves.", "It is late."])})["embedding"].shape
        (2, 16)
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str], framework: str = "pt", *, layer: int = -1, normalize: bool = False,
        batch_size: int = 32, max_length: int | None = None, data: DataOptions | None = None,
        device: str | None = None, keep: Iterable[str] = (),
    ) -> None:  # fmt: skip
        check_argument("batch_size", batch_size, integer(at_least=1))
        self.data = data or DataOptions()
        super().__init__(checkpoint, framework, device, keep, self.data.skip_bad_lines)
        self.layer = layer
        self.normalize = normalize
        self.batch_size = batch_size
        self.max_length = max_length

    def load(self) -> _Loaded:
        """What reads the texts, the model, and what runs it."""
        device = find_device(self.framework, self.device)
        tokenizer = RemBertTokenizerFast.from_pretrained(self.checkpoint)
        model = load_trained(self.framework, BASE_MODEL, self.checkpoint, device=device, add_pooling_layer=False)
        task = Texts(tokenizer, max_length=row_length(model.config, self.max_length), data=self.data)
        return _Loaded.entering(task, model, running(model))

    def read(self, source: Input) -> Iterator[Item]:
        """The records of a file."""
        return _records(source, self.data, Texts.format)

    def rows(self, records: Sequence[Record | BadLine]) -> list[Row]:
        """The vector for each record, with its id; NaN for one that is skipped."""
        task, model, runner, _ = self.loaded()
        examples = list(_examples(task, records))
        vectors = embed(
            task, model, examples, batch_size=self.batch_size, layer=self.layer, normalize=self.normalize,
            runner=runner,
        )  # fmt: skip

        def start(example: Example) -> Row:
            if isinstance(example, SkippedExample):
                return {ERROR: f"{example.location}: {example.reason}."}
            return {} if example.id is None else {"id": example.id}

        return [{**start(each), "embedding": vector} for each, vector in zip(examples, vectors, strict=True)]

    def report(self) -> Report:
        """What the task has counted since the last call."""
        return _taken_report(self.loaded().task)

    def _options(self) -> DataOptions:
        return self.data


class Score(BatchFunction):
    """Scores of candidates against references with a metric of the BLEURT-20 family, as `rembert score` computes them.

    The input has a column `candidate` and a column `reference`, or several (`reference_2`, …), or one of lists
    (`references`). The output has `score`, and `score_cut`, the number of references for which texts were truncated;
    with several references also `score_best`, `score_mean` and `score_all`.

    Args:
        checkpoint: a BLEURT directory or ZIP archive, or a converted one.
        framework: 'pt' or 'tf'.
        aggregate: with several references, "best" takes the highest score, "mean" the mean.
        score_field: the name of the score.
        many: whether there are several references; by default, whether a row of the batch has them.
        device: of PyTorch; by default a GPU if there is one.
        dtype: of the weights and the computation; by default float32.
        max_length: the maximum length of an input in tokens; by default the checkpoint's own.
        batch_tokens: the approximate number of tokens that the model takes at once.
        keep: columns of the input that the output has, too.
        skip_bad_rows: whether a malformed row gets its `error` instead of raising `DataError`.

    Raises:
        InputError: an argument is not allowed.

    Example:
        >>> score = Score("BLEURT-20")
        >>> found = score({"candidate": np.array(["a bird sings"]), "reference": np.array(["a bird chirps"])})
        >>> list(found), found["score"].shape
        (['score', 'score_cut'], (1,))
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str], framework: str = "pt", *, aggregate: str = "best",
        score_field: str = "score", many: bool | None = None, device: str | None = None, dtype: str | None = None,
        max_length: int | None = None, batch_tokens: int | None = None, keep: Iterable[str] = (),
        skip_bad_rows: bool = False,
    ) -> None:  # fmt: skip
        check_argument("aggregate", aggregate, one_of(AGGREGATES))
        super().__init__(checkpoint, framework, device, keep, skip_bad_rows)
        self.aggregate = aggregate
        self.score_field = score_field
        self.many = many
        self.dtype = dtype
        self.max_length = max_length
        self.batch_tokens = batch_tokens

    def load(self) -> RemBertScorer:
        """The scorer."""
        return RemBertScorer.from_pretrained(
            self.checkpoint, framework=self.framework, device=self.device, dtype=self.dtype,
            max_length=self.max_length, batch_tokens=self.batch_tokens,
        )  # fmt: skip

    def read(self, source: Input) -> Iterator[Item]:
        """The segments of a file of candidates, with those of its files of references."""
        candidates, *references = source.paths
        return SegmentFiles(candidates, references, format=source.format).segments()

    def rows(self, records: Sequence[Item]) -> list[Row]:
        """The scores of each record or segment."""
        scored = self._scored(records)
        many = self._is_many(scored)

        def row(each: ScoredSegment | BadLine) -> Row:
            if isinstance(each, BadLine):
                return {ERROR: _wrong(each), self.score_field: np.nan, f"{self.score_field}_cut": 0}
            found = found_scores(each, column=self.score_field, aggregate=self.aggregate, many=many)
            return {**found, f"{self.score_field}_cut": each.cut}

        return [row(each) for each in scored]

    def file_rows(self, items: Sequence[Item]) -> list[Row]:
        """Each segment's own record with its scores."""
        scored = self._scored(items)
        many = self._is_many(scored)
        return [
            {ERROR: _wrong(each)}
            if isinstance(each, BadLine)
            else scored_record(each, column=self.score_field, aggregate=self.aggregate, many=many)
            for each in scored
        ]

    def _scored(self, items: Sequence[Item]) -> list[ScoredSegment | BadLine]:
        segments = [segment_of(item) if isinstance(item, Record) else item for item in items]
        bad = next((each for each in segments if isinstance(each, BadLine)), None)
        if bad is not None and not self.skip_bad_rows:
            raise DataError(_wrong(bad))
        whole = [each for each in segments if isinstance(each, Segment)]
        scores = self.loaded().stream((each.candidate, one) for each in whole for one in each.references)
        return [
            each if isinstance(each, BadLine) else ScoredSegment(each, tuple(next(scores) for _ in each.references))
            for each in segments
        ]

    def _is_many(self, scored: Iterable[ScoredSegment | BadLine]) -> bool:
        if self.many is not None:
            return self.many
        return any(len(each.scores) > 1 for each in scored if isinstance(each, ScoredSegment))


def _records(source: Input, data: DataOptions, unknown: str) -> Iterator[Record | BadLine]:
    (path,) = source.paths
    return Source(name_of(path), path).records(data, unknown)


def _examples(task: Any, records: Iterable[Record | BadLine]) -> Iterator[Example]:
    columns = task_columns(task, labels=False)
    for record in records:
        example = read_example(task, record, columns)
        if not isinstance(example, SkippedExample):
            task.report.examples += 1
        yield example


def _taken_report(task: Any) -> Report:
    found: Report = task.report
    task.report = Report()
    return found


def _wrong(line: BadLine) -> str:
    return f"{line.location}: {line.reason}."
