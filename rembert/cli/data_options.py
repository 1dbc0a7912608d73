"""The arguments that the task commands share: data files, the model, and the tasks' own options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rembert.common.errors import InputError
from rembert.common.files import atomic_path
from rembert.tasks import TASKS, DataOptions, Option
from rembert.tasks.backends import FRAMEWORKS, default_framework
from rembert.tasks.reading import READERS
from rembert.tasks.registry import task_class

_COLUMNS = ("text", "text_pair", "label", "id", "language")
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_task_argument(parser: argparse.ArgumentParser) -> None:
    """Declare TASK."""
    parser.add_argument("task", metavar="TASK", choices=TASKS, help=", ".join(TASKS))


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how files are read, and the options of all tasks."""
    data = parser.add_argument_group("data")
    data.add_argument("--format", choices=READERS, help="of the files; by default found by content and name")
    add_file_arguments(data)
    for name in _COLUMNS:
        flag = f"--{name.replace('_', '-')}-column"
        data.add_argument(flag, metavar="NAME", help=f"the column of the {name.replace('_', ' ')}, or its number")
    data.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="the column of another of the task's fields, for example context=passage; may be repeated",
    )
    data.add_argument("--language", metavar="CODE", help="the language of examples that name none")
    data.add_argument("--skip-bad-lines", action="store_true", help="skip malformed lines and count them")
    data.add_argument(
        "--max-length", type=int, metavar="N", help="of a row, in tokens (the model's max_position_embeddings)"
    )
    own = parser.add_argument_group("options of some tasks")
    for option, tasks in _declared_options().values():
        own.add_argument(_flag(option), dest=option.name, help=_help(option, tasks), **_argument(option))


def add_file_arguments(parser: Any) -> None:
    """Declare how the content of files is read."""
    parser.add_argument("--encoding", metavar="NAME", help="of the files, for example cp1252 (default: utf-8)")
    parser.add_argument("--delimiter", metavar="CHARACTER", help="of tables; by default found in their first line")
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a table names the columns (default: unless columns are given by number)",
    )


def _declared_options() -> dict[str, tuple[Option, list[str]]]:
    """Every option by name, with the tasks that declare it.

    Raises:
        InputError: two tasks declare different options of one name, which cannot share a flag.
    """
    found: dict[str, tuple[Option, list[str]]] = {}
    for task in TASKS:
        for option in task_class(task).options:
            first, tasks = found.setdefault(option.name, (option, []))
            if option != first:
                raise InputError(
                    f"Tasks must declare an option of one name alike. Received: `{option.name}` of {task}, which "
                    f"differs from that of {tasks[0]}."
                )
            tasks.append(task)
    return found


def _flag(option: Option) -> str:
    return f"--{(option.flag or option.name).replace('_', '-')}"


def _help(option: Option, tasks: list[str]) -> str:
    default = ("yes" if option.default else "no") if option.type is bool else option.default
    suffix = "" if default is None else f" (default: {default})"
    return f"{', '.join(tasks)}: {option.help}{suffix}".replace("%", "%%")


def _argument(option: Option) -> dict[str, Any]:
    """What argparse needs to know. The default is None: what is not given is left to the task."""
    if option.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    if option.choices:
        return {"choices": option.choices}
    if option.type is list:
        return {"nargs": "+", "metavar": "NAME"}
    return {"type": option.type, "metavar": _METAVARS[option.type]}


def add_framework_argument(parser: Any) -> None:
    """Declare which framework a model runs in."""
    parser.add_argument(
        "--framework",
        choices=FRAMEWORKS,
        default=default_framework(),
        help="by default pt, or the one that is installed",
    )


def add_model_arguments(parser: argparse.ArgumentParser, *, batch_flag: str = "--batch-size") -> None:
    """Declare which model runs, and how; `batch_flag` is another name where a recipe has a batch size, too."""
    model = parser.add_argument_group("model")
    add_framework_argument(model)
    model.add_argument(batch_flag, type=int, default=32, metavar="N", help="rows at once (default: %(default)s)")
    add_device_argument(model)


def add_device_argument(parser: Any) -> None:
    """Declare where a model runs."""
    parser.add_argument("--device", help="PyTorch: where to run, for example cpu or cuda (default: a GPU if present)")


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
    own = {name: getattr(args, name) for name in ("encoding", "delimiter", "header")}
    return DataOptions(args.format, columns, args.language, args.skip_bad_lines, **own)


def task_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given for the task.

    Raises:
        InputError: one belongs to another task.
    """
    given = {}
    for name, (option, tasks) in _declared_options().items():
        value = getattr(args, name)
        if value is None:
            continue
        if args.task not in tasks:
            raise InputError(f"`{_flag(option)}` must be used with {' or '.join(tasks)}. Received: {args.task}.")
        given[name] = value
    return given


def check_output(path: Path | None, flag: str = "--output") -> None:
    """Refuse a file that could not be written, before any work; `flag` named it.

    Raises:
        InputError: its directory does not exist, or it is a directory itself, a device or a pipe.
    """
    if path is not None and ((path.exists() and not path.is_file()) or not path.parent.is_dir()):
        raise InputError(f"`{flag}` must be a file in an existing directory. Received: {path}.")


@contextmanager
def opened_output(path: Path | None) -> Iterator[TextIO]:
    """The standard output, or a file that appears when it is complete, with line ends as they are written."""
    if path is None:
        yield sys.stdout
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream


def score_lines(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Scores as rows of a table."""
    return [(name, f"{value:.4f}") for name, value in scores.items()]
