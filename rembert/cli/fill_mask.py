"""`rembert fill-mask CHECKPOINT TEXT`: the most likely tokens for `[MASK]`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rembert.cli.data_options import add_device_argument, add_framework_argument
from rembert.cli.text import table
from rembert.common.arguments import check_argument, integer
from rembert.common.tokenization import RemBertTokenizerFast
from rembert.tasks.backends import find_device, load_trained
from rembert.tasks.definitions.masked_lm import MaskedLM
from rembert.tasks.filling import fill_mask


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "fill-mask",
        description="Print the most likely tokens for every [MASK] of a text, with their probabilities.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint with the masked language model's head")
    parser.add_argument("text", nargs="+", metavar="TEXT", help="a text that contains [MASK]")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="tokens to show (default: %(default)s)")
    parser.add_argument(
        "--targets", nargs="+", metavar="WORD", help="choose only among these words, each of which is one token"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each [MASK]")
    add_framework_argument(parser)
    add_device_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the tokens; 0 on success. Invalid data raises a `RemBertError`."""
    check_argument("--top-k", args.top_k, integer(at_least=1))
    device = find_device(args.framework, args.device)
    tokenizer = RemBertTokenizerFast.from_pretrained(args.checkpoint)
    model = load_trained(args.framework, MaskedLM.head, args.checkpoint, device=device)
    found = fill_mask(model, tokenizer, args.text, top_k=args.top_k, targets=args.targets)
    for text, masks in zip(args.text, found, strict=True):
        for number, fillings in enumerate(masks):
            if args.json:
                tokens = [
                    {"token": each.token, "probability": each.probability, "text": each.text} for each in fillings
                ]
                print(json.dumps({"text": text, "mask": number, "tokens": tokens}, ensure_ascii=False))
            else:
                print(table([(f"{each.probability:.4f}", each.token, each.text) for each in fillings], right=(0,)))
                print()
    return 0
