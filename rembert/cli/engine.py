"""`--engine ray`: the options of the commands that run on a cluster, and the run of a command there."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rembert import __version__
from rembert.bleurt.checkpoint import open_metric
from rembert.cli.data_options import data_options, task_options
from rembert.cli.evaluate import say_report
from rembert.cli.text import say, say_resumed
from rembert.common.config import RemBertConfig
from rembert.common.dependencies import require_packages
from rembert.common.errors import InputError
from rembert.common.progress import Progress
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.scale.base import BatchFunction, Input
from rembert.scale.cluster import Cluster, run_on_cluster
from rembert.scale.functions import Embed, Predict, Score
from rembert.scale.parts import PART_FORMATS, Parts, opened_parts
from rembert.tasks import DataOptions, Task
from rembert.tasks.embedding import Texts
from rembert.tasks.languages import language_files
from rembert.tasks.predicting import row_length
from rembert.tasks.registry import task_class
from rembert.tasks.run_digest import run_digest

ENGINES = ("ray",)
_OPTIONS = ("address", "workers", "worker_cpus", "block_rows")


def add_engine_arguments(parser: argparse.ArgumentParser, *, rows: str, output_format: bool = True) -> None:
    """Declare where a command runs.

    Args:
        parser: of the command.
        rows: the default of `--block-rows`, in words.
        output_format: whether to declare `--output-format`, which `score` has already.
    """
    group = parser.add_argument_group("on many machines")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        help="run on a Ray cluster; --output is then a directory with a part for each block of the input",
    )
    group.add_argument("--address", help="of the cluster (default: RAY_ADDRESS, or one of this machine)")
    group.add_argument(
        "--workers", type=int, metavar="N", help="blocks at once (default: one per GPU, or what the CPUs suffice for)"
    )
    group.add_argument("--worker-cpus", type=int, metavar="N", help="CPUs, and threads, of a worker (default: 1)")
    group.add_argument("--block-rows", type=int, metavar="N", help=f"records in a block (default: {rows})")
    if output_format:
        group.add_argument("--output-format", choices=PART_FORMATS, help="of the parts (default: jsonl)")


def check_without_engine(args: argparse.Namespace, *more: str) -> None:
    """Refuse options of `--engine` in a call without it; `more` are the command's own.

    Raises:
        InputError: names the option.
    """
    for name in (*_OPTIONS, *more):
        if getattr(args, name) is not None:
            raise InputError(f"`--{name.replace('_', '-')}` must be used with `--engine`. Received: no engine.")


def predict_on_cluster(args: argparse.Namespace) -> int:
    """`rembert predict --engine`; 0 on success."""
    data, options = data_options(args), task_options(args)
    if len(args.model) != 1:
        raise InputError(f"`--model` must be one checkpoint with `--engine`. Received: {len(args.model)}.")
    [checkpoint] = args.model
    function = Predict(
        args.task, checkpoint, args.framework,
        batch_size=args.batch_size, max_length=args.max_length, data=data, device=args.device, **options,
    )  # fmt: skip
    files = language_files(args.data)
    inputs = [Input((file.path,), file.language) for file in files]
    task = _task(task_class(args.task), checkpoint, args.max_length, data, options)
    digest = run_digest(
        task, checkpoint, [file.path for file in files],
        framework=args.framework, languages=[file.language for file in files],
    )  # fmt: skip
    _run(args, function, inputs, digest, rows=50 * args.batch_size)
    return 0


def embed_on_cluster(args: argparse.Namespace, data: DataOptions) -> int:
    """`rembert embed --engine`; 0 on success."""
    settings = {"layer": args.layer, "normalize": args.normalize}
    function = Embed(
        args.checkpoint, args.framework,
        batch_size=args.batch_size, max_length=args.max_length, data=data, device=args.device, **settings,
    )  # fmt: skip
    paths = [file.path for file in language_files(args.data)]
    task = _task(Texts, args.checkpoint, args.max_length, data, {})
    digest = run_digest(task, args.checkpoint, paths, framework=args.framework, **settings)
    _run(args, function, [Input((path,)) for path in paths], digest, rows=50 * args.batch_size)
    return 0


def score_on_cluster(
    args: argparse.Namespace, inputs: Sequence[Input], digests: Iterable[bytes], *, many: bool
) -> Parts:
    """`rembert score --engine`, after the survey of its files.

    Args:
        args: of the command.
        inputs: the files.
        digests: of the texts of each.
        many: whether a candidate has several references.
    """
    settings = {"dtype": args.dtype, "max_length": args.max_length, "aggregate": args.aggregate}
    function = Score(
        args.model, args.framework, score_field=args.score_field, many=many, device=args.device,
        batch_tokens=args.batch_tokens, skip_bad_rows=args.skip_bad_lines, **settings,
    )  # fmt: skip
    with open_metric(args.model, max_length=args.max_length) as found:
        chosen = repr((__version__, args.framework, args.score_field, sorted(settings.items())))
        digest = hashlib.blake2b(found.fingerprint + b"".join(digests) + chosen.encode(), digest_size=32).digest()
    return _run(args, function, inputs, digest, rows=4096)


def _task(
    kind: type[Task], checkpoint: str, max_length: int | None, data: DataOptions, options: dict[str, Any]
) -> Task:
    """The task with its settings, for the digest of the run; its model is loaded by the workers.

    Lines that are skipped change no part that is done, so a run may be continued with `--skip-bad-lines`.
    """
    config = RemBertConfig.from_pretrained(checkpoint)
    tokenizer = RemBertTokenizerFast.from_pretrained(checkpoint)
    task = kind(
        tokenizer, max_length=row_length(config, max_length), data=replace(data, skip_bad_lines=False), **options
    )
    if kind is not Texts:
        task.prepare(config=config)
    return task


def _run(
    args: argparse.Namespace, function: BatchFunction, inputs: Sequence[Input], digest: bytes | None, *, rows: int
) -> Parts:
    if args.output is None:
        raise InputError("`--output` must be a directory with `--engine`. Received: none.")
    if digest is None:
        names = ", ".join(path for each in inputs for path in each.paths)
        raise InputError(f"With `--engine`, data must be regular files, which can be read twice. Received: {names}.")
    require_packages("ray", needed_for="`--engine ray`")
    cluster = Cluster(
        args.address,
        args.workers,
        1 if args.worker_cpus is None else args.worker_cpus,
        rows if args.block_rows is None else args.block_rows,
    )
    format = args.output_format or "jsonl"
    settings = {
        "rembert": __version__,
        "function": type(function).__name__,
        "checkpoint": function.checkpoint,
        "framework": function.framework,
        "data": [[Path(path).name for path in each.paths] for each in inputs],
        "block_rows": cluster.block_rows,
        "format": format,
        "digest": digest.hex(),
    }
    with (
        opened_parts(Path(args.output), format, settings) as parts,
        Progress(str(args.output), say, unit="rows") as progress,
    ):
        say_resumed(len(parts.files()), "parts")
        report = run_on_cluster(function, inputs, parts, cluster, progress)
    say(f"{args.output}: {len(parts.files()):,} parts; {report.examples:,} examples in this call")
    say_report(report)
    return parts
