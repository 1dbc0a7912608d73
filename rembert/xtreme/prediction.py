"""Predictions of fine-tuned models for every language, as the files that XTREME's evaluator takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rembert.common.errors import CheckpointError
from rembert.common.files import atomic_path
from rembert.tasks import load_task
from rembert.tasks.definitions.question_answering import QuestionAnswering
from rembert.tasks.definitions.sequence_classification import SequenceClassification
from rembert.tasks.definitions.token_classification import TokenClassification
from rembert.tasks.labels import listed_labels
from rembert.tasks.predicting import predict, task_runner
from rembert.tasks.task import Task
from rembert.xtreme.benchmark import TRAINING_SETS, TrainingSet
from rembert.xtreme.layout import examples_file
from rembert.xtreme.reading import READERS, unlabelled


class Predictor:
    """A fine-tuned model that writes the predictions of its tasks.

    Args:
        training: a key of `TRAINING_SETS`.
        model: the fine-tuned checkpoint.
        framework: 'pt' or 'tf'.
        max_length: of a row in tokens; by default the recipe's.
        batch_size: rows at once.
        device: of PyTorch.
        given: whether the model was trained elsewhere, so that its labels may be others.

    Raises:
        CheckpointError: the checkpoint was not trained for the task, or has other labels.
    """

    def __init__(
        self,
        training: str,
        model: str | os.PathLike[str],
        framework: str,
        *,
        max_length: int | None = None,
        batch_size: int = 32,
        device: str | None = None,
        given: bool = False,
    ) -> None:
        self._set: TrainingSet = TRAINING_SETS[training]
        self._batch_size = batch_size
        length = max_length or self._set.recipe["max_length"]
        self._task, self._model = load_task(
            self._set.task.name, model, framework, max_length=length, device=device, **self._set.options
        )
        own = ", ".join(sorted(self._set.labels))
        if given and own and set(self._task.labels) != self._set.labels:
            raise CheckpointError(
                f"{model}: a model for {training} must have the labels {own}. Received: "
                f"{listed_labels(self._task.labels)}."
            )

    def write(
        self, data: Path, languages: Mapping[str, Sequence[str]], target: Callable[[str, str], Path]
    ) -> Iterator[Path]:
        """Write a file for each language of each task, and give its path when it is complete.

        Args:
            data: the benchmark's directory.
            languages: of each task.
            target: the file of a task and a language.
        """
        with task_runner(self._task, self._model) as run:
            for name, codes in languages.items():
                for code in codes:
                    source = examples_file(data, name, code)
                    examples = map(unlabelled, READERS[self._set.task](source, code))
                    found = predict(self._task, self._model, examples, batch_size=self._batch_size, run=run)
                    path = target(name, code)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_path(path) as temporary:
                        _WRITERS[self._set.task](temporary, found)
                    yield path


def _write_labels(path: Path, found: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(f"{each['label']}\n" for each in found), encoding="utf-8")


def _write_tags(path: Path, found: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join("".join(f"{tag}\n" for tag in each["tags"]) + "\n" for each in found), encoding="utf-8")


def _write_answers(path: Path, found: Iterator[dict[str, Any]]) -> None:
    answers = {each["id"]: each["answer"] for each in found}
    path.write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


_WRITERS: dict[type[Task], Callable[[Path, Iterator[dict[str, Any]]], None]] = {
    SequenceClassification: _write_labels,
    TokenClassification: _write_tags,
    QuestionAnswering: _write_answers,
}
