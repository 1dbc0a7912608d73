"""The `rembert` command: which subcommands there are, and what becomes of an error."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from rembert import __version__
from rembert.common.errors import InputError, RemBertError

# Each is a module here with `add_parser(subparsers)`. It imports no framework until it runs.
COMMANDS = (
    "demo",
    "convert",
    "inspect",
    "diff",
    "verify",
    "export",
    "trim",
    "tokenize",
    "finetune",
    "evaluate",
    "predict",
    "fill-mask",
    "embed",
    "score",
)

DONE, WRONG_DATA, WRONG_CALL, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own).

    Returns:
        the exit code: 0 done, 1 the data is wrong, 2 the call is wrong.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a damaged file may hold names that no terminal can show
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse has said what was wrong, or shown the help
        return leaving.code if isinstance(leaving.code, int) else WRONG_CALL
    except InputError as problem:
        return _fail(problem, WRONG_CALL)
    except RemBertError as problem:
        return _fail(problem, WRONG_DATA)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not try to write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as problem:
        return _fail(problem, WRONG_DATA)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rembert",
        description="RemBERT checkpoints: convert, inspect, compare, fine-tune, evaluate, predict.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rembert {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"rembert.cli.{name.replace('-', '_')}").add_parser(subparsers)
    return parser


def _fail(problem: object, code: int) -> int:
    print(f"rembert: {' '.join(str(problem).split())}", file=sys.stderr)
    return code
