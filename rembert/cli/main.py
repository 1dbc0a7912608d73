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
from rembert.common.signals import leaving_on_sigterm

# Each command with its line in `rembert --help`. Its module here, with `add_parser(subparsers)`, is imported when the
# command is called, and imports no framework until it runs.
COMMANDS = {
    "demo": "convert, compare, train and score a checkpoint with all that is installed",
    "convert": "write a checkpoint in another format",
    "inspect": "say what a checkpoint is",
    "diff": "compare the tensors of two checkpoints",
    "verify": "run two checkpoints and compare their outputs",
    "export": "write a model for another runtime",
    "average": "write the mean of several checkpoints' weights",
    "trim": "keep only the tokens that some text needs",
    "tokenize": "show the tokens or ids of text",
    "finetune": "train a checkpoint for a task on files of examples",
    "evaluate": "score a fine-tuned checkpoint on files of examples",
    "predict": "write the predictions of a fine-tuned checkpoint as JSON lines",
    "fill-mask": "show the most likely tokens under [MASK]",
    "embed": "write vectors of texts to a .npy file",
    "xtreme": "train, predict and score the benchmark XTREME as in RemBERT's paper",
    "score": "score translations or other texts against references with BLEURT",
}

DONE, WRONG_DATA, WRONG_CALL, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (by default the process's own).

    Returns:
        the exit code: 0 done, 1 the data is wrong, 2 the call is wrong.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a damaged file may hold names that no terminal can show
    try:
        words = sys.argv[1:] if argv is None else argv
        args = _parser(words[:1]).parse_args(words)
        with leaving_on_sigterm():
            code: int = args.run(args)
            sys.stdout.flush()
        return code
    except SystemExit as leaving:  # argparse has said what was wrong, or shown the help; or SIGTERM
        _show_notes(leaving)
        return leaving.code if isinstance(leaving.code, int) else WRONG_CALL
    except InputError as problem:
        return _fail(problem, WRONG_CALL)
    except RemBertError as problem:
        return _fail(problem, WRONG_DATA)
    except KeyboardInterrupt as problem:
        return _fail(problem, INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not try to write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as problem:
        return _fail(problem, WRONG_DATA)


def _parser(called: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the whole command line; of the subcommands, only the one in `called` has its arguments."""
    parser = argparse.ArgumentParser(
        prog="rembert",
        description="RemBERT checkpoints: convert, inspect, compare, fine-tune, evaluate, predict.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rembert {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if name in called:
            import_module(f"rembert.cli.{name.replace('-', '_')}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser


def _fail(problem: BaseException, code: int) -> int:
    print(f"rembert: {' '.join(str(problem).split()) or 'interrupted'}", file=sys.stderr)
    _show_notes(problem)
    return code


def _show_notes(problem: BaseException) -> None:
    for note in getattr(problem, "__notes__", ()):
        print(f"rembert: {note}", file=sys.stderr)
