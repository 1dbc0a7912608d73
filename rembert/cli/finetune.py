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
from rembert.cli.text import say, table
from rembert.training import Recipe, finetune
from rembert.training.run import is_main_process


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
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add_framework_argument(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in DIR, or start it")
    parser.add_argument("--from-scratch", action="store_true", help="use CHECKPOINT's config and tokenizer only")
    parser.add_argument("--sharded", action="store_true", help="PyTorch, under torchrun: shard the weights (FSDP2)")
    parser.add_argument("--quiet", action="store_true", help="print only the scores, and errors")
    add_data_arguments(parser)
    add_recipe_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train and print the scores; returns 0. Invalid data raises a `RemBertError`."""
    scores = finetune(
        args.task,
        args.model,
        args.train,
        evaluation=args.eval,
        output=args.output,
        framework=args.framework,
        recipe=Recipe.for_task(args.task, **recipe_changes(args)),
        data=data_options(args),
        options=task_options(args),
        resume=args.resume,
        from_scratch=args.from_scratch,
        sharded=args.sharded,
        say=None if args.quiet else say,
    )
    if is_main_process():
        print(table(score_lines(scores), right=(1,)))
    return 0
