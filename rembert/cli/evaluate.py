"""`rembert evaluate TASK`: the scores of a fine-tuned checkpoint on files of examples."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rembert.cli.data_options import (
    add_data_arguments,
    add_model_arguments,
    add_task_argument,
    check_output,
    data_options,
    opened_output,
    score_lines,
    task_options,
)
from rembert.cli.text import say, table
from rembert.common.dependencies import require_packages
from rembert.common.errors import InputError
from rembert.common.files import write_json
from rembert.common.progress import Progress
from rembert.tasks import Task
from rembert.tasks.analysis import Analysis, analyse, write_reliability
from rembert.tasks.data import Report
from rembert.tasks.ensembles import ensemble_runner, load_ensemble
from rembert.tasks.languages import count_records, read_languages

_MOST_CONFUSED = 20  # pairs of classes that are shown


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "evaluate",
        description="Run a fine-tuned checkpoint on labelled examples and print its scores, from 0 to 1; also per "
        "language and as their mean, if examples or the names of files name several languages.",
    )
    add_task_argument(parser)
    add_fine_tuned_argument(parser)
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="FILE",
        help="labelled examples; - is stdin; CODE=FILE names their language",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the scores to this file, as JSON")
    parser.add_argument(
        "--report", action="store_true", help="also the scores and confusions of each class, and the calibration"
    )
    parser.add_argument(
        "--reliability", type=Path, metavar="FILE", help="draw the reliability diagram of the probabilities, as PNG"
    )
    parser.add_argument(
        "--errors", type=Path, metavar="FILE", help="write the examples with wrong predictions, as JSON lines"
    )
    add_data_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores; 0 on success. Invalid data raises a `RemBertError`."""
    check_output(args.output)
    check_output(args.errors, "--errors")
    check_output(args.reliability, "--reliability")
    if args.reliability is not None:
        require_packages("matplotlib", needed_for="`--reliability`")
    task, models = open_task(args)
    if args.reliability is not None and not task.has_one_class:
        raise InputError(f"`--reliability` is for tasks in which one class is right. Received: {args.task}.")
    total = count_records(task, args.data)
    with (
        nullcontext() if args.errors is None else opened_output(args.errors) as stream,
        Progress("evaluate", say, total=total, unit="examples") as progress,
        ensemble_runner(task, models) as runner,
    ):
        found = analyse(
            task,
            models[0],
            read_languages(task, args.data),
            batch_size=args.batch_size,
            on_mistake=None if stream is None else lambda row: _write(stream, row),
            run=runner,
            calibrate=args.report or args.reliability is not None,
            progress=progress,
        )
    task.tell_classes("data", task.report.classes)
    print(table(score_lines(found.scores), right=(1,)))
    details = _details(found) if args.report else {}
    print_report(task)
    if args.reliability is not None:
        assert found.calibration is not None
        write_reliability(args.reliability, found.calibration)
    if args.errors is not None:
        say(f"{args.errors}: {found.mistakes} examples with wrong predictions")
    if args.output is not None:
        write_json(args.output, {**found.scores, **task.report.to_dict(), **details})
    return 0


def _write(stream: TextIO, row: Mapping[str, Any]) -> None:
    stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _details(found: Analysis) -> dict[str, Any]:
    """Print the scores of each class and the most frequent confusions; return them for a file."""
    classes = found.classes()
    names = ("precision", "recall", "f1")
    rows = [[name, *(f"{each[key]:.4f}" for key in names), str(each["support"])] for name, each in classes.items()]
    if rows:
        print("\n" + table([["class", *names, "support"], *rows], right=(1, 2, 3, 4)))
    wrong = [(pair, count) for pair, count in found.confusion.most_common() if pair[0] != pair[1]]
    if wrong:
        shown = [[wanted or "(none)", given or "(none)", count] for (wanted, given), count in wrong[:_MOST_CONFUSED]]
        print("\n" + table([["expected", "predicted", "count"], *shown], right=(2,)))
    calibrated = {} if found.calibration is None else {"calibration": asdict(found.calibration)}
    if calibrated:
        numbers = {name: calibrated["calibration"][name] for name in ("ece", "temperature", "ece_scaled")}
        print("\n" + table(score_lines(numbers), right=(1,)))
    listed = [[*pair, count] for pair, count in sorted(found.confusion.items())]
    return {"classes": classes, "confusion": listed, **calibrated}


def add_fine_tuned_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the checkpoints that are run."""
    parser.add_argument(
        "--model",
        required=True,
        action="append",  # a list after one flag would take the task, too
        metavar="CHECKPOINT",
        help="a fine-tuned checkpoint; given several times, the mean of their probabilities",
    )


def open_task(args: argparse.Namespace) -> tuple[Task, list[Any]]:
    """The prepared task, and the models of `--model`.

    Raises:
        RemBertError: an argument is not allowed, or the checkpoint was not trained for the task.
    """
    task, models = load_ensemble(
        args.task,
        args.model,
        args.framework,
        max_length=args.max_length,
        data=data_options(args),
        device=args.device,
        **task_options(args),
    )
    task.report.say = say
    return task, models


def print_report(task: Task) -> None:
    """Print to standard error what was truncated or skipped."""
    say_report(task.report)


def say_report(report: Report) -> None:
    """Print to standard error what a report says was truncated or skipped."""
    for name, count in report.to_dict().items():
        if count and name != "examples":
            print(f"{name}: {count}", file=sys.stderr)
    for reason in report.reasons:
        print(f"skipped {reason}", file=sys.stderr)
