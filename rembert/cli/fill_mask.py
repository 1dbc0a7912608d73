"""`rembert fill-mask CHECKPOINT TEXT`: the likeliest pieces under `[MASK]`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rembert.cli.data_options import add_framework_argument
from rembert.cli.text import table
from rembert.common.arguments import check_argument, integer
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.tasks.definitions.masked_lm import MaskedLM
from rembert.tasks.filling import fill_mask
from rembert.tasks.frameworks import load_trained, move_to_device


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "fill-mask",
        help="the likeliest pieces under [MASK]",
        description="Print the likeliest pieces for every [MASK] of a text, with their probabilities.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint with the masked language model's head")
    parser.add_argument("text", nargs="+", metavar="TEXT", help="a text with [MASK] in it")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="pieces to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each [MASK]")
    add_framework_argument(parser)
    parser.add_argument("--device", help="PyTorch: where to run, as cpu or cuda (default: a GPU where there is one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the pieces; 0 when all is done. Wrong data raises `RemBertError`."""
    check_argument("--top-k", args.top_k, integer(at_least=1))
    tokenizer = RemBertTokenizerFast.from_pretrained(args.checkpoint)
    model = move_to_device(load_trained(args.framework, MaskedLM.head, args.checkpoint), args.device)
    for number, fillings in enumerate(fill_mask(model, tokenizer, args.text, top_k=args.top_k)):
        for place, pieces in enumerate(fillings):
            if args.json:
                listed = [{"piece": each.piece, "probability": each.probability, "text": each.text} for each in pieces]
                print(json.dumps({"text": args.text[number], "mask": place, "pieces": listed}, ensure_ascii=False))
            else:
                print(table([(f"{each.probability:.4f}", each.piece, each.text) for each in pieces], right=(0,)))
                print()
    return 0
