"""`rembert xtreme DATA`: the benchmark of RemBERT's paper, from XTREME's files to its table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rembert.cli.data_options import add_model_arguments
from rembert.cli.recipe_options import add_recipe_arguments, recipe_changes
from rembert.cli.text import say
from rembert.common.errors import InputError
from rembert.xtreme import BENCHMARK, run_xtreme


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "xtreme",
        description="Train a checkpoint on the English data of XTREME with the recipes of RemBERT's paper, predict "
        "the test data of every language, and write the prediction files, the archive to submit and, with labels, "
        "scores equal to those of XTREME's evaluator: tables, JSON and a plot of each task.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="the directory that XTREME's download_data.sh fills")
    parser.add_argument("--model", required=True, metavar="CHECKPOINT", help="the checkpoint to start from")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"of {', '.join(BENCHMARK)}")
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="such as de sw zh (default: all)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="the labels of the test data, TASK/test-LANGUAGE.tsv or .json; without them nothing is scored",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="TASK=DIR",
        help="fine-tuned checkpoints, which are not trained again",
    )
    parser.add_argument("--resume", action="store_true", help="keep what the run in DIR has finished")
    parser.add_argument("--quiet", action="store_true", help="print only the table, and errors")
    parser.add_argument("--max-length", type=int, metavar="N", help="of a row, in tokens (128; of questions 384)")
    parser.add_argument("--layer", type=int, metavar="N", help="whose states retrieval compares (7/12 of the depth)")
    add_model_arguments(parser, batch_flag="--eval-batch-size")
    add_recipe_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and print its table; returns 0. Invalid data raises a `RemBertError`."""
    result = run_xtreme(
        args.data,
        args.model,
        output=args.output,
        tasks=args.tasks,
        languages=args.languages,
        framework=args.framework,
        labels=args.labels,
        models=_models(args.models),
        resume=args.resume,
        eval_batch_size=args.eval_batch_size,
        layer=args.layer,
        device=args.device,
        say=None if args.quiet else say,
        **recipe_changes(args),
    )
    if result:
        print((args.output / "scores.md").read_text(encoding="utf-8"), end="")
    return 0


def _models(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise InputError(f"`--models` must be TASK=DIR. Received: {pair!r}.")
        found[name] = path
    return found
