"""`rembert verify A B`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rembert.bridge import open_checkpoint
from rembert.cli.running import differences, framework_of, head_of, load, run, sample_inputs
from rembert.cli.text import table
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import BASE_MODEL, HEADS
from rembert.tasks.frameworks import FRAMEWORKS, check_framework, default_framework


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "verify",
        help="run two checkpoints and compare their outputs",
        description="Run the checkpoints A and B on the same inputs, each in the framework its format belongs to, or "
        "in the one that is installed, and print the largest difference of each output. Exit code 1 when one exceeds "
        "the tolerance.",
    )
    parser.add_argument(
        "paths", metavar=("A", "B"), nargs=2, type=Path, help="checkpoint directories, files or indexes"
    )
    parser.add_argument(
        "--frameworks",
        nargs=2,
        choices=FRAMEWORKS,
        metavar=("FOR_A", "FOR_B"),
        help="pt or tf for each, in place of the format's own",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest difference allowed, relative to the output's largest magnitude (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the generated inputs (default: %(default)s)")
    parser.set_defaults(run=verify)


def verify(args: argparse.Namespace) -> int:
    """Compare and print; 1 where the checkpoints differ."""
    if not 0 <= args.tolerance < float("inf"):
        raise InputError(f"`--tolerance` must be a number of 0 or more. Received: {args.tolerance}.")
    configs, frameworks, pooled = [], [], []
    for number, path in enumerate(args.paths):
        with open_checkpoint(path) as checkpoint:
            if checkpoint.config is None:
                raise CheckpointError(f"{path} has no config.json beside it, which says what to run.")
            configs.append(checkpoint.config)
            frameworks.append(
                args.frameworks[number] if args.frameworks else default_framework(framework_of(checkpoint))
            )
            pooled.append(any("pooler." in name for name in checkpoint.tensors))
    for framework in frameworks:
        check_framework(framework)
    heads = [head_of(config) for config in configs]
    head = heads[0] if heads[0] == heads[1] else BASE_MODEL
    if configs[0].vocab_size != configs[1].vocab_size:
        raise CheckpointError(
            "The checkpoints have different vocabularies. Received: "
            f"`vocab_size={configs[0].vocab_size}` and `vocab_size={configs[1].vocab_size}`."
        )
    options: dict[str, Any] = {"add_pooling_layer": all(pooled)} if head == BASE_MODEL else {}
    inputs = sample_inputs(configs[0], head, seed=args.seed)
    outputs = []
    for path, framework in zip(args.paths, frameworks, strict=True):
        # One model at a time: two of the released size need not fit side by side.
        outputs.append(run(framework, load(framework, head, path, **options), inputs))
    found = differences(outputs[0], outputs[1], inputs)
    if not found:
        raise CheckpointError("The checkpoints have no output in common.")

    print(f"A  {args.paths[0]}: {HEADS[heads[0]].architecture}, run in {frameworks[0]}")
    print(f"B  {args.paths[1]}: {HEADS[heads[1]].architecture}, run in {frameworks[1]}")
    if heads[0] != heads[1]:
        print("The heads differ: the encoders are compared.")
    # `not <=` and not `>`: a difference that is no number is a failure too.
    failed = [name for name, (largest, scale) in found.items() if not largest <= args.tolerance * max(scale, 1e-12)]
    rows: list[tuple[object, ...]] = [("output", "largest difference", "largest value", "")]
    rows += [
        (name, f"{largest:.2e}", f"{scale:.2e}", "differs" if name in failed else "equal")
        for name, (largest, scale) in found.items()
    ]
    print(table(rows, right=(1, 2)))
    return 1 if failed else 0
