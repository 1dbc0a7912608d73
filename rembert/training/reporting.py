"""The reports of a run: `metrics.jsonl`, TensorBoard events, and `curves.png`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rembert.common.arguments import integer
from rembert.common.dependencies import is_installed
from rembert.common.errors import CheckpointError
from rembert.common.files import atomic_path, naming_path, write_text
from rembert.training.trackers import Sink

METRICS = "metrics.jsonl"
EVENTS = "events"  # the directory of TensorBoard's files
_STEP = integer(at_least=0)
Reporter = Callable[[str], None]  # takes a line of text for the user


class MetricsLog:
    """The metrics of a run: lines of `metrics.jsonl`, and TensorBoard events.

    Args:
        output: the run's directory.
        step: the updates that the newest checkpoint holds; lines of later ones, and a broken last line, are dropped.
        epoch_steps: updates of an epoch.
        report: takes a line of text for the user.
        sinks: of trackers; each takes every line, and None at the end.
    """

    def __init__(
        self, output: Path, step: int, epoch_steps: int, report: Reporter, sinks: Sequence[Sink] = ()
    ) -> None:
        self._path = path = output / METRICS
        self.lines = [line for line in read_metrics(path) if line.get("step", 0) <= step]
        write_text(path, "".join(map(_line, self.lines)))
        self._epoch_steps = epoch_steps
        self._file = path.open("a", encoding="utf-8")
        events = _events(output / EVENTS, step, report)
        self._sinks = [*sinks] if events is None else [events, *sinks]

    def add(self, step: int, **values: Any) -> None:
        """Write one line: the metrics after `step` updates."""
        line = {"step": step, "epoch": round(step / self._epoch_steps, 6), **values}
        self.lines.append(line)
        with naming_path(self._path):
            self._file.write(_line(line))
            self._file.flush()
            for sink in self._sinks:
                sink(line)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        for sink in self._sinks:
            sink(None)


class NoLog(MetricsLog):
    """The log of a process that does not write."""

    def __init__(self) -> None:
        self.lines = []

    def add(self, step: int, **values: Any) -> None:
        """Ignore the line."""

    def close(self) -> None:
        """Nothing to close."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without a last one that a kill has cut; none if there is no file.

    Raises:
        CheckpointError: it is no file, or another line is not one of a run; names the file and the line.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise CheckpointError(f"{path} must be a file. Received: a directory, or something else that is no file.")
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            if number == len(lines):
                break
            line = None
        if (
            not isinstance(line, dict)
            or not _STEP.accepts(line.get("step"))
            or not all(type(value) in (int, float, type(None)) for value in line.values())
        ):
            raise CheckpointError(
                f"{path}, line {number}, must map names to numbers, with a `step`. Received: {text:.80}"
            )
        found.append(line)
    return found


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _events(folder: Path, step: int, report: Reporter) -> Sink | None:
    """A writer of TensorBoard events, which closes its file when it is given None; or None without TensorBoard."""
    if not is_installed("tensorboard"):
        report("no TensorBoard events: `tensorboard` is not installed (pip install 'rembert[tasks]')")
        return None
    # These parts of TensorBoard load no framework; its own event writers do.
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")
    writer = RecordWriter(file)

    def write(**fields: Any) -> None:
        writer.write(Event(wall_time=time.time(), **fields).SerializeToString())
        writer.flush()

    def add(values: Mapping[str, Any] | None) -> None:
        if values is None:
            writer.close()
            return
        numbers = {name: value for name, value in values.items() if name != "step" and isinstance(value, int | float)}
        found = [Summary.Value(tag=_tag(name), simple_value=value) for name, value in numbers.items()]
        write(step=values.get("step", 0), summary=Summary(value=found))

    write(file_version="brain.Event:2")
    # TensorBoard drops what an earlier process wrote for later steps.
    write(step=step + 1, session_log=SessionLog(status=SessionLog.START))
    return add


def _tag(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def write_curves(
    output: Path, lines: Sequence[Mapping[str, Any]], metric: str | None, report: Reporter, best: int | None = None
) -> None:
    """Draw `curves.png`: the losses of training and evaluation, and the score of each evaluation.

    Args:
        output: the run's directory.
        lines: of `metrics.jsonl`.
        metric: the name of the score, or None.
        report: takes a line of text for the user.
        best: the update after which the model was best, which is marked.
    """
    if not is_installed("matplotlib"):
        report("no curves.png: `matplotlib` is not installed (pip install 'rembert[tasks]')")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    held_out = [line for line in lines if "best_step" not in line]
    losses = {"training": _points(lines, "loss"), "evaluation": _points(held_out, "eval_loss")}
    scores = [] if metric is None or metric == "eval_loss" else _points(held_out, metric)
    panels = [("loss", losses)] + ([(str(metric), {"": scores})] if scores else [])
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, curves) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        for name, points in curves.items():
            marker = "." if len(points) < 40 else ""
            axes.plot([step for step, _ in points], [value for _, value in points], marker=marker, label=name)
        if best is not None:
            axes.axvline(best, color="gray", linestyle=":", label="best model")
        if len(curves) > 1:
            axes.legend()
        axes.set_title(title)
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
    with atomic_path(output / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in lines if name in line]
