"""The checkpoints of a run: weights, optimizer state and training state.

    OUTPUT/checkpoints/step-00000120/   the newest: the run resumes from it
    OUTPUT/checkpoints/step-00000080/   the best, unless it is the newest

A checkpoint is written under a name that begins with a dot and then renamed, so it is complete or absent. Older ones
are removed afterwards: the last complete one always exists.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from rembert.bridge import open_checkpoint
from rembert.bridge.formats import safetensors
from rembert.common.arguments import BOOLEAN, Constraint, integer, number, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, RemBertError
from rembert.common.files import atomic_path, read_json, sync_directory, write_json
from rembert.training.initial_model import was_trained
from rembert.training.trainer import Trainer

FOLDER = "checkpoints"
_STATE, _OPTIMIZER = "training_state.json", "optimizer.safetensors"
_OWN_KEYS = frozenset({"architectures", "dtype", "no_answer_threshold"})  # of a saved model, not of the run


@dataclass(frozen=True)
class TrainingState:
    """The progress of a run.

    Attributes:
        step: updates made.
        best_step, best_value, best_scores: the best evaluation so far: its step, its metric's value, all its scores.
        evaluations: evaluations made.
        evaluations_since_best: those after the best one.
        stopped: whether the recipe's patience has ended the run.
        seconds: time spent on updates and evaluations.
    """

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    best_scores: dict[str, float] = field(default_factory=dict)
    evaluations: int = 0
    evaluations_since_best: int = 0
    stopped: bool = False
    seconds: float = 0.0


_COUNT = integer(at_least=0)
_NUMBER = Constraint("a number", lambda value: type(value) in (int, float))  # a score may be NaN
_STATE_KEYS = {
    "step": _COUNT,
    "best_step": optional(_COUNT),
    "best_value": optional(_NUMBER),
    "evaluations": _COUNT,
    "evaluations_since_best": _COUNT,
    "stopped": BOOLEAN,
    "seconds": number(at_least=0),
}


def _check_state(state: TrainingState, step: int, path: Path) -> None:
    """Refuse a state that no run of this library writes.

    Args:
        state: as read from `path`.
        step: the step that the checkpoint's directory names.

    Raises:
        CheckpointError: names the file, the key and the value.
    """
    for key, constraint in _STATE_KEYS.items():
        value = getattr(state, key)
        if not constraint.accepts(value):
            raise CheckpointError(f"{path}: `{key}` must be {constraint.wording}. Received: {value!r:.100}.")
    if state.evaluations_since_best > state.evaluations:
        raise CheckpointError(
            f"{path}: `evaluations_since_best` must be at most `evaluations`. Received: "
            f"{state.evaluations_since_best} and {state.evaluations}."
        )
    scores = state.best_scores
    if not isinstance(scores, dict) or not all(_NUMBER.accepts(value) for value in scores.values()):
        raise CheckpointError(f"{path}: `best_scores` must map names to numbers. Received: {scores!r:.100}.")
    if state.step != step:
        raise CheckpointError(f"{path}: `step` must be {step}, as the directory says. Received: {state.step}.")
    if (state.best_step is None) != (state.best_value is None) or (state.best_step or 0) > step:
        raise CheckpointError(
            f"{path}: `best_step` and `best_value` must be those of an evaluation up to step {step}. Received: "
            f"{state.best_step} and {state.best_value}."
        )


class Checkpoints:
    """The checkpoints of the run in `output`."""

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER

    def path(self, step: int) -> Path:
        """The directory of the checkpoint after `step` updates."""
        return self.folder / f"step-{step:08d}"

    def newest(self) -> TrainingState | None:
        """The training state of the newest complete checkpoint, or None.

        Raises:
            CheckpointError: its file cannot be read.
        """
        steps = self._steps()
        if not steps:
            return None
        path = self.path(max(steps)) / _STATE
        content = read_json(path, CheckpointError)
        try:
            state = TrainingState(**content)
        except TypeError as problem:
            raise CheckpointError(f"{path} must hold the state of a run. Received other content: {problem}.") from None
        _check_state(state, max(steps), path)
        return state

    def require_complete(self, state: TrainingState) -> None:
        """Refuse to continue when the newest checkpoint or the best one is missing or damaged.

        Files are opened and their sizes compared with what they claim; values are not read.

        Raises:
            CheckpointError: names the checkpoint and what to do.
        """
        for step in filter(None, {state.step, state.best_step}):
            try:
                with open_checkpoint(self.path(step)):
                    pass
                if step == state.step:
                    safetensors.read(self.path(step) / _OPTIMIZER)
            except (RemBertError, OSError) as problem:
                kind = "newest" if step == state.step else "best"
                reason = (
                    str(problem) if isinstance(problem, RemBertError) else f"{problem.filename}: {problem.strerror}"
                )
                raise CheckpointError(
                    f"{self.path(step)}, the {kind} checkpoint of this run, is missing or damaged. Restore it, or "
                    f"train again in another directory. Nothing has been removed. Received: {reason}"
                ) from problem

    def require_config(self, state: TrainingState, config: RemBertConfig, head: str) -> None:
        """Refuse to continue when the newest checkpoint or the best one has another configuration than the run.

        Args:
            state: of the newest checkpoint.
            config: of the run's model.
            head: its head, a key of `HEADS`.

        Raises:
            CheckpointError: names the file and the keys.
            ConfigError: the file cannot be read.
        """
        expected = config.to_diff_dict()
        for step in filter(None, {state.step, state.best_step}):
            own = RemBertConfig.from_pretrained(self.path(step))
            found = own.to_diff_dict()
            keys = ({*found, *expected} - _OWN_KEYS) | {"model_type"}
            changed = sorted(key for key in keys if found.get(key) != expected.get(key))
            changed += [] if was_trained(own, head) else ["architectures"]
            if changed:
                raise CheckpointError(
                    f"{self.path(step)}: config.json must have the values of the run. Received others of "
                    f"{', '.join(changed):.200}. Restore it, or train again in another directory."
                )

    def optimizer(self, step: int) -> dict[str, np.ndarray]:
        """The optimizer state of a checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        found = safetensors.read(self.path(step) / _OPTIMIZER)
        return {name: source.read() for name, source in found.tensors.items()}

    def write(self, state: TrainingState, trainer: Trainer) -> None:
        """Write a checkpoint, then remove all others but the best.

        Every process calls it; the first one writes.

        Raises:
            OSError: the disk is full or not writable; existing checkpoints are unchanged.
        """
        new, optimizer = self.folder / f".step-{state.step:08d}.new", trainer.state()
        is_main = trainer.rank == 0
        if is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".step-*.new"):
                shutil.rmtree(leftover)
        try:
            trainer.save(new)
            if is_main:
                with atomic_path(new / _OPTIMIZER) as temporary:
                    safetensors.write(temporary, optimizer, {})
                write_json(new / _STATE, asdict(state))
                sync_directory(new)
                new.rename(self.path(state.step))
                sync_directory(self.folder)
                self.require_complete(state)
                self._remove_others(state)
        finally:
            if is_main:
                shutil.rmtree(new, ignore_errors=True)
        trainer.gather(None)  # no process continues before the checkpoint is complete

    def remove(self) -> None:
        """Remove all checkpoints, once the result of the run is in place."""
        renamed = self.folder.with_name(f".{self.folder.name}.old")
        if self.folder.exists():
            self.folder.rename(renamed)  # a half-removed checkpoint must not look like one to resume from
        shutil.rmtree(renamed, ignore_errors=True)

    def _remove_others(self, state: TrainingState) -> None:
        for step in self._steps():
            if step not in (state.step, state.best_step):
                shutil.rmtree(self.path(step))
            elif step != state.step:
                (self.path(step) / _OPTIMIZER).unlink(missing_ok=True)  # only the best one's weights are needed

    def _steps(self) -> list[int]:
        return [int(path.name.removeprefix("step-")) for path in self.folder.glob("step-" + 8 * "[0-9]")]
