"""`rembert inspect PATH`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from rembert.bridge import FORMATS, Inspection, inspect
from rembert.cli.text import byte_size, shortened, table


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "inspect",
        description="Say what a checkpoint is: format, head, parameters, dtypes, and what is missing or unknown.",
    )
    parser.add_argument("path", metavar="PATH", help="a checkpoint directory, file or index, or a name on the Hub")
    parser.add_argument("--tensors", action="store_true", help="list every tensor: name, shape, dtype, size")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 where the checkpoint does not fit its config."""
    found = inspect(args.path)
    if args.json:
        print(json.dumps(_as_json(found, args.tensors), indent=2))
    else:
        print("\n".join(_lines(found) + (_tensor_lines(found) if args.tensors else [])))
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
    lines.append(f"checksums   {FORMATS[found.format].checksums}")
    if found.fits:
        lines.append("complete    every parameter is there, in the shape the config gives it")
    return lines


def _tensor_lines(found: Inspection) -> list[str]:
    rows = [
        (name, "x".join(map(str, info.shape)) or "scalar", info.dtype.name, byte_size(info.nbytes))
        for name, info in found.tensors.items()
    ]
    return ["", *table([("tensor", "shape", "dtype", "size"), *rows], right=(3,)).split("\n")]


def _as_json(found: Inspection, tensors: bool) -> dict[str, Any]:
    content = {name: value for name, value in vars(found).items() if name not in ("tensors", "mismatched")}
    content["path"] = str(found.path)
    content["fits"] = found.fits
    content["checksums"] = FORMATS[found.format].checksums
    content["mismatched"] = [asdict(wrong) for wrong in found.mismatched]
    if tensors:
        content["tensors"] = {
            name: {"shape": list(info.shape), "dtype": info.dtype.name, "bytes": info.nbytes}
            for name, info in found.tensors.items()
        }
    return content
