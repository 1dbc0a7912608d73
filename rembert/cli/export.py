"""`rembert export CHECKPOINT OUT --to TARGET`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rembert.bridge import open_checkpoint
from rembert.bridge.heads import has_pooler_in, recognise_head
from rembert.bridge.model_repository import SERVERS, next_version, write_triton_config
from rembert.cli.text import byte_size, table
from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.exporting import EXPORT_TARGETS, Exported, ExportTarget, check_litert_size
from rembert.common.parameters import BASE_MODEL, HEADS, parameters
from rembert.tasks.backends import check_framework, load_trained


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "export",
        description="Write the model of CHECKPOINT for another runtime into a new directory OUT, with its config and "
        "tokenizer files. The export and the model are run on the same inputs of several sizes; OUT appears only when "
        "their outputs agree.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint directory, file or index")
    parser.add_argument("target", metavar="OUT", type=Path, help="the directory to create")
    formats = ", ".join(f"{name} ({target.description})" for name, target in EXPORT_TARGETS.items())
    parser.add_argument("--to", required=True, choices=EXPORT_TARGETS, help=f"the format: {formats}")
    parser.add_argument("--head", choices=tuple(HEADS), help="export this head (model: the encoder alone)")
    parser.add_argument("--dtype", choices=("float32", "float16"), help="of the weights (default: the checkpoint's)")
    parser.add_argument("--opset", dest="opset_version", metavar="N", type=int, help="onnx: version of the operators")
    parser.add_argument(
        "--external-data",
        action="store_const",
        const=True,
        help="onnx: weights in a file beside the graph, as large models always need",
    )
    parser.add_argument(
        "--keep-padding",
        dest="remove_padding",
        action="store_const",
        const=False,
        help="onnx: compute padding too, for runtimes that need shapes known beforehand",
    )
    parser.add_argument(
        "--int8", action="store_const", const=True, help="litert: weights in 8 bits, a third of the size or less"
    )
    parser.add_argument(
        "--server",
        choices=SERVERS,
        help="OUT is the model's directory in a repository of this server; the export is its next version",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing export at OUT")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and report."""
    target = EXPORT_TARGETS[args.to]
    output = _output(args)
    options = _options(args, target)
    check_framework(target.framework)
    require_packages(*target.packages, needed_for=f"`export --to {args.to}`")
    with open_checkpoint(args.checkpoint) as checkpoint:
        if checkpoint.config is None:
            raise CheckpointError(
                f"{args.checkpoint} has no config.json beside it, which is needed to build the model."
            )
        head = args.head or recognise_head(checkpoint.config, checkpoint.tensors)
        own = {"add_pooling_layer": has_pooler_in(checkpoint.tensors)} if head == BASE_MODEL else {}
        origin = checkpoint.directory
        if args.to == "litert":
            # Checked before gigabytes are loaded.
            declared = parameters(checkpoint.config, head, pooler=own.get("add_pooling_layer"))
            check_litert_size(sum(parameter.size for parameter in declared.values()))
    model = load_trained(target.framework, head, args.checkpoint, dtype=args.dtype or "auto", **own)
    module = import_module(f"rembert.{target.framework}.exporting")
    exporter: Callable[..., Exported] = getattr(module, target.function)
    if args.server is not None:
        args.target.mkdir(exist_ok=True)
    done = exporter(model, output, tokenizer_from=origin, force=args.force, **options)
    if args.server == "triton":
        write_triton_config(output)
    if args.json:
        print(json.dumps(asdict(done), default=str, indent=2))
    elif not args.quiet:
        print("\n".join(_lines(args, head, done)))
    return 0


def _output(args: argparse.Namespace) -> Path:
    """The directory of the export.

    Raises:
        InputError: the server does not take the format, or the parent of OUT does not exist.
    """
    if args.server is None:
        return Path(args.target)
    if args.to != SERVERS[args.server]:
        raise InputError(
            f"`--server {args.server}` must be used with `--to {SERVERS[args.server]}`. Received: {args.to}."
        )
    if not args.target.parent.is_dir():
        raise InputError(f"`OUT` must be in an existing directory. Received: {args.target}.")
    return next_version(args.target)


def _options(args: argparse.Namespace, target: ExportTarget) -> dict[str, Any]:
    """The options that were given, as the exporter takes them.

    Raises:
        InputError: an option of another target.
    """
    every = {name for each in EXPORT_TARGETS.values() for name in each.options}
    given = {name: value for name in sorted(every) if (value := getattr(args, name)) is not None}
    for name in given.keys() - set(target.options):
        takers = ", ".join(other for other, each in EXPORT_TARGETS.items() if name in each.options)
        raise InputError(f"`{name}` is an option of {takers}. Received: it with `--to {args.to}`.")
    return given


def _lines(args: argparse.Namespace, head: str, done: Exported) -> list[str]:
    sizes = ", ".join("x".join(map(str, shape)) for shape in done.shapes)
    rows = [("output", "largest difference"), *((name, f"{value:.1e}") for name, value in done.differences.items())]
    return [
        f"{args.checkpoint} -> {done.directory} ({done.target}): {head}, {byte_size(done.nbytes)}",
        f"wrote {', '.join(done.files)}",
        f"takes {', '.join(done.inputs)}",
        f"compared on inputs of {sizes}; differences are relative to an output's largest number:",
        table(rows, right=(1,)),
    ]
