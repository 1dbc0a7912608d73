"""`rembert trim SRC DST --corpus FILE …`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rembert.bridge import TARGETS
from rembert.bridge.trimmed_vocabulary import Changed
from rembert.bridge.trimming import Trimming, trim


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "trim",
        description="Write the checkpoint SRC as a new directory DST with a smaller vocabulary: the tokens of a "
        "corpus or a list, special and added tokens, and single characters.",
    )
    parser.add_argument(
        "source", metavar="SRC", help="a checkpoint directory with its tokenizer, or a name on the Hub"
    )
    parser.add_argument("target", metavar="DST", type=Path, help="the new directory")
    parser.add_argument(
        "--corpus", metavar="FILE", type=Path, nargs="+", default=[], help="text files, gzip too, a text in each line"
    )
    parser.add_argument("--keep-tokens", metavar="FILE", type=Path, help="a file with a token to keep in each line")
    parser.add_argument("--min-count", metavar="N", type=int, default=1, help="drop tokens rarer than N (default: 1)")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="keep at most N tokens, the most frequent ones")
    parser.add_argument(
        "--other", metavar="FILE", type=Path, nargs="+", default=[], help="text files to report on: what would change"
    )
    parser.add_argument("--to", choices=TARGETS, default="pt", help="the format (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace an existing checkpoint at DST")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trim and print the report."""
    done = trim(
        args.source,
        args.target,
        corpus=args.corpus,
        keep_tokens=args.keep_tokens,
        min_count=args.min_count,
        max_tokens=args.max_tokens,
        other=args.other,
        to=args.to,
        force=args.force,
    )
    if args.json:
        print(json.dumps(asdict(done), default=str, indent=2))
    elif not args.quiet:
        print("\n".join(_lines(done)))
    return 0


def _lines(done: Trimming) -> list[str]:
    lines = [
        f"{done.source} -> {done.target} in {done.seconds:.1f} s",
        f"tokens      {done.tokens_before:,} -> {done.tokens_after:,}",
        f"parameters  {done.parameters_before:,} -> {done.parameters_after:,} "
        f"({1 - done.parameters_after / done.parameters_before:.0%} fewer)",
    ]
    for changed, what in (
        (done.corpus, "the corpus"),
        (done.held_out, "other text of its kind (estimated on each tenth line)"),
        (done.other, "the other text"),
    ):
        if changed is not None:
            lines.append(f"{_described(changed)} of {what}")
    return lines


def _described(changed: Changed) -> str:
    share = changed.changed / max(changed.lines, 1)
    more = changed.tokens_after / max(changed.tokens_before, 1) - 1
    return f"changed     {changed.changed:,} of {changed.lines:,} lines ({share:.2%}; {more:+.2%} tokens)"
