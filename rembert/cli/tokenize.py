"""`rembert tokenize`: text to tokens, ids or JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.errors import InputError
from rembert.common.text_lines import STANDARD_INPUT, text_batches
from rembert.common.tokenization import RemBertTokenizer


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the subcommand and its arguments."""
    parser = subparsers.add_parser(
        "tokenize",
        description="Encode text, one line of output per line of text. Memory is bounded by the longest line.",
    )
    parser.add_argument("tokenizer", help="a directory with a tokenizer, a sentencepiece.model or a tokenizer.json")
    parser.add_argument("text", nargs="*", help="texts; without any, lines of --file or of the standard input")
    parser.add_argument("--file", metavar="PATH", help="a UTF-8 text file, gzip too; - is the standard input")
    parser.add_argument(
        "--to",
        choices=("tokens", "ids", "jsonl"),
        default="tokens",
        help="tokens or ids separated by spaces, or JSON objects with ids, tokens and offsets (default: %(default)s)",
    )
    parser.add_argument("--no-special-tokens", action="store_true", help="leave out [CLS] and [SEP]")
    parser.add_argument("--max-length", type=int, metavar="N", help="cut lines to N tokens, [CLS] and [SEP] included")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Print the result. Wrong data raises `RemBertError`."""
    if args.text and args.file is not None:
        args.parser.error("give texts or --file, not both")
    check_argument("--max-length", args.max_length, optional(integer(at_least=1)))
    tokenizer = RemBertTokenizer.from_pretrained(args.tokenizer)
    source = args.file or STANDARD_INPUT
    if not args.text and source == STANDARD_INPUT and sys.stdin is None:
        raise InputError("There must be text, a --file or a standard input. Received: none of them.")
    for batch in [args.text] if args.text else text_batches(source):
        for line in _encoded(tokenizer, batch, args):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


def _encoded(tokenizer: RemBertTokenizer, batch: list[str], args: argparse.Namespace) -> Iterator[str]:
    rows = tokenizer(
        batch,
        add_special_tokens=not args.no_special_tokens,
        truncation=args.max_length is not None,
        max_length=args.max_length,
        return_offsets_mapping=args.to == "jsonl",
        return_token_type_ids=False,
        return_attention_mask=False,
        verbose=False,
    )
    for number, ids in enumerate(rows["input_ids"]):
        if args.to == "ids":
            yield " ".join(map(str, ids))
            continue
        tokens = tokenizer.convert_ids_to_tokens(ids)
        if args.to == "tokens":
            yield " ".join(tokens)
        else:
            offsets = rows["offset_mapping"][number]
            yield json.dumps({"input_ids": ids, "tokens": tokens, "offsets": offsets}, ensure_ascii=False)
