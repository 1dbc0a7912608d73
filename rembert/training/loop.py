"""The training loop that both frameworks share.

A trainer (`pt_trainer`, `tf_trainer`) has the model and computes an update. This file, and the parts that it calls,
determine the examples and the learning rate of an update, when the model is evaluated, and which model is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from rembert.common.errors import TrainingError
from rembert.common.progress import Progress
from rembert.training.checkpoints import TrainingState
from rembert.training.data import TrainingData
from rembert.training.evaluation import Evaluator
from rembert.training.interruption import Interruption
from rembert.training.micro_batches import label_count, split_batch
from rembert.training.reporting import MetricsLog, NoLog
from rembert.training.result import write_result
from rembert.training.run import Run
from rembert.training.schedule import Schedule, Update
from rembert.training.trackers import open_tracker
from rembert.training.trainer import Trainer


def train_model(run: Run, data: TrainingData, trainer: Trainer, *, whole_evaluation: bool) -> dict[str, float]:
    """Make the remaining updates, and write the result.

    Args:
        run: the run, new or to be resumed.
        data: what it trains on.
        trainer: holds the model.
        whole_evaluation: whether each process evaluates all examples, as it must with sharded parameters.

    Returns:
        The scores under names that begin with `eval_`, and `train_loss`; the same in every process.

    Raises:
        TrainingError: the loss became NaN or infinite.
        OSError: the disk is full or not writable; the last checkpoint is unchanged.
        KeyboardInterrupt, SystemExit: SIGINT or SIGTERM arrived; a checkpoint of the last update has been written.
    """
    task, recipe = run.plan.task, run.plan.recipe
    count = partial(label_count, task.head, problem_type=trainer.config.problem_type)
    weigh = partial(count, class_weights=data.class_weights)
    evaluator = None
    if data.evaluation is not None:
        evaluator = Evaluator(task, recipe, trainer, data.evaluation, count, whole=whole_evaluation, report=run.report)
    schedule = Schedule(recipe, data.row_lengths, evaluates=evaluator is not None)
    own = trainer.parallel * recipe.accumulation_steps  # the micro-batches of this process

    state = _start(run, trainer, schedule, evaluator)
    log: MetricsLog = NoLog()
    if run.is_main:
        sinks = [open_tracker(name, run.output, run.settings) for name in run.plan.trackers]
        log = MetricsLog(run.output, state.step, schedule.epoch_steps, run.report, sinks)
    losses = _LossWindow()
    progress = Progress("training", run.report, total=schedule.total_steps, unit="updates")
    progress.start(state.step)
    with Interruption() as interruption, progress:
        for update in () if state.stopped else schedule.updates(after=state.step):
            started = time.perf_counter()
            batch = task.collate([data.rows[row] for row in update.rows], update.generator)
            micro_batches = split_batch(batch, own * trainer.world, weigh)[trainer.rank * own :][:own]
            loss, norm = trainer.train_step(micro_batches, update.learning_rate, update.step)
            losses.add(loss)
            state = replace(state, step=update.step + 1)
            ends = _is_interrupted(interruption, trainer, update)
            if update.logs or ends:
                loss, speed = losses.summary()
                _check_finite(loss, run, state)
                rate = update.learning_rate
                log.add(state.step, loss=loss, learning_rate=rate, gradient_norm=float(norm), steps_per_second=speed)
                progress.note(loss=loss, learning_rate=rate)
            progress(state.step)
            if update.evaluates and evaluator is not None:
                state = _evaluate(evaluator, run, state, log)
            state = replace(state, seconds=state.seconds + time.perf_counter() - started)
            if update.saves or ends:
                if evaluator is not None and evaluator.has_stalled(state):
                    state = _stop(run, state, schedule)
                run.checkpoints.write(state, trainer)
                losses.restart()
            if ends:
                _leave(interruption, run, state, log, schedule)
            if state.stopped:
                break
    result = write_result(run, state, log, evaluator.metric if evaluator else None) if run.is_main else {}
    [result, *_] = trainer.gather(result)
    return result


def _start(run: Run, trainer: Trainer, schedule: Schedule, evaluator: Evaluator | None) -> TrainingState:
    """The state to continue from: of the newest checkpoint, which the trainer loads, or of a new run.

    Raises:
        InputError: the recipe's metric does not exist; nothing has been written.
    """
    state = run.checkpoints.newest()
    if state is not None:
        run.checkpoints.require_complete(state)
        run.checkpoints.require_config(state, trainer.config, run.plan.task.head)
    if trainer.fresh:
        names = trainer.fresh
        shown = ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])} and {len(names) - 3} more"
        run.report(f"fresh weights: {shown}")
    if state is None and evaluator is not None:
        evaluator.check_metric()
    run.write_settings()
    if state is None:
        run.report(f"{schedule.total_steps} updates, {schedule.epoch_steps} per epoch")
        return TrainingState()
    trainer.load(run.checkpoints.path(state.step), run.checkpoints.optimizer(state.step), state.step)
    run.report(f"resumed after update {state.step} of {schedule.total_steps}")
    return state


def _is_interrupted(interruption: Interruption, trainer: Trainer, update: Update) -> bool:
    """Whether to end after this update. Several processes must end after the same one; they agree where they log."""
    interrupted = interruption.signal is not None
    if trainer.world == 1:
        return interrupted
    return update.logs and any(trainer.gather(interrupted))


def _leave(
    interruption: Interruption, run: Run, state: TrainingState, log: MetricsLog, schedule: Schedule
) -> NoReturn:
    log.close()
    run.report(f"interrupted after update {state.step} of {schedule.total_steps}; continue with --resume")
    interruption.leave()


def _evaluate(evaluator: Evaluator, run: Run, state: TrainingState, log: MetricsLog) -> TrainingState:
    """Evaluate, log and report; the state with the evaluation in it."""
    state, scores = evaluator.evaluate(state)
    log.add(state.step, **scores)
    is_best = " (best so far)" if state.best_step == state.step else ""
    run.report(f"update {state.step}: {_shown(scores, f'eval_{evaluator.metric}')}{is_best}")
    return state


def _stop(run: Run, state: TrainingState, schedule: Schedule) -> TrainingState:
    if state.step < schedule.total_steps:
        run.report(
            f"stopped after update {state.step}: {state.evaluations_since_best} evaluations without improvement"
        )
    return replace(state, stopped=True)


def _check_finite(loss: float, run: Run, state: TrainingState) -> None:
    if math.isfinite(loss):
        return
    newest = run.checkpoints.newest()
    kept = f" The checkpoint after update {newest.step} is intact." if newest else ""
    raise TrainingError(
        f"The loss must be finite. Received: {loss} by update {state.step}. Lower the learning rate (now "
        f"{run.plan.recipe.learning_rate:g}), lengthen the warm-up, or clip gradients.{kept}"
    )


def _shown(scores: Mapping[str, float], metric: str) -> str:
    """The metric and up to three other scores."""
    names: Sequence[str] = [metric, *(name for name in scores if name != metric)][:4]
    return ", ".join(f"{name} {scores[name]:.4f}" for name in names)


class _LossWindow:
    """The losses since the last line of the log, and the duration of their updates."""

    def __init__(self) -> None:
        self._losses: list[Any] = []
        self.restart()

    def restart(self) -> None:
        """Restart the clock after work that was not an update."""
        self._started = time.perf_counter()

    def add(self, loss: Any) -> None:
        """Add a loss; it is not read yet, so a device may still be computing it."""
        self._losses.append(loss)

    def summary(self) -> tuple[float, float]:
        """The mean loss and the updates per second; the window is empty afterwards."""
        mean = math.fsum(map(float, self._losses)) / len(self._losses)
        speed = len(self._losses) / (time.perf_counter() - self._started)
        self._losses = []
        self.restart()
        return mean, speed
