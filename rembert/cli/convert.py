"""`rembert convert SRC DST --to FORMAT`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rembert.bridge import convert
from rembert.bridge.conversion import TARGETS
from rembert.cli.text import byte_size, shortened


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "convert",
        help="write a checkpoint in another format",
        description="Write the checkpoint SRC as a new directory DST, with its config and tokenizer files.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="a checkpoint directory, file or index")
    parser.add_argument("target", metavar="DST", type=Path, help="the directory to make")
    parser.add_argument(
        "--to", required=True, choices=TARGETS, help="pt writes model.safetensors, tf writes tf_model.h5"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert and say what was done."""
    done = convert(args.source, args.target, args.to)
    rate = byte_size(done.nbytes / max(done.seconds, 1e-9))
    print(f"{done.source} ({done.source_format}) -> {done.target} ({done.target_format}): {done.head}")
    print(f"{done.parameters:,} parameters, {byte_size(done.nbytes)} in {done.seconds:.1f} s ({rate}/s)")
    print(f"wrote {', '.join(done.files)}")
    if done.left_out:
        print(f"left out {len(done.left_out)} that are no weights: {shortened(done.left_out)}")
    return 0
