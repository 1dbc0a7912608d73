"""The checkpoints of a run: weights, optimizer and place, complete under their name or not there at all.

    OUTPUT/checkpoints/step-00000120/   the newest: what a run is resumed from
    OUTPUT/checkpoints/step-00000080/   the best, where that is another one

Each is written under a name that begins with a dot and then renamed. Older ones are removed afterwards, so whatever
happens, the last complete one stands.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rembert.bridge import TensorSource
from rembert.bridge.formats import safetensors
from rembert.common.errors import CheckpointError
from rembert.common.files import atomic_path, read_json, sync_directory, write_json

FOLDER = "checkpoints"
_PLACE, _OPTIMIZER = "place.json", "optimizer.safetensors"


@dataclass
class Place:
    """How far a run is.

    `step` counts updates. `best_step`, `best_value` and `best_scores` are of the best evaluation so far, `evaluations`
    how many there were, and `without_gain` how many of the last ones in a row did not better it.
    """

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    best_scores: dict[str, float] = field(default_factory=dict)
    evaluations: int = 0
    without_gain: int = 0
    stopped: bool = False
    seconds: float = 0.0


class Saves(Protocol):
    """What a checkpoint needs of a trainer."""

    rank: int

    def save(self, directory: Path) -> None:
        """Write the model."""

    def state(self) -> dict[str, TensorSource]:
        """The optimizer's state by name."""

    def gather(self, values: Any) -> list[Any]:
        """What every process passed."""


class Checkpoints:
    """The checkpoints of the run in `output`."""

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` updates stands."""
        return self.folder / f"step-{step:08d}"

    def newest(self) -> Place | None:
        """The place of the newest complete checkpoint, or None.

        Raises:
            CheckpointError: its file cannot be read.
        """
        steps = self._steps()
        if not steps:
            return None
        content = read_json(self.path(max(steps)) / _PLACE, CheckpointError)
        try:
            return Place(**content)
        except TypeError as problem:
            raise CheckpointError(f"{self.path(max(steps)) / _PLACE} is no place of a run: {problem}.") from None

    def optimizer(self, step: int) -> dict[str, np.ndarray]:
        """The optimizer's state of a checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        found = safetensors.read(self.path(step) / _OPTIMIZER)
        return {name: source.read() for name, source in found.tensors.items()}

    def write(self, place: Place, trainer: Saves) -> None:
        """Write the checkpoint of `place`, then remove those that are neither it nor the best.

        Every process calls it; the first one writes.

        Raises:
            OSError: the disk is full or refuses; what was there before is as it was.
        """
        fresh, state = self.folder / f".step-{place.step:08d}.new", trainer.state()
        first = trainer.rank == 0
        if first:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".step-*.new"):
                shutil.rmtree(leftover)
        try:
            trainer.save(fresh)
            if first:
                with atomic_path(fresh / _OPTIMIZER) as temporary:
                    safetensors.write(temporary, state, {})
                write_json(fresh / _PLACE, asdict(place))
                sync_directory(fresh)
                fresh.rename(self.path(place.step))
                sync_directory(self.folder)
                self._remove_others(place)
        finally:
            if first:
                shutil.rmtree(fresh, ignore_errors=True)
        trainer.gather(None)  # nobody goes on before it stands

    def remove(self) -> None:
        """Remove all of them: the run has ended, and its result stands elsewhere."""
        aside = self.folder.with_name(f".{self.folder.name}.old")
        if self.folder.exists():
            self.folder.rename(aside)  # half a checkpoint would be taken for one to resume from
        shutil.rmtree(aside, ignore_errors=True)

    def _remove_others(self, place: Place) -> None:
        for step in self._steps():
            if step not in (place.step, place.best_step):
                shutil.rmtree(self.path(step))
            elif step != place.step:
                (self.path(step) / _OPTIMIZER).unlink(missing_ok=True)  # the best one's weights are all that is wanted

    def _steps(self) -> list[int]:
        return [int(path.name.removeprefix("step-")) for path in self.folder.glob("step-" + 8 * "[0-9]")]
