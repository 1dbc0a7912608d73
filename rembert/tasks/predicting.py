"""A model of either framework over examples: batches of similar lengths, results in the order of the examples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np

from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.tasks.backends import Arrays, find_device, load_trained, running
from rembert.tasks.batching import in_sorted_batches, without_first
from rembert.tasks.data import DataOptions
from rembert.tasks.examples import Example, SkippedExample
from rembert.tasks.label_scores import label_scores
from rembert.tasks.registry import task_class
from rembert.tasks.scoring import Output
from rembert.tasks.sources import Data, is_path, listed
from rembert.tasks.task import Feature, Task

# From a collated batch to the argument of `Task.outputs`.
Run = Callable[[Mapping[str, np.ndarray]], Arrays]
Item = TypeVar("Item")


def load_task(
    name: str,
    path: str | os.PathLike[str],
    framework: str = "pt",
    *,
    max_length: int | None = None,
    data: DataOptions | None = None,
    device: str | None = None,
    **options: Any,
) -> tuple[Task, Any]:
    """A fine-tuned checkpoint as a prepared task and a model, for `evaluate` and `predict`.

    Args:
        name: a key of `TASKS`.
        path: the checkpoint, with its tokenizer.
        framework: 'pt' or 'tf'.
        max_length: the maximum length of a row in tokens; by default the model's `max_position_embeddings`.
        data: how files are read.
        device: of PyTorch; by default a GPU if there is one.
        **options: the task's own.

    Raises:
        CheckpointError: the checkpoint does not fit, or was not trained for the task.
        InputError: an argument is not allowed.
        MissingDependencyError: the framework is not installed.

    Example:
        >>> task, model = load_task("masked-lm", "google/rembert", "pt", every_token=True)
        >>> task.max_length == model.config.max_position_embeddings
        True
    """
    kind = task_class(name)
    found = find_device(framework, device)
    tokenizer = RemBertTokenizerFast.from_pretrained(path)
    model = load_trained(framework, kind.head, path, device=found)
    task = kind(tokenizer, max_length=row_length(model.config, max_length), data=data, **options)
    task.prepare(config=model.config)
    return task, model


def row_length(config: RemBertConfig, max_length: int | None) -> int:
    """The maximum length of a row in tokens: `max_length`, or else the model's number of positions.

    Raises:
        InputError: the model has fewer positions than `max_length`.
    """
    limit = config.max_position_embeddings
    if max_length is not None and max_length > limit:
        raise InputError(
            f"`max_length` must not exceed the model's {limit} positions. Received: `max_length={max_length}`."
        )
    return limit if max_length is None else max_length


def predict_outputs(
    task: Task,
    model: Any,
    examples: Iterable[Example],
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    run: Run | None = None,
    skip: int = 0,
) -> Iterator[tuple[Example, list[Output]]]:
    """Each example with the outputs of its features, in order; `Task.score` and `Task.decode` take them.

    Examples stream: those of about fifty batches are in memory at once.

    Args:
        task: a prepared task.
        model: of `rembert.pt` or `rembert.tf`, with the task's head. Its own mode does not change.
        examples: from `task.read`.
        batch_size: the maximum number of rows in a batch.
        max_tokens: the maximum of rows times the longest row's length.
        run: the result of `task_runner` for this model, to reuse TensorFlow's graph.
        skip: the number of examples at the start that are read and encoded, but not run.

    Raises:
        InputError: the model is of neither framework, a size is less than 1, or there are fewer than `skip` examples.
        DataError: an example cannot be used; names its location.
    """
    with task_runner(task, model) if run is None else nullcontext(run) as run_batch:

        def outputs(rows: list[tuple[int, Feature]]) -> list[Output]:
            features = [feature for _, feature in rows]
            return task.outputs(features, run_batch(task.collate(features)))

        encoded = without_first(skip, task.stream_features(examples))
        yield from _by_example(task, encoded, outputs, batch_size, max_tokens)


@contextmanager
def task_runner(task: Task, model: Any) -> Iterator[Run]:
    """A function from a batch to the argument of `task.outputs`. TensorFlow builds one graph for all its calls.

    Raises:
        InputError: the model is of neither framework.
    """
    with running(model) as runner:
        if task.takes_label_scores:
            yield lambda batch: label_scores(runner, model.config, batch)
        else:
            yield lambda batch: runner.outputs(model_inputs(batch))


def model_inputs(batch: Mapping[str, np.ndarray]) -> Arrays:
    """The model's inputs in a batch, without the labels: prediction needs no loss."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def evaluate(
    task: Task,
    model: Any,
    examples: Iterable[Example] | Data,
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    run: Run | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, float]:
    """The task's scores of a model, by name.

    Args:
        task: a prepared task.
        model: of `rembert.pt` or `rembert.tf`, with the task's head. Its own mode does not change.
        examples: from `task.read`, or what it takes: a path, several, or records in memory. Those without a label are
            ignored.
        batch_size: the maximum number of rows in a batch.
        max_tokens: the maximum of rows times the longest row's length.
        run: the result of `task_runner` for this model, to reuse TensorFlow's graph.
        progress: called with the number of examples done, after each.

    Raises:
        InputError: the model is of neither framework, or a size is less than 1.
        DataError: no example has a label, or an example cannot be used; names its location.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("texts.txt").write_text("The ferry leaves at nine.")
        >>> task, model = load_task("masked-lm", "google/rembert")
        >>> list(evaluate(task, model, task.read("texts.txt")))
        ['loss', 'perplexity', 'masked_accuracy']
    """
    read = read_or_keep(task, examples, labels=True)
    pairs = predict_outputs(task, model, read, batch_size=batch_size, max_tokens=max_tokens, run=run)
    return task.score_pairs(reporting(pairs, progress))


def reporting(items: Iterable[Item], progress: Callable[[int], object] | None) -> Iterator[Item]:
    """The items; `progress` is called with their number so far, after each."""
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(done)


def predict(
    task: Task,
    model: Any,
    examples: Iterable[Example] | Data,
    *,
    batch_size: int = 32,
    max_tokens: int | None = None,
    run: Run | None = None,
    skip: int = 0,
) -> Iterator[dict[str, Any]]:
    """A prediction for each example, in order, as JSON-compatible values; for a malformed line that was skipped, an
    object with its `error`.

    Examples stream: those of about fifty batches are in memory at once.

    Args:
        task: a prepared task.
        model: of `rembert.pt` or `rembert.tf`, with the task's head. Its own mode does not change.
        examples: from `task.read`, or what it takes: a path, several, or records in memory; labels are then not read.
        batch_size: the maximum number of rows in a batch.
        max_tokens: the maximum of rows times the longest row's length.
        run: the result of `task_runner` for this model, to reuse TensorFlow's graph.
        skip: the number of examples at the start that are read and encoded, but not run.

    Raises:
        InputError: the model is of neither framework, a size is less than 1, or there are fewer than `skip` examples.
        DataError: an example cannot be used; names its location.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("texts.txt").write_text("The ferry leaves at nine.")
        >>> task, model = load_task("masked-lm", "google/rembert")
        >>> for prediction in predict(task, model, task.read("texts.txt")):
        ...     print(prediction)
        {'masked_log_likelihood': -..., 'tokens': ...}
    """
    read = read_or_keep(task, examples, labels=False)
    pairs = predict_outputs(task, model, read, batch_size=batch_size, max_tokens=max_tokens, run=run, skip=skip)
    for example, outputs in pairs:
        if isinstance(example, SkippedExample):
            yield {"error": f"{example.location}: {example.reason}."}
        else:
            yield task.decode(example, outputs)


def read_or_keep(task: Task, data: Iterable[Example] | Data, *, labels: bool) -> Iterable[Example]:
    """Examples as they are; anything else is read by the task."""
    if is_path(data) or not isinstance(data, Iterable) or isinstance(data, Mapping) or hasattr(data, "features"):
        return task.read(data, labels=labels, keep_skipped=not labels)
    if hasattr(data, "iterrows") or is_path(next(iter(data), None) if isinstance(data, list | tuple) else None):
        return task.read(*listed(data), labels=labels, keep_skipped=not labels)
    rest = iter(data)
    start = list(islice(rest, 1))
    if not start or isinstance(start[0], Example):
        return chain(start, rest)
    return task.read(chain(start, rest), labels=labels, keep_skipped=not labels)


def _by_example(
    task: Task,
    encoded: Iterable[tuple[Example, list[Feature]]],
    run: Callable[[list[tuple[int, Feature]]], Sequence[Output]],
    batch_size: int,
    max_tokens: int | None,
) -> Iterator[tuple[Example, list[Output]]]:
    """Runs the features of examples in batches, and regroups the outputs by example."""
    waiting: dict[int, tuple[Example, int]] = {}  # the examples read ahead, with the number of their features

    def rows() -> Iterator[tuple[int, Feature]]:
        for number, (example, features) in enumerate(encoded):
            waiting[number] = (example, len(features))
            for feature in features:
                yield number, feature

    done = 0
    found: list[Output] = []

    def complete() -> Iterator[tuple[Example, list[Output]]]:
        nonlocal done, found
        while done in waiting and len(found) == waiting[done][1]:
            yield waiting.pop(done)[0], found
            done, found = done + 1, []

    for output in in_sorted_batches(
        rows(), run, length=lambda row: task.length(row[1]), batch_size=batch_size, max_tokens=max_tokens
    ):
        yield from complete()  # examples without features come between
        found.append(output)
        yield from complete()
    yield from complete()
