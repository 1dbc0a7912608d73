"""The result of a run: the best model with its tokenizer, the scores, and the model card."""

from __future__ import annotations

import filecmp
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path

from rembert.common.files import atomic_path, write_text
from rembert.training.checkpoints import TrainingState
from rembert.training.model_card import model_card
from rembert.training.reporting import MetricsLog, write_curves
from rembert.training.run import END, Run


def write_result(run: Run, state: TrainingState, log: MetricsLog, metric: str | None) -> dict[str, float]:
    """Move the best model, or without evaluations the last one, into the run's directory, and remove the checkpoints.

    A run that is killed here repeats this step when it is resumed. Only the first process calls it.

    Args:
        run: the run.
        state: its final state.
        log: its metrics.
        metric: the score to draw, or None.

    Returns:
        The scores under names that begin with `eval_`, and `train_loss`.
    """
    best = state.best_step or state.step
    losses = [line["loss"] for line in log.lines if "loss" in line]
    result = {"train_loss": losses[-1] if losses else math.nan, **state.best_scores}
    run.checkpoints.require_complete(state)
    _publish(run.checkpoints.path(best), run.output)
    run.plan.task.tokenizer.save_pretrained(run.output)
    if not log.lines or END not in log.lines[-1]:
        log.add(state.step, best_step=best, **{END: round(state.seconds, 3)}, **result)
    log.close()
    write_curves(run.output, log.lines, f"eval_{metric}" if state.best_scores else None, run.report, state.best_step)
    _write_card(run, state)
    run.checkpoints.remove()
    run.report(f"{run.output}: the model after update {best} of {state.step}")
    return result


def _publish(checkpoint: Path, output: Path) -> None:
    """Copy the model's files of a checkpoint into the run's directory; each appears under its name once complete.

    Raises:
        OSError: a copy differs from its original.
    """
    weights = sorted(checkpoint.glob("model*.safetensors*"), key=lambda path: path.suffix == ".json")
    for path in [*weights, checkpoint / "config.json"]:
        with atomic_path(output / path.name) as temporary:
            temporary.unlink()
            try:
                # A second name until the checkpoint is removed: no byte is copied.
                temporary.hardlink_to(path.resolve())
            except OSError:
                shutil.copyfile(path, temporary)
        if not path.samefile(output / path.name) and not filecmp.cmp(path, output / path.name, shallow=False):
            raise OSError(f"{output / path.name} differs from {path}, of which it is a copy. The disk may be damaged.")


def _licence(card: Path) -> str | None:
    """The licence in the metadata of a checkpoint's card."""
    if not card.is_file():
        return None
    found = re.match(r"---\n(?:.*\n)*?license: *([\w.-]+) *\n(?:.*\n)*?---\n", card.read_text("utf-8", "replace"))
    return None if found is None else found[1]


def _write_card(run: Run, state: TrainingState) -> None:
    plan = run.plan
    text = model_card(
        task=plan.task.name,
        head=plan.task.head,
        source=Path(plan.source).name if Path(plan.source).is_dir() else plan.source,
        framework=plan.framework,
        data=run.settings["data"],
        recipe={**asdict(plan.recipe), "max_length": plan.task.max_length},
        scores=state.best_scores,
        updates=state.step,
        best_step=state.best_step,
        labels=plan.task.labels,
        has_curves=(run.output / "curves.png").is_file(),
        seconds=state.seconds,
        base_model=None if Path(plan.source).exists() else plan.source,
        licence=_licence(Path(plan.source) / "README.md"),
    )
    write_text(run.output / "README.md", text)
