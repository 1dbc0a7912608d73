"""`rembert verify A B`."""

from __future__ import annotations

import argparse
from typing import Any

from rembert.cli.text import table
from rembert.common.parameters import HEADS
from rembert.tasks.backends import FRAMEWORKS
from rembert.tasks.verification import Verification, verify


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "verify",
        description="Run the checkpoints A and B on the same inputs, each in the framework its format belongs to, or "
        "in the one that is installed, and print the largest difference of each output. Exit code 1 if one exceeds "
        "the tolerance.",
    )
    parser.add_argument("a", metavar="A", help="a checkpoint directory, file or index")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument(
        "--frameworks",
        nargs=2,
        choices=FRAMEWORKS,
        metavar=("FOR_A", "FOR_B"),
        help="run A and B in these frameworks (pt or tf)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest difference allowed, relative to the output's largest magnitude (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the generated inputs (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print; 1 if the checkpoints differ."""
    found = verify(args.a, args.b, frameworks=args.frameworks, tolerance=args.tolerance, seed=args.seed)
    print(report(found))
    return 1 if found.failed else 0


def report(found: Verification) -> str:
    """The checkpoints, and a line for each output."""
    lines = [
        f"{name}  {side.path}: {HEADS[side.head].architecture}, run in {side.framework}"
        for name, side in zip("AB", found.sides, strict=True)
    ]
    if found.compares_encoders:
        lines.append("The heads differ: the encoders are compared.")
    rows: list[tuple[object, ...]] = [("output", "largest difference", "largest value", "")]
    rows += [
        (name, f"{each.largest:.2e}", f"{each.scale:.2e}", "differs" if name in found.failed else "equal")
        for name, each in found.differences.items()
    ]
    return "\n".join([*lines, table(rows, right=(1, 2))])
