"""What a run would do: its data, its updates, and their time and memory by a few of them. Nothing is written."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from rembert.bridge.registry import locate_checkpoint
from rembert.common.parameters import parameter_count
from rembert.common.progress import duration, silent
from rembert.tasks.backends import check_framework
from rembert.tasks.data import DataOptions
from rembert.tasks.sources import Data, listed
from rembert.tasks.task import Task
from rembert.training.data import TrainingData, read_training_data
from rembert.training.finetuning import chosen_recipe, chosen_task
from rembert.training.micro_batches import label_count, split_batch
from rembert.training.recipe import Recipe
from rembert.training.reporting import Reporter
from rembert.training.schedule import Schedule, Update
from rembert.training.trainer import Trainer

_MEASURED = 3  # updates
_PERCENTILES = (50, 90, 99, 100)
_COPIES = 4  # of the weights on disk: two checkpoints, and the optimizer's two moments in the newest


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Attributes:
        data: for "training" and "evaluation": files, examples, rows, truncated and skipped ones.
        classes: the number of training labels of each class.
        lengths: percentiles of the training rows' lengths in tokens: 50, 90, 99 and 100.
        updates, epoch_updates: of the run, and of an epoch.
        update_seconds: of a measured update, by its number of tokens scaled to the mean batch.
        memory_bytes: the peak while the batch of the longest rows was trained on: of the GPU, or of this process.
        disk_bytes: of checkpoints during the run.
    """

    data: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, int]
    lengths: Mapping[int, int]
    updates: int
    epoch_updates: int
    update_seconds: float
    memory_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """An estimate for all updates, without evaluations and checkpoints."""
        return self.updates * self.update_seconds

    def lines(self) -> Iterator[str]:
        """The result in words."""
        lengths = self.lengths
        yield (
            f"lengths of rows in tokens: half up to {lengths[50]}, 90% up to {lengths[90]}, 99% up to {lengths[99]}, "
            f"the longest {lengths[100]}"
        )
        yield f"{self.updates} updates, {self.epoch_updates} per epoch"
        yield f"time: about {duration(self.seconds)} ({self.update_seconds:.2g} s for an update), without evaluations"
        yield f"memory: {self.memory_bytes / 1e9:.1f} GB with the longest rows"
        yield f"disk: {self.disk_bytes / 1e9:.1f} GB for checkpoints"


def dry_run(
    task: str | Task,
    model: str | os.PathLike[str],
    train: Data,
    *,
    evaluation: Data | None = None,
    framework: str = "pt",
    recipe: Recipe | None = None,
    data: DataOptions | None = None,
    options: Mapping[str, Any] | None = None,
    from_scratch: bool = False,
    devices: Sequence[str] | None = None,
    say: Reporter | None = None,
    **changes: Any,
) -> DryRun:
    """Read and encode the data of a run and make a few of its updates, to estimate its time and memory.

    Nothing is written but temporary files; see `finetune` for the arguments and the errors.

    Example:
        >>> rows = [{"text": "Bread and soup.", "label": "food"}, {"text": "It rains.", "label": "sky"}]
        >>> found = dry_run("sequence-classification", "google/rembert", rows, epochs=5, batch_size=2)
        >>> found.updates, found.classes
        (5, {'food': 1, 'sky': 1})
    """
    check_framework(framework)
    source = locate_checkpoint(model)
    recipe = chosen_recipe(task, recipe, changes)
    task = chosen_task(task, source, recipe, data, options, from_scratch=from_scratch)
    task.report.say = say
    report = silent if say is None else say
    held_out = None if evaluation is None else listed(evaluation)
    examples = read_training_data(task, recipe, listed(train), held_out, report)
    trainer = import_module(f"rembert.training.{framework}_trainer").Trainer(
        task.head, source, recipe, task.config_overrides(), from_scratch=from_scratch, devices=devices
    )
    trainer.model.class_weights = examples.class_weights
    try:
        schedule = Schedule(recipe, examples.row_lengths, evaluates=False)
        lengths = np.asarray(examples.row_lengths)
        seconds = _update_seconds(task, recipe, examples, trainer, schedule)
        size = parameter_count(trainer.config, task.head) * (8 if recipe.precision == "float64" else 4)
        return DryRun(
            examples.summary,
            dict(sorted(examples.classes.items())),
            {each: int(np.percentile(lengths, each, method="higher")) for each in _PERCENTILES},
            schedule.total_steps,
            schedule.epoch_steps,
            seconds,
            trainer.peak_memory() or _process_memory(),
            size * _COPIES,
        )
    finally:
        trainer.close()


def _update_seconds(task: Task, recipe: Recipe, examples: TrainingData, trainer: Trainer, schedule: Schedule) -> float:
    """The duration of an update with the mean number of tokens. The longest rows come first, and are not timed: the
    first update compiles."""
    lengths = np.asarray(examples.row_lengths)
    updates = list(_first(schedule))
    longest = np.argsort(-lengths, kind="stable")[: recipe.batch_size].tolist()
    weigh = partial(
        label_count, task.head, problem_type=trainer.config.problem_type, class_weights=examples.class_weights
    )
    _train(task, recipe, examples, trainer, weigh, updates[0], longest)
    started = time.perf_counter()
    for update in updates:
        _train(task, recipe, examples, trainer, weigh, update, update.rows)
    spent = time.perf_counter() - started
    tokens = sum(int(lengths[update.rows].sum()) for update in updates)
    return spent / tokens * float(lengths.sum()) / schedule.epoch_steps


def _first(schedule: Schedule) -> Iterator[Update]:
    for number, update in enumerate(schedule.updates()):
        if number == _MEASURED:
            return
        yield update


def _train(
    task: Task,
    recipe: Recipe,
    examples: TrainingData,
    trainer: Trainer,
    weigh: Callable[[Mapping[str, np.ndarray]], float],
    update: Update,
    rows: Sequence[int],
) -> None:
    batch = task.collate([examples.rows[row] for row in rows], update.generator)
    parts = split_batch(batch, trainer.parallel * recipe.accumulation_steps, weigh)
    loss, _ = trainer.train_step(parts, 0.0, update.step)
    float(loss)  # waits for the device


def _process_memory() -> int:
    """The largest amount of memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
