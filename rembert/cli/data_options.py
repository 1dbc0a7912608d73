"""The arguments that commands on tasks share: data files, the model, and what each task may be told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rembert.common.collation.masking import STRATEGIES
from rembert.common.config import PROBLEM_TYPES
from rembert.common.errors import InputError
from rembert.common.files import atomic_path
from rembert.tasks import TASKS, DataOptions
from rembert.tasks.frameworks import FRAMEWORKS, default_framework
from rembert.tasks.reading import FORMATS
from rembert.tasks.token_classification import SCHEMES

_COLUMNS = ("text", "text_pair", "label", "id", "language")


class TaskOption(NamedTuple):
    """An option that some tasks have, as an argument of the command line and of the task's class."""

    tasks: tuple[str, ...]
    argument: dict[str, Any]


_LANGUAGE_MODELS = ("masked-lm", "causal-lm")
TASK_OPTIONS: dict[str, TaskOption] = {
    "problem_type": TaskOption(
        ("sequence-classification",),
        {"choices": PROBLEM_TYPES, "help": "what labels are, where it shall not be found in the data"},
    ),
    "label_separator": TaskOption(
        ("sequence-classification",),
        {"metavar": "TEXT", "help": "between the names of several classes in one label"},
    ),
    "scheme": TaskOption(("token-classification",), {"choices": SCHEMES, "help": "of the files' tags"}),
    "stride": TaskOption(
        ("question-answering",),
        {"type": int, "metavar": "N", "help": "pieces that two windows of a context have in common (128)"},
    ),
    "max_question_length": TaskOption(
        ("question-answering",), {"type": int, "metavar": "N", "help": "in pieces (64)"}
    ),
    "max_answer_length": TaskOption(("question-answering",), {"type": int, "metavar": "N", "help": "in pieces (30)"}),
    "n_best": TaskOption(("question-answering",), {"type": int, "metavar": "N", "help": "answers looked at (20)"}),
    "no_answer_threshold": TaskOption(
        ("question-answering",),
        {"type": float, "metavar": "X", "help": "give no answer where its score is higher than the best's by X"},
    ),
    "first_choice": TaskOption(
        ("multiple-choice",), {"type": int, "metavar": "N", "help": "the label of the first choice (0)"}
    ),
    "mask_probability": TaskOption(("masked-lm",), {"type": float, "metavar": "P", "help": "part masked (0.15)"}),
    "masking": TaskOption(("masked-lm",), {"choices": STRATEGIES, "help": "what is masked together (piece)"}),
    "every_piece": TaskOption(
        ("masked-lm",),
        {"action": "store_true", "default": None, "help": "score by masking every piece in turn (pseudo-perplexity)"},
    ),
    "join": TaskOption(
        _LANGUAGE_MODELS,
        {"action": argparse.BooleanOptionalAction, "help": "put short texts together in training (yes)"},
    ),
}


def add_task_argument(parser: argparse.ArgumentParser) -> None:
    """Declare TASK."""
    parser.add_argument("task", metavar="TASK", choices=TASKS, help=", ".join(TASKS))


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how files are read, and each task's own options."""
    data = parser.add_argument_group("data")
    data.add_argument("--format", choices=FORMATS, help="of the files; by default found by their names")
    for name in _COLUMNS:
        flag = f"--{name.replace('_', '-')}-column"
        data.add_argument(flag, metavar="NAME", help=f"the column (JSON: key) of the {name.replace('_', ' ')}")
    data.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="the column of another of the task's fields, as context=passage; may be repeated",
    )
    data.add_argument("--language", metavar="CODE", help="the language of examples that name none")
    data.add_argument("--skip-bad-lines", action="store_true", help="leave bad lines out and count them")
    data.add_argument(
        "--max-length", type=int, metavar="N", help="of a row, in pieces (the model's max_position_embeddings)"
    )
    own = parser.add_argument_group("of some tasks")
    for name, option in TASK_OPTIONS.items():
        text = f"{', '.join(option.tasks)}: {option.argument['help']}"
        own.add_argument(f"--{name.replace('_', '-')}", **{**option.argument, "help": text})


def add_framework_argument(parser: Any) -> None:
    """Declare which framework a model runs in."""
    parser.add_argument(
        "--framework", choices=FRAMEWORKS, default=default_framework(), help="by default pt, or what is installed"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which model runs, and how."""
    model = parser.add_argument_group("model")
    add_framework_argument(model)
    model.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows at once (default: %(default)s)")
    model.add_argument("--device", help="PyTorch: where to run, as cpu or cuda (default: a GPU where there is one)")


def data_options(args: argparse.Namespace) -> DataOptions:
    """How files are read.

    Raises:
        InputError: a `--column` that is not of the form FIELD=NAME.
    """
    columns = {name: column for name in _COLUMNS if (column := getattr(args, f"{name}_column")) is not None}
    for pair in args.column:
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise InputError(f"`--column` must be FIELD=NAME. Received: {pair!r}.")
        columns[name.replace("-", "_")] = column
    return DataOptions(args.format, columns, args.language, args.skip_bad_lines)


def task_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given for the task.

    Raises:
        InputError: one is another task's.
    """
    given = {name: value for name in TASK_OPTIONS if (value := getattr(args, name)) is not None}
    for name in given:
        tasks = TASK_OPTIONS[name].tasks
        if args.task not in tasks:
            raise InputError(f"`--{name.replace('_', '-')}` is for {' and '.join(tasks)}. Received: {args.task}.")
    return given


def check_output(path: Path | None) -> None:
    """Refuse, before any work, a file that cannot be written in the end.

    Raises:
        InputError: its directory is not there, or it is a directory.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(f"--output must be a file in a directory that is there. Received: {path}.")


@contextmanager
def opened_output(path: Path | None) -> Iterator[TextIO]:
    """The standard output, or a file that appears when it is complete and whose line ends are as written."""
    if path is None:
        yield sys.stdout
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream


def score_lines(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Scores as rows of a table."""
    return [(name, f"{value:.4f}") for name, value in scores.items()]
