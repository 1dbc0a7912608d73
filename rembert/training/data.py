"""The data of a run: files of examples become rows to train on and examples to evaluate on, both on disk."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from rembert.common.errors import DataError, InputError
from rembert.common.loss_settings import check_smoothing
from rembert.common.progress import Progress
from rembert.tasks.data import NOT_IN_A_WINDOW
from rembert.tasks.examples import Example
from rembert.tasks.languages import read_languages
from rembert.tasks.sources import Data, source_name
from rembert.tasks.task import Feature, Task
from rembert.training.class_weights import class_weights
from rembert.training.disk_list import DiskList
from rembert.training.recipe import Recipe
from rembert.training.reporting import Reporter


@dataclass(frozen=True)
class TrainingData:
    """The training and evaluation data of a run.

    Attributes:
        rows: encoded rows to train on.
        row_lengths: their lengths in tokens.
        evaluation: labelled examples to evaluate on, or None.
        classes: how often each class or tag occurs in the training examples.
        class_weights: of the training loss, by class id, or None.
        summary: for "training" and "evaluation": the files, the numbers of examples, rows, truncated and skipped
            ones, and a digest of the rows.
    """

    rows: DiskList[Feature]
    row_lengths: Sequence[int]
    evaluation: DiskList[Example] | None
    classes: Mapping[str, int]
    class_weights: tuple[float, ...] | None
    summary: dict[str, dict[str, Any]]


def read_training_data(
    task: Task, recipe: Recipe, train: Sequence[Data], evaluation: Sequence[Data] | None, report: Reporter
) -> TrainingData:
    """Read and check all examples, prepare the task (its set of labels), and encode the rows to train on.

    Raises:
        InputError: the recipe does not suit the data.
        DataError: an example is invalid, or there are no examples.
    """
    if evaluation is None:
        for name in ("metric", "patience"):
            if (value := getattr(recipe, name)) is not None:
                raise InputError(f"`{name}` needs `evaluation` data (--eval). Received: `{name}={value!r}` alone.")
    counter = _Counter("training", train, task)
    with Progress("reading", report, unit="examples") as progress:
        examples = DiskList(progress.track(_labelled(task, read_languages(task, train))))
    task.prepare(examples)
    check_smoothing(recipe.label_smoothing, task.config_overrides().get("problem_type"))
    with Progress("encoding", report, total=len(examples), unit="examples") as progress:
        rows = DiskList(counter.observe(task.training_features(progress.track(examples))))
    examples.close()
    if not len(rows):
        raise DataError(f"Examples to train on were expected in {_names(train)}. Received: none.")
    summary = {"training": counter.summary(report)}
    classes = Counter(task.report.classes)
    weights = class_weights(task, recipe.class_weights, rows, report)
    held_out = None
    if evaluation is not None:
        held_out, summary["evaluation"] = _read_evaluation(task, evaluation, report)
    return TrainingData(rows, counter.lengths, held_out, classes, weights, summary)


def _read_evaluation(task: Task, paths: Sequence[Data], report: Reporter) -> tuple[DiskList[Example], dict[str, Any]]:
    """The labelled examples, and their summary."""
    counter = _Counter("evaluation", paths, task)
    examples = DiskList(filter(task.has_label, read_languages(task, paths)))
    if not len(examples):
        raise DataError(f"Examples with labels were expected in {_names(paths)}. Received: none.")
    # Encoded here to be checked and counted; each evaluation encodes them again.
    encoded = task.stream_features(examples)
    with Progress("encoding", report, total=len(examples), unit="examples") as progress:
        for _ in counter.observe(feature for _, features in progress.track(encoded) for feature in features):
            pass
    return examples, counter.summary(report, used=len(examples))


def _labelled(task: Task, examples: Iterable[Example]) -> Iterator[Example]:
    """The examples; if malformed lines are skipped, without the unlabelled ones, which are malformed for training."""
    for example in examples:
        if task.data.skip_bad_lines and not task.has_label(example):
            task.report.examples -= 1
            task.report.skip(example.location, "a label was expected. Received: none")
        else:
            yield example


class _Counter:
    """Counts what is read and encoded from now on.

    Attributes:
        lengths: of the observed rows.
    """

    def __init__(self, use: str, paths: Sequence[Data], task: Task) -> None:
        self._use, self._files, self._task = use, [Path(source_name(each)).name for each in paths], task
        self._before, self._classes = task.report.to_dict(), Counter(task.report.classes)
        self._digest = blake2b(digest_size=16)  # identifies the rows of a resumed run
        self.lengths = array("l")

    def observe(self, features: Iterable[Feature]) -> Iterator[Feature]:
        """The features, unchanged."""
        for feature in features:
            self.lengths.append(self._task.length(feature))
            for name, value in feature.items():
                self._digest.update(name.encode())
                for part in value if isinstance(value, list) else [value]:
                    self._digest.update(np.asarray(part).tobytes())
            yield feature

    def summary(self, report: Reporter, used: int | None = None) -> dict[str, Any]:
        """Report the counts and return them; `used` of the examples are used, by default all."""
        now, rows = self._task.report.to_dict(), len(self.lengths)
        counts = {name: now[name] - self._before[name] for name in ("examples", "truncated", "skipped")}
        unlabelled = 0 if used is None else counts["examples"] - used
        counts["examples"] -= unlabelled
        text = f"{self._use}: {counts['examples']} examples"
        text += f" in {rows} rows" if rows != counts["examples"] else ""
        text += f", {unlabelled} unlabelled skipped" if unlabelled else ""
        text += f", {counts['truncated']} truncated to {self._task.max_length} tokens" if counts["truncated"] else ""
        text += f", {counts['skipped']} malformed lines skipped" if counts["skipped"] else ""
        unplaced = now.get(NOT_IN_A_WINDOW, 0) - self._before.get(NOT_IN_A_WINDOW, 0)
        if unplaced:
            text += f", {unplaced} answers that are whole in no window, trained as no answer"
            counts[NOT_IN_A_WINDOW] = unplaced
        report(text)
        self._task.tell_classes(self._use, self._task.report.classes - self._classes)
        for reason in self._task.report.reasons[self._before["skipped"] :]:
            report(f"    {reason}")
        return {"files": self._files, "rows": rows, **counts, "digest": self._digest.hexdigest()}


def _names(paths: Sequence[Data]) -> str:
    return ", ".join(map(source_name, paths))
