"""`rembert diff A B`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rembert.bridge import Difference, TensorDifference, diff
from rembert.cli.text import table


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "diff",
        description="Compare names, shapes, dtypes and values of the checkpoints A and B, of any formats. "
        "Exit code 1 if they differ.",
    )
    parser.add_argument("a", metavar="A", help="a checkpoint directory, file or index")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--all", action="store_true", help="also list equal tensors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print; 1 if the checkpoints differ."""
    found = diff(args.a, args.b)
    if args.json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        print("\n".join(_lines(found, args.all)))
    return 0 if found.same else 1


def _lines(found: Difference, everything: bool) -> list[str]:
    lines = [f"only in A: {name}" for name in found.only_in_a] + [f"only in B: {name}" for name in found.only_in_b]
    listed = [tensor for tensor in found.tensors if everything or not tensor.same]
    if listed:
        rows = [("tensor", "A", "B", "largest", "mean"), *map(_row, listed)]
        lines += table(rows, right=(3, 4)).split("\n")
    same = sum(tensor.same for tensor in found.tensors)
    lines.append(f"{same} of {len(found.tensors)} tensors that both have are the same")
    return lines


def _row(tensor: TensorDifference) -> tuple[str, ...]:
    sides = (f"{info.dtype} {list(info.shape)}" for info in (tensor.a, tensor.b))
    values = ("-" if value is None else f"{value:.3g}" for value in (tensor.largest, tensor.mean))
    return (tensor.name, *sides, *values)


def _as_json(found: Difference) -> dict[str, Any]:
    return {
        "same": found.same,
        "only_in_a": found.only_in_a,
        "only_in_b": found.only_in_b,
        "tensors": [
            {
                "name": tensor.name,
                "same": tensor.same,
                **{
                    side: {"shape": list(info.shape), "dtype": info.dtype.name}
                    for side, info in (("a", tensor.a), ("b", tensor.b))
                },
                # JSON has no infinity.
                **{key: _number(getattr(tensor, key)) for key in ("largest", "mean")},
            }
            for tensor in found.tensors
        ],
    }


def _number(value: float | None) -> float | str | None:
    return "infinite" if value == float("inf") else value
