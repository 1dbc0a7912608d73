"""`rembert embed CHECKPOINT`: vectors of texts as a `.npy` file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rembert.cli.data_options import add_file_arguments, add_model_arguments, check_output
from rembert.cli.engine import add_engine_arguments, check_without_engine, embed_on_cluster
from rembert.cli.evaluate import print_report
from rembert.cli.text import say, say_resumed
from rembert.common.parameters import BASE_MODEL
from rembert.common.progress import Progress
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.common.unfinished import unfinished_output
from rembert.tasks import DataOptions
from rembert.tasks.backends import find_device, load_trained
from rembert.tasks.embedding import Texts, VectorFile, embed
from rembert.tasks.languages import count_records
from rembert.tasks.predicting import row_length
from rembert.tasks.reading import READERS
from rembert.tasks.run_digest import run_digest


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "embed",
        description="Write the mean of each text's hidden states, [CLS] and [SEP] included, to a float32 .npy file, "
        "one row per text, in order. With --skip-bad-lines, the row of a malformed line is NaN. An interrupted run "
        "resumes when the same command is run again.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="any checkpoint")
    parser.add_argument("--data", nargs="+", default=["-"], metavar="FILE", help="texts (default: standard input)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .npy file")
    parser.add_argument("--layer", type=int, default=-1, metavar="N", help="0: the encoder's input, -1: the last")
    parser.add_argument("--normalize", action="store_true", help="scale every vector to length 1")
    parser.add_argument(
        "--format", choices=READERS, help="of the files; by default found by content and name (text: one per line)"
    )
    add_file_arguments(parser)
    parser.add_argument("--text-column", metavar="NAME", help="the column (JSON: key) of the text")
    parser.add_argument("--skip-bad-lines", action="store_true", help="skip malformed lines and count them")
    parser.add_argument("--max-length", type=int, metavar="N", help="of a row, in tokens")
    add_model_arguments(parser)
    add_engine_arguments(parser, rows="fifty batches")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the vectors; 0 on success. Invalid data raises a `RemBertError`."""
    data = _data_options(args)
    if args.engine is not None:
        return embed_on_cluster(args, data)
    check_without_engine(args, "output_format")
    check_output(args.output)
    device = find_device(args.framework, args.device)
    tokenizer = RemBertTokenizerFast.from_pretrained(args.checkpoint)
    model = load_trained(args.framework, BASE_MODEL, args.checkpoint, device=device, add_pooling_layer=False)
    task = Texts(tokenizer, max_length=row_length(model.config, args.max_length), data=data)
    task.report.say = say
    examples = task.read(*args.data, labels=False, keep_skipped=True)
    settings = {"layer": args.layer, "normalize": args.normalize}
    digest = run_digest(task, args.checkpoint, args.data, framework=args.framework, **settings)
    total = count_records(task, args.data)
    with (
        unfinished_output(args.output, "vectors", digest) as output,
        Progress("embed", say, total=total, unit="texts") as progress,
    ):
        vectors = VectorFile(output, model.config.hidden_size)
        say_resumed(vectors.count, "vectors")
        progress.start(vectors.count)
        found = embed(task, model, examples, batch_size=args.batch_size, skip=vectors.count, **settings)
        for vector in progress.track(found):
            vectors.add(vector)
        vectors.finish()
    print(f"{vectors.count} vectors of {model.config.hidden_size} numbers", file=sys.stderr)
    print_report(task)
    return 0


def _data_options(args: argparse.Namespace) -> DataOptions:
    columns = {} if args.text_column is None else {"text": args.text_column}
    own = {name: getattr(args, name) for name in ("skip_bad_lines", "encoding", "delimiter", "header")}
    return DataOptions(args.format, columns, **own)
