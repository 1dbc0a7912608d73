"""The arguments of `finetune` that make several runs: seeds, folds, a search for settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rembert.cli.text import table
from rembert.common.errors import InputError
from rembert.training.series import Series

_KINDS = ("seeds", "folds", "trials")


def add_series_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    group = parser.add_argument_group("several runs", "in directories inside DIR, with a summary.json of their scores")
    group.add_argument("--seeds", type=int, nargs="+", metavar="N", help="a run with each seed")
    group.add_argument("--folds", type=int, metavar="K", help="cross-validation on the training data, without --eval")
    group.add_argument("--trials", type=int, metavar="N", help="runs with the settings that Optuna proposes")
    group.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="KEY=LOW:HIGH",
        help="with --trials: keys of a recipe with their ranges, for example learning_rate=1e-6:1e-4, or KEY=A,B,C",
    )


def run_series(args: argparse.Namespace, settings: Mapping[str, Any]) -> str | None:
    """Make the runs that the arguments ask for; a table of the scores, or None if they ask for one run.

    Raises:
        InputError: the arguments contradict each other.
    """
    given = [name for name in _KINDS if getattr(args, name) is not None]
    if len(given) > 1 or (args.folds is not None and args.eval) or bool(args.search) != (args.trials is not None):
        raise InputError(
            "`--seeds`, `--folds` (without --eval) and `--trials` (with --search) exclude each other. Received: "
            f"{' and '.join(f'--{name}' for name in [*given, *(['search'] if args.search else [])])}."
        )
    if not given:
        return None
    if args.trials is not None and args.eval is None:
        raise InputError("`--trials` needs examples to compare the runs on (--eval). Received: none.")
    rest = {name: value for name, value in settings.items() if name != "evaluation"}
    series = Series(args.task, args.model, **rest)
    if args.seeds is not None:
        summary = series.seeds(args.train, args.seeds, args.eval)
    elif args.folds is not None:
        summary = series.folds(args.train, args.folds)
    else:
        summary = series.search(args.train, args.eval, dict(map(_range, args.search)), args.trials)
    return _table(summary)


def _table(summary: Mapping[str, Any]) -> str:
    names = list(summary["mean"])
    rows = [[run["run"], *(f"{run[name]:.4f}" for name in names)] for run in summary["runs"]]
    for kind in ("mean", "std"):
        rows.append([kind, *(f"{summary[kind][name]:.4f}" for name in names)])
    best = [["best", summary["best"]]] if "best" in summary else []
    text = table([["run", *names], *rows], right=range(1, len(names) + 1))
    return text + "".join(f"\n{name}: {run}" for name, run in best)


def _range(text: str) -> tuple[str, Any]:
    """'KEY=LOW:HIGH' or 'KEY=A,B' as the key and its range or its values."""
    name, _, values = text.partition("=")
    low, colon, high = values.partition(":")
    try:
        if colon:
            return name.replace("-", "_"), (_number(low), _number(high))
        if values:
            return name.replace("-", "_"), [_value(each) for each in values.split(",")]
    except ValueError:
        pass
    raise InputError(f"`--search` must be KEY=LOW:HIGH with numbers, or KEY=A,B,C. Received: {text!r:.80}.")


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _value(text: str) -> Any:
    try:
        return _number(text)
    except ValueError:
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)
