"""`rembert convert SRC DST --to FORMAT`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ml_dtypes

from rembert.bridge import TARGETS, Conversion, convert
from rembert.bridge.conversion import STORED_DTYPES
from rembert.bridge.tensors import DTYPES
from rembert.cli.text import byte_size, say, shortened
from rembert.cli.verify import report
from rembert.common.config_values import ACTIVATIONS
from rembert.common.parameters import HEADS
from rembert.common.progress import Progress, silent
from rembert.tasks.backends import check_framework, default_framework
from rembert.tasks.verification import verify

# Allowed relative differences of outputs: of two float32 runs, and, in units of the dtype's precision, of rounded
# weights.
_TOLERANCE, _ROUNDING_STEPS = 1e-4, 38


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "convert",
        description="Write the checkpoint SRC as a new directory DST, with its config and tokenizer files. DST "
        "appears once it is complete, or not at all.",
    )
    parser.add_argument("source", metavar="SRC", help="a checkpoint directory, file or index, or a name on the Hub")
    parser.add_argument("target", metavar="DST", type=Path, help="the new directory")
    files = ", ".join(f"{target} ({format.files[0]})" for target, format in TARGETS.items())
    parser.add_argument("--to", required=True, choices=TARGETS, help=f"the format: {files}")
    parser.add_argument("--dtype", choices=STORED_DTYPES, help="store all weights in this dtype")
    parser.add_argument("--max-shard-size", metavar="SIZE", help="split into files of at most SIZE, such as 2GB")
    parser.add_argument("--head", choices=tuple(HEADS), help="keep the encoder and give it this head")
    parser.add_argument(
        "--hidden-act",
        choices=ACTIVATIONS,
        metavar="NAME",
        help="write this activation into the config, such as gelu_new for the tanh form of gelu",
    )
    parser.add_argument("--allow-nonfinite", action="store_true", help="write NaN and infinite weights too")
    parser.add_argument(
        "--verify", action="store_true", help="then run SRC and DST on the same inputs and compare their outputs"
    )
    parser.add_argument("--force", action="store_true", help="replace a checkpoint at DST")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert and print the report."""
    if args.verify:
        check_framework(default_framework())
    is_quiet = args.quiet or args.json
    with Progress(str(args.target), silent if is_quiet else say, amount=byte_size) as progress:
        done = convert(
            args.source,
            args.target,
            args.to,
            dtype=args.dtype,
            max_shard_size=args.max_shard_size,
            head=args.head,
            hidden_act=args.hidden_act,
            force=args.force,
            allow_nonfinite=args.allow_nonfinite,
            progress=progress,
        )
    if args.json:
        print(json.dumps(asdict(done), default=str, indent=2))
    elif not args.quiet:
        print("\n".join(_lines(done)))
    return _verify(args) if args.verify else 0


def _verify(args: argparse.Namespace) -> int:
    """Run both checkpoints; 1 if their outputs differ by more than the dtype explains."""
    rounding = 0.0 if args.dtype is None else float(ml_dtypes.finfo(DTYPES[args.dtype]).eps)
    found = verify(args.source, args.target, tolerance=max(_TOLERANCE, _ROUNDING_STEPS * rounding))
    if not args.quiet:
        print(report(found), file=sys.stderr if args.json else sys.stdout)  # JSON stays alone on stdout
    if found.failed:
        print(f"rembert: the outputs of {args.source} and {args.target} differ", file=sys.stderr)
    return 1 if found.failed else 0


def _lines(done: Conversion) -> list[str]:
    rate = byte_size(done.nbytes / max(done.seconds, 1e-9))
    lines = [
        f"{done.source} ({done.source_format}) -> {done.target} ({done.target_format}): {done.head}",
        f"{done.parameters:,} parameters, {byte_size(done.nbytes)} in {done.seconds:.1f} s ({rate}/s)",
        f"wrote {', '.join(done.files)}",
    ]
    for names, what in (
        (done.left_out, "left out: not weights"),
        (done.dropped, "dropped: not in this head"),
        (done.fresh, "newly initialised: train them before use"),
        (done.nonfinite, "with NaN or infinite values"),
    ):
        if names:
            lines.append(f"{len(names)} tensors {what} ({shortened(names)})")
    return lines
