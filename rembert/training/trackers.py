"""Experiment trackers: the metrics of a run to Weights & Biases and MLflow, through their own clients.

Where they log to is theirs: the environment variables WANDB_MODE, WANDB_PROJECT, …, and MLFLOW_TRACKING_URI,
MLFLOW_EXPERIMENT_NAME, …. A resumed run goes on under the same identifier.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rembert.common.arguments import check_argument, one_of
from rembert.common.dependencies import require_packages

_PROJECT = "rembert"
_TAG = "rembert.run"
# Takes the metrics after an update, among them `step`; None at the end of the run.
Sink = Callable[[Mapping[str, Any] | None], None]


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed.

    Raises:
        InputError: a name is not in `TRACKERS`.
        MissingDependencyError: its client is not installed; names the extra that installs it.

    Example:
        >>> check_trackers([])
        >>> check_trackers(["notebook"])
        Traceback (most recent call last):
        rembert.common.errors.InputError: `trackers` must be one of wandb, mlflow. Received: `trackers='notebook'`.
    """
    for name in names:
        check_argument("trackers", name, one_of(TRACKERS))
        require_packages(name, needed_for=f"Logging to {name}")


def open_tracker(name: str, output: Path, settings: Mapping[str, Any]) -> Sink:
    """A run of a tracker, new or to be continued.

    Args:
        name: a key of `TRACKERS`.
        output: the directory of the training run, which names it.
        settings: of the run, as in `run.json`.
    """
    identity = hashlib.blake2b(f"{output.resolve()} {settings}".encode(), digest_size=8).hexdigest()
    return TRACKERS[name](output, identity, settings)


def _open_wandb(output: Path, identity: str, settings: Mapping[str, Any]) -> Sink:
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=identity,
        name=os.environ.get("WANDB_NAME", output.name),
        resume="allow",
        dir=os.environ.get("WANDB_DIR", os.fspath(output)),
        config=dict(settings),
    )

    def add(values: Mapping[str, Any] | None) -> None:
        if values is None:
            run.finish()
        else:
            run.log({name: value for name, value in values.items() if name != "step"}, step=values["step"])

    return add


def _open_mlflow(output: Path, identity: str, settings: Mapping[str, Any]) -> Sink:
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    title = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    experiment = client.get_experiment_by_name(title)
    number = client.create_experiment(title) if experiment is None else experiment.experiment_id
    found = client.search_runs([number], f"tags.`{_TAG}` = '{identity}'")
    if found:
        run = found[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(number, tags={_TAG: identity}, run_name=output.name).info.run_id
        chosen = {"task": settings["task"], "model": settings["model"], **settings["recipe"]}
        client.log_batch(run, params=[Param(name, str(value)[:500]) for name, value in chosen.items()])

    def add(values: Mapping[str, Any] | None) -> None:
        if values is None:
            client.set_terminated(run)
            return
        now = int(time.time() * 1000)
        client.log_batch(
            run,
            [
                Metric(name, float(value), now, values["step"])
                for name, value in values.items()
                if name != "step" and value is not None
            ],
        )

    return add


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Sink]] = {"wandb": _open_wandb, "mlflow": _open_mlflow}
