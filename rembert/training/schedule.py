"""The schedule of a run: the rows and the learning rate of each update, and when to log, evaluate and save."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rembert.tasks.batching import LengthGroupedBatches
from rembert.training.recipe import Recipe

_MASKS = 1  # separates the generator of masks from others with the same seed and step


@dataclass(frozen=True)
class Update:
    """One update of the weights.

    Attributes:
        step: the number of the update, from 0.
        rows: numbers of the rows in its batch.
        learning_rate: its learning rate.
        generator: draws the masks of its batch; the same ones when a killed run repeats the update.
        logs, evaluates, saves: what follows the update.
    """

    step: int
    rows: list[int]
    learning_rate: float
    generator: np.random.Generator
    logs: bool
    evaluates: bool
    saves: bool


class Schedule:
    """All updates of a run: a function of its arguments alone, so every process and a resumed run see the same.

    Args:
        recipe: the number of updates and what follows each.
        row_lengths: the lengths of the training rows.
        evaluates: whether there are examples to evaluate on.

    Attributes:
        epoch_steps: updates of an epoch.
        total_steps: updates of the run.
    """

    def __init__(self, recipe: Recipe, row_lengths: Sequence[int], *, evaluates: bool) -> None:
        self._recipe, self._has_evaluation = recipe, evaluates
        self._batches = LengthGroupedBatches(row_lengths, recipe.batch_size, seed=recipe.seed)
        self.epoch_steps = len(self._batches)
        steps = max(1, round(recipe.epochs * self.epoch_steps))
        self.total_steps = steps if recipe.max_steps is None else min(steps, recipe.max_steps)

    def updates(self, after: int = 0) -> Iterator[Update]:
        """The updates that follow the first `after`."""
        step = after
        while step < self.total_steps:
            epoch, done = divmod(step, self.epoch_steps)
            self._batches.set_epoch(epoch)
            for rows in islice(self._batches, done, done + self.total_steps - step):
                yield self._update(step, rows)
                step += 1

    def _update(self, step: int, rows: list[int]) -> Update:
        recipe, done = self._recipe, step + 1
        ends_period = done == self.total_steps or done % (recipe.eval_steps or self.epoch_steps) == 0
        saves = ends_period or (recipe.save_steps is not None and done % recipe.save_steps == 0)
        return Update(
            step=step,
            rows=rows,
            learning_rate=learning_rate(recipe, step, self.total_steps),
            generator=np.random.default_rng([recipe.seed, step, _MASKS]),
            logs=saves or done % recipe.log_steps == 0,
            evaluates=ends_period and self._has_evaluation,
            saves=saves,
        )


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """The learning rate of update number `step`, counted from 0, of `total_steps`.

    It rises linearly over the first `warmup * total_steps` updates, the last of which has the peak rate, and falls so
    that the update after the last would have rate 0.
    """
    warmup_steps = math.ceil(recipe.warmup * total_steps)
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    return recipe.learning_rate
