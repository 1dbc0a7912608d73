"""`rembert predict TASK`: predictions as JSON lines, in the order of the examples."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rembert.cli.data_options import add_data_arguments, add_model_arguments, add_task_argument, check_output
from rembert.cli.engine import add_engine_arguments, check_without_engine, predict_on_cluster
from rembert.cli.evaluate import add_fine_tuned_argument, open_task, print_report
from rembert.cli.text import say, say_resumed
from rembert.common.progress import Progress
from rembert.common.unfinished import keep_lines, unfinished_output
from rembert.tasks import Example, Task, predict
from rembert.tasks.ensembles import ensemble_runner
from rembert.tasks.languages import count_records, language_files, read_languages
from rembert.tasks.run_digest import run_digest


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "predict",
        description="Run a fine-tuned checkpoint on examples, which need no labels, and write one JSON object per "
        "example, in order, with its `language` if the names of files give it; labels are not read. With "
        "--skip-bad-lines, a malformed line has an object with its `error`, so that predictions keep step with their "
        "file. An interrupted run with --output resumes when the same command is run again.",
    )
    add_task_argument(parser)
    add_fine_tuned_argument(parser)
    parser.add_argument(
        "--data",
        nargs="+",
        default=["-"],
        metavar="FILE",
        help="examples (default: standard input); CODE=FILE names their language",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="a file, instead of the standard output")
    add_data_arguments(parser)
    add_model_arguments(parser)
    add_engine_arguments(parser, rows="fifty batches")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the predictions; 0 on success. Invalid data raises a `RemBertError`."""
    if args.engine is not None:
        return predict_on_cluster(args)
    check_without_engine(args, "output_format")
    check_output(args.output)
    task, models = open_task(args)
    if args.output is None:
        for line in _lines(task, models, args):
            sys.stdout.write(line)
    else:
        files = language_files(args.data)
        languages = [file.language for file in files]
        paths = [file.path for file in files]
        digest = run_digest(task, args.model, paths, framework=args.framework, languages=languages)
        with unfinished_output(args.output, "predictions", digest) as output:
            done = keep_lines(output)
            say_resumed(done, "predictions")
            for line in _lines(task, models, args, skip=done):
                output.write(line.encode())
    print_report(task)
    return 0


def _lines(task: Task, models: Sequence[Any], args: argparse.Namespace, skip: int = 0) -> Iterator[str]:
    named = any(file.language is not None for file in language_files(args.data))
    languages: deque[str | None] = deque()

    def examples() -> Iterator[Example]:
        for number, example in enumerate(read_languages(task, args.data, labels=False, keep_skipped=True)):
            if named and number >= skip:
                languages.append(example.language)
            yield example

    total = count_records(task, args.data)
    with (
        Progress("predict", say, total=total, unit="examples") as progress,
        ensemble_runner(task, models) as runner,
    ):
        progress.start(skip)
        predictions = predict(task, models[0], examples(), batch_size=args.batch_size, run=runner, skip=skip)
        for prediction in progress.track(predictions):
            language = {"language": languages.popleft()} if named else {}
            yield json.dumps({**language, **prediction}, ensure_ascii=False) + "\n"
