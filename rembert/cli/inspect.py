"""`rembert inspect PATH`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rembert.bridge import Inspection, inspect
from rembert.cli.text import byte_size, shortened


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "inspect",
        help="say what a checkpoint is",
        description="Say what a checkpoint is: format, head, parameters, dtypes, and what is missing or unknown.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="a checkpoint directory, file or index")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 where the checkpoint does not fit its config."""
    found = inspect(args.path)
    for line in _lines(found):
        print(line)
    return 0 if found.fits or found.head is None else 1


def _lines(found: Inspection) -> list[str]:
    dtypes = ", ".join(f"{dtype} ({count} tensors)" for dtype, count in found.dtypes.items())
    lines = [
        f"path        {found.path}",
        f"format      {found.format}",
        f"files       {', '.join(found.files)}",
        f"head        {found.head or 'unknown: no config beside the checkpoint'}",
        f"parameters  {found.parameters:,}",
        f"size        {byte_size(found.nbytes)}",
        f"dtypes      {dtypes or 'none'}",
    ]
    lines += [f"missing     {name}" for name in found.missing]
    lines += [f"unknown     {name}" for name in found.unknown]
    if found.left_out:
        lines.append(f"left out    {len(found.left_out)} that are no weights: {shortened(found.left_out)}")
    lines += [
        f"mis-shaped  {wrong.name}: {list(wrong.in_checkpoint)}, the config says {list(wrong.in_model)}"
        for wrong in found.mismatched
    ]
    if found.fits:
        lines.append("complete    every parameter is there, in the shape the config gives it")
    return lines
