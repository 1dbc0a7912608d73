"""`rembert evaluate TASK`: the scores of a fine-tuned checkpoint on files of examples."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rembert.cli.data_options import (
    add_data_arguments,
    add_model_arguments,
    add_task_argument,
    check_output,
    data_options,
    score_lines,
    task_options,
)
from rembert.cli.text import table
from rembert.common.files import write_json
from rembert.tasks import Task, evaluate, load_task
from rembert.tasks.languages import read_languages


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "evaluate",
        description="Run a fine-tuned checkpoint on labelled examples and print its scores, from 0 to 1; also per "
        "language and as their mean, if examples or the names of files name several languages.",
    )
    add_task_argument(parser)
    parser.add_argument("--model", required=True, help="a fine-tuned checkpoint")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="FILE",
        help="labelled examples; - is stdin; CODE=FILE names their language",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the scores to this file, as JSON")
    add_data_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores; 0 on success. Invalid data raises a `RemBertError`."""
    check_output(args.output)
    task, model = open_task(args)
    scores = evaluate(task, model, read_languages(task, args.data), batch_size=args.batch_size)
    task.tell_classes("data", task.report.classes)
    print(table(score_lines(scores), right=(1,)))
    print_report(task)
    if args.output is not None:
        write_json(args.output, {**scores, **task.report.to_dict()})
    return 0


def open_task(args: argparse.Namespace) -> tuple[Task, Any]:
    """The prepared task, and the model of `--model`.

    Raises:
        RemBertError: an argument is not allowed, or the checkpoint was not trained for the task.
    """
    task, model = load_task(
        args.task,
        args.model,
        args.framework,
        max_length=args.max_length,
        data=data_options(args),
        device=args.device,
        **task_options(args),
    )
    task.report.say = say
    return task, model


def say(text: str) -> None:
    """Print a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def print_report(task: Task) -> None:
    """Print to standard error what was truncated or skipped."""
    for name, count in task.report.to_dict().items():
        if count and name != "examples":
            print(f"{name}: {count}", file=sys.stderr)
    for reason in task.report.reasons:
        print(f"skipped {reason}", file=sys.stderr)
