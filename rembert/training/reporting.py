"""What a run leaves to be read: `metrics.jsonl`, TensorBoard events, `curves.png`, a model card; and its progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rembert.common.files import atomic_path, write_text
from rembert.common.parameters import HEADS

METRICS = "metrics.jsonl"
Say = Callable[[str], None]


class Log:
    """The numbers of a run as they come: lines of `metrics.jsonl`, and TensorBoard's events beside them.

    Args:
        output: the run's directory.
        step: updates that a checkpoint has kept; lines of later ones, and a broken last line, are left out.
        say: takes a line of text for people.
    """

    def __init__(self, output: Path, step: int, say: Say) -> None:
        self.path = output / METRICS
        self.lines = [line for line in read_metrics(self.path) if line.get("step", 0) <= step]
        write_text(self.path, "".join(map(_line, self.lines)))
        self._file = self.path.open("a", encoding="utf-8")
        self._events = _events(output / "events", step, say)

    def add(self, values: Mapping[str, Any]) -> None:
        """Write one line; its numbers go to TensorBoard under its `step`."""
        self.lines.append(dict(values))
        self._file.write(_line(values))
        self._file.flush()
        if self._events is not None:
            self._events(values)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events(None)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; none where there is no file. Ends before a line that was not written whole."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _events(folder: Path, step: int, say: Say) -> Callable[[Mapping[str, Any] | None], None] | None:
    """A writer of TensorBoard's events, or None where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        say("no TensorBoard events: `tensorboard` is not installed (pip install 'rembert[tasks]')")
        return None
    # These parts of TensorBoard load no framework, which its own writers of events do.
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
    # Whatever an earlier process wrote of later steps is void.
    write(step=step + 1, session_log=SessionLog(status=SessionLog.START))
    return add


def _tag(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


# ---------------------------------------------------------------------- for people


def write_curves(output: Path, lines: Sequence[Mapping[str, Any]], metric: str | None, say: Say) -> None:
    """Draw `curves.png`: the training loss and, where there is one, the score `metric` of each evaluation."""
    if find_spec("matplotlib") is None:
        say("no curves.png: `matplotlib` is not installed (pip install 'rembert[tasks]')")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    evaluations = [line for line in lines if metric in line and "best_step" not in line]
    scores = [(line["step"], line[str(metric)]) for line in evaluations]
    figure = Figure(figsize=(5 * (2 if scores else 1), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [("training loss", training)] + ([(str(metric), scores)] if scores else [])
    for number, (title, points) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.plot([step for step, _ in points], [value for _, value in points], marker="." if len(points) < 40 else "")
        axes.set_title(title)
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
    with atomic_path(output / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


class Bar:
    """A progress bar with loss, rate and time left, on a terminal and where tqdm is installed; nothing elsewhere."""

    def __init__(self, total: int, done: int) -> None:
        self._bar: Any = None
        if sys.stderr.isatty() and find_spec("tqdm") is not None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, leave=False)

    def step(self) -> None:
        """One update more."""
        if self._bar is not None:
            self._bar.update()

    def show(self, **values: float) -> None:
        """Numbers beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def model_card(
    *,
    task: str,
    head: str,
    source: str,
    framework: str,
    data: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
    scores: Mapping[str, float],
    updates: int,
    best_step: int | None,
    labels: Sequence[str],
    has_curves: bool,
) -> str:
    """The text of a fine-tuned model's README.md: what it was trained for, on what, how, and what it scores.

    Args:
        task: the task's name.
        head: the key in `HEADS` of the head that was trained.
        source: the checkpoint that training began with.
        framework: 'pt' or 'tf'.
        data: for 'training' and 'evaluation', the files and the numbers of what was read.
        recipe: every key and value.
        scores: of the evaluation data, by name; empty where there were none.
        updates: how many were made.
        best_step: the update after which the model was best, or None without evaluations.
        labels: names of the classes.
        has_curves: whether there is a `curves.png`.
    """
    names = {"pt": "PyTorch", "tf": "TensorFlow"}
    architecture = HEADS[head].architecture
    lines = [
        "---",
        "library_name: rembert",
        f"tags: [rembert, {task}]",
        "---",
        "",
        f"# RemBERT for {task}",
        "",
        f"Fine-tuned from `{source}` with rembert in {names[framework]}. It loads in PyTorch and in TensorFlow:",
        "",
        "```python",
        f"from rembert.pt import {architecture}",
        f"from rembert.tf import TF{architecture}",
        "",
        f'model = {architecture}.from_pretrained("path/to/this/directory")',
        f'model = TF{architecture}.from_pretrained("path/to/this/directory")',
        "```",
        "",
        "## Data",
        "",
        "| use | files | examples | rows | cut to the longest length | left out as bad |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for use, found in data.items():
        cells = [use, ", ".join(found["files"]), *(found[key] for key in ("examples", "rows", "truncated", "skipped"))]
        lines.append(_row(cells))
    if labels:
        shown = ", ".join(f"`{label}`" for label in labels[:50])
        lines += ["", f"Labels: {shown}" + (f" and {len(labels) - 50} more." if len(labels) > 50 else ".")]
    lines += ["", "## Scores", ""]
    if scores:
        lines += ["On the evaluation data" + (f", after update {best_step} of {updates}:" if best_step else ":"), ""]
        lines += ["| score | value |", "| --- | --- |"]
        lines += [_row([name, f"{value:.4f}"]) for name, value in scores.items()]
    else:
        lines.append(f"There were no evaluation data. {updates} updates were made.")
    if has_curves:
        lines += ["", "![curves](curves.png)"]
    lines += ["", "## Recipe", "", "| setting | value |", "| --- | --- |"]
    lines += [_row([f"`{name}`", value]) for name, value in recipe.items()]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
