"""`rembert predict TASK`: predictions as JSON lines, in the order of the examples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rembert.cli.data_options import (
    add_data_arguments,
    add_model_arguments,
    add_task_argument,
    check_output,
    opened_output,
)
from rembert.cli.evaluate import open_task, print_report
from rembert.tasks import predict


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "predict",
        description="Run a fine-tuned checkpoint on examples, which need no labels, and write one JSON object per "
        "example, in order. Examples stream in batches of similar lengths.",
    )
    add_task_argument(parser)
    parser.add_argument("--model", required=True, help="a fine-tuned checkpoint")
    parser.add_argument("--data", nargs="+", default=["-"], metavar="FILE", help="examples (default: standard input)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a file, instead of the standard output")
    add_data_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the predictions; 0 on success. Invalid data raises a `RemBertError`."""
    check_output(args.output)
    task, model = open_task(args)
    with opened_output(args.output) as output:
        for prediction in predict(task, model, task.read(*args.data), batch_size=args.batch_size):
            output.write(json.dumps(prediction, ensure_ascii=False) + "\n")
    print_report(task)
    return 0
