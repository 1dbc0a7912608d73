"""The output directory of a run, and the settings by which a resumed run is recognised."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rembert.common.errors import InputError
from rembert.common.files import leftovers, read_json, write_json
from rembert.common.locks import DirectoryLock
from rembert.tasks.task import Task
from rembert.training.checkpoints import FOLDER, Checkpoints
from rembert.training.recipe import Recipe
from rembert.training.reporting import EVENTS, METRICS, Reporter, read_metrics

RUN = "run.json"
END = "train_seconds"  # a key of the last line of `metrics.jsonl`, which only a finished run has
# Settings that may change when a run is resumed: they do not change the result.
_FREE = ("accumulation_steps", "gradient_checkpointing", "log_steps", "save_steps")


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        task: the task.
        recipe: how to train.
        source: the checkpoint to start from, as the user named it.
        files: digests of the files of `source` that are used, from `rembert.tasks.run_digest.sampled_digests`.
        framework: 'pt' or 'tf'.
        from_scratch: whether only the configuration and the tokenizer of `source` are used.
        trackers: which the metrics go to, keys of `TRACKERS`.
    """

    task: Task
    recipe: Recipe
    source: str
    files: Mapping[str, str]
    framework: str
    from_scratch: bool
    trackers: Sequence[str] = ()


def is_main_process() -> bool:
    """Whether this is the first of the processes that train together, which writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


class OutputDirectory:
    """A directory that a run may write to. The first process checks it, before any other work.

    Args:
        path: the directory; it need not exist.
        resume: whether to resume the run in it.
        is_main: whether this is the first of the processes that train together.
        run: the name of the file with the run's settings, by which a run is recognised.

    Raises:
        InputError: the directory is not empty and holds no run to resume, or another process is writing one there.
    """

    def __init__(self, path: Path, *, resume: bool, is_main: bool, run: str = RUN) -> None:
        self.path, self.is_main, self._resume, self._run = path, is_main, resume, path / run
        self._lock: DirectoryLock | None = None
        self._made: list[Path] = []  # directories, innermost first
        if not is_main:
            return
        if path.exists() and not path.is_dir():
            raise InputError(f"`output` must be a directory. Received: {path}, which is a file.")
        if path.is_dir():
            self._claim()
            try:
                self._check()
            except BaseException:
                self.release()
                raise

    def _check(self) -> None:
        # A run that was killed at its start may have left half of its first file.
        if not set(self.path.iterdir()) - set(leftovers(self._run)):
            return
        has_run = self._run.is_file()
        if not self._resume:
            hint = "Resume its run (--resume), or choose another." if has_run else "Choose another."
            raise InputError(f"`output` must be a new or empty directory. Received: {self.path}. {hint}")
        if not has_run:
            raise InputError(
                f"`output` must hold a run to resume. Received: {self.path}, which has no {self._run.name}."
            )

        for directory in (self.path / FOLDER, self.path / EVENTS):
            if os.path.lexists(directory) and not directory.is_dir():
                raise InputError(f"{directory} must be a directory of the run. Received: a file, or a broken link.")

    def claim(self) -> None:
        """Make the directory, and keep other processes from writing a run into it until `release`.

        Raises:
            InputError: another process is writing a run there, or has written one since this directory was checked.
        """
        if not self.is_main or self._lock is not None:
            return
        self._made = [directory for directory in (self.path, *self.path.parents) if not directory.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._claim()
        if self._run.exists():
            self.release()
            raise InputError(f"{self.path}: another process has written a run into `output` in the meantime.")

    def release(self) -> None:
        """Let other processes write to the directory. What was made and not written to is removed, parents too."""
        if self._lock is not None:
            for directory in self._made:
                if any(directory.iterdir()):
                    break
                directory.rmdir()
            self._lock.release()
            self._lock = None

    def _claim(self) -> None:
        lock = DirectoryLock(self.path)
        if not lock.is_held:
            lock.release()
            raise InputError(f"Another process is writing a run into `output`. Received: {self.path}.")
        self._lock = lock

    def open_run(self, plan: Plan, data: dict[str, dict[str, Any]], report: Reporter) -> Run:
        """The run of a plan, whose task is prepared, and of the summary of its data.

        Raises:
            InputError: the directory holds a run with other settings, or of a checkpoint that has changed since.
        """
        settings = {
            "task": plan.task.name,
            "model": plan.source,
            "model_files": dict(plan.files),
            "data": data,
            "max_length": plan.task.max_length,
            "options": {option.name: getattr(plan.task, option.name) for option in plan.task.options},
            "labels": plan.task.labels,
            "from_scratch": plan.from_scratch,
            "recipe": asdict(plan.recipe),
        }
        path = self.path / RUN
        if self.is_main and self._resume and path.is_file():
            before = read_json(path, InputError)
            if not isinstance(before, dict) or not isinstance(before.get("recipe"), dict):
                raise InputError(f"{path} must be the settings of a run. Received another file.")
            _check_same(before, settings)
            _check_same_files(before, settings, path)
        return Run(self.path, self.is_main, plan, settings, report)


@dataclass(frozen=True)
class Run:
    """A run in its directory; `OutputDirectory.open_run` makes it.

    Attributes:
        output: the directory.
        is_main: whether this is the first of the processes that train together, which writes.
        plan: what is trained.
        settings: the content of `run.json`.
        report: takes a line of text for the user.
    """

    output: Path
    is_main: bool
    plan: Plan
    settings: Mapping[str, Any]
    report: Reporter

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of the run."""
        return Checkpoints(self.output)

    def finished_scores(self) -> dict[str, float] | None:
        """The scores of a run that has already finished, or None."""
        lines = read_metrics(self.output / METRICS)
        if not lines or END not in lines[-1] or self.checkpoints.newest() is not None:
            return None
        if self.is_main:
            self.checkpoints.remove()  # left by a kill during their removal
        self.report(f"{self.output}: this run has already finished")
        return {name: value for name, value in lines[-1].items() if name.startswith("eval_") or name == "train_loss"}

    def write_settings(self) -> None:
        """Write `run.json`; from then on the directory holds this run."""
        if not self.is_main:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        write_json(self.output / RUN, self.settings)


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume a run with other settings: the result would belong to neither.

    Raises:
        InputError: names the settings that differ.
    """
    old, new = ({**each, **each.get("recipe", {})} for each in (before, now))
    for name in ("recipe", "model_files", *_FREE):
        old.pop(name, None)
        new.pop(name, None)
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        listed = "; ".join(f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in changed)
        raise InputError(f"A run must be resumed with its own settings. Received: {listed:.600}.")


def _check_same_files(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Refuse to resume a run whose checkpoint to start from has changed: the tokenizer may be another one.

    Raises:
        InputError: names the files that differ, or `path` if it holds no digests.
    """
    files, own = before.get("model_files"), now["model_files"]
    if not isinstance(files, dict):
        raise InputError(f"{path}: `model_files` must hold the digests of a checkpoint. Received: {files!r:.100}.")
    others = sorted(name for name in {*files, *own} if files.get(name) != own.get(name))
    if others:
        raise InputError(
            f"A run must be resumed with the checkpoint that it began with. Received: {now['model']}, whose "
            f"{', '.join(others):.300} had other content when {path} was written. Restore it, or train again in "
            "another directory."
        )
