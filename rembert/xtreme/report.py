"""The report of a benchmark run: `scores.json`, tables as in the papers, plots, and the archive to submit."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rembert.common.dependencies import is_installed
from rembert.common.files import atomic_path, write_json, write_text
from rembert.xtreme.benchmark import BENCHMARK, GROUPS
from rembert.xtreme.scoring import Scores, averages

ByLanguage = Mapping[str, Mapping[str, Scores]]  # scores by task and language
# Chung et al. (ICLR 2021), table 8: means over the languages; of questions, exact match and F1.
PAPER: dict[str, tuple[float, ...]] = {
    "xnli": (80.8,),
    "pawsx": (87.5,),
    "udpos": (76.5,),
    "panx": (70.1,),
    "xquad": (64.0, 79.6),
    "mlqa": (55.0, 73.1),
    "tydiqa": (63.0, 77.0),
}
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the same predictions give the same archive


def summary(scores: ByLanguage) -> dict[str, Any]:
    """The scores in the layout that XTREME's evaluator writes, with the transfer gaps and the paper's average.

    A group's score is the mean of its tasks and is there if all of them are; `all_task` is the mean of all nine tasks;
    `average` is that of the paper, the mean of the groups without retrieval.

    Example:
        >>> summary({"pawsx": {"en": {"accuracy": 90.0}, "de": {"accuracy": 80.0}}})["pawsx"]["avg_metric"]
        85.0
    """
    tasks: dict[str, Any] = {}
    for task, by_language in scores.items():
        names = next(iter(by_language.values()))
        each = {name: {code: found[name] for code, found in by_language.items()} for name in names}
        tasks[task] = {**each, **averages(task, by_language)}
    overall = _overall({task: (found["avg_metric"],) for task, found in tasks.items()})
    return {**overall, **tasks}


def _overall(scores: Mapping[str, Sequence[float]]) -> Scores:
    """The scores of groups of tasks, and of all; a task's own is the mean of its metrics."""
    means = {task: sum(values) / len(values) for task, values in scores.items()}
    found = {
        group: sum(means[task] for task in tasks) / len(tasks)
        for group, tasks in GROUPS.items()
        if all(task in means for task in tasks)
    }
    trained = [found[group] for group in GROUPS if group in found and group != "retrieval"]
    if len(trained) == len(GROUPS) - 1:
        found["average"] = sum(trained) / len(trained)
    if set(means) == set(BENCHMARK):
        found["all_task"] = sum(means.values()) / len(means)
    return found


def markdown(result: Mapping[str, Any], model: str) -> str:
    """The tables of `summary`'s result: the paper's, and one for each task with all its languages."""
    tasks = [task for task in BENCHMARK if task in result]
    mine = {task: tuple(result[task][f"avg_{name}"] for name in BENCHMARK[task].metrics) for task in tasks}
    shown = [task for task in BENCHMARK if task in PAPER or task in mine]
    heads = [f"{BENCHMARK[task].title} {_metric_names(task)}" for task in shown]
    lines = [
        "# XTREME",
        "",
        "Means over the languages of each task, from 0 to 100. The average is that of the groups: classification "
        "(XNLI, PAWS-X), tagging (POS, NER) and question answering, where a task's score is the mean of its metrics.",
        "",
        *_table(
            ["model", *heads, "average"],
            [[model, *_cells(shown, mine)], ["RemBERT, Chung et al. (2021), table 8", *_cells(shown, PAPER)]],
        ),
    ]
    if partial := [task for task in tasks if len(_languages(result, task)) < len(BENCHMARK[task].languages)]:
        counts = (
            f"{BENCHMARK[task].title} {len(_languages(result, task))} of {len(BENCHMARK[task].languages)}"
            for task in partial
        )
        lines += ["", f"Not all languages were scored: {', '.join(counts)}."]
    gaps = [(BENCHMARK[task].title, result[task]["transfer_gap"]) for task in tasks if "transfer_gap" in result[task]]
    if gaps:
        lines += ["", "## Transfer gap", "", "The score of English minus the mean of the other languages.", ""]
        lines += _table([title for title, _ in gaps], [[f"{gap:.1f}" for _, gap in gaps]])
    for task in tasks:
        lines += ["", f"## {BENCHMARK[task].title}", ""]
        names = BENCHMARK[task].metrics
        rows = [
            [name, *(f"{result[task][name][code]:.1f}" for code in _languages(result, task)), f"{average:.1f}"]
            for name, average in zip(names, mine[task], strict=True)
        ]
        lines += _table(["", *_languages(result, task), "mean"], rows)
    return "\n".join(lines) + "\n"


def _languages(result: Mapping[str, Any], task: str) -> list[str]:
    return list(result[task][BENCHMARK[task].metrics[0]])


def _metric_names(task: str) -> str:
    short = {"accuracy": "acc.", "exact_match": "EM", "f1": "F1"}
    return " / ".join(short[name] for name in BENCHMARK[task].metrics)


def _cells(shown: Sequence[str], scores: Mapping[str, Sequence[float]]) -> list[str]:
    average = _overall(scores).get("average")
    each = (" / ".join(f"{value:.1f}" for value in scores[task]) if task in scores else "–" for task in shown)
    return [*each, "–" if average is None else f"{average:.1f}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def write_plots(folder: Path, result: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Draw `TASK.png` for each task: a bar for each language, best first, and a line at the mean."""
    if not is_installed("matplotlib"):
        say("no plots: `matplotlib` is not installed (pip install 'rembert[tasks]')")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(exist_ok=True)
    for task in (task for task in BENCHMARK if task in result):
        metric = BENCHMARK[task].metrics[-1]
        bars = sorted(result[task][metric].items(), key=lambda bar: -bar[1])
        figure = Figure(figsize=(max(4.0, 0.32 * len(bars) + 1.5), 3.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.bar(
            [code for code, _ in bars],
            [value for _, value in bars],
            color=["tab:orange" if code == "en" else "tab:blue" for code, _ in bars],
        )
        axes.axhline(result[task][f"avg_{metric}"], color="gray", linestyle="--", linewidth=1)
        axes.set_ylim(0, 100)
        axes.set_title(
            f"{BENCHMARK[task].title}: {metric.replace('_', ' ')}, mean {result[task][f'avg_{metric}']:.1f}"
        )
        with atomic_path(folder / f"{task}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=110)


def write_archive(path: Path, predictions: Sequence[tuple[str, Path]]) -> None:
    """Pack prediction files under their tasks' names. Equal files give an equal archive."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for task, source in sorted(predictions):
            entry = zipfile.ZipInfo(f"predictions/{task}/{source.name}", _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, source.read_bytes())


def write_report(
    output: Path, scores: ByLanguage, model: str | os.PathLike[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """Write `scores.json`, `scores.md` and `plots/`, and return the content of the first."""
    result = summary(scores)
    write_json(output / "scores.json", result)
    write_text(output / "scores.md", markdown(result, os.fspath(model)))
    write_plots(output / "plots", result, say)
    return result
