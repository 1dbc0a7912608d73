"""The interface between the training loop and a framework. `pt_trainer` and `tf_trainer` implement it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rembert.bridge import TensorSource
from rembert.common.config import RemBertConfig
from rembert.tasks.predicting import Run
from rembert.tasks.task import Task
from rembert.training.micro_batches import Batch, MicroBatch


class Trainer(Protocol):
    """A model, its optimizer, and the steps of training.

    Attributes:
        rank, world: the number of this process, and of processes that train together.
        parallel: micro-batches that one process computes at once.
        model: the model, of `rembert.pt` or `rembert.tf`.
        config: its configuration.
        fresh: names of the parameters that the checkpoint did not have.
    """

    rank: int
    world: int
    parallel: int
    model: Any
    config: RemBertConfig
    fresh: list[str]

    def train_step(self, micro_batches: Sequence[MicroBatch], learning_rate: float, step: int) -> tuple[Any, Any]:
        """Update the weights once; the batch's loss and the gradients' norm, each convertible by `float`."""

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """The model's outputs in evaluation mode; with labels in the batch, also the loss."""

    def runner(self, task: Task) -> AbstractContextManager[Run]:
        """A function from a batch to the task's outputs, for tasks that need other outputs than the model's."""

    def save(self, directory: Path) -> None:
        """Write the model. Every process calls it; the first one writes."""

    def state(self) -> dict[str, TensorSource]:
        """The optimizer's state by name."""

    def load(self, directory: Path, state: Mapping[str, np.ndarray], step: int) -> None:
        """Load weights that `save` wrote and the state that `state` gave, after `step` updates."""

    def gather(self, values: Any) -> list[Any]:
        """What each process passed, in the order of their ranks."""

    def peak_memory(self) -> int | None:
        """The largest amount of memory used on the GPU so far, in bytes; None without one."""

    def close(self) -> None:
        """Release what the trainer holds."""


if TYPE_CHECKING:
    from rembert.training import pt_trainer, tf_trainer

    # The type checker compares both with the interface.
    _TRAINERS: tuple[type[Trainer], type[Trainer]] = (pt_trainer.Trainer, tf_trainer.Trainer)
