"""Evaluation during training: the scores of the model, and which evaluation is the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice

import numpy as np

from rembert.common.errors import InputError
from rembert.common.progress import Progress
from rembert.tasks.examples import Example
from rembert.tasks.predicting import predict_outputs
from rembert.tasks.scoring import Output
from rembert.tasks.task import Batch, Task
from rembert.training.checkpoints import TrainingState
from rembert.training.disk_list import DiskList
from rembert.training.recipe import Recipe
from rembert.training.reporting import Reporter
from rembert.training.trainer import Trainer


class Evaluator:
    """Scores a trainer's model on examples.

    Args:
        task: gives the scores.
        recipe: names the metric that decides which evaluation is the best, and the batch size.
        trainer: holds the model.
        examples: labelled examples.
        count: the number of labels of a batch that its loss is a mean over.
        whole: whether each process evaluates all examples instead of a share. With sharded parameters it must: the
            processes compute every batch together.
        report: takes a line of text for the user.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        trainer: Trainer,
        examples: DiskList[Example],
        count: Callable[[Mapping[str, np.ndarray]], float],
        *,
        whole: bool,
        report: Reporter,
    ) -> None:
        self._task, self._recipe, self._trainer = task, recipe, trainer
        self._examples, self._count = examples, count
        self._whole = whole or trainer.world == 1
        self._report = report
        self.metric = recipe.metric or task.metric

    def check_metric(self) -> None:
        """Score a few examples to check, before the first update, that the recipe's metric is one of the scores.

        Raises:
            InputError: it is not; the message lists the scores.
        """
        if self._recipe.metric is None:
            return
        scores = self._scores(islice(self._examples, self._recipe.batch_size), whole=True)
        # A variant of a score, as for one language, may only exist with other examples.
        if not any(self.metric == name or self.metric.startswith(f"{name}_") for name in scores):
            raise self._unknown_metric(scores)

    def evaluate(self, state: TrainingState) -> tuple[TrainingState, dict[str, float]]:
        """Score the model after `state.step` updates.

        Returns:
            The state with this evaluation in it, and the scores, their names prefixed with `eval_`.

        Raises:
            InputError: the recipe's metric is not among the scores.
        """
        scores = self._scores(self._examples, self._whole)
        if self.metric not in scores:
            raise self._unknown_metric(scores)
        value = scores[self.metric]
        named = {f"eval_{name}": score for name, score in scores.items()}
        state = replace(
            state, evaluations=state.evaluations + 1, evaluations_since_best=state.evaluations_since_best + 1
        )
        if self._is_better(value, state.best_value):
            state = replace(state, best_step=state.step, best_value=value, best_scores=named, evaluations_since_best=0)
        return state, named

    def has_stalled(self, state: TrainingState) -> bool:
        """Whether as many evaluations in a row as the recipe's patience were not better than the best."""
        return self._recipe.patience is not None and state.evaluations_since_best >= self._recipe.patience

    def _scores(self, examples: Iterable[Example], whole: bool) -> dict[str, float]:
        """The task's scores and the mean loss; the processes share the work unless `whole`."""
        task, trainer = self._task, self._trainer
        if not whole:
            examples = islice(examples, trainer.rank, None, trainer.world)
        totals = np.zeros(2)  # of the loss, and of the labels it is a mean over

        def run(batch: Mapping[str, np.ndarray]) -> Batch:
            results: Batch = trainer.predict(batch)
            if "loss" in results:
                labels = self._count(batch)
                totals[:] += float(results["loss"]) * labels, labels
            return results

        progress = Progress("evaluation", self._report, total=len(self._examples), unit="examples")
        with progress, trainer.runner(task) if task.takes_label_scores else nullcontext(run) as running:
            size = self._recipe.batch_size
            found = progress.track(predict_outputs(task, trainer.model, examples, batch_size=size, run=running))
            if whole:
                scores = task.score_pairs(found)  # one at a time: outputs are not kept
            else:
                parts: list[tuple[list[tuple[Example, list[Output]]], np.ndarray]] = trainer.gather(
                    (list(found), totals)
                )
                scores = task.score_pairs(pair for pairs, _ in parts for pair in pairs)
                totals = np.sum([part for _, part in parts], axis=0)
        loss = {"loss": float(totals[0] / totals[1])} if totals[1] else {}
        return {**scores, **loss}

    def _is_better(self, value: float, best: float | None) -> bool:
        if best is None or math.isnan(best):
            return True
        if math.isnan(value):
            return False
        score = self._task.score_of(self.metric)
        return value < best if score is not None and score.lower_is_better else value > best

    def _unknown_metric(self, scores: Iterable[str]) -> InputError:
        return InputError(f"`metric` must be one of {', '.join(scores)}. Received: `metric={self.metric!r}`.")
