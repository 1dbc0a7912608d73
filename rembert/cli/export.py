"""`rembert export CHECKPOINT OUT --to TARGET`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rembert.bridge import open_checkpoint
from rembert.bridge.heads import has_pooler_in, recognise_head
from rembert.cli.running import load
from rembert.cli.text import byte_size, table
from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.exporting import PACKAGES, Exported, check_litert_size
from rembert.common.parameters import BASE_MODEL, HEADS, parameters
from rembert.tasks.frameworks import check_framework


@dataclass(frozen=True)
class Target:
    """A format to export to: the framework that writes it, its function, and which of the options it takes."""

    framework: str
    function: str
    writes: str
    options: tuple[str, ...] = ()

    def exporter(self) -> Callable[..., Exported]:
        """The function, in the framework's `exporting` module."""
        function: Callable[..., Exported] = getattr(
            import_module(f"rembert.{self.framework}.exporting"), self.function
        )
        return function


TARGETS = {
    "onnx": Target("pt", "export_onnx", "model.onnx, for ONNX Runtime", ("opset_version", "external_data")),
    "savedmodel": Target("tf", "export_savedmodel", "saved_model.pb and variables, for TensorFlow and its servers"),
    "litert": Target("tf", "export_litert", "model.tflite, for LiteRT; up to 2 GB"),
}


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "export",
        help="write a model for another runtime",
        description="Write the model of CHECKPOINT for another runtime into a new directory OUT, with its config and "
        "tokenizer files. What was written is run beside the model on inputs of several sizes; OUT appears only when "
        "both give the same.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a checkpoint directory, file or index")
    parser.add_argument("target", metavar="OUT", type=Path, help="the directory to make")
    formats = ", ".join(f"{name} ({target.writes})" for name, target in TARGETS.items())
    parser.add_argument("--to", required=True, choices=TARGETS, help=f"the format: {formats}")
    parser.add_argument("--head", choices=tuple(HEADS), help="export this head, or the encoder alone (model)")
    parser.add_argument("--dtype", choices=("float32", "float16"), help="of the weights (default: the checkpoint's)")
    parser.add_argument("--opset", dest="opset_version", metavar="N", type=int, help="onnx: version of the operators")
    parser.add_argument(
        "--external-data",
        action="store_const",
        const=True,
        help="onnx: weights in a file beside the graph, as large models always have them",
    )
    parser.add_argument("--force", action="store_true", help="replace an export that stands at OUT")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and say what was done."""
    target = TARGETS[args.to]
    options = _options(args, target)
    check_framework(target.framework)
    require_packages(*PACKAGES.get(args.to, ()), needed_for=f"`export --to {args.to}`")
    with open_checkpoint(args.checkpoint) as checkpoint:
        if checkpoint.config is None:
            raise CheckpointError(f"{args.checkpoint} has no config.json beside it, which says what to run.")
        head = args.head or recognise_head(checkpoint.config, checkpoint.tensors)
        own = {"add_pooling_layer": has_pooler_in(checkpoint.tensors)} if head == BASE_MODEL else {}
        origin = checkpoint.directory
        if args.to == "litert":
            # Before gigabytes are loaded for nothing.
            declared = parameters(checkpoint.config, head, pooler=own.get("add_pooling_layer"))
            check_litert_size(sum(parameter.size for parameter in declared.values()))
    model, report = load(
        target.framework, head, args.checkpoint, dtype=args.dtype or "auto", output_loading_info=True, **own
    )
    if report["missing_keys"]:
        raise CheckpointError(
            f"{args.checkpoint} does not hold all of a {head} model; a fresh part would be of no use. Missing: "
            f"{', '.join(report['missing_keys'][:6])}."
        )
    done = target.exporter()(model, args.target, tokenizer_from=origin, force=args.force, **options)
    if args.json:
        print(json.dumps(asdict(done), default=str, indent=2))
    elif not args.quiet:
        print("\n".join(_lines(args, head, done)))
    return 0


def _options(args: argparse.Namespace, target: Target) -> dict[str, Any]:
    """The options that were given, as the exporter takes them; one of another target is refused."""
    every = {name for each in TARGETS.values() for name in each.options}
    given = {name: value for name in sorted(every) if (value := getattr(args, name)) is not None}
    for name in given.keys() - set(target.options):
        takers = ", ".join(other for other, each in TARGETS.items() if name in each.options)
        raise InputError(f"`{name}` is an option of {takers}. Received: it with `--to {args.to}`.")
    return given


def _lines(args: argparse.Namespace, head: str, done: Exported) -> list[str]:
    sizes = ", ".join("x".join(map(str, shape)) for shape in done.shapes)
    rows = [("output", "largest difference"), *((name, f"{value:.1e}") for name, value in done.differences.items())]
    return [
        f"{args.checkpoint} -> {args.target} ({done.target}): {head}, {byte_size(done.nbytes)}",
        f"wrote {', '.join(done.files)}",
        f"takes {', '.join(done.inputs)}",
        f"tried with inputs of {sizes}; differences are parts of an output's largest number:",
        table(rows, right=(1,)),
    ]
