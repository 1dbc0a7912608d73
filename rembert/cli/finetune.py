"""`rembert finetune TASK`: train a checkpoint on files of examples."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rembert.cli.data_options import (
    add_data_arguments,
    add_framework_argument,
    add_task_argument,
    data_options,
    score_lines,
    task_options,
)
from rembert.cli.text import table
from rembert.common.errors import InputError
from rembert.training import Recipe, finetune
from rembert.training.recipe import PRECISIONS, SCHEDULES

_INTEGER, _NUMBER, _FLAG = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}, {"action": "store_true"}
# Each key of a recipe that has a flag of its name, with what is said of it.
_RECIPE: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": (_NUMBER, "times through the training data"),
    "max_steps": (_INTEGER, "stop after so many updates"),
    "batch_size": (_INTEGER, "examples of an update, over all devices"),
    "accumulation_steps": (_INTEGER, "compute each batch in so many parts: less memory, the same result"),
    "learning_rate": (_NUMBER, "at the end of the warm-up"),
    "schedule": ({"choices": SCHEDULES}, "of the rate after the warm-up"),
    "warmup": (_NUMBER, "the part of all updates in which the rate rises"),
    "weight_decay": (_NUMBER, "decoupled, on kernels and tables"),
    "layer_decay": (_NUMBER, "rate of a layer as a part of the rate of the layer above"),
    "beta1": (_NUMBER, "of AdamW"),
    "beta2": (_NUMBER, "of AdamW"),
    "epsilon": (_NUMBER, "of AdamW"),
    "max_grad_norm": (_NUMBER, "clip gradients to this global norm; 0 for no clipping"),
    "label_smoothing": (_NUMBER, "the part of a label's probability that is spread evenly"),
    "dropout": (_NUMBER, "everywhere in the model; -1 for what the checkpoint's config says"),
    "freeze_embeddings": (_FLAG, "do not train the input embeddings"),
    "precision": ({"choices": PRECISIONS}, "of the computation"),
    "gradient_checkpointing": (_FLAG, "compute activations twice: less memory, more time"),
    "seed": (_INTEGER, "of order, fresh weights, masks and dropout"),
    "eval_steps": (_INTEGER, "evaluate after so many updates (each epoch)"),
    "save_steps": (_INTEGER, "write a checkpoint after so many updates, too"),
    "log_steps": (_INTEGER, "write the loss after so many updates"),
    "patience": (_INTEGER, "stop after so many evaluations without a better score"),
    "metric": ({"metavar": "NAME"}, "the score that says which model is best (the task's own)"),
}


def add_parser(subparsers: Any) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "finetune",
        help="train a checkpoint for a task on files of examples",
        description="Train a checkpoint on files of examples and write the best model, its tokenizer, metrics.jsonl, "
        "curves.png, TensorBoard events and a model card into a directory that both frameworks load. A run that was "
        "killed goes on with --resume and gives the same result.",
    )
    add_task_argument(parser)
    parser.add_argument("--model", required=True, metavar="CHECKPOINT", help="the checkpoint to begin with")
    parser.add_argument("--train", required=True, nargs="+", metavar="FILE", help="examples to train on")
    parser.add_argument("--eval", nargs="+", metavar="FILE", help="labelled examples to score the model on")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new or empty directory")
    add_framework_argument(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR, or begin it")
    parser.add_argument("--from-scratch", action="store_true", help="take CHECKPOINT's config and tokenizer only")
    parser.add_argument("--sharded", action="store_true", help="PyTorch, under torchrun: spread the weights (FSDP2)")
    parser.add_argument("--quiet", action="store_true", help="print only the scores, and errors")
    add_data_arguments(parser)
    recipe = parser.add_argument_group("recipe", "Defaults are the task's; see rembert.tasks.Recipe.")
    defaults = asdict(Recipe())
    for name, (argument, text) in _RECIPE.items():
        default = "" if defaults[name] is None or name in _BY_TASK or argument is _FLAG else f" ({defaults[name]})"
        recipe.add_argument(
            f"--{name.replace('_', '-')}", default=None, help=(text + default).replace("%", "%%"), **argument
        )
    recipe.add_argument("--bf16", action="store_true", help="short for --precision bfloat16")
    parser.set_defaults(run=run)


_BY_TASK = ("learning_rate", "batch_size")


def run(args: argparse.Namespace) -> int:
    """Train and print the scores; 0 when all is done. Wrong data raises `RemBertError`."""
    scores = finetune(
        args.task,
        args.model,
        args.train,
        evaluation=args.eval,
        output=args.output,
        framework=args.framework,
        recipe=_recipe(args),
        data=data_options(args),
        options=task_options(args),
        resume=args.resume,
        from_scratch=args.from_scratch,
        sharded=args.sharded,
        say=None if args.quiet else _say,
    )
    if scores:  # the first process of several has them all; the others say nothing
        print(table(score_lines(scores), right=(1,)))
    return 0


def _recipe(args: argparse.Namespace) -> Recipe:
    """The task's recipe with what was given.

    Raises:
        InputError: a value outside its range, or `--bf16` beside another precision.
    """
    names = [field.name for field in fields(Recipe)]
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if args.bf16 and given.setdefault("precision", "bfloat16") != "bfloat16":
        raise InputError(f"`--bf16` and `--precision` must agree. Received: `--precision {given['precision']}`.")
    if given.get("max_grad_norm") == 0:
        given["max_grad_norm"] = None
    if given.get("dropout") == -1:
        given["dropout"] = None
    return Recipe.for_task(args.task, **given)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
