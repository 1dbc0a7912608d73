"""The model card of a fine-tuned model."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rembert import __version__
from rembert.common.parameters import HEADS

_FRAMEWORKS = {"pt": "PyTorch", "tf": "TensorFlow"}
_PACKAGES = {"pt": ("torch",), "tf": ("tensorflow", "keras")}
_LISTED_LABELS = 50


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
    seconds: float,
    base_model: str | None = None,
    licence: str | None = None,
) -> str:
    """The text of a fine-tuned model's README.md: task, data, scores, recipe, versions, and how to load it.

    Args:
        task: the task's name.
        head: the key in `HEADS` of the trained head.
        source: the checkpoint that training started from.
        framework: 'pt' or 'tf'.
        data: for 'training' and 'evaluation', the files and the counts of what was read.
        recipe: every key and value.
        scores: of the evaluation data, by name; empty without evaluation data.
        updates: the number of updates.
        best_step: the update after which the model was best, or None without evaluations.
        labels: names of the classes.
        has_curves: whether there is a `curves.png`.
        seconds: of training.
        base_model: the name on the Hub of the checkpoint that training started from, if it has one.
        licence: of that checkpoint, as its own card has it.
    """
    lines = [
        *_front_matter(task, head, base_model, licence, list(scores)),
        *_introduction(task, head, source, framework),
        *_data(data, labels),
        *_scores(scores, updates, best_step, has_curves),
        *("", "## Recipe", "", "| setting | value |", "| --- | --- |"),
        *(_row([f"`{name}`", value]) for name, value in recipe.items()),
        *_circumstances(framework, seconds),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(
    task: str, head: str, base_model: str | None, licence: str | None, scores: Sequence[str]
) -> Iterator[str]:
    """The metadata that the Hub reads."""
    yield from ("---", "library_name: rembert", f"tags: [rembert, {task}]")
    if (tag := HEADS[head].pipeline_tag) is not None:
        yield f"pipeline_tag: {tag}"
    if base_model is not None:
        yield f"base_model: {base_model}"
    if licence is not None:
        yield f"license: {licence}"
    if metrics := [name for name in ("accuracy", "f1", "exact_match", "perplexity") if f"eval_{name}" in scores]:
        yield f"metrics: [{', '.join(metrics)}]"
    yield from ("---", "")


def _circumstances(framework: str, seconds: float) -> Iterator[str]:
    """When, how long and with which versions the model was trained."""
    yield from ("", "## Training", "")
    minutes = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
    yield f"Finished on {datetime.now(UTC):%Y-%m-%d} after {minutes}, with Python {platform.python_version()}, "
    yield ", ".join([f"rembert {__version__}", *map(_versioned, _PACKAGES[framework])]) + "."


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # built under another name
        return package


def _introduction(task: str, head: str, source: str, framework: str) -> list[str]:
    architecture = HEADS[head].architecture
    return [
        f"# RemBERT for {task}",
        "",
        f"Fine-tuned from `{source}` with rembert in {_FRAMEWORKS[framework]}. It loads in PyTorch and in TensorFlow:",
        "",
        "```python",
        f"from rembert.pt import {architecture}",
        f"from rembert.tf import TF{architecture}",
        "",
        f'model = {architecture}.from_pretrained("path/to/this/directory")',
        f'model = TF{architecture}.from_pretrained("path/to/this/directory")',
        "```",
    ]


def _data(data: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> Iterator[str]:
    yield from ("", "## Data", "")
    yield from (
        "| use | files | examples | rows | truncated | malformed lines skipped |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    for use, found in data.items():
        counts = (found[name] for name in ("examples", "rows", "truncated", "skipped"))
        yield _row([use, ", ".join(found["files"]), *counts])
    if labels:
        shown = ", ".join(f"`{label}`" for label in labels[:_LISTED_LABELS])
        rest = len(labels) - _LISTED_LABELS
        yield from ("", f"Labels: {shown}" + (f" and {rest} more." if rest > 0 else "."))


def _scores(scores: Mapping[str, float], updates: int, best_step: int | None, has_curves: bool) -> Iterator[str]:
    yield from ("", "## Scores", "")
    if scores:
        after = f", after update {best_step} of {updates}:" if best_step else ":"
        yield from (f"On the evaluation data{after}", "", "| score | value |", "| --- | --- |")
        yield from (_row([name, f"{value:.4f}"]) for name, value in scores.items())
    else:
        yield f"There were no evaluation data. {updates} updates were made."
    if has_curves:
        yield from ("", "![curves](curves.png)")


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
