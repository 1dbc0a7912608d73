"""`rembert average A B … --output DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rembert.bridge.averaging import average


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "average",
        description="Write the mean of the weights of several checkpoints of one model, such as runs with other seeds "
        "(finetune --seeds), as a new directory with the first one's configuration and tokenizer.",
    )
    parser.add_argument("sources", metavar="CHECKPOINT", nargs="+", help="two or more, in any formats")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the new directory")
    parser.add_argument("--force", action="store_true", help="replace an existing checkpoint at DIR")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Average and print the files."""
    for file in average(args.sources, args.output, force=args.force):
        print(file)
    return 0
