"""`rembert finetune TASK`: train a checkpoint on files of examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rembert.cli.data_options import (
    add_data_arguments,
    add_framework_argument,
    add_task_argument,
    data_options,
    score_lines,
    task_options,
)
from rembert.cli.recipe_options import add_recipe_arguments, recipe_changes
from rembert.cli.series_options import add_series_arguments, run_series
from rembert.cli.text import say, table
from rembert.common.errors import InputError
from rembert.training import Recipe, finetune
from rembert.training.dry_run import dry_run
from rembert.training.run import is_main_process
from rembert.training.trackers import TRACKERS


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "finetune",
        description="Train a checkpoint on files of examples and write the best model, its tokenizer, metrics.jsonl, "
        "curves.png, TensorBoard events and a model card into a directory that both frameworks load. With --resume, "
        "a killed run continues and gives the same result.",
    )
    add_task_argument(parser)
    parser.add_argument("--model", required=True, metavar="CHECKPOINT", help="the checkpoint to start from")
    parser.add_argument("--train", required=True, nargs="+", metavar="FILE", help="examples to train on")
    parser.add_argument("--eval", nargs="+", metavar="FILE", help="labelled examples to score the model on")
    parser.add_argument("--output", type=Path, metavar="DIR", help="a new or empty directory")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="read the data, make a few updates, and print lengths and estimates of time and memory; write nothing",
    )
    add_framework_argument(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in DIR, or start it")
    parser.add_argument("--from-scratch", action="store_true", help="use CHECKPOINT's config and tokenizer only")
    parser.add_argument("--sharded", action="store_true", help="PyTorch, under torchrun: shard the weights (FSDP2)")
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="PyTorch, under torchrun: how long a process waits for the others (default: PyTorch's, half an hour)",
    )
    parser.add_argument(
        "--track", nargs="+", default=[], choices=TRACKERS, help="log the metrics to Weights & Biases or MLflow, too"
    )
    parser.add_argument("--quiet", action="store_true", help="print only the scores, and errors")
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    add_series_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and print the scores; returns 0. Invalid data raises a `RemBertError`."""
    settings: dict[str, Any] = {
        "evaluation": args.eval,
        "framework": args.framework,
        "recipe": Recipe.for_task(args.task, **recipe_changes(args)),
        "data": data_options(args),
        "options": task_options(args),
        "from_scratch": args.from_scratch,
        "say": None if args.quiet else say,
    }
    if args.dry_run:
        print("\n".join(dry_run(args.task, args.model, args.train, **settings).lines()))
        return 0
    if args.output is None:
        raise InputError("`--output` must be a directory, unless with --dry-run. Received: none.")
    settings |= {"output": args.output, "resume": args.resume, "sharded": args.sharded, "trackers": args.track}
    settings["timeout"] = args.timeout
    if (summary := run_series(args, settings)) is not None:
        print(summary)
        return 0
    scores = finetune(args.task, args.model, args.train, **settings)
    if is_main_process():
        print(table(score_lines(scores), right=(1,)))
    return 0
